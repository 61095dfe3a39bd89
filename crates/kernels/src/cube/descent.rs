//! Steps of optimizers over many tensors: as many a launch as a kernel can have buffers, every unit of which has a share of each.

use std::ops::Range;

use burn::tensor::DType;
use burn_cubecl::{
    cubecl::{self, prelude::*},
    kernel::into_contiguous,
    tensor::CubeTensor,
};

use super::{address, empty_single};
use crate::descent::Descent;

/// Units in a cube.
const UNITS: usize = 256;
/// Cubes at most, which a large GPU holds at once.
const CUBES: usize = 1024;
/// Tensors of a kind in a launch at most: the kernel's code grows with them.
const TENSORS: usize = 32;

/// A rule without its numbers, which kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Sgd,
    Momentum,
    Nesterov,
    RmsPropTf,
    AdamW,
}

/// Are all in single precision, and as many as the parameters unless there are none?
pub fn takes(parameters: &[CubeTensor], others: [&[CubeTensor]; 3]) -> bool {
    let single = |tensor: &CubeTensor| tensor.dtype == DType::F32;
    let alike = |list: &[CubeTensor]| {
        let shapes = list.iter().zip(parameters).all(|(a, b)| a.meta.shape() == b.meta.shape());
        list.iter().all(single) && shapes && (list.is_empty() || list.len() == parameters.len())
    };
    parameters.iter().all(single) && others.into_iter().all(alike)
}

/// Memory without gaps that may be written to.
fn own(tensor: CubeTensor) -> CubeTensor {
    let tensor = into_contiguous(tensor);
    if tensor.can_mut() { tensor } else { into_contiguous(tensor.copy()) }
}

/// How many of `lists` lists' tensors fit into a launch.
fn at_once(tensor: &CubeTensor, lists: usize) -> usize {
    // Two are left for the scalars and the lengths.
    let buffers = tensor.client.properties().hardware.max_bindings.saturating_sub(2) as usize;
    (buffers / lists).clamp(1, TENSORS)
}

/// Cubes, so that the longest tensor is spread over them.
fn cubes(tensors: &[CubeTensor]) -> CubeCount {
    let longest = tensors.iter().map(|tensor| tensor.meta.shape().num_elements()).max().unwrap_or_default();
    CubeCount::Static(longest.div_ceil(UNITS).clamp(1, CUBES) as u32, 1, 1)
}

fn buffers(tensors: &[CubeTensor]) -> SequenceArg<Box<[f32]>> {
    tensors.iter().map(|tensor| tensor.clone().into_buffer_arg()).collect()
}

/// Those of a list that may have none.
fn some_of(tensors: &[CubeTensor], range: Range<usize>) -> SequenceArg<Box<[f32]>> {
    tensors.get(range).map(buffers).unwrap_or_default()
}

/// Parameters and both moments after a step.
pub fn descend([parameters, gradients, first, second]: [Vec<CubeTensor>; 4], descent: Descent) -> [Vec<CubeTensor>; 3] {
    // As `descend_kernel` has them: decay (AdamW: what it leaves), rate, share that is kept, shares that are taken, epsilon.
    let (form, numbers) = match descent {
        Descent::Sgd { decay, lr, .. } if first.is_empty() => (Form::Sgd, [decay, lr, 0.0, 0.0, 0.0, 0.0]),
        Descent::Sgd { decay, momentum, nesterov, lr } => {
            (if nesterov { Form::Nesterov } else { Form::Momentum }, [decay, lr, momentum, 0.0, 0.0, 0.0])
        }
        Descent::RmsPropTf { decay, rise, momentum, epsilon, lr } => {
            (Form::RmsPropTf, [decay, lr, momentum, 0.0, rise, epsilon])
        }
        // `rate·m / (√v·root + ε) = (rate / root)·m / (√v + ε / root)`.
        Descent::AdamW { keep, beta, rises, rate, root, epsilon } => {
            (Form::AdamW, [keep, rate / root, beta, rises[0], rises[1], epsilon / root])
        }
    };
    let [parameters, first, second] =
        [parameters, first, second].map(|list| list.into_iter().map(own).collect::<Vec<_>>());
    let gradients: Vec<CubeTensor> = gradients.into_iter().map(into_contiguous).collect();
    let Some(some) = parameters.first() else { return [parameters, first, second] };
    let client = some.client.clone();
    let count = at_once(some, 4);
    for start in (0..parameters.len()).step_by(count) {
        let end = parameters.len().min(start + count);
        let [decay, rate, keep, take_first, take_second, epsilon] = numbers;
        let chunk = &parameters[start..end];
        descend_kernel::launch(
            &client,
            cubes(chunk),
            CubeDim::new_1d(UNITS as u32),
            address(&chunk.iter().collect::<Vec<_>>()),
            buffers(chunk),
            buffers(&gradients[start..end]),
            some_of(&first, start..end),
            some_of(&second, start..end),
            decay,
            rate,
            keep,
            take_first,
            take_second,
            epsilon,
            form,
        );
    }
    [parameters, first, second]
}

