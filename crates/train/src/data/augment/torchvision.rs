//! How torchvision turns a bin of magnitudes into an operation.

use rand::Rng;

use super::Operation;

/// torchvision's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
    Invert,
}

/// The fourteen that RandAugment and TrivialAugment choose from.
pub(super) const KINDS: [Kind; 14] = [
    Kind::Identity,
    Kind::ShearX,
    Kind::ShearY,
    Kind::TranslateX,
    Kind::TranslateY,
    Kind::Rotate,
    Kind::Brightness,
    Kind::Color,
    Kind::Contrast,
    Kind::Sharpness,
    Kind::Posterize,
    Kind::Solarize,
    Kind::AutoContrast,
    Kind::Equalize,
];

/// Magnitudes, in equal steps from none to the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Space {
    /// Number of magnitudes.
    pub bins: usize,
    pub shear: f32,
    /// Part of the image's side, or pixels.
    pub translation: Translation,
    /// Degrees.
    pub rotation: f32,
    /// Distance from 1 of the factors of brightness, colour, contrast and sharpness.
    pub factor: f32,
    /// Bits that posterizing takes away.
    pub bits: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Translation {
    Part(f64),
    Pixels(f32),
}

impl Space {
    /// `torchvision.transforms.AutoAugment`.
    pub(super) const AUTO: Self = Self {
        bins: 10,
        shear: 0.3,
        translation: Translation::Part(150.0 / 331.0),
        rotation: 30.0,
        factor: 0.9,
        bits: 4.0,
    };
    /// `torchvision.transforms.RandAugment`.
    pub(super) const RAND: Self = Self { bins: 31, ..Self::AUTO };
    /// `torchvision.transforms.TrivialAugmentWide`.
    pub(super) const WIDE: Self = Self {
        bins: 31,
        shear: 0.99,
        translation: Translation::Pixels(32.0),
        rotation: 135.0,
        factor: 0.99,
        bits: 6.0,
    };

    /// The operation of a kind at bin `bin`, from 0, on an image of this size; the generator decides about signs.
    pub(super) fn operation(
        &self,
        kind: Kind,
        bin: usize,
        (width, height): (usize, usize),
        rng: &mut impl Rng,
    ) -> Operation {
        let mut signed = |greatest: f32| {
            let magnitude = f64::from(linspace(0.0, greatest, self.bins, bin));
            if rng.random::<f64>() <= 0.5 { -magnitude } else { magnitude }
        };
        let far = |side: usize| match self.translation {
            Translation::Part(part) => (part * side as f64) as f32,
            Translation::Pixels(pixels) => pixels,
        };
        match kind {
            Kind::Identity => Operation::Identity,
            Kind::ShearX => Operation::ShearX(signed(self.shear)),
            Kind::ShearY => Operation::ShearY(signed(self.shear)),
            // A positive translation moves the image right or down: its pixels come from the left or from above.
            Kind::TranslateX => Operation::TranslateX(-signed(far(width)).trunc()),
            Kind::TranslateY => Operation::TranslateY(-signed(far(height)).trunc()),
            Kind::Rotate => Operation::Rotate(signed(self.rotation)),
            Kind::Brightness => Operation::Brightness(1.0 + signed(self.factor)),
            Kind::Color => Operation::Colour(1.0 + signed(self.factor)),
            Kind::Contrast => Operation::Contrast(1.0 + signed(self.factor)),
            Kind::Sharpness => Operation::Sharpness(1.0 + signed(self.factor)),
            Kind::Posterize => {
                let step = (self.bins - 1) as f32 / self.bits;
                Operation::Posterize((8.0 - bin as f32 / step).round_ties_even() as u32)
            }
            Kind::Solarize => Operation::Solarize(255.0 * f64::from(linspace(1.0, 0.0, self.bins, bin))),
            Kind::AutoContrast => Operation::AutoContrast,
            Kind::Equalize => Operation::Equalize,
            Kind::Invert => Operation::Invert,
        }
    }
}

/// PyTorch's `linspace(start, end, steps)[i]` in single precision, which counts from the nearer end and rounds once.
fn linspace(start: f32, end: f32, steps: usize, i: usize) -> f32 {
    let step = (end - start) / (steps - 1) as f32;
    if i < steps / 2 { step.mul_add(i as f32, start) } else { (-step).mul_add((steps - 1 - i) as f32, end) }
}
