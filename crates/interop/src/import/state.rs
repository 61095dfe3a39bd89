//! The tensors of a weights file: PyTorch's `.pth` in both formats, or safetensors. Tensors are
//! converted on request; all of them are verified to lie within the file.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use burn::tensor::TensorData;
use half::{bf16, f16};
use mbconv_nets::detect::Shapes;
use safetensors::{Dtype, SafeTensors};

use mbconv_files::{read_weights, zip};

use crate::import::checkpoint::{self, CheckpointError};
use crate::import::error::ImportError;
use crate::import::foreign;
use crate::import::keys::{self, Found, NotFound};
use crate::import::pickle::{self, COMPLEX, Element, INTEGERS, Node, Pickle, Reason, SMALL_FLOATS, TensorRef};
use crate::import::signature::{Format, format_of};

/// A tensor's place in the file.
#[derive(Clone, Debug)]
struct Entry {
    element: Element,
    shape: Vec<usize>,
    strides: Vec<usize>,
    /// Position of the first element in bytes.
    start: usize,
    elements: usize,
}

/// Reads a file that starts like a weights file. Folders, devices and pipes are rejected, also
/// behind links.
pub fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let shown = || path.display().to_string();
    let unreadable = |source| ImportError::Read { path: shown(), source };
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(ImportError::NotAFile { path: shown() });
    }
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(foreign::HEAD as u64).read_to_end(&mut head).map_err(unreadable)?;
    match format_of(&head) {
        None => Err(unsupported(path, &head)),
        Some(_) => read_weights(path).map_err(unreadable),
    }
}

/// Returns the error of an unsupported file that starts with `head`.
fn unsupported(path: &Path, head: &[u8]) -> ImportError {
    match foreign::by_content(path, head) {
        Some(foreign) => ImportError::foreign(path, foreign.kind, foreign.advice),
        None => ImportError::Format { path: path.display().to_string(), reason: UNSUPPORTED.into() },
    }
}

/// Describes a safetensors type that is not used for weights.
fn describe(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F4 | Dtype::F6_E2M3 | Dtype::F6_E3M2 | Dtype::F8_E5M2 | Dtype::F8_E4M3 | Dtype::F8_E8M0 => SMALL_FLOATS,
        Dtype::C64 => COMPLEX,
        _ => INTEGERS,
    }
}

/// A weights file.
#[derive(Debug)]
pub struct StateFile {
    bytes: Vec<u8>,
    entries: BTreeMap<String, Entry>,
    /// Key of the weights in the checkpoint.
    pub checkpoint_key: Option<String>,
    /// The network located in the keys.
    pub found: Option<Found>,
}

impl StateFile {
    /// Locates the network's tensors in the contents of the file `path`, below `prefix` if given.
    pub fn new(bytes: Vec<u8>, path: &Path, prefix: Option<&str>) -> Result<Self, ImportError> {
        let shown = || path.display().to_string();
        let invalid = |reason: String| ImportError::Format { path: shown(), reason };
        let mut file = Self { bytes, entries: BTreeMap::new(), checkpoint_key: None, found: None };
        match format_of(&file.bytes) {
            Some(Format::Zip) => {
                let entries = zip::directory(&file.bytes[..]).map_err(|error| invalid(error.to_string()))?;
                if let Some(foreign) = foreign::by_members(path, entries.iter().map(|entry| &*entry.name)) {
                    return Err(ImportError::foreign(path, foreign.kind, foreign.advice));
                }
                file.read_zip(&entries, prefix).map_err(|error| error.at(path))?;
            }
            Some(Format::Legacy) => file.read_legacy(prefix).map_err(|error| error.at(path))?,
            Some(Format::Safetensors) => file.read_safetensors().map_err(invalid)?,
            None => return Err(unsupported(path, &file.bytes[..file.bytes.len().min(foreign::HEAD)])),
        }
        file.locate_network(prefix).map_err(|reason| ImportError::NoNetwork { path: shown(), reason })?;
        let elements = file.entries.values().try_fold(0usize, |sum, entry| sum.checked_add(entry.elements));
        // With overlapping tensors, a small file could require any amount of memory.
        if elements.is_none_or(|elements| elements > file.bytes.len()) {
            return Err(invalid("its tensors are larger than the file".into()));
        }
        Ok(file)
    }

