//! Every tensor of an architecture: where it lives in [`Network`](crate::Network), what torchvision calls it, its
//! shape. Computed, not allocated; counting, saving and loading all read this one list.

use crate::{Architecture, Family, architecture::Block};

/// What a tensor of a state dictionary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trained, and decayed by default.
    Weight,
    /// Trained, not decayed by default: biases and batch-norm's weight and bias.
    NormOrBias,
    /// A running statistic.
    Statistic,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Path in the Burn module, as module visitors see it.
    pub path: String,
    /// Key in torchvision's state dictionary.
    pub key: String,
    /// Shape, the same in both.
    pub shape: Vec<usize>,
    /// Role.
    pub role: Role,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// All tensors in torchvision's order, without `num_batches_tracked`.
pub fn tensors(architecture: &Architecture) -> Vec<TensorInfo> {
    let mut list = Tensors(Vec::new());
    list.conv_norm("stem", ["features.0.0", "features.0.1"], [architecture.stem, architecture.input_channels, 3, 3]);
    for (index, block) in architecture.blocks.iter().enumerate() {
        let key = match architecture.family {
            Family::MobileNetV2 => format!("features.{}.conv", index + 1),
            Family::EfficientNet => format!("features.{}.{}.block", block.stage + 1, block.index),
        };
        list.block(architecture.family, &format!("blocks.{index}"), &key, block);
    }
    let last = architecture.blocks.last();
    let features = last.map_or(architecture.stem, |block| block.output);
    let head = match architecture.family {
        Family::MobileNetV2 => architecture.blocks.len() + 1,
        Family::EfficientNet => last.map_or(0, |block| block.stage + 1) + 1,
    };
    let head_keys = [format!("features.{head}.0"), format!("features.{head}.1")];
    list.conv_norm("head", head_keys.each_ref().map(String::as_str), [architecture.head, features, 1, 1]);
    list.weight_and_bias("classifier", "classifier.1", &[architecture.classes, architecture.head]);
    list.0
}

struct Tensors(Vec<TensorInfo>);

impl Tensors {
    fn push(&mut self, path: String, key: String, shape: &[usize], role: Role) {
        self.0.push(TensorInfo { path, key, shape: shape.to_vec(), role });
    }

    fn weight_and_bias(&mut self, path: &str, key: &str, shape: &[usize]) {
        self.push(format!("{path}.weight"), format!("{key}.weight"), shape, Role::Weight);
        self.push(format!("{path}.bias"), format!("{key}.bias"), &shape[..1], Role::NormOrBias);
    }

    /// A convolution without bias and its batch-norm.
    fn conv_norm(&mut self, path: &str, [conv, norm]: [&str; 2], shape: [usize; 4]) {
        self.push(format!("{path}.weight"), format!("{conv}.weight"), &shape, Role::Weight);
        for (name, role) in [
            ("weight", Role::NormOrBias),
            ("bias", Role::NormOrBias),
            ("running_mean", Role::Statistic),
            ("running_var", Role::Statistic),
        ] {
            self.push(format!("{path}.norm.{name}"), format!("{norm}.{name}"), &shape[..1], role);
        }
    }

    fn block(&mut self, family: Family, path: &str, key: &str, block: &Block) {
        let Block { input, hidden, output, kernel, .. } = *block;
        // Torchvision numbers a block's layers; the last of MobileNetV2's are bare, not a pair in a sequence.
        let mut layer = 0;
        let mut pair = |nested: bool| {
            let first = layer;
            layer += if nested { 1 } else { 2 };
            match nested {
                true => [format!("{key}.{first}.0"), format!("{key}.{first}.1")],
                false => [format!("{key}.{first}"), format!("{key}.{}", first + 1)],
            }
        };
        if block.expands() {
            self.conv_norm(&format!("{path}.expand"), pair(true).each_ref().map(String::as_str), [hidden, input, 1, 1]);
        }
        self.conv_norm(
            &format!("{path}.depthwise"),
            pair(true).each_ref().map(String::as_str),
            [hidden, 1, kernel, kernel],
        );
        if let Some(squeezed) = block.squeeze {
            let se = pair(true)[0].trim_end_matches(".0").to_string();
            let path = format!("{path}.squeeze_excitation");
            self.weight_and_bias(&format!("{path}.reduce"), &format!("{se}.fc1"), &[squeezed, hidden, 1, 1]);
            self.weight_and_bias(&format!("{path}.expand"), &format!("{se}.fc2"), &[hidden, squeezed, 1, 1]);
        }
        let nested = family == Family::EfficientNet;
        self.conv_norm(&format!("{path}.project"), pair(nested).each_ref().map(String::as_str), [output, hidden, 1, 1]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::{EfficientNetConfig, MobileNetV2Config};

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
    fn the_list_is_exactly_the_modules_tensors() {
        let device = Device::default();
        for architecture in [
            MobileNetV2Config::new(7).with_width(0.25).architecture().unwrap(),
            EfficientNetConfig::b0(7).with_width(0.25).architecture().unwrap(),
        ] {
            let mut paths = Paths::default();
            architecture.init(&device).visit(&mut paths);
            let listed: BTreeSet<_> =
                tensors(&architecture).into_iter().map(|tensor| (tensor.path, tensor.shape)).collect();
            assert_eq!(listed, paths.found);
        }
    }

    #[test]
    fn keys_are_torchvisions() {
        let keys = |architecture: Architecture| -> BTreeSet<String> {
            tensors(&architecture).into_iter().map(|tensor| tensor.key).collect()
        };
        let mobilenet = keys(MobileNetV2Config::new(10).architecture().unwrap());
        for key in [
            "features.0.0.weight",
            "features.1.conv.0.0.weight",
            "features.1.conv.1.weight",
            "features.1.conv.2.running_var",
            "features.2.conv.1.1.bias",
            "features.17.conv.3.running_mean",
            "features.18.1.weight",
            "classifier.1.bias",
        ] {
            assert!(mobilenet.contains(key), "{key}");
        }
        let efficientnet = keys(EfficientNetConfig::b0(10).architecture().unwrap());
        for key in [
            "features.1.0.block.0.0.weight",
            "features.1.0.block.1.fc1.bias",
            "features.1.0.block.2.1.running_var",
            "features.7.0.block.2.fc2.weight",
            "features.7.0.block.3.0.weight",
            "features.8.0.weight",
        ] {
            assert!(efficientnet.contains(key), "{key}");
        }
    }
}
