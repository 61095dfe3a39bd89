//! From decoded batches to what the network takes.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mbconv_kernels::pictures::{channels, packed};

use crate::data::augment::Plan;
use crate::data::{Batch, Preprocess};
use crate::device::is_host;
use crate::mix::Mixes;

/// Images as the network takes them, `[N, H, W, channels]`: bytes travel to the device, what is left to do to them is done there,
/// and there they are normalised, `(byte / 255 - mean) / std`. One channel is grey; any other number is colour, whatever the
/// network takes: [`Preprocess::takes_pictures`] says whether it does.
pub fn images(batch: &Batch, preprocess: &Preprocess, device: &Device) -> Tensor<4> {
    mixed_images(batch, None, preprocess, device)
}

/// The same, mixed there.
pub(crate) fn mixed_images(
    batch: &Batch,
    mixes: Option<&Mixes>,
    preprocess: &Preprocess,
    device: &Device,
) -> Tensor<4> {
    let shape = [batch.labels.len(), batch.height, batch.width];
    let count = if preprocess.channels == 1 { 1 } else { 3 };
    let bytes = if is_host(&device.clone().inner()) && batch.plans.is_empty() {
        let bytes = if count == 1 { grey(&batch.images) } else { batch.images.clone() };
        let [n, height, width] = shape;
        Tensor::<4, Int>::from_data(TensorData::new(bytes, [n, height, width, count]), (device, DType::U8)).float()
    } else {
        let pictures = packed(batch.images.clone(), shape, device);
        let bytes = channels(Plan::apply_there(&batch.plans, pictures));
        if count == 1 { grey_there(bytes) } else { bytes }
    };
    let bytes = match mixes {
        Some(mixes) => mixes.blend_there(bytes),
        None => bytes,
    };
    let constants = |values: [f32; 3]| {
        Tensor::<1>::from_floats(&values.map(|v| v * 255.0)[..count], device).reshape([1, 1, 1, count])
    };
    (bytes - constants(preprocess.mean)) / constants(preprocess.std)
}

/// Parts of red, green and blue in grey, as Pillow's `convert("L")`: ITU-R 601-2 in 16-bit fixed point.
const LUMA: [u32; 3] = [19595, 38470, 7471];

/// Grey of `[N, H, W, 3]`. A sum of products is below 2²⁴, so that single precision holds it.
fn grey_there(rgb: Tensor<4>) -> Tensor<4> {
    let luma = Tensor::<1>::from_floats(LUMA.map(|part| part as f32), &rgb.device()).reshape([1, 1, 1, 3]);
    ((rgb * luma).sum_dim(3) + (1 << 15) as f32).div_scalar((1 << 16) as f32).floor()
}

/// Grey of pixels.
fn grey(rgb: &[u8]) -> Vec<u8> {
    let (pixels, _) = rgb.as_chunks::<3>();
    let weighed =
        |pixel: &[u8; 3]| pixel.iter().zip(LUMA).map(|(&value, weight)| u32::from(value) * weight).sum::<u32>();
    pixels.iter().map(|pixel| ((weighed(pixel) + (1 << 15)) >> 16) as u8).collect()
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
            let values: Vec<f32> = images(&batch, &preprocess, &device).into_data().try_to_vec().unwrap();
            for (value, expected) in values.iter().zip([1.0, -1.0, -3.2]) {
                assert!((value - expected).abs() < 1e-6, "{values:?}");
            }
            assert_eq!(targets(&batch, &device).into_scalar::<i64>(), 3);
        }
    }

    #[test]
    fn grey_is_pillows() {
        // PIL.Image.fromarray(pixels).convert("L")
        let pixels = [[255, 0, 51], [0, 0, 0], [255; 3], [1, 2, 3], [200, 100, 7], [7, 7, 7], [0, 128, 255]];
        assert_eq!(grey(pixels.as_flattened()), [82, 0, 255, 2, 119, 7, 104]);
        let preprocess = Preprocess { mean: [0.5; 3], std: [0.5; 3], ..Preprocess::default() }.with_channels(1);
        let batch =
            Batch { images: vec![255; 6], labels: vec![0], height: 1, width: 2, indices: vec![0], plans: vec![] };
        let images = images(&batch, &preprocess, &Device::default());
        assert_eq!(images.dims(), [1, 1, 2, 1]);
        assert_eq!(images.into_data().try_to_vec::<f32>().unwrap(), [1.0, 1.0]);
    }
}
