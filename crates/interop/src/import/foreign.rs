//! Recognizes files that are not PyTorch or safetensors weights by their first bytes, the files in
//! a zip archive, and the extension.

use std::path::Path;

/// A recognized file with advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Kind of the file, with an article.
    pub kind: &'static str,
    /// Advice for the user.
    pub advice: &'static str,
}

/// Number of bytes from the start of a file that [`by_content`] examines.
pub const HEAD: usize = 512;

const KERAS: Foreign = Foreign {
    kind: "a Keras or other HDF5 file",
    advice: "Keras weights are not supported: use weights of the same network from timm or torchvision \
             (`mbconv list --pretrained`), or convert them to a PyTorch `state_dict()`",
};
const TENSORFLOW: Foreign = Foreign {
    kind: "a TensorFlow model or checkpoint",
    advice: "TensorFlow weights are not supported: use weights of the same network from timm (`tf_efficientnet_…`) or \
             Hugging Face transformers, which can convert MobileNetV2 and EfficientNet checkpoints",
};
const ONNX: Foreign = Foreign {
    kind: "an ONNX model",
    advice: "import the PyTorch weights it was exported from: `torch.save(model.state_dict(), \"weights.pth\")`",
};
const TFLITE: Foreign = Foreign {
    kind: "a TensorFlow Lite model",
    advice: "import the PyTorch weights of the same network: `mbconv list --pretrained`",
};
const TORCHSCRIPT: Foreign = Foreign {
    kind: "a TorchScript archive (`torch.jit.save`)",
    advice: "save its weights: `torch.save(torch.jit.load(\"FILE\").state_dict(), \"weights.pth\")`",
};
const EXPORTED: Foreign = Foreign {
    kind: "an exported PyTorch program (`torch.export.save`)",
    advice: "save its weights: `torch.save(torch.export.load(\"FILE\").state_dict, \"weights.pth\")`",
};
const NUMPY: Foreign = Foreign {
    kind: "a NumPy file",
    advice: "if its names are those of a PyTorch `state_dict()`, convert it: \
             `safetensors.numpy.save_file(dict(numpy.load(\"FILE\")), \"weights.safetensors\")`",
};
const UNPACK: Foreign =
    Foreign { kind: "a compressed file or an archive", advice: "unpack it and use the weights in it" };
const OTHER_RUNTIME: &str = "import the PyTorch weights of the same network: `mbconv list --pretrained`";

