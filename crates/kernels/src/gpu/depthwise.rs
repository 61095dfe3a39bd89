//! The depthwise convolution and its gradients, each in one pass. A unit computes a strip of
//! neighboring outputs, which share most of their inputs.

use burn::{backend::TensorMetadata, tensor::Shape};
use burn_cubecl::{
    cubecl::{self, ir::ElemType, prelude::*, std::FastDivmod},
    kernel::into_contiguous,
    ops::{permute, reshape},
    tensor::CubeTensor,
};

use super::launch::{Launch, first_item, item_step, own_channel, single, sum_rows, sum_slices_turned, vector_size};
use super::normalization::{activate, activated};
use super::tensors::{address, element, empty, empty_single};
use crate::types::activation::Activation;
use crate::types::conv2d_geometry::Conv2dGeometry;

/// Number of values that a unit may keep in registers for the sums of a weight gradient.
const SUMS: usize = 64;

/// Returns the number of neighboring outputs per unit. More outputs reread fewer inputs; with a
/// stride, windows overlap less, so that a longer strip gains little.
fn strip(stride: usize) -> usize {
    if stride == 1 { 4 } else { 2 }
}

/// Returns the number of neighboring pixels per unit of the gather kernel: two strides.
fn gathered_strip(stride: usize) -> usize {
    2 * stride
}

/// Convolves `x` [N, H, W, C] with `weight` [C, 1, k, k] → [N, H', W', C].
pub fn depthwise(x: CubeTensor, weight: CubeTensor, geometry: Conv2dGeometry) -> CubeTensor {
    let [_, height, width, _] = x.shape().dims();
    slide(x, weight, geometry, [geometry.output(height), geometry.output(width)], false, None)
}

/// Adds the first shift to `x`, applies the activation, convolves depthwise, adds the second shift
/// and applies the activation.
pub fn depthwise_activated(
    x: CubeTensor,
    weight: CubeTensor,
    [before, after]: [CubeTensor; 2],
    geometry: Conv2dGeometry,
    activation: Activation,
) -> CubeTensor {
    let [_, height, width, _] = x.shape().dims();
    // Inputs shared by neighboring units are activated by each of them. That is cheap for clamping,
    // but not for an exponential, so SiLU is computed in a pass of its own.
    let (x, bounds) = match activation {
        Activation::Silu => (activate(x, before.clone(), activation), None),
        _ => (x, Some(activation)),
    };
    let between = Between { before, after, bounds, activation };
    slide(x, weight, geometry, [geometry.output(height), geometry.output(width)], false, Some(&between))
}

/// Returns the gradient of the input, which has the height and width `size`.
pub fn depthwise_input_gradient(
    weight: CubeTensor,
    gradient: CubeTensor,
    geometry: Conv2dGeometry,
    [height, width]: [usize; 2],
) -> CubeTensor {
    let Conv2dGeometry { kernel, stride, padding } = geometry;
    if stride == 1 && padding < kernel {
        // A convolution with the kernel rotated by 180°.
        let turned = Conv2dGeometry { kernel, stride, padding: kernel - 1 - padding };
        return slide(gradient, weight, turned, [height, width], true, None);
    }
    let (gradient, weight) = (into_contiguous(gradient), taps_first(weight));
    let [batch, rows, columns, channels] = gradient.shape().dims();
    let (client, element) = (gradient.client.clone(), element(&gradient));
    let vector = vector_size(&client, channels, 4);
    let strips = width.div_ceil(gathered_strip(stride));
    let items = batch * height * strips;
    let launch = Launch::new(&client, items, channels, vector);
    let input_gradient = empty(&gradient, Shape::new([batch, height, width, channels]));
    gather_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        address(&[&gradient, &input_gradient]),
        vector,
        gradient.into_buffer_arg(),
        weight.into_buffer_arg(),
        input_gradient.clone().into_buffer_arg(),
        strips,
        height,
        width,
        rows,
        columns,
        launch.channels,
        items,
        geometry,
        element,
    );
    input_gradient
}

