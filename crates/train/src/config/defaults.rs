//! Default values that several sections share, in the form that serde expects.

pub(super) fn yes() -> bool {
    true
}

pub(super) fn half() -> f64 {
    0.5
}

pub(super) fn one() -> f64 {
    1.0
}

pub(super) fn one_count() -> usize {
    1
}
