//! Parameters, multiply-accumulates and layers of an architecture, counted without allocating a
//! weight.

use serde::Serialize;

use crate::architecture::Architecture;
use crate::error::ArchitectureError;
use crate::layout::{Role, tensors};

/// A layer and its cost for one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// Path of the module.
    pub name: String,
    /// Kind, such as `depthwise 3x3 /2`.
    pub kind: String,
    /// Input shape, `[C, H, W]`.
    pub input: [usize; 3],
    /// Output shape, `[C, H, W]`.
    pub output: [usize; 3],
    /// Trainable parameters, including batch-norm's.
    pub parameters: usize,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Bytes of the layer's output for one image, as f32.
    pub activation_bytes: u64,
    /// Bytes that training keeps for the backward pass of one image, as f32: the inputs of
    /// batch-norm and the outputs of the activation.
    pub kept_bytes: u64,
    /// Side of the receptive field in pixels. It may exceed the image, and ignores
    /// squeeze-excitation, whose gates depend on the whole feature map.
    pub receptive_field: usize,
}

/// The cost of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Trainable parameters.
    pub parameters: usize,
    /// Bytes of the parameters as f32.
    pub size_bytes: usize,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Height and width of the input image.
    pub input_size: [usize; 2],
    /// Bytes of the outputs of all layers for one image, as f32.
    pub activation_bytes: u64,
    /// Largest sum of one layer's input and output bytes for one image, as f32: the minimum for
    /// computing layer by layer.
    pub peak_activation_bytes: u64,
    /// Every layer in order.
    pub layers: Vec<Layer>,
}

impl Summary {
    /// Counts `architecture` for images of `input_size`, height and width.
    ///
    /// # Errors
    /// A side is 0 or above 65536.
    pub fn new(architecture: &Architecture, input_size: [usize; 2]) -> Result<Self, ArchitectureError> {
        if let Some(side) = input_size.iter().find(|side| !(1..=65_536).contains(*side)) {
            return Err(ArchitectureError::OutOfRange {
                key: "input_size",
                value: side.to_string(),
                expected: "between 1 and 65536",
            });
        }
        let layers = layers(architecture, input_size);
        // Counted from the list of tensors, so that tensors and layers check each other.
        let parameters = trainable_parameters(architecture);
        debug_assert_eq!(parameters, layers.iter().map(|layer| layer.parameters).sum::<usize>());
        Ok(Self {
            parameters,
            size_bytes: parameters * size_of::<f32>(),
            macs: sum(layers.iter().map(|layer| layer.macs)),
            input_size,
            activation_bytes: sum(layers.iter().map(|layer| layer.activation_bytes)),
            peak_activation_bytes: layers
                .iter()
                .map(|layer| bytes(layer.input) + bytes(layer.output))
                .max()
                .unwrap_or(0),
            layers,
        })
    }

    /// Estimates the bytes that training with batches of `batch` images holds at once, without the
    /// program itself: for every parameter its value, its gradient and `optimizer_state` values of
    /// the optimizer; for every image the feature maps kept for the backward pass, and twice the
    /// largest one as scratch. With `checkpointing`, activations are recomputed instead of kept.
    pub fn training_bytes(&self, batch: usize, optimizer_state: usize, checkpointing: bool) -> u64 {
        let parameters = (self.size_bytes * (2 + optimizer_state)) as u64;
        let kept = |layer: &Layer| if checkpointing { layer.activation_bytes } else { layer.kept_bytes };
        let kept = sum(self.layers.iter().map(kept));
        let image = self.layers.first().map_or(0, |layer| bytes(layer.input));
        let largest = self.layers.iter().map(|layer| layer.activation_bytes).max().unwrap_or(0);
        let maps = sum([image, kept, largest, largest].into_iter());
        parameters.saturating_add(maps.saturating_mul(batch as u64))
    }
}

/// Returns the sum, saturating for absurdly large networks and images.
fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// Returns the bytes of a feature map `[C, H, W]` as f32.
fn bytes(shape: [usize; 3]) -> u64 {
    shape.iter().map(|&side| side as u64).product::<u64>() * size_of::<f32>() as u64
}

/// Returns the number of trainable parameters, which excludes running statistics.
pub fn trainable_parameters(architecture: &Architecture) -> usize {
    let trained = tensors(architecture).into_iter().filter(|tensor| tensor.role != Role::Statistic);
    trained.map(|tensor| tensor.elements()).fold(0, usize::saturating_add)
}

/// Traverses the network's layers and tracks the shape of the feature map.
struct Walk {
    shape: [usize; 3],
    /// Side of the receptive field in pixels.
    field: usize,
    /// Distance of two positions of the feature map in image pixels.
    jump: usize,
    layers: Vec<Layer>,
}

