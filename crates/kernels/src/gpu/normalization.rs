//! Batch-norm with its activation. Each pass reads every feature map once.

use burn::tensor::Shape;
use burn_cubecl::{
    cubecl::{self, ir::ElemType, prelude::*},
    kernel::into_contiguous,
    tensor::CubeTensor,
};

use super::launch::{
    AT_ONCE, Launch, first_item, if_ahead, item_ahead, item_step, own_channel, single, sum_rows, sum_slices,
    widest_vector,
};
use super::tensors::{address, element, empty, empty_single, pixels_and_channels};
use crate::types::activation::{Activation, RELU6_MAX};
use crate::types::normalization::{Normalization, Statistics};

/// Number of pixels that a unit reads from each of two feature maps before it uses the first.
const PAIRS: usize = AT_ONCE / 2;

/// Returns the mean `[C]` and the biased variance `[C]` of a feature map, in one pass over it.
///
/// Every unit measures distances from its first pixel, which avoids cancellation if the mean is far
/// from zero. The results are combined as in Chan, Golub and LeVeque, "Updating formulae and a
/// pairwise algorithm for computing sample variances" (1979).
pub fn channel_statistics(x: CubeTensor) -> (CubeTensor, CubeTensor) {
    let x = into_contiguous(x);
    let (client, element, [pixels, channels]) = (x.client.clone(), element(&x), pixels_and_channels(&x));
    let vector = widest_vector(&x, channels);
    let launch = Launch::adding(&client, pixels, channels, vector);
    let partial = empty_single(&x, Shape::new([2, launch.slices, channels]));
    measure_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        address(&[&x, &partial]),
        vector,
        x.clone().into_buffer_arg(),
        partial.clone().into_buffer_arg(),
        pixels,
        launch.channels,
        launch.dims(),
        element,
    );
    let (mean, variance) = (empty_single(&x, Shape::new([channels])), empty_single(&x, Shape::new([channels])));
    let Launch { slices, rows, .. } = launch;
    let at_once = slices * rows;
    let launch = Launch::narrow(&client, channels, vector);
    combine_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        address(&[&partial]),
        vector,
        partial.into_buffer_arg(),
        mean.clone().into_buffer_arg(),
        variance.clone().into_buffer_arg(),
        slices,
        pixels / at_once * rows,
        pixels % at_once,
        rows,
        launch.channels,
        launch.dims(),
    );
    (mean, variance)
}

/// Returns the activation of the normalized feature map.
pub fn normalize(
    x: CubeTensor,
    [gamma, beta, mean, variance]: [CubeTensor; 4],
    normalization: Normalization,
) -> CubeTensor {
    let x = into_contiguous(x);
    let (client, element, [pixels, channels]) = (x.client.clone(), element(&x), pixels_and_channels(&x));
    let vector = widest_vector(&x, channels);
    let launch = Launch::new(&client, pixels, channels, vector);
    let y = empty(&x, x.meta.shape().clone());
    normalize_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        address(&[&x]),
        vector,
        x.into_buffer_arg(),
        into_contiguous(gamma).into_buffer_arg(),
        into_contiguous(beta).into_buffer_arg(),
        into_contiguous(mean).into_buffer_arg(),
        into_contiguous(variance).into_buffer_arg(),
        y.clone().into_buffer_arg(),
        normalization.epsilon as f32,
        pixels,
        launch.channels,
        normalization.activation,
        element,
    );
    y
}

/// Adds `shift` to each channel and applies the activation.
pub fn activate(x: CubeTensor, shift: CubeTensor, activation: Activation) -> CubeTensor {
    let x = into_contiguous(x);
    let (client, element, [pixels, channels]) = (x.client.clone(), element(&x), pixels_and_channels(&x));
    let vector = widest_vector(&x, channels);
    let launch = Launch::new(&client, pixels, channels, vector);
    let y = empty(&x, x.meta.shape().clone());
    activate_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        address(&[&x]),
        vector,
        x.into_buffer_arg(),
        into_contiguous(shift).into_buffer_arg(),
        y.clone().into_buffer_arg(),
        pixels,
        launch.channels,
        activation,
        element,
    );
    y
}

