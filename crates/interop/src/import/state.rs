//! The tensors of a weights file: PyTorch's `.pth` in both its forms, or safetensors. Nothing is
//! converted until it is asked for, and everything lies within the file.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use burn::tensor::TensorData;
use half::{bf16, f16};
use mbconv_nets::detect::Shapes;
use safetensors::{Dtype, SafeTensors};

use mbconv_files::{read_weights, zip};

use crate::import::error::ImportError;
use crate::import::foreign;
use crate::import::keys::{self, Found, NotFound};
use crate::import::pickle::{self, COMPLEX, Element, Id, Node, Pickle, SMALL, TensorRef, WHOLE, Wrong};
use crate::import::signature::{Form, form};

/// Keys under which training programs keep weights, the first that is there: averaged ones first,
/// as timm does.
const HOLDERS: [&str; 16] = [
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model_weights",
    "model",
    "net",
    "network",
    "module",
    "params",
    "weights",
];
/// Parts of the keys under which they keep tensors that are no weights.
const STATES: [&str; 6] = ["optim", "sched", "scaler", "rng", "callback", "loop"];
/// Deepest dictionary in dictionaries that is searched.
const MAX_DEPTH: usize = 3;
/// Most values of a checkpoint's dictionaries.
const MAX_VALUES: usize = 1 << 20;
/// Most bytes in the names of its tensors, with the keys above them.
const MAX_NAMES: usize = 16 << 20;

/// A tensor's place in the file.
#[derive(Clone, Debug)]
struct Entry {
    element: Element,
    shape: Vec<usize>,
    strides: Vec<usize>,
    /// Byte of the first element.
    start: usize,
    elements: usize,
}

/// The contents of a file that is one and begins as weights do: not of a folder, a device or a
/// pipe, at the end of whatever links.
pub fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let shown = || path.display().to_string();
    let unreadable = |source| ImportError::Read { path: shown(), source };
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(ImportError::NotAFile { path: shown() });
    }
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(foreign::HEAD as u64).read_to_end(&mut head).map_err(unreadable)?;
    match form(&head) {
        None => Err(neither(path, &head)),
        Some(_) => read_weights(path).map_err(unreadable),
    }
}

/// The error of a file that begins with `head` and is of no form that is read.
fn neither(path: &Path, head: &[u8]) -> ImportError {
    match foreign::by_content(path, head) {
        Some(foreign) => ImportError::foreign(path, foreign.what, foreign.remedy),
        None => ImportError::Format { path: path.display().to_string(), wrong: NEITHER.into() },
    }
}

/// What a safetensors file's type holds that is no weights.
fn kind(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F4 | Dtype::F6_E2M3 | Dtype::F6_E3M2 | Dtype::F8_E5M2 | Dtype::F8_E4M3 | Dtype::F8_E8M0 => SMALL,
        Dtype::C64 => COMPLEX,
        _ => WHOLE,
    }
}

/// A weights file.
#[derive(Debug)]
pub struct StateFile {
    bytes: Vec<u8>,
    entries: BTreeMap<String, Entry>,
    /// The key of a checkpoint under which the weights stood.
    pub holder: Option<String>,
    /// The network among the tensors, if any has the keys of one.
    pub found: Option<Found>,
}

impl StateFile {
    /// Finds the network's tensors in the contents of a file, below `prefix` if it is given; errors
    /// call it `path`.
    pub fn new(bytes: Vec<u8>, path: &Path, prefix: Option<&str>) -> Result<Self, ImportError> {
        let shown = || path.display().to_string();
        let wrong = |wrong: String| ImportError::Format { path: shown(), wrong };
        let mut file = Self { bytes, entries: BTreeMap::new(), holder: None, found: None };
        match form(&file.bytes) {
            Some(Form::Zip) => {
                let entries = zip::directory(&file.bytes[..]).map_err(|error| wrong(error.to_string()))?;
                if let Some(foreign) = foreign::by_members(path, entries.iter().map(|entry| &*entry.name)) {
                    return Err(ImportError::foreign(path, foreign.what, foreign.remedy));
                }
                file.read_zip(&entries, prefix).map_err(|failed| failed.at(path))?;
            }
            Some(Form::Legacy) => file.read_legacy(prefix).map_err(|failed| failed.at(path))?,
            Some(Form::Safetensors) => file.read_safetensors().map_err(wrong)?,
            None => return Err(neither(path, &file.bytes[..file.bytes.len().min(foreign::HEAD)])),
        }
        file.keep_network(prefix).map_err(|why| ImportError::NoNetwork { path: shown(), why })?;
        let held = file.entries.values().try_fold(0usize, |sum, entry| sum.checked_add(entry.elements));
        // Tensors that overlap would let a small file ask for any amount of memory.
        if held.is_none_or(|held| held > file.bytes.len()) {
            return Err(wrong("its tensors are larger than the file".into()));
        }
        Ok(file)
    }

