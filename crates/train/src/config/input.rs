//! `[input]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults;
use super::error::{RecipeError, ensure};
use mbconv_data::{
    Crop, IMAGENET_MEAN, IMAGENET_STD, ImageSize, Interpolation, Preprocess, Progressive, ResizeMode, TrainTransform,
    mean_color,
};
use mbconv_interop::model_file::MAX_RECIPE_SIDE;

/// Largest aspect ratio of crops.
pub(crate) const MAX_RATIO: f64 = 100.0;

/// `[input]`: size of the network input in pixels, cropping and normalization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputConfig {
    /// Size of training images.
    #[schemars(with = "SizeValue")]
    pub size: ImageSize,
    /// Use smaller training images in the first epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progressive: Option<ProgressiveConfig>,
    /// Method of cropping training images.
    #[serde(default)]
    pub crop: CropKind,
    /// Range of the crop's share of the image area for `crop = "random_resized"`.
    #[serde(default = "default_scale")]
    #[schemars(extend("items" = { "type": "number", "exclusiveMinimum": 0, "maximum": 1 }, "x-rising" = true))]
    pub scale: [f64; 2],
    /// Range of the crop's aspect ratio (width/height) for `crop = "random_resized"`. It does not
    /// follow the shape of a rectangular `size`, as in torchvision and timm.
    #[serde(default = "default_ratio")]
    #[schemars(extend("items" = { "type": "number", "exclusiveMinimum": 0, "maximum": MAX_RATIO }, "x-rising" = true))]
    pub ratio: [f64; 2],
    /// Zero padding on each side before the random crop for `crop = "pad"`.
    #[serde(default = "default_padding")]
    pub padding: usize,
    /// Probability of a horizontal flip.
    #[serde(default = "defaults::half")]
    #[schemars(range(min = 0, max = 1))]
    pub horizontal_flip: f64,
    /// Filter of all resizing.
    #[serde(default = "bilinear")]
    pub interpolation: Interpolation,
    /// Size of the center crop in evaluation; `size` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SizeValue>")]
    pub eval_size: Option<ImageSize>,
    /// Size to which images are resized before the crop in evaluation: the length of the shorter
    /// side, or a rectangle that images cover, both for `resize_mode = "shorter"`; `eval_size` by
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SizeValue>")]
    pub eval_resize: Option<ImageSize>,
    /// Sides that are resized: in evaluation to `eval_resize`. In training, only `"letterbox"`
    /// matters: `crop = "centre"` and `"pad"` then fit the whole image into `size`, and
    /// `"random_resized"` fits the crop instead of stretching it.
    #[serde(default, skip_serializing_if = "is_shorter")]
    #[schemars(extend("default" = ResizeMode::default()))]
    pub resize_mode: ResizeMode,
    /// Mean of each channel for values in [0, 1]; ImageNet's by default.
    #[serde(default = "imagenet_mean")]
    pub mean: [f32; 3],
    /// Standard deviation of each channel; ImageNet's by default.
    #[serde(default = "imagenet_std")]
    #[schemars(extend("items" = { "type": "number", "format": "float", "exclusiveMinimum": 0 }))]
    pub std: [f32; 3],
}

/// The values of sizes.
#[derive(JsonSchema)]
#[serde(untagged)]
// Only the schema is used.
#[allow(dead_code)]
enum SizeValue {
    /// Side of a square.
    Square(#[schemars(range(min = 1, max = MAX_RECIPE_SIDE))] usize),
    /// Height and width of a rectangle.
    Rectangle(
        #[schemars(extend("items" = { "type": "integer", "minimum": 1, "maximum": MAX_RECIPE_SIDE }))] [usize; 2],
    ),
}

/// `[input.progressive]`: training images that grow from `start` to `input.size` (Tan and Le 2021).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgressiveConfig {
    /// Size in the first epochs: the length of the shorter side if `input.size` is a rectangle. The
    /// longer side is in proportion.
    #[schemars(range(min = 1))]
    pub start: usize,
    /// Number of sizes, including the first and the full size. Each is used for an equal number of
    /// epochs.
    #[serde(default = "default_stages")]
    #[schemars(range(min = 1))]
    pub stages: usize,
    /// Fraction of the epochs that the stages take together. The remaining epochs use the full
    /// size.
    #[serde(default = "defaults::one")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub until: f64,
}

