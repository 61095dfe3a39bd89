//! Batch-norm synchronized over several processes, as PyTorch's `SyncBatchNorm`: sums run over the
//! images of all processes.

use std::cell::RefCell;
use std::rc::Rc;

/// Sums values over all processes, element by element.
type Reduce = Rc<dyn Fn(&mut [f64])>;

thread_local!(static REDUCE: RefCell<Option<Reduce>> = const { RefCell::new(None) });

/// Ends the synchronization of its thread when it is dropped.
#[must_use]
pub struct SynchronizeGuard(());

impl Drop for SynchronizeGuard {
    fn drop(&mut self) {
        REDUCE.take();
    }
}

/// Makes batch statistics and their gradients that this thread computes on the CPU cover all
/// processes; `reduce` sums values over the processes. All processes must compute the same
/// operations in the same order.
pub fn synchronize(reduce: impl Fn(&mut [f64]) + 'static) -> SynchronizeGuard {
    REDUCE.set(Some(Rc::new(reduce)));
    SynchronizeGuard(())
}

/// Replaces values by their sums over all processes. Does nothing without synchronization.
pub(crate) fn sum(values: &mut [f64]) {
    // Not borrowed during the call.
    let reduce = REDUCE.with_borrow(Clone::clone);
    if let Some(reduce) = reduce {
        reduce(values);
    }
}

/// Returns whether this thread synchronizes with other processes.
pub(crate) fn is_on() -> bool {
    REDUCE.with_borrow(Option::is_some)
}

/// Returns the sum of `count` over all processes.
pub fn total(count: usize) -> f64 {
    let mut total = [count as f64];
    sum(&mut total);
    total[0]
}
