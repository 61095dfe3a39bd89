//! Numbers with units, for people.

use mbconv_train::metrics::{shows_top5, wilson_interval};

/// Formats 1234567 as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Formats a count like [`thousands`].
pub fn count(number: usize) -> String {
    thousands(number as u64)
}

/// Formats 0.97531 as `97.53 %`.
pub fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}

/// Formats a missing value as a dash.
pub fn percent_or_dash(fraction: Option<f64>) -> String {
    fraction.map_or("–".into(), percent)
}

/// Formats accuracies as `top-1 97.53 %, top-5 99.12 %`; top-5 is omitted if it is always 100 %.
pub fn accuracy(top1: f64, top5: f64, classes: usize) -> String {
    let top5 = if shows_top5(classes) { format!(", top-5 {}", percent(top5)) } else { String::new() };
    format!("top-1 {}{top5}", percent(top1))
}

/// Formats accuracies like [`accuracy`], with the 95 % interval of the top-1 accuracy on `images`
/// images.
pub fn accuracy_with_interval(top1: f64, top5: f64, images: usize, classes: usize) -> String {
    let hits = (top1 * images as f64).round() as usize;
    let top1_only = percent(top1);
    let with_interval = format!("{top1_only} {}", interval(wilson_interval(hits, images)));
    accuracy(top1, top5, classes).replacen(&top1_only, &with_interval, 1)
}

/// Formats a 95 % interval as `(95 % interval 94.10–98.22)`, in percent.
pub fn interval([low, high]: [f64; 2]) -> String {
    format!("(95 % interval {:.2}–{:.2})", 100.0 * low, 100.0 * high)
}

/// Formats 43210000 as `43.2 MB`.
pub fn bytes(number: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.into_iter().find(|(size, _)| number as f64 >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", number as f64 / size),
        None => format!("{number} bytes"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_have_units() {
        for (number, text) in [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (43_210_000, "43.2 MB")] {
            assert_eq!(super::bytes(number), text);
        }
    }

    #[test]
    fn thousands_are_separated_by_commas() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (2_236_682, "2,236,682")] {
            assert_eq!(super::thousands(number), text);
        }
    }
}
