//! Post-training quantization to 8 bits.
//!
//! Weights have 8 bits with a scale per output channel, feature maps 8 bits with a scale and a zero
//! point each, chosen from calibration images (Nagel et al. 2021,
//! <https://arxiv.org/abs/2106.08295>).

mod bias;
mod compare;
mod equalize;
mod layerwise;
mod range;
mod weight;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, Tensor};
use mbconv_data::{Batch, Preprocess, Source, Subset};
use mbconv_kernels::quantized::{self, Quantizer, Weights};
use mbconv_nets::inference::{Layer, Stage, fold};
use mbconv_nets::quantization::{Conversion, INPUT, layers_mut, stage_names};
use mbconv_nets::{Network, Range};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use crate::normalize::images;
use bias::{BiasCorrection, MeanObserver};
pub use compare::Comparison;
use layerwise::{Visitor, run_stage};
pub use range::RangeMethod;
use range::{HistogramObserver, RangeObserver};
use weight::WeightScales;

/// Settings of [`quantize`].
#[derive(Clone, Debug)]
pub struct QuantizeOptions {
    /// Choice of the ranges of feature maps.
    pub range: RangeMethod,
    /// Ranges by name that quantization-aware training has found, which replace the choice. The
    /// network has adapted to them: it is neither equalized nor corrected.
    pub trained_ranges: Option<Vec<(String, Range)>>,
    /// Equalize the channels between layers first.
    pub equalize: bool,
    /// Correct the biases for the mean error of the weights.
    pub correct_biases: bool,
    /// Names of layers whose weights stay in single precision.
    pub keep: Vec<String>,
    /// Largest weight: 127, or 64, with which sums of two products fit into 16 bits.
    pub largest_weight: u8,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        Self {
            range: RangeMethod::default(),
            trained_ranges: None,
            equalize: true,
            correct_biases: true,
            keep: Vec::new(),
            largest_weight: 127,
        }
    }
}

/// The reason why a network cannot be quantized.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum QuantizeError {
    /// There are no calibration images.
    #[error("quantization needs calibration images")]
    NoImages,
    /// The calibration images contain nothing.
    #[error("every calibration image has a single color: the ranges of the feature maps cannot be chosen from them")]
    Blank,
    /// A weight that is not finite.
    #[error("the layer `{layer}` has weights that are not finite")]
    NotFinite {
        /// Name of the layer.
        layer: String,
    },
    /// A feature map that is not finite.
    #[error("the feature map `{name}` has values that are not finite")]
    Overflow {
        /// Name of the feature map.
        name: String,
    },
    /// A layer to keep that does not exist.
    #[error("there is no layer `{name}`; the layers are {known}")]
    UnknownLayer {
        /// The name.
        name: String,
        /// Names of all layers.
        known: String,
    },
    /// The user interrupted the quantization.
    #[error("interrupted")]
    Interrupted,
}

impl QuantizeError {
    /// Returns a hint for fixing the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoImages | Self::Blank => Some("use images that resemble those of the application".into()),
            Self::NotFinite { .. } | Self::Overflow { .. } => Some("use another checkpoint of the training".into()),
            Self::UnknownLayer { .. } | Self::Interrupted => None,
        }
    }
}

/// A network in 8 bits.
#[derive(Debug)]
pub struct Quantized {
    /// The network.
    pub stages: Vec<quantized::Stage>,
    /// Errors of single layers, the largest first.
    pub errors: Vec<LayerError>,
}

/// Error that the quantization of one layer alone causes.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerError {
    /// Name of the layer.
    pub layer: String,
    /// Root mean square error of the logits, relative to their standard deviation.
    pub error: f64,
}

/// Images that calibrate a network.
pub struct Calibration<'a> {
    /// The images, as the evaluation transform makes them.
    pub batches: &'a [Batch],
    /// Preprocessing of the images.
    pub preprocess: &'a Preprocess,
    /// The device of the network, a CPU.
    pub device: &'a Device,
    /// Interrupts the quantization.
    pub stop: &'a AtomicBool,
}

/// Returns `count` images of a source in random order, always the same ones; all if it has fewer.
pub fn calibration_sample(source: &Arc<dyn Source>, count: usize) -> Arc<dyn Source> {
    let mut rng = StdRng::seed_from_u64(0);
    let members = sample(&mut rng, source.len(), count.min(source.len()));
    Arc::new(Subset::new(source.clone(), members.into_vec()))
}

/// Largest number of images that are processed at once.
const IMAGES: usize = 64;

