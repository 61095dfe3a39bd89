//! Direct path from a JPEG file to a training crop, without decoding the whole image.

use mbconv_kernels::image_ops::RgbPixels;
use mbconv_kernels::multiversion::{Work, run};

pub use crate::jpeg::Jpeg;
use crate::resize::{Filter, Region};
use crate::{jpeg, plane_resize as resample};

/// Buffers reused from image to image; every worker thread has its own.
#[derive(Default)]
pub struct Scratch {
    jpeg: jpeg::Scratch,
    resample: resample::Scratch,
}

/// Resizes a region of the image to `size`, width and height in pixels, flipped horizontally if
/// `mirrored`.
///
/// Returns `None` if the scan is damaged; the full decoder then decides how much of it is usable.
/// Region, positions and weights are those of decoding, cropping and resizing. Results differ by
/// about 1 of 255, because colors are resized as YCbCr, chroma from its own resolution, and always
/// horizontally first, without clipping to RGB in between.
pub fn resize_region(
    jpeg: &Jpeg,
    region: Region,
    size: (usize, usize),
    filter: Filter,
    mirrored: bool,
    scratch: &mut Scratch,
) -> Option<RgbPixels> {
    let data = run(Resize { jpeg, region, size, filter, mirrored, scratch })?;
    Some(RgbPixels { width: size.0, height: size.1, data })
}

struct Resize<'a> {
    jpeg: &'a Jpeg<'a>,
    region: Region,
    size: (usize, usize),
    filter: Filter,
    mirrored: bool,
    scratch: &'a mut Scratch,
}

impl Work for Resize<'_> {
    type Output = Option<Vec<u8>>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Scratch { jpeg, resample } = self.scratch;
        let planes = self.jpeg.decode(self.region, self.size, jpeg)?;
        Some(resample::to_rgb(&jpeg.planes[..planes], self.size, self.filter, self.mirrored, resample))
    }
}

#[cfg(test)]
mod tests;
