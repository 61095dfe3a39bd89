//! Random erasing (Zhong et al. 2020), as timm's and torchvision's.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use super::super::RgbPixels;

/// `[augment.erasing]`: rectangles that are painted over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomErasing {
    /// Probability that an image is erased at all.
    pub probability: f64,
    /// What is painted.
    pub mode: EraseMode,
    /// Range of the erased part of the area, all rectangles together.
    pub area: [f64; 2],
    /// Range of height over width.
    pub aspect: [f64; 2],
    /// Least and greatest number of rectangles.
    pub count: [usize; 2],
}

/// What is painted over the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EraseMode {
    /// The mean colour, which is zero after normalisation.
    Const,
    /// One random colour a rectangle, normal after normalisation.
    Rand,
    /// A random colour for each pixel.
    Pixel,
}

impl Default for RandomErasing {
    fn default() -> Self {
        Self {
            probability: 0.0,
            mode: EraseMode::Const,
            area: [0.02, 1.0 / 3.0],
            aspect: [0.3, 1.0 / 0.3],
            count: [1, 1],
        }
    }
}

impl RandomErasing {
    /// Paints over `image`. Colours are drawn as after normalisation by `mean` and `std` and rounded to bytes, so what would
    /// lie beyond black or white is black or white.
    pub fn apply(&self, image: &mut RgbPixels, mean: [f32; 3], std: [f32; 3], rng: &mut impl Rng) {
        if rng.random::<f64>() >= self.probability {
            return;
        }
        let (width, height) = (image.width, image.height);
        let count = rng.random_range(self.count[0]..=self.count[1].max(self.count[0]));
        let uniform = |low: f64, high: f64, rng: &mut _| low + (high - low) * Rng::random::<f64>(rng);
        for _ in 0..count {
            for _ in 0..10 {
                let area = uniform(self.area[0], self.area[1], rng) * (width * height) as f64 / count as f64;
                let aspect = uniform(self.aspect[0].ln(), self.aspect[1].ln(), rng).exp();
                let h = (area * aspect).sqrt().round_ties_even() as usize;
                let w = (area / aspect).sqrt().round_ties_even() as usize;
                if w < width && h < height {
                    let (top, left) = (rng.random_range(0..=height - h), rng.random_range(0..=width - w));
                    self.paint(image, (left, top), (w, h), mean, std, rng);
                    break;
                }
            }
        }
    }

    fn paint(
        &self,
        image: &mut RgbPixels,
        (left, top): (usize, usize),
        (width, height): (usize, usize),
        mean: [f32; 3],
        std: [f32; 3],
        rng: &mut impl Rng,
    ) {
        let byte = |channel: usize, value: f32| (255.0 * (mean[channel] + std[channel] * value)).round() as u8;
        let normal = |rng: &mut _| -> [u8; 3] {
            std::array::from_fn(|channel| byte(channel, Distribution::<f32>::sample(&StandardNormal, rng)))
        };
        let colour = match self.mode {
            EraseMode::Const => std::array::from_fn(|channel| byte(channel, 0.0)),
            EraseMode::Rand | EraseMode::Pixel => normal(rng),
        };
        let (pixels, _) = image.data.as_chunks_mut::<3>();
        for row in pixels.chunks_exact_mut(image.width).skip(top).take(height) {
            for pixel in &mut row[left..left + width] {
                *pixel = if self.mode == EraseMode::Pixel { normal(rng) } else { colour };
            }
        }
    }
}
