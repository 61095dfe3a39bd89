//! torchvision's conversion of magnitude bins to operations.

use rand::{Rng, RngExt};

use mbconv_kernels::image_ops::Operation;

/// torchvision's operation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
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

/// The fourteen operations of RandAugment and TrivialAugment.
pub(crate) const KINDS: [Kind; 14] = [
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

/// Magnitude ranges, divided into equal bins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Space {
    /// Number of bins.
    pub bins: usize,
    pub shear: f32,
    /// Maximum translation, as a fraction of the image size or in pixels.
    pub translation: Translation,
    /// Maximum rotation in degrees.
    pub rotation: f32,
    /// Maximum distance of brightness, color, contrast and sharpness factors from 1.
    pub factor: f32,
    /// Maximum number of bits removed by posterize.
    pub bits: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Translation {
    Part(f64),
    Pixels(f32),
}

impl Space {
    /// Magnitudes of `torchvision.transforms.AutoAugment`.
    pub(crate) const AUTO: Self = Self {
        bins: 10,
        shear: 0.3,
        translation: Translation::Part(150.0 / 331.0),
        rotation: 30.0,
        factor: 0.9,
        bits: 4.0,
    };
    /// Magnitudes of `torchvision.transforms.RandAugment`.
    pub(crate) const RAND: Self = Self { bins: 31, ..Self::AUTO };
    /// Magnitudes of `torchvision.transforms.TrivialAugmentWide`.
    pub(crate) const WIDE: Self = Self {
        bins: 31,
        shear: 0.99,
        translation: Translation::Pixels(32.0),
        rotation: 135.0,
        factor: 0.99,
        bits: 6.0,
    };

    /// Returns the operation of a kind with magnitude bin `bin`, from 0, for an image of this size;
    /// the generator chooses the signs.
    pub(crate) fn operation(
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
            // Positive translations move the image right or down, so its pixels come from the left
            // or above.
            Kind::TranslateX => Operation::TranslateX(-signed(far(width)).trunc()),
            Kind::TranslateY => Operation::TranslateY(-signed(far(height)).trunc()),
            Kind::Rotate => Operation::Rotate(signed(self.rotation)),
            Kind::Brightness => Operation::Brightness(1.0 + signed(self.factor)),
            Kind::Color => Operation::Color(1.0 + signed(self.factor)),
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

/// PyTorch's `linspace(start, end, steps)[i]` in f32, which counts from the nearer end and rounds
/// once.
fn linspace(start: f32, end: f32, steps: usize, i: usize) -> f32 {
    let step = (end - start) / (steps - 1) as f32;
    if i < steps / 2 { step.mul_add(i as f32, start) } else { (-step).mul_add((steps - 1 - i) as f32, end) }
}
