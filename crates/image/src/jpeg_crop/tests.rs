//! Tests of decoding training crops against decoding whole images.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::decode::decode_rgb;
use crate::resize::{crop, filter as filter_of, resize};
use mbconv_kernels::image_ops::Interpolation;

/// Returns a smooth colorful image as a 4:4:4 JPEG file.
fn picture(width: u32, height: u32) -> Vec<u8> {
    let wave = |x: u32, y: u32, a: f64, b: f64| {
        (128.0 + 60.0 * (f64::from(x) / a).sin() + 60.0 * (f64::from(y) / b).cos()) as u8
    };
    let image = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([wave(x, y, 17.0, 29.0), wave(x, y, 41.0, 13.0), wave(x, y, 23.0, 19.0)])
    });
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 92).encode_image(&image).unwrap();
    bytes
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode").join(name)).unwrap()
}

fn made(
    bytes: &[u8],
    region: Region,
    size: (usize, usize),
    filter: Interpolation,
    mirrored: bool,
) -> Option<RgbPixels> {
    let jpeg = Jpeg::open(bytes)?;
    resize_region(&jpeg, region, size, filter_of(filter)?, mirrored, &mut Scratch::default())
}

fn exact(bytes: &[u8], region: Region, (width, height): (usize, usize), filter: Interpolation) -> RgbPixels {
    let whole = decode_rgb(bytes).unwrap();
    let cut = crop(&whole, region.left as isize, region.top as isize, region.width, region.height);
    resize(&cut, width, height, filter)
}

/// Returns the mean absolute difference, the mean difference, and the shift of `a` to the right
/// of and below `b`, in pixels, that explains most of the difference.
fn compare(a: &RgbPixels, b: &RgbPixels) -> (f64, f64, [f64; 2]) {
    assert_eq!((a.width, a.height, a.data.len()), (b.width, b.height, b.data.len()));
    let (width, height) = (a.width, a.height);
    let at = |image: &RgbPixels, x: usize, y: usize, c: usize| f64::from(image.data[(y * width + x) * 3 + c]);
    let (mut distance, mut bias, mut along, mut square) = (0.0, 0.0, [0.0; 2], [1e-9; 2]);
    for (y, x, c) in (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| (y, x, c)))) {
        let difference = at(a, x, y, c) - at(b, x, y, c);
        distance += difference.abs();
        bias += difference;
        if (1..width - 1).contains(&x) && (1..height - 1).contains(&y) {
            let slopes = [at(b, x + 1, y, c) - at(b, x - 1, y, c), at(b, x, y + 1, c) - at(b, x, y - 1, c)];
            for (i, slope) in slopes.into_iter().enumerate() {
                along[i] -= difference * slope / 2.0;
                square[i] += slope * slope / 4.0;
            }
        }
    }
    let n = a.data.len() as f64;
    (distance / n, bias / n, [along[0] / square[0], along[1] / square[1]])
}

#[test]
fn crops_match_exact_decoding_up_to_rounding() {
    // Crops of 1 to 13 times the output size: whole blocks, or 4, 2 and 1 samples per block.
    let files = [
        ("made", picture(901, 703)),
        ("4:4:4", fixture("baseline_444.jpg")),
        ("4:2:2", fixture("baseline_422.jpg")),
        ("4:2:0", fixture("baseline_420.jpg")),
        ("grey", fixture("grey.jpg")),
        ("restarts", fixture("restarts.jpg")),
    ];
    for (name, bytes) in &files {
        let jpeg = Jpeg::open(bytes).unwrap_or_else(|| panic!("{name} is not read"));
        let (w, h) = (jpeg.width, jpeg.height);
        let regions = [
            Region { left: 0, top: 0, width: w, height: h },
            Region { left: w / 3, top: h / 4, width: w / 2, height: h / 2 },
            Region { left: w - w / 2 - 1, top: h - h / 3, width: w / 2 + 1, height: h / 3 },
            Region { left: 3, top: 5, width: w * 2 / 3, height: h * 3 / 5 },
        ];
        for region in regions {
            for size in [(20, 20), (48, 30), (100, 140), (224, 224)] {
                for filter in [Interpolation::Bilinear, Interpolation::Bicubic] {
                    let (ours, whole) =
                        (made(bytes, region, size, filter, false).unwrap(), exact(bytes, region, size, filter));
                    let (distance, bias, shift) = compare(&ours, &whole);
                    let what = format!("{name} {region:?} to {size:?}, {filter:?}: {distance}, {bias}, {shift:?}");
                    assert!(distance < 2.5 && bias.abs() < 0.5, "{what}");
                    assert!(shift.iter().all(|shift| shift.abs() < 0.06), "{what}");
                }
            }
        }
    }
}

