//! Damaged and malicious model files give an error or a model, without panics or large allocations.

use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::Device;
use mbconv_image::Preprocess;
use mbconv_interop::model_file::{Model, ModelCard, ModelError};
use mbconv_nets::NetworkOptions;
use mbconv_nets::weights::{Precision, WeightsError};
use proptest::prelude::*;

/// Returns a small model file.
fn whole() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let options = NetworkOptions::new("mobilenet_v2_0.1", 2);
        let network = options.architecture().unwrap().init(&Device::default());
        let preprocess = Preprocess { resize: 8.into(), crop: 8.into(), ..Preprocess::default() };
        let card = ModelCard::new(options, vec!["a".into(), "b".into()], preprocess);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        Model::save(&network, &card, Precision::F16, &path).unwrap();
        std::fs::read(path).unwrap()
    })
}

fn open(bytes: &[u8]) -> Result<Model, ModelError> {
    Model::from_bytes(bytes, Path::new("model.safetensors"), &Device::default())
}

/// Returns the header and the bytes after it.
fn split() -> (String, &'static [u8]) {
    let length = u64::from_le_bytes(whole()[..8].try_into().unwrap()) as usize;
    (String::from_utf8(whole()[8..8 + length].to_vec()).unwrap(), &whole()[8 + length..])
}

fn joined(header: &str, body: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), body].concat()
}

#[test]
fn invalid_image_sizes_are_rejected() {
    let (header, body) = split();
    for (key, size, words) in [
        ("crop", "8192", "`preprocess.crop` is 8192 pixels"),
        ("resize", "2049", "`preprocess.resize` is 2049 pixels"),
        ("crop", "[8,2049]", "`preprocess.crop` is 2049 pixels"),
        ("crop", "0", "invalid preprocessing"),
        ("resize", "[8,0]", "invalid preprocessing"),
        ("crop", "[8,8,8]", "expected a size in pixels"),
        ("crop", "[8,-8]", "invalid value"),
    ] {
        let changed = header.replace(&format!("\\\"{key}\\\":8"), &format!("\\\"{key}\\\":{size}"));
        assert_ne!(changed, header);
        let error = open(&joined(&changed, body)).unwrap_err().to_string();
        assert!(error.contains(words), "{key} {size}: {error}");
    }
}

#[test]
fn unchanged_model_opens() {
    assert!(open(whole()).is_ok());
    let (header, body) = split();
    assert_eq!(joined(&header, body), whole());
}

#[test]
fn impossible_sizes_are_rejected_without_allocation() {
    let (header, body) = split();
    let mut claims = whole().to_vec();
    claims[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(matches!(open(&claims), Err(ModelError::Weights { source: WeightsError::Format(_), .. })));
    // A network of gigabytes in a file of kilobytes is rejected before the network is allocated.
    let names: Vec<String> = (0..1_000_000).map(|_| "\\\"\\\"".into()).collect();
    let large = header
        .replace("mobilenet_v2_0.1", "efficientnet_b7")
        .replace("\\\"classes\\\":2", "\\\"classes\\\":1000000")
        .replace("[\\\"a\\\",\\\"b\\\"]", &format!("[{}]", names.join(",")));
    assert_ne!(large.len(), header.len());
    let start = std::time::Instant::now();
    let error = open(&joined(&large, body)).unwrap_err();
    assert!(matches!(error, ModelError::Weights { source: WeightsError::Missing { .. }, .. }), "{error}");
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    // Preprocessing to terabytes of pixels.
    let huge = header.replace("\\\"crop\\\":8", "\\\"crop\\\":8000000");
    assert!(matches!(open(&joined(&huge, body)), Err(ModelError::Card { .. })));
}

#[test]
fn wrong_keys_types_and_values_are_named() {
    let (header, body) = split();
    let message = |header: &str, body: &[u8]| open(&joined(header, body)).unwrap_err().to_string();
    let renamed = header.replace("features.0.0.weight", "features.0.0.weigth");
    assert!(message(&renamed, body).contains("`features.0.0.weight`"));
    let typed = header.replace("\"F16\"", "\"I16\"");
    assert!(message(&typed, body).contains("type I16"));
    // All bits set is NaN in half precision.
    assert!(message(&header, &vec![0xff; body.len()]).contains("not finite"));
    assert!(message(&header.replace("mobilenet_v2_0.1", "resnet50"), body).contains("resnet50"));
    // Changes a 1 in half precision to -1.
    let key = "features.3.conv.1.1.running_var";
    let at = header.find(&format!("\"{key}\"")).unwrap();
    let offsets = &header[at + header[at..].find("data_offsets\":[").unwrap() + 15..];
    let start: usize = offsets.split(',').next().unwrap().parse().unwrap();
    let mut negative = body.to_vec();
    negative[start + 1] |= 0x80;
    assert_eq!(
        message(&header, &negative),
        format!("the model model.safetensors: `{key}` has a negative value, which no variance can have")
    );
}

#[test]
fn weights_of_other_libraries_suggest_import() {
    let (header, body) = split();
    let hint = |bytes: &[u8]| open(bytes).unwrap_err().hint().unwrap();
    let foreign = joined(&header.replace("\"mbconv\":", "\"nobody\":"), body);
    let zip = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import/zip.pth")).unwrap();
    for bytes in [foreign, zip] {
        assert!(hint(&bytes).contains("`mbconv import model.safetensors MODEL.safetensors`"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_give_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(open(&bytes).is_err());
    }

    #[test]
    fn truncated_files_give_an_error(part in 0.0f64..1.0) {
        prop_assert!(open(&whole()[..(part * whole().len() as f64) as usize]).is_err());
    }

    #[test]
    fn changed_bytes_give_an_error_or_a_model(changes in proptest::collection::vec((any::<u32>(), any::<u8>()), 1..8)) {
        // Most changes are in the header.
        let (header, _) = split();
        let mut bytes = whole().to_vec();
        for (at, value) in changes {
            bytes[at as usize % (8 + header.len() + 100)] = value;
        }
        let _ = open(&bytes);
    }

    #[test]
    fn moved_pieces_of_the_header_give_an_error_or_a_model(from in any::<u32>(), length in 1u32..400, to in any::<u32>()) {
        let (header, body) = split();
        let at = |index: u32| index as usize % header.len();
        let (from, to) = (at(from), at(to));
        let piece: String = header.chars().skip(from).take(length as usize).collect();
        let moved = format!("{}{piece}{}", &header[..to], &header[to..]);
        let _ = open(&joined(&moved, body));
    }
}
