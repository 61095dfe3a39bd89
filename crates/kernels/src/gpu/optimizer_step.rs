//! Optimizer steps over many tensors. A launch handles up to as many tensors as a kernel can bind
//! buffers, and every unit updates a part of each tensor.

use std::ops::Range;

use burn::{
    backend::ops::FloatTensorOps,
    tensor::{DType, TensorData},
};
use burn_cubecl::{
    CubeBackend,
    cubecl::{self, prelude::*},
    kernel::into_contiguous,
    tensor::CubeTensor,
};

use super::tensors::{address, empty_single};
use crate::{ops::optimizer_step::count_copy, types::optimizer_step::OptimizerStep};

/// Units in a cube.
const UNITS: usize = 256;
/// Maximum number of cubes; a large GPU runs this many at once.
const CUBES: usize = 1024;
/// Maximum number of tensors of each kind in a launch; the kernel's code grows with it.
const TENSORS: usize = 32;

/// An optimizer's update rule without its scalars; kernels are compiled per rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Sgd,
    Momentum,
    Nesterov,
    RmsPropTf,
    AdamW,
}

/// Returns whether all tensors are in single precision and every list of `others` is either empty
/// or has the shapes of `parameters`.
pub fn takes(parameters: &[CubeTensor], others: [&[CubeTensor]; 3]) -> bool {
    let single = |tensor: &CubeTensor| tensor.dtype == DType::F32;
    let alike = |list: &[CubeTensor]| {
        let shapes = list.iter().zip(parameters).all(|(a, b)| a.meta.shape() == b.meta.shape());
        list.iter().all(single) && shapes && (list.is_empty() || list.len() == parameters.len())
    };
    parameters.iter().all(single) && others.into_iter().all(alike)
}

/// Returns the tensor in contiguous memory that may be written to: its own memory unless it is
/// shared.
fn own(tensor: CubeTensor) -> CubeTensor {
    let contiguous = tensor.is_contiguous();
    let tensor = into_contiguous(tensor);
    if !contiguous {
        count_copy();
    } else if !tensor.can_mut() {
        count_copy();
        return into_contiguous(tensor.copy());
    }
    tensor
}

/// Returns the number of tensors of each of `lists` lists that fit into a launch.
fn at_once(tensor: &CubeTensor, lists: usize) -> usize {
    // Two bindings are reserved for the scalars and the lengths.
    let buffers = tensor.client.properties().hardware.max_bindings.saturating_sub(2) as usize;
    (buffers / lists).clamp(1, TENSORS)
}

/// Returns the number of cubes, so that the longest tensor is spread over all of them.
fn cubes(tensors: &[CubeTensor]) -> CubeCount {
    let longest = tensors.iter().map(|tensor| tensor.meta.shape().num_elements()).max().unwrap_or_default();
    CubeCount::Static(longest.div_ceil(UNITS).clamp(1, CUBES) as u32, 1, 1)
}

fn buffers(tensors: &[CubeTensor]) -> SequenceArg<Box<[f32]>> {
    tensors.iter().map(|tensor| tensor.clone().into_buffer_arg()).collect()
}

/// Returns the buffers of a range of a list, or none if the list is empty.
fn some_of(tensors: &[CubeTensor], range: Range<usize>) -> SequenceArg<Box<[f32]>> {
    tensors.get(range).map(buffers).unwrap_or_default()
}

/// Returns a tensor with the step's scalars and their start in it: `given` and `start`, or else a
/// new tensor with `own`.
fn scalars_at(given: Vec<CubeTensor>, start: usize, own: &[f32], like: &CubeTensor) -> (CubeTensor, usize) {
    match given.into_iter().next() {
        Some(given) => (into_contiguous(given), start),
        None => {
            let data = TensorData::new(own.to_vec(), [own.len()]);
            (CubeBackend::float_from_data(data, &like.device), 0)
        }
    }
}

