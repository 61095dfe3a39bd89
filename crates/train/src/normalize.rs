//! Conversion of decoded batches to normalized network inputs.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mbconv_kernels::image_ops::{channels, packed};

use crate::device::is_host;
use crate::device_augment;
use mbconv_data::{Batch, Preprocess};

/// Takes the pixels out of a batch and copies them to the device: `[N, H, W, 3]`, with byte values.
/// Copies bytes and applies deferred augmentation on the device.
pub fn pixels(batch: &mut Batch, device: &Device) -> Tensor<4> {
    let [n, height, width] = [batch.labels.len(), batch.height, batch.width];
    let bytes = std::mem::take(&mut batch.images);
    if is_host(&device.clone().inner()) && batch.plans.is_empty() {
        let bytes = TensorData::new(bytes, [n, height, width, 3]);
        return Tensor::<4, Int>::from_data(bytes, (device, DType::U8)).float();
    }
    channels(device_augment::apply(&batch.plans, packed(bytes, [n, height, width], device)))
}

/// Normalizes pixels on a device.
pub struct Normalizer {
    /// Weights of red, green and blue for the conversion to gray.
    luma: Option<Tensor<4>>,
    mean: Tensor<4>,
    std: Tensor<4>,
}

impl Normalizer {
    /// Creates a normalizer with the settings in `preprocess`. One channel means gray; any other
    /// number means color. [`Preprocess::takes_pictures`] checks whether the network accepts
    /// images.
    pub fn new(preprocess: &Preprocess, device: &Device) -> Self {
        let gray = preprocess.channels == 1;
        let count = if gray { 1 } else { 3 };
        let constants = |values: [f32; 3]| {
            Tensor::<1>::from_floats(&values.map(|v| v * 255.0)[..count], device).reshape([1, 1, 1, count])
        };
        Self {
            luma: gray.then(|| Tensor::<1>::from_floats(LUMA, device).reshape([1, 1, 1, 3])),
            mean: constants(preprocess.mean),
            std: constants(preprocess.std),
        }
    }

    /// Normalizes pixels `[N, H, W, 3]` with byte values to images `[N, H, W, channels]`:
    /// `(byte / 255 - mean) / std`.
    pub fn apply(&self, pixels: Tensor<4>) -> Tensor<4> {
        let pixels = match &self.luma {
            Some(luma) => gray(pixels, luma.clone()),
            None => pixels,
        };
        (pixels - self.mean.clone()) / self.std.clone()
    }
}

/// Normalizes pixels with a new [`Normalizer`].
pub fn normalize(pixels: Tensor<4>, preprocess: &Preprocess) -> Tensor<4> {
    Normalizer::new(preprocess, &pixels.device()).apply(pixels)
}

/// Takes the images out of a batch, copies them to the device and normalizes them.
pub fn images(batch: &mut Batch, preprocess: &Preprocess, device: &Device) -> Tensor<4> {
    normalize(pixels(batch, device), preprocess)
}

/// Weights of ITU-R 601-2 in 16-bit fixed point.
const LUMA: [f32; 3] = [19595.0, 38470.0, 7471.0];

/// Converts RGB to gray with the weights `luma`, as Pillow's `convert("L")`. The weighted sums are
/// below 2²⁴, so that f32 represents them exactly.
fn gray(rgb: Tensor<4>, luma: Tensor<4>) -> Tensor<4> {
    ((rgb * luma).sum_dim(3) + (1 << 15) as f32).div_scalar((1 << 16) as f32).floor()
}

/// Returns the class indices, `[N]`.
pub fn targets(batch: &Batch, device: &Device) -> Tensor<1, Int> {
    let labels: Vec<i64> = batch.labels.iter().map(|&label| label as i64).collect();
    Tensor::from_data(labels.as_slice(), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_normalized_by_channel() {
        let preprocess = Preprocess {
            resize: 1.into(),
            crop: 1.into(),
            mean: [0.0, 0.5, 1.0],
            std: [1.0, 0.5, 0.25],
            ..Preprocess::default()
        };
        let batch =
            Batch { images: vec![255, 0, 51], labels: vec![3], height: 1, width: 1, indices: vec![0], plans: vec![] };
        for device in [Device::default(), Device::default().autodiff()] {
            let values: Vec<f32> = images(&mut batch.clone(), &preprocess, &device).into_data().try_to_vec().unwrap();
            for (value, expected) in values.iter().zip([1.0, -1.0, -3.2]) {
                assert!((value - expected).abs() < 1e-6, "{values:?}");
            }
            assert_eq!(targets(&batch, &device).into_scalar::<i64>(), 3);
        }
    }

    #[test]
    fn gray_conversion_matches_pillow() {
        // PIL.Image.fromarray(pixels).convert("L")
        let pixels = [[255u8, 0, 51], [0, 0, 0], [255; 3], [1, 2, 3], [200, 100, 7], [7, 7, 7], [0, 128, 255]];
        let device = Device::default();
        let luma = Tensor::<1>::from_floats(LUMA, &device).reshape([1, 1, 1, 3]);
        let rgb = Tensor::<2>::from_floats(pixels.map(|pixel| pixel.map(f32::from)), &device);
        let found = gray(rgb.reshape([1, 1, -1, 3]), luma);
        assert_eq!(found.into_data().try_to_vec::<f32>().unwrap(), [82.0, 0.0, 255.0, 2.0, 119.0, 7.0, 104.0]);
        let preprocess = Preprocess { mean: [0.5; 3], std: [0.5; 3], ..Preprocess::default() }.with_channels(1);
        let mut batch =
            Batch { images: vec![255; 6], labels: vec![0], height: 1, width: 2, indices: vec![0], plans: vec![] };
        let images = images(&mut batch, &preprocess, &Device::default());
        assert_eq!(images.dims(), [1, 1, 2, 1]);
        assert_eq!(images.into_data().try_to_vec::<f32>().unwrap(), [1.0, 1.0]);
    }
}
