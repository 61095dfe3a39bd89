//! Packs a data set into shards: a few large files instead of many small ones.

mod manifest;
mod options;
mod parquet;
mod tar;
mod writer;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rand::seq::SliceRandom;

pub use manifest::{MANIFEST, Manifest, Packing, Shard, Skipped, SplitShards};
pub use options::{PackFormat, PackOptions};
use writer::{Hashed, Packed, Writer};

use mbconv_files::{remove_left_overs, write_atomically};
use mbconv_image::preprocess::shorter_side;
use mbconv_image::resize::resize;
use mbconv_image::{DecodeError, decode_rgb};
use mbconv_image::{Interpolation, RgbPixels};

use mbconv_image::seed::order_rng;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::loader::OnBadImage;
use crate::source::{Source, StoredImage};
use crate::tools::canvas::png;
use crate::tools::header::{self, exif};
use crate::tools::{CurateError, Work, check_inside, splits};

/// File name of the list of class names, one per line, stored with the shards.
pub const CLASSES: &str = "classes.txt";

/// Packs `data` into shards in the folder `out`. Calls `shard` after each shard, with `true` if a
/// complete shard already existed.
///
/// Training images are shuffled by the seed, because readers of shards mix only neighboring
/// samples; other splits keep their order. Images are stored byte by byte. With `size`, images with
/// a longer shorter side are resized like Pillow's `resize(…, BILINEAR)` and encoded as JPEG,
/// grayscale images as grayscale; their EXIF orientation is kept, other metadata is dropped. Images
/// stored as raw pixels are encoded as PNG.
///
/// The output depends only on the data and the options, bit for bit. A shard is written under a
/// temporary name, renamed when complete, and then recorded in the manifest. Repeating an
/// interrupted command keeps the shards that are in the manifest and have the recorded checksum.
///
/// # Errors
/// Different contents in the folder; image files outside the data set; the first bad image with
/// [`OnBadImage::Fail`]; I/O errors.
pub fn pack(
    data: &DataSet,
    out: &Path,
    options: &PackOptions,
    work: &mut Work,
    shard: &mut dyn FnMut(&Shard, bool),
) -> Result<Manifest, CurateError> {
    data.check_single_label("`data pack`")?;
    if let Some(extent) = &options.inside {
        check_inside(data, extent, true)?;
    }
    // A process killed before it wrote the manifest leaves only temporary files.
    remove_left_overs(out);
    let packing = Packing::new(data, options);
    let old = Manifest::read(out)?;
    if let Some(old) = &old {
        packing.check(&old.packing, out)?;
    } else if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(CurateError::Exists { path: out.into() });
    }
    fs::create_dir_all(out).map_err(CurateError::file("create", out))?;
    let mut manifest = Manifest { packing, splits: Vec::new() };
    let write = |manifest: &Manifest| {
        let path = out.join(MANIFEST);
        write_atomically(&path, manifest.to_json().as_bytes()).map_err(CurateError::file("write", &path))
    };
    write(old.as_ref().unwrap_or(&manifest))?;
    let classes = out.join(CLASSES);
    let names: String = data.classes.iter().map(|class| class.replace(['\r', '\n'], " ") + "\n").collect();
    write_atomically(&classes, names.as_bytes()).map_err(CurateError::file("write", &classes))?;

    let mut done = 0;
    for (name, source) in splits(data) {
        let split = SplitPacking::new(name, source.as_ref(), data, options);
        manifest.splits.push(SplitShards::new(name, source.as_ref(), data.classes.len()));
        for number in 0..split.shards {
            let file = split.file(number);
            let before = old.as_ref().and_then(|old| old.shard(&file)).filter(|shard| shard.is_complete(out));
            let entry = match before {
                Some(before) => before.clone(),
                None => split.write(number, out, done, work)?,
            };
            done += split.range(number).len();
            (work.progress)(done);
            shard(&entry, before.is_some());
            if let Some(last) = manifest.splits.last_mut() {
                last.shards.push(entry);
            }
            // Keep the shards of an interrupted run in the manifest until they are processed again.
            if before.is_none() {
                write(&old.as_ref().map_or_else(|| manifest.clone(), |old| manifest.merged_with(old)))?;
            }
        }
    }
    write(&manifest)?;
    Ok(manifest)
}