/// Returns the gradients of the feature map, of gamma and of beta, in two passes: one sums, one
/// writes.
pub fn normalize_gradients(
    x: CubeTensor,
    vectors: [CubeTensor; 4],
    gradient: CubeTensor,
    normalization: Normalization,
) -> [CubeTensor; 3] {
    let (x, gradient) = (into_contiguous(x), into_contiguous(gradient));
    let [gamma, beta, mean, variance] = vectors.map(into_contiguous);
    let (client, element, [pixels, channels]) = (x.client.clone(), element(&x), pixels_and_channels(&x));
    let vector = widest_vector(&x, channels);
    let launch = Launch::adding(&client, pixels, channels, vector);
    let partial = empty_single(&x, Shape::new([launch.slices, 2 * channels]));
    sum_gradients_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        address(&[&x, &partial]),
        vector,
        x.clone().into_buffer_arg(),
        gradient.clone().into_buffer_arg(),
        gamma.clone().into_buffer_arg(),
        beta.clone().into_buffer_arg(),
        mean.clone().into_buffer_arg(),
        variance.clone().into_buffer_arg(),
        partial.clone().into_buffer_arg(),
        normalization.epsilon as f32,
        pixels,
        launch.channels,
        normalization.activation,
        launch.dims(),
        element,
    );
    let sums = sum_slices(partial, launch.slices, 2 * channels);
    let launch = Launch::new(&client, pixels, channels, vector);
    let input_gradient = empty(&x, x.meta.shape().clone());
    let share = match normalization.statistics {
        Statistics::Batch => 1.0 / pixels as f32,
        Statistics::Fixed => 0.0,
    };
    let (gamma_gradient, beta_gradient) =
        (empty_single(&x, Shape::new([channels])), empty_single(&x, Shape::new([channels])));
    normalize_gradient_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        address(&[&x]),
        vector,
        x.into_buffer_arg(),
        gradient.into_buffer_arg(),
        gamma.into_buffer_arg(),
        beta.into_buffer_arg(),
        mean.into_buffer_arg(),
        variance.into_buffer_arg(),
        sums.into_buffer_arg(),
        input_gradient.clone().into_buffer_arg(),
        gamma_gradient.clone().into_buffer_arg(),
        beta_gradient.clone().into_buffer_arg(),
        normalization.epsilon as f32,
        share,
        pixels,
        launch.channels,
        normalization.activation,
        element,
    );
    [input_gradient, gamma_gradient, beta_gradient]
}

/// Merges `other` into a measurement. A measurement has the mean of `count` values and the sum of
/// their squared distances from it.
#[cube]
fn combine<N: Size>(
    mean: &mut Vector<f32, N>,
    squares: &mut Vector<f32, N>,
    count: &mut f32,
    other: (Vector<f32, N>, Vector<f32, N>, f32),
) {
    let (other_mean, other_squares, other_count) = other;
    let total = *count + other_count;
    let share = other_count / max(total, 1.0);
    let distance = other_mean - *mean;
    *squares += other_squares + distance * distance * Vector::new(*count * share);
    *mean += distance * Vector::new(share);
    *count = total;
}

/// Merges the measurements of a cube's rows; the units of its first row get the result.
#[cube]
fn combine_rows<N: Size>(
    mean: &mut Vector<f32, N>,
    squares: &mut Vector<f32, N>,
    count: &mut f32,
    #[comptime] dims: [usize; 2],
) {
    let units = comptime!(dims[0] * dims[1]);
    let mut means = Shared::<[Vector<f32, N>]>::new_slice(units);
    let mut sums = Shared::<[Vector<f32, N>]>::new_slice(units);
    let mut counts = Shared::<[f32]>::new_slice(units);
    let unit = UNIT_POS as usize;
    means[unit] = *mean;
    sums[unit] = *squares;
    counts[unit] = *count;
    #[unroll]
    for step in 0..comptime!(dims[1].ilog2() as usize) {
        let half = comptime!(dims[1] >> (step + 1));
        sync_cube();
        if (UNIT_POS_Y as usize) < half {
            let other = unit + half * CUBE_DIM_X as usize;
            combine::<N>(mean, squares, count, (means[other], sums[other], counts[other]));
            means[unit] = *mean;
            sums[unit] = *squares;
            counts[unit] = *count;
        }
    }
}