/// Returns the parameters and both moments after an optimizer step.
pub fn optimizer_step(
    [parameters, gradients, first, second]: [Vec<CubeTensor>; 4],
    scalars: Vec<CubeTensor>,
    start: usize,
    step: OptimizerStep,
) -> [Vec<CubeTensor>; 3] {
    let form = match step {
        OptimizerStep::Sgd { .. } if first.is_empty() => Form::Sgd,
        OptimizerStep::Sgd { nesterov, .. } => {
            if nesterov {
                Form::Nesterov
            } else {
                Form::Momentum
            }
        }
        OptimizerStep::RmsPropTf { .. } => Form::RmsPropTf,
        OptimizerStep::AdamW { .. } => Form::AdamW,
    };
    let [parameters, first, second] =
        [parameters, first, second].map(|list| list.into_iter().map(own).collect::<Vec<_>>());
    let gradients: Vec<CubeTensor> = gradients.into_iter().map(into_contiguous).collect();
    let Some(some) = parameters.first() else { return [parameters, first, second] };
    let client = some.client.clone();
    let (scalars, at) = scalars_at(scalars, start, &step.scalars(), some);
    let count = at_once(some, 4);
    for start in (0..parameters.len()).step_by(count) {
        let end = parameters.len().min(start + count);
        let chunk = &parameters[start..end];
        optimizer_step_kernel::launch(
            &client,
            cubes(chunk),
            CubeDim::new_1d(UNITS as u32),
            address(&chunk.iter().collect::<Vec<_>>()),
            buffers(chunk),
            buffers(&gradients[start..end]),
            some_of(&first, start..end),
            some_of(&second, start..end),
            scalars.clone().into_buffer_arg(),
            at,
            form,
        );
    }
    [parameters, first, second]
}

/// Returns `keep · average + take · value` for every average, with `[keep, take]` from `shares`. If
/// `scalars` has a tensor, its two values at `start` replace all `shares`.
pub fn lerp(
    averages: Vec<CubeTensor>,
    values: Vec<CubeTensor>,
    scalars: Vec<CubeTensor>,
    start: usize,
    shares: &[[f32; 2]],
) -> Vec<CubeTensor> {
    let gaps = averages.iter().any(|average| !average.is_contiguous());
    let averages: Vec<CubeTensor> = averages.into_iter().map(into_contiguous).collect();
    // New memory is needed only if an average's memory may not be written to.
    let own = averages.iter().all(CubeTensor::can_mut);
    if gaps || !own {
        count_copy();
    }
    let fresh: Vec<CubeTensor> = match own {
        true => Vec::new(),
        false => averages.iter().map(|average| empty_single(average, average.meta.shape().clone())).collect(),
    };
    let values: Vec<CubeTensor> = values.into_iter().map(into_contiguous).collect();
    let scalars = scalars.into_iter().next().map(|scalars| (into_contiguous(scalars), start));
    mix(&averages, &values, &fresh, scalars, shares);
    if own { averages } else { fresh }
}

/// Writes `values` into the memory of `targets` and returns `targets`.
pub fn overwrite(targets: Vec<CubeTensor>, values: Vec<CubeTensor>) -> Vec<CubeTensor> {
    let values: Vec<CubeTensor> = values.into_iter().map(into_contiguous).collect();
    let Some(some) = values.first() else { return targets };
    let count = at_once(some, 2);
    for (targets, values) in targets.chunks(count).zip(values.chunks(count)) {
        copy_kernel::launch(
            &some.client,
            cubes(values),
            CubeDim::new_1d(UNITS as u32),
            address(&values.iter().collect::<Vec<_>>()),
            buffers(targets),
            buffers(values),
        );
    }
    targets
}

/// Writes `keep · average + take · value` into `fresh`, or into the averages if `fresh` is empty.
/// If given, the two values in `scalars` replace all `shares`.
fn mix(
    averages: &[CubeTensor],
    values: &[CubeTensor],
    fresh: &[CubeTensor],
    scalars: Option<(CubeTensor, usize)>,
    shares: &[[f32; 2]],
) {
    let Some(some) = values.first() else { return };
    let in_memory = scalars.is_some();
    // The kernel needs a buffer even if it does not read it.
    let (scalars, at) = scalars.unwrap_or((some.clone(), 0));
    let count = at_once(some, if fresh.is_empty() { 2 } else { 3 });
    for start in (0..averages.len()).step_by(count) {
        let end = averages.len().min(start + count);
        let part = &averages[start..end];
        let shares = if in_memory { &[][..] } else { &shares[start..end] };
        lerp_kernel::launch(
            &some.client,
            cubes(part),
            CubeDim::new_1d(UNITS as u32),
            address(&part.iter().collect::<Vec<_>>()),
            buffers(part),
            buffers(&values[start..end]),
            some_of(fresh, start..end),
            scalars.clone().into_buffer_arg(),
            at,
            shares.iter().map(|[keep, _]| *keep).collect(),
            shares.iter().map(|[_, take]| *take).collect(),
            in_memory,
            fresh.is_empty(),
        );
    }
}

