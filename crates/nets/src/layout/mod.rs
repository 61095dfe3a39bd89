//! The list of an architecture's tensors: path in [`Network`](crate::Network), key in other
//! projects' state dictionaries, and shape. The list is computed without allocating a tensor;
//! counting, saving, loading and exporting use it.
//!
//! Each [`Layout`] is a file with a table of keys. `conventions` compares padding, epsilon and
//! strides.

pub mod conventions;
mod flat;
mod hugging_face;
mod layer;
mod lukemelas;
mod timm;
mod torchvision;

use crate::architecture::{Architecture, Block};
use crate::types::Family;

use layer::{Keys, Layer, Part};

/// The project whose keys a state dictionary has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `features.0.0.weight`: torchvision, and mbconv's own files.
    Torchvision,
    /// `conv_stem.weight`: timm.
    Timm,
    /// `_conv_stem.weight`: lukemelas/EfficientNet-PyTorch.
    Lukemelas,
    /// `mobilenet_v2.conv_stem.first_conv.convolution.weight`,
    /// `efficientnet.embeddings.convolution.weight`: Hugging Face transformers.
    HuggingFace,
    /// `features.0.0.weight` and `conv.0.weight`: d-li14/mobilenetv2.pytorch, which numbers the
    /// layers of a block.
    Flat,
}

/// The role of a tensor in a state dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trained, with weight decay by default.
    Weight,
    /// Trained, without weight decay by default: biases, and batch-norm's γ and β.
    NormOrBias,
    /// A running statistic.
    Statistic,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Path in the Burn module, as module visitors report it.
    pub path: String,
    /// Key in the state dictionary.
    pub key: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Role.
    pub role: Role,
}

impl TensorInfo {
    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 5] = [Self::Torchvision, Self::Timm, Self::Lukemelas, Self::HuggingFace, Self::Flat];

    /// Looks a layer up in the layout's table.
    fn keys(self, architecture: &Architecture, layer: Layer) -> Keys {
        match self {
            Self::Torchvision => torchvision::keys(architecture, layer),
            Self::Timm => timm::keys(layer),
            Self::Lukemelas => lukemelas::keys(layer),
            Self::HuggingFace => hugging_face::keys(architecture, layer),
            Self::Flat => flat::keys(layer),
        }
    }

    /// Returns whether the project has networks like `architecture`.
    pub fn holds(self, architecture: &Architecture) -> bool {
        let mobilenet = architecture.family == Family::MobileNetV2;
        let squeezes = architecture.blocks.iter().all(|block| block.squeeze.is_some());
        let fused = architecture.blocks.iter().any(|block| block.fused);
        match self {
            Self::Torchvision | Self::Timm => true,
            // `efficientnet-lite-pytorch` has the same keys without squeeze-excitation.
            Self::Lukemelas => !mobilenet && !fused,
            Self::HuggingFace => mobilenet || squeezes,
            Self::Flat => mobilenet,
        }
    }

    /// Lists all tensors with this layout's keys, in forward order, without `num_batches_tracked`.
    pub fn tensors(self, architecture: &Architecture) -> Vec<TensorInfo> {
        let mut list = Tensors { keys: |layer| self.keys(architecture, layer), list: Vec::new() };
        list.conv_norm("stem", Layer::Stem, [architecture.stem, architecture.input_channels, 3, 3]);
        for (index, block) in architecture.blocks.iter().enumerate() {
            list.block(index, block);
        }
        let features = architecture.blocks.last().map_or(architecture.stem, |block| block.output);
        list.conv_norm("head", Layer::Head, [architecture.head, features, 1, 1]);
        list.weight_and_bias("classifier", Layer::Classifier, &[architecture.num_classes, architecture.head]);
        list.list
    }

    /// Finds the layout of a state dictionary of `architecture` by the key of the head.
    pub fn detect(architecture: &Architecture, has_key: impl Fn(&str) -> bool) -> Option<Self> {
        let layouts = Self::ALL.into_iter().filter(|layout| layout.holds(architecture));
        layouts.into_iter().find(|layout| has_key(&format!("{}.weight", layout.keys(architecture, Layer::Head)[0])))
    }
}

/// Lists all tensors with torchvision's keys, in forward order, without `num_batches_tracked`.
pub fn tensors(architecture: &Architecture) -> Vec<TensorInfo> {
    Layout::Torchvision.tensors(architecture)
}

struct Tensors<K> {
    keys: K,
    list: Vec<TensorInfo>,
}

