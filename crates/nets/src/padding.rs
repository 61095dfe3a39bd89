//! TensorFlow's `SAME` padding, which can have more zeros at the end of a feature map than at its
//! start.

use burn::tensor::Tensor;
use mbconv_kernels::{Conv2dGeometry, inference};

use crate::types::Padding;

/// Pads `x` `[N, H, W, C]` if the convolution cannot, and returns the geometry for the convolution
/// of the result.
pub(crate) fn pad(x: Tensor<4>, geometry: Conv2dGeometry, padding: Padding) -> (Tensor<4>, Conv2dGeometry) {
    let [images, height, width, channels] = x.dims();
    let Some([rows, columns]) = uneven([height, width], geometry, padding) else { return (x, geometry) };
    let sides = [height + rows.0 + rows.1, width + columns.0 + columns.1];
    // On a device with autodiff, Burn's `pad` would transfer the zeros one by one.
    let zeros = Tensor::zeros([images, sides[0], sides[1], channels], (&x.device(), x.dtype()));
    let inside = [0..images, rows.0..rows.0 + height, columns.0..columns.0 + width, 0..channels];
    (zeros.slice_assign(inside, x), Conv2dGeometry { padding: 0, ..geometry })
}

/// Returns the zeros before and after rows and columns, if they differ from the geometry's padding.
pub(crate) fn uneven(size: [usize; 2], geometry: Conv2dGeometry, padding: Padding) -> Option<[(usize, usize); 2]> {
    if padding == Padding::Symmetric {
        return None;
    }
    let zeros = size.map(|side| inference::Padding::Same.along(side, geometry.kernel, geometry.stride).1);
    (zeros != [[geometry.padding; 2]; 2]).then(|| zeros.map(|[before, after]| (before, after)))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn sides_are_padded_as_tensorflow_does() {
        // Side, kernel, stride → zeros before and after, by the documented formula of
        // `tf.nn.conv2d(padding="SAME")`.
        for (side, kernel, stride, zeros) in [
            (224, 3, 2, [0, 1]),
            (15, 3, 2, [1, 1]),
            (8, 5, 2, [1, 2]),
            (15, 5, 2, [2, 2]),
            (7, 3, 1, [1, 1]),
            (1, 3, 2, [1, 1]),
            (2, 5, 2, [1, 2]),
            (6, 3, 4, [0, 1]),
        ] {
            assert_eq!(inference::Padding::Same.along(side, kernel, stride).1, zeros, "{side} {kernel} {stride}");
            let x = Tensor::<4>::ones([1, side, 2, 3], &Device::default());
            let geometry = Conv2dGeometry { kernel, stride, padding: kernel / 2 };
            let (padded, left) = pad(x.clone(), geometry, Padding::Same);
            let total = padded.dims()[1] + 2 * left.padding;
            assert_eq!((total - kernel) / stride + 1, side.div_ceil(stride));
            assert_eq!(padded.sum().into_scalar::<f32>(), (side * 6) as f32);
            assert_eq!(pad(x, geometry, Padding::Symmetric).1, geometry);
        }
    }
}
