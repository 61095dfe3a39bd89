//! Steps of optimizers and of a moving average, for all tensors of a network at once: on a GPU,
//! launching a kernel per tensor would take longer than the arithmetic.

use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use burn::backend::fusion::{
    ExecutionError, Fusion, FusionBackend, FusionRuntime, FusionTensor,
    custom::{
        ExtensionMetadata, Float, FusionValueAdapter, HandleContainer, OutputTensor, TensorId, TensorIr, TensorSpec,
    },
};
use burn::backend::{
    Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, ExtensionType,
    tensor::FloatTensor,
};

use crate::extension::Kernels;

/// An optimizer's update rule with the numbers of one step, for a gradient `g` of a parameter `p`.
/// All arithmetic is in single precision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Descent {
    /// PyTorch's `SGD`: `g ← g + decay·p`, `b ← momentum·b + g`, `p ← p - lr·b`; with Nesterov
    /// momentum `p ← p - lr·(g + momentum·b)`. Without the first moment `b`: `p ← p - lr·g`.
    Sgd {
        /// Weight decay, as an L2 penalty.
        decay: f32,
        /// Decay factor of the first moment.
        momentum: f32,
        /// Whether to use Nesterov momentum.
        nesterov: bool,
        /// Learning rate.
        lr: f32,
    },
    /// TensorFlow's RMSProp: `g ← g + decay·p`, `s ← s + rise·(g² - s)`,
    /// `b ← momentum·b + lr·g/√(s + epsilon)`, `p ← p - b`, with first moment `b` and second moment
    /// `s`.
    RmsPropTf {
        /// Weight decay, as an L2 penalty.
        decay: f32,
        /// Fraction of the second moment that is replaced.
        rise: f32,
        /// Decay factor of the first moment.
        momentum: f32,
        /// Added inside the square root.
        epsilon: f32,
        /// Learning rate.
        lr: f32,
    },
    /// AdamW: `m ← m + rises₁·(g - m)`, `v ← beta·v + rises₂·g²`,
    /// `p ← keep·p - rate·m / (√v·root + epsilon)`.
    AdamW {
        /// Factor of the parameter by decoupled weight decay.
        keep: f32,
        /// Decay factor of the second moment.
        beta: f32,
        /// Fractions of the first and second moment that are replaced.
        rises: [f32; 2],
        /// Learning rate divided by the bias correction of the first moment.
        rate: f32,
        /// Inverse square root of the bias correction of the second moment.
        root: f32,
        /// Added outside of the square root.
        epsilon: f32,
    },
}

/// Number of values of a step that change from one step to the next.
pub const NUMBERS: usize = 6;

impl Descent {
    /// Returns the values as kernels read them: weight decay (AdamW: the factor `keep`), learning
    /// rate, decay factor of a moment, fractions of the first and second moment that are replaced,
    /// epsilon.
    pub fn numbers(&self) -> [f32; NUMBERS] {
        match *self {
            Self::Sgd { decay, momentum, lr, .. } => [decay, lr, momentum, 0.0, 0.0, 0.0],
            Self::RmsPropTf { decay, rise, momentum, epsilon, lr } => [decay, lr, momentum, 0.0, rise, epsilon],
            // `rate·m / (√v·root + ε) = (rate / root)·m / (√v + ε / root)`.
            Self::AdamW { keep, beta, rises, rate, root, epsilon } => {
                [keep, rate / root, beta, rises[0], rises[1], epsilon / root]
            }
        }
    }

    /// Returns the same rule with other [`Descent::numbers`].
    pub(crate) fn with_numbers(self, [a, rate, keep, first, second, epsilon]: [f32; NUMBERS]) -> Self {
        match self {
            Self::Sgd { nesterov, .. } => Self::Sgd { decay: a, momentum: keep, nesterov, lr: rate },
            Self::RmsPropTf { .. } => Self::RmsPropTf { decay: a, rise: second, momentum: keep, epsilon, lr: rate },
            Self::AdamW { .. } => Self::AdamW { keep: a, beta: keep, rises: [first, second], rate, root: 1.0, epsilon },
        }
    }

