//! Metadata from the JSON files of timm and transformers beside weights: `config.json` and
//! `preprocessor_config.json`.

use std::path::Path;

use mbconv_nets::NetworkOptions;
use mbconv_nets::registry::TENSORFLOW;
use serde_json::Value;

use crate::model_file::MULTI_LABEL;
use mbconv_image::Interpolation;
use mbconv_image::{CropRounding, ImageSize, Preprocess, ResizeMode};

/// Maximum file size in bytes; class names of ImageNet-21k take 2 MB.
const MAX_BYTES: u64 = 8 << 20;

/// Metadata found beside the weights.
#[derive(Debug, Default)]
pub struct Hints {
    /// timm's architecture name.
    pub architecture: Option<String>,
    /// timm's name with the weights' tag, for example `tf_efficientnet_b0.ap_in1k`.
    pub name: Option<String>,
    /// Class names.
    pub classes: Option<Vec<String>>,
    /// True if timm's arguments select TensorFlow's padding.
    same_padding: bool,
    /// Epsilon of batch-norm in timm's arguments.
    epsilon: Option<f64>,
    /// transformers' configuration of the network.
    pub transformers: Option<Transformers>,
    /// The processor's configuration, without `config.json`.
    processor: Option<Value>,
    resize: Option<ImageSize>,
    crop: Option<ImageSize>,
    fraction: Option<f64>,
    interpolation: Option<Interpolation>,
    resize_mode: Option<ResizeMode>,
    crop_rounding: Option<CropRounding>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
}

impl Hints {
    /// Returns `published` with the values found instead, or `None` if neither crop nor mean was
    /// found.
    pub fn preprocess(&self, published: &Preprocess) -> Option<Preprocess> {
        let crop = self.crop.unwrap_or(published.crop);
        let fraction = self.fraction.map(|fraction| crop.map(|side| (side as f64 / fraction) as usize));
        let fraction = fraction.filter(|resize| resize.longer() <= Preprocess::MAX_SIDE);
        let preprocess = Preprocess {
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
        (self.crop.is_some() || self.mean.is_some()).then_some(preprocess)
    }
}

impl Hints {
    /// Applies timm's arguments of the network to `options`.
    pub fn apply_timm_arguments(&self, options: &mut NetworkOptions) {
        let epsilon = |options: &NetworkOptions| Some(options.architecture().ok()?.layer_options.norm_epsilon);
        let wanted = self.epsilon.or(epsilon(options));
        if self.same_padding && !options.name.starts_with(TENSORFLOW) {
            options.name = format!("{TENSORFLOW}{}", options.name);
        }
        let published = NetworkOptions { norm_epsilon: None, ..options.clone() };
        options.norm_epsilon = wanted.filter(|_| wanted != epsilon(&published));
    }
}

/// transformers' `config.json` of a MobileNetV2 or EfficientNet.
#[derive(Debug)]
pub struct Transformers {
    /// Path of the file.
    pub path: String,
    /// `model_type`.
    pub kind: String,
    config: Value,
}

impl Transformers {
    /// Applies the configuration to `options`. Returns notes for the user about differences in
    /// meaning.
    ///
    /// # Errors
    /// Key and value of an unsupported setting.
    pub fn apply(&self, options: &mut NetworkOptions) -> Result<Vec<String>, String> {
        let config = &self.config;
        let activations: &[&str] = if self.kind == "mobilenet_v2" { &["relu6"] } else { &["swish", "silu"] };
        let expected = [
            ("hidden_act", config["hidden_act"].as_str().is_none_or(|name| activations.contains(&name))),
            ("output_stride", config["output_stride"].as_u64().is_none_or(|stride| stride == 32)),
            ("pooling_type", config["pooling_type"].as_str().is_none_or(|name| name == "mean")),
            ("problem_type", config["problem_type"].as_str().is_none_or(|name| name != "regression")),
        ];
        if let Some((key, _)) = expected.into_iter().find(|(_, usual)| !usual) {
            return Err(format!("`{key}` = {}", config[key]));
        }
        let epsilon = config["layer_norm_eps"].as_f64().or_else(|| config["batch_norm_eps"].as_f64());
        if config["tf_padding"].as_bool() == Some(false) {
            let usual = options.architecture().ok().map(|network| network.layer_options.norm_epsilon);
            options.name = options.name.trim_start_matches(TENSORFLOW).into();
            options.norm_epsilon = usual;
        }
        if let Some(epsilon) = epsilon.filter(|epsilon| (0.0..1.0).contains(epsilon)) {
            let differs = options.architecture().is_ok_and(|network| network.layer_options.norm_epsilon != epsilon);
            options.norm_epsilon = if differs { Some(epsilon) } else { options.norm_epsilon };
        }
        let note = "note: its configuration has `multi_label_classification`: each class has a sigmoid probability";
        Ok(self.is_multi_label().then(|| note.into()).into_iter().collect())
    }

