//! The README of a model folder: a model card of the Hugging Face hub.

use std::fmt::Write;
use std::path::Path;

use mbconv_files::text::visible_name;
use mbconv_image::{Interpolation, Preprocess, ResizeMode, mean_color};
use mbconv_nets::{Family, Padding, Summary};
use serde_json::Value;

use super::library::{Library, WEIGHTS, last_part};
use crate::model_file::{ModelCard, Results};

/// Number of class names to list.
const LISTED: usize = 200;

/// Returns the text for a model with `card` in `folder`.
pub(super) fn text(card: &ModelCard, library: Library, folder: &Path) -> String {
    let path = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
    let name = path.file_name().map_or("model".into(), |name| visible_name(&name.to_string_lossy()).into_owned());
    let mut text = front_matter(card, library);
    let _ = writeln!(text, "# {name}\n\n{}", network(card));
    let sections = [
        ("Classes", Some(classes(card))),
        ("Preprocessing", Some(preprocessing(&card.preprocess, library))),
        ("Training", training(card)),
        ("Evaluation", card.results.as_ref().map(|results| evaluation(results, card.classes.len()))),
        ("Intended use", Some(intended_use(card))),
        ("How to use", Some(usage(library, &name, card))),
        ("License", Some("Not stated. Add `license:` to the front matter of this file before publishing it.".into())),
    ];
    for (title, section) in sections {
        if let Some(section) = section {
            let _ = writeln!(text, "\n## {title}\n\n{}", section.trim_end());
        }
    }
    text
}

/// Returns the YAML header that the hub reads.
fn front_matter(card: &ModelCard, library: Library) -> String {
    let name = library.name();
    let family = match card.architecture.architecture().map(|network| network.family) {
        Ok(Family::MobileNetV2) => "mobilenet_v2",
        _ => "efficientnet",
    };
    let metrics = if card.results.is_some() { "metrics:\n- accuracy\n" } else { "" };
    format!(
        "---\nlibrary_name: {name}\npipeline_tag: image-classification\ntags:\n- image-classification\n- {name}\n- \
         {family}\n- mbconv\n{metrics}---\n\n"
    )
}

/// Describes the network.
fn network(card: &ModelCard) -> String {
    let title = card.architecture.title();
    let Ok(network) = card.architecture.architecture() else { return title };
    let parameters = Summary::new(&network, card.preprocess.crop.sides()).map_or(0, |summary| summary.parameters);
    let padding = match network.layer_options.padding {
        Padding::Same => "TensorFlow's (SAME)",
        Padding::Symmetric => "symmetric",
    };
    format!(
        "An image classifier with {} classes: {title} with {:.2} million parameters, {padding} padding and batch-norm's \
         epsilon {}, for images of {side:#} pixels with {} channel{}.",
        network.num_classes,
        parameters as f64 / 1e6,
        network.layer_options.norm_epsilon,
        network.input_channels,
        if network.input_channels == 1 { "" } else { "s" },
        side = card.preprocess.crop,
    )
}

/// Lists the class names, in the order of the outputs.
fn classes(card: &ModelCard) -> String {
    let names: Vec<String> = card.classes.iter().take(LISTED).map(|name| code(name)).collect();
    let rest = card.classes.len().saturating_sub(LISTED);
    let more = if rest > 0 { format!(", and {rest} more in `config.json`") } else { String::new() };
    let several = match card.multi_label {
        None => "",
        Some(_) => " An image may have any number of them: each output is the logit of a sigmoid probability.",
    };
    format!("In the order of the outputs: {}{more}.{several}", names.join(", "))
}

/// Formats a name as code in Markdown.
fn code(name: &str) -> String {
    format!("`{}`", visible_name(name).replace('`', "'"))
}

fn preprocessing(preprocess: &Preprocess, library: Library) -> String {
    let Preprocess { resize, crop, mean, std, .. } = preprocess;
    let sides = match (preprocess.resize_mode, resize.is_square()) {
        (ResizeMode::Shorter, true) => "the shorter side to",
        (ResizeMode::Shorter, false) => "with the aspect ratio to cover",
        (ResizeMode::Squash, _) => "both sides to",
        (ResizeMode::Letterbox, true) => "the longer side to",
        (ResizeMode::Letterbox, false) => "with the aspect ratio to fit into",
    };
    let padding = match preprocess.resize_mode {
        ResizeMode::Letterbox => format!(", padded with the color {:?}", mean_color(preprocess.mean)),
        _ => String::new(),
    };
    let note = library.preprocessing_note(preprocess).map_or(String::new(), |note| format!("\n\nNote: {note}."));
    let kernel = match preprocess.interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
        Interpolation::Nearest => "nearest",
    };
    let (color, mean, std) = match preprocess.channels {
        1 => ("gray", format!("{}", mean[0]), format!("{}", std[0])),
        _ => ("RGB", format!("{mean:?}"), format!("{std:?}")),
    };
    format!(
        "1. Convert to {color}.\n2. Resize {sides} {resize} pixels ({kernel}, with antialiasing).\n3. Crop the center, \
         {crop:#} pixels{padding}.\n4. Scale to 0…1, subtract the mean {mean} and divide by the standard deviation \
         {std}.{note}"
    )
}

