//! Weights in 8 bits.

use mbconv_kernels::quantized::{Quantizer, Weights};
use mbconv_nets::inference::Layer;

/// Largest bias in steps, far from an overflow of the sum.
const MOST_BIAS: f32 = (1 << 29) as f32;

/// Choice of the scale of an output channel's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightScales {
    /// The largest weight is represented, as in quantization-aware training.
    Largest,
    /// The scale with the smallest squared error.
    LeastError,
}

/// Rounds the weights of a layer to integers up to `most`, with a scale per output channel, and the
/// bias to steps of that scale times the input's.
pub fn quantize(layer: &Layer, input: Quantizer, most: f32, choice: WeightScales) -> Weights {
    let fan_in = layer.weight.len() / layer.outputs;
    let rows = layer.weight.chunks(fan_in).zip(&layer.bias);
    let scales: Vec<f32> = rows.map(|(row, bias)| scale(row, most, choice).max(least_scale(*bias, input))).collect();
    let weight = layer.weight.chunks(fan_in).zip(&scales);
    let weight = weight.flat_map(|(row, scale)| row.iter().map(|value| round(*value, *scale, most) as i8)).collect();
    let bias =
        layer.bias.iter().zip(&scales).map(|(bias, scale)| (bias / (input.scale * scale)).round_ties_even() as i32);
    Weights::Int8 { weight, bias: bias.collect(), scales }
}

/// Returns the layer in single precision with the values of quantized weights.
pub fn dequantized(layer: &Layer, weights: &Weights) -> Layer {
    let Weights::Int8 { weight, scales, .. } = weights else { return layer.clone() };
    let fan_in = layer.weight.len() / layer.outputs;
    let weight = weight.iter().enumerate().map(|(index, value)| f32::from(*value) * scales[index / fan_in]);
    Layer { weight: weight.collect(), ..layer.clone() }
}

fn round(value: f32, scale: f32, most: f32) -> f32 {
    (value / scale).round_ties_even().clamp(-most, most)
}

/// Returns the smallest scale for which a bias fits into 32 bits.
fn least_scale(bias: f32, input: Quantizer) -> f32 {
    let least = bias.abs() / MOST_BIAS / input.scale;
    if least > 0.0 { least } else { f32::MIN_POSITIVE.sqrt() }
}

/// Returns the scale of an output channel's weights.
fn scale(row: &[f32], most: f32, choice: WeightScales) -> f32 {
    let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let error = |scale: &f32| {
        row.iter().map(|value| f64::from(value - scale * round(*value, *scale, most)).powi(2)).sum::<f64>()
    };
    let candidates = if choice == WeightScales::Largest { 1 } else { 20 };
    let scales = (0..candidates).map(|part| largest / most * (1.0 - 0.02 * part as f32)).filter(|scale| *scale > 0.0);
    scales.min_by(|a, b| error(a).total_cmp(&error(b))).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use mbconv_kernels::Activation;
    use mbconv_nets::inference::{Kind, Padding};
    use proptest::prelude::*;

    use super::*;

    fn layer(rows: &[&[f32]], bias: &[f32]) -> Layer {
        Layer {
            kind: Kind::Pointwise,
            inputs: rows[0].len(),
            outputs: rows.len(),
            kernel: 1,
            stride: 1,
            padding: Padding::Even(0),
            weight: rows.concat(),
            bias: bias.into(),
            activation: Activation::Identity,
        }
    }

    #[test]
    fn dead_and_tiny_channels_keep_their_bias() {
        let input = Quantizer { scale: 0.02, zero_point: 3 };
        let rows: [&[f32]; 4] = [&[0.0; 3], &[1e-30, 0.0, -1e-30], &[0.0; 3], &[0.5, -0.25, 0.125]];
        let bias = [1.5, -3.0, 0.0, 100.0];
        let quantized = quantize(&layer(&rows, &bias), input, 127.0, WeightScales::LeastError);
        let Weights::Int8 { weight, scales, bias: steps } = quantized else { panic!("not quantized") };
        assert!(scales.iter().all(|scale| scale.is_finite() && *scale > 0.0), "{scales:?}");
        assert_eq!(weight[..9], [0; 9]);
        for channel in 0..4 {
            let real = steps[channel] as f32 * scales[channel] * input.scale;
            assert!((real - bias[channel]).abs() <= 1e-4 * bias[channel].abs(), "{channel}: {real}");
            assert!(steps[channel].unsigned_abs() <= 1 << 30);
        }
    }

    proptest! {
        #[test]
        fn rounding_error_is_at_most_that_of_the_whole_range(row in prop::collection::vec(-3.0f32..3.0, 1..40), most in prop::sample::select(vec![64.0f32, 127.0])) {
            let original = layer(&[&row], &[0.0]);
            let weights = quantize(&original, Quantizer { scale: 1.0, zero_point: 0 }, most, WeightScales::LeastError);
            let found = dequantized(&original, &weights).weight;
            let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let error: f32 = found.iter().zip(&row).map(|(a, b)| (a - b).powi(2)).sum();
            let step = largest / most;
            prop_assert!(error <= row.len() as f32 * step * step / 4.0 * 1.001);
        }
    }
}