/// Returns the number of images to process at once: fewer large ones, whose feature maps take
/// gigabytes.
pub fn images_at_once(preprocess: &Preprocess) -> usize {
    let [height, width] = preprocess.crop.sides();
    (IMAGES * 224 * 224 / (height * width).max(1)).clamp(1, IMAGES)
}

/// Number of images that measure the errors of single layers.
const ERROR_IMAGES: usize = 16;

/// Quantizes a network. Calls `progress` with the name of each step and its progress from 0 to 1.
///
/// # Errors
/// See [`QuantizeError`].
pub fn quantize(
    network: &Network,
    calibration: &Calibration,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(&str, f64),
) -> Result<Quantized, QuantizeError> {
    calibration.check()?;
    let mut stages = fold(network);
    check_layers(&mut stages, &options.keep)?;

    let quantizers = match &options.trained_ranges {
        Some(ranges) => of_ranges(ranges),
        None => chosen(&mut stages, calibration, options, progress)?,
    };
    let weights = |layer: &Layer, name: &str, input| {
        if options.keep.iter().any(|kept| kept == name) {
            return Weights::Float { weight: layer.weight.clone(), bias: layer.bias.clone() };
        }
        let scales = if options.trained_ranges.is_some() { WeightScales::Largest } else { WeightScales::LeastError };
        weight::quantize(layer, input, options.largest_weight.into(), scales)
    };
    let conversion = Conversion { quantizers: &quantizers, weights: &weights };
    if options.correct_biases && options.trained_ranges.is_none() {
        progress("correcting biases", 0.0);
        correct_biases(&mut stages, &conversion, calibration.first(IMAGES));
    }
    let errors = layer_errors(&stages, &conversion, calibration, &mut |part| progress("measuring layers", part))?;
    Ok(Quantized { stages: conversion.stages(&stages), errors })
}

/// Returns the quantizers of ranges by name.
fn of_ranges(ranges: &[(String, Range)]) -> HashMap<String, Quantizer> {
    ranges.iter().map(|(name, [low, high])| (name.clone(), Quantizer::of_range(*low, *high))).collect()
}

/// Chooses the quantizers by the calibration images. Equalizes the channels first if asked for.
fn chosen(
    stages: &mut [Stage],
    calibration: &Calibration,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(&str, f64),
) -> Result<HashMap<String, Quantizer>, QuantizeError> {
    let mut observer = RangeObserver::default();
    calibration.run(stages, &mut observer, &mut |part| progress("observing ranges", part))?;
    if let Some(name) = observer.overflow {
        return Err(QuantizeError::Overflow { name });
    }
    let mut ranges = observer.ranges;
    if options.equalize {
        equalize::equalize(stages, &mut ranges);
    }
    let mut histograms = HistogramObserver::new(&ranges);
    if options.range != RangeMethod::MinMax {
        calibration.run(stages, &mut histograms, &mut |part| progress("choosing ranges", part))?;
    }
    let mut quantizers = histograms.quantizers(options.range);
    quantizers.insert(INPUT.into(), of_pixels(calibration.preprocess));
    Ok(quantizers)
}

impl Calibration<'_> {
    fn check(&self) -> Result<(), QuantizeError> {
        let mut images =
            self.batches.iter().flat_map(|batch| batch.images.chunks(batch.height * batch.width * 3)).peekable();
        if images.peek().is_none() {
            return Err(QuantizeError::NoImages);
        }
        if images.all(|image| image.chunks(3).all(|pixel| pixel == &image[..3])) {
            return Err(QuantizeError::Blank);
        }
        Ok(())
    }

    /// Returns the normalized images of a batch.
    fn images(&self, batch: &Batch) -> Tensor<4> {
        images(&mut batch.clone(), self.preprocess, self.device)
    }

    /// Returns the first images, at most `count` and as many as are processed at once.
    fn first(&self, count: usize) -> Tensor<4> {
        let count = count.min(images_at_once(self.preprocess));
        let mut taken = 0;
        let batches = self.batches.iter().take_while(|batch| {
            let enough = taken >= count;
            taken += batch.labels.len();
            !enough
        });
        let images = Tensor::cat(batches.map(|batch| self.images(batch)).collect(), 0);
        let count = count.min(images.dims()[0]);
        images.narrow(0, 0, count)
    }

    /// Runs all images through the network.
    fn run(
        &self,
        stages: &[Stage],
        visitor: &mut dyn Visitor,
        progress: &mut dyn FnMut(f64),
    ) -> Result<(), QuantizeError> {
        for (index, batch) in self.batches.iter().enumerate() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(QuantizeError::Interrupted);
            }
            layerwise::run(stages, self.images(batch), visitor);
            progress((index + 1) as f64 / self.batches.len() as f64);
        }
        Ok(())
    }
}

