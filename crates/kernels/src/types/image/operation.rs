//! The operations of augmentation, which compute the same pixels as Pillow.

use std::sync::Arc;

use crate::types::image::pixels::RgbPixels;
use crate::types::image::sampling::Sampling;
use crate::types::image::{blur, enhance, geometry, tone};

/// An operation with its argument.
///
/// Positions are in pixels. Shears, translations and rotations keep the image's size; pixels from
/// outside of the image have the color [`Sampling::fill`].
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Changes nothing.
    Identity,
    /// Takes the pixel at `(x, y)` from `(x + factor·y, y)`.
    ShearX(f64),
    /// Takes the pixel at `(x, y)` from `(x, y + factor·x)`.
    ShearY(f64),
    /// Takes the pixel at `(x, y)` from `(x + pixels, y)`.
    TranslateX(f64),
    /// Takes the pixel at `(x, y)` from `(x, y + pixels)`.
    TranslateY(f64),
    /// Rotates counterclockwise about the center, in degrees.
    Rotate(f64),
    /// Blends with black: 0 is black, 1 changes nothing, above 1 is brighter.
    Brightness(f64),
    /// Blends with the mean gray value.
    Contrast(f64),
    /// Blends with the gray image (saturation in PyTorch).
    Color(f64),
    /// Blends with the smoothed image.
    Sharpness(f64),
    /// Shifts the hue by a fraction of the hue circle, in [-0.5, 0.5].
    Hue(f64),
    /// Keeps this number of high bits of each value; 8 or more change nothing.
    Posterize(u32),
    /// Inverts the values at or above a threshold.
    Solarize(f64),
    /// Adds to the values below 128.
    SolarizeAdd(u8),
    /// Stretches each channel to the whole range.
    AutoContrast,
    /// Equalizes the histogram of each channel.
    Equalize,
    /// Inverts all values.
    Invert,
    /// Blurs by a Gaussian, approximated by three box blurs; the argument is the standard deviation
    /// in pixels.
    Blur(f64),
    /// Takes the pixel at `(x, y)` from `(x + left, y + top)`, with black outside of the image,
    /// then optionally flips it.
    Window {
        /// Pixels cut off at the left; negative values add pixels.
        left: isize,
        /// Pixels cut off at the top; negative values add pixels.
        top: isize,
        /// Whether to flip horizontally.
        mirrored: bool,
        /// Whether to flip vertically.
        upside_down: bool,
    },
    /// Fills a rectangle with one color.
    Paint(Area, [u8; 3]),
    /// Fills a rectangle with pixels, row by row.
    Noise(Area, Arc<[[u8; 3]]>),
}

/// A rectangle within an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Number of columns.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
}

impl Operation {
    /// Applies the operation.
    ///
    /// # Panics
    /// If it fills an area outside of the image.
    pub fn apply(&self, mut image: RgbPixels, sampling: Sampling) -> RgbPixels {
        match *self {
            Self::Identity => {}
            Self::ShearX(_) | Self::ShearY(_) | Self::TranslateX(_) | Self::TranslateY(_) | Self::Rotate(_) => {
                if let Some(matrix) = self.matrix(image.width, image.height) {
                    image = geometry::affine(&image, matrix, sampling);
                }
            }
            Self::Brightness(_) | Self::Posterize(_) | Self::Solarize(_) | Self::SolarizeAdd(_) | Self::Invert => {
                if let Some(table) = self.table() {
                    tone::map(&mut image, &table);
                }
            }
            Self::Contrast(factor) => enhance::contrast(&mut image, factor),
            Self::Color(factor) => enhance::color(&mut image, factor),
            Self::Sharpness(factor) => enhance::sharpness(&mut image, factor),
            Self::Hue(turn) => enhance::hue(&mut image, turn),
            Self::AutoContrast => tone::auto_contrast(&mut image),
            Self::Equalize => tone::equalize(&mut image),
            Self::Blur(radius) => blur::gaussian(&mut image, radius),
            Self::Window { left, top, mirrored, upside_down } => {
                geometry::window(&mut image, [left, top], [mirrored, upside_down]);
            }
            Self::Paint(area, color) => area.rows(&mut image).for_each(|row| row.fill(color)),
            Self::Noise(area, ref pixels) => {
                let rows = area.rows(&mut image).zip(pixels.chunks_exact(area.width.max(1)));
                rows.for_each(|(row, pixels)| row.copy_from_slice(pixels));
            }
        }
        image
    }

    /// Returns the affine map `(a·x + b·y + c, d·x + e·y + f)` from a pixel `(x, y)` to its source,
    /// for an image of this size. Returns `None` if the operation does not move pixels.
    pub(crate) fn matrix(&self, width: usize, height: usize) -> Option<[f64; 6]> {
        match *self {
            Self::ShearX(factor) => Some([1.0, factor, 0.0, 0.0, 1.0, 0.0]),
            Self::ShearY(factor) => Some([1.0, 0.0, 0.0, factor, 1.0, 0.0]),
            Self::TranslateX(pixels) => Some([1.0, 0.0, pixels, 0.0, 1.0, 0.0]),
            Self::TranslateY(pixels) => Some([1.0, 0.0, 0.0, 0.0, 1.0, pixels]),
            Self::Rotate(degrees) => geometry::rotation(degrees, width, height),
            _ => None,
        }
    }

    /// Returns the new value of each byte value, if the operation is such a table.
    pub(crate) fn table(&self) -> Option<[u8; 256]> {
        match *self {
            Self::Brightness(factor) => Some(tone::table(enhance::brightened(factor))),
            Self::Posterize(bits) => Some(tone::table(tone::posterized(bits))),
            Self::Solarize(threshold) => Some(tone::table(tone::solarized(threshold))),
            Self::SolarizeAdd(add) => Some(tone::table(tone::solarized_by(add))),
            Self::Invert => Some(tone::table(|value| !value)),
            _ => None,
        }
    }
}

impl Area {
    /// Returns the area's part of each of its rows.
    fn rows(self, image: &mut RgbPixels) -> impl Iterator<Item = &mut [[u8; 3]]> {
        let (pixels, _) = image.data.as_chunks_mut::<3>();
        let rows = pixels.chunks_exact_mut(image.width).skip(self.top).take(self.height);
        rows.map(move |row| &mut row[self.left..self.left + self.width])
    }
}