/// Signatures: the offset of the bytes, and the bytes.
const SIGNATURES: [(usize, &[u8], Foreign); 22] = [
    (0, b"\x89HDF\r\n\x1a\n", KERAS),
    (4, b"TFL3", TFLITE),
    (0, b"\x93NUMPY", NUMPY),
    (0, b"GGUF", Foreign { kind: "a GGUF file", advice: OTHER_RUNTIME }),
    (4, b"ET12", Foreign { kind: "an ExecuTorch program", advice: OTHER_RUNTIME }),
    (
        0,
        b"version https://git-lfs.github.com/spec",
        Foreign { kind: "a Git LFS pointer, not the file itself", advice: "download the file: `git lfs pull`" },
    ),
    (0, b"<!DOCTYPE", WEB_PAGE),
    (0, b"<!doctype", WEB_PAGE),
    (0, b"<html", WEB_PAGE),
    (0, b"<HTML", WEB_PAGE),
    (0, b"<?xml", Foreign { kind: "an XML document", advice: OTHER_RUNTIME }),
    (0, b"\x1f\x8b", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", UNPACK),
    (0, b"\xfd7zXZ", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", UNPACK),
    (0, b"BZh", UNPACK),
    (257, b"ustar", UNPACK),
    (0, b"\x80\x02", PICKLE),
    (0, b"\x80\x03", PICKLE),
    (0, b"\x80\x04", PICKLE),
    (0, b"\x80\x05", PICKLE),
    (0, b"\x00\x00\x00\x00\x04\x00\x00\x00CoreML", Foreign { kind: "a Core ML model", advice: OTHER_RUNTIME }),
];
const PICKLE: Foreign = Foreign {
    kind: "a Python pickle that PyTorch did not write",
    advice: "load it in Python and save its weights: `torch.save(state_dict, \"weights.pth\")`",
};
const INDEX: Foreign = Foreign {
    kind: "the index of a model in several files",
    advice: "save the model in one file: `model.save_pretrained(\"FOLDER\", max_shard_size=\"100GB\")`",
};
const WEB_PAGE: Foreign = Foreign {
    kind: "a web page, not weights",
    advice: "the download failed: download the file again from its direct URL",
};

/// Formats without a signature, by extension.
const EXTENSIONS: [(&str, Foreign); 21] = [
    ("onnx", ONNX),
    ("h5", KERAS),
    ("hdf5", KERAS),
    ("keras", KERAS),
    ("tflite", TFLITE),
    ("lite", TFLITE),
    ("pb", TENSORFLOW),
    ("index", TENSORFLOW),
    ("meta", TENSORFLOW),
    ("npz", NUMPY),
    ("npy", NUMPY),
    ("pt2", EXPORTED),
    ("gguf", Foreign { kind: "a GGUF file", advice: OTHER_RUNTIME }),
    ("msgpack", Foreign { kind: "a Flax model", advice: OTHER_RUNTIME }),
    ("mlmodel", Foreign { kind: "a Core ML model", advice: OTHER_RUNTIME }),
    ("caffemodel", Foreign { kind: "a Caffe model", advice: OTHER_RUNTIME }),
    ("engine", Foreign { kind: "a TensorRT engine", advice: OTHER_RUNTIME }),
    ("pte", Foreign { kind: "an ExecuTorch program", advice: OTHER_RUNTIME }),
    ("tar", UNPACK),
    ("zip", UNPACK),
    ("json", Foreign { kind: "a JSON document, not weights", advice: "use the weights beside it, or their folder" }),
];

/// Returns the kind of a file that starts with `head`.
pub fn by_content(path: &Path, head: &[u8]) -> Option<Foreign> {
    let starts = |at: usize, bytes: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(bytes));
    let found = SIGNATURES.iter().find(|(at, bytes, _)| starts(*at, bytes)).map(|(.., foreign)| *foreign);
    found.or_else(|| by_name(path)).or_else(|| protobuf(head))
}

/// Returns the kind of a zip archive that contains files with these `names`.
pub fn by_members<'a>(path: &Path, names: impl Iterator<Item = &'a str> + Clone) -> Option<Foreign> {
    let any = |test: &dyn Fn(&str) -> bool| names.clone().any(test);
    let pickle = any(&|name| name.ends_with("data.pkl"));
    if any(&|name| name.ends_with("constants.pkl") || name.ends_with("bytecode.pkl") || name.contains("/code/")) {
        Some(TORCHSCRIPT)
    } else if any(&|name| name.ends_with("archive_format") || name.ends_with("serialized_exported_program.json")) {
        Some(EXPORTED)
    } else if any(&|name| name.ends_with("model.weights.h5")) {
        Some(KERAS)
    } else if any(&|name| name.ends_with(".npy")) {
        Some(NUMPY)
    } else if pickle {
        None
    } else {
        by_name(path).or(Some(UNPACK))
    }
}

/// Returns the kind of a file by its extension, including TensorFlow's data shards.
fn by_name(path: &Path) -> Option<Foreign> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    if name.ends_with(".index.json") {
        return Some(INDEX);
    }
    let (_, extension) = name.rsplit_once('.')?;
    let shard = extension.starts_with("data-") && extension.contains("-of-");
    let found = EXTENSIONS.iter().find(|(known, _)| *known == extension).map(|(_, foreign)| *foreign);
    found.or(shard.then_some(TENSORFLOW))
}