    /// Keeps the tensors of the network, under the keys they have in its project.
    fn keep_network(&mut self, prefix: Option<&str>) -> Result<(), NotFound> {
        let names = match keys::find(&self.shapes(), prefix) {
            Ok(found) => {
                let names = found.names.clone();
                self.found = Some(found);
                names
            }
            // What is missing from the nearest network says more.
            Err(NotFound::Nothing) => keys::plain(&self.shapes(), prefix),
            Err(error) => return Err(error),
        };
        let mut entries = std::mem::take(&mut self.entries);
        self.entries = names.into_iter().filter_map(|(key, name)| Some((name, entries.remove(&key)?))).collect();
        Ok(())
    }

    /// Shape of each tensor.
    pub fn shapes(&self) -> Shapes {
        self.entries.iter().map(|(key, entry)| (key.clone(), entry.shape.clone())).collect()
    }

    /// Is there a tensor of this key?
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// A tensor as f32; what it holds instead, for people, if not floats of 16 bits or more.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn tensor(&self, key: &str) -> Result<TensorData, &'static str> {
        let Entry { element, shape, strides, start, elements } = &self.entries[key];
        let value: fn(&[u8]) -> f32 = match element {
            Element::F64 => |b| f64::from_le_bytes(b.try_into().unwrap_or_default()) as f32,
            Element::F32 => |b| f32::from_le_bytes(b.try_into().unwrap_or_default()),
            Element::F16 => |b| f16::from_le_bytes(b.try_into().unwrap_or_default()).to_f32(),
            Element::Bf16 => |b| bf16::from_le_bytes(b.try_into().unwrap_or_default()).to_f32(),
            Element::Other(_, holds) => return Err(holds),
        };
        let size = element.size();
        let mut values = Vec::with_capacity(*elements);
        let mut index = vec![0; shape.len()];
        for _ in 0..*elements {
            let at: usize = index.iter().zip(strides).map(|(index, stride)| index * stride).sum();
            let at = start + at * size;
            values.push(value(&self.bytes[at..at + size]));
            // The last dimension moves fastest.
            for (index, side) in index.iter_mut().zip(shape).rev() {
                *index += 1;
                if *index < *side {
                    break;
                }
                *index = 0;
            }
        }
        Ok(TensorData::new(values, shape.clone()))
    }

    fn read_safetensors(&mut self) -> Result<(), String> {
        let file =
            SafeTensors::deserialize(&self.bytes).map_err(|error| format!("not a whole safetensors file ({error})"))?;
        let base = self.bytes.as_ptr().addr();
        for (key, view) in file.iter() {
            let element = match view.dtype() {
                Dtype::F64 => Element::F64,
                Dtype::F32 => Element::F32,
                Dtype::F16 => Element::F16,
                Dtype::BF16 => Element::Bf16,
                dtype => Element::Other(dtype.bitsize().div_ceil(8), kind(dtype)),
            };
            let shape = view.shape().to_vec();
            let strides = contiguous(&shape);
            let (start, elements) = (view.data().as_ptr().addr() - base, shape.iter().product());
            self.entries.insert(key.to_string(), Entry { element, shape, strides, start, elements });
        }
        Ok(())
    }

    fn read_zip(&mut self, entries: &[zip::Entry], prefix: Option<&str>) -> Result<(), Failed> {
        let files = stored_files(&self.bytes, entries)?;
        let name =
            files.keys().find(|name| name.ends_with("data.pkl")).ok_or("the zip file holds no PyTorch checkpoint")?;
        let folder = name.trim_end_matches("data.pkl");
        if files.get(&format!("{folder}byteorder")).is_some_and(|range| self.bytes[range.clone()] != *b"little") {
            return Err("it was written on a big-endian machine".into());
        }
        let pickle = pickle::read(&self.bytes[files[name].clone()])?;
        self.collect(&pickle, prefix, |key| files.get(&format!("{folder}data/{key}")).cloned())
    }

    /// The old form: four pickles (a magic number, a version, the machine, the values), the
    /// storages' keys, the storages.
    fn read_legacy(&mut self, prefix: Option<&str>) -> Result<(), Failed> {
        let mut at = 0;
        let mut next = || -> Result<Pickle, Wrong> {
            let pickle = pickle::read(&self.bytes[at..])?;
            at += pickle.length;
            Ok(pickle)
        };
        for _ in 0..3 {
            next()?;
        }
        let (values, keys) = (next()?, next()?);
        let mut elements = HashMap::new();
        for node in values.nodes() {
            if let Node::Storage(element, key) = node {
                elements.insert(values.text(*key).unwrap_or_default(), element.size());
            }
        }
        let Node::List(list) = keys.get(keys.root) else { return Err("its list of storages is none".into()) };
        let mut storages = HashMap::new();
        for &key in list {
            let key = keys.text(key).ok_or("its list of storages is none")?;
            let size = *elements.get(key).ok_or("it holds a storage that nothing refers to")?;
            let count = self.bytes.get(at..at + 8).ok_or(CUT)?;
            let count = u64::from_le_bytes(count.try_into().map_err(|_| CUT)?);
            let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(size)).ok_or(CUT)?;
            let end = (at + 8).checked_add(length).filter(|&end| end <= self.bytes.len()).ok_or(CUT)?;
            storages.insert(key.to_string(), at + 8..end);
            at = end;
        }
        self.collect(&values, prefix, |key| storages.get(key).cloned())
    }

    /// Takes the weights out of a pickle's values.
    fn collect(
        &mut self,
        pickle: &Pickle,
        prefix: Option<&str>,
        storage: impl Fn(&str) -> Option<Range<usize>>,
    ) -> Result<(), Failed> {
        let (holder, tensors) = weights_of(pickle, prefix)?;
        for (key, tensor) in tensors {
            let range = pickle.text(tensor.storage).and_then(&storage).ok_or("a tensor's storage is missing")?;
            self.entries.insert(key, entry(tensor, range)?);
        }
        self.holder = holder;
        Ok(())
    }
}

