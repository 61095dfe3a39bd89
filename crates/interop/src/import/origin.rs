//! Descriptions of imported weights for the user.

use mbconv_image::Preprocess;
use mbconv_nets::{Layout, NetworkOptions};

use crate::import::error::LISTED;
use crate::import::keys::Classifier;
use crate::import::state::StateFile;

/// Describes network, source and preprocessing of imported weights.
pub fn describe(
    layout: Layout,
    options: &NetworkOptions,
    file: &StateFile,
    preprocess: &Preprocess,
    preset: &str,
) -> String {
    let source = match layout {
        Layout::Torchvision => "torchvision's",
        Layout::Timm => "timm's",
        Layout::Lukemelas => "lukemelas/EfficientNet-PyTorch's",
        Layout::HuggingFace => "Hugging Face transformers'",
        Layout::Flat => "d-li14/mobilenetv2.pytorch's",
    };
    let NetworkOptions { name, num_classes, .. } = options;
    let found = file.found.as_ref();
    let key = file.checkpoint_key.as_ref().map(|key| format!(" (`{key}` of a checkpoint)")).unwrap_or_default();
    let prefix = found.map(|found| found.prefix.as_str()).filter(|prefix| !prefix.is_empty());
    let prefix = prefix.map(|prefix| format!(", prefix `{prefix}`")).unwrap_or_default();
    let classes = format!(" with {num_classes} classes");
    let (classes, head) = match found.map(|found| &found.classifier) {
        Some(Classifier::Renamed(key)) => (classes, format!(", classifier `{key}`")),
        Some(Classifier::Missing) => (String::new(), ", without a classifier".into()),
        Some(Classifier::Several(layers)) => {
            (String::new(), format!(", without its classifier of several layers ({})", layers.join(", ")))
        }
        Some(Classifier::Usual) | None => (classes, String::new()),
    };
    format!("{name}{classes} in {source} layout{key}{prefix}{head}; preprocessing {preset}: {preprocess}")
}

/// Returns a note about ignored tensors, if any.
pub fn ignored(file: &StateFile) -> Option<String> {
    let ignored = &file.found.as_ref()?.ignored;
    let listed: Vec<String> = ignored.iter().take(LISTED).map(|key| format!("`{key}`")).collect();
    let more = if ignored.len() > LISTED { ", …" } else { "" };
    (!ignored.is_empty()).then(|| format!("note: ignored tensors beside the network: {}{more}", listed.join(", ")))
}
