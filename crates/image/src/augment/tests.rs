//! Tests that magnitudes agree with timm and torchvision.

use std::collections::BTreeMap;
use std::convert::Infallible;

use rand::TryRng;
use serde::Deserialize;

use crate::augment::Operation;
use crate::augment::timm::{self, Kind as T, Magnitude, Step};
use crate::augment::torchvision::{KINDS, Kind as V, Space};
use crate::seed::sample_rng;

#[derive(Deserialize)]
struct Levels {
    timm: BTreeMap<String, Vec<f64>>,
    torchvision: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
}

fn levels() -> Levels {
    serde_json::from_str(include_str!("../../tests/fixtures/augment/levels.json")).unwrap()
}

/// A constant generator, which never flips a sign.
struct Constant(u64);

impl TryRng for Constant {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0 >> 32) as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0)
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(0);
        Ok(())
    }
}

/// Returns the argument of an operation.
fn argument(operation: Operation) -> Option<f64> {
    use Operation as O;
    match operation {
        O::ShearX(x) | O::ShearY(x) | O::TranslateX(x) | O::TranslateY(x) | O::Rotate(x) | O::Hue(x) | O::Blur(x) => {
            Some(x)
        }
        O::Brightness(x) | O::Contrast(x) | O::Color(x) | O::Sharpness(x) | O::Solarize(x) => Some(x),
        O::Posterize(bits) => Some(f64::from(bits)),
        O::SolarizeAdd(add) => Some(f64::from(add)),
        O::Identity | O::AutoContrast | O::Equalize | O::Invert => None,
        O::Window { .. } | O::Paint(..) | O::Noise(..) => None,
    }
}

#[test]
fn timms_levels() {
    let kinds = [
        T::Rotate,
        T::Posterize,
        T::PosterizeIncreasing,
        T::PosterizeOriginal,
        T::Solarize,
        T::SolarizeIncreasing,
        T::SolarizeAdd,
        T::Color,
        T::ColorIncreasing,
        T::Contrast,
        T::ContrastIncreasing,
        T::Brightness,
        T::BrightnessIncreasing,
        T::Sharpness,
        T::SharpnessIncreasing,
        T::ShearX,
        T::ShearY,
        T::TranslateXRel,
        T::TranslateYRel,
        T::Desaturate,
        T::GaussianBlur,
    ];
    let levels = levels().timm;
    assert_eq!(levels.len(), kinds.len());
    for kind in kinds {
        for (magnitude, &expected) in [0.0, 1.0, 3.7, 9.0, 10.0, 12.0].into_iter().zip(&levels[&format!("{kind:?}")]) {
            let operation = timm::operation(kind, magnitude, 0.45, (1, 1), &mut Constant(1 << 62));
            let ours = argument(operation).unwrap();
            // Pillow supports up to 8 bits, and timm's negative values are clamped there.
            let expected = match kind {
                T::Desaturate => (1.0 - expected).clamp(0.0, 1.0),
                T::PosterizeIncreasing => expected.max(0.0),
                _ => expected,
            };
            assert!((ours - expected).abs() < 1e-12, "{kind:?} {magnitude}: {ours} {expected}");
        }
    }
}

#[test]
fn torchvisions_bins() {
    let spaces = [("auto", Space::AUTO), ("rand", Space::RAND), ("wide", Space::WIDE)];
    for (name, space) in spaces {
        let rows = &levels().torchvision[name];
        for kind in KINDS.into_iter().chain([V::Invert]) {
            let Some(row) = rows.get(&format!("{kind:?}")) else {
                let operation = space.operation(kind, 0, (331, 45), &mut Constant(u64::MAX));
                assert_eq!(argument(operation), None, "{name} {kind:?}");
                continue;
            };
            assert_eq!(row.len(), space.bins);
            for (bin, &magnitude) in row.iter().enumerate() {
                let ours = argument(space.operation(kind, bin, (331, 45), &mut Constant(u64::MAX))).unwrap();
                let expected = match kind {
                    V::TranslateX | V::TranslateY => -magnitude.trunc(),
                    V::Brightness | V::Color | V::Contrast | V::Sharpness => 1.0 + magnitude,
                    V::Solarize => 255.0 * magnitude,
                    _ => magnitude,
                };
                // JSON parsing may change the last bit.
                assert!(
                    (ours - expected).abs() < 1e-12 * expected.abs().max(1.0),
                    "{name} {kind:?} {bin}: {ours} {expected}"
                );
            }
        }
    }
}

#[test]
fn magnitudes_are_normal_uniform_or_fixed() {
    let draw = |magnitude: Magnitude| -> Vec<f64> {
        let step = Step { kind: T::Rotate, probability: 1.0, magnitude };
        let draws = (0..2000).map(|index| argument(step.draw((1, 1), &mut sample_rng(5, 0, index))).unwrap() / 3.0);
        draws.map(f64::abs).collect()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert!(draw(Magnitude::new(7.0, 0.0)).iter().all(|&m| (m - 7.0).abs() < 1e-9));
    let uniform = draw(Magnitude::new(8.0, f64::INFINITY));
    assert!((mean(&uniform) - 4.0).abs() < 0.2 && uniform.iter().all(|&m| m <= 8.0));
    let normal = draw(Magnitude::new(5.0, 0.5));
    let spread = mean(&normal.iter().map(|m| (m - 5.0).powi(2)).collect::<Vec<_>>()).sqrt();
    assert!((mean(&normal) - 5.0).abs() < 0.05 && (spread - 0.5).abs() < 0.05, "{spread}");
    // Magnitudes are limited to `most`, 10 by default.
    assert!(draw(Magnitude::new(10.0, 3.0)).iter().all(|&m| m <= 10.0));
    assert!(draw(Magnitude { most: 20.0, ..Magnitude::new(10.0, 3.0) }).iter().any(|&m| m > 12.0));
}
