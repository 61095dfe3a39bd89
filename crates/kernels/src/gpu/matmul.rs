//! Convolutions as matrix multiplications. Results are contiguous, as the next kernel requires,
//! whereas Burn would align every pixel separately. The gradient of a weight is a small matrix
//! whose sums run over all pixels of a batch, so it is split into slices that keep the whole GPU
//! busy.

use burn::{
    backend::{TensorMetadata, ops::FloatTensorOps},
    tensor::{DType, Shape, Slice},
};
use burn_cubecl::{
    CubeBackend,
    cubecl::{self, client::Client, ir::ElemType, prelude::*, std::FastDivmod},
    kernel::{cast, into_contiguous},
    ops::{permute, reshape},
    tensor::CubeTensor,
};

use super::autotune;
use super::launch::{single, sum_slices, vector_size};
use super::tensors::{address, element, empty, empty_of, pixels_and_channels};
use crate::types::conv2d_geometry::Conv2dGeometry;

/// A feature map with fewer channels, such as an image, is cheap to unfold.
const FEW_CHANNELS: usize = 8;
/// Rows of an unfolded feature map have a multiple of this length, so that they are read and
/// written in vectors.
const ROW: usize = 8;
/// Minimum number of matrix elements that a slice reads for each sum that it stores.
const SHARE: usize = 4;
/// Approximate side length of the square of results that one cube computes.
const TILE: usize = 64;
/// Number of multiprocessors assumed if the device does not report it.
const PROCESSORS: usize = 64;
/// Number of cubes per multiprocessor, so that some compute while others wait for memory.
const CUBES: usize = 16;

/// Convolves `x` [N, H, W, Ci] with `weight` [Co, Ci, 1, 1] → [N, H, W, Co].
pub fn pointwise(x: CubeTensor, weight: CubeTensor) -> CubeTensor {
    let [batch, height, width, channels] = x.shape().dims();
    let [outputs, ..] = weight.shape().dims::<4>();
    let weight = permute(reshape(weight, Shape::new([outputs, channels])), &[1, 0]);
    reshape(product(as_matrix(x), weight), Shape::new([batch, height, width, outputs]))
}

/// Returns the gradient of the input.
pub fn pointwise_input_gradient(weight: CubeTensor, gradient: CubeTensor) -> CubeTensor {
    let [outputs, channels, ..] = weight.shape().dims::<4>();
    let [batch, height, width, _] = gradient.shape().dims();
    let weight = reshape(weight, Shape::new([outputs, channels]));
    reshape(product(as_matrix(gradient), weight), Shape::new([batch, height, width, channels]))
}

/// Returns the gradient of the weight, [Co, Ci, 1, 1].
pub fn pointwise_weight_gradient(x: CubeTensor, gradient: CubeTensor) -> CubeTensor {
    let ([_, channels], [_, outputs]) = (pixels_and_channels(&x), pixels_and_channels(&gradient));
    reshape(sum_of_products(gradient, as_matrix(x)), Shape::new([outputs, channels, 1, 1]))
}

/// Returns whether `x` is unfolded (im2col) for a dense convolution. Otherwise Burn's tensor-core
/// kernels unfold it on the fly.
pub fn unfolds(x: &CubeTensor) -> bool {
    let [.., channels] = x.shape().dims::<4>();
    channels < FEW_CHANNELS || !autotune::uses_tensor_cores(x)
}

/// Convolves `x` [N, H, W, Ci] with `weight` [Co, Ci, k, k] → [N, H', W', Co].
pub fn dense(x: CubeTensor, weight: CubeTensor, geometry: Conv2dGeometry) -> CubeTensor {
    let [batch, height, width, channels] = x.shape().dims();
    let [outputs, ..] = weight.shape().dims::<4>();
    let taps = geometry.kernel * geometry.kernel;
    let weight = cast(weight, x.dtype);
    let unfolded = unfold(into_contiguous(x), geometry, 0..taps);
    let weight = reshape(permute(weight, &[0, 2, 3, 1]), Shape::new([outputs, taps * channels]));
    let [_, columns] = unfolded.shape().dims();
    let rest = Shape::new([outputs, columns - taps * channels]);
    let weight = match rest.num_elements() {
        0 => weight,
        _ => {
            let rest = CubeBackend::float_zeros(rest, &weight.device, weight.dtype.into());
            CubeBackend::float_cat(vec![weight, rest], 1)
        }
    };
    let y = product(unfolded, permute(weight, &[1, 0]));
    reshape(y, Shape::new([batch, geometry.output(height), geometry.output(width), outputs]))
}

