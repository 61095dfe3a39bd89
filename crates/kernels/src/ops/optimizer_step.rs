//! Steps of optimizers and of a moving average, for all tensors of a network at once: on a GPU,
//! launching a kernel per tensor would take longer than the arithmetic.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::backend::{Backend, Dispatch, DispatchTensor};

use crate::backend::Kernels;
pub use crate::types::optimizer_step::{OptimizerStep, SCALARS};
use crate::types::tensors::Tensors;

/// Number of updates by [`optimizer_step`] and [`lerp`] that were not in place.
static COPIES: AtomicUsize = AtomicUsize::new(0);

/// Returns the number of updates on GPUs of this process that copied a parameter, moment or average
/// instead of changing it in place, for instance because its memory was shared. Queued operations
/// count once they have run.
pub fn copies() -> usize {
    COPIES.load(Ordering::Relaxed)
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) fn count_copy() {
    COPIES.fetch_add(1, Ordering::Relaxed);
}

/// Writes `values` into the memory of `targets` even if it is shared, and returns `targets`. Shapes
/// must be equal, and all tensors contiguous in single precision. Only GPUs write in place; other
/// backends return `values`.
pub fn overwrite(targets: Vec<DispatchTensor>, values: Vec<DispatchTensor>) -> Vec<DispatchTensor> {
    Dispatch::overwrite(Tensors(targets), Tensors(values)).0
}

/// Parameters with their gradients and moments: lists of the same length and shapes, except that
/// the list of an unused moment is empty.
pub struct OptimizerTensors {
    /// The parameters to update.
    pub parameters: Vec<DispatchTensor>,
    /// Their gradients, which are consumed.
    pub gradients: Vec<DispatchTensor>,
    /// Their first and second moments.
    pub moments: [Vec<DispatchTensor>; 2],
}

/// Numbers in a device's memory, `[N]` in single precision without autodiff. An operation reads
/// them when it runs rather than when it is queued, so that each replay of a recorded operation can
/// use other scalars.
#[derive(Clone, Debug)]
pub struct StepScalars {
    /// The tensor with all scalars.
    pub all: DispatchTensor,
    /// Index of the operation's first number.
    pub start: usize,
}

impl StepScalars {
    fn parts<B: Backend<FloatTensorPrimitive = DispatchTensor>>(scalars: Option<Self>) -> (Tensors<B>, usize) {
        scalars.map_or((Tensors(Vec::new()), 0), |Self { all, start }| (Tensors(vec![all]), start))
    }
}

/// Returns parameters and moments after a step, in the same order. Tensors whose memory is not
/// shared are changed in place. If given, `scalars` replace those of `step`, in the order of
/// [`OptimizerStep::scalars`].
///
/// # Panics
///
/// If the lists differ in length or shapes, or if the tensors are not all on one device, without
/// autodiff and in single precision.
pub fn optimizer_step(
    tensors: OptimizerTensors,
    step: OptimizerStep,
    scalars: Option<StepScalars>,
) -> (Vec<DispatchTensor>, [Vec<DispatchTensor>; 2]) {
    let OptimizerTensors { parameters, gradients, moments: [first, second] } = tensors;
    let [parameters, gradients, first, second] = [parameters, gradients, first, second].map(Tensors);
    let (scalars, start) = StepScalars::parts(scalars);
    let (parameters, first, second) =
        Dispatch::optimizer_step(parameters, gradients, first, second, scalars, start, step);
    (parameters.0, [first.0, second.0])
}

/// Returns `keep · average + take · value` for every average, with `[keep, take]` from `shares`.
/// Averages whose memory is not shared are changed in place. If given, the two `scalars` replace
/// all `shares`.
///
/// # Panics
///
/// As [`optimizer_step`].
pub fn lerp(
    averages: Vec<DispatchTensor>,
    values: Vec<DispatchTensor>,
    shares: impl IntoIterator<Item = [f64; 2]>,
    scalars: Option<StepScalars>,
) -> Vec<DispatchTensor> {
    let shares = shares.into_iter().map(|shares| shares.map(|share| share as f32)).collect();
    let (scalars, start) = StepScalars::parts(scalars);
    Dispatch::lerp(Tensors(averages), Tensors(values), scalars, start, shares).0
}
