//! From decoded batches to what the network takes.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mbconv_kernels::pictures::{channels, packed};

use crate::data::augment::Plan;
use crate::data::{Batch, Preprocess};
use crate::device::is_host;

/// Takes the pixels out of a batch: on the device, `[N, H, W, 3]` with the values of bytes. Bytes travel; what was left to do to
/// them is done there.
pub fn pixels(batch: &mut Batch, device: &Device) -> Tensor<4> {
    let [n, height, width] = [batch.labels.len(), batch.height, batch.width];
    let bytes = std::mem::take(&mut batch.images);
    if is_host(&device.clone().inner()) && batch.plans.is_empty() {
        let bytes = TensorData::new(bytes, [n, height, width, 3]);
        return Tensor::<4, Int>::from_data(bytes, (device, DType::U8)).float();
    }
    channels(Plan::apply_there(&batch.plans, packed(bytes, [n, height, width], device)))
}

/// Makes pixels what the network takes, on a device.
pub struct Normaliser {
    /// For grey images: of red, green and blue.
    luma: Option<Tensor<4>>,
    mean: Tensor<4>,
    std: Tensor<4>,
}

impl Normaliser {
    /// As in `preprocess`. One channel is grey; any other number is colour, whatever the network takes:
    /// [`Preprocess::takes_pictures`] says whether it does.
    pub fn new(preprocess: &Preprocess, device: &Device) -> Self {
        let grey = preprocess.channels == 1;
        let count = if grey { 1 } else { 3 };
        let constants = |values: [f32; 3]| {
            Tensor::<1>::from_floats(&values.map(|v| v * 255.0)[..count], device).reshape([1, 1, 1, count])
        };
        Self {
            luma: grey.then(|| Tensor::<1>::from_floats(LUMA, device).reshape([1, 1, 1, 3])),
            mean: constants(preprocess.mean),
            std: constants(preprocess.std),
        }
    }

    /// Pixels `[N, H, W, 3]` with the values of bytes → images `[N, H, W, channels]`: `(byte / 255 - mean) / std`.
    pub fn apply(&self, pixels: Tensor<4>) -> Tensor<4> {
        let pixels = match &self.luma {
            Some(luma) => grey(pixels, luma.clone()),
            None => pixels,
        };
        (pixels - self.mean.clone()) / self.std.clone()
    }
}

/// Pixels as the network takes them; see [`Normaliser`].
pub fn normalised(pixels: Tensor<4>, preprocess: &Preprocess) -> Tensor<4> {
    Normaliser::new(preprocess, &pixels.device()).apply(pixels)
}

/// Both: takes the images out of a batch as the network takes them.
pub fn images(batch: &mut Batch, preprocess: &Preprocess, device: &Device) -> Tensor<4> {
    normalised(pixels(batch, device), preprocess)
}

/// ITU-R 601-2 in 16-bit fixed point.
const LUMA: [f32; 3] = [19595.0, 38470.0, 7471.0];

/// Red, green and blue to grey by their `luma`, as Pillow's `convert("L")`. A sum of products is below 2²⁴, so that single precision holds it.
fn grey(rgb: Tensor<4>, luma: Tensor<4>) -> Tensor<4> {
    ((rgb * luma).sum_dim(3) + (1 << 15) as f32).div_scalar((1 << 16) as f32).floor()
}

/// Class indices, `[N]`.
pub fn targets(batch: &Batch, device: &Device) -> Tensor<1, Int> {
    let labels: Vec<i64> = batch.labels.iter().map(|&label| label as i64).collect();
    Tensor::from_data(labels.as_slice(), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_normalised_by_channel() {
        let preprocess =
            Preprocess { resize: 1, crop: 1, mean: [0.0, 0.5, 1.0], std: [1.0, 0.5, 0.25], ..Preprocess::default() };
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
    fn grey_is_pillows() {
        // PIL.Image.fromarray(pixels).convert("L")
        let pixels = [[255u8, 0, 51], [0, 0, 0], [255; 3], [1, 2, 3], [200, 100, 7], [7, 7, 7], [0, 128, 255]];
        let device = Device::default();
        let luma = Tensor::<1>::from_floats(LUMA, &device).reshape([1, 1, 1, 3]);
        let rgb = Tensor::<2>::from_floats(pixels.map(|pixel| pixel.map(f32::from)), &device);
        let found = grey(rgb.reshape([1, 1, -1, 3]), luma);
        assert_eq!(found.into_data().try_to_vec::<f32>().unwrap(), [82.0, 0.0, 255.0, 2.0, 119.0, 7.0, 104.0]);
        let preprocess = Preprocess { mean: [0.5; 3], std: [0.5; 3], ..Preprocess::default() }.with_channels(1);
        let mut batch =
            Batch { images: vec![255; 6], labels: vec![0], height: 1, width: 2, indices: vec![0], plans: vec![] };
        let images = images(&mut batch, &preprocess, &Device::default());
        assert_eq!(images.dims(), [1, 1, 2, 1]);
        assert_eq!(images.into_data().try_to_vec::<f32>().unwrap(), [1.0, 1.0]);
    }
}
