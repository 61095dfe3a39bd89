//! Preprocessing of images for evaluation.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::UnsupportedChannels;

use mbconv_kernels::image_ops::{Interpolation, RgbPixels};

use crate::decoding::{Decoding, Gray16};
use crate::image_size::ImageSize;
use crate::imagenet::{IMAGENET_MEAN, IMAGENET_STD};
use crate::resize::{Region, resize_region};

/// Evaluation preprocessing, as stored in a model file: resizes the image to `resize`, crops the
/// central `crop` pixels (black beyond the image, or the mean color for
/// [`ResizeMode::Letterbox`]), and computes `(x / 255 - mean) / std` on the device.
///
/// Sizes and positions are rounded as in torchvision's `Resize(int)` and `CenterCrop`, and as in
/// timm for a `resize` that is not square. Pixels equal Pillow's `resize`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// The sides that are resized to `resize` pixels.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resize_mode: ResizeMode,
    /// Size that the image covers, fills or fits after resizing, in pixels; positive. The shorter
    /// side of an image that covers a square has the square's side.
    pub resize: ImageSize,
    /// Size of the center crop in pixels; positive.
    pub crop: ImageSize,
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

    /// Number of crops of [`five_crops`](Self::five_crops).
    pub const FIVE: usize = 5;
}

/// The way in which an image is resized to a given size.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// Resizes the shorter side and keeps the aspect ratio, so that the image covers the size.
    #[default]
    Shorter,
    /// Resizes both sides, squashing the image to the size.
    Squash,
    /// Resizes the longer side, keeps the aspect ratio, and pads with the mean color.
    Letterbox,
}