impl<'a, K: Fn(Layer<'a>) -> Keys> Tensors<K> {
    fn push(&mut self, path: String, key: String, shape: &[usize], role: Role) {
        self.list.push(TensorInfo { path, key, shape: shape.to_vec(), role });
    }

    fn weight_and_bias(&mut self, path: &str, layer: Layer<'a>, shape: &[usize]) {
        let [key, _] = (self.keys)(layer);
        self.push(format!("{path}.weight"), format!("{key}.weight"), shape, Role::Weight);
        self.push(format!("{path}.bias"), format!("{key}.bias"), &shape[..1], Role::NormOrBias);
    }

    /// A convolution without bias and its batch-norm.
    fn conv_norm(&mut self, path: &str, layer: Layer<'a>, shape: [usize; 4]) {
        let [conv, norm] = (self.keys)(layer);
        self.push(format!("{path}.weight"), format!("{conv}.weight"), &shape, Role::Weight);
        for (name, theirs, role) in [
            ("gamma", "weight", Role::NormOrBias),
            ("beta", "bias", Role::NormOrBias),
            ("running_mean", "running_mean", Role::Statistic),
            ("running_var", "running_var", Role::Statistic),
        ] {
            self.push(format!("{path}.norm.{name}"), format!("{norm}.{theirs}"), &shape[..1], role);
        }
    }

    fn block(&mut self, index: usize, block: &'a Block) {
        let Block { input, hidden, output, kernel, .. } = *block;
        let path = |part: &str| format!("blocks.{index}.{part}");
        let layer = |part| Layer::Block(index, block, part);
        if block.expands() {
            let kernel = if block.fused { kernel } else { 1 };
            self.conv_norm(&path("expand"), layer(Part::Expand), [hidden, input, kernel, kernel]);
        }
        if !block.fused {
            self.conv_norm(&path("depthwise"), layer(Part::Depthwise), [hidden, 1, kernel, kernel]);
        }
        if let Some(squeezed) = block.squeeze {
            let [reduce, expand] = ["reduce", "expand"].map(|part| path(&format!("squeeze_excitation.{part}")));
            self.weight_and_bias(&reduce, layer(Part::SqueezeReduce), &[squeezed, hidden, 1, 1]);
            self.weight_and_bias(&expand, layer(Part::SqueezeExpand), &[hidden, squeezed, 1, 1]);
        }
        self.conv_norm(&path("project"), layer(Part::Project), [output, hidden, 1, 1]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::efficientnet::Variant;
    use crate::registry::NAMES;
    use crate::{EfficientNetConfig, MobileNetV2Config, NetworkOptions};

    #[derive(Default)]
    struct Paths {
        stack: Vec<String>,
        found: BTreeSet<(String, Vec<usize>)>,
    }

    impl ModuleVisitor for Paths {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.stack.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.stack.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.insert((self.stack.join("."), param.val().dims().to_vec()));
        }
    }

    #[test]
    fn listed_tensors_are_exactly_those_of_the_module() {
        let device = Device::default();
        for architecture in [
            MobileNetV2Config::new(7).with_width(0.25).architecture().unwrap(),
            EfficientNetConfig::b0(7).with_width(0.25).architecture().unwrap(),
            EfficientNetConfig::b0(7).with_width(0.25).with_variant(Variant::EdgeTpu).architecture().unwrap(),
        ] {
            let mut paths = Paths::default();
            architecture.init(&device).visit(&mut paths);
            let listed: BTreeSet<_> =
                tensors(&architecture).into_iter().map(|tensor| (tensor.path, tensor.shape)).collect();
            assert_eq!(listed, paths.found);
        }
    }

    #[test]
    fn keys_of_every_layout_are_unique() {
        for architecture in NAMES.map(|name| NetworkOptions::new(name, 7).architecture().unwrap()) {
            let own = tensors(&architecture);
            for layout in Layout::ALL.into_iter().filter(|layout| layout.holds(&architecture)) {
                let list = layout.tensors(&architecture);
                let keys: BTreeSet<_> = list.iter().map(|tensor| &tensor.key).collect();
                assert_eq!(keys.len(), own.len(), "{layout:?} gives two tensors one key");
                let same = own.iter().zip(&list).all(|(a, b)| (&a.path, &a.shape) == (&b.path, &b.shape));
                assert!(same, "{layout:?}");
                assert_eq!(Layout::detect(&architecture, |key| keys.contains(&key.to_string())), Some(layout));
            }
            assert_eq!(Layout::detect(&architecture, |_| false), None);
        }
    }
}
