//! Decoding and resizing match Pillow and torchvision, and damaged images give errors.
//!
//! The fixtures are written by `scripts/golden_resize.py`.

use std::fs;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat};
use mbconv_image::formats::{FORMATS, Format, recognize};
use mbconv_image::{
    Crop, CropRounding, DecodeError, Decoding, Gray16, IMAGENET_MEAN, ImageSize, Interpolation, Preprocess, ResizeMode,
    RgbPixels, TrainTransform, decode, decode_rgb, mean_color, sample_rng,
};
use proptest::prelude::*;

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder)
}

fn load(path: &Path) -> RgbPixels {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    decode_rgb(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the maximum and the mean difference of two images of the same size.
fn difference(a: &RgbPixels, b: &RgbPixels) -> (u8, f64) {
    assert_eq!((a.width, a.height, a.data.len()), (b.width, b.height, b.data.len()));
    let differences = a.data.iter().zip(&b.data).map(|(a, b)| a.abs_diff(*b));
    let sum: u64 = differences.clone().map(u64::from).sum();
    (differences.max().unwrap_or(0), sum as f64 / a.data.len() as f64)
}

const FILTERS: [(Interpolation, &str); 3] =
    [(Interpolation::Bilinear, "bilinear"), (Interpolation::Bicubic, "bicubic"), (Interpolation::Nearest, "nearest")];

#[test]
fn evaluation_preprocessing_matches_torchvision() {
    let folder = fixtures("resize");
    for (photo, resize, crop) in [("landscape", 57, 48), ("portrait", 57, 48), ("portrait", 86, 97)] {
        for (interpolation, filter) in FILTERS {
            let (resize, crop) = (ImageSize::square(resize), ImageSize::square(crop));
            let preprocess = Preprocess { resize, crop, interpolation, ..Preprocess::default() };
            let ours = preprocess.apply(load(&folder.join(format!("{photo}.png"))));
            let theirs = load(&folder.join(format!("{photo}_resize{resize}_crop{crop}_{filter}.png")));
            assert_eq!(difference(&ours, &theirs), (0, 0.0), "{photo} {resize} {crop} {filter}");
        }
    }
}

#[test]
fn crop_offset_rounds_as_in_the_source_library() {
    // A crop of two of five columns: torchvision starts at round(1.5) = 2, transformers at 3 // 2 =
    // 1.
    let image = RgbPixels { width: 5, height: 2, data: (0..5).flat_map(|x| [x; 3]).collect::<Vec<u8>>().repeat(2) };
    for (crop_rounding, first) in [(CropRounding::Even, 2), (CropRounding::Down, 1)] {
        let preprocess = Preprocess { resize: 2.into(), crop: 2.into(), crop_rounding, ..Preprocess::default() };
        assert_eq!(preprocess.apply(image.clone()).data[0], first);
    }
}

#[test]
fn squash_resize_matches_pillow() {
    let folder = fixtures("resize");
    for (photo, size) in [("landscape", 64), ("portrait", 97)] {
        for (interpolation, filter) in FILTERS {
            let theirs = load(&folder.join(format!("{photo}_stretch{size}_{filter}.png")));
            let (resize_mode, resize, crop) = (ResizeMode::Squash, size.into(), size.into());
            let squash = Preprocess { resize_mode, resize, crop, interpolation, ..Preprocess::default() };
            let ours = squash.apply(load(&folder.join(format!("{photo}.png"))));
            assert_eq!(difference(&ours, &theirs), (0, 0.0), "{photo} {size} {filter}");
        }
    }
}

#[test]
fn letterbox_matches_pillow() {
    let folder = fixtures("resize");
    for (photo, size) in [("landscape", 64), ("portrait", 97)] {
        for (interpolation, filter) in FILTERS {
            let theirs = load(&folder.join(format!("{photo}_letterbox{size}_{filter}.png")));
            let (resize_mode, resize, crop) = (ResizeMode::Letterbox, size.into(), size.into());
            let letterbox = Preprocess { resize_mode, resize, crop, interpolation, ..Preprocess::default() };
            let image = load(&folder.join(format!("{photo}.png")));
            assert_eq!(difference(&letterbox.apply(image.clone()), &theirs), (0, 0.0), "{photo} {size} {filter}");
            let fill = Some(mean_color(IMAGENET_MEAN));
            let train = TrainTransform {
                size: size.into(),
                interpolation,
                letterbox: fill,
                crop: Crop::Center,
                ..TrainTransform::default()
            };
            assert_eq!(train.apply(image, &mut sample_rng(0, 0, 0)).0, theirs, "{photo} {size} {filter} in training");
        }
    }
}

/// Sizes of timm's evaluation of rectangles with a `crop_pct` of 0.8 or 1: photograph, resize,
/// crop.
const RECTANGLES: [(&str, [usize; 2], [usize; 2]); 4] = [
    ("landscape", [50, 90], [40, 72]),
    ("landscape", [61, 33], [61, 33]),
    ("portrait", [40, 72], [40, 72]),
    ("portrait", [76, 41], [61, 33]),
];

#[test]
fn rectangles_match_timm() {
    let folder = fixtures("resize");
    let modes = [(ResizeMode::Shorter, "center"), (ResizeMode::Squash, "squash"), (ResizeMode::Letterbox, "border")];
    for ((photo, resize, crop), (resize_mode, mode)) in
        RECTANGLES.into_iter().flat_map(|case| modes.map(|mode| (case, mode)))
    {
        let image = load(&folder.join(format!("{photo}.png")));
        let name = format!("{photo}_{mode}{}x{}_crop{}x{}", resize[0], resize[1], crop[0], crop[1]);
        let theirs = load(&folder.join(format!("{name}.png")));
        let (resize, crop) = (resize.into(), ImageSize::from(crop));
        let preprocess = Preprocess { resize_mode, resize, crop, ..Preprocess::default() };
        assert_eq!(difference(&preprocess.apply(image.clone()), &theirs), (0, 0.0), "{name}");
        let crops = preprocess.five_crops(&image);
        assert_eq!((crops.width, crops.height), (crop.width, 5 * crop.height));
        assert_eq!(crops.data[4 * theirs.data.len()..], theirs.data, "{name}");
    }
}

#[test]
fn resized_crops_of_rectangles_match_torchvision() {
    let folder = fixtures("resize");
    for (photo, [height, width]) in [("landscape", [40, 72]), ("portrait", [61, 33])] {
        let image = load(&folder.join(format!("{photo}.png")));
        let shape = image.width as f64 / image.height as f64;
        let whole = Crop::RandomResized { scale: (1.0, 1.0), ratio: (shape, shape) };
        let transform = TrainTransform { size: [height, width].into(), crop: whole, ..TrainTransform::default() };
        let theirs = load(&folder.join(format!("{photo}_resized_crop{height}x{width}.png")));
        assert_eq!(transform.apply(image, &mut sample_rng(0, 0, 0)).0, theirs, "{photo}");
    }
}

/// Decodes all files in a folder of fixtures, compares them with Pillow's pixels, and returns the
/// number of files.
fn compare_with_pillow(folder: &str) -> usize {
    let folder = fixtures(folder);
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".rgb.png") || name.ends_with(".md") {
            continue;
        }
        let expected = load(&folder.join(format!("{name}.rgb.png")));
        assert_eq!(difference(&load(&path), &expected), (0, 0.0), "{name}");
        seen += 1;
    }
    seen
}

