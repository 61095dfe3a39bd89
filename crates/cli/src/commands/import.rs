//! `mbconv import`

use std::path::Path;
use std::sync::atomic::AtomicBool;

use mbconv_nets::weights::Precision;
use mbconv_train::data::read_text;
use mbconv_train::import::{ImportOptions, load_weights};
use mbconv_train::{Model, device};

use crate::args::Import;
use crate::error::CliError;
use crate::model_ref::locate;
use crate::output::{check_extension, check_is_file_name, print_written};

/// Maximum size of a file of class names in bytes.
const MAX_BYTES: u64 = 64 << 20;

pub fn run(args: Import, stop: &AtomicBool) -> Result<(), CliError> {
    let Import { file, out, arch, prefix, input_channels, classes, preprocess } = args;
    check_is_file_name(&out, "model.safetensors")?;
    check_extension(&out, "a model file", &["safetensors"])?;
    let classes = classes.as_deref().map(class_names).transpose()?;
    let file = locate(&file, stop)?;
    let options = ImportOptions { arch, preprocess, prefix, without_classifier: classes.is_some() };
    let loaded = load_weights(&file, &options, &device::parse("cpu")?)?;
    if loaded.origin.is_empty() {
        let message = format!("{} is already a model of mbconv", file.display());
        return Err(CliError::new(message, "use it directly; `mbconv export` writes other formats".to_string()));
    }
    eprintln!("{}", loaded.origin);
    let (model, stem) = match input_channels {
        Some(channels) => loaded.model.with_input_channels(channels)?,
        None => (loaded.model, None),
    };
    let (model, head) = match classes {
        Some(classes) if classes.len() < 2 => {
            let hint = "give two or more names: a network with one output has a negative and a positive class";
            return Err(CliError::new("--classes has a single name", hint.to_string()));
        }
        Some(classes) => model.with_classes(classes)?,
        None => (model, None),
    };
    let head = match loaded.without_classifier {
        true => Some(format!("the classifier is new, for {} classes: train it", model.card.classes.len())),
        false => head,
    };
    for note in [stem, head].into_iter().flatten() {
        eprintln!("{note}");
    }
    Model::save(&model.network, &model.card, Precision::F32, &out)?;
    print_written(&out)
}

/// Reads one class name per line, in the order of the outputs.
fn class_names(path: &Path) -> Result<Vec<String>, CliError> {
    let unreadable = |reason: String| {
        CliError::new(
            format!("cannot read the class names in {}: {reason}", path.display()),
            "use a text file with one name per line, in the order of the model's outputs".to_string(),
        )
    };
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(unreadable("not a regular file, or too large".into()));
    }
    let text = read_text(path)?;
    let names: Vec<String> = text.lines().map(|line| line.trim().to_string()).collect();
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        _ if names.is_empty() => Err(unreadable("the file is empty".into())),
        _ if sorted[0].is_empty() => Err(unreadable("a line is empty".into())),
        Some(pair) => Err(unreadable(format!("`{}` occurs twice", pair[0]))),
        None => Ok(names),
    }
}