/// Describes the training, if the model contains its recipe.
fn training(card: &ModelCard) -> Option<String> {
    let recipe = card.recipe.as_ref()?;
    let path = |pointer: &str| Some(code(last_part(recipe.pointer(pointer)?.as_str()?)));
    let mut text = format!("Trained with [mbconv]({})", env!("CARGO_PKG_REPOSITORY"));
    if let Some(data) = path("/data/path") {
        let _ = write!(text, " on the data set {data}");
    }
    if let Some(weights) = path("/finetune/weights") {
        let _ = write!(text, ", starting from {weights}");
    }
    let setting = |pointer: &str| recipe.pointer(pointer).filter(|value| !value.is_null()).map(plain);
    let settings = [
        ("epochs", "/epochs"),
        ("batch size", "/batch_size"),
        ("optimizer", "/optimizer/name"),
        ("learning rate", "/optimizer/learning_rate"),
        ("image size", "/input/size"),
    ];
    let listed = settings.iter().filter_map(|(name, pointer)| Some(format!("{name} {}", setting(pointer)?)));
    let listed: Vec<String> = listed.collect();
    let averaged = if card.averaged { " The weights are a moving average." } else { "" };
    let _ = write!(text, ": {}.{averaged} `{WEIGHTS}` contains the whole recipe in its metadata.", listed.join(", "));
    Some(text)
}

/// Formats a value without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

fn evaluation(results: &Results, classes: usize) -> String {
    if let Results { epoch, images, loss, map: Some(map), .. } = results {
        return format!(
            "On {images} validation images, after epoch {epoch}:\n\n| metric | value |\n|---|---|\n| mean average \
             precision | {:.2} % |\n| binary cross-entropy | {loss:.4} |\n\nThese images also selected the epoch, so the \
             results on others may be slightly lower.",
            100.0 * map
        );
    }
    let Results { epoch, top1, top5, loss, images, .. } = results;
    let top5 = if classes > 5 { format!("| top-5 accuracy | {:.2} % |\n", 100.0 * top5) } else { String::new() };
    format!(
        "On {images} validation images, after epoch {epoch}:\n\n| metric | value |\n|---|---|\n| top-1 accuracy | {:.2} % \
         |\n{top5}| cross-entropy | {loss:.4} |\n\nThese images also selected the epoch, so the accuracy on others may be \
         slightly lower.",
        100.0 * top1
    )
}

fn intended_use(card: &ModelCard) -> String {
    format!(
        "Classification of images like those of the training data into the {} classes above. The model also gives \
         probabilities for images of anything else, which mean nothing. Measure its accuracy on images of your own \
         before relying on it: `mbconv eval FOLDER --data IMAGES`.",
        card.classes.len()
    )
}

/// Returns the code that loads the folder.
fn usage(library: Library, name: &str, card: &ModelCard) -> String {
    let color = if card.preprocess.channels == 1 { "L" } else { "RGB" };
    let names = match library {
        Library::Timm => "model.pretrained_cfg[\"label_names\"]",
        Library::Transformers => "model.config.id2label",
    };
    // The names of multi-label models are printed with their probabilities.
    let result = match (&card.multi_label, library) {
        (None, _) => format!("{names}[logits.argmax().item()]"),
        (Some(_), Library::Timm) => format!("dict(zip({names}, logits[0].sigmoid().tolist()))"),
        (Some(_), Library::Transformers) => format!("dict(zip({names}.values(), logits[0].sigmoid().tolist()))"),
    };
    let python = match library {
        Library::Timm => format!(
            "import timm\nfrom PIL import Image\n\nmodel = timm.create_model({:?}, \
             pretrained=True).eval()  # or hf-hub:OWNER/NAME\ntransform = \
             timm.data.create_transform(**timm.data.resolve_model_data_config(model))\nlogits = \
             model(transform(Image.open(\"photo.jpg\").convert(\"{color}\")).unsqueeze(0))\n\
             print({result})",
            format!("local-dir:{name}")
        ),
        Library::Transformers => format!(
            "from PIL import Image\nfrom transformers import AutoImageProcessor, \
             AutoModelForImageClassification\n\nprocessor = AutoImageProcessor.from_pretrained({name:?})  # or \
             OWNER/NAME\nmodel = AutoModelForImageClassification.from_pretrained({name:?})\nimages = \
             processor(Image.open(\"photo.jpg\").convert(\"{color}\"), return_tensors=\"pt\")\n\
             logits = model(**images).logits\nprint({result})"
        ),
    };
    format!(
        "With {}:\n\n```python\n{python}\n```\n\nWith mbconv:\n\n```sh\nmbconv predict {} photo.jpg   # or \
         hf:OWNER/NAME\n```",
        library.name(),
        mbconv_files::shell::quoted(name)
    )
}
