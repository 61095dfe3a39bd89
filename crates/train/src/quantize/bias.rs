//! Bias correction.

use std::collections::HashMap;

use burn::tensor::Tensor;
use mbconv_kernels::fake_quantize;
use mbconv_kernels::quantized::Quantizer;
use mbconv_kernels::quantized::feature_map::{channel_means, shift};

use super::layerwise::{Visitor, change, observe};

/// Records the mean of each output channel of each convolution.
#[derive(Default)]
pub struct MeanObserver(HashMap<String, Vec<f32>>);

impl Visitor for MeanObserver {
    fn convolution(&mut self, name: &str, x: Tensor<4>) -> Tensor<4> {
        observe(x, |values, channels| drop(self.0.insert(name.into(), channel_means(values, channels))))
    }

    fn feature_map(&mut self, _: &str, x: Tensor<4>) -> Tensor<4> {
        x
    }
}

/// Quantizes every feature map, and corrects the bias of each convolution so that its output
/// channels have the means of the original network (Nagel et al. 2019, section 4.2, with means of
/// calibration images). Later layers get the corrected feature maps.
pub struct BiasCorrection<'a> {
    pub means: MeanObserver,
    pub quantizers: &'a HashMap<String, Quantizer>,
    /// Added to the bias of each convolution.
    pub corrections: HashMap<String, Vec<f32>>,
}

impl Visitor for BiasCorrection<'_> {
    fn convolution(&mut self, name: &str, x: Tensor<4>) -> Tensor<4> {
        let Some(expected) = self.means.0.get(name) else { return x };
        let channels = expected.len();
        change(x, |values| {
            let found = channel_means(values, channels);
            let correction: Vec<f32> = expected.iter().zip(found).map(|(expected, found)| expected - found).collect();
            shift(values, &correction);
            self.corrections.insert(name.into(), correction);
        })
    }

    fn feature_map(&mut self, name: &str, x: Tensor<4>) -> Tensor<4> {
        quantize(self.quantizers, name, x)
    }
}

/// Rounds a feature map to the values of its quantizer.
pub fn quantize(quantizers: &HashMap<String, Quantizer>, name: &str, x: Tensor<4>) -> Tensor<4> {
    match quantizers.get(name) {
        Some(quantizer) => fake_quantize(x, *quantizer),
        None => x,
    }
}