/// Averages that keep the first of these shares and take the second.
pub fn blend(averages: Vec<CubeTensor>, values: Vec<CubeTensor>, shares: &[[f32; 2]]) -> Vec<CubeTensor> {
    let [averages, values] = [averages, values].map(|list| list.into_iter().map(into_contiguous).collect::<Vec<_>>());
    let Some(some) = averages.first() else { return averages };
    let client = some.client.clone();
    // Where all may be written to there is no other memory.
    let own = averages.iter().all(CubeTensor::can_mut);
    let fresh: Vec<CubeTensor> = match own {
        true => Vec::new(),
        false => averages.iter().map(|average| empty_single(average, average.meta.shape().clone())).collect(),
    };
    let count = at_once(some, if own { 2 } else { 3 });
    for start in (0..averages.len()).step_by(count) {
        let end = averages.len().min(start + count);
        let part = &averages[start..end];
        blend_kernel::launch(
            &client,
            cubes(part),
            CubeDim::new_1d(UNITS as u32),
            address(&part.iter().collect::<Vec<_>>()),
            buffers(part),
            buffers(&values[start..end]),
            some_of(&fresh, start..end),
            shares[start..end].iter().map(|[keep, _]| *keep).collect(),
            shares[start..end].iter().map(|[_, take]| *take).collect(),
            own,
        );
    }
    if own { averages } else { fresh }
}

#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn descend_kernel(
    parameters: &mut Sequence<Box<[f32]>>,
    gradients: &Sequence<Box<[f32]>>,
    first: &mut Sequence<Box<[f32]>>,
    second: &mut Sequence<Box<[f32]>>,
    decay: f32,
    rate: f32,
    keep: f32,
    take_first: f32,
    take_second: f32,
    epsilon: f32,
    #[comptime] form: Form,
) {
    let units = CUBE_COUNT * CUBE_DIM as usize;
    #[unroll]
    for index in 0..parameters.len() {
        let length = parameters.index(index).len();
        let mut at = ABSOLUTE_POS;
        while at < length {
            let p = parameters.index(index)[at];
            let g = gradients.index(index)[at];
            if comptime!(matches!(form, Form::Sgd)) {
                parameters.index_mut(index)[at] = p - rate * (g + decay * p);
            } else if comptime!(matches!(form, Form::Momentum | Form::Nesterov)) {
                let g = g + decay * p;
                let moment = keep * first.index(index)[at] + g;
                first.index_mut(index)[at] = moment;
                if comptime!(matches!(form, Form::Nesterov)) {
                    parameters.index_mut(index)[at] = p - rate * (g + keep * moment);
                } else {
                    parameters.index_mut(index)[at] = p - rate * moment;
                }
            } else if comptime!(matches!(form, Form::RmsPropTf)) {
                let g = g + decay * p;
                let s = second.index(index)[at];
                let s = s + take_second * (g * g - s);
                let moment = keep * first.index(index)[at] + rate * g / (s + epsilon).sqrt();
                second.index_mut(index)[at] = s;
                first.index_mut(index)[at] = moment;
                parameters.index_mut(index)[at] = p - moment;
            } else {
                let m = first.index(index)[at];
                let m = m + take_first * (g - m);
                let v = keep * second.index(index)[at] + take_second * g * g;
                first.index_mut(index)[at] = m;
                second.index_mut(index)[at] = v;
                parameters.index_mut(index)[at] = decay * p - rate * m / (v.sqrt() + epsilon);
            }
            at += units;
        }
    }
}

#[cube(launch, address_type = "dynamic")]
fn blend_kernel(
    averages: &mut Sequence<Box<[f32]>>,
    values: &Sequence<Box<[f32]>>,
    fresh: &mut Sequence<Box<[f32]>>,
    keep: &Sequence<f32>,
    take: &Sequence<f32>,
    #[comptime] own: bool,
) {
    let units = CUBE_COUNT * CUBE_DIM as usize;
    #[unroll]
    for index in 0..averages.len() {
        let length = averages.index(index).len();
        let mut at = ABSOLUTE_POS;
        while at < length {
            let value = *keep.index(index) * averages.index(index)[at] + *take.index(index) * values.index(index)[at];
            if own {
                averages.index_mut(index)[at] = value;
            } else {
                fresh.index_mut(index)[at] = value;
            }
            at += units;
        }
    }
}