#[test]
fn shift_measure_detects_half_a_pixel() {
    let bytes = picture(448, 448);
    let region = |left| Region { left, top: 0, width: 446, height: 446 };
    // A source pixel is half an output pixel.
    let (a, b) = (region(0), region(1));
    let (_, _, shift) = compare(
        &exact(&bytes, a, (223, 223), Interpolation::Bilinear),
        &exact(&bytes, b, (223, 223), Interpolation::Bilinear),
    );
    assert!((shift[0] - 0.5).abs() < 0.05 && shift[1].abs() < 0.05, "{shift:?}");
}

#[test]
fn mirrored_output_is_flipped_plain_output() {
    let bytes = fixture("baseline_420.jpg");
    let jpeg = Jpeg::open(&bytes).unwrap();
    let region = Region { left: 1, top: 2, width: jpeg.width - 3, height: jpeg.height - 2 };
    let plain = made(&bytes, region, (33, 20), Interpolation::Bilinear, false).unwrap();
    let mut turned = made(&bytes, region, (33, 20), Interpolation::Bilinear, true).unwrap();
    assert_ne!(plain, turned);
    for row in turned.data.chunks_exact_mut(33 * 3) {
        row.as_chunks_mut::<3>().0.reverse();
    }
    assert_eq!(plain, turned);
}

#[test]
fn vectorized_and_baseline_code_agree() {
    let bytes = picture(300, 200);
    let jpeg = Jpeg::open(&bytes).unwrap();
    let region = Region { left: 10, top: 20, width: 222, height: 140 };
    let filter = filter_of(Interpolation::Bicubic).unwrap();
    let mut scratch = Scratch::default();
    let plain = Resize { jpeg: &jpeg, region, size: (96, 70), filter, mirrored: true, scratch: &mut scratch }.run();
    assert_eq!(
        plain,
        resize_region(&jpeg, region, (96, 70), filter, true, &mut Scratch::default()).map(|image| image.data)
    );
}

#[test]
fn unsupported_and_truncated_files_return_none() {
    for name in ["progressive.jpg", "cmyk.jpg", "ycck.jpg", "adobe_rgb.jpg", "rgb.png"] {
        assert!(Jpeg::open(&fixture(name)).is_none(), "{name}");
    }
    // Truncated anywhere, even below the crop: the full decoder reports the error.
    let bytes = picture(64, 64);
    let region = Region { left: 0, top: 0, width: 8, height: 8 };
    for keep in 2..bytes.len() {
        assert!(made(&bytes[..keep], region, (8, 8), Interpolation::Bilinear, false).is_none(), "{keep}");
    }
    assert!(made(&bytes, region, (8, 8), Interpolation::Bilinear, false).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Damaged files give an image or `None`.
    #[test]
    fn damaged_files_never_panic(
        file in prop::sample::select(vec!["baseline_420.jpg", "baseline_422.jpg", "grey.jpg", "restarts.jpg"]),
        flips in prop::collection::vec((0.0..1.0f64, 0u8..8), 0..12),
        place in [0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64],
        size in (1usize..70, 1usize..70),
    ) {
        let mut bytes = fixture(file);
        for (place, bit) in flips {
            let at = (bytes.len() as f64 * place) as usize;
            bytes[at] ^= 1 << bit;
        }
        if let Some(jpeg) = Jpeg::open(&bytes).filter(|jpeg| jpeg.width * jpeg.height < 1 << 22) {
            let part = |length: usize, place: f64, extent: f64| {
                let start = ((length - 1) as f64 * place) as usize;
                (start, 1 + ((length - start - 1) as f64 * extent) as usize)
            };
            let (left, width) = part(jpeg.width, place[0], place[1]);
            let (top, height) = part(jpeg.height, place[2], place[3]);
            let region = Region { left, top, width, height };
            if let Some(out) = made(&bytes, region, size, Interpolation::Bicubic, false) {
                prop_assert_eq!(out.data.len(), size.0 * size.1 * 3);
            }
        }
    }
}