/// Returns the gradient of the weight, [C, 1, k, k].
pub fn depthwise_weight_gradient(x: CubeTensor, gradient: CubeTensor, geometry: Conv2dGeometry) -> CubeTensor {
    let Conv2dGeometry { kernel, stride, padding } = geometry;
    let (x, gradient) = (into_contiguous(x), into_contiguous(gradient));
    let [batch, height, width, channels] = x.shape().dims();
    let [_, rows, columns, _] = gradient.shape().dims();
    let (client, element) = (x.client.clone(), element(&x));
    let (taps, strip) = (kernel * kernel, strip(stride));
    let vector = vector_size(&client, channels, SUMS / taps);
    let strips = columns.div_ceil(strip);
    let items = batch * rows * strips;
    let launch = Launch::adding(&client, items, channels, vector);
    let partial = empty_single(&x, Shape::new([launch.slices, taps * channels]));
    weight_gradient_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        address(&[&x, &gradient, &partial]),
        vector,
        x.into_buffer_arg(),
        gradient.into_buffer_arg(),
        partial.clone().into_buffer_arg(),
        strips,
        rows,
        height,
        width,
        columns,
        launch.channels,
        items,
        padding,
        kernel,
        stride,
        strip,
        launch.dims(),
        element,
    );
    let sums = sum_slices_turned(partial, launch.slices, [taps, channels]);
    reshape(sums, Shape::new([channels, 1, kernel, kernel]))
}

/// Permutes [C, 1, k, k] → [k, k, 1, C], so that neighboring units read adjacent values.
fn taps_first(weight: CubeTensor) -> CubeTensor {
    into_contiguous(permute(weight, &[2, 3, 1, 0]))
}

/// The shifts and activations before and after a convolution.
struct Between {
    /// Shift of the input, added before `bounds` is applied.
    before: CubeTensor,
    /// Shift of the output, added before `activation` is applied.
    after: CubeTensor,
    bounds: Option<Activation>,
    activation: Activation,
}

/// Convolves a feature map, with the kernel rotated by 180° if `turned`; the output has the size
/// `rows` × `columns`.
fn slide(
    x: CubeTensor,
    weight: CubeTensor,
    geometry: Conv2dGeometry,
    [rows, columns]: [usize; 2],
    turned: bool,
    between: Option<&Between>,
) -> CubeTensor {
    let Conv2dGeometry { kernel, stride, padding } = geometry;
    let (x, weight) = (into_contiguous(x), taps_first(weight));
    let [batch, height, width, channels] = x.shape().dims();
    let (client, element, strip) = (x.client.clone(), element(&x), strip(stride));
    let vector = vector_size(&client, channels, 4);
    let strips = columns.div_ceil(strip);
    let items = batch * rows * strips;
    let launch = Launch::new(&client, items, channels, vector);
    let y = empty(&x, Shape::new([batch, rows, columns, channels]));
    match between {
        None => slide_kernel::launch(
            &client,
            launch.count(),
            launch.dim(),
            address(&[&x, &y]),
            vector,
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            strips,
            rows,
            height,
            width,
            columns,
            launch.channels,
            items,
            padding,
            kernel,
            stride,
            strip,
            turned,
            element,
        ),
        Some(Between { before, after, bounds, activation }) => slide_activated_kernel::launch(
            &client,
            launch.count(),
            launch.dim(),
            address(&[&x, &y]),
            vector,
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            into_contiguous(before.clone()).into_buffer_arg(),
            into_contiguous(after.clone()).into_buffer_arg(),
            y.clone().into_buffer_arg(),
            strips,
            rows,
            height,
            width,
            columns,
            launch.channels,
            items,
            padding,
            kernel,
            stride,
            strip,
            *bounds,
            *activation,
            element,
        ),
    }
    y
}