/// Byte ranges of the files in a zip archive by name. `torch.save` compresses none.
fn stored_files(bytes: &[u8], entries: &[zip::Entry]) -> Result<HashMap<String, Range<usize>>, Wrong> {
    let mut files = HashMap::new();
    for entry in entries {
        if entry.encrypted || entry.method != 0 || entry.stored != entry.size {
            return Err("the zip file is compressed or encrypted, which PyTorch's are not");
        }
        let start = zip::data_start(bytes, entry.header).map_err(|_| DAMAGED)?;
        let end = start.checked_add(entry.size).filter(|&end| end <= bytes.len() as u64).ok_or(DAMAGED)?;
        files.insert(entry.name.clone(), start as usize..end as usize);
    }
    Ok(files)
}

/// The place of a tensor in the file, whose storage lies in `range`.
fn entry(tensor: &TensorRef, range: Range<usize>) -> Result<Entry, Wrong> {
    let (shape, strides) = (tensor.shape.clone(), tensor.strides.clone());
    let size = tensor.element.size();
    let elements = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side)).ok_or(OUTSIDE)?;
    // How far the last element is from the first.
    let reach = || {
        let steps = shape.iter().zip(&strides).map(|(side, stride)| (side - 1).checked_mul(*stride));
        let last = steps.into_iter().try_fold(tensor.offset, |sum, step| sum.checked_add(step?))?;
        last.checked_add(1)?.checked_mul(size)
    };
    if elements > 0 && reach().is_none_or(|reach| reach > range.len()) || elements > range.len() {
        return Err(OUTSIDE);
    }
    let start = range.start + if elements > 0 { tensor.offset * size } else { 0 };
    Ok(Entry { element: tensor.element, shape, strides, start, elements })
}

const NEITHER: Wrong = "it is neither a PyTorch checkpoint nor a safetensors file";
const OUTSIDE: Wrong = "a tensor reaches beyond its storage";
const CUT: Wrong = "it was cut short";
const DAMAGED: Wrong = "the zip file is damaged or was cut short";

