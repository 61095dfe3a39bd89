//! Pooled features of images, and the most similar images by them.

mod nearest;
mod parquet;
mod table;

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use mbconv_data::{Loader, Preprocess};
use mbconv_nets::{Inference, Network};

pub use nearest::{Features, Neighbor};
pub use table::{FeatureError, FeatureTable};

use crate::classifier::{Classifier, Tta};
use crate::evaluate::{Classified, EvaluateError, Labelled, classify};

/// A network that computes the pooled features of images: the input of dropout and classifier.
pub struct Embedder {
    network: Inference,
    width: usize,
}

/// An image with its features.
#[derive(Clone, Copy, Debug)]
pub struct Embedded<'a> {
    /// Index of the sample in the source.
    pub index: usize,
    /// The features.
    pub features: &'a [f32],
}

impl Embedder {
    /// Folds the network, with the identity as its classifier.
    pub fn new(network: &Network) -> Self {
        let width = network.architecture().head;
        let device = network.classifier.weight.device();
        let mut network = network.clone();
        network.classifier.weight = Param::from_tensor(Tensor::eye(width, &device));
        network.classifier.bias = Param::from_tensor(Tensor::zeros([width], &device));
        Self { network: Inference::new(&network), width }
    }

    /// Returns the number of features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Computes the features of all images of `loader`, whose transform is the evaluation transform
    /// of `preprocess`, and calls `each` with them in order, batch by batch. Ends early if `each`
    /// breaks.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read and the loader does not skip such images, if the
    /// network does not accept images, or if `stop` is set.
    pub fn embed(
        &self,
        loader: &Loader,
        preprocess: &Preprocess,
        device: &Device,
        stop: &AtomicBool,
        each: &mut dyn FnMut(&[Embedded]) -> ControlFlow<()>,
    ) -> Result<(), EvaluateError> {
        let classifier = Classifier { network: &self.network, preprocess, device, tta: Tta::None, multi_label: false };
        let source = loader.source();
        let classes = (0..source.len()).map(|index| source.label(index) + 1).max().unwrap_or(0);
        let data = Labelled { loader, labels: (0..classes).collect() };
        let mut pass = |images: &[Classified]| {
            let embedded = images.iter().map(|image| Embedded { index: image.index, features: image.logits });
            each(&embedded.collect::<Vec<_>>())
        };
        classify(&classifier, &data, stop, &mut pass)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mbconv_data::{LoaderConfig, OpenOptions, Transform, open};
    use mbconv_nets::NetworkOptions;

    use super::*;
    use crate::normalize::images;

    #[test]
    fn features_are_those_before_the_classifier() {
        let device = Device::default();
        device.seed(3);
        let network = NetworkOptions::new("efficientnet_b0", 3).architecture().unwrap().init(&device);
        let data = open("digits", &OpenOptions::default()).unwrap();
        let few = Arc::new(mbconv_data::Subset::new(data.val.unwrap(), vec![5, 0, 7]));
        let preprocess = Preprocess { resize: 40.into(), crop: 32.into(), ..Preprocess::default() };
        let config = LoaderConfig { batch_size: 2, ..LoaderConfig::default() };
        let loader = Loader::new(few, Transform::Eval(preprocess.clone()), config);
        let embedder = Embedder::new(&network);
        let mut found = Vec::new();
        let mut each = |batch: &[Embedded]| {
            batch.iter().for_each(|image| found.push((image.index, image.features.to_vec())));
            ControlFlow::Continue(())
        };
        embedder.embed(&loader, &preprocess, &device, &AtomicBool::new(false), &mut each).unwrap();
        assert_eq!(found.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2]);
        let mut batches = loader.epoch(0);
        let mut first = batches.next().unwrap().unwrap();
        let pixels = images(&mut first, &preprocess, &device).permute([0, 3, 1, 2]);
        let expected: Vec<f32> = network.features(pixels).into_data().iter().collect();
        let scale = expected.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
        for ((_, found), expected) in found.iter().zip(expected.chunks(embedder.width())) {
            assert_eq!(found.len(), 1280);
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-5 * scale));
        }
    }
}
