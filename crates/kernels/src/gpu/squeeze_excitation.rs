//! Squeeze-and-excitation on whole feature maps, with one pass over each. The cube's position along
//! the second axis is the index of the image.

use burn::{backend::TensorMetadata, tensor::Shape};
use burn_cubecl::{
    cubecl::{self, ir::ElemType, prelude::*},
    kernel::into_contiguous,
    tensor::CubeTensor,
};

use super::launch::{Launch, own_channel, single, sum_rows, widest_vector};
use super::tensors::{address, element, empty};

/// The pixels of an image, and the cubes that process them.
struct Images {
    pixels: usize,
    launch: Launch,
    vector: usize,
    /// [N, 1, 1, C]
    shape: Shape,
}

impl Images {
    fn of(x: &CubeTensor) -> Self {
        let [images, height, width, channels] = x.shape().dims();
        let pixels = height * width;
        let vector = widest_vector(x, channels);
        let launch = Launch { slices: images, ..Launch::new(&x.client, pixels, channels, vector) };
        Self { pixels, launch, vector, shape: Shape::new([images, 1, 1, channels]) }
    }
}

/// Returns the mean of every channel over each image, [N, 1, 1, C].
pub fn average(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    let Images { pixels, launch, vector, shape } = Images::of(&x);
    let (client, element, means) = (x.client.clone(), element(&x), empty(&x, shape));
    average_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        address(&[&x]),
        vector,
        x.into_buffer_arg(),
        means.clone().into_buffer_arg(),
        1.0 / pixels as f32,
        pixels,
        launch.channels,
        launch.dims(),
        element,
    );
    means
}

/// Returns `x` with every channel of an image scaled by its gate.
pub fn scale_channels(x: CubeTensor, gate: CubeTensor) -> CubeTensor {
    let [x, gate] = [x, gate].map(into_contiguous);
    let Images { pixels, launch, vector, .. } = Images::of(&x);
    let (client, element, y) = (x.client.clone(), element(&x), empty(&x, x.shape()));
    excite_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        address(&[&x]),
        vector,
        x.into_buffer_arg(),
        gate.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        pixels,
        launch.channels,
        element,
    );
    y
}

/// Returns the gradients of the feature map and of the gate.
pub fn scale_channels_gradients(x: CubeTensor, gate: CubeTensor, gradient: CubeTensor) -> [CubeTensor; 2] {
    let [x, gate, gradient] = [x, gate, gradient].map(into_contiguous);
    let Images { pixels, launch, vector, shape } = Images::of(&x);
    let (client, element) = (x.client.clone(), element(&x));
    let (input_gradient, gate_gradient) = (empty(&x, x.shape()), empty(&x, shape));
    excite_gradients_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        address(&[&x]),
        vector,
        x.into_buffer_arg(),
        gate.into_buffer_arg(),
        gradient.into_buffer_arg(),
        input_gradient.clone().into_buffer_arg(),
        gate_gradient.clone().into_buffer_arg(),
        pixels,
        launch.channels,
        launch.dims(),
        element,
    );
    [input_gradient, gate_gradient]
}

#[cube(launch, address_type = "dynamic")]
fn average_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    means: &mut [Vector<E, N>],
    share: f32,
    pixels: usize,
    channels: usize,
    #[comptime] dims: [usize; 2],
    #[define(E)] _element: ElemType,
) {
    let mut shared = Shared::<[Vector<f32, N>]>::new_slice(comptime!(dims[0] * dims[1]));
    let channel = own_channel();
    let image = CUBE_POS_Y as usize;
    let mut sum = Vector::<f32, N>::zeroed();
    if channel < channels {
        let mut pixel = UNIT_POS_Y as usize;
        while pixel < pixels {
            sum += single::<E, N>(x[(image * pixels + pixel) * channels + channel]);
            pixel += CUBE_DIM_Y as usize;
        }
    }
    let sum = sum_rows::<N>(sum, &mut shared, comptime!(dims[1]));
    if UNIT_POS_Y == 0 && channel < channels {
        means[image * channels + channel] = Vector::cast_from(sum * Vector::new(share));
    }
}

#[cube(launch, address_type = "dynamic")]
fn excite_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    gate: &[Vector<E, N>],
    y: &mut [Vector<E, N>],
    pixels: usize,
    channels: usize,
    #[define(E)] _element: ElemType,
) {
    let channel = own_channel();
    let image = CUBE_POS_Y as usize;
    if channel < channels {
        let gate = single::<E, N>(gate[image * channels + channel]);
        let mut pixel = UNIT_POS_Y as usize;
        while pixel < pixels {
            let position = (image * pixels + pixel) * channels + channel;
            y[position] = Vector::cast_from(single::<E, N>(x[position]) * gate);
            pixel += CUBE_DIM_Y as usize;
        }
    }
}

#[cube(launch, address_type = "dynamic")]
fn excite_gradients_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    gate: &[Vector<E, N>],
    gradient: &[Vector<E, N>],
    input_gradient: &mut [Vector<E, N>],
    gate_gradient: &mut [Vector<E, N>],
    pixels: usize,
    channels: usize,
    #[comptime] dims: [usize; 2],
    #[define(E)] _element: ElemType,
) {
    let mut shared = Shared::<[Vector<f32, N>]>::new_slice(comptime!(dims[0] * dims[1]));
    let channel = own_channel();
    let image = CUBE_POS_Y as usize;
    let mut sum = Vector::<f32, N>::zeroed();
    if channel < channels {
        let gate = single::<E, N>(gate[image * channels + channel]);
        let mut pixel = UNIT_POS_Y as usize;
        while pixel < pixels {
            let position = (image * pixels + pixel) * channels + channel;
            let gradient = single::<E, N>(gradient[position]);
            sum += gradient * single::<E, N>(x[position]);
            input_gradient[position] = Vector::cast_from(gradient * gate);
            pixel += CUBE_DIM_Y as usize;
        }
    }
    let sum = sum_rows::<N>(sum, &mut shared, comptime!(dims[1]));
    if UNIT_POS_Y == 0 && channel < channels {
        gate_gradient[image * channels + channel] = Vector::cast_from(sum);
    }
}