#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn optimizer_step_kernel(
    parameters: &mut Sequence<Box<[f32]>>,
    gradients: &Sequence<Box<[f32]>>,
    first: &mut Sequence<Box<[f32]>>,
    second: &mut Sequence<Box<[f32]>>,
    scalars: &[f32],
    at: usize,
    #[comptime] form: Form,
) {
    let units = CUBE_COUNT * CUBE_DIM as usize;
    // In the order of `OptimizerStep::scalars`.
    let decay = scalars[at];
    let rate = scalars[at + 1];
    let keep = scalars[at + 2];
    let take_first = scalars[at + 3];
    let take_second = scalars[at + 4];
    let epsilon = scalars[at + 5];
    #[unroll]
    for index in 0..parameters.len() {
        let length = parameters.index(index).len();
        let mut place = ABSOLUTE_POS;
        while place < length {
            let p = parameters.index(index)[place];
            let g = gradients.index(index)[place];
            if comptime!(matches!(form, Form::Sgd)) {
                parameters.index_mut(index)[place] = p - rate * (g + decay * p);
            } else if comptime!(matches!(form, Form::Momentum | Form::Nesterov)) {
                let g = g + decay * p;
                let moment = keep * first.index(index)[place] + g;
                first.index_mut(index)[place] = moment;
                if comptime!(matches!(form, Form::Nesterov)) {
                    parameters.index_mut(index)[place] = p - rate * (g + keep * moment);
                } else {
                    parameters.index_mut(index)[place] = p - rate * moment;
                }
            } else if comptime!(matches!(form, Form::RmsPropTf)) {
                let g = g + decay * p;
                let s = second.index(index)[place];
                let s = s + take_second * (g * g - s);
                let moment = keep * first.index(index)[place] + rate * g / (s + epsilon).sqrt();
                second.index_mut(index)[place] = s;
                first.index_mut(index)[place] = moment;
                parameters.index_mut(index)[place] = p - moment;
            } else {
                let m = first.index(index)[place];
                let m = m + take_first * (g - m);
                let v = keep * second.index(index)[place] + take_second * g * g;
                first.index_mut(index)[place] = m;
                second.index_mut(index)[place] = v;
                parameters.index_mut(index)[place] = decay * p - rate * m / (v.sqrt() + epsilon);
            }
            place += units;
        }
    }
}

#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn lerp_kernel(
    averages: &mut Sequence<Box<[f32]>>,
    values: &Sequence<Box<[f32]>>,
    fresh: &mut Sequence<Box<[f32]>>,
    scalars: &[f32],
    at: usize,
    keep: &Sequence<f32>,
    take: &Sequence<f32>,
    #[comptime] in_memory: bool,
    #[comptime] own: bool,
) {
    let units = CUBE_COUNT * CUBE_DIM as usize;
    #[unroll]
    for index in 0..averages.len() {
        let length = averages.index(index).len();
        let keep = if in_memory { scalars[at] } else { *keep.index(index) };
        let take = if in_memory { scalars[at + 1] } else { *take.index(index) };
        let mut place = ABSOLUTE_POS;
        while place < length {
            let value = keep * averages.index(index)[place] + take * values.index(index)[place];
            if own {
                averages.index_mut(index)[place] = value;
            } else {
                fresh.index_mut(index)[place] = value;
            }
            place += units;
        }
    }
}

#[cube(launch, address_type = "dynamic")]
fn copy_kernel(targets: &mut Sequence<Box<[f32]>>, values: &Sequence<Box<[f32]>>) {
    let units = CUBE_COUNT * CUBE_DIM as usize;
    #[unroll]
    for index in 0..targets.len() {
        let length = targets.index(index).len();
        let mut place = ABSOLUTE_POS;
        while place < length {
            targets.index_mut(index)[place] = values.index(index)[place];
            place += units;
        }
    }
}
