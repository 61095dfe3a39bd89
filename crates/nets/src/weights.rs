//! State dictionaries: writes a network's tensors to safetensors, and reads them, in torchvision's
//! or another key layout.
//!
//! A written file loads in the layout's library with
//! `load_state_dict(load_file(path), strict=True)`.

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::layout::{Layout, TensorInfo, tensors};
use crate::network::Network;

/// Suffix of PyTorch's batch counter, which a strict `load_state_dict` requires but nothing uses.
const BATCH_COUNTER: &str = "num_batches_tracked";
/// Suffix of batch-norm's running variance, in every layout.
const VARIANCE: &str = "running_var";

/// Precision in which tensors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats: exact.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

/// Errors of weights files.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file is damaged or not a safetensors file.
    #[error("not a whole safetensors file ({0})")]
    Format(#[from] SafeTensorError),
    /// The file lacks tensors of the network.
    #[error("{count} of the network's tensors are missing, the first is `{first}`")]
    Missing {
        /// First missing key.
        first: String,
        /// Number of missing keys.
        count: usize,
    },
    /// The file has tensors that the network does not have.
    #[error("{count} tensors do not belong to this network, the first is `{first}`")]
    Unexpected {
        /// First unexpected key.
        first: String,
        /// Number of unexpected keys.
        count: usize,
    },
    /// A tensor has another shape than in the network.
    #[error("`{key}` has shape {found:?}, but this network's is {expected:?}")]
    Shape {
        /// Key of the tensor.
        key: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape of the network.
        expected: Vec<usize>,
    },
    /// A tensor has a type that is not a weight type.
    #[error("`{key}` has type {dtype:?}, but weights are F64, F32, F16 or BF16")]
    Type {
        /// Key of the tensor.
        key: String,
        /// Its type.
        dtype: Dtype,
    },
    /// A value is not finite, or not finite in the precision to be written.
    #[error("`{key}` has a value that is not finite{}", if *.written == Precision::F32 { "" } else { " in the precision asked for" })]
    NotFinite {
        /// Key of the tensor.
        key: String,
        /// Precision it was read or written in.
        written: Precision,
    },
    /// A variance is negative, whose square root would make every output NaN.
    #[error("`{key}` has a negative value, which no variance can have")]
    NegativeVariance {
        /// Key of the tensor.
        key: String,
    },
}

/// Formats a key from an untrusted file for printing: limits its length and escapes control
/// characters.
pub(crate) fn shown(key: &str) -> String {
    const LONGEST: usize = 120;
    let escaped: String = key.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if key.chars().nth(LONGEST).is_some() { escaped + "…" } else { escaped }
}

/// Returns the tensors of `network` as f32 with torchvision's keys, in the order of [`tensors`]:
/// parameters and running statistics.
pub fn state_dict(network: &Network) -> Vec<(TensorInfo, TensorData)> {
    state_dict_in(network, Layout::Torchvision)
}

/// Returns the tensors of `network` as f32 with the keys of `layout`, in its order.
pub fn state_dict_in(network: &Network, layout: Layout) -> Vec<(TensorInfo, TensorData)> {
    let mut collector = Collector::default();
    network.visit(&mut collector);
    let list = layout.tensors(network.architecture()).into_iter();
    list.filter_map(|info| collector.found.remove(&info.path).map(|data| (info, data))).collect()
}

/// Loads tensors with the keys of torchvision or another [`Layout`] into `network`.
///
/// # Errors
/// If a tensor is missing, unexpected or of another shape, or if a variance is negative. Nothing is
/// loaded partially.
pub fn load_state_dict(network: Network, mut state: HashMap<String, TensorData>) -> Result<Network, WeightsError> {
    state.retain(|key, _| !key.ends_with(BATCH_COUNTER));
    let architecture = network.architecture();
    let layout = Layout::detect(architecture, |key| state.contains_key(key)).unwrap_or(Layout::Torchvision);
    let list = layout.tensors(architecture);
    compare(&list, &state, |data| data.shape().to_vec())?;
    let negative = |info: &&TensorInfo| info.key.ends_with(VARIANCE) && state[&info.key].iter::<f32>().any(|v| v < 0.0);
    if let Some(info) = list.iter().find(negative) {
        return Err(WeightsError::NegativeVariance { key: info.key.clone() });
    }
    let values = list.into_iter().filter_map(|info| Some((info.path, state.remove(&info.key)?))).collect();
    Ok(network.map(&mut Loader { path: Vec::new(), values }))
}

