//! Colour jitter, as torchvision's.

use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::{Operation, Plan, Sampling};

/// `augment.color_jitter`: greatest changes of brightness, contrast, saturation and hue, applied in random order.
///
/// A number means the first three, as timm's `--color-jitter`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Jitters", into = "[f64; 4]")]
pub struct ColorJitter {
    /// Brightness is multiplied by a factor in `[1 - x, 1 + x]`, at least 0.
    pub brightness: f64,
    /// Contrast likewise.
    pub contrast: f64,
    /// Saturation likewise.
    pub saturation: f64,
    /// Hue is turned by at most this part of the circle.
    pub hue: f64,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number, or [brightness, contrast, saturation] with or without hue")]
enum Jitters {
    One(f64),
    Three([f64; 3]),
    Four([f64; 4]),
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
    /// Adds the four in random order.
    pub(super) fn draw(&self, plan: &mut Plan, rng: &mut impl Rng) {
        type Maker = fn(f64) -> Operation;
        let makers: [(f64, Maker); 3] = [
            (self.brightness, Operation::Brightness),
            (self.contrast, Operation::Contrast),
            (self.saturation, Operation::Colour),
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
        // None of them looks outside of the image.
        operations.into_iter().for_each(|operation| plan.push(operation, Sampling::default()));
    }
}