/// Returns the inputs of a strip from the line that starts at pixel `start`: `count` columns from
/// `first` on, where columns include the padding, which is zero. All values are read before any is
/// used, and no read depends on a branch, so that the reads overlap.
#[cube]
fn seen<E: Float, N: Size>(
    x: &[Vector<E, N>],
    start: usize,
    first: usize,
    width: usize,
    channels: usize,
    channel: usize,
    padding: usize,
    #[comptime] count: usize,
) -> Array<Vector<f32, N>> {
    let mut values = Array::<Vector<f32, N>>::new(count);
    #[unroll]
    for input in 0..count {
        let column = first + input;
        let inside = column >= padding && column < width + padding;
        let pixel = select(inside, start + column - padding, start);
        let value = single::<E, N>(x[pixel * channels + channel]);
        values[input] = select(inside, value, Vector::zeroed());
    }
    values
}

#[cube(launch, address_type = "dynamic")]
fn slide_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    weight: &[Vector<f32, N>],
    y: &mut [Vector<E, N>],
    strips: FastDivmod<usize>,
    rows: FastDivmod<usize>,
    height: usize,
    width: usize,
    columns: usize,
    channels: usize,
    items: usize,
    padding: usize,
    #[comptime] kernel: usize,
    #[comptime] stride: usize,
    #[comptime] strip: usize,
    #[comptime] turned: bool,
    #[define(E)] _element: ElemType,
) {
    let channel = own_channel();
    if channel < channels {
        let mut item = first_item();
        while item < items {
            // `row` counts the output rows of all images.
            let (row, strip_of_row) = strips.div_mod(item);
            let (image, row_of_image) = rows.div_mod(row);
            let left = strip_of_row * strip;
            let mut sums = zeros::<N>(strip);
            #[unroll]
            for tap_row in 0..kernel {
                let line = row_of_image * stride + tap_row;
                if line >= padding && line < height + padding {
                    let start = (image * height + line - padding) * width;
                    let inputs = comptime!((strip - 1) * stride + kernel);
                    let values = seen::<E, N>(x, start, left * stride, width, channels, channel, padding, inputs);
                    let taps = row_of_taps::<N>(weight, channels, channel, tap_row, kernel, turned);
                    add_line::<N>(&mut sums, &values, &taps, kernel, stride, strip);
                }
            }
            #[unroll]
            for output in 0..strip {
                if left + output < columns {
                    y[(row * columns + left + output) * channels + channel] = Vector::cast_from(sums[output]);
                }
            }
            item += item_step();
        }
    }
}

/// `slide_kernel` between two activations. The padding is zero after the first activation.
#[cube(launch, address_type = "dynamic")]
fn slide_activated_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    weight: &[Vector<f32, N>],
    before: &[Vector<f32, N>],
    after: &[Vector<f32, N>],
    y: &mut [Vector<E, N>],
    strips: FastDivmod<usize>,
    rows: FastDivmod<usize>,
    height: usize,
    width: usize,
    columns: usize,
    channels: usize,
    items: usize,
    padding: usize,
    #[comptime] kernel: usize,
    #[comptime] stride: usize,
    #[comptime] strip: usize,
    #[comptime] bounds: Option<Activation>,
    #[comptime] activation: Activation,
    #[define(E)] _element: ElemType,
) {
    let channel = own_channel();
    if channel < channels {
        let (before, after) = (before[channel], after[channel]);
        let mut item = first_item();
        while item < items {
            let (row, strip_of_row) = strips.div_mod(item);
            let (image, row_of_image) = rows.div_mod(row);
            let left = strip_of_row * strip;
            let mut sums = zeros::<N>(strip);
            #[unroll]
            for tap_row in 0..kernel {
                let line = row_of_image * stride + tap_row;
                if line >= padding && line < height + padding {
                    let start = (image * height + line - padding) * width;
                    let inputs = comptime!((strip - 1) * stride + kernel);
                    let first = left * stride;
                    let mut values = seen::<E, N>(x, start, first, width, channels, channel, padding, inputs);
                    if comptime!(bounds.is_some()) {
                        #[unroll]
                        for input in 0..inputs {
                            let inside = first + input >= padding && first + input < width + padding;
                            let value = activated::<N>(values[input] + before, comptime!(bounds.unwrap()));
                            values[input] = select(inside, value, Vector::zeroed());
                        }
                    }
                    let taps = row_of_taps::<N>(weight, channels, channel, tap_row, kernel, false);
                    add_line::<N>(&mut sums, &values, &taps, kernel, stride, strip);
                }
            }
            #[unroll]
            for output in 0..strip {
                if left + output < columns {
                    let value = activated::<N>(sums[output] + after, activation);
                    y[(row * columns + left + output) * channels + channel] = Vector::cast_from(value);
                }
            }
            item += item_step();
        }
    }
}