/// Returns `network` with another number of classes or input channels; all other weights are kept.
///
/// Another number of classes replaces the classifier by [`new_classifier`]. Another number of input
/// channels reuses the stem's weights as timm does: for one channel they are summed over the
/// channels, for n channels they are repeated and scaled so that the magnitude of the output is
/// kept.
///
/// # Errors
/// If `architecture` differs from the network's in anything else.
pub fn adapt(network: &Network, architecture: &Architecture) -> Result<Network, WeightsError> {
    let device = network.classifier.weight.val().device();
    let fresh = Network::new(architecture, &device);
    let mut state: HashMap<String, TensorData> =
        state_dict(network).into_iter().map(|(info, data)| (info.key, data)).collect();
    if architecture.num_classes != network.architecture().num_classes {
        state.extend(new_classifier(architecture));
    }
    let (from, to) = (network.architecture().input_channels, architecture.input_channels);
    if from != to {
        let stem = network.stem.weight.val();
        let stem = match to {
            1 => stem.sum_dim(1),
            _ => stem.repeat_dim(1, to.div_ceil(from)).narrow(1, 0, to).mul_scalar(from as f64 / to as f64),
        };
        if let Some((info, _)) = state_dict(&fresh).into_iter().find(|(info, _)| info.path == "stem.weight") {
            state.insert(info.key, stem.into_data().convert::<f32>());
        }
    }
    load_state_dict(fresh, state)
}

/// Returns the tensors of a classifier that replaces a trained one, by torchvision's keys: zeros.
///
/// All classes start equally likely, so the first loss is `ln(classes)`. The published rule for
/// training from scratch, uniform within `±1/√classes`, starts far above it on trained features: at
/// 3.67 instead of 0.69 for two classes (EfficientNet-Lite0).
pub fn new_classifier(architecture: &Architecture) -> impl Iterator<Item = (String, TensorData)> {
    let classifier = tensors(architecture).into_iter().filter(|info| info.path.starts_with("classifier."));
    classifier.map(|info| (info.key, TensorData::zeros::<f32, _>(info.shape)))
}