/// Why a PyTorch file gives no weights.
enum Failed {
    /// It is damaged, or of an unknown kind.
    Wrong(Wrong),
    /// It is whole and holds something else: what it is, and what to do instead.
    Other(String, String),
}

impl From<Wrong> for Failed {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

impl Failed {
    fn at(self, path: &Path) -> ImportError {
        match self {
            Self::Wrong(wrong) => ImportError::Format { path: path.display().to_string(), wrong: wrong.into() },
            Self::Other(what, remedy) => ImportError::foreign(path, what, remedy),
        }
    }
}

/// Tensors by key.
type Tensors<'a> = Vec<(String, &'a TensorRef)>;

/// The tensors of the weights, and the key of the checkpoint under which they stood.
fn weights_of<'a>(pickle: &'a Pickle, prefix: Option<&str>) -> Result<(Option<String>, Tensors<'a>), Failed> {
    let Node::Dict(root) = pickle.get(pickle.root) else {
        return Err(object(pickle, pickle.root, "").unwrap_or(Failed::Other(
            "a saved Python object, not weights".into(),
            "save the model's weights instead: `torch.save(model.state_dict(), \"weights.pth\")`".into(),
        )));
    };
    let all = gather(pickle, pickle.root, MAX_DEPTH)?;
    let direct = gather(pickle, pickle.root, 0)?.len();
    if let Some((holder, dict)) = holder(pickle, pickle.root, direct, 2) {
        let held = gather(pickle, dict, 0)?;
        let there =
            |tensors: &Tensors| prefix.is_none_or(|prefix| tensors.iter().any(|(key, _)| keys::is_below(key, prefix)));
        if there(&held) || !there(&all) {
            return Ok((Some(holder), held));
        }
    }
    if all.is_empty() { Err(without_weights(pickle, root)) } else { Ok((None, all)) }
}