/// Returns the color of a mean in 0..1, which normalization maps to about 0, as timm rounds it.
pub fn mean_color(mean: [f32; 3]) -> [u8; 3] {
    mean.map(|mean| (255.0 * f64::from(mean)).round_ties_even().clamp(0.0, 255.0) as u8)
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

impl CropRounding {
    /// Returns the first position of a center crop of `size` pixels. It is negative for a length
    /// below `size`: CenterCrop pads, and the smaller half of the border comes first.
    pub(crate) fn start(self, length: usize, size: usize) -> isize {
        match (length.checked_sub(size), self) {
            (None, _) => -(((size - length) / 2) as isize),
            (Some(rest), Self::Even) => half_to_even(rest) as isize,
            (Some(rest), Self::Down) => (rest / 2) as isize,
        }
    }
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
            resize: ImageSize::square(256),
            crop: ImageSize::square(224),
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

    /// Resizes and crops to `crop` pixels, without normalization.
    pub fn apply(&self, image: RgbPixels) -> RgbPixels {
        let resized = self.resized(image.width, image.height);
        self.frame().crop(&image, resized, self.center(resized))
    }

    /// Returns the output of a crop.
    fn frame(&self) -> Frame {
        let fill = if self.resize_mode == ResizeMode::Letterbox { mean_color(self.mean) } else { [0; 3] };
        Frame { size: self.crop.nonempty(), interpolation: self.interpolation, fill }
    }

    /// Returns the left and top edge of the center crop of a resized image.
    fn center(&self, (width, height): (usize, usize)) -> (isize, isize) {
        let crop = self.crop.nonempty();
        (self.crop_rounding.start(width, crop.width), self.crop_rounding.start(height, crop.height))
    }

    /// Returns the part of an image of `width`×`height` pixels that [`apply`](Self::apply) crops:
    /// left edge, top edge, width and height in pixels of that image. The part may extend beyond
    /// the image.
    pub fn cropped_part(&self, width: usize, height: usize) -> [f64; 4] {
        let resized = self.resized(width, height);
        let (crop, (left, top)) = (self.crop.nonempty(), self.center(resized));
        let scale_x = width as f64 / resized.0.max(1) as f64;
        let scale_y = height as f64 / resized.1.max(1) as f64;
        [left as f64 * scale_x, top as f64 * scale_y, crop.width as f64 * scale_x, crop.height as f64 * scale_y]
    }

    /// Resizes and crops the four corners and the center, as torchvision's `FiveCrop`: upper left,
    /// upper right, lower left, lower right, center. Returns the crops below each other, as an
    /// image of five times the height of `crop`. Along a side that is not longer than the crop, all
    /// are centered.
    pub fn five_crops(&self, image: &RgbPixels) -> RgbPixels {
        let resized = self.resized(image.width, image.height);
        let (crop, center) = (self.crop.nonempty(), self.center(resized));
        let starts = |length: usize, size: usize, center: isize| {
            let last = length.saturating_sub(size);
            if last == 0 { [center; 2] } else { [0, last as isize] }
        };
        let [left, right] = starts(resized.0, crop.width, center.0);
        let [top, bottom] = starts(resized.1, crop.height, center.1);
        let mut data = Vec::with_capacity(Self::FIVE * crop.width * crop.height * 3);
        for corner in [(left, top), (right, top), (left, bottom), (right, bottom), center] {
            data.extend(self.frame().crop(image, resized, corner).data);
        }
        RgbPixels { width: crop.width, height: Self::FIVE * crop.height, data }
    }

    /// Returns the size, width and height, of an image of `width`×`height` pixels after resizing.
    fn resized(&self, width: usize, height: usize) -> (usize, usize) {
        let size = self.resize.nonempty();
        match self.resize_mode {
            ResizeMode::Shorter => covering((width, height), size),
            ResizeMode::Squash => size.width_height(),
            ResizeMode::Letterbox => fitted((width, height), size),
        }
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
    pub fn takes_pictures(&self) -> Result<(), UnsupportedChannels> {
        match self.channels {
            1 | 3 => Ok(()),
            channels => Err(UnsupportedChannels { channels }),
        }
    }
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { resize_mode, resize, crop, interpolation, channels, mean, std, exif_orientation, gray16, .. } = self;
        let mode = match resize_mode {
            ResizeMode::Shorter => "resize",
            ResizeMode::Squash => "squash to",
            ResizeMode::Letterbox => "letterbox to",
        };
        let kernel = format!("{interpolation:?}").to_lowercase();
        let gray = if *channels == 1 { "gray, " } else { "" };
        let turned = if *exif_orientation { "EXIF orientation applied, " } else { "" };
        let scaled = match gray16 {
            Gray16::Clip => "",
            Gray16::Image => "16-bit gray scaled by the image's range, ",
            Gray16::Full => "16-bit gray scaled by its full range, ",
        };
        write!(f, "{turned}{scaled}{gray}{mode} {resize} ({kernel}), crop {crop}, mean {mean:?}, std {std:?}")
    }
}

/// Returns the size after resizing the shorter side to `size`. The longer side is rounded down, as
/// in torchvision.
pub fn shorter_side(width: usize, height: usize, size: usize) -> (usize, usize) {
    let longer = |long: usize, short: usize| (size as u128 * long as u128 / short.max(1) as u128) as usize;
    if width <= height { (size, longer(height, width)) } else { (longer(width, height), size) }
}

/// Python's `round(x / 2)`: rounds half to even.
fn half_to_even(x: usize) -> usize {
    let half = x / 2;
    if x % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

/// Returns the size of an image of `width`×`height` pixels after resizing it, with its aspect
/// ratio, to the smallest size that covers `size`: width and height. Rounds as timm's
/// `ResizeKeepRatio`, and for a square as torchvision's `Resize(int)`.
pub(crate) fn covering((width, height): (usize, usize), size: ImageSize) -> (usize, usize) {
    match size.is_square() {
        true => shorter_side(width, height, size.width),
        false => keep_ratio((width, height), size, f64::min),
    }
}

/// Returns the size of an image of `width`×`height` pixels after resizing it, with its aspect
/// ratio, to the largest size that fits into `size`: width and height. Rounds as timm's
/// `ResizeKeepRatio`.
pub(crate) fn fitted((width, height): (usize, usize), size: ImageSize) -> (usize, usize) {
    keep_ratio((width, height), size, f64::max)
}

/// Divides both sides of an image by one of the two ratios of its sides to those of `size`.
fn keep_ratio((width, height): (usize, usize), size: ImageSize, choose: fn(f64, f64) -> f64) -> (usize, usize) {
    let ratio = choose(width as f64 / size.width as f64, height as f64 / size.height as f64);
    let side = |length: usize| ((length as f64 / ratio).round_ties_even() as usize).max(1);
    (side(width), side(height))
}

/// The output of a crop: size in pixels, resampling, and the color beyond the edges of the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub size: ImageSize,
    pub interpolation: Interpolation,
    pub fill: [u8; 3],
}

impl Frame {
    /// Resizes an image to `width`×`height` and crops the center, with torchvision's rounding.
    pub fn center(&self, image: &RgbPixels, (width, height): (usize, usize)) -> RgbPixels {
        let start = |length, size| CropRounding::Even.start(length, size);
        self.crop(image, (width, height), (start(width, self.size.width), start(height, self.size.height)))
    }

    /// Resizes an image to `width`×`height` and crops the rectangle at `(left, top)`.
    pub fn crop(&self, image: &RgbPixels, (width, height): (usize, usize), (left, top): (isize, isize)) -> RgbPixels {
        let visible = |start: isize, size: usize, length: usize| {
            let from = start.max(0).min(length as isize) as usize;
            let to = start.saturating_add_unsigned(size).max(0).min(length as isize) as usize;
            (from, to.max(from) - from)
        };
        let ImageSize { height: all_rows, width: all_columns } = self.size;
        let (from_x, columns) = visible(left, all_columns, width);
        let (from_y, rows) = visible(top, all_rows, height);
        let region = Region { left: from_x, top: from_y, width: columns, height: rows };
        let whole = (columns, rows) == (all_columns, all_rows);
        if whole {
            return resize_region(image, width, height, region, self.interpolation);
        }
        let mut data = self.fill.repeat(all_columns * all_rows);
        if columns > 0 && rows > 0 {
            let part = resize_region(image, width, height, region, self.interpolation);
            let (x, y) = ((from_x as isize - left) as usize, (from_y as isize - top) as usize);
            let lines = data.chunks_exact_mut(all_columns * 3).skip(y).zip(part.data.chunks_exact(columns * 3));
            lines.for_each(|(line, part)| line[x * 3..(x + columns) * 3].copy_from_slice(part));
        }
        RgbPixels { width: all_columns, height: all_rows, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_crops_are_the_corners_and_the_center() {
        let image = RgbPixels { width: 5, height: 3, data: (0..45).collect() };
        let of = |resize: usize, size: usize| {
            let preprocess = Preprocess {
                resize: resize.into(),
                crop: size.into(),
                interpolation: Interpolation::Bilinear,
                ..Preprocess::default()
            };
            let crops = preprocess.five_crops(&image);
            assert_eq!((crops.width, crops.height), (size, 5 * size));
            assert_eq!(crops.data[4 * size * size * 3..], preprocess.apply(image.clone()).data);
            crops.data.chunks(size * size * 3).map(|crop| crop[0]).collect::<Vec<u8>>()
        };
        // The red byte of the pixel (x, y) is 15 y + 3 x.
        assert_eq!(of(3, 2), [0, 9, 15, 24, 6]);
        assert_eq!(of(3, 3), [0, 6, 0, 6, 3]);
        // Black above, because the image is lower than the crop; 5 columns are centered too.
        assert_eq!(of(3, 5), [0; 5]);
    }

    #[test]
    fn cropped_part_is_in_pixels_of_the_image() {
        let preprocess = Preprocess { resize: 64.into(), crop: 48.into(), ..Preprocess::default() };
        assert_eq!(preprocess.cropped_part(256, 128), [80.0, 16.0, 96.0, 96.0]);
        let squash = Preprocess { resize_mode: ResizeMode::Squash, ..preprocess.clone() };
        assert_eq!(squash.cropped_part(256, 128), [32.0, 16.0, 192.0, 96.0]);
        // The whole image is 64×32 pixels, in the middle of 64×64, and a crop of 48 cuts off 8.
        let letterbox = Preprocess { resize_mode: ResizeMode::Letterbox, ..preprocess.clone() };
        assert_eq!(letterbox.cropped_part(256, 128), [32.0, -32.0, 192.0, 192.0]);
        // A crop of 96 pixels has a border of 16 around 64.
        let padded = Preprocess { crop: 96.into(), ..preprocess };
        assert_eq!(padded.cropped_part(32, 32), [-8.0, -8.0, 48.0, 48.0]);
    }

    #[test]
    fn letterboxes_keep_the_aspect_ratio() {
        assert_eq!(fitted((500, 375), 224.into()), (224, 168));
        assert_eq!(fitted((375, 500), 224.into()), (168, 224));
        assert_eq!(fitted((10, 10), [160, 224].into()), (160, 160));
        assert_eq!(fitted((60_000, 1), 224.into()), (224, 1));
        let preprocess = Preprocess {
            resize_mode: ResizeMode::Letterbox,
            resize: 4.into(),
            crop: 4.into(),
            ..Preprocess::default()
        };
        let out = preprocess.apply(RgbPixels { width: 4, height: 1, data: vec![9; 12] });
        // One row of padding above, as round(1.5) down, and two below.
        let rows: Vec<u8> = out.data.chunks(12).map(|row| row[0]).collect();
        assert_eq!(rows, [124, 9, 124, 124]);
        assert_eq!(out.data[..3], mean_color(IMAGENET_MEAN));
        assert_eq!(mean_color([0.0, 0.5, 2.0]), [0, 128, 255]);
    }

    #[test]
    fn sizes_and_positions_are_rounded_as_in_torchvision() {
        assert_eq!(shorter_side(500, 375, 256), (341, 256));
        assert_eq!(shorter_side(375, 500, 256), (256, 341));
        assert_eq!(shorter_side(1, 60_000, 256), (256, 15_360_000));
        // Python: ResizeKeepRatio((192, 320)).get_params(image, (192, 320), 0.0)
        assert_eq!(covering((500, 375), [192, 320].into()), (320, 240));
        assert_eq!(covering((375, 500), [192, 320].into()), (320, 427));
        assert_eq!(covering((1000, 375), [192, 320].into()), (512, 192));
        assert_eq!(covering((500, 375), 256.into()), (341, 256));
        // Python: [round(x / 2) for x in range(8)]
        assert_eq!((0..8).map(half_to_even).collect::<Vec<_>>(), [0, 0, 1, 2, 2, 2, 3, 4]);
    }
}