/// Writes `network` as the bytes of a safetensors file in torchvision's layout, with `metadata` in
/// its header.
///
/// # Errors
/// If a weight is not finite in `precision`.
pub fn to_safetensors(
    network: &Network,
    precision: Precision,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>, WeightsError> {
    to_safetensors_in(network, Layout::Torchvision, precision, metadata)
}

/// Writes `network` as the bytes of a safetensors file in any layout, with `metadata` in its
/// header.
///
/// # Errors
/// If a weight is not finite in `precision`.
pub fn to_safetensors_in(
    network: &Network,
    layout: Layout,
    precision: Precision,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>, WeightsError> {
    let mut views: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (info, data) in state_dict_in(network, layout) {
        let (dtype, bytes) = encode(data.iter::<f32>(), precision)
            .ok_or_else(|| WeightsError::NotFinite { key: info.key.clone(), written: precision })?;
        if let Some(norm) = info.key.strip_suffix(VARIANCE) {
            views.push((format!("{norm}{BATCH_COUNTER}"), Dtype::I64, vec![], 0i64.to_le_bytes().to_vec()));
        }
        views.push((info.key, dtype, info.shape, bytes));
    }
    let views = views
        .iter()
        .map(|(key, dtype, shape, bytes)| Ok((key.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, SafeTensorError>>()?;
    let mut bytes = safetensors::serialize(views, metadata)?;
    sort_metadata(&mut bytes);
    Ok(bytes)
}

/// Sorts the metadata in the header of a safetensors file's bytes by key. They come out of a hash
/// map in another order each time, but equal models have equal files.
fn sort_metadata(bytes: &mut [u8]) {
    const LENGTH: usize = size_of::<u64>();
    let header = LENGTH..LENGTH + u64::from_le_bytes(bytes[..LENGTH].try_into().expect("8 bytes")) as usize;
    let mut json: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes[header.clone()]).expect("a header is JSON");
    if let Some(serde_json::Value::Object(metadata)) = json.get_mut("__metadata__") {
        metadata.sort_keys();
    }
    let mut sorted = serde_json::to_vec(&json).expect("JSON can be written");
    sorted.resize(header.len(), b' ');
    bytes[header].copy_from_slice(&sorted);
}

/// Checks that the bytes of a safetensors file contain the tensors of `architecture`, without
/// allocating them: a header may describe a network that is much larger than the file.
///
/// # Errors
/// If the file is damaged, or if a tensor is missing, unexpected or of another shape.
pub fn check_safetensors(architecture: &Architecture, bytes: &[u8]) -> Result<(), WeightsError> {
    let file = SafeTensors::deserialize(bytes)?;
    let found = file.iter().filter(|(key, _)| !key.ends_with(BATCH_COUNTER));
    let found: HashMap<String, Vec<usize>> = found.map(|(key, view)| (key.into(), view.shape().into())).collect();
    let layout = Layout::detect(architecture, |key| found.contains_key(key)).unwrap_or(Layout::Torchvision);
    compare(&layout.tensors(architecture), &found, |shape| shape.clone())
}

/// Checks that `found` has exactly the keys of `list`, with the same shapes.
fn compare<T>(
    list: &[TensorInfo],
    found: &HashMap<String, T>,
    shape: impl Fn(&T) -> Vec<usize>,
) -> Result<(), WeightsError> {
    let mut missing = list.iter().filter(|info| !found.contains_key(&info.key)).map(|info| &info.key);
    if let Some(first) = missing.next() {
        return Err(WeightsError::Missing { first: first.clone(), count: 1 + missing.count() });
    }
    for info in list {
        let found = shape(&found[&info.key]);
        if found != info.shape {
            return Err(WeightsError::Shape { key: info.key.clone(), found, expected: info.shape.clone() });
        }
    }
    let known: HashSet<&str> = list.iter().map(|info| info.key.as_str()).collect();
    let mut foreign: Vec<&String> = found.keys().filter(|key| !known.contains(key.as_str())).collect();
    foreign.sort();
    match foreign.first() {
        Some(&first) => Err(WeightsError::Unexpected { first: shown(first), count: foreign.len() }),
        None => Ok(()),
    }
}

/// Reads the bytes of a safetensors file into `network`, converting every float type to f32.
///
/// # Errors
/// If the file is damaged, if a tensor is missing, unexpected, of another shape or not finite, or
/// if a variance is negative.
pub fn from_safetensors(network: Network, bytes: &[u8]) -> Result<Network, WeightsError> {
    let mut state = HashMap::new();
    for (key, view) in SafeTensors::deserialize(bytes)?.iter() {
        if key.ends_with(BATCH_COUNTER) {
            continue;
        }
        let values = decode(view.dtype(), view.data())
            .ok_or_else(|| WeightsError::Type { key: shown(key), dtype: view.dtype() })?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(WeightsError::NotFinite { key: shown(key), written: Precision::F32 });
        }
        state.insert(key.to_string(), TensorData::new(values, view.shape().to_vec()));
    }
    load_state_dict(network, state)
}

/// Checks that every tensor of `network` is finite when written in `precision`.
///
/// # Errors
/// Names the first tensor that is not.
pub fn check_precision(network: &Network, precision: Precision) -> Result<(), WeightsError> {
    match state_dict(network).into_iter().find(|(_, data)| encode(data.iter::<f32>(), precision).is_none()) {
        Some((info, _)) => Err(WeightsError::NotFinite { key: info.key, written: precision }),
        None => Ok(()),
    }
}

fn encode(values: impl Iterator<Item = f32>, precision: Precision) -> Option<(Dtype, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut finite = true;
    for value in values {
        match precision {
            Precision::F32 => {
                finite &= value.is_finite();
                bytes.extend(value.to_le_bytes());
            }
            Precision::F16 => {
                let value = f16::from_f32(value);
                finite &= value.is_finite();
                bytes.extend(value.to_le_bytes());
            }
            Precision::Bf16 => {
                let value = bf16::from_f32(value);
                finite &= value.is_finite();
                bytes.extend(value.to_le_bytes());
            }
        }
    }
    let dtype = match precision {
        Precision::F32 => Dtype::F32,
        Precision::F16 => Dtype::F16,
        Precision::Bf16 => Dtype::BF16,
    };
    finite.then_some((dtype, bytes))
}

/// Decodes little-endian floats of `dtype` to f32, or returns `None` for any other type.
fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|&chunk| read(chunk)).collect()
    }
    Some(match dtype {
        Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        _ => return None,
    })
}