/// Returns the gradient of the input, which has the height and width `size`.
pub fn dense_input_gradient(
    weight: CubeTensor,
    gradient: CubeTensor,
    geometry: Conv2dGeometry,
    size: [usize; 2],
) -> CubeTensor {
    let [outputs, channels, ..] = weight.shape().dims::<4>();
    let columns = geometry.kernel * geometry.kernel * channels;
    let weight = cast(weight, gradient.dtype);
    let weight = reshape(permute(weight, &[0, 2, 3, 1]), Shape::new([outputs, columns]));
    let [batch, rows, columns, _] = gradient.shape().dims();
    fold(product(as_matrix(gradient), weight), geometry, [batch, rows, columns, channels], size)
}

/// Returns the gradient of the weight, [Co, Ci, k, k]. If the feature map has many channels, one
/// kernel row is unfolded at a time, which reduces the memory to a third or less.
pub fn dense_weight_gradient(x: CubeTensor, gradient: CubeTensor, geometry: Conv2dGeometry) -> CubeTensor {
    let [.., channels] = x.shape().dims::<4>();
    let [.., outputs] = gradient.shape().dims::<4>();
    let (x, gradient) = (into_contiguous(x), into_contiguous(gradient));
    let taps = geometry.kernel * geometry.kernel;
    let at_once = if channels < FEW_CHANNELS { taps } else { geometry.kernel };
    let parts = (0..taps).step_by(at_once).map(|first| {
        let taps = first..taps.min(first + at_once);
        let columns = taps.len() * channels;
        let part = sum_of_products(gradient.clone(), unfold(x.clone(), geometry, taps));
        CubeBackend::float_slice(part, &[Slice::full(), Slice::from(0..columns as isize)])
    });
    let weight = CubeBackend::float_cat(parts.collect(), 1);
    let weight = reshape(weight, Shape::new([outputs, geometry.kernel, geometry.kernel, channels]));
    into_contiguous(permute(weight, &[0, 3, 1, 2]))
}

/// Reshapes [N, H, W, C] → [N H W, C].
fn as_matrix(x: CubeTensor) -> CubeTensor {
    let shape = Shape::new(pixels_and_channels(&x));
    reshape(into_contiguous(x), shape)
}

/// Multiplies `left` [.., M, K] by `right` [.., K, N] → [.., M, N], contiguous.
fn product(left: CubeTensor, right: CubeTensor) -> CubeTensor {
    let dtype = left.dtype;
    product_in(left, right, dtype)
}

fn product_in(left: CubeTensor, right: CubeTensor, dtype: DType) -> CubeTensor {
    let mut shape = left.shape();
    let last = shape.num_dims() - 1;
    shape[last] = right.shape()[last];
    let y = empty_of(&left, shape, dtype);
    autotune::product(left, right, y.clone());
    y
}

/// Sums `gradient` [.., M] times `x` [pixels, N] over all pixels → [M, N], in single precision.
fn sum_of_products(gradient: CubeTensor, x: CubeTensor) -> CubeTensor {
    let ([pixels, columns], [_, outputs]) = (x.shape().dims(), pixels_and_channels(&gradient));
    let slices = slices(&x.client, pixels, [outputs, columns]);
    let gradient = reshape(into_contiguous(gradient), Shape::new([slices, pixels / slices, outputs]));
    let x = reshape(x, Shape::new([slices, pixels / slices, columns]));
    let partial = product_in(permute(gradient, &[0, 2, 1]), x, DType::F32);
    let sums = match slices {
        1 => partial,
        _ => sum_slices(partial, slices, outputs * columns),
    };
    reshape(sums, Shape::new([outputs, columns]))
}

/// Returns the number of equal slices into which a sum over `pixels` is split, for a result of
/// `rows` × `columns`.
fn slices(client: &Client, pixels: usize, [rows, columns]: [usize; 2]) -> usize {
    let processors = client.properties().hardware.num_streaming_multiprocessors;
    let tiles = rows.div_ceil(TILE) * columns.div_ceil(TILE);
    let wanted = CUBES * processors.map_or(PROCESSORS, |number| number as usize) / tiles;
    let worthwhile = pixels * (rows + columns) / (SHARE * rows * columns);
    let most = wanted.min(worthwhile).min(pixels / autotune::MANY_TERMS).max(1);
    (1..=most).rev().find(|slices| pixels.is_multiple_of(*slices)).unwrap_or(1)
}

/// Unfolds `x` [N, H, W, C] (im2col): returns the inputs of each window position for a range of its
/// taps, [N H' W', taps C], with rows padded by zeros.
fn unfold(x: CubeTensor, geometry: Conv2dGeometry, taps: std::ops::Range<usize>) -> CubeTensor {
    let Conv2dGeometry { kernel, stride, padding } = geometry;
    let [batch, height, width, channels] = x.shape().dims();
    let [rows, columns] = [geometry.output(height), geometry.output(width)];
    let client = x.client.clone();
    let vector = vector_size(&client, channels, 4);
    let row = (taps.len() * channels).next_multiple_of(ROW);
    let unfolded = empty(&x, Shape::new([batch * rows * columns, row]));
    let items = batch * rows * columns * row / vector;
    let element = element(&x);
    unfold_kernel::launch(
        &client,
        cubes(items),
        CubeDim::new_1d(UNITS),
        address(&[&x, &unfolded]),
        vector,
        x.into_buffer_arg(),
        unfolded.clone().into_buffer_arg(),
        row / vector,
        channels / vector,
        channels / vector,
        rows,
        columns,
        height,
        width,
        taps.start,
        taps.end,
        items,
        padding,
        kernel,
        stride,
        element,
    );
    unfolded
}