    /// Selects the network's tensors and renames them to their keys in the source library.
    fn locate_network(&mut self, prefix: Option<&str>) -> Result<(), NotFound> {
        let names = match keys::find(&self.shapes(), prefix) {
            Ok(found) => {
                let names = found.names.clone();
                self.found = Some(found);
                names
            }
            // Detection reports the differences from the nearest network.
            Err(NotFound::Nothing) => keys::plain(&self.shapes(), prefix),
            Err(error) => return Err(error),
        };
        let mut entries = std::mem::take(&mut self.entries);
        self.entries = names.into_iter().filter_map(|(key, name)| Some((name, entries.remove(&key)?))).collect();
        Ok(())
    }

    /// Returns the shape of each tensor.
    pub fn shapes(&self) -> Shapes {
        self.entries.iter().map(|(key, entry)| (key.clone(), entry.shape.clone())).collect()
    }

    /// Returns whether there is a tensor with this key.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Returns a tensor as f32.
    ///
    /// # Errors
    /// Description of the elements, if they are not floats of 16 bits or more.
    ///
    /// # Panics
    /// If the key does not exist.
    pub fn tensor(&self, key: &str) -> Result<TensorData, &'static str> {
        let Entry { element, shape, strides, start, elements } = &self.entries[key];
        let value: fn(&[u8]) -> f32 = match element {
            Element::F64 => |b| f64::from_le_bytes(b.try_into().unwrap_or_default()) as f32,
            Element::F32 => |b| f32::from_le_bytes(b.try_into().unwrap_or_default()),
            Element::F16 => |b| f16::from_le_bytes(b.try_into().unwrap_or_default()).to_f32(),
            Element::Bf16 => |b| bf16::from_le_bytes(b.try_into().unwrap_or_default()).to_f32(),
            Element::Other(_, description) => return Err(description),
        };
        let size = element.size();
        let mut values = Vec::with_capacity(*elements);
        let mut index = vec![0; shape.len()];
        for _ in 0..*elements {
            let at: usize = index.iter().zip(strides).map(|(index, stride)| index * stride).sum();
            let at = start + at * size;
            values.push(value(&self.bytes[at..at + size]));
            // The last dimension changes fastest.
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
        let file = SafeTensors::deserialize(&self.bytes)
            .map_err(|error| format!("the safetensors file is damaged or incomplete ({error})"))?;
        let base = self.bytes.as_ptr().addr();
        for (key, view) in file.iter() {
            let element = match view.dtype() {
                Dtype::F64 => Element::F64,
                Dtype::F32 => Element::F32,
                Dtype::F16 => Element::F16,
                Dtype::BF16 => Element::Bf16,
                dtype => Element::Other(dtype.bitsize().div_ceil(8), describe(dtype)),
            };
            let shape = view.shape().to_vec();
            let strides = contiguous(&shape);
            let (start, elements) = (view.data().as_ptr().addr() - base, shape.iter().product());
            self.entries.insert(key.to_string(), Entry { element, shape, strides, start, elements });
        }
        Ok(())
    }

    fn read_zip(&mut self, entries: &[zip::Entry], prefix: Option<&str>) -> Result<(), CheckpointError> {
        let files = stored_files(&self.bytes, entries)?;
        let name = files
            .keys()
            .find(|name| name.ends_with("data.pkl"))
            .ok_or("the zip file contains no PyTorch checkpoint")?;
        let folder = name.trim_end_matches("data.pkl");
        if files.get(&format!("{folder}byteorder")).is_some_and(|range| self.bytes[range.clone()] != *b"little") {
            return Err("it was written on a big-endian machine".into());
        }
        let pickle = pickle::read(&self.bytes[files[name].clone()])?;
        self.collect(&pickle, prefix, |key| files.get(&format!("{folder}data/{key}")).cloned())
    }