/// Methods of cropping training images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CropKind {
    /// Crop of random area and aspect ratio, as in torchvision's `RandomResizedCrop`; for
    /// photographs.
    #[default]
    RandomResized,
    /// Zero padding and a random crop; for small images.
    Pad,
    /// Resizing and a center crop.
    Centre,
}

fn default_scale() -> [f64; 2] {
    [0.08, 1.0]
}
fn default_ratio() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}
fn default_stages() -> usize {
    4
}
fn default_padding() -> usize {
    4
}
fn bilinear() -> Interpolation {
    Interpolation::Bilinear
}
fn is_shorter(mode: &ResizeMode) -> bool {
    *mode == ResizeMode::Shorter
}
fn imagenet_mean() -> [f32; 3] {
    IMAGENET_MEAN
}
fn imagenet_std() -> [f32; 3] {
    IMAGENET_STD
}

impl InputConfig {
    /// Returns the default settings for images of `size`.
    pub fn of_size(size: impl Into<ImageSize>) -> Self {
        Self {
            size: size.into(),
            progressive: None,
            crop: CropKind::default(),
            scale: default_scale(),
            ratio: default_ratio(),
            padding: default_padding(),
            horizontal_flip: defaults::half(),
            interpolation: bilinear(),
            eval_size: None,
            eval_resize: None,
            resize_mode: ResizeMode::default(),
            mean: imagenet_mean(),
            std: imagenet_std(),
        }
    }

    pub(super) fn check(&self, epochs: usize) -> Result<(), RecipeError> {
        let shorter = self.size.shorter();
        ensure(self.padding <= shorter, "input.padding", self.padding, &format!("at most input.size ({shorter})"))?;
        if let Some(ProgressiveConfig { start, stages, .. }) = self.progressive {
            ensure(start <= shorter, "input.progressive.start", start, &format!("at most input.size ({shorter})"))?;
            ensure(stages <= epochs, "input.progressive.stages", stages, &format!("at most epochs ({epochs})"))?;
        }
        Ok(())
    }

    fn eval_size(&self) -> ImageSize {
        self.eval_size.unwrap_or(self.size)
    }

    fn eval_resize(&self) -> ImageSize {
        self.eval_resize.unwrap_or(self.eval_size())
    }

    /// Returns the transform of training images, without augmentation, for a run of `epochs`
    /// epochs.
    pub fn train_transform(&self, epochs: usize) -> TrainTransform {
        let Self { size, crop, scale, ratio, padding, horizontal_flip, interpolation, .. } = *self;
        let letterbox = (self.resize_mode == ResizeMode::Letterbox).then(|| mean_color(self.mean));
        let crop = match crop {
            CropKind::RandomResized => Crop::RandomResized { scale: scale.into(), ratio: ratio.into() },
            CropKind::Pad => Crop::PadAndCrop { padding },
            CropKind::Centre => Crop::Center,
        };
        let progressive = self.progressive.map(|ProgressiveConfig { start, stages, until }| Progressive {
            start,
            stages,
            epochs: (until * epochs as f64).ceil() as usize,
        });
        TrainTransform {
            size,
            interpolation,
            letterbox,
            crop,
            horizontal_flip,
            progressive,
            ..TrainTransform::default()
        }
    }

    /// Returns the preprocessing for evaluation, which is also stored in the model file.
    pub fn preprocess(&self) -> Preprocess {
        Preprocess {
            resize_mode: self.resize_mode,
            resize: self.eval_resize(),
            crop: self.eval_size(),
            interpolation: self.interpolation,
            mean: self.mean,
            std: self.std,
            ..Preprocess::default()
        }
    }
}
