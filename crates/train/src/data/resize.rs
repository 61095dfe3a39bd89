//! Resizing as Pillow does it: separable convolution whose kernel widens when the image shrinks.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use super::RgbPixels;

/// The kernel of a resize; each is antialiased and agrees with Pillow's filter of that name within 1/255.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Triangle of two pixels.
    Bilinear,
    /// Cubic of four pixels with a = -0.5 (Catmull–Rom).
    Bicubic,
}

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

/// Cuts a rectangle out. What lies outside of the image is black.
pub(super) fn crop(image: &RgbPixels, left: isize, top: isize, width: usize, height: usize) -> RgbPixels {
    let mut data = vec![0; width * height * 3];
    let from = left.max(0).min(image.width as isize);
    let to = left.saturating_add_unsigned(width).min(image.width as isize);
    if from < to {
        let (from, columns, offset) = (from as usize, (to - from) as usize, (from - left) as usize);
        for (y, row) in data.chunks_exact_mut(width * 3).enumerate() {
            let source = top.saturating_add_unsigned(y);
            if source < 0 || source >= image.height as isize {
                continue;
            }
            let start = (source as usize * image.width + from) * 3;
            row[offset * 3..(offset + columns) * 3].copy_from_slice(&image.data[start..start + columns * 3]);
        }
    }
    RgbPixels { width, height, data }
}

/// Resizes the whole image to `width`×`height`.
pub(super) fn resize(image: &RgbPixels, width: usize, height: usize, interpolation: Interpolation) -> RgbPixels {
    resize_region(image, width, height, Region { left: 0, top: 0, width, height }, interpolation)
}

/// The part `region` of the image resized to `width`×`height`; computes that part only, so that neither time nor memory is
/// spent on what a crop would throw away (a 1×60000 image resized by its shorter side would fill the memory).
///
/// `region` lies inside of `width`×`height`.
pub(super) fn resize_region(
    image: &RgbPixels,
    width: usize,
    height: usize,
    region: Region,
    interpolation: Interpolation,
) -> RgbPixels {
    if (width, height) == (image.width, image.height) {
        return crop(image, region.left as isize, region.top as isize, region.width, region.height);
    }
    let (x, y) = (image.width as f64 / width as f64, image.height as f64 / height as f64);
    let options = ResizeOptions::new().use_alpha(false).resize_alg(match interpolation {
        Interpolation::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Interpolation::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
    });
    // Rounding may put the box's far edge beyond the image's, which the resizer would refuse.
    let span = |start: usize, length: usize, scale: f64, limit: usize| {
        let (start, limit) = (start as f64 * scale, limit as f64);
        let mut length = (length as f64 * scale).min(limit - start);
        while start + length > limit {
            length = length.next_down();
        }
        (start, length)
    };
    let (left, box_width) = span(region.left, region.width, x, image.width);
    let (top, box_height) = span(region.top, region.height, y, image.height);
    let options = options.crop(left, top, box_width, box_height);

    let mut out = Image::new(region.width as u32, region.height as u32, PixelType::U8x3);
    // The sizes agree and the box lies inside, so neither step has a reason to fail; black is what a crop gives for nothing.
    if let Ok(source) = ImageRef::new(image.width as u32, image.height as u32, &image.data, PixelType::U8x3) {
        thread_local!(static RESIZER: std::cell::RefCell<Resizer> = std::cell::RefCell::new(Resizer::new()));
        let done = RESIZER.with_borrow_mut(|resizer| resizer.resize(&source, &mut out, &options));
        debug_assert!(done.is_ok(), "{done:?}");
    }
    RgbPixels { width: region.width, height: region.height, data: out.into_vec() }
}