    /// Returns whether the model is a multi-label one.
    pub fn is_multi_label(&self) -> bool {
        self.config["problem_type"].as_str() == Some(MULTI_LABEL)
    }
}

/// Reads the files beside `weights`. Missing and invalid files are ignored.
pub fn beside(weights: &Path) -> Hints {
    let read = |name: &str| -> Option<Value> {
        let path = weights.with_file_name(name);
        let metadata = std::fs::metadata(&path).ok().filter(|metadata| metadata.is_file());
        metadata.filter(|metadata| metadata.len() <= MAX_BYTES)?;
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    };
    let mut hints = Hints { processor: read("preprocessor_config.json"), ..Hints::default() };
    if let Some(config) = read("config.json") {
        hints.read_timm(&config);
        hints.classes = labels(&config["id2label"]).or_else(|| names(&config["label_names"]));
        // transformers' wrapper of timm models uses timm's keys.
        if let Some(kind) = config["model_type"].as_str().filter(|_| hints.architecture.is_none()) {
            let path = weights.with_file_name("config.json").display().to_string();
            hints.transformers = Some(Transformers { path, kind: kind.into(), config });
        }
    }
    hints.read_processor();
    hints
}

impl Hints {
    /// Discards the contents of `config.json`, which belongs to other weights.
    pub fn ignore_config(&mut self) {
        *self = Self { processor: self.processor.take(), ..Self::default() };
        self.read_processor();
    }

    fn read_processor(&mut self) {
        if let Some(processor) = self.processor.take() {
            self.read_transformers(&processor);
            self.processor = Some(processor);
        }
    }
}

impl Hints {
    fn read_timm(&mut self, config: &Value) {
        let Some(architecture) = config["architecture"].as_str() else { return };
        let pretrained = &config["pretrained_cfg"];
        self.architecture = Some(architecture.into());
        let arguments = &config["model_args"];
        self.same_padding = arguments["pad_type"].as_str() == Some("same");
        self.epsilon = arguments["bn_eps"].as_f64().filter(|epsilon| (0.0..1.0).contains(epsilon));
        let tag = pretrained["tag"].as_str().unwrap_or_default();
        self.name = Some(format!("{architecture}.{tag}"));
        self.crop = sides(&pretrained["input_size"][1], &pretrained["input_size"][2]);
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
            Some("border") => Some(ResizeMode::Letterbox),
            _ => None,
        };
        (self.mean, self.std) = (channels(&pretrained["mean"]), channels(&pretrained["std"]).filter(positive));
    }

    fn read_transformers(&mut self, processor: &Value) {
        let edge = side(&processor["size"]["shortest_edge"]).map(ImageSize::square);
        let edge = edge.or_else(|| size(&processor["size"]));
        let crop = size(&processor["crop_size"]).or_else(|| side(&processor["crop_size"]).map(ImageSize::square));
        let crops = processor["do_center_crop"].as_bool().unwrap_or(true);
        self.resize = edge;
        self.crop = if crops { crop.or(edge) } else { edge };
        let shorter = processor["size"]["shortest_edge"].is_u64();
        self.resize_mode = edge.map(|_| if shorter { ResizeMode::Shorter } else { ResizeMode::Squash });
        self.crop_rounding = Some(CropRounding::Down);
        // Pillow's filter numbers.
        self.interpolation = match processor["resample"].as_u64() {
            Some(0) => Some(Interpolation::Nearest),
            Some(2) => Some(Interpolation::Bilinear),
            Some(3) => Some(Interpolation::Bicubic),
            _ => None,
        };
        self.mean = channels(&processor["image_mean"]);
        self.std = channels(&processor["image_std"]).filter(positive);
        if processor["do_normalize"].as_bool() == Some(false) {
            (self.mean, self.std) = (Some([0.0; 3]), Some([1.0; 3]));
        } else if processor["include_top"].as_bool() == Some(true) {
            // Such processors divide by the standard deviation twice.
            self.std = self.std.map(|std| std.map(|value| value * value));
        }
        self.rescale(processor);
    }

    /// Converts mean and standard deviation to pixels in 0..1, if the processor uses another range.
    fn rescale(&mut self, processor: &Value) {
        let factor = match processor["do_rescale"].as_bool() {
            Some(false) => 1.0,
            _ => processor["rescale_factor"].as_f64().filter(|factor| *factor > 0.0).unwrap_or(1.0 / 255.0),
        };
        let offset = if processor["rescale_offset"].as_bool() == Some(true) { 1.0 } else { 0.0 };
        // (255 factor x - offset - mean) / std
        let scale = (255.0 * factor) as f32;
        if (scale - 1.0).abs() > 1e-6 || offset != 0.0 {
            self.mean = self.mean.map(|mean| mean.map(|value| (value + offset) / scale));
            self.std = self.std.map(|std| std.map(|value| value / scale));
        }
    }
}

fn positive(values: &[f32; 3]) -> bool {
    values.iter().all(|&value| value > 0.0)
}

fn side(value: &Value) -> Option<usize> {
    let side = usize::try_from(value.as_u64()?).ok()?;
    (1..=Preprocess::MAX_SIDE).contains(&side).then_some(side)
}

fn sides(height: &Value, width: &Value) -> Option<ImageSize> {
    Some(ImageSize { height: side(height)?, width: side(width)? })
}

/// Parses a size of the form `{"height": 192, "width": 320}`. A missing width equals the height.
fn size(value: &Value) -> Option<ImageSize> {
    sides(&value["height"], value.get("width").unwrap_or(&value["height"]))
}

fn channels(value: &Value) -> Option<[f32; 3]> {
    let list: Vec<f32> = value.as_array()?.iter().filter_map(|value| Some(value.as_f64()? as f32)).collect();
    // The single channel of a gray image.
    let list = if let [only] = list[..] { vec![only; 3] } else { list };
    <[f32; 3]>::try_from(list).ok().filter(|values| values.iter().all(|value| value.is_finite()))
}

/// Parses labels of the form `{"0": "tench", …}`.
fn labels(value: &Value) -> Option<Vec<String>> {
    let map = value.as_object()?;
    (0..map.len()).map(|index| Some(map.get(&index.to_string())?.as_str()?.to_string())).collect()
}

fn names(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| Some(name.as_str()?.to_string())).collect()
}
