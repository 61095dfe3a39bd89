//! Classification of batches, with test-time augmentation.

use burn::tensor::activation::{log_sigmoid, log_softmax};
use burn::tensor::{Device, Tensor};
use mbconv_data::{Batch, Preprocess, RgbPixels, Transform};
use mbconv_nets::Inference;

use crate::normalize::images;

/// Test-time augmentation: views of each image whose softmax probabilities are averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tta {
    /// The image alone.
    #[default]
    None,
    /// The image and its mirror image.
    Flip,
    /// The four corners and the center of the resized image.
    FiveCrop,
    /// The five crops and their mirror images.
    TenCrop,
}

impl Tta {
    /// Returns the number of views of an image.
    pub fn views(self) -> usize {
        let crops = if self.has_crops() { Preprocess::FIVE } else { 1 };
        if self.has_flips() { 2 * crops } else { crops }
    }

    /// Returns the transform that makes the crops. The classifier makes the mirror images.
    pub fn transform(self, preprocess: &Preprocess) -> Transform {
        let preprocess = preprocess.clone();
        if self.has_crops() { Transform::FiveCrops(preprocess) } else { Transform::Eval(preprocess) }
    }

    /// Makes the crops of an image.
    pub(crate) fn crop(self, preprocess: &Preprocess, image: RgbPixels) -> RgbPixels {
        if self.has_crops() { preprocess.five_crops(&image) } else { preprocess.apply(image) }
    }

    fn has_crops(self) -> bool {
        matches!(self, Self::FiveCrop | Self::TenCrop)
    }

    fn has_flips(self) -> bool {
        matches!(self, Self::Flip | Self::TenCrop)
    }
}

/// A network on a device with the preprocessing of its images.
#[derive(Clone, Copy)]
pub struct Classifier<'a> {
    /// The network.
    pub network: &'a Inference,
    /// The preprocessing.
    pub preprocess: &'a Preprocess,
    /// The device of the network.
    pub device: &'a Device,
    /// Test-time augmentation.
    pub tta: Tta,
    /// Averages the views' sigmoid instead of softmax probabilities.
    pub multi_label: bool,
}

impl Classifier<'_> {
    /// Returns the logits of a batch made by [`Tta::transform`], `[size, classes]`. The batch is
    /// padded to `size` images with black ones: a GPU would compile and tune kernels again for
    /// another batch size. With several views, the logits are logarithms of the mean probabilities;
    /// in multi-label classification, the logits whose sigmoid is the mean probability.
    pub fn logits(&self, mut batch: Batch, size: usize) -> Tensor<2> {
        batch.images.resize(size * batch.height * batch.width * 3, 0);
        batch.labels.resize(size, 0);
        let pixels = images(&mut batch, self.preprocess, self.device);
        let crops = if self.tta.has_crops() { split(pixels, Preprocess::FIVE) } else { vec![pixels] };
        let mut views = Vec::with_capacity(self.tta.views());
        for crop in crops {
            let mirrored = self.tta.has_flips().then(|| crop.clone().flip([2]));
            views.push(self.network.forward_channels_last(crop));
            views.extend(mirrored.map(|view| self.network.forward_channels_last(view)));
        }
        match views.len() {
            1 => views.remove(0),
            _ if self.multi_label => logits_of_mean_probabilities(views),
            _ => log_mean_probabilities(views),
        }
    }
}

/// Splits images of `count` crops below each other, `[N, count H, W, C]`, into `count` batches.
fn split(images: Tensor<4>, count: usize) -> Vec<Tensor<4>> {
    let [n, height, width, channels] = images.dims();
    let height = height / count;
    let crops = images.reshape([n, count, height, width, channels]);
    (0..count).map(|crop| crops.clone().narrow(1, crop, 1).reshape([n, height, width, channels])).collect()
}

/// Returns the logarithm of the mean softmax of several logits `[N, C]`, without underflow.
fn log_mean_probabilities(views: Vec<Tensor<2>>) -> Tensor<2> {
    let count = views.len() as f64;
    let logs: Tensor<3> = log_softmax(Tensor::stack::<3>(views, 0), 2);
    let highest = logs.clone().max_dim(0);
    let sum = (logs - highest.clone()).exp().sum_dim(0).log();
    (sum + highest).sub_scalar(count.ln()).squeeze_dim::<2>(0)
}

/// Returns the logits of the mean sigmoid of several logits `[N, C]`, without underflow:
/// `ln Σσ(z) - ln Σσ(-z)`.
fn logits_of_mean_probabilities(views: Vec<Tensor<2>>) -> Tensor<2> {
    let stacked: Tensor<3> = Tensor::stack::<3>(views, 0);
    let log_sum = |logs: Tensor<3>| {
        let highest = logs.clone().max_dim(0);
        (logs - highest.clone()).exp().sum_dim(0).log() + highest
    };
    let logits = log_sum(log_sigmoid(stacked.clone())) - log_sum(log_sigmoid(stacked.neg()));
    logits.squeeze_dim::<2>(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{sigmoid, softmax};

    #[test]
    fn probabilities_of_views_are_averaged() {
        let device = Device::default();
        let views = [[1.0, 2.0, -1.0], [0.0, -3.0, 500.0]];
        let tensors = views.map(|view| Tensor::<1>::from_floats(view, &device).unsqueeze::<2>());
        let found: Vec<f32> = log_mean_probabilities(tensors.into()).into_data().try_to_vec().unwrap();
        let [a, b] = views.map(|view| softmax(&view));
        for (class, found) in softmax(&found).into_iter().enumerate() {
            assert!((found - 0.5 * (a[class] + b[class])).abs() < 1e-6, "{found}");
        }
    }

    #[test]
    fn sigmoid_probabilities_of_views_are_averaged() {
        let device = Device::default();
        let views = [[1.0, 2.0, -60.0], [0.0, -3.0, -50.0]];
        let tensors = views.map(|view| Tensor::<1>::from_floats(view, &device).unsqueeze::<2>());
        let found: Vec<f32> = logits_of_mean_probabilities(tensors.into()).into_data().try_to_vec().unwrap();
        let [a, b] = views.map(|view| sigmoid(&view));
        for (class, found) in sigmoid(&found).into_iter().enumerate() {
            let expected = 0.5 * (a[class] + b[class]);
            assert!((found - expected).abs() <= 1e-5 * expected, "{found} {expected}");
        }
    }

    #[test]
    fn views_are_counted() {
        assert_eq!([Tta::None, Tta::Flip, Tta::FiveCrop, Tta::TenCrop].map(Tta::views), [1, 2, 5, 10]);
    }
}
