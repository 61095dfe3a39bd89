//! What fusion must know of an operation's result before it is computed.

use burn::{
    backend::fusion::custom::TensorSpec,
    tensor::{DType, Shape},
};

use crate::{Convolution, composed::parameter_dtype};

/// Of a convolution's output, for a map [N, H, W, Ci] and a weight [Co, .., k, k].
pub fn output_shape(x: &Shape, weight: &Shape, convolution: Convolution) -> Shape {
    let ([batch, height, width, _], [outputs, ..]) = (x.dims(), weight.dims::<4>());
    let window = convolution.window();
    Shape::new([batch, window.output(height), window.output(width), outputs])
}

/// Of a convolution's map, whose height and width are `size`.
pub fn map_shape(weight: &Shape, gradient: &Shape, convolution: Convolution, [height, width]: [usize; 2]) -> Shape {
    let ([outputs, depth, ..], [batch, ..]) = (weight.dims::<4>(), gradient.dims::<4>());
    Shape::new([batch, height, width, depth * convolution.groups(outputs)])
}

/// Of a convolution's weight.
pub fn weight_of(x: &TensorSpec, gradient: &TensorSpec, convolution: Convolution) -> TensorSpec {
    let ([.., channels], [.., outputs]) = (x.shape.dims::<4>(), gradient.shape.dims::<4>());
    let kernel = convolution.window().kernel;
    let shape = Shape::new([outputs, channels / convolution.groups(channels), kernel, kernel]);
    TensorSpec::new(shape, parameter_dtype(x.dtype))
}

/// Of the averages of a map's images.
pub fn average_shape(x: &Shape) -> Shape {
    let [images, .., channels] = x.dims::<4>();
    Shape::new([images, 1, 1, channels])
}

/// One number for each channel of a map.
pub fn vector_of(x: &TensorSpec) -> TensorSpec {
    let [.., channels] = x.shape.dims::<4>();
    TensorSpec::new(Shape::new([channels]), parameter_dtype(x.dtype))
}

/// Pictures of this number, height and width.
pub fn pictures_of(words: &TensorSpec, size: [usize; 3]) -> TensorSpec {
    TensorSpec::new(Shape::new(size), words.dtype)
}

/// The channels of pictures.
pub fn channels_of(pictures: &TensorSpec) -> TensorSpec {
    let [images, height, width] = pictures.shape.dims();
    TensorSpec::new(Shape::new([images, height, width, 3]), DType::F32)
}

/// So many factors.
pub fn kept_of(numbers: &TensorSpec, count: usize) -> TensorSpec {
    TensorSpec::new(Shape::new([count]), numbers.dtype)
}