/// State of packing a split.
struct SplitPacking<'a> {
    name: &'static str,
    source: &'a dyn Source,
    data: &'a DataSet,
    options: &'a PackOptions,
    order: Vec<usize>,
    shards: usize,
}

impl<'a> SplitPacking<'a> {
    fn new(name: &'static str, source: &'a dyn Source, data: &'a DataSet, options: &'a PackOptions) -> Self {
        let mut order: Vec<usize> = (0..source.len()).collect();
        if name == "train" {
            order.shuffle(&mut order_rng(options.seed, 0));
        }
        let shards = order.len().div_ceil(options.shard_size.max(1));
        Self { name, source, data, options, order, shards }
    }

    /// Returns the positions of a shard's images. Shards differ by at most one image in size.
    fn range(&self, number: usize) -> std::ops::Range<usize> {
        let start = |number: usize| (number as u128 * self.order.len() as u128 / self.shards as u128) as usize;
        start(number)..start(number + 1)
    }

    /// Returns the file name of a shard.
    fn file(&self, number: usize) -> String {
        match self.options.format {
            PackFormat::Wds => format!("{}-{number:06}.tar", self.name),
            PackFormat::Parquet => {
                // The naming scheme of Hugging Face `datasets`.
                let name = if self.name == "val" { "validation" } else { self.name };
                format!("{name}-{number:05}-of-{:05}.parquet", self.shards)
            }
        }
    }

    /// Writes a shard; `done` images were processed before.
    fn write(&self, number: usize, out: &Path, done: usize, work: &mut Work) -> Result<Shard, CurateError> {
        let file = self.file(number);
        let partial = out.join(format!("{file}.partial"));
        let failed = || CurateError::file("write", &partial);
        let hashed = Hashed::create(&partial).map_err(failed())?;
        let mut writer: Box<dyn Writer> = match self.options.format {
            PackFormat::Wds => Box::new(tar::Tar::new(hashed, self.order.len())),
            PackFormat::Parquet => Box::new(parquet::Parquet::new(hashed, &self.data.classes).map_err(failed())?),
        };
        let (mut images, mut skipped) = (0, Vec::new());
        work.map(
            self.range(number),
            done,
            |place| self.prepare(place),
            |_, packed| {
                match (packed, self.options.on_bad_image) {
                    (Ok(packed), _) => {
                        images += 1;
                        writer.add(packed).map_err(failed())?;
                    }
                    (Err(DataError::Image { name, source }), OnBadImage::Skip) => {
                        skipped.push(Skipped { name, why: source.to_string() });
                    }
                    (Err(error), _) => return Err(error.into()),
                }
                Ok(())
            },
        )?;
        let (sha256, bytes) = writer.finish().and_then(Hashed::finish).map_err(failed())?;
        let path = out.join(&file);
        fs::rename(&partial, &path).map_err(CurateError::file("write", &path))?;
        Ok(Shard { file, sha256, bytes, images, skipped })
    }

    /// Reads an image and encodes it as configured.
    fn prepare(&self, place: usize) -> Result<Packed, DataError> {
        let index = self.order[place];
        let name = self.source.name(index);
        let sample = self.source.get(index)?;
        let prepared = prepare(sample.image, self.options);
        let (bytes, extension) = prepared.map_err(|source| DataError::Image { name: name.clone(), source })?;
        let name = match self.source.path(index).as_deref().and_then(Path::file_name) {
            Some(file) => file.to_string_lossy().into_owned(),
            None => name,
        };
        Ok(Packed { place, bytes, extension, name, label: sample.label })
    }
}

/// Returns the bytes to store for an image and their file name extension.
fn prepare(image: StoredImage, options: &PackOptions) -> Result<(Vec<u8>, &'static str), DecodeError> {
    let fits = |width: usize, height: usize| options.size.is_none_or(|size| width.min(height) <= size);
    let (pixels, gray, orientation) = match image {
        StoredImage::Pixels(pixels) if fits(pixels.width, pixels.height) => return Ok((encode_png(&pixels)?, "png")),
        StoredImage::Pixels(pixels) => (pixels, false, 1),
        StoredImage::Encoded(bytes) => {
            let header = header::read(&mut Cursor::new(&bytes))?;
            if fits(header.width as usize, header.height as usize) {
                let extension = extension(&bytes);
                return Ok((bytes, extension));
            }
            (decode_rgb(&bytes)?, header.color.starts_with("grey"), header.orientation)
        }
    };
    let size = options.size.unwrap_or(usize::MAX);
    let (width, height) = shorter_side(pixels.width, pixels.height, size);
    let small = resize(&pixels, width, height, Interpolation::Bilinear);
    Ok((jpeg(&small, gray, orientation, options.quality)?, "jpg"))
}

