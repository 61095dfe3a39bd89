//! The libraries, and helpers for their files.

use mbconv_image::{Preprocess, ResizeMode};
use mbconv_nets::Layout;

/// Name of the weights in a folder.
pub(super) const WEIGHTS: &str = "model.safetensors";

/// A library that opens model folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// timm: `create_model("local-dir:FOLDER", pretrained=True)`.
    Timm,
    /// Hugging Face transformers: `AutoModelForImageClassification.from_pretrained("FOLDER")`.
    Transformers,
}

impl Library {
    /// Returns the layout of the weights' keys.
    pub fn layout(self) -> Layout {
        match self {
            Self::Timm => Layout::Timm,
            Self::Transformers => Layout::HuggingFace,
        }
    }

    /// Returns a note if the library's image processor cannot do the model's preprocessing.
    pub fn preprocessing_note(self, preprocess: &Preprocess) -> Option<&'static str> {
        let lacks = self == Self::Transformers && preprocess.resize_mode == ResizeMode::Letterbox;
        lacks.then_some(
            "transformers has no letterbox: `preprocessor_config.json` squashes images to the input size; pad them to \
             its shape with the mean color before",
        )
    }

    /// Returns the library's name in its own and the hub's spelling.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Timm => "timm",
            Self::Transformers => "transformers",
        }
    }
}

/// Returns the last part of a path.
pub(super) fn last_part(path: &str) -> &str {
    path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default()
}

/// Returns a mean or standard deviation for each input channel, with the fewest digits.
pub(super) fn per_channel(values: [f32; 3], channels: usize) -> Vec<f64> {
    let used = if channels == 3 { 3 } else { 1 };
    values.iter().take(used).map(|value| value.to_string().parse().unwrap_or_default()).collect()
}