#[test]
fn decoded_fixtures_match_pillow() {
    assert_eq!(compare_with_pillow("decode"), 32);
    assert_eq!(compare_with_pillow("kinds"), 74);
}

/// Returns a file in the format with 6×4 pixels of one color.
fn file_of(format: ImageFormat) -> Vec<u8> {
    let image = image::RgbImage::from_pixel(6, 4, image::Rgb([40; 3]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    match format {
        // These encoders accept only pixels with alpha.
        ImageFormat::Ico | ImageFormat::Gif => DynamicImage::ImageRgb8(image).to_rgba8().write_to(&mut bytes, format),
        _ => image.write_to(&mut bytes, format),
    }
    .unwrap();
    bytes.into_inner()
}

#[test]
fn documented_formats_are_read() {
    let documentation = include_str!("../../../docs/data.md");
    let unknown = decode_rgb(b"hello, this is text").unwrap_err().to_string();
    for format in FORMATS {
        let Format { name, id, extensions, kinds } = format;
        let extensions: Vec<_> = extensions.iter().map(|extension| format!("`.{extension}`")).collect();
        let extensions = extensions.join(" ");
        let row = format!("| {name} | {extensions} | {kinds} |");
        assert!(documentation.contains(&row), "docs/data.md lacks {row}");
        assert!(unknown.contains(name), "{unknown}");
        let bytes = file_of(id);
        assert_eq!(recognize(&bytes).unwrap(), id, "{name}");
        let image = decode_rgb(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((image.width, image.height), (6, 4), "{name}");
        assert_eq!(image.data, [40; 6 * 4 * 3], "{name}");
        for keep in 0..bytes.len() {
            // Truncation at any length must not panic.
            let _ = decode_rgb(&bytes[..keep]);
        }
    }
}

#[test]
fn gray16_is_clipped_or_scaled() {
    let values: [u16; 6] = [200, 9000, 11000, 12000, 14000, 15240];
    let png = {
        let image = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(3, 2, values.to_vec()).unwrap();
        let mut bytes = std::io::Cursor::new(Vec::new());
        DynamicImage::ImageLuma16(image).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let big_endian = values.iter().flat_map(|value| value.to_be_bytes());
    let pgm: Vec<u8> = b"P5 3 2 65535\n".iter().copied().chain(big_endian).collect();
    let shades = |bytes: &[u8], gray16| {
        let image = decode(bytes, &Decoding { gray16, ..Decoding::default() }).unwrap();
        assert!(image.data.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b));
        image.data.iter().copied().step_by(3).collect::<Vec<u8>>()
    };
    for bytes in [png, pgm] {
        assert_eq!(shades(&bytes, Gray16::Clip), [200, 255, 255, 255, 255, 255]);
        assert_eq!(shades(&bytes, Gray16::Full), values.map(|value| (value >> 8) as u8));
        let scaled = values.map(|value| (f32::from(value - 200) / 15040.0 * 255.0).round() as u8);
        assert_eq!(shades(&bytes, Gray16::Image), scaled);
    }
    // Other images are unchanged, and an image with a single value has no range to scale.
    let flat: Vec<u8> = b"P5 1 1 65535\n\x40\0".to_vec();
    assert_eq!(shades(&flat, Gray16::Image), [0]);
    let gray = fs::read(fixtures("decode").join("grey.jpg")).unwrap();
    assert_eq!(shades(&gray, Gray16::Image), shades(&gray, Gray16::Clip));
}

#[test]
fn unsupported_formats_are_named() {
    let files: [(&[u8], &str); 8] = [
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0\x2f\0\0", "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"%PDF-1.7", "PDF"),
        (b"DDS \x7c\0\0\0", "DDS"),
    ];
    for (bytes, name) in files {
        let error = decode_rgb(bytes).unwrap_err();
        assert!(matches!(error, DecodeError::Unsupported(_)), "{name}: {error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("QOI"), "{error}");
    }
    // Precision and process are in the frame header.
    let jpeg = fs::read(fixtures("decode").join("baseline_420.jpg")).unwrap();
    let frame = jpeg.windows(2).position(|marker| marker == b"\xff\xc0").unwrap();
    for (at, value, name) in [(4, 12, "12 bits"), (1, 0xC3, "lossless JPEG"), (1, 0xC5, "hierarchical JPEG")] {
        let mut changed = jpeg.clone();
        changed[frame + at] = value;
        let error = decode_rgb(&changed).unwrap_err();
        assert!(matches!(&error, DecodeError::Unsupported(kind) if kind.contains(name)), "{name}: {error}");
    }
    let mut tiff = fs::read(fixtures("decode").join("rgb.tif")).unwrap();
    // Entry of the photometric interpretation, a single SHORT.
    let entry = tiff.windows(8).position(|entry| entry == b"\x06\x01\x03\0\x01\0\0\0").unwrap();
    tiff[entry + 8] = 8;
    let error = decode_rgb(&tiff).unwrap_err().to_string();
    assert!(error.contains("CIELAB"), "{error}");
}

#[test]
fn small_jpeg_of_large_size_uses_little_memory() {
    let mut jpeg = fs::read(fixtures("decode").join("progressive.jpg")).unwrap();
    let frame = jpeg.windows(2).position(|marker| marker == b"\xff\xc2").unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x34, 0, 0x34, 0]);
    assert!(matches!(decode_rgb(&jpeg), Err(DecodeError::Truncated)));
}

#[test]
fn truncated_file_is_an_error() {
    for name in
        ["baseline_420.jpg", "progressive.jpg", "rgb.png", "palette.png", "transparent.gif", "lossless.webp", "rgb.bmp"]
    {
        let bytes = fs::read(fixtures("decode").join(name)).unwrap();
        assert!(decode_rgb(&bytes).is_ok(), "{name}");
        let result = decode_rgb(&bytes[..bytes.len() / 2]);
        assert!(result.is_err(), "{name}: {result:?}");
    }
    let jpeg = fs::read(fixtures("decode").join("baseline_420.jpg")).unwrap();
    assert!(matches!(decode_rgb(&jpeg[..jpeg.len() - 1]), Err(DecodeError::Truncated)));
}

#[test]
fn non_image_is_an_error() {
    for bytes in [&b""[..], b"hello, this is text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"] {
        assert!(decode_rgb(bytes).is_err(), "{bytes:?}");
    }
    assert!(matches!(decode_rgb(b"hello, this is text"), Err(DecodeError::UnknownFormat)));
}

#[test]
fn decompression_bomb_is_rejected_before_decompression() {
    let mut png = fs::read(fixtures("decode").join("rgb.png")).unwrap();
    // Width and height in the header, which is followed by its checksum.
    png[16..24].copy_from_slice(&[0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF]);
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    let result = decode_rgb(&png);
    assert!(matches!(result, Err(DecodeError::TooLarge { width: 65535, height: 65535, .. })), "{result:?}");
}

#[test]
fn pixel_limit_is_configurable() {
    for name in ["baseline_420.jpg", "progressive.jpg", "rgb.png"] {
        let bytes = fs::read(fixtures("decode").join(name)).unwrap();
        let pixels = load(&fixtures("decode").join(name)).data.len() / 3;
        let with = |max_pixels| decode(&bytes, &Decoding { max_pixels, ..Decoding::default() });
        assert!(with(pixels).is_ok(), "{name}");
        let error = with(pixels - 1).unwrap_err();
        assert!(matches!(error, DecodeError::TooLarge { limit, .. } if limit == pixels - 1), "{name}: {error}");
    }
}

#[test]
fn exif_orientation_is_applied_only_if_enabled() {
    let bytes = fs::read(fixtures("decode").join("baseline_444.jpg")).unwrap();
    let plain = decode_rgb(&bytes).unwrap();
    let (w, h) = (plain.width, plain.height);
    let pixel = |image: &RgbPixels, x: usize, y: usize| image.data[(y * image.width + x) * 3..][..3].to_vec();
    for orientation in 1..=8u8 {
        // A little-endian TIFF header with one entry: tag 0x0112, a SHORT.
        let mut exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        let turned = [&bytes[..2], &exif, &bytes[2..]].concat();
        assert_eq!(decode_rgb(&turned).unwrap(), plain, "{orientation}");
        let image = decode(&turned, &Decoding { exif_orientation: true, ..Decoding::default() }).unwrap();
        assert_eq!((image.width, image.height), if orientation < 5 { (w, h) } else { (h, w) }, "{orientation}");
        for (x, y) in [(0, 0), (5, 3), (image.width - 1, 1)] {
            // Source coordinates of a pixel in Pillow's exif_transpose.
            let (right, below) = (image.width - 1 - x, image.height - 1 - y);
            let from = match orientation {
                1 => (x, y),
                2 => (right, y),
                3 => (right, below),
                4 => (x, below),
                5 => (y, x),
                6 => (y, right),
                7 => (below, right),
                _ => (below, x),
            };
            assert_eq!(pixel(&image, x, y), pixel(&plain, from.0, from.1), "{orientation} at {x}, {y}");
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Damaged files give pixels of the declared size, or an error.
    #[test]
    fn damaged_files_never_panic(
        file in prop::sample::select(vec![
            "baseline_420.jpg", "progressive.jpg", "cmyk.jpg", "ycck.jpg", "restarts.jpg", "adobe_rgb.jpg",
            "palette.png", "rgb16.png", "animated.gif", "animated.webp", "rgb.tif", "palette.bmp",
            "../kinds/arithmetic.jpg", "../kinds/arithmetic_progressive.jpg", "../kinds/apart_420.jpg",
            "../kinds/mixed.jpg", "../kinds/progressive_restarts.jpg", "../kinds/means_only.jpg",
            "../kinds/palette_4_bits.tif", "../kinds/jpeg.tif", "../kinds/predictor.tif", "../kinds/zstd.tif",
            "../kinds/packbits.tif", "../kinds/run_lengths.tga", "../kinds/palette15.tga", "../kinds/small_local.gif",
            "../kinds/bits16.bmp", "../kinds/rgb.ico", "../kinds/bmp.ico", "../kinds/plain.ppm",
            "../kinds/maximum_1000.pgm", "../kinds/wrong_checksum.png",
        ]),
        keep in 0.0..1.0f64,
        flips in prop::collection::vec((0.0..1.0f64, 0u8..8), 0..12),
        cut in any::<bool>(),
    ) {
        let mut bytes = fs::read(fixtures("decode").join(file)).unwrap();
        if cut {
            bytes.truncate((bytes.len() as f64 * keep) as usize);
        }
        for (place, bit) in flips {
            let at = (bytes.len() as f64 * place) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        if let Ok(image) = decode_rgb(&bytes) {
            prop_assert_eq!(image.data.len(), image.width * image.height * 3);
        }
    }

    /// Extreme shapes are preprocessed too, to the requested size.
    #[test]
    fn preprocessing_accepts_any_shape(
        width in prop_oneof![1usize..60, 1000usize..3000], height in 1usize..60,
        resize in [1usize..70, 1usize..70], crop in [1usize..70, 1usize..70], mode in 0usize..3,
    ) {
        let image = RgbPixels { width, height, data: vec![200; width * height * 3] };
        let interpolation = Interpolation::Bicubic;
        let resize_mode = [ResizeMode::Shorter, ResizeMode::Squash, ResizeMode::Letterbox][mode];
        let size = ImageSize::from(resize);
        let preprocess =
            Preprocess { resize_mode, resize: size, crop: crop.into(), interpolation, ..Preprocess::default() };
        let out = preprocess.apply(image.clone());
        let [rows, columns] = crop;
        prop_assert_eq!((out.width, out.height, out.data.len()), (columns, rows, rows * columns * 3));
        if rows <= resize[0] && columns <= resize[1] && resize_mode != ResizeMode::Letterbox {
            // A uniform image stays uniform: no black is added, and the weights sum to 1.
            prop_assert!(out.data.iter().all(|&value| value == 200));
        }
    }
}
