//! Cross-layer equalization.

use mbconv_kernels::Activation;
use mbconv_nets::inference::{Block, Kind, Layer, Stage};
use mbconv_nets::quantization::stage_names;

use super::range::ChannelRanges;

/// Largest factor by which a channel is scaled.
const MOST: f32 = 32.0;
/// Upper limit of ReLU6.
const RELU6_MAX: f32 = 6.0;

/// Scales the channels between two layers so that all of them use the range of the feature map.
///
/// A factor on an output channel of the first layer is undone by the weights of the second (Nagel
/// et al. 2019, section 4.1): `f(s x) = s f(x)` for piecewise linear activations, and for ReLU6 if
/// the channel stays below 6. Because each output channel has its own weight scale, the ranges that
/// matter are those of the feature map and of the second layer's weights by input channel.
pub fn equalize(stages: &mut [Stage], ranges: &mut ChannelRanges) {
    let names = stage_names(stages);
    let mut previous: Option<(&mut Layer, String)> = None;
    let mut pooled = false;
    for (stage, name) in stages.iter_mut().zip(names) {
        match stage {
            Stage::Layer(layer) => {
                if let (true, Some((first, between))) = (pooled, previous.take()) {
                    let factors = balance(first, &between, layer, ranges);
                    scale_range("pool", &factors, ranges);
                }
                previous = Some((layer, name));
            }
            Stage::Block(block) => {
                // The stem's feature map is read by the first block alone, unless it is residual.
                if let (Some((first, between)), false) = (previous.take(), block.residual) {
                    let Block { expand, depthwise, .. } = &mut **block;
                    if let Some(second) = expand.as_mut().or(depthwise.as_mut()) {
                        balance(first, &between, second, ranges);
                    }
                }
                equalize_block(block, &name, ranges);
            }
            Stage::Pool => pooled = true,
        }
    }
}

fn equalize_block(block: &mut Block, name: &str, ranges: &mut ChannelRanges) {
    let Block { expand, depthwise, gate, project, .. } = block;
    if let (Some(expand), Some(depthwise)) = (&mut *expand, &mut *depthwise) {
        balance(expand, &format!("{name}.expand"), depthwise, ranges);
    }
    // The gate reads the feature map, too.
    if gate.is_none() {
        match (expand, depthwise) {
            (_, Some(depthwise)) => drop(balance(depthwise, &format!("{name}.depthwise"), project, ranges)),
            (Some(expand), None) => drop(balance(expand, &format!("{name}.expand"), project, ranges)),
            (None, None) => {}
        }
    }
}

/// Scales the channels of the feature map `name`, which `first` computes and only `second` reads.
/// Returns the factor of each channel.
fn balance(first: &mut Layer, name: &str, second: &mut Layer, ranges: &mut ChannelRanges) -> Vec<f32> {
    let limit = match first.activation {
        Activation::Identity | Activation::Relu => f32::INFINITY,
        Activation::Relu6 => RELU6_MAX,
        Activation::Silu => return vec![1.0; first.outputs],
    };
    let Some(found) = ranges.get(name) else { return vec![1.0; first.outputs] };
    let reach: Vec<f32> = found.iter().map(|[low, high]| high.max(-low)).collect();
    let weights = input_ranges(second);
    let largest = |values: &[f32]| values.iter().copied().fold(0.0, f32::max);
    let (most, heaviest) = (largest(&reach), largest(&weights));
    let factor = |(reach, weight): (&f32, &f32)| {
        if *reach <= 0.0 || *weight <= 0.0 || *reach >= limit {
            return 1.0;
        }
        let wanted = match second.kind {
            // Each channel has its own weight scale.
            Kind::Depthwise => most / reach,
            _ => ((weight / heaviest) / (reach / most)).sqrt(),
        };
        wanted.min(most.min(limit) / reach).clamp(1.0 / MOST, MOST)
    };
    let factors: Vec<f32> = reach.iter().zip(&weights).map(factor).collect();
    let fan_in = first.weight.len() / first.outputs;
    first.weight.chunks_mut(fan_in).zip(&factors).for_each(|(row, factor)| row.iter_mut().for_each(|w| *w *= factor));
    first.bias.iter_mut().zip(&factors).for_each(|(bias, factor)| *bias *= factor);
    let taps = second.kernel * second.kernel;
    let channel = |index: usize| index / taps % factors.len();
    second.weight.iter_mut().enumerate().for_each(|(index, weight)| *weight /= factors[channel(index)]);
    scale_range(name, &factors, ranges);
    factors
}

fn scale_range(name: &str, factors: &[f32], ranges: &mut ChannelRanges) {
    if let Some(channels) = ranges.get_mut(name) {
        channels.iter_mut().zip(factors).for_each(|(range, factor)| *range = range.map(|end| end * factor));
    }
}

/// Returns the largest weight of each input channel, relative to the largest one of its output
/// channel.
fn input_ranges(layer: &Layer) -> Vec<f32> {
    let taps = layer.kernel * layer.kernel;
    let mut ranges = vec![0.0f32; layer.inputs];
    for (output, row) in layer.weight.chunks(layer.weight.len() / layer.outputs).enumerate() {
        let largest = row.iter().fold(f32::MIN_POSITIVE, |largest, weight| largest.max(weight.abs()));
        for (index, weight) in row.iter().enumerate() {
            let input = if layer.kind == Kind::Depthwise { output } else { index / taps };
            ranges[input] = ranges[input].max(weight.abs() / largest);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};
    use mbconv_nets::{NetworkOptions, inference::fold};

    use super::*;
    use crate::quantize::layerwise::run;
    use crate::quantize::range::{RangeObserver, whole};

    #[test]
    fn equalization_preserves_logits_and_widens_ranges() {
        let device = Device::default();
        device.seed(5);
        for name in ["mobilenet_v2_0.35", "tf_efficientnet_lite0", "efficientnet_b0"] {
            let network = NetworkOptions::new(name, 5).architecture().unwrap().init(&device);
            let images: Tensor<4> = Tensor::random([4, 40, 40, 3], Distribution::Normal(0.0, 1.0), &device);
            let mut stages = fold(&network);
            let mut observer = RangeObserver::default();
            let logits = |stages: &[Stage], observer: &mut RangeObserver| -> Vec<f32> {
                run(stages, images.clone(), observer).into_data().iter().collect()
            };
            let expected = logits(&stages, &mut observer);
            let mut ranges = observer.ranges.clone();
            equalize(&mut stages, &mut ranges);
            let mut after = RangeObserver::default();
            let found = logits(&stages, &mut after);
            let scale = expected.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4 * scale), "{name}");
            // The scaled ranges are those of the scaled network.
            for (map, range) in &ranges {
                let [low, high] = whole(range);
                let differs = |(a, b): (&[f32; 2], &[f32; 2])| (a[1] - b[1]).abs() > 1e-3 * (high - low);
                assert!(!range.iter().zip(&after.ranges[map]).any(differs), "{name} {map}");
            }
            let mean = |ranges: &ChannelRanges| {
                let channels = &ranges["blocks.2.expand"];
                channels.iter().map(|[_, high]| high).sum::<f32>() / channels.len() as f32
            };
            let wider = mean(&ranges) / mean(&observer.ranges);
            assert!(if name == "efficientnet_b0" { wider == 1.0 } else { wider > 1.2 }, "{name} {wider}");
        }
    }
}
