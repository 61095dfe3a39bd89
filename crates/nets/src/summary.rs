//! Parameters, multiply-accumulates and the layers of an architecture, counted without allocating a weight.

use serde::Serialize;

use crate::layout::{Role, tensors};
use crate::{Architecture, ArchitectureError};

/// One layer with what it costs for one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// Path of the module.
    pub name: String,
    /// What it is, such as `depthwise 3x3 /2`.
    pub kind: String,
    /// Shape in, `[C, H, W]`.
    pub input: [usize; 3],
    /// Shape out, `[C, H, W]`.
    pub output: [usize; 3],
    /// Trainable parameters, batch-norm's included.
    pub parameters: usize,
    /// Multiply-accumulates of convolutions and the linear layer.
    pub macs: u64,
}

/// What a network costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Trainable parameters.
    pub parameters: usize,
    /// Bytes of the parameters as f32.
    pub size_bytes: usize,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Side of the input image.
    pub input_size: usize,
    /// Every layer in order.
    pub layers: Vec<Layer>,
}

impl Summary {
    /// Counts `architecture` for square images of side `input_size`.
    ///
    /// # Errors
    /// `input_size` is 0 or so large that counts would not fit.
    pub fn new(architecture: &Architecture, input_size: usize) -> Result<Self, ArchitectureError> {
        if !(1..=65_536).contains(&input_size) {
            return Err(ArchitectureError::OutOfRange {
                key: "input_size",
                value: input_size.to_string(),
                expected: "between 1 and 65536",
            });
        }
        let layers = layers(architecture, input_size);
        // Counted from the list of tensors, not from the layers, so that each checks the other.
        let parameters = trainable_parameters(architecture);
        debug_assert_eq!(parameters, layers.iter().map(|layer| layer.parameters).sum::<usize>());
        Ok(Self {
            parameters,
            size_bytes: parameters * size_of::<f32>(),
            macs: layers.iter().map(|layer| layer.macs).sum(),
            input_size,
            layers,
        })
    }
}

/// Number of trainable parameters: running statistics do not count.
pub fn trainable_parameters(architecture: &Architecture) -> usize {
    let trained = tensors(architecture).into_iter().filter(|tensor| tensor.role != Role::Statistic);
    trained.map(|tensor| tensor.elements()).sum()
}

/// Walks the network's layers with the shape of the map that flows through them.
struct Walk {
    shape: [usize; 3],
    layers: Vec<Layer>,
}

impl Walk {
    /// A convolution of `groups`, padded to keep the size, with its norm's (or, without norm, its bias's) parameters.
    fn convolution(&mut self, name: String, kind: &str, output: usize, kernel: usize, stride: usize, depthwise: bool) {
        let [channels, h, w] = self.shape;
        let inputs_per_group = if depthwise { 1 } else { channels };
        let weights = output * inputs_per_group * kernel * kernel;
        let shape = [output, h.div_ceil(stride), w.div_ceil(stride)];
        let stride = if stride == 1 { String::new() } else { format!(" /{stride}") };
        self.push(Layer {
            name,
            kind: format!("{kind} {kernel}x{kernel}{stride}"),
            input: self.shape,
            output: shape,
            parameters: weights + 2 * output,
            macs: (weights * shape[1] * shape[2]) as u64,
        });
    }

    /// Squeeze-and-excitation: two 1×1 convolutions with bias on the pooled map.
    fn squeeze_excitation(&mut self, name: String, squeezed: usize) {
        let channels = self.shape[0];
        let weights = 2 * channels * squeezed;
        self.push(Layer {
            name,
            kind: format!("squeeze-excitation {squeezed}"),
            input: self.shape,
            output: self.shape,
            parameters: weights + channels + squeezed,
            macs: weights as u64,
        });
    }

    fn push(&mut self, layer: Layer) {
        self.shape = layer.output;
        self.layers.push(layer);
    }
}

fn layers(architecture: &Architecture, input_size: usize) -> Vec<Layer> {
    let mut walk = Walk { shape: [architecture.input_channels, input_size, input_size], layers: Vec::new() };
    walk.convolution("stem".into(), "convolution", architecture.stem, 3, architecture.stem_stride, false);
    for (index, block) in architecture.blocks.iter().enumerate() {
        let name = |part: &str| format!("blocks.{index}.{part}");
        if block.fused {
            walk.convolution(name("expand"), "convolution", block.hidden, block.kernel, block.stride, false);
        } else {
            if block.expands() {
                walk.convolution(name("expand"), "pointwise", block.hidden, 1, 1, false);
            }
            walk.convolution(name("depthwise"), "depthwise", block.hidden, block.kernel, block.stride, true);
        }
        if let Some(squeezed) = block.squeeze {
            walk.squeeze_excitation(name("squeeze_excitation"), squeezed);
        }
        walk.convolution(name("project"), "pointwise", block.output, 1, 1, false);
    }
    walk.convolution("head".into(), "pointwise", architecture.head, 1, 1, false);
    let (features, classes) = (architecture.head, architecture.classes);
    walk.push(Layer {
        name: "classifier".into(),
        kind: "linear".into(),
        input: [features, 1, 1],
        output: [classes, 1, 1],
        parameters: (features + 1) * classes,
        macs: (features * classes) as u64,
    });
    walk.layers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MobileNetV2Config;

    #[test]
    fn layers_follow_the_strides() {
        let summary = Summary::new(&MobileNetV2Config::new(1000).architecture().unwrap(), 224).unwrap();
        assert_eq!(summary.layers[0].output, [32, 112, 112]);
        let head = &summary.layers[summary.layers.len() - 2];
        assert_eq!(head.output, [1280, 7, 7]);
        assert_eq!(summary.layers.iter().map(|layer| layer.parameters).sum::<usize>(), summary.parameters);
    }

    #[test]
    fn absurd_input_sizes_are_refused() {
        let architecture = MobileNetV2Config::new(10).architecture().unwrap();
        assert!(Summary::new(&architecture, 0).is_err());
        assert!(Summary::new(&architecture, 1 << 40).is_err());
    }
}