/// Folds (col2im): sums for each pixel the values of all window positions, [N, H', W'], that
/// contain it: [N H' W', k k C] → [N, H, W, C].
fn fold(
    unfolded: CubeTensor,
    geometry: Conv2dGeometry,
    [batch, rows, columns, channels]: [usize; 4],
    [height, width]: [usize; 2],
) -> CubeTensor {
    let Conv2dGeometry { kernel, stride, padding } = geometry;
    let client = unfolded.client.clone();
    let vector = vector_size(&client, channels, 4);
    let x = empty(&unfolded, Shape::new([batch, height, width, channels]));
    let items = batch * height * width * channels / vector;
    let element = element(&x);
    fold_kernel::launch(
        &client,
        cubes(items),
        CubeDim::new_1d(UNITS),
        address(&[&x, &unfolded]),
        vector,
        unfolded.into_buffer_arg(),
        x.clone().into_buffer_arg(),
        channels / vector,
        channels / vector,
        height,
        width,
        rows,
        columns,
        items,
        padding,
        kernel,
        stride,
        element,
    );
    x
}

/// Units in a cube of the unfold and fold kernels.
const UNITS: u32 = 256;

/// Returns the cubes for `items` items; each unit handles more than one item if there are very
/// many.
fn cubes(items: usize) -> CubeCount {
    CubeCount::Static(items.div_ceil(UNITS as usize).min(1 << 14) as u32, 1, 1)
}

#[cube(launch, address_type = "dynamic")]
fn unfold_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    unfolded: &mut [Vector<E, N>],
    row: FastDivmod<usize>,
    channels: FastDivmod<usize>,
    depth: usize,
    rows: FastDivmod<usize>,
    columns: FastDivmod<usize>,
    height: usize,
    width: usize,
    first_tap: usize,
    end_tap: usize,
    items: usize,
    padding: usize,
    #[comptime] kernel: usize,
    #[comptime] stride: usize,
    #[define(E)] _element: ElemType,
) {
    let mut item = CUBE_POS_X as usize * CUBE_DIM_X as usize + UNIT_POS_X as usize;
    while item < items {
        let (position, place) = row.div_mod(item);
        let (position, column) = columns.div_mod(position);
        let (image, line) = rows.div_mod(position);
        let (tap, channel) = channels.div_mod(place);
        let tap = first_tap + tap;
        let line = line * stride + tap / kernel;
        let column = column * stride + tap % kernel;
        let mut value = Vector::<E, N>::zeroed();
        if tap < end_tap && line >= padding && line < height + padding && column >= padding && column < width + padding
        {
            let pixel = (image * height + line - padding) * width + column - padding;
            value = x[pixel * depth + channel];
        }
        unfolded[item] = value;
        item += CUBE_COUNT_X as usize * CUBE_DIM_X as usize;
    }
}

#[cube(launch, address_type = "dynamic")]
fn fold_kernel<E: Float, N: Size>(
    unfolded: &[Vector<E, N>],
    x: &mut [Vector<E, N>],
    channels: FastDivmod<usize>,
    depth: usize,
    height: FastDivmod<usize>,
    width: FastDivmod<usize>,
    rows: usize,
    columns: usize,
    items: usize,
    padding: usize,
    #[comptime] kernel: usize,
    #[comptime] stride: usize,
    #[define(E)] _element: ElemType,
) {
    let mut item = CUBE_POS_X as usize * CUBE_DIM_X as usize + UNIT_POS_X as usize;
    while item < items {
        let (pixel, channel) = channels.div_mod(item);
        let (line, column) = width.div_mod(pixel);
        let (image, line) = height.div_mod(line);
        let mut sum = Vector::<f32, N>::zeroed();
        for tap_row in 0..kernel {
            let below = line + padding - tap_row;
            let row = below / stride;
            if line + padding >= tap_row && below == row * stride && row < rows {
                for tap in 0..kernel {
                    let right = column + padding - tap;
                    let output = right / stride;
                    if column + padding >= tap && right == output * stride && output < columns {
                        let position = ((image * rows + row) * columns + output) * (kernel * kernel);
                        sum += single::<E, N>(unfolded[(position + tap_row * kernel + tap) * depth + channel]);
                    }
                }
            }
        }
        x[item] = Vector::cast_from(sum);
        item += CUBE_COUNT_X as usize * CUBE_DIM_X as usize;
    }
}