/// Recognizes an ONNX model with another extension: a version, followed by a short text or the
/// graph.
fn protobuf(head: &[u8]) -> Option<Foreign> {
    let [0x08, version @ 1..=20, field, ..] = *head else { return None };
    // A SavedModel starts with the version, 1, followed by graphs.
    let foreign = if (field, version) == (0x12, 1) { TENSORFLOW } else { ONNX };
    [0x12, 0x1a, 0x22, 0x3a, 0x42].contains(&field).then_some(foreign)
}

/// Returns the kind of a folder that contains another program's model.
pub fn folder(path: &Path) -> Option<Foreign> {
    let contains = |name: &str| path.join(name).exists();
    if contains("saved_model.pb") || contains("tf_model.h5") || contains("checkpoint") && !contains("config.json") {
        Some(TENSORFLOW)
    } else if contains("model.safetensors.index.json") || contains("pytorch_model.bin.index.json") {
        Some(INDEX)
    } else if contains("flax_model.msgpack") {
        Some(Foreign { kind: "a Flax model", advice: OTHER_RUNTIME })
    } else if contains("adapter_model.safetensors") || contains("adapter_model.bin") {
        Some(Foreign {
            kind: "a PEFT adapter, not a whole model",
            advice: "merge it into its model first: `model.merge_and_unload().save_pretrained(\"FOLDER\")`",
        })
    } else {
        None
    }
}

/// Returns the kind of another program's model in a folder without supported weights, and advice.
pub(crate) fn foreign_folder(path: &Path) -> Option<(&'static str, String)> {
    let foreign = folder(path)?;
    Some((foreign.kind, foreign.advice.replace("FILE", &path.display().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_recognized_by_content_then_by_extension() {
        for (name, head, kind) in [
            ("model.bin", &b"\x89HDF\r\n\x1a\n\0\0"[..], "Keras"),
            ("model.bin", b"\x20\0\0\0TFL3", "TensorFlow Lite"),
            ("model.onnx", b"anything", "ONNX"),
            ("model", b"\x08\x08\x12\x07pytorch", "ONNX"),
            ("saved_model", b"\x08\x01\x12\x90", "TensorFlow model"),
            ("model.ckpt.data-00000-of-00001", b"\0\0\0\0", "TensorFlow model"),
            ("model.ckpt.index", b"\0\0\0\0", "TensorFlow model"),
            ("weights.npy", b"\x93NUMPY\x01\0", "NumPy"),
            ("model.pt", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            ("weights.pth", b"<!DOCTYPE html>", "web page"),
            ("weights.pth.tar", b"\x1f\x8b\x08", "compressed"),
            ("model.gguf", b"GGUF\x03", "GGUF"),
        ] {
            let found = by_content(Path::new(name), head).map(|foreign| foreign.kind);
            assert!(found.is_some_and(|found| found.contains(kind)), "{name}: {found:?}");
        }
        assert_eq!(by_content(Path::new("weights.pth"), b"nothing known"), None);
        assert_eq!(by_content(Path::new("weights"), b""), None);
    }

    #[test]
    fn zip_archives_are_recognized_by_their_members() {
        for (members, kind) in [
            (&["m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"][..], Some("TorchScript")),
            (&["archive_format", "models/model.json"], Some("torch.export")),
            (&["config.json", "model.weights.h5"], Some("Keras")),
            (&["arr_0.npy"], Some("NumPy")),
            (&["archive/data.pkl", "archive/data/0"], None),
            (&["photo.jpg"], Some("archive")),
        ] {
            let found = by_members(Path::new("file.pt"), members.iter().copied()).map(|foreign| foreign.kind);
            match kind {
                None => assert_eq!(found, None),
                Some(kind) => assert!(found.is_some_and(|found| found.contains(kind)), "{members:?}: {found:?}"),
            }
        }
    }
}