/// Measures [pixels, channels] → means and sums of squared distances, [2, slices, channels].
#[cube(launch, address_type = "dynamic")]
fn measure_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    partial: &mut [Vector<f32, N>],
    pixels: usize,
    channels: usize,
    #[comptime] dims: [usize; 2],
    #[define(E)] _element: ElemType,
) {
    let channel = own_channel();
    let mut mean = Vector::<f32, N>::zeroed();
    let mut squares = Vector::<f32, N>::zeroed();
    let mut count = 0.0f32;
    let first = first_item();
    if channel < channels && first < pixels {
        let origin = single::<E, N>(x[first * channels + channel]);
        let mut sum = Vector::<f32, N>::zeroed();
        let mut pixel = first;
        while pixel < pixels {
            let mut values = Array::<Vector<f32, N>>::new(AT_ONCE);
            #[unroll]
            for ahead in 0..AT_ONCE {
                values[ahead] = single::<E, N>(x[item_ahead(pixel, pixels, ahead) * channels + channel]);
            }
            #[unroll]
            for ahead in 0..AT_ONCE {
                let distance = if_ahead::<N>(values[ahead] - origin, pixel, pixels, ahead);
                sum += distance;
                squares += distance * distance;
            }
            pixel += AT_ONCE * item_step();
        }
        count = f32::cast_from((pixels - 1 - first) / item_step() + 1);
        let shift = sum / Vector::new(count);
        mean = origin + shift;
        squares = max(squares - sum * shift, Vector::zeroed());
    }
    combine_rows::<N>(&mut mean, &mut squares, &mut count, dims);
    if UNIT_POS_Y == 0 && channel < channels {
        let position = CUBE_POS_Y as usize * channels + channel;
        partial[position] = mean;
        partial[position + CUBE_COUNT_Y as usize * channels] = squares;
    }
}

/// Merges [2, slices, channels] → mean `[channels]` and variance `[channels]`. Every slice has
/// measured `each` pixels; the `rest` is distributed in order, up to `rows` per slice.
#[cube(launch, address_type = "dynamic")]
fn combine_kernel<N: Size>(
    partial: &[Vector<f32, N>],
    means: &mut [Vector<f32, N>],
    variances: &mut [Vector<f32, N>],
    slices: usize,
    each: usize,
    rest: usize,
    rows: usize,
    channels: usize,
    #[comptime] dims: [usize; 2],
) {
    let channel = own_channel();
    let mut mean = Vector::<f32, N>::zeroed();
    let mut squares = Vector::<f32, N>::zeroed();
    let mut count = 0.0f32;
    if channel < channels {
        let mut slice = UNIT_POS_Y as usize;
        while slice < slices {
            let position = slice * channels + channel;
            let before = slice * rows;
            let measured = f32::cast_from(each + min(max(rest, before) - before, rows));
            let other = (partial[position], partial[position + slices * channels], measured);
            combine::<N>(&mut mean, &mut squares, &mut count, other);
            slice += CUBE_DIM_Y as usize;
        }
    }
    combine_rows::<N>(&mut mean, &mut squares, &mut count, dims);
    if UNIT_POS_Y == 0 && channel < channels {
        means[channel] = mean;
        variances[channel] = squares / Vector::new(count);
    }
}

/// Returns `1 / sqrt(variance + epsilon)`.
#[cube]
fn inverse_deviation<N: Size>(variance: Vector<f32, N>, epsilon: f32) -> Vector<f32, N> {
    Vector::new(1.0) / Vector::sqrt(variance + Vector::new(epsilon))
}

/// Returns the sigmoid of `z`. GPUs have an instruction for the inverse square root; a division
/// takes twice as many.
#[cube]
fn sigmoid<N: Size>(z: Vector<f32, N>) -> Vector<f32, N> {
    let inverse = Vector::new(1.0) + Vector::exp(-z);
    Vector::inverse_sqrt(inverse * inverse)
}