#[cube]
fn zeros<N: Size>(#[comptime] count: usize) -> Array<Vector<f32, N>> {
    let mut zeros = Array::<Vector<f32, N>>::new(count);
    #[unroll]
    for index in 0..count {
        zeros[index] = Vector::zeroed();
    }
    zeros
}

/// Returns a row of the convolution kernel, rotated by 180° if `turned`.
#[cube]
fn row_of_taps<N: Size>(
    weight: &[Vector<f32, N>],
    channels: usize,
    channel: usize,
    #[comptime] row: usize,
    #[comptime] kernel: usize,
    #[comptime] turned: bool,
) -> Array<Vector<f32, N>> {
    let mut taps = Array::<Vector<f32, N>>::new(kernel);
    #[unroll]
    for tap in 0..kernel {
        let position = comptime!(row * kernel + tap);
        let position = comptime!(if turned { kernel * kernel - 1 - position } else { position });
        taps[tap] = weight[position * channels + channel];
    }
    taps
}

/// Adds the contribution of one input line to the outputs of a strip.
#[cube]
fn add_line<N: Size>(
    sums: &mut Array<Vector<f32, N>>,
    values: &Array<Vector<f32, N>>,
    taps: &Array<Vector<f32, N>>,
    #[comptime] kernel: usize,
    #[comptime] stride: usize,
    #[comptime] strip: usize,
) {
    #[unroll]
    for input in 0..comptime!((strip - 1) * stride + kernel) {
        #[unroll]
        for output in 0..strip {
            if comptime!(input >= output * stride && input < output * stride + kernel) {
                sums[output] += values[input] * taps[comptime!(input - output * stride)];
            }
        }
    }
}

