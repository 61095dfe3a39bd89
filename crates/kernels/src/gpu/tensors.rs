//! Properties and allocation of tensors.

use burn::{
    backend::TensorMetadata,
    tensor::{DType, Shape},
};
use burn_cubecl::{
    cubecl::ir::{AddressType, ElemType, FloatKind},
    ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};

/// Returns the element type of a feature map in a kernel.
pub(super) fn element(map: &CubeTensor) -> ElemType {
    ElemType::Float(match map.dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}

/// Allocates contiguous memory on the device of `tensor`.
pub(super) fn empty_of(tensor: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(tensor.client.clone(), tensor.device.clone(), shape, dtype)
}

/// Allocates contiguous memory on the device of `tensor`, in its precision.
pub(super) fn empty(tensor: &CubeTensor, shape: Shape) -> CubeTensor {
    empty_of(tensor, shape, tensor.dtype)
}

/// Allocates contiguous memory on the device of `tensor`, in single precision.
pub(super) fn empty_single(tensor: &CubeTensor, shape: Shape) -> CubeTensor {
    empty_of(tensor, shape, DType::F32)
}

/// Returns an address type that can index every element of every tensor.
pub(super) fn address(tensors: &[&CubeTensor]) -> AddressType {
    tensors.iter().map(|tensor| tensor.required_address_type()).max().unwrap_or_default()
}

/// Returns the feature map's dimensions as a matrix: pixels of all images, and channels.
pub(super) fn pixels_and_channels(x: &CubeTensor) -> [usize; 2] {
    let [batch, height, width, channels] = x.shape().dims();
    [batch * height * width, channels]
}