    /// Performs one step in place. A moment that this rule, or this form of it, does not use is
    /// empty.
    ///
    /// # Panics
    /// If the gradient, or a moment that the rule uses, differs from the parameter in length.
    pub fn step(&self, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let kept = match self {
            Self::Sgd { .. } => [!first.is_empty(), false],
            Self::RmsPropTf { .. } | Self::AdamW { .. } => [true; 2],
        };
        let fits = |values: &[f32]| values.len() == parameter.len();
        assert!(
            fits(gradient) && (!kept[0] || fits(first)) && (!kept[1] || fits(second)),
            "a parameter of {} numbers, its gradient of {}, its moments of {} and {}",
            parameter.len(),
            gradient.len(),
            first.len(),
            second.len()
        );
        match *self {
            Self::Sgd { decay, lr, .. } if first.is_empty() => {
                for (p, g) in parameter.iter_mut().zip(gradient) {
                    *p -= lr * (g + decay * *p);
                }
            }
            Self::Sgd { decay, momentum, nesterov, lr } => {
                for ((p, g), b) in parameter.iter_mut().zip(gradient).zip(first) {
                    let g = g + decay * *p;
                    *b = momentum * *b + g;
                    *p -= lr * if nesterov { g + momentum * *b } else { *b };
                }
            }
            Self::RmsPropTf { decay, rise, momentum, epsilon, lr } => {
                for (((p, g), b), s) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
                    let g = g + decay * *p;
                    *s += rise * (g * g - *s);
                    *b = momentum * *b + lr * g / (*s + epsilon).sqrt();
                    *p -= *b;
                }
            }
            Self::AdamW { keep, beta, rises, rate, root, epsilon } => {
                for (((p, g), m), v) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
                    *m += rises[0] * (g - *m);
                    *v = beta * *v + rises[1] * g * g;
                    *p = keep * *p - rate * *m / (v.sqrt() * root + epsilon);
                }
            }
        }
    }
}

/// Number of updates by [`descend`] and [`blend`] that were not in place.
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

/// Tensors of any shapes as one operand of an operation.
#[derive(Clone, Debug)]
pub struct Tensors<B: Backend>(pub Vec<FloatTensor<B>>);

/// Parameters with their gradients and moments: lists of the same length and shapes, except that
/// the list of an unused moment is empty.
pub struct Descending {
    /// The parameters to update.
    pub parameters: Vec<DispatchTensor>,
    /// Their gradients, which are consumed.
    pub gradients: Vec<DispatchTensor>,
    /// Their first and second moments.
    pub moments: [Vec<DispatchTensor>; 2],
}

/// Numbers in a device's memory, `[N]` in single precision without autodiff. An operation reads
/// them when it runs rather than when it is queued, so that each replay of a recorded operation can
/// use other numbers.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// The tensor with all numbers.
    pub all: DispatchTensor,
    /// Index of the operation's first number.
    pub start: usize,
}

impl Numbers {
    fn parts<B: Backend<FloatTensorPrimitive = DispatchTensor>>(numbers: Option<Self>) -> (Tensors<B>, usize) {
        numbers.map_or((Tensors(Vec::new()), 0), |Self { all, start }| (Tensors(vec![all]), start))
    }
}

/// Returns parameters and moments after a step, in the same order. Tensors whose memory is not
/// shared are changed in place. If given, `numbers` replace those of `descent`, in the order of
/// [`Descent::numbers`].
///
/// # Panics
///
/// If the lists differ in length or shapes, or if the tensors are not all on one device, without
/// autodiff and in single precision.
pub fn descend(
    tensors: Descending,
    descent: Descent,
    numbers: Option<Numbers>,
) -> (Vec<DispatchTensor>, [Vec<DispatchTensor>; 2]) {
    let Descending { parameters, gradients, moments: [first, second] } = tensors;
    let [parameters, gradients, first, second] = [parameters, gradients, first, second].map(Tensors);
    let (numbers, start) = Numbers::parts(numbers);
    let (parameters, first, second) = Dispatch::descend(parameters, gradients, first, second, numbers, start, descent);
    (parameters.0, [first.0, second.0])
}

/// Returns `keep · average + take · value` for every average, with `[keep, take]` from `shares`.
/// Averages whose memory is not shared are changed in place. If given, the two `numbers` replace
/// all `shares`.
///
/// # Panics
///
/// As [`descend`].
pub fn blend(
    averages: Vec<DispatchTensor>,
    values: Vec<DispatchTensor>,
    shares: impl IntoIterator<Item = [f64; 2]>,
    numbers: Option<Numbers>,
) -> Vec<DispatchTensor> {
    let shares = shares.into_iter().map(|shares| shares.map(|share| share as f32)).collect();
    let (numbers, start) = Numbers::parts(numbers);
    Dispatch::blend(Tensors(averages), Tensors(values), numbers, start, shares).0
}