#[cube]
pub fn activated<N: Size>(z: Vector<f32, N>, #[comptime] activation: Activation) -> Vector<f32, N> {
    match activation {
        Activation::Identity => z,
        Activation::Relu => max(z, Vector::zeroed()),
        Activation::Relu6 => min(max(z, Vector::zeroed()), Vector::new(comptime!(RELU6_MAX as f32))),
        Activation::Silu => z * sigmoid::<N>(z),
    }
}

/// Returns the gradient before the activation, from the gradient after it.
#[cube]
fn activation_gradient<N: Size>(
    z: Vector<f32, N>,
    gradient: Vector<f32, N>,
    #[comptime] activation: Activation,
) -> Vector<f32, N> {
    match activation {
        Activation::Identity => gradient,
        Activation::Relu => select_many(z.greater_than(&Vector::zeroed()), gradient, Vector::zeroed()),
        Activation::Relu6 => {
            let most = Vector::new(comptime!(RELU6_MAX as f32));
            let above = select_many(z.greater_than(&Vector::zeroed()), gradient, Vector::zeroed());
            select_many(z.less_than(&most), above, Vector::zeroed())
        }
        Activation::Silu => {
            let s = sigmoid::<N>(z);
            gradient * s * (Vector::new(1.0) + z * (Vector::new(1.0) - s))
        }
    }
}

#[cube(launch, address_type = "dynamic")]
fn normalize_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    mean: &[Vector<f32, N>],
    variance: &[Vector<f32, N>],
    y: &mut [Vector<E, N>],
    epsilon: f32,
    pixels: usize,
    channels: usize,
    #[comptime] activation: Activation,
    #[define(E)] _element: ElemType,
) {
    let channel = own_channel();
    if channel < channels {
        let scale = gamma[channel] * inverse_deviation::<N>(variance[channel], epsilon);
        let shift = beta[channel];
        let mean = mean[channel];
        let mut pixel = first_item();
        while pixel < pixels {
            let mut values = Array::<Vector<f32, N>>::new(AT_ONCE);
            #[unroll]
            for ahead in 0..AT_ONCE {
                values[ahead] = single::<E, N>(x[item_ahead(pixel, pixels, ahead) * channels + channel]);
            }
            #[unroll]
            for ahead in 0..AT_ONCE {
                let z = (values[ahead] - mean) * scale + shift;
                let other = pixel + ahead * item_step();
                if other < pixels {
                    y[other * channels + channel] = Vector::cast_from(activated::<N>(z, activation));
                }
            }
            pixel += AT_ONCE * item_step();
        }
    }
}

#[cube(launch, address_type = "dynamic")]
fn activate_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    shift: &[Vector<f32, N>],
    y: &mut [Vector<E, N>],
    pixels: usize,
    channels: usize,
    #[comptime] activation: Activation,
    #[define(E)] _element: ElemType,
) {
    let channel = own_channel();
    if channel < channels {
        let shift = shift[channel];
        let mut pixel = first_item();
        while pixel < pixels {
            let mut values = Array::<Vector<f32, N>>::new(AT_ONCE);
            #[unroll]
            for ahead in 0..AT_ONCE {
                values[ahead] = single::<E, N>(x[item_ahead(pixel, pixels, ahead) * channels + channel]);
            }
            #[unroll]
            for ahead in 0..AT_ONCE {
                let other = pixel + ahead * item_step();
                if other < pixels {
                    let z = values[ahead] + shift;
                    y[other * channels + channel] = Vector::cast_from(activated::<N>(z, activation));
                }
            }
            pixel += AT_ONCE * item_step();
        }
    }
}

