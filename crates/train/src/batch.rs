//! From decoded batches to what the network takes.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::data::{Batch, Preprocess};

/// Images as the network takes them, `[N, H, W, 3]`: bytes travel to the device and are normalised there,
/// `(byte / 255 - mean) / std`.
pub fn images(batch: &Batch, preprocess: &Preprocess, device: &Device) -> Tensor<4> {
    let n = batch.labels.len();
    let data = TensorData::new(batch.images.clone(), [n, batch.height, batch.width, 3]);
    let bytes = Tensor::<4, Int>::from_data(data, (device, DType::U8)).float();
    let channels = |values: [f32; 3]| Tensor::<1>::from_floats(values.map(|v| v * 255.0), device).reshape([1, 1, 1, 3]);
    (bytes - channels(preprocess.mean)) / channels(preprocess.std)
}

/// Class indices, `[N]`.
pub fn targets(batch: &Batch, device: &Device) -> Tensor<1, Int> {
    let labels: Vec<i64> = batch.labels.iter().map(|&label| label as i64).collect();
    Tensor::from_data(labels.as_slice(), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Interpolation;

    #[test]
    fn bytes_are_normalised_by_channel() {
        let preprocess = Preprocess {
            resize: 1,
            crop: 1,
            interpolation: Interpolation::Bilinear,
            mean: [0.0, 0.5, 1.0],
            std: [1.0, 0.5, 0.25],
        };
        let batch = Batch { images: vec![255, 0, 51], labels: vec![3], height: 1, width: 1, indices: vec![0] };
        for device in [Device::default(), Device::default().autodiff()] {
            let values: Vec<f32> = images(&batch, &preprocess, &device).into_data().try_to_vec().unwrap();
            for (value, expected) in values.iter().zip([1.0, -1.0, -3.2]) {
                assert!((value - expected).abs() < 1e-6, "{values:?}");
            }
            assert_eq!(targets(&batch, &device).into_scalar::<i64>(), 3);
        }
    }
}
