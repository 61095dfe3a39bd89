//! Random erasing (Zhong et al. 2020), as in timm and torchvision.

use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use mbconv_kernels::image_ops::{Area, Operation, Sampling};

use crate::augment::plan::AugmentPlan;

/// `[augment.erasing]`: overwrites random rectangles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RandomErasing {
    /// Probability of erasing an image.
    #[schemars(range(min = 0, max = 1))]
    pub probability: f64,
    /// Fill of the rectangles.
    pub mode: EraseMode,
    /// Range of the erased fraction of the area, for all rectangles together.
    #[schemars(extend("items" = { "type": "number", "exclusiveMinimum": 0, "maximum": 1 }, "x-rising" = true))]
    pub area: [f64; 2],
    /// Range of the aspect ratio, height over width.
    #[schemars(extend("items" = { "type": "number", "exclusiveMinimum": 0, "maximum": 1000 }, "x-rising" = true))]
    pub aspect: [f64; 2],
    /// Minimum and maximum number of rectangles.
    #[schemars(inner(range(min = 1, max = 100)), extend("x-rising" = true))]
    pub count: [usize; 2],
}

/// The fill of erased rectangles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EraseMode {
    /// Mean color, which is zero after normalization.
    Const,
    /// One random color per rectangle, normally distributed after normalization.
    Rand,
    /// One random color per pixel.
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
    /// Adds rectangles for an image of this width and height. Colors are sampled in the
    /// normalized space of `mean` and `std`, then rounded and clamped to bytes.
    pub(crate) fn draw(
        &self,
        plan: &mut AugmentPlan,
        (width, height): (usize, usize),
        mean: [f32; 3],
        std: [f32; 3],
        rng: &mut impl Rng,
    ) {
        if rng.random::<f64>() >= self.probability {
            return;
        }
        let count = rng.random_range(self.count[0]..=self.count[1].max(self.count[0]));
        let uniform = |low: f64, high: f64, rng: &mut _| low + (high - low) * RngExt::random::<f64>(rng);
        for _ in 0..count {
            for _ in 0..10 {
                let area = uniform(self.area[0], self.area[1], rng) * (width * height) as f64 / count as f64;
                let aspect = uniform(self.aspect[0].ln(), self.aspect[1].ln(), rng).exp();
                let h = (area * aspect).sqrt().round_ties_even() as usize;
                let w = (area / aspect).sqrt().round_ties_even() as usize;
                if w < width && h < height {
                    let (top, left) = (rng.random_range(0..=height - h), rng.random_range(0..=width - w));
                    let paint = self.paint(Area { left, top, width: w, height: h }, mean, std, rng);
                    plan.push(paint, Sampling::default());
                    break;
                }
            }
        }
    }

    fn paint(&self, area: Area, mean: [f32; 3], std: [f32; 3], rng: &mut impl Rng) -> Operation {
        let byte = |channel: usize, value: f32| (255.0 * (mean[channel] + std[channel] * value)).round() as u8;
        let mut normal = || -> [u8; 3] {
            std::array::from_fn(|channel| byte(channel, Distribution::<f32>::sample(&StandardNormal, rng)))
        };
        let color = match self.mode {
            EraseMode::Const => std::array::from_fn(|channel| byte(channel, 0.0)),
            EraseMode::Rand | EraseMode::Pixel => normal(),
        };
        match self.mode {
            EraseMode::Const | EraseMode::Rand => Operation::Paint(area, color),
            EraseMode::Pixel => Operation::Noise(area, (0..area.width * area.height).map(|_| normal()).collect()),
        }
    }
}