/// Sums the gradient times the normalized feature map, and the gradient: [slices, 2, channels].
#[cube(launch, address_type = "dynamic")]
fn sum_gradients_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    gradient: &[Vector<E, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    mean: &[Vector<f32, N>],
    variance: &[Vector<f32, N>],
    partial: &mut [Vector<f32, N>],
    epsilon: f32,
    pixels: usize,
    channels: usize,
    #[comptime] activation: Activation,
    #[comptime] dims: [usize; 2],
    #[define(E)] _element: ElemType,
) {
    let mut shared = Shared::<[Vector<f32, N>]>::new_slice(comptime!(dims[0] * dims[1]));
    let channel = own_channel();
    let mut scale = Vector::<f32, N>::zeroed();
    let mut shift = Vector::<f32, N>::zeroed();
    if channel < channels {
        let inverse = inverse_deviation::<N>(variance[channel], epsilon);
        let (mean, factor, beta) = (mean[channel], gamma[channel] * inverse, beta[channel]);
        let mut pixel = first_item();
        while pixel < pixels {
            let mut distances = Array::<Vector<f32, N>>::new(PAIRS);
            let mut gradients = Array::<Vector<f32, N>>::new(PAIRS);
            #[unroll]
            for ahead in 0..PAIRS {
                let position = item_ahead(pixel, pixels, ahead) * channels + channel;
                distances[ahead] = single::<E, N>(x[position]) - mean;
                gradients[ahead] = single::<E, N>(gradient[position]);
            }
            #[unroll]
            for ahead in 0..PAIRS {
                let distance = distances[ahead];
                let gradient = activation_gradient::<N>(distance * factor + beta, gradients[ahead], activation);
                let gradient = if_ahead::<N>(gradient, pixel, pixels, ahead);
                scale += gradient * distance;
                shift += gradient;
            }
            pixel += PAIRS * item_step();
        }
        scale *= inverse;
    }
    let scale = sum_rows::<N>(scale, &mut shared, comptime!(dims[1]));
    let shift = sum_rows::<N>(shift, &mut shared, comptime!(dims[1]));
    if UNIT_POS_Y == 0 && channel < channels {
        let position = 2 * CUBE_POS_Y as usize * channels + channel;
        partial[position] = scale;
        partial[position + channels] = shift;
    }
}

/// Computes the gradient of the feature map from the sums [2, channels], and returns the sums as
/// the gradients of gamma and beta. `share` is the weight of one pixel in the statistics: 0 if they
/// are fixed.
#[cube(launch, address_type = "dynamic")]
fn normalize_gradient_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    gradient: &[Vector<E, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    mean: &[Vector<f32, N>],
    variance: &[Vector<f32, N>],
    sums: &[Vector<f32, N>],
    input_gradient: &mut [Vector<E, N>],
    gamma_gradient: &mut [Vector<f32, N>],
    beta_gradient: &mut [Vector<f32, N>],
    epsilon: f32,
    share: f32,
    pixels: usize,
    channels: usize,
    #[comptime] activation: Activation,
    #[define(E)] _element: ElemType,
) {
    let channel = own_channel();
    if channel < channels {
        let inverse = inverse_deviation::<N>(variance[channel], epsilon);
        let (mean, factor, beta) = (mean[channel], gamma[channel] * inverse, beta[channel]);
        let (scale, shift) = (sums[channel], sums[channels + channel]);
        let (tilt, offset) = (scale * Vector::new(share) * inverse, shift * Vector::new(share));
        let mut pixel = first_item();
        if pixel == 0 {
            gamma_gradient[channel] = scale;
            beta_gradient[channel] = shift;
        }
        while pixel < pixels {
            let mut distances = Array::<Vector<f32, N>>::new(PAIRS);
            let mut gradients = Array::<Vector<f32, N>>::new(PAIRS);
            #[unroll]
            for ahead in 0..PAIRS {
                let position = item_ahead(pixel, pixels, ahead) * channels + channel;
                distances[ahead] = single::<E, N>(x[position]) - mean;
                gradients[ahead] = single::<E, N>(gradient[position]);
            }
            #[unroll]
            for ahead in 0..PAIRS {
                let distance = distances[ahead];
                let gradient = activation_gradient::<N>(distance * factor + beta, gradients[ahead], activation);
                let other = pixel + ahead * item_step();
                if other < pixels {
                    input_gradient[other * channels + channel] =
                        Vector::cast_from((gradient - offset - distance * tilt) * factor);
                }
            }
            pixel += PAIRS * item_step();
        }
    }
}
