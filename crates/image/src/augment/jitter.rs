//! Color jitter, as in torchvision.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use mbconv_kernels::image_ops::{Operation, Sampling};

use crate::augment::plan::AugmentPlan;

/// Largest strength of a change, except of the hue.
const MAX_STRENGTH: f64 = 100.0;

/// `augment.color_jitter`: maximum changes of brightness, contrast, saturation and hue, applied in
/// random order.
///
/// A single number sets the first three, like timm's `--color-jitter`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Jitters", into = "[f64; 4]")]
pub struct ColorJitter {
    /// The brightness factor is in `[1 - x, 1 + x]`, at least 0.
    pub brightness: f64,
    /// The contrast factor, likewise.
    pub contrast: f64,
    /// The saturation factor, likewise.
    pub saturation: f64,
    /// Maximum hue shift as a fraction of the color circle.
    pub hue: f64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number, or [brightness, contrast, saturation] with or without hue")]
enum Jitters {
    /// Brightness, contrast and saturation.
    One(#[schemars(range(min = 0, max = MAX_STRENGTH))] f64),
    /// Brightness, contrast and saturation.
    Three(#[schemars(inner(range(min = 0, max = MAX_STRENGTH)))] [f64; 3]),
    /// Brightness, contrast, saturation, and hue up to 0.5.
    Four(#[schemars(inner(range(min = 0, max = MAX_STRENGTH)))] [f64; 4]),
}

impl From<Jitters> for ColorJitter {
    fn from(jitters: Jitters) -> Self {
        let [brightness, contrast, saturation, hue] = match jitters {
            Jitters::One(x) => [x, x, x, 0.0],
            Jitters::Three([b, c, s]) => [b, c, s, 0.0],
            Jitters::Four(all) => all,
        };
        Self { brightness, contrast, saturation, hue }
    }
}

impl From<ColorJitter> for [f64; 4] {
    fn from(jitter: ColorJitter) -> Self {
        [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]
    }
}

impl ColorJitter {
    /// Adds the four operations in random order.
    pub(crate) fn draw(&self, plan: &mut AugmentPlan, rng: &mut impl Rng) {
        type Maker = fn(f64) -> Operation;
        let makers: [(f64, Maker); 3] = [
            (self.brightness, Operation::Brightness),
            (self.contrast, Operation::Contrast),
            (self.saturation, Operation::Color),
        ];
        let mut operations = Vec::with_capacity(4);
        for (strength, operation) in makers {
            if strength > 0.0 {
                let low = (1.0 - strength).max(0.0);
                operations.push(operation(low + (1.0 + strength - low) * rng.random::<f64>()));
            }
        }
        if self.hue > 0.0 {
            operations.push(Operation::Hue(self.hue * (2.0 * rng.random::<f64>() - 1.0)));
        }
        operations.shuffle(rng);
        // None of these operations samples outside the image.
        operations.into_iter().for_each(|operation| plan.push(operation, Sampling::default()));
    }
}