    /// Reads the format before PyTorch 1.6: four pickles (magic number, version, system
    /// information, values), the keys of the storages, and the storages.
    fn read_legacy(&mut self, prefix: Option<&str>) -> Result<(), CheckpointError> {
        let mut at = 0;
        let mut next = || -> Result<Pickle, Reason> {
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
        let Node::List(list) = keys.get(keys.root) else { return Err("its list of storages is invalid".into()) };
        let mut storages = HashMap::new();
        for &key in list {
            let key = keys.text(key).ok_or("its list of storages is invalid")?;
            let size = *elements.get(key).ok_or("it contains an unreferenced storage")?;
            let count = self.bytes.get(at..at + 8).ok_or(CUT)?;
            let count = u64::from_le_bytes(count.try_into().map_err(|_| CUT)?);
            let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(size)).ok_or(CUT)?;
            let end = (at + 8).checked_add(length).filter(|&end| end <= self.bytes.len()).ok_or(CUT)?;
            storages.insert(key.to_string(), at + 8..end);
            at = end;
        }
        self.collect(&values, prefix, |key| storages.get(key).cloned())
    }

    /// Collects the weights from the values of a pickle.
    fn collect(
        &mut self,
        pickle: &Pickle,
        prefix: Option<&str>,
        storage: impl Fn(&str) -> Option<Range<usize>>,
    ) -> Result<(), CheckpointError> {
        let (checkpoint_key, tensors) = checkpoint::weights(pickle, prefix)?;
        for (key, tensor) in tensors {
            let range = pickle.text(tensor.storage).and_then(&storage).ok_or("a tensor's storage is missing")?;
            self.entries.insert(key, entry(tensor, range)?);
        }
        self.checkpoint_key = checkpoint_key;
        Ok(())
    }
}

/// Returns the byte ranges of the files in a zip archive. `torch.save` stores them uncompressed.
fn stored_files(bytes: &[u8], entries: &[zip::Entry]) -> Result<HashMap<String, Range<usize>>, Reason> {
    let mut files = HashMap::new();
    for entry in entries {
        if entry.encrypted || entry.method != 0 || entry.stored != entry.size {
            return Err("the zip file is compressed or encrypted, unlike PyTorch's");
        }
        let start = zip::data_start(bytes, entry.header).map_err(|_| DAMAGED)?;
        let end = start.checked_add(entry.size).filter(|&end| end <= bytes.len() as u64).ok_or(DAMAGED)?;
        files.insert(entry.name.clone(), start as usize..end as usize);
    }
    Ok(files)
}

/// Returns a tensor's place in the file, given the byte range of its storage.
fn entry(tensor: &TensorRef, range: Range<usize>) -> Result<Entry, Reason> {
    let (shape, strides) = (tensor.shape.clone(), tensor.strides.clone());
    let size = tensor.element.size();
    let elements = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side)).ok_or(OUTSIDE)?;
    // End of the last element in the storage.
    let end = || {
        let steps = shape.iter().zip(&strides).map(|(side, stride)| (side - 1).checked_mul(*stride));
        let last = steps.into_iter().try_fold(tensor.offset, |sum, step| sum.checked_add(step?))?;
        last.checked_add(1)?.checked_mul(size)
    };
    if elements > 0 && end().is_none_or(|end| end > range.len()) || elements > range.len() {
        return Err(OUTSIDE);
    }
    let start = range.start + if elements > 0 { tensor.offset * size } else { 0 };
    Ok(Entry { element: tensor.element, shape, strides, start, elements })
}