/// Gathers the input gradient: every input pixel sums over the outputs whose window contained it. A
/// strip begins at a multiple of the stride, so that the taps of each of its pixels are known at
/// compile time.
#[cube(launch, address_type = "dynamic")]
fn gather_kernel<E: Float, N: Size>(
    gradient: &[Vector<E, N>],
    weight: &[Vector<f32, N>],
    input_gradient: &mut [Vector<E, N>],
    strips: FastDivmod<usize>,
    height: FastDivmod<usize>,
    width: usize,
    rows: usize,
    columns: usize,
    channels: usize,
    items: usize,
    #[comptime] geometry: Conv2dGeometry,
    #[define(E)] _element: ElemType,
) {
    let Conv2dGeometry { kernel, stride, padding } = comptime!(geometry);
    let strip = comptime!(gathered_strip(stride));
    // The first output whose window contains the strip's first pixel is `before` outputs before
    // `left / stride`.
    let before = comptime!((kernel - 1).saturating_sub(padding) / stride);
    let count = comptime!(before + (strip - 1 + padding) / stride + 1);
    let channel = own_channel();
    if channel < channels {
        let mut item = first_item();
        while item < items {
            let (line, strip_of_line) = strips.div_mod(item);
            let (image, line_of_image) = height.div_mod(line);
            let left = strip_of_line * strip;
            let mut sums = zeros::<N>(strip);
            #[unroll]
            for tap_row in 0..kernel {
                let below = line_of_image + padding - tap_row;
                let row = below / stride;
                if line_of_image + padding >= tap_row && below == row * stride && row < rows {
                    let start = (image * rows + row) * columns;
                    let values =
                        seen::<E, N>(gradient, start, left / stride, columns, channels, channel, before, count);
                    #[unroll]
                    for tap in 0..kernel {
                        let position = comptime!(tap_row * kernel + tap);
                        let weight = weight[position * channels + channel];
                        #[unroll]
                        for pixel in 0..strip {
                            // One stride is added to keep the distance nonnegative.
                            let distance = comptime!((before + 1) * stride + pixel + padding - tap);
                            if comptime!(distance % stride == 0) {
                                sums[pixel] += values[comptime!(distance / stride - 1)] * weight;
                            }
                        }
                    }
                }
            }
            #[unroll]
            for pixel in 0..strip {
                if left + pixel < width {
                    input_gradient[(line * width + left + pixel) * channels + channel] = Vector::cast_from(sums[pixel]);
                }
            }
            item += item_step();
        }
    }
}

/// Computes partial sums of the weight gradient, [slices, k k, channels].
#[cube(launch, address_type = "dynamic")]
fn weight_gradient_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    gradient: &[Vector<E, N>],
    partial: &mut [Vector<f32, N>],
    strips: FastDivmod<usize>,
    rows: FastDivmod<usize>,
    height: usize,
    width: usize,
    columns: usize,
    channels: usize,
    items: usize,
    padding: usize,
    #[comptime] kernel: usize,
    #[comptime] stride: usize,
    #[comptime] strip: usize,
    #[comptime] dims: [usize; 2],
    #[define(E)] _element: ElemType,
) {
    let inputs = comptime!((strip - 1) * stride + kernel);
    let mut shared = Shared::<[Vector<f32, N>]>::new_slice(comptime!(dims[0] * dims[1]));
    let channel = own_channel();
    let mut sums = zeros::<N>(comptime!(kernel * kernel));
    if channel < channels {
        let mut item = first_item();
        while item < items {
            let (row, strip_of_row) = strips.div_mod(item);
            let (image, row_of_image) = rows.div_mod(row);
            let left = strip_of_row * strip;
            let mut outputs = Array::<Vector<f32, N>>::new(strip);
            #[unroll]
            for output in 0..strip {
                outputs[output] = Vector::zeroed();
                if left + output < columns {
                    let position = (row * columns + left + output) * channels + channel;
                    outputs[output] = single::<E, N>(gradient[position]);
                }
            }
            #[unroll]
            for tap_row in 0..kernel {
                let line = row_of_image * stride + tap_row;
                if line >= padding && line < height + padding {
                    let start = (image * height + line - padding) * width;
                    let values = seen::<E, N>(x, start, left * stride, width, channels, channel, padding, inputs);
                    #[unroll]
                    for input in 0..inputs {
                        #[unroll]
                        for output in 0..strip {
                            if comptime!(input >= output * stride && input < output * stride + kernel) {
                                let tap = comptime!(tap_row * kernel + input - output * stride);
                                sums[tap] += values[input] * outputs[output];
                            }
                        }
                    }
                }
            }
            item += item_step();
        }
    }
    #[unroll]
    for tap in 0..comptime!(kernel * kernel) {
        let sum = sum_rows::<N>(sums[tap], &mut shared, comptime!(dims[1]));
        if UNIT_POS_Y == 0 && channel < channels {
            partial[(CUBE_POS_Y as usize * comptime!(kernel * kernel) + tap) * channels + channel] = sum;
        }
    }
}
