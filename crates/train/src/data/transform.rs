//! Image transforms for training and evaluation.

use std::fmt;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::augment::{Augmentation, Operation, Plan, Sampling};
use super::fast::{Scratch, square};
use super::jpeg::Jpeg;
use super::resize::{Region, crop, filter, resize, resize_region};
use super::{DataError, Decoding, Gray16, Interpolation, RgbPixels};

/// Mean of the ImageNet images' RGB channels, which most published networks subtract.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of the ImageNet images' RGB channels.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Evaluation preprocessing, as stored in a model file: resizes the image to `resize`, crops the
/// central `crop`×`crop` pixels (black beyond the image), and computes `(x / 255 - mean) / std` on
/// the device.
///
/// Sizes and positions are rounded as in torchvision's `Resize(int)` and `CenterCrop`. Pixels equal
/// Pillow's `resize`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// The sides that are resized to `resize` pixels.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resize_mode: ResizeMode,
    /// Length of the shorter side, or of both sides, after resizing, in pixels; positive.
    pub resize: usize,
    /// Side of the center crop in pixels; positive.
    pub crop: usize,
    /// Position of the center crop if the margins cannot be equal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub crop_rounding: CropRounding,
    /// Interpolation kernel.
    pub interpolation: Interpolation,
    /// Input channels of the network. 3: red, green and blue. 1: gray, weighted as in Pillow's
    /// `convert("L")` and normalized with the first mean and standard deviation. Images support no
    /// other number.
    #[serde(default = "three", skip_serializing_if = "is_three")]
    pub channels: usize,
    /// Means of red, green and blue in 0..1, subtracted first.
    pub mean: [f32; 3],
    /// Standard deviations of red, green and blue; divisors after subtracting the mean.
    pub std: [f32; 3],
    /// Applies the EXIF orientation first; torchvision does not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exif_orientation: bool,
    /// Conversion of gray images of more than 8 bits to 8 bits.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gray16: Gray16,
}

impl Preprocess {
    /// Maximum side in pixels that a model or another program's configuration may request. The
    /// largest of a published network is 800. Recipes are not limited.
    pub const MAX_SIDE: usize = 2048;
}

/// The sides of an image that are resized to a given length.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// Resizes the shorter side and keeps the aspect ratio.
    #[default]
    Shorter,
    /// Resizes both sides, squashing the image to a square.
    Squash,
}

/// Rounding of half pixels in the position of a center crop.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum CropRounding {
    /// To even: torchvision, timm.
    #[default]
    Even,
    /// Down, to the upper left: Hugging Face transformers.
    Down,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn three() -> usize {
    3
}

fn is_three(value: &usize) -> bool {
    *value == 3
}

impl Default for Preprocess {
    /// ImageNet defaults: resize to 256, crop 224, bilinear.
    fn default() -> Self {
        Self {
            resize_mode: ResizeMode::default(),
            resize: 256,
            crop: 224,
            crop_rounding: CropRounding::default(),
            interpolation: Interpolation::Bilinear,
            channels: three(),
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
            exif_orientation: false,
            gray16: Gray16::default(),
        }
    }
}

impl Preprocess {
    /// Returns the exact decoding with these EXIF and 16-bit settings.
    pub fn decoding(&self) -> Decoding {
        Decoding { exif_orientation: self.exif_orientation, gray16: self.gray16, ..Decoding::default() }
    }

    /// Resizes and crops to `crop`×`crop` pixels, without normalization.
    pub fn apply(&self, image: RgbPixels) -> RgbPixels {
        let side = self.resize.max(1);
        let size = match self.resize_mode {
            ResizeMode::Shorter => shorter_side(image.width, image.height, side),
            ResizeMode::Squash => (side, side),
        };
        centre(&image, size, self.crop, self.interpolation, self.crop_rounding)
    }

    /// Sets the number of input channels. A single channel is normalized with the average of the
    /// three means and of the three standard deviations.
    pub fn with_channels(self, channels: usize) -> Self {
        // Keep equal values bit-identical.
        let average = |[red, green, blue]: [f32; 3]| {
            if red == green && green == blue { [red; 3] } else { [(red + green + blue) / 3.0; 3] }
        };
        match channels {
            1 => Self { channels, mean: average(self.mean), std: average(self.std), ..self },
            _ => Self { channels, ..self },
        }
    }