/// Encodes an image as JPEG with an EXIF orientation.
fn jpeg(pixels: &RgbPixels, gray: bool, orientation: u8, quality: u8) -> Result<Vec<u8>, DecodeError> {
    let damaged = |error: image::ImageError| DecodeError::Damaged(error.to_string());
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    if orientation != 1 {
        encoder.set_exif_metadata(exif(orientation)).map_err(|error| DecodeError::Damaged(error.to_string()))?;
    }
    let (width, height) = (pixels.width as u32, pixels.height as u32);
    if gray {
        let values: Vec<u8> = pixels.data.iter().step_by(3).copied().collect();
        encoder.encode(&values, width, height, ExtendedColorType::L8).map_err(damaged)?;
    } else {
        encoder.encode(&pixels.data, width, height, ExtendedColorType::Rgb8).map_err(damaged)?;
    }
    Ok(bytes)
}

/// Encodes pixels as PNG.
pub(crate) fn encode_png(pixels: &RgbPixels) -> Result<Vec<u8>, DecodeError> {
    png(pixels).map_err(DecodeError::Damaged)
}

/// Returns the file name extension for the format of these bytes.
pub(crate) fn extension(bytes: &[u8]) -> &'static str {
    let format = mbconv_image::formats::recognize(bytes).ok();
    format.and_then(|format| format.extensions_str().first().copied()).map_or("img", |extension| match extension {
        // The first extension of PNM is for bitmaps only.
        "pbm" => "pnm",
        extension => extension,
    })
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;

    use super::*;

    fn options(size: Option<usize>) -> PackOptions {
        let (format, on_bad_image) = (PackFormat::Wds, OnBadImage::Fail);
        PackOptions { format, size, quality: 95, shard_size: 7, seed: 0, on_bad_image, inside: None }
    }

    fn gradient(width: usize, height: usize) -> RgbPixels {
        let data = (0..width * height).flat_map(|i| [(i % width * 255 / width) as u8, (i / width) as u8, 90]).collect();
        RgbPixels { width, height, data }
    }

    #[test]
    fn images_within_the_size_limit_keep_their_bytes() {
        let bytes = jpeg(&gradient(40, 30), false, 1, 80).unwrap();
        for size in [None, Some(30), Some(31), Some(500)] {
            let packed = prepare(StoredImage::Encoded(bytes.clone()), &options(size)).unwrap();
            assert_eq!(packed, (bytes.clone(), "jpg"));
        }
        let (packed, extension) = prepare(StoredImage::Pixels(gradient(40, 30)), &options(None)).unwrap();
        assert_eq!((decode_rgb(&packed).unwrap(), extension), (gradient(40, 30), "png"));
    }

    #[test]
    fn larger_images_are_resized_and_keep_orientation_and_grayscale() {
        let (packed, extension) = prepare(StoredImage::Pixels(gradient(40, 30)), &options(Some(15))).unwrap();
        let pixels = decode_rgb(&packed).unwrap();
        assert_eq!((pixels.width, pixels.height, extension), (20, 15, "jpg"));
        let expected = resize(&gradient(40, 30), 20, 15, Interpolation::Bilinear);
        let furthest = pixels.data.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(furthest <= Some(8), "{furthest:?}");

        let turned = jpeg(&gradient(40, 30), true, 6, 95).unwrap();
        let (packed, _) = prepare(StoredImage::Encoded(turned), &options(Some(15))).unwrap();
        let header = header::read(&mut Cursor::new(&packed)).unwrap();
        assert_eq!((header.color, header.orientation, header.width), ("grey", 6, 20));
    }

    #[test]
    fn extension_matches_the_format() {
        assert_eq!(extension(b"\xFF\xD8\xFF\xE0"), "jpg");
        assert_eq!(extension(b"P6 1 1 255 abc"), "pnm");
        assert_eq!(extension(b"what"), "img");
        for format in [ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Tiff, ImageFormat::Qoi] {
            assert!(header::format_of_extension(format.extensions_str()[0]) == Some(format));
        }
    }
}