#[derive(Default)]
struct Collector {
    path: Vec<String>,
    found: HashMap<String, TensorData>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.insert(self.path.join("."), param.val().into_data().convert::<f32>());
    }
}

struct Loader {
    path: Vec<String>,
    values: HashMap<String, TensorData>,
}

impl ModuleMapper for Loader {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.values.remove(&self.path.join(".")) {
            None => param,
            Some(data) => param.map(|old| {
                let new = Tensor::from_data(data, &old.device());
                if old.is_require_grad() { new.require_grad() } else { new }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{MobileNetV2Config, NetworkOptions};

    fn small(seed: u64) -> Network {
        let device = Device::default();
        device.seed(seed);
        MobileNetV2Config::new(3).with_width(0.1).init(&device)
    }

    fn logits(network: &Network) -> Vec<f32> {
        let images = Tensor::<4>::full([1, 3, 32, 32], 0.5, &Device::default());
        network.forward(images).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn safetensors_round_trip_preserves_logits() {
        let original = small(1);
        let bytes = to_safetensors(&original, Precision::F32, None).unwrap();
        let loaded = from_safetensors(small(2), &bytes).unwrap();
        assert_ne!(logits(&original), logits(&small(2)));
        assert_eq!(logits(&original), logits(&loaded));
    }

    #[test]
    fn safetensors_round_trip_preserves_logits_in_every_layout() {
        let original = small(1);
        for layout in Layout::ALL.into_iter().filter(|layout| layout.holds(original.architecture())) {
            let bytes = to_safetensors_in(&original, layout, Precision::F32, None).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            assert!(file.tensor(&layout.tensors(original.architecture())[0].key).is_ok());
            assert_eq!(logits(&original), logits(&from_safetensors(small(2), &bytes).unwrap()), "{layout:?}");
        }
    }

    #[test]
    fn half_precision_halves_the_size_and_keeps_logits_close() {
        let original = small(1);
        let full = to_safetensors(&original, Precision::F32, None).unwrap();
        for precision in [Precision::F16, Precision::Bf16] {
            let half = to_safetensors(&original, precision, None).unwrap();
            assert!(half.len() < full.len() * 6 / 10);
            let loaded = from_safetensors(small(2), &half).unwrap();
            for (a, b) in logits(&original).iter().zip(logits(&loaded)) {
                assert!((a - b).abs() < 1e-3, "{a} {b}");
            }
        }
    }

    #[test]
    fn invalid_or_mismatching_files_are_rejected() {
        let bytes = to_safetensors(&small(1), Precision::F32, None).unwrap();
        let cut = from_safetensors(small(2), &bytes[..bytes.len() / 2]);
        assert!(matches!(cut, Err(WeightsError::Format(_))));
        let other = NetworkOptions::new("mobilenet_v2_0.1", 4).architecture().unwrap().init(&Device::default());
        let error = from_safetensors(other, &bytes).unwrap_err();
        assert_eq!(error.to_string(), "`classifier.1.weight` has shape [3, 1280], but this network's is [4, 1280]");
        let efficientnet = NetworkOptions::new("efficientnet_b0", 3).architecture().unwrap();
        let error = from_safetensors(efficientnet.init(&Device::default()), &bytes).unwrap_err();
        assert!(matches!(error, WeightsError::Missing { .. }), "{error}");
    }

    #[test]
    fn equal_networks_have_equal_files() {
        let network = small(1);
        let files = (0..8).map(|_| {
            let metadata = ["format", "mbconv", "a", "z"].map(|key| (key.to_string(), format!("{key} é \"\n")));
            to_safetensors(&network, Precision::F32, Some(metadata.into())).unwrap()
        });
        let files: Vec<_> = files.collect();
        assert!(files.iter().all(|file| *file == files[0]));
        let (_, header) = SafeTensors::read_metadata(&files[0]).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["mbconv"], "mbconv é \"\n");
    }

    #[test]
    fn adapt_replaces_the_classifier_and_converts_the_stem() {
        let original = small(1);
        let mut options = NetworkOptions::new("mobilenet_v2_0.1", 5);
        options.input_channels = 1;
        let gray = adapt(&original, &options.architecture().unwrap()).unwrap();
        options.input_channels = 7;
        options.num_classes = 3;
        let seven = adapt(&original, &options.architecture().unwrap()).unwrap();
        let features = |network: &Network, channels: usize| -> Vec<f32> {
            let gray = Tensor::<4>::full([1, channels, 32, 32], 0.5, &Device::default());
            network.features(gray).into_data().try_to_vec().unwrap()
        };
        // A gray image gives the same features in one channel as in three, up to rounding.
        for (a, b) in features(&gray, 1).iter().zip(features(&original, 3)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        assert_eq!(seven.stem.weight.dims()[1], 7);
        let stem = |network: &Network| network.stem.weight.val();
        let difference = stem(&seven).narrow(1, 3, 3) - stem(&original).mul_scalar(3.0 / 7.0);
        assert!(difference.abs().max().into_scalar::<f32>() < 1e-7);
        assert_eq!(gray.classifier.weight.dims(), [5, 1280]);
        assert_eq!(seven.classifier.weight.val().into_data(), original.classifier.weight.val().into_data());
    }

    #[test]
    fn negative_variances_are_rejected_with_their_key() {
        for layout in [Layout::Torchvision, Layout::Timm, Layout::HuggingFace] {
            let mut state: HashMap<_, _> =
                state_dict_in(&small(1), layout).into_iter().map(|(info, data)| (info.key, data)).collect();
            let key = state.keys().filter(|key| key.ends_with(VARIANCE)).min().unwrap().clone();
            let count = state[&key].num_elements();
            let mut values = vec![0.0f32; count];
            state.insert(key.clone(), TensorData::new(values.clone(), [count]));
            assert!(load_state_dict(small(2), state.clone()).is_ok(), "a variance of nothing is possible");
            values[count - 1] = -1e-3;
            state.insert(key.clone(), TensorData::new(values, [count]));
            let error = load_state_dict(small(2), state).unwrap_err();
            assert_eq!(error.to_string(), format!("`{key}` has a negative value, which no variance can have"));
        }
    }

    #[test]
    fn overflow_in_f16_is_reported_with_its_key() {
        let network = small(1);
        let (info, _) = state_dict(&network).swap_remove(3);
        let mut state: HashMap<_, _> = state_dict(&network).into_iter().map(|(info, data)| (info.key, data)).collect();
        state.insert(info.key.clone(), TensorData::new(vec![1e6f32; info.elements()], info.shape));
        let large = load_state_dict(network, state).unwrap();
        assert!(to_safetensors(&large, Precision::F32, None).is_ok());
        let error = to_safetensors(&large, Precision::F16, None).unwrap_err();
        assert!(error.to_string().contains(&info.key), "{error}");
    }
}
