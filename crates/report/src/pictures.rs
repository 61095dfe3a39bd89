//! Images embedded in the page.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{ExtendedColorType, RgbImage};

use mbconv_image::RgbPixels;

use crate::html::escape;

/// Longer side of an image in pixels.
const SIDE: u32 = 144;
/// Smaller images are enlarged by the browser without smoothing.
const SMALL: u32 = 64;

/// Renders an image as an `<img>` element, or returns `None` if it cannot be encoded.
pub(crate) fn picture(pixels: RgbPixels, description: &str) -> Option<String> {
    let RgbPixels { width, height, data } = pixels;
    let image = RgbImage::from_raw(width as u32, height as u32, data)?;
    let longer = image.width().max(image.height());
    let (kind, bytes) = if longer <= SMALL {
        // Small images are stored losslessly.
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).ok()?;
        ("png", bytes.into_inner())
    } else {
        let scale = f64::from(SIDE) / f64::from(longer);
        let side = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
        let small = match longer > SIDE {
            true => image::imageops::resize(&image, side(image.width()), side(image.height()), FilterType::Triangle),
            false => image,
        };
        let mut bytes = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut bytes, 82);
        let (width, height) = small.dimensions();
        image::ImageEncoder::write_image(encoder, &small, width, height, ExtendedColorType::Rgb8).ok()?;
        ("jpeg", bytes)
    };
    let class = if longer <= SMALL { " class=small" } else { "" };
    let (bytes, description) = (STANDARD.encode(bytes), escape(description));
    Some(format!(r#"<img{class} alt="{description}" src="data:image/{kind};base64,{bytes}">"#))
}