    /// Checks that the network's input channels fit images.
    ///
    /// # Errors
    /// The number of channels is neither 1 nor 3.
    pub fn takes_pictures(&self) -> Result<(), DataError> {
        match self.channels {
            1 | 3 => Ok(()),
            channels => Err(DataError::Channels { channels }),
        }
    }
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { resize_mode, resize, crop, interpolation, channels, mean, std, exif_orientation, gray16, .. } = self;
        let mode = if *resize_mode == ResizeMode::Squash { "squash to" } else { "resize" };
        let kernel = format!("{interpolation:?}").to_lowercase();
        let grey = if *channels == 1 { "grey, " } else { "" };
        let turned = if *exif_orientation { "turned by EXIF, " } else { "" };
        let scaled = match gray16 {
            Gray16::Clip => "",
            Gray16::Image => "16-bit gray scaled by the image's range, ",
            Gray16::Full => "16-bit gray scaled by its full range, ",
        };
        write!(f, "{turned}{scaled}{grey}{mode} {resize} ({kernel}), crop {crop}, mean {mean:?}, std {std:?}")
    }
}

/// Cropping of training images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crop {
    /// A rectangle of random area and aspect ratio, resized to the square: torchvision's
    /// `RandomResizedCrop`.
    RandomResized {
        /// Minimum and maximum fraction of the image's area.
        scale: (f64, f64),
        /// Minimum and maximum aspect ratio, width over height.
        ratio: (f64, f64),
    },
    /// A random square of the image with a black border, after resizing the shorter side to the
    /// square's: torchvision's `RandomCrop(size, padding)`.
    PadAndCrop {
        /// Width of the border, in pixels.
        padding: usize,
    },
    /// The center square, after resizing the shorter side to it.
    Centre,
}

/// The training transform. All randomness comes from the given generator.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainTransform {
    /// Side of the output square in pixels; positive.
    pub size: usize,
    /// Interpolation kernel.
    pub interpolation: Interpolation,
    /// Cropping.
    pub crop: Crop,
    /// Probability of a horizontal flip.
    pub horizontal_flip: f64,
    /// Smaller image sizes in the first epochs.
    pub progressive: Option<Progressive>,
    /// Augmentation after crop and flip.
    pub augmentation: Augmentation,
    /// Only crops, and returns the remaining operations as a plan.
    pub deferred: bool,
}

impl Default for TrainTransform {
    /// Center crop of 224×224 pixels without augmentation.
    fn default() -> Self {
        Self {
            size: 224,
            interpolation: Interpolation::Bilinear,
            crop: Crop::Centre,
            horizontal_flip: 0.0,
            progressive: None,
            augmentation: Augmentation::default(),
            deferred: false,
        }
    }
}

/// Progressive resizing (Tan and Le 2021): the side grows from `start` to the full size in equal
/// steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progressive {
    /// Side in the first stage, in pixels.
    pub start: usize,
    /// Number of sizes, including the first and the full size; all stages are equally long.
    pub stages: usize,
    /// Total epochs of all stages; later epochs use the full size.
    pub epochs: usize,
}

impl Progressive {
    /// Returns the side in an epoch, counted from 0: a multiple of 8, or the full size in the last
    /// stage.
    pub fn size(&self, full: usize, epoch: usize) -> usize {
        let stages = self.stages.max(1);
        let stage = epoch * stages / self.epochs.max(1);
        if stage + 1 >= stages {
            return full;
        }
        let side = self.start as f64 + (full as f64 - self.start as f64) * stage as f64 / (stages - 1) as f64;
        ((side / 8.0).round() as usize * 8).clamp(self.start.min(full), full.max(self.start))
    }
}