/// The tensors of a dictionary, and of those in it down to `depth`.
fn gather(pickle: &Pickle, dict: Id, depth: usize) -> Result<Tensors<'_>, Wrong> {
    let mut found = Vec::new();
    let (mut looked_at, mut named) = (0, 0);
    let mut open = vec![(dict, String::new(), depth)];
    while let Some((dict, scope, depth)) = open.pop() {
        let Node::Dict(pairs) = pickle.get(dict) else { continue };
        looked_at += pairs.len();
        // Dictionaries may hold one another more than once.
        if looked_at > MAX_VALUES {
            return Err("it has more values than any checkpoint");
        }
        for &(key, value) in pairs {
            let Some(key) = pickle.text(key) else { continue };
            // One long key may name every value.
            named += scope.len() + key.len();
            if named > MAX_NAMES {
                return Err("the names of its tensors are longer than any checkpoint's");
            }
            match pickle.get(value) {
                Node::Tensor(tensor) => found.push((format!("{scope}{key}"), &**tensor)),
                Node::Dict(_) if depth > 0 && !is_state(key) => open.push((value, format!("{scope}{key}."), depth - 1)),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Does the key of a dictionary belong to an optimizer or the like?
fn is_state(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    STATES.iter().any(|word| key.contains(word))
}

/// The first of [`HOLDERS`] with at least `least` tensors, or with one of them in it; its key and
/// dictionary.
fn holder(pickle: &Pickle, dict: Id, least: usize, depth: usize) -> Option<(String, Id)> {
    let Node::Dict(pairs) = pickle.get(dict) else { return None };
    HOLDERS.iter().find_map(|name| {
        // The last value of a key is the one that counts.
        let &(_, value) = pairs.iter().rev().find(|(key, _)| pickle.text(*key) == Some(name))?;
        let Node::Dict(held) = pickle.get(value) else { return None };
        let tensors = held.iter().filter(|(_, value)| matches!(pickle.get(*value), Node::Tensor(_))).count();
        if tensors > 0 && tensors >= least {
            return Some((name.to_string(), value));
        }
        let (inner, found) = (depth > 1).then(|| holder(pickle, value, least.max(1), depth - 1)).flatten()?;
        Some((format!("{name}.{inner}"), found))
    })
}

/// The error of an object that was pickled whole, under `key` of a checkpoint if there is one.
fn object(pickle: &Pickle, id: Id, key: &str) -> Option<Failed> {
    let class = pickle.class(id)?;
    let (what, part) = match key {
        "" => (format!("a whole pickled object (`{class}`), not weights"), String::new()),
        key => (format!("a checkpoint whose `{key}` is a whole pickled object (`{class}`)"), format!("[\"{key}\"]")),
    };
    let load = format!("torch.load(\"FILE\", weights_only=False){part}.state_dict()");
    Some(Failed::Other(
        what,
        format!("save its weights, where its code is installed: `torch.save({load}, \"weights.pth\")`"),
    ))
}

/// The error of a checkpoint without any tensor that could be a weight.
fn without_weights(pickle: &Pickle, root: &[(Id, Id)]) -> Failed {
    const LISTED: usize = 8;
    let keys: Vec<&str> = root.iter().filter_map(|(key, _)| pickle.text(*key)).collect();
    let pickled = |holder: &&'static str| {
        let &(_, value) = root.iter().find(|(key, _)| pickle.text(*key) == Some(*holder))?;
        object(pickle, value, holder)
    };
    if let Some(failed) = HOLDERS.iter().find_map(pickled) {
        return failed;
    }
    let optimizer = keys.contains(&"param_groups") || keys.iter().any(|key| is_state(key));
    let what = if optimizer {
        "an optimizer's or scheduler's state, without weights"
    } else {
        "a PyTorch file without weights"
    };
    let listed: Vec<String> = keys.iter().take(LISTED).map(|key| format!("`{key}`")).collect();
    let keys = if listed.is_empty() { "it is empty".into() } else { format!("its keys are {}", listed.join(", ")) };
    Failed::Other(
        format!("{what} ({keys})"),
        "give the file with the model's weights: `torch.save(model.state_dict(), \"weights.pth\")`".into(),
    )
}

fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::import::signature::LEGACY;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import").join(name)
    }

    fn values(file: &StateFile, key: &str) -> Vec<f32> {
        file.tensor(key).unwrap().iter().collect()
    }

    #[test]
    fn every_form_of_pytorch_is_read() {
        let numbers: Vec<f32> = (0..24u8).map(|number| f32::from(number) / 4.0).collect();
        for (name, holder) in [
            ("zip.pth", None),
            ("protocol_4.pth", None),
            ("legacy.pth", None),
            ("checkpoint.pth", Some("state_dict_ema")),
            ("legacy_checkpoint.pth", Some("state_dict_ema")),
        ] {
            let file = open(&std::fs::read(fixture(name)).unwrap()).unwrap();
            assert_eq!(file.holder.as_deref(), holder, "{name}");
            let shapes = file.shapes();
            let shape = |key: &str| shapes[key].as_slice();
            assert_eq!((shapes.len(), shape("whole"), shape("empty")), (10, &[2, 3, 4][..], &[0, 3][..]), "{name}");
            for key in ["whole", "half", "brain", "double", "parameter"] {
                assert_eq!(values(&file, key), numbers, "{name} {key}");
            }
            let transposed: Vec<f32> = (0..24).map(|index| numbers[index % 4 * 6 + index / 4]).collect();
            assert_eq!((shape("transposed"), values(&file, "transposed")), (&[6, 4][..], transposed), "{name}");
            assert_eq!(values(&file, "part"), numbers[8..16], "{name}");
            assert_eq!((values(&file, "scalar"), values(&file, "empty")), (vec![2.5], vec![]), "{name}");
            assert_eq!(file.tensor("count").unwrap_err(), WHOLE);
        }
    }

    #[test]
    fn a_programs_object_is_refused() {
        let error = open(&std::fs::read(fixture("module.pth")).unwrap()).unwrap_err().to_string();
        assert!(error.contains("a whole pickled object (`torch.nn.modules.linear.Linear`)"), "{error}");
    }

    #[test]
    fn tensors_beside_the_weights_do_not_hide_them() {
        let file = open(&std::fs::read(fixture("accuracy.pth")).unwrap()).unwrap();
        assert_eq!((file.holder.as_deref(), file.shapes().len()), (Some("state_dict"), 10));
        let teacher = std::fs::read(fixture("teacher.pth")).unwrap();
        let open = |prefix| StateFile::new(teacher.clone(), Path::new("teacher.pth"), prefix).unwrap();
        assert_eq!(open(None).shapes().len(), 20);
        for (prefix, first) in [("teacher.", 0.0), ("student", 1.0), ("student.module.", 1.0)] {
            let file = open(Some(prefix));
            assert_eq!((file.shapes().len(), values(&file, "whole")[0]), (10, first), "{prefix}");
        }
    }

    #[test]
    fn files_without_weights_are_named() {
        for (name, what, remedy) in [
            (
                "optimizer.pth",
                "an optimizer's or scheduler's state, without weights (its keys are `epoch`, `optimizer`",
                "",
            ),
            (
                "module_in_checkpoint.pth",
                "whose `model` is a whole pickled object",
                "weights_only=False)[\"model\"].state_dict()",
            ),
            (
                "module.pth",
                "a whole pickled object (`torch.nn.modules.linear.Linear`)",
                "weights_only=False).state_dict()",
            ),
            ("torchscript.pt", "a TorchScript archive", "torch.jit.load(\"torchscript.pt\").state_dict()"),
        ] {
            let bytes = std::fs::read(fixture(name)).unwrap();
            let error = StateFile::new(bytes, Path::new(name), None).unwrap_err();
            let hint = error.hint().unwrap();
            assert!(error.to_string().contains(what), "{error}");
            assert!(hint.contains(remedy), "{hint}");
        }
    }

    fn open(bytes: &[u8]) -> Result<StateFile, ImportError> {
        StateFile::new(bytes.to_vec(), Path::new("weights.pth"), None)
    }

    #[test]
    fn files_that_were_cut_short_are_errors() {
        for name in ["zip.pth", "legacy.pth", "legacy_checkpoint.pth"] {
            let bytes = std::fs::read(fixture(name)).unwrap();
            for end in (0..bytes.len()).step_by(7) {
                assert!(open(&bytes[..end]).is_err(), "{name} cut to {end}");
            }
        }
    }

    #[test]
    fn tensors_that_claim_more_than_there_is_are_errors() {
        // A storage of one float under a tensor of `shape` and `strides`.
        let legacy = |shape: &[u8], strides: &[u8]| {
            let dimensions = |list: &[u8]| [b"(", list, b"t"].concat();
            [
                LEGACY,
                b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01NtQK\x00",
                &dimensions(shape),
                &dimensions(strides),
                b"\x89NtRs.\x80\x02]X\x01\x00\x00\x000a.\x01\0\0\0\0\0\0\0\0\0\x80?",
            ]
            .concat()
        };
        assert_eq!(values(&open(&legacy(b"K\x01K\x01", b"K\x01K\x01")).unwrap(), "a"), [1.0]);
        let huge = b"\x8a\x08\0\0\0\0\0\0\0\x10".as_slice();
        for (shape, strides) in [
            (b"K\x02".as_slice(), b"K\x01".as_slice()),
            (huge, b"K\x01"),
            (huge, b"K\x00"),
            (&[huge, huge].concat(), b"K\x00K\x00"),
            (b"K\x01", b"K\x01K\x01"),
            (b"J\xff\xff\xff\xff", b"K\x01"),
        ] {
            assert!(open(&legacy(shape, strides)).is_err(), "{shape:?}");
        }
    }

    #[test]
    fn names_do_not_multiply() {
        // A dictionary under a thousand keys, with a thousand times the tensor; all keys are one
        // text of 100 kB.
        let text = [b"X\xa0\x86\x01\x00", &[b'k'; 100_000][..], b"q\x01"].concat();
        let tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01NtQK\x00))\x89NtRq\x02";
        let inner = [b"}(", &b"h\x01h\x02".repeat(1000)[..], b"uq\x03"].concat();
        let outer = [b"}(", &b"h\x01h\x03".repeat(1000)[..], b"u."].concat();
        let keys = b"\x80\x02]X\x01\x00\x00\x000a.\x01\0\0\0\0\0\0\0\0\0\x80?";
        let head = b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x02";
        let file = [LEGACY, head, &text, tensor, &inner, &outer, keys].concat();
        let error = open(&file).unwrap_err().to_string();
        assert!(error.contains("names of its tensors are longer"), "{error}");
    }

    proptest! {
        #[test]
        fn no_change_of_a_byte_makes_it_panic(
            name in prop::sample::select(vec!["zip.pth", "legacy.pth"]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = std::fs::read(fixture(name)).unwrap();
            for (index, byte) in changes {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(file) = open(&bytes) {
                for key in file.shapes().keys() {
                    let _ = file.tensor(key);
                }
            }
        }
    }
}