impl<B: Backend> ExtensionType<B> for Tensors<B> {
    type Target = Tensors<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Tensors<Dispatch>
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let wrap = |tensor| DispatchTensor { kind: map_kind(BackendTensor::Float(tensor)), autodiff };
        Tensors(self.0.into_iter().map(wrap).collect())
    }

    fn map_from_dispatch<F>(target: Tensors<Dispatch>, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        Self(target.0.into_iter().map(|tensor| unwrap_kind(tensor).float()).collect())
    }

    fn routing_tensor(target: &Tensors<Dispatch>) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn routing_float_tensor(target: &Tensors<Dispatch>) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn autodiff_context(target: &Tensors<Dispatch>) -> DispatchAutodiffContext {
        target.0.iter().fold(DispatchAutodiffContext::Disabled, |context, tensor| context.merge(tensor.autodiff))
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl<B: Backend> ExtensionMetadata for Tensors<B> {
    type Metadata = Vec<TensorSpec>;
    type Input = Vec<TensorIr>;
    type Output = Vec<OutputTensor>;
}

/// Burn's fusion handles of the backend `B`.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
type Handles<B> = HandleContainer<<<B as FusionBackend>::FusionRuntime as FusionRuntime>::FusionHandle>;

/// Implements for a list what Burn derives for structs of tensors.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl<B: FusionBackend> FusionValueAdapter<B> for Tensors<B> {
    type Metadata = Vec<TensorSpec>;
    type Input = Vec<TensorIr>;
    type Output = Vec<OutputTensor>;
    type Inner = Self;
    type Fused = Tensors<Fusion<B>>;

    fn to_metadata(value: &Self::Fused) -> Vec<TensorSpec> {
        value.0.iter().map(<Float as FusionValueAdapter<B>>::to_metadata).collect()
    }

    fn visit_fused_tensors(value: &Self::Fused, visit: &mut impl FnMut(&FusionTensor<B::FusionRuntime>)) {
        value.0.iter().for_each(visit);
    }

    fn tensor_count(specs: &Vec<TensorSpec>) -> usize {
        specs.len()
    }

    fn append_input_ir(value: Self::Fused, inputs: &mut Vec<TensorIr>) -> Vec<TensorIr> {
        value.0.into_iter().map(|tensor| <Float as FusionValueAdapter<B>>::append_input_ir(tensor, inputs)).collect()
    }

    fn resolve_inputs(inputs: &Vec<TensorIr>, handles: &mut Handles<B>) -> Self {
        Self(inputs.iter().map(|input| <Float as FusionValueAdapter<B>>::resolve_inputs(input, handles)).collect())
    }

    fn append_output_ir(
        specs: &Vec<TensorSpec>,
        out: &mut Vec<TensorIr>,
        create: &mut impl FnMut() -> TensorId,
    ) -> Vec<OutputTensor> {
        specs.iter().map(|spec| <Float as FusionValueAdapter<B>>::append_output_ir(spec, out, create)).collect()
    }

    fn validate_outputs(
        value: &Self,
        outputs: &Vec<OutputTensor>,
        device: Option<&B::Device>,
    ) -> Result<(), ExecutionError> {
        let mut each = value.0.iter().zip(outputs);
        each.try_for_each(|(tensor, output)| <Float as FusionValueAdapter<B>>::validate_outputs(tensor, output, device))
    }

    fn register_output_handles(value: Self, outputs: &Vec<OutputTensor>, handles: &mut Handles<B>) {
        for (tensor, output) in value.0.into_iter().zip(outputs) {
            <Float as FusionValueAdapter<B>>::register_output_handles(tensor, output, handles);
        }
    }

    fn build_fused_output(
        specs: &Vec<TensorSpec>,
        tensors: &mut std::vec::IntoIter<FusionTensor<B::FusionRuntime>>,
    ) -> Self::Fused {
        let each = specs.iter();
        Tensors(each.map(|spec| <Float as FusionValueAdapter<B>>::build_fused_output(spec, tensors)).collect())
    }
}