impl TrainTransform {
    /// Crops, flips at random, and augments. Returns `size`×`size` pixels and the remaining
    /// operations.
    pub fn apply(&self, image: RgbPixels, rng: &mut impl Rng) -> (RgbPixels, Plan) {
        let size = self.size.max(1);
        let mut window = [0, 0];
        let out = match self.crop {
            Crop::RandomResized { scale, ratio } => {
                let region = random_region(image.width, image.height, scale, ratio, rng);
                if (region.width, region.height) == (image.width, image.height) {
                    resize(&image, size, size, self.interpolation)
                } else {
                    // Crop first, as torchvision does, so that no pixel outside the crop
                    // contributes.
                    let cut = crop(&image, region.left as isize, region.top as isize, region.width, region.height);
                    resize(&cut, size, size, self.interpolation)
                }
            }
            Crop::PadAndCrop { padding } => {
                let (width, height) = shorter_side(image.width, image.height, size);
                let left = below(width + 2 * padding - size + 1, rng) as isize - padding as isize;
                let top = below(height + 2 * padding - size + 1, rng) as isize - padding as isize;
                if self.deferred && (width, height) == (size, size) {
                    window = [left, top];
                    resize(&image, size, size, self.interpolation)
                } else {
                    padded_crop(&image, (width, height), (left, top), size, self.interpolation)
                }
            }
            Crop::Centre => {
                let resized = shorter_side(image.width, image.height, size);
                centre(&image, resized, size, self.interpolation, CropRounding::Even)
            }
        };
        let mirrored = self.draws_mirrored(rng);
        self.finish(out, window, mirrored, rng)
    }

    /// Applies the transform to a JPEG file, decoding only the crop. The random crop equals that of
    /// [`apply`](Self::apply); pixels differ by about 1 of 255. Returns `None` if the file needs
    /// the full decoder; `rng` has then been advanced.
    pub(super) fn apply_jpeg(
        &self,
        bytes: &[u8],
        decoding: &Decoding,
        rng: &mut impl Rng,
        scratch: &mut Scratch,
    ) -> Option<(RgbPixels, Plan)> {
        let (Crop::RandomResized { scale, ratio }, Some(filter)) = (self.crop, filter(self.interpolation)) else {
            return None;
        };
        let jpeg = Jpeg::open(bytes)?;
        if jpeg.width * jpeg.height > decoding.max_pixels || (decoding.exif_orientation && jpeg.has_exif) {
            return None;
        }
        let region = random_region(jpeg.width, jpeg.height, scale, ratio, rng);
        let mirrored = self.draws_mirrored(rng);
        // Flipping while writing the output is free.
        let out = square(&jpeg, region, self.size.max(1), filter, mirrored, scratch)?;
        Some(self.finish(out, [0, 0], false, rng))
    }

    fn draws_mirrored(&self, rng: &mut impl Rng) -> bool {
        // Sample even if the probability is 0 or 1, so that changing it does not change the crops.
        rng.random::<f64>() < self.horizontal_flip
    }

    /// Applies or plans the operations after the crop: shift, flip and augmentation.
    fn finish(&self, mut out: RgbPixels, window: [isize; 2], mirrored: bool, rng: &mut impl Rng) -> (RgbPixels, Plan) {
        let mut plan = Plan::default();
        if self.deferred && (mirrored || window != [0, 0]) {
            let [left, top] = window;
            plan.push(Operation::Window { left, top, mirrored, upside_down: false }, Sampling::default());
        } else if mirrored {
            mirror(&mut out);
        }
        self.augmentation.draw(&mut plan, (out.width, out.height), rng);
        if self.deferred { (out, plan) } else { (plan.apply(out), Plan::default()) }
    }
}

/// The transform that a [`Loader`](super::Loader) applies to each image.
#[derive(Clone, Debug, PartialEq)]
// There is one value per loader, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub enum Transform {
    /// Random training transform.
    Train(TrainTransform),
    /// Deterministic preprocessing for validation and prediction.
    Eval(Preprocess),
}

impl Transform {
    /// Applies the transform. Returns the pixels and the remaining operations. Only the training
    /// transform uses `rng`.
    pub fn apply(&self, image: RgbPixels, rng: &mut impl Rng) -> (RgbPixels, Plan) {
        match self {
            Transform::Train(train) => train.apply(image, rng),
            Transform::Eval(preprocess) => (preprocess.apply(image), Plan::default()),
        }
    }

    /// Returns the transform of an epoch, counted from 0, which resolves progressive resizing.
    pub fn at_epoch(&self, epoch: usize) -> Self {
        match self {
            Transform::Train(train) => {
                let size = train.progressive.map_or(train.size, |progressive| progressive.size(train.size, epoch));
                Transform::Train(TrainTransform { size, progressive: None, ..train.clone() })
            }
            Transform::Eval(_) => self.clone(),
        }
    }

