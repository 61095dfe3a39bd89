//! The libraries, and helpers for their files.

use mbconv_image::{ImageSize, Preprocess, ResizeMode};
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
        let Preprocess { resize_mode, resize, crop, .. } = *preprocess;
        match (self, resize_mode) {
            (Self::Transformers, ResizeMode::Letterbox) => Some(
                "transformers has no letterbox: `preprocessor_config.json` squashes images to the input size; pad them \
                 to its shape with the mean color before",
            ),
            (Self::Transformers, ResizeMode::Shorter) if !resize.is_square() => Some(
                "transformers cannot keep the aspect ratio for a rectangular size: `preprocessor_config.json` squashes \
                 images; crop them to the shape of the input before",
            ),
            (Self::Timm, _) if crop_fraction(resize, crop).is_none() => Some(
                "timm resizes to the input size divided by one `crop_pct`: its images are resized to another size than \
                 those of the model; resize them before",
            ),
            _ => None,
        }
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

/// Returns the fraction of the resized image that the crop covers, such that timm's
/// `floor(crop / fraction)` is `resize`, or `None` if there is none for both sides.
pub(super) fn crop_fraction(resize: ImageSize, crop: ImageSize) -> Option<f64> {
    let [exact, exact_width] = [crop.height as f64 / resize.height as f64, crop.width as f64 / resize.width as f64];
    let rounded = (exact * 1000.0).round() / 1000.0;
    let between = crop.height as f64 / (resize.height as f64 + 0.5);
    let resized = |fraction: f64| crop.map(|side| (side as f64 / fraction) as usize);
    [rounded, exact, exact_width, between].into_iter().find(|&fraction| resized(fraction) == resize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crop_fractions_give_the_size() {
        for crop in [32, 224, 240, 260, 300, 380] {
            for resize in crop..2 * crop {
                let fraction = crop_fraction(resize.into(), crop.into()).unwrap();
                assert_eq!((crop as f64 / fraction).floor() as usize, resize);
            }
        }
        let of = |resize: [usize; 2], crop: [usize; 2]| crop_fraction(resize.into(), crop.into());
        assert_eq!((of([256; 2], [224; 2]), of([224; 2], [224; 2])), (Some(0.875), Some(1.0)));
        assert_eq!((of([192, 320], [192, 320]), of([219, 365], [192, 320])), (Some(1.0), Some(192.0 / 219.0)));
        // timm has one fraction for both sides.
        assert_eq!(of([256; 2], [192, 320]), None);
    }
}
