//! Batch-norm over several processes: sums over the images of one become sums over the images of all.

use std::cell::RefCell;
use std::rc::Rc;

/// Adds up numbers over all processes, element by element.
type Reduce = Rc<dyn Fn(&mut [f64])>;

thread_local!(static REDUCE: RefCell<Option<Reduce>> = const { RefCell::new(None) });

/// Ends the synchronisation of its thread when it is dropped.
#[must_use]
pub struct Synchronised(());

impl Drop for Synchronised {
    fn drop(&mut self) {
        REDUCE.take();
    }
}

/// From now on, batch statistics and their gradients that this thread computes on the CPU are those of all processes, whose
/// sums `reduce` makes. All processes must compute the same operations in the same order.
pub fn synchronise(reduce: impl Fn(&mut [f64]) + 'static) -> Synchronised {
    REDUCE.set(Some(Rc::new(reduce)));
    Synchronised(())
}

/// The sums over all processes in place of this one's; nothing happens where it is by itself.
pub(crate) fn sum(values: &mut [f64]) {
    // Not borrowed during the call.
    let reduce = REDUCE.with_borrow(Clone::clone);
    if let Some(reduce) = reduce {
        reduce(values);
    }
}

/// Whether there are other processes.
pub(crate) fn is_on() -> bool {
    REDUCE.with_borrow(Option::is_some)
}

/// How many there are in all, if here are `count`.
pub fn total(count: usize) -> f64 {
    let mut total = [count as f64];
    sum(&mut total);
    total[0]
}