const UNSUPPORTED: Reason = "it is neither a PyTorch checkpoint nor a safetensors file";
const OUTSIDE: Reason = "a tensor exceeds its storage";
const CUT: Reason = "it is truncated";
const DAMAGED: Reason = "the zip file is damaged or truncated";

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
    fn all_pytorch_formats_are_read() {
        let numbers: Vec<f32> = (0..24u8).map(|number| f32::from(number) / 4.0).collect();
        for (name, checkpoint_key) in [
            ("zip.pth", None),
            ("protocol_4.pth", None),
            ("legacy.pth", None),
            ("checkpoint.pth", Some("state_dict_ema")),
            ("legacy_checkpoint.pth", Some("state_dict_ema")),
        ] {
            let file = open(&std::fs::read(fixture(name)).unwrap()).unwrap();
            assert_eq!(file.checkpoint_key.as_deref(), checkpoint_key, "{name}");
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
            assert_eq!(file.tensor("count").unwrap_err(), INTEGERS);
        }
    }

    #[test]
    fn pickled_modules_are_rejected() {
        let error = open(&std::fs::read(fixture("module.pth")).unwrap()).unwrap_err().to_string();
        assert!(error.contains("a pickled object (`torch.nn.modules.linear.Linear`)"), "{error}");
    }

    #[test]
    fn weights_are_found_beside_other_tensors() {
        let file = open(&std::fs::read(fixture("accuracy.pth")).unwrap()).unwrap();
        assert_eq!((file.checkpoint_key.as_deref(), file.shapes().len()), (Some("state_dict"), 10));
        let teacher = std::fs::read(fixture("teacher.pth")).unwrap();
        let open = |prefix| StateFile::new(teacher.clone(), Path::new("teacher.pth"), prefix).unwrap();
        assert_eq!(open(None).shapes().len(), 20);
        for (prefix, first) in [("teacher.", 0.0), ("student", 1.0), ("student.module.", 1.0)] {
            let file = open(Some(prefix));
            assert_eq!((file.shapes().len(), values(&file, "whole")[0]), (10, first), "{prefix}");
        }
    }

    #[test]
    fn errors_describe_files_without_weights() {
        for (name, kind, advice) in [
            (
                "optimizer.pth",
                "the state of an optimizer or scheduler, without weights (its keys are `epoch`, `optimizer`",
                "",
            ),
            (
                "module_in_checkpoint.pth",
                "whose `model` is a pickled object",
                "weights_only=False)[\"model\"].state_dict()",
            ),
            ("module.pth", "a pickled object (`torch.nn.modules.linear.Linear`)", "weights_only=False).state_dict()"),
            ("torchscript.pt", "a TorchScript archive", "torch.jit.load(\"torchscript.pt\").state_dict()"),
        ] {
            let bytes = std::fs::read(fixture(name)).unwrap();
            let error = StateFile::new(bytes, Path::new(name), None).unwrap_err();
            let hint = error.hint().unwrap();
            assert!(error.to_string().contains(kind), "{error}");
            assert!(hint.contains(advice), "{hint}");
        }
    }

    fn open(bytes: &[u8]) -> Result<StateFile, ImportError> {
        StateFile::new(bytes.to_vec(), Path::new("weights.pth"), None)
    }

    #[test]
    fn truncated_files_are_errors() {
        for name in ["zip.pth", "legacy.pth", "legacy_checkpoint.pth"] {
            let bytes = std::fs::read(fixture(name)).unwrap();
            for end in (0..bytes.len()).step_by(7) {
                assert!(open(&bytes[..end]).is_err(), "{name} cut to {end}");
            }
        }
    }

    #[test]
    fn tensors_that_exceed_their_storage_are_errors() {
        // A tensor of `shape` and `strides` on a storage with one float.
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
    fn total_length_of_tensor_names_is_limited() {
        // A dictionary under a thousand keys contains a tensor a thousand times; all keys are the
        // same text of 100 kB.
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
        fn changed_bytes_do_not_panic(
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
