//! A folded network, run layer by layer.

use burn::tensor::activation::sigmoid;
use burn::tensor::{Tensor, TensorData};
use mbconv_kernels::quantized::feature_map;
use mbconv_kernels::{Activation, conv2d, depthwise_conv2d, global_average, pointwise_conv2d, scale_channels};
use mbconv_nets::inference::{Block, Gate, Kind, Layer, Padding, Stage};
use mbconv_nets::quantization::{CLASSIFIER, INPUT, stage_names};

/// Gets every tensor of a network while it runs, and may replace it.
///
/// The names are those of [`quantization`](mbconv_nets::quantization).
pub trait Visitor {
    /// Visits the result of a convolution before its activation.
    fn convolution(&mut self, _name: &str, x: Tensor<4>) -> Tensor<4> {
        x
    }

    /// Visits a feature map that has 8 bits in a quantized network.
    fn feature_map(&mut self, name: &str, x: Tensor<4>) -> Tensor<4>;
}

/// Maps normalized images `[N, H, W, C]` to logits `[N, 1, 1, classes]`.
pub fn run(stages: &[Stage], images: Tensor<4>, visitor: &mut dyn Visitor) -> Tensor<4> {
    let x = visitor.feature_map(INPUT, images);
    let names = stage_names(stages);
    stages.iter().zip(&names).fold(x, |x, (stage, name)| run_stage(stage, name, x, visitor))
}

/// Runs the stage `name`.
pub fn run_stage(stage: &Stage, name: &str, x: Tensor<4>, visitor: &mut dyn Visitor) -> Tensor<4> {
    match stage {
        Stage::Layer(layer) if name == CLASSIFIER => {
            activate(layer.activation, visitor.convolution(name, convolve(layer, x)))
        }
        Stage::Layer(layer) => run_layer(layer, name, x, visitor),
        Stage::Block(block) => run_block(block, name, x, visitor),
        Stage::Pool => visitor.feature_map(name, global_average(x)),
    }
}

fn run_block(block: &Block, name: &str, input: Tensor<4>, visitor: &mut dyn Visitor) -> Tensor<4> {
    let Block { expand, depthwise, gate, project, residual } = block;
    let mut x = input.clone();
    for (layer, part) in [(expand, "expand"), (depthwise, "depthwise")] {
        if let Some(layer) = layer {
            x = run_layer(layer, &format!("{name}.{part}"), x, visitor);
        }
    }
    if let Some(gate) = gate {
        x = squeeze_excitation(gate, &format!("{name}.squeeze_excitation"), x, visitor);
    }
    x = run_layer(project, &format!("{name}.project"), x, visitor);
    if *residual { visitor.feature_map(&format!("{name}.add"), x + input) } else { x }
}

fn squeeze_excitation(gate: &Gate, name: &str, x: Tensor<4>, visitor: &mut dyn Visitor) -> Tensor<4> {
    let mean = visitor.feature_map(&format!("{name}.mean"), global_average(x.clone()));
    let reduced = run_layer(&gate.reduce, &format!("{name}.reduce"), mean, visitor);
    let expand = format!("{name}.expand");
    let expanded = visitor.convolution(&expand, convolve(&gate.expand, reduced));
    let factors = visitor.feature_map(&expand, sigmoid(expanded));
    visitor.feature_map(name, scale_channels(x, factors))
}

fn run_layer(layer: &Layer, name: &str, x: Tensor<4>, visitor: &mut dyn Visitor) -> Tensor<4> {
    let x = visitor.convolution(name, convolve(layer, x));
    visitor.feature_map(name, activate(layer.activation, x))
}

/// Applies a convolution with its bias.
fn convolve(layer: &Layer, x: Tensor<4>) -> Tensor<4> {
    let Layer { kind, inputs, outputs, kernel, stride, .. } = *layer;
    let depth = if kind == Kind::Depthwise { 1 } else { inputs };
    let weight = TensorData::new(layer.weight.clone(), [outputs, depth, kernel, kernel]);
    let weight = Tensor::<4>::from_data(weight, &x.device());
    let (x, padding) = pad(layer, x);
    let x = match kind {
        Kind::Pointwise => pointwise_conv2d(x, weight, None),
        Kind::Dense => conv2d(x, weight, stride, padding),
        Kind::Depthwise => depthwise_conv2d(x, weight, stride, padding),
    };
    change(x, |values| feature_map::shift(values, &layer.bias))
}

fn activate(activation: Activation, x: Tensor<4>) -> Tensor<4> {
    change(x, |values| feature_map::activate(values, activation))
}

/// Changes the values of a feature map on the CPU.
pub fn change(x: Tensor<4>, change: impl FnOnce(&mut [f32])) -> Tensor<4> {
    let device = x.device();
    let mut data = x.into_data().convert::<f32>();
    change(data.as_mut_slice().expect("just converted"));
    Tensor::from_data(data, &device)
}

/// Passes the values and the number of channels of a feature map to `observer`.
pub fn observe(x: Tensor<4>, observer: impl FnOnce(&[f32], usize)) -> Tensor<4> {
    let [.., channels] = x.dims();
    change(x, |values| observer(values, channels))
}

/// Returns the padded feature map, and the zeros that the convolution has to add on every side.
fn pad(layer: &Layer, x: Tensor<4>) -> (Tensor<4>, usize) {
    let [_, height, width, _] = x.dims();
    match layer.padding {
        Padding::Even(padding) => (x, padding),
        Padding::Same => {
            let zeros = [height, width].map(|side| Padding::Same.along(side, layer.kernel, layer.stride).1);
            let [rows, columns] = zeros.map(|[before, after]| (before, after));
            (x.pad([(0, 0), rows, columns, (0, 0)], 0.0), 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};
    use mbconv_nets::{NetworkOptions, inference::fold};

    use super::*;

    /// Collects the names of all feature maps.
    struct Names(Vec<String>);

    impl Visitor for Names {
        fn feature_map(&mut self, name: &str, x: Tensor<4>) -> Tensor<4> {
            self.0.push(name.into());
            x
        }
    }

    #[test]
    fn layerwise_logits_equal_those_of_the_network() {
        let device = Device::default();
        device.seed(1);
        for name in ["mobilenet_v2_0.35", "efficientnet_b0", "tf_efficientnet_lite0", "tf_efficientnet_es"] {
            let network = NetworkOptions::new(name, 5).architecture().unwrap().init(&device);
            let images = Tensor::random([2, 41, 36, 3], Distribution::Default, &device);
            let expected: Vec<f32> = network.forward_channels_last(images.clone()).into_data().iter().collect();
            let mut names = Names(Vec::new());
            let found: Vec<f32> = run(&fold(&network), images, &mut names).into_data().iter().collect();
            let scale = expected.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 2e-5 * scale), "{name}");
            let mut unique = names.0.clone();
            unique.sort();
            unique.dedup();
            assert_eq!(unique.len(), names.0.len(), "{name}");
        }
    }
}