fn check_layers(stages: &mut [Stage], keep: &[String]) -> Result<(), QuantizeError> {
    let layers = layers_mut(stages);
    if let Some(name) = keep.iter().find(|name| !layers.iter().any(|(known, _)| known == *name)) {
        let known: Vec<&str> = layers.iter().map(|(name, _)| name.as_str()).collect();
        return Err(QuantizeError::UnknownLayer { name: name.clone(), known: known.join(", ") });
    }
    let finite = |layer: &Layer| layer.weight.iter().chain(&layer.bias).all(|value| value.is_finite());
    match layers.iter().find(|(_, layer)| !finite(layer)) {
        Some((name, _)) => Err(QuantizeError::NotFinite { layer: name.clone() }),
        None => Ok(()),
    }
}

/// Returns the quantizer of normalized images: all values that pixels can have.
fn of_pixels(preprocess: &Preprocess) -> Quantizer {
    let channels = if preprocess.channels == 1 { 1 } else { 3 };
    let ends = |pixel: f32| (0..channels).map(move |c| (pixel - preprocess.mean[c]) / preprocess.std[c]);
    Quantizer::of_range(ends(0.0).fold(0.0, f32::min), ends(1.0).fold(0.0, f32::max))
}

/// Corrects the biases of all layers on these images.
fn correct_biases(stages: &mut [Stage], conversion: &Conversion, images: Tensor<4>) {
    let mut means = MeanObserver::default();
    layerwise::run(stages, images.clone(), &mut means);
    let mut correction = BiasCorrection { means, quantizers: conversion.quantizers, corrections: HashMap::new() };
    let mut rounded = stages.to_vec();
    layers_mut(&mut rounded).into_iter().for_each(|(name, layer)| round_weights(layer, &name, conversion));
    layerwise::run(&rounded, images, &mut correction);
    for (name, layer) in layers_mut(stages) {
        if let Some(shift) = correction.corrections.get(&name) {
            layer.bias.iter_mut().zip(shift).for_each(|(bias, shift)| *bias += shift);
        }
    }
}

/// Replaces the weights of a layer by their rounded values. The input's quantizer, which only
/// bounds the scales of dead channels, is ignored.
fn round_weights(layer: &mut Layer, name: &str, conversion: &Conversion) {
    let input = Quantizer { scale: 1.0, zero_point: 0 };
    *layer = weight::dequantized(layer, &(conversion.weights)(layer, name, input));
}

/// Quantizes a single feature map.
struct OneMap<'a> {
    name: &'a str,
    quantizers: &'a HashMap<String, Quantizer>,
}

impl Visitor for OneMap<'_> {
    fn feature_map(&mut self, name: &str, x: Tensor<4>) -> Tensor<4> {
        if name == self.name { bias::quantize(self.quantizers, name, x) } else { x }
    }
}

