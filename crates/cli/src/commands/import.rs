//! `mbconv import`

use std::path::Path;
use std::sync::atomic::AtomicBool;

use mbconv_nets::weights::Precision;
use mbconv_train::data::read_text;
use mbconv_train::import::{ImportOptions, load_weights};
use mbconv_train::shell::quoted_path;
use mbconv_train::{Model, device};

use super::check_extension;
use super::fetch::resolve;
use crate::args::Import;
use crate::failure::Failure;

/// Longest file of class names.
const MAX_BYTES: u64 = 64 << 20;

pub fn run(args: Import, stop: &AtomicBool) -> Result<(), Failure> {
    let Import { file, out, arch, prefix, input_channels, classes, preprocess } = args;
    if out.is_dir() {
        let example = out.join("model.safetensors");
        return Err(Failure::new(
            format!("{} is a folder", out.display()),
            format!("name the file to write, such as {}", quoted_path(example)),
        ));
    }
    check_extension(&out, "a model file", &["safetensors"])?;
    let classes = classes.as_deref().map(class_names).transpose()?;
    let file = resolve(&file, stop)?;
    let options = ImportOptions { arch, preprocess, prefix, without_classifier: classes.is_some() };
    let loaded = load_weights(&file, &options, &device::parse("cpu")?)?;
    if loaded.origin.is_empty() {
        let message = format!("{} is a model of this program already", file.display());
        return Err(Failure::new(message, "use it as it is; `mbconv export` writes it in other forms".to_string()));
    }
    eprintln!("{}", loaded.origin);
    let (model, stem) = match input_channels {
        Some(channels) => loaded.model.with_input_channels(channels)?,
        None => (loaded.model, None),
    };
    let (model, head) = match classes {
        Some(classes) if classes.len() < 2 => {
            let outputs = "a network of one output is taken for a sigmoid, of a negative and a positive class";
            return Err(Failure::new("--classes has a single name", format!("give two or more: {outputs}")));
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
    let bytes = std::fs::metadata(&out)?.len();
    eprintln!("wrote {} ({:.3} MB)", out.display(), bytes as f64 / 1e6);
    Ok(())
}

/// One name a line, by index.
fn class_names(path: &Path) -> Result<Vec<String>, Failure> {
    let unreadable = |why: String| {
        Failure::new(
            format!("cannot read the class names in {}: {why}", path.display()),
            "give a text file with one name a line, in the order of the model's outputs".to_string(),
        )
    };
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(unreadable("it is no file of names".into()));
    }
    let text = read_text(path)?;
    let names: Vec<String> = text.lines().map(|line| line.trim().to_string()).collect();
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        _ if names.is_empty() => Err(unreadable("it is empty".into())),
        _ if sorted[0].is_empty() => Err(unreadable("a line is empty".into())),
        Some(pair) => Err(unreadable(format!("`{}` stands there twice", pair[0]))),
        None => Ok(names),
    }
}
