//! Weights in 8 bits.

use mbconv_kernels::quantized::{Quantizer, Weights};
use mbconv_nets::inference::Layer;

/// Largest weight.
const MOST: f32 = 127.0;
/// Largest bias in steps, far from an overflow of the sum.
const MOST_BIAS: f32 = (1 << 29) as f32;

/// Rounds the weights of a layer to 8 bits with a scale per output channel, and the bias to steps
/// of that scale times the input's.
pub fn quantize(layer: &Layer, input: Quantizer) -> Weights {
    let fan_in = layer.weight.len() / layer.outputs;
    let rows = layer.weight.chunks(fan_in).zip(&layer.bias);
    let scales: Vec<f32> = rows.map(|(row, bias)| scale(row).max(least_scale(*bias, input))).collect();
    let weight = layer.weight.chunks(fan_in).zip(&scales);
    let weight = weight.flat_map(|(row, scale)| row.iter().map(|value| round(*value, *scale) as i8)).collect();
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

fn round(value: f32, scale: f32) -> f32 {
    (value / scale).round_ties_even().clamp(-MOST, MOST)
}

/// Returns the smallest scale for which a bias fits into 32 bits.
fn least_scale(bias: f32, input: Quantizer) -> f32 {
    let least = bias.abs() / MOST_BIAS / input.scale;
    if least > 0.0 { least } else { f32::MIN_POSITIVE.sqrt() }
}

/// Returns the scale with the smallest squared error of an output channel's weights.
fn scale(row: &[f32]) -> f32 {
    let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let error =
        |scale: &f32| row.iter().map(|value| f64::from(value - scale * round(*value, *scale)).powi(2)).sum::<f64>();
    let scales = (0..20).map(|part| largest / MOST * (1.0 - 0.02 * part as f32)).filter(|scale| *scale > 0.0);
    scales.min_by(|a, b| error(a).total_cmp(&error(b))).unwrap_or(0.0)
}
