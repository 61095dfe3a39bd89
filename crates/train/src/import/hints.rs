//! What timm's and transformers' JSON files beside weights say: `config.json`, `preprocessor_config.json`.

use std::path::Path;

use serde_json::Value;

use crate::data::{CropRounding, Interpolation, Preprocess, ResizeMode};

/// Longest file that is read: class names of ImageNet-21k take two megabytes.
const MAX_BYTES: u64 = 8 << 20;

/// What was said.
#[derive(Debug, Default)]
pub struct Hints {
    /// timm's name of the network.
    pub architecture: Option<String>,
    /// timm's name with the weights' tag, such as `tf_efficientnet_b0.ap_in1k`.
    pub name: Option<String>,
    /// Class names.
    pub classes: Option<Vec<String>>,
    resize: Option<usize>,
    crop: Option<usize>,
    fraction: Option<f64>,
    interpolation: Option<Interpolation>,
    resize_mode: Option<ResizeMode>,
    crop_rounding: Option<CropRounding>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
}

impl Hints {
    /// `published` with what was said instead; nothing if nothing was said.
    pub fn preprocess(&self, published: &Preprocess) -> Option<Preprocess> {
        let crop = self.crop.unwrap_or(published.crop);
        let fraction = self.fraction.map(|fraction| (crop as f64 / fraction) as usize);
        let said = Preprocess {
            resize_mode: self.resize_mode.unwrap_or(published.resize_mode),
            crop_rounding: self.crop_rounding.unwrap_or(published.crop_rounding),
            resize: self.resize.or(fraction).unwrap_or(if self.crop.is_some() { crop } else { published.resize }),
            crop,
            interpolation: self.interpolation.unwrap_or(published.interpolation),
            mean: self.mean.unwrap_or(published.mean),
            std: self.std.unwrap_or(published.std),
            channels: published.channels,
            exif_orientation: published.exif_orientation,
            gray16: published.gray16,
        };
        (self.crop.is_some() || self.mean.is_some()).then_some(said)
    }
}

/// Reads what stands beside `weights`, `config.json` only `with_config`; files that are not there or make no sense say nothing.
pub fn beside(weights: &Path, with_config: bool) -> Hints {
    let read = |name: &str| -> Option<Value> {
        let path = weights.with_file_name(name);
        let metadata = std::fs::metadata(&path).ok().filter(|metadata| metadata.is_file());
        metadata.filter(|metadata| metadata.len() <= MAX_BYTES)?;
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    };
    let mut hints = Hints::default();
    if let Some(config) = with_config.then(|| read("config.json")).flatten() {
        hints.of_timm(&config);
        hints.classes = labels(&config["id2label"]).or_else(|| names(&config["label_names"]));
    }
    if let Some(processor) = read("preprocessor_config.json") {
        hints.of_transformers(&processor);
    }
    hints
}

impl Hints {
    fn of_timm(&mut self, config: &Value) {
        let Some(architecture) = config["architecture"].as_str() else { return };
        let pretrained = &config["pretrained_cfg"];
        self.architecture = Some(architecture.into());
        let tag = pretrained["tag"].as_str().unwrap_or_default();
        self.name = Some(format!("{architecture}.{tag}"));
        self.crop = side(&pretrained["input_size"][2]);
        self.fraction = pretrained["crop_pct"].as_f64().filter(|fraction| (0.1..=1.0).contains(fraction));
        self.interpolation = match pretrained["interpolation"].as_str() {
            Some("bilinear") => Some(Interpolation::Bilinear),
            Some("bicubic") => Some(Interpolation::Bicubic),
            Some("nearest") => Some(Interpolation::Nearest),
            _ => None,
        };
        self.resize_mode = match pretrained["crop_mode"].as_str() {
            Some("center") => Some(ResizeMode::Shorter),
            Some("squash") => Some(ResizeMode::Squash),
            _ => None,
        };
        (self.mean, self.std) = (channels(&pretrained["mean"]), channels(&pretrained["std"]).filter(positive));
    }

    fn of_transformers(&mut self, processor: &Value) {
        let edge = side(&processor["size"]["shortest_edge"]).or_else(|| side(&processor["size"]["height"]));
        let crop = side(&processor["crop_size"]["height"]).or_else(|| side(&processor["crop_size"]));
        let crops = processor["do_center_crop"].as_bool().unwrap_or(true);
        self.resize = edge;
        self.crop = if crops { crop.or(edge) } else { edge };
        let shorter = processor["size"]["shortest_edge"].is_u64();
        self.resize_mode = edge.map(|_| if shorter { ResizeMode::Shorter } else { ResizeMode::Squash });
        self.crop_rounding = Some(CropRounding::Down);
        // Pillow's numbers of its filters.
        self.interpolation = match processor["resample"].as_u64() {
            Some(0) => Some(Interpolation::Nearest),
            Some(2) => Some(Interpolation::Bilinear),
            Some(3) => Some(Interpolation::Bicubic),
            _ => None,
        };
        self.mean = channels(&processor["image_mean"]);
        self.std = channels(&processor["image_std"]).filter(positive);
        if processor["include_top"].as_bool() == Some(true) {
            // Such processors divide twice.
            self.std = self.std.map(|std| std.map(|value| value * value));
        }
    }
}

fn positive(values: &[f32; 3]) -> bool {
    values.iter().all(|&value| value > 0.0)
}

fn side(value: &Value) -> Option<usize> {
    let side = usize::try_from(value.as_u64()?).ok()?;
    (1..=8192).contains(&side).then_some(side)
}

fn channels(value: &Value) -> Option<[f32; 3]> {
    let list: Vec<f32> = value.as_array()?.iter().filter_map(|value| Some(value.as_f64()? as f32)).collect();
    // Of a grey image's one channel.
    let list = if let [only] = list[..] { vec![only; 3] } else { list };
    <[f32; 3]>::try_from(list).ok().filter(|values| values.iter().all(|value| value.is_finite()))
}

/// `{"0": "tench", …}`
fn labels(value: &Value) -> Option<Vec<String>> {
    let map = value.as_object()?;
    (0..map.len()).map(|index| Some(map.get(&index.to_string())?.as_str()?.to_string())).collect()
}

fn names(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| Some(name.as_str()?.to_string())).collect()
}