    /// Returns whether results include plans of remaining operations.
    pub(super) fn is_deferred(&self) -> bool {
        matches!(self, Transform::Train(train) if train.deferred)
    }

    /// Returns the side of the output square in pixels.
    pub fn size(&self) -> usize {
        match self {
            Transform::Train(train) => train.size.max(1),
            Transform::Eval(preprocess) => preprocess.crop.max(1),
        }
    }
}

/// Returns the size after resizing the shorter side to `size`. The longer side is rounded down, as
/// in torchvision.
pub(crate) fn shorter_side(width: usize, height: usize, size: usize) -> (usize, usize) {
    let longer = |long: usize, short: usize| (size as u128 * long as u128 / short.max(1) as u128) as usize;
    if width <= height { (size, longer(height, width)) } else { (longer(width, height), size) }
}

/// Python's `round(x / 2)`: rounds half to even.
fn half_to_even(x: usize) -> usize {
    let half = x / 2;
    if x % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

/// Resizes to `width`×`height` and crops the center square.
fn centre(
    image: &RgbPixels,
    (width, height): (usize, usize),
    size: usize,
    interpolation: Interpolation,
    rounding: CropRounding,
) -> RgbPixels {
    let size = size.max(1);
    // CenterCrop pads images that are too small; the smaller half of the border comes first.
    let start = |length: usize| match (length.checked_sub(size), rounding) {
        (None, _) => -(((size - length) / 2) as isize),
        (Some(rest), CropRounding::Even) => half_to_even(rest) as isize,
        (Some(rest), CropRounding::Down) => (rest / 2) as isize,
    };
    padded_crop(image, (width, height), (start(width), start(height)), size, interpolation)
}

/// Resizes to `width`×`height` and crops the square at `(left, top)`, black beyond the edges.
fn padded_crop(
    image: &RgbPixels,
    (width, height): (usize, usize),
    (left, top): (isize, isize),
    size: usize,
    interpolation: Interpolation,
) -> RgbPixels {
    let visible = |start: isize, length: usize| {
        let from = start.max(0).min(length as isize) as usize;
        let to = start.saturating_add_unsigned(size).max(0).min(length as isize) as usize;
        (from, to.max(from) - from)
    };
    let (from_x, columns) = visible(left, width);
    let (from_y, rows) = visible(top, height);
    if columns == 0 || rows == 0 {
        return RgbPixels { width: size, height: size, data: vec![0; size * size * 3] };
    }
    let region = Region { left: from_x, top: from_y, width: columns, height: rows };
    let part = resize_region(image, width, height, region, interpolation);
    if (columns, rows) == (size, size) {
        return part;
    }
    crop(&part, left - from_x as isize, top - from_y as isize, size, size)
}

/// Returns a uniform random number below `end`, or 0 for an empty range.
fn below(end: usize, rng: &mut impl Rng) -> usize {
    if end > 1 { rng.random_range(0..end) } else { 0 }
}

/// torchvision's `RandomResizedCrop.get_params`: ten attempts, then the largest center rectangle
/// with an allowed aspect ratio.
fn random_region(width: usize, height: usize, scale: (f64, f64), ratio: (f64, f64), rng: &mut impl Rng) -> Region {
    let area = (width * height) as f64;
    let log_ratio = (ratio.0.ln(), ratio.1.ln());
    let uniform = |(low, high): (f64, f64), rng: &mut _| low + (high - low) * Rng::random::<f64>(rng);
    for _ in 0..10 {
        let target = area * uniform(scale, rng);
        let aspect = uniform(log_ratio, rng).exp();
        let w = (target * aspect).sqrt().round_ties_even() as usize;
        let h = (target / aspect).sqrt().round_ties_even() as usize;
        if 0 < w && w <= width && 0 < h && h <= height {
            let top = below(height - h + 1, rng);
            let left = below(width - w + 1, rng);
            return Region { left, top, width: w, height: h };
        }
    }
    let shape = width as f64 / height as f64;
    let (w, h) = if shape < ratio.0.min(ratio.1) {
        (width, (width as f64 / ratio.0.min(ratio.1)).round_ties_even() as usize)
    } else if shape > ratio.0.max(ratio.1) {
        ((height as f64 * ratio.0.max(ratio.1)).round_ties_even() as usize, height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    Region { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
}

/// Flips horizontally.
fn mirror(image: &mut RgbPixels) {
    for row in image.data.chunks_exact_mut(image.width * 3) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        pixels.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sample_rng;

    #[test]
    fn sizes_and_positions_are_rounded_as_in_torchvision() {
        assert_eq!(shorter_side(500, 375, 256), (341, 256));
        assert_eq!(shorter_side(375, 500, 256), (256, 341));
        assert_eq!(shorter_side(1, 60_000, 256), (256, 15_360_000));
        // Python: [round(x / 2) for x in range(8)]
        assert_eq!((0..8).map(half_to_even).collect::<Vec<_>>(), [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn random_regions_have_requested_area_and_aspect_ratio() {
        let (scale, ratio) = ((0.2, 0.6), (0.75, 4.0 / 3.0));
        let mut areas = Vec::new();
        for index in 0..500 {
            let region = random_region(640, 480, scale, ratio, &mut sample_rng(1, 0, index));
            assert!(region.left + region.width <= 640 && region.top + region.height <= 480);
            let shape = region.width as f64 / region.height as f64;
            assert!((0.74..1.35).contains(&shape), "{region:?}");
            areas.push((region.width * region.height) as f64 / (640.0 * 480.0));
        }
        let mean = areas.iter().sum::<f64>() / 500.0;
        assert!(areas.iter().all(|area| (0.195..0.605).contains(area)) && (0.36..0.44).contains(&mean), "{mean}");
    }

    #[test]
    fn random_region_falls_back_to_center_if_none_fits() {
        let region =
            |width, height| random_region(width, height, (1.0, 1.0), (0.75, 4.0 / 3.0), &mut sample_rng(0, 0, 0));
        assert_eq!(region(1000, 10), Region { left: 493, top: 0, width: 13, height: 10 });
        assert_eq!(region(10, 1000), Region { left: 0, top: 493, width: 10, height: 13 });
        // Invalid ratios give some region instead of a panic.
        for ratio in [(f64::NAN, 1.0), (0.0, 0.0), (-1.0, 2.0), (1e300, 1e300)] {
            let region = random_region(7, 5, (0.1, f64::INFINITY), ratio, &mut sample_rng(0, 0, 0));
            assert!(region.width > 0 && region.left + region.width <= 7 && region.top + region.height <= 5);
        }
    }

    #[test]
    fn padded_crops_use_every_position() {
        let image = RgbPixels { width: 4, height: 4, data: (1..=48).collect() };
        let transform = TrainTransform {
            size: 4,
            interpolation: Interpolation::Bilinear,
            crop: Crop::PadAndCrop { padding: 1 },
            ..TrainTransform::default()
        };
        let mut seen = [false; 9];
        for index in 0..200 {
            let (out, _) = transform.apply(image.clone(), &mut sample_rng(0, 0, index));
            let place = (0..9).find(|place| out == crop(&image, place % 3 - 1, place / 3 - 1, 4, 4));
            seen[place.expect("a crop of the padded image") as usize] = true;
        }
        assert_eq!(seen, [true; 9]);
    }

    #[test]
    fn progressive_sizes_grow_in_equal_stages() {
        let progressive = Progressive { start: 128, stages: 4, epochs: 100 };
        let size = |epoch| progressive.size(224, epoch);
        assert_eq!([0, 24, 25, 50, 74, 75, 99, 100, 1000].map(size), [128, 128, 160, 192, 192, 224, 224, 224, 224]);
        let one = Progressive { start: 64, stages: 1, epochs: 10 };
        assert_eq!(one.size(224, 0), 224);
    }

    #[test]
    fn flip_frequency_matches_probability() {
        let image = RgbPixels { width: 2, height: 2, data: [1, 2, 3, 4, 5, 6].repeat(2) };
        let mirrored = |horizontal_flip| {
            let (interpolation, crop) = (Interpolation::Bilinear, Crop::Centre);
            let transform =
                TrainTransform { size: 2, interpolation, crop, horizontal_flip, ..TrainTransform::default() };
            let first = |index| transform.apply(image.clone(), &mut sample_rng(3, 0, index)).0.data[0];
            (0..400).filter(|&index| first(index) == 4).count()
        };
        assert_eq!((mirrored(0.0), mirrored(1.0)), (0, 400));
        assert!((150..250).contains(&mirrored(0.5)));
    }
}
