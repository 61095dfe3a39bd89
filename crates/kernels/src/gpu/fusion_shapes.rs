//! Shapes and data types of results, which Burn's fusion needs before an operation runs.

use burn::{
    backend::fusion::custom::TensorSpec,
    tensor::{DType, Shape},
};

use crate::types::convolution::Convolution;
use crate::types::precision::parameter_dtype;

/// Returns the shape of a convolution's output, for an input [N, H, W, Ci] and a weight [Co, .., k,
/// k].
pub fn output_shape(x: &Shape, weight: &Shape, convolution: Convolution) -> Shape {
    let ([batch, height, width, _], [outputs, ..]) = (x.dims(), weight.dims::<4>());
    let [height, width] = convolution.output_size([height, width]);
    Shape::new([batch, height, width, outputs])
}

/// Returns the shape of a convolution's input, with the given height and width.
pub fn map_shape(weight: &Shape, gradient: &Shape, convolution: Convolution, [height, width]: [usize; 2]) -> Shape {
    let ([outputs, depth, ..], [batch, ..]) = (weight.dims::<4>(), gradient.dims::<4>());
    Shape::new([batch, height, width, depth * convolution.groups(outputs)])
}

/// Returns the shape and data type of a convolution's weight.
pub fn weight_of(x: &TensorSpec, gradient: &TensorSpec, convolution: Convolution) -> TensorSpec {
    let ([.., channels], [.., outputs]) = (x.shape.dims::<4>(), gradient.shape.dims::<4>());
    let kernel = convolution.geometry().kernel;
    let shape = Shape::new([outputs, channels / convolution.groups(channels), kernel, kernel]);
    TensorSpec::new(shape, parameter_dtype(x.dtype))
}

/// Returns the shape of the averages over each image.
pub fn average_shape(x: &Shape) -> Shape {
    let [images, .., channels] = x.dims::<4>();
    Shape::new([images, 1, 1, channels])
}

/// Returns the shape and data type of a vector with one value per channel.
pub fn vector_of(x: &TensorSpec) -> TensorSpec {
    let [.., channels] = x.shape.dims::<4>();
    TensorSpec::new(Shape::new([channels]), parameter_dtype(x.dtype))
}

/// Returns the shape and data type of packed images, for their number, height and width.
pub fn images_of(words: &TensorSpec, size: [usize; 3]) -> TensorSpec {
    TensorSpec::new(Shape::new(size), words.dtype)
}

/// Returns the shape and data type of the channels of packed images.
pub fn channels_of(images: &TensorSpec) -> TensorSpec {
    let [images, height, width] = images.shape.dims();
    TensorSpec::new(Shape::new([images, height, width, 3]), DType::F32)
}

/// Returns the shape and data type of a dropout mask of `count` factors.
pub fn mask_of(numbers: &TensorSpec, count: usize) -> TensorSpec {
    TensorSpec::new(Shape::new([count]), numbers.dtype)
}