/// Measures the error of the logits when only one layer is quantized: its weights and its output.
fn layer_errors(
    stages: &[Stage],
    conversion: &Conversion,
    calibration: &Calibration,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<LayerError>, QuantizeError> {
    let names = stage_names(stages);
    let mut none = OneMap { name: "", quantizers: conversion.quantizers };
    let mut inputs = vec![calibration.first(ERROR_IMAGES)];
    for (index, stage) in stages.iter().enumerate() {
        inputs.push(run_stage(stage, &names[index], inputs[index].clone(), &mut none));
    }
    let values = |x: Tensor<4>| -> Vec<f32> { x.into_data().iter().collect() };
    let expected = values(inputs[stages.len()].clone());
    let layers: Vec<String> = layers_mut(&mut stages.to_vec()).into_iter().map(|(name, _)| name).collect();
    let mut errors = Vec::with_capacity(layers.len());
    for (position, name) in layers.iter().enumerate() {
        if calibration.stop.load(Ordering::Relaxed) {
            return Err(QuantizeError::Interrupted);
        }
        let is_inside =
            |stage: &String| name == stage || name.strip_prefix(stage).is_some_and(|rest| rest.starts_with('.'));
        let first = names.iter().position(is_inside).unwrap_or(0);
        let mut changed = stages.to_vec();
        round_weights(layers_mut(&mut changed).swap_remove(position).1, name, conversion);
        let mut visitor = OneMap { name, quantizers: conversion.quantizers };
        let rest = changed.iter().zip(&names).skip(first);
        let found = rest.fold(inputs[first].clone(), |x, (stage, name)| run_stage(stage, name, x, &mut visitor));
        errors.push(LayerError { layer: name.clone(), error: relative_error(&values(found), &expected) });
        progress((position + 1) as f64 / layers.len() as f64);
    }
    errors.sort_by(|a, b| b.error.total_cmp(&a.error));
    Ok(errors)
}

/// Returns the root mean square error, relative to the standard deviation of the expected values.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let count = expected.len().max(1) as f64;
    let mean = expected.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let error = squares(&mut found.iter().zip(expected).map(|(found, expected)| f64::from(found - expected)));
    let spread = squares(&mut expected.iter().map(|value| f64::from(*value) - mean));
    (error / spread.max(f64::MIN_POSITIVE)).sqrt()
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use mbconv_nets::{Inference, NetworkOptions};

    use super::*;

    fn batches() -> Vec<Batch> {
        let byte = |index: usize| (index * 37 % 251) as u8;
        let images = (0..4 * 32 * 32 * 3).map(byte).collect();
        vec![Batch { images, labels: vec![0; 4], height: 32, width: 32, indices: (0..4).collect(), plans: Vec::new() }]
    }

    /// Quantizes with the options, on images of noise.
    fn quantized(network: &Network, options: &QuantizeOptions) -> Result<Quantized, QuantizeError> {
        let (batches, preprocess, device) = (batches(), Preprocess::default(), Device::default());
        let stop = AtomicBool::new(false);
        let calibration = Calibration { batches: &batches, preprocess: &preprocess, device: &device, stop: &stop };
        quantize(network, &calibration, options, &mut |_, _| {})
    }

    fn network(name: &str, device: &Device) -> Network {
        device.seed(8);
        NetworkOptions::new(name, 6).architecture().unwrap().init(device)
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().iter().collect()
    }

    #[test]
    fn trained_ranges_reproduce_the_rounded_network() {
        let device = Device::default();
        // Sums in another order round some values to the neighbor, which later layers amplify.
        for (name, most) in [("mobilenet_v2_0.35", 0.05), ("efficientnet_b0", 0.2)] {
            let training = network(name, &device.clone().autodiff()).with_fake_quantization();
            let pixels = |device: &Device| images(&mut batches()[0].clone(), &Preprocess::default(), device);
            for _ in 0..3 {
                training.forward_channels_last(pixels(&device.clone().autodiff()));
            }
            let rounded = training.valid();
            let expected = values(rounded.forward_channels_last(pixels(&device)));
            let trained_ranges = Some(rounded.activation_ranges());
            let options = QuantizeOptions { trained_ranges, ..QuantizeOptions::default() };
            let stages = quantized(&rounded, &options).unwrap().stages;
            let found = values(Inference::quantized(&stages).forward_channels_last(pixels(&device)));
            assert!(relative_error(&found, &expected) < most, "{name}: {found:?} {expected:?}");
        }
    }

    #[test]
    fn corrected_biases_preserve_the_mean_logits() {
        let network = network("mobilenet_v2_0.35", &Device::default());
        let mean_error = |correct_biases| {
            let options = QuantizeOptions { correct_biases, ..QuantizeOptions::default() };
            let stages = quantized(&network, &options).unwrap().stages;
            let pixels = images(&mut batches()[0].clone(), &Preprocess::default(), &Device::default());
            let [expected, found] = [Inference::new(&network), Inference::quantized(&stages)]
                .map(|network| values(network.forward_channels_last(pixels.clone()).mean_dim(0)));
            relative_error(&found, &expected)
        };
        let (without, with) = (mean_error(false), mean_error(true));
        assert!(with < 0.5 * without, "{with} {without}");
    }

    #[test]
    fn unusable_networks_and_images_are_named() {
        let options = QuantizeOptions::default();
        let mut broken = network("mobilenet_v2_0.35", &Device::default());
        broken.head.weight = broken.head.weight.map(|weight| weight * f32::NAN);
        assert_eq!(quantized(&broken, &options).unwrap_err(), QuantizeError::NotFinite { layer: "head".into() });
        let mut huge = network("mobilenet_v2_0.35", &Device::default());
        huge.blocks[0].project.weight = huge.blocks[0].project.weight.clone().map(|weight| weight * 3e38);
        let error = quantized(&huge, &options).unwrap_err();
        assert!(matches!(error, QuantizeError::Overflow { .. } | QuantizeError::NotFinite { .. }), "{error}");
        let keep = QuantizeOptions { keep: vec!["tail".into()], ..options };
        let error = quantized(&network("mobilenet_v2_0.35", &Device::default()), &keep).unwrap_err();
        assert!(error.to_string().contains("no layer `tail`; the layers are stem, blocks.0.depthwise,"), "{error}");
    }
}