impl Walk {
    /// Adds a padded convolution with batch-norm.
    fn convolution(&mut self, name: String, kind: &str, output: usize, kernel: usize, stride: usize, depthwise: bool) {
        self.field = self.field.saturating_add((kernel - 1).saturating_mul(self.jump));
        self.jump = self.jump.saturating_mul(stride);
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
            macs: (weights as u64).saturating_mul((shape[1] * shape[2]) as u64),
            activation_bytes: bytes(shape),
            // The input of batch-norm, and the output of the activation or of the linear
            // bottleneck.
            kept_bytes: 2 * bytes(shape),
            receptive_field: self.field,
        });
    }

    /// Adds squeeze-and-excitation: two 1×1 convolutions with bias on the pooled feature map.
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
            activation_bytes: bytes(self.shape),
            kept_bytes: bytes(self.shape),
            receptive_field: self.field,
        });
    }

    fn push(&mut self, layer: Layer) {
        self.shape = layer.output;
        self.layers.push(layer);
    }
}

fn layers(architecture: &Architecture, [height, width]: [usize; 2]) -> Vec<Layer> {
    let mut walk = Walk { shape: [architecture.input_channels, height, width], field: 1, jump: 1, layers: Vec::new() };
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
    let (features, classes) = (architecture.head, architecture.num_classes);
    walk.push(Layer {
        name: "classifier".into(),
        kind: "linear".into(),
        input: [features, 1, 1],
        output: [classes, 1, 1],
        parameters: (features + 1) * classes,
        macs: (features * classes) as u64,
        activation_bytes: bytes([classes, 1, 1]),
        kept_bytes: bytes([features, 1, 1]) + bytes([classes, 1, 1]),
        receptive_field: walk.field.saturating_add((walk.shape[1].max(walk.shape[2]) - 1).saturating_mul(walk.jump)),
    });
    walk.layers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MobileNetV2Config;

    #[test]
    fn layer_shapes_follow_the_strides() {
        let summary = Summary::new(&MobileNetV2Config::new(1000).architecture().unwrap(), [224; 2]).unwrap();
        assert_eq!(summary.layers[0].output, [32, 112, 112]);
        let head = &summary.layers[summary.layers.len() - 2];
        assert_eq!(head.output, [1280, 7, 7]);
        assert_eq!(summary.layers.iter().map(|layer| layer.parameters).sum::<usize>(), summary.parameters);
    }

    #[test]
    fn receptive_fields_and_bytes_are_exact() {
        let summary = Summary::new(&MobileNetV2Config::new(1000).architecture().unwrap(), [224; 2]).unwrap();
        let layer = |name: &str| summary.layers.iter().find(|layer| layer.name == name).unwrap();
        // 3, then + 2·2 by the first 3×3 at stride 2, then + 2·2 again.
        assert_eq!(
            ["stem", "blocks.0.depthwise", "blocks.1.depthwise"].map(|name| layer(name).receptive_field),
            [3, 7, 11]
        );
        // Every 3×3 kernel adds two steps of the map that it looks at.
        let architecture = MobileNetV2Config::new(1000).architecture().unwrap();
        let strides = std::iter::once(2).chain(architecture.blocks.iter().map(|block| block.stride));
        let by_kernels: usize = strides
            .scan(1, |jump, stride| {
                let add = 2 * *jump;
                *jump *= stride;
                Some(add)
            })
            .sum();
        assert_eq!(layer("head").receptive_field, 1 + by_kernels);
        assert_eq!(layer("classifier").receptive_field, 1 + by_kernels + 6 * 32);
        assert_eq!(layer("stem").activation_bytes, 32 * 112 * 112 * 4);
        // The first depthwise convolution of stride 2: 96 channels of 112×112 in, of 56×56 out.
        assert_eq!(summary.peak_activation_bytes, 96 * (112 * 112 + 56 * 56) * 4);
        let [one, two] = [1, 2].map(|batch| summary.training_bytes(batch, 1, false));
        assert!(two - one > 2 * summary.activation_bytes && two < 2 * one);
        assert!(summary.training_bytes(2, 1, true) < two && summary.training_bytes(2, 2, false) == two + 4 * 3_504_872);
    }

    #[test]
    fn l2_is_counted_without_allocating() {
        let l2 = crate::EfficientNetConfig::named("l2", 1000).unwrap().architecture().unwrap();
        assert_eq!(Summary::new(&l2, [800; 2]).unwrap().parameters, 480_309_308);
    }

    #[test]
    fn invalid_input_sizes_are_refused() {
        let architecture = MobileNetV2Config::new(10).architecture().unwrap();
        for size in [[0; 2], [0, 32], [32, 0], [1 << 40; 2], [32, 1 << 40]] {
            assert!(Summary::new(&architecture, size).is_err());
        }
    }

    #[test]
    fn rectangles_are_counted_by_height_and_width() {
        let architecture = MobileNetV2Config::new(10).architecture().unwrap();
        let [square, wide, tall] =
            [[160; 2], [96, 161], [161, 96]].map(|size| Summary::new(&architecture, size).unwrap());
        assert_eq!(wide.layers[0].output, [32, 48, 81]);
        assert_eq!(wide.layers[wide.layers.len() - 2].output, [1280, 3, 6]);
        assert_eq!(
            (wide.parameters, wide.macs, wide.activation_bytes),
            (square.parameters, tall.macs, tall.activation_bytes)
        );
        assert!(wide.macs < square.macs);
    }
}
