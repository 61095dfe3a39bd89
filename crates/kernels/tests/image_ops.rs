//! Operations on a batch of images have the same result as on each image alone, on Burn's default
//! device, which `BURN_DEVICE` selects.

use burn::tensor::Device;
use mbconv_kernels::image_ops::{
    Area, Interpolation, Operation, RgbPixels, Sampling, channels, from_channels, packed, perform,
};

/// Returns different images with flat, smooth and noisy parts.
fn images(count: usize, width: usize, height: usize) -> Vec<RgbPixels> {
    let image = |index: usize| {
        let mut state = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(index as u64 + 1);
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let mut data = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                data.extend(match (x / 5 + y / 3 + index) % 3 {
                    0 => [40 + index as u8, 200, 90],
                    1 => [(x * 3) as u8, 255 - (y * 4) as u8, (x + y) as u8],
                    _ => [noise(), noise() / 2, noise()],
                });
            }
        }
        RgbPixels { width, height, data }
    };
    (0..count).map(image).collect()
}

/// Returns every operation, including arguments without effect or out of range, with the allowed
/// difference from the CPU: none, or 1 of 255. For hue it is 6, since one step of an 8-bit hue
/// changes a color by a fortieth of its range.
fn operations(width: usize, height: usize) -> Vec<(Operation, u8)> {
    use Operation as O;
    let area = Area { left: width / 4, top: height / 5, width: width / 2, height: height / 3 };
    let noise = (0..area.width * area.height).map(|i| [i as u8, 255 - i as u8, (i * 7) as u8]).collect();
    let window = |left, top, mirrored, upside_down| O::Window { left, top, mirrored, upside_down };
    vec![
        (O::Identity, 0),
        (O::ShearX(0.31), 1),
        (O::ShearY(-0.17), 1),
        (O::TranslateX(3.0), 0),
        (O::TranslateY(-4.35), 1),
        (O::TranslateX(1e6), 0),
        (O::Rotate(90.0), 0),
        (O::Rotate(360.0), 0),
        (O::Rotate(-28.7), 1),
        (O::Brightness(1.63), 0),
        (O::Contrast(0.37), 1),
        (O::Contrast(1.9), 1),
        (O::Color(0.1), 1),
        (O::Color(1.71), 1),
        (O::Sharpness(1.9), 1),
        (O::Sharpness(0.0), 1),
        (O::Hue(0.37), 6),
        (O::Hue(-0.2), 6),
        (O::Posterize(3), 0),
        (O::Solarize(110.5), 0),
        (O::SolarizeAdd(77), 0),
        (O::AutoContrast, 1),
        (O::Equalize, 0),
        (O::Invert, 0),
        (O::Blur(1.7), 0),
        (O::Blur(0.3), 0),
        (O::Blur(0.0), 0),
        (window(-3, 2, true, false), 0),
        (window(2, -1, false, true), 0),
        (window(0, 0, true, true), 0),
        (window(1000, 0, false, false), 0),
        (O::Paint(area, [1, 2, 3]), 0),
        (O::Noise(area, noise), 0),
    ]
}

/// Applies operations on the device and returns the bytes.
fn perform_there(images: &[RgbPixels], operations: Vec<(Operation, Sampling)>) -> Vec<u8> {
    let [width, height] = [images[0].width, images[0].height];
    let bytes = images.iter().flat_map(|image| image.data.clone()).collect();
    let there = packed(bytes, [images.len(), height, width], &Device::default());
    channels(perform(there, operations)).into_data().convert::<u8>().try_to_vec().unwrap()
}

/// Each image has another operation, at several sizes, including odd ones and single lines.
#[test]
fn batch_operations_match_single_images() {
    for (width, height) in [(33, 28), (64, 64), (1, 9), (7, 2), (2, 7)] {
        let operations = operations(width, height);
        let images = images(operations.len(), width, height);
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Nearest] {
            let sampling = Sampling { interpolation, fill: [124, 116, 104] };
            let batch = operations.iter().map(|(operation, _)| (operation.clone(), sampling)).collect();
            let found = perform_there(&images, batch);
            let found = found.chunks(width * height * 3);
            for (((operation, most), image), found) in operations.iter().zip(&images).zip(found) {
                let expected = operation.apply(image.clone(), sampling).data;
                let differences: Vec<u8> = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).collect();
                let apart = differences.iter().filter(|difference| **difference > 0).count();
                let worst = differences.iter().max().unwrap();
                let what = format!("{operation:?} {interpolation:?} {width}×{height}: {apart} by up to {worst}");
                if apart > 0 {
                    eprintln!("{what}");
                }
                assert!(worst <= most, "{what}");
                // Auto-contrast changes whole values, the others single pixels.
                assert!(apart * 50 <= expected.len() || *operation == Operation::AutoContrast, "{what}");
            }
        }
    }
}

#[test]
fn packing_to_a_device_preserves_bytes() {
    for shape in [[1, 1, 1], [2, 3, 5], [3, 4, 4]] {
        let count = shape.iter().product::<usize>() * 3;
        let bytes: Vec<u8> = (0..count).map(|index| (index * 37 + 128) as u8).collect();
        let there = channels(packed(bytes.clone(), shape, &Device::default()));
        assert_eq!(there.dims(), [shape[0], shape[1], shape[2], 3]);
        let again = channels(from_channels(there));
        assert_eq!(again.into_data().convert::<u8>().try_to_vec::<u8>().unwrap(), bytes);
    }
}

#[test]
#[should_panic(expected = "an operation for each image")]
fn a_missing_operation_panics() {
    let images = packed(vec![0; 12], [1, 2, 2], &Device::default());
    perform(images, Vec::new());
}
