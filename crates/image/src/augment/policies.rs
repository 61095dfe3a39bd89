//! Tables of the published policies.

use crate::augment::timm::Kind as T;
use crate::augment::torchvision::Kind as V;

/// Operation, probability and magnitude.
pub(crate) type TimmRow = (T, f64, f64);
/// Operation, probability and magnitude bin.
pub(crate) type TorchvisionRow = (V, f64, usize);

/// ImageNet, from the TPU EfficientNet code; timm's `v0`.
pub(crate) const V0: [[TimmRow; 2]; 25] = [
    [(T::Equalize, 0.8, 1.0), (T::ShearY, 0.8, 4.0)],
    [(T::Color, 0.4, 9.0), (T::Equalize, 0.6, 3.0)],
    [(T::Color, 0.4, 1.0), (T::Rotate, 0.6, 8.0)],
    [(T::Solarize, 0.8, 3.0), (T::Equalize, 0.4, 7.0)],
    [(T::Solarize, 0.4, 2.0), (T::Solarize, 0.6, 2.0)],
    [(T::Color, 0.2, 0.0), (T::Equalize, 0.8, 8.0)],
    [(T::Equalize, 0.4, 8.0), (T::SolarizeAdd, 0.8, 3.0)],
    [(T::ShearX, 0.2, 9.0), (T::Rotate, 0.6, 8.0)],
    [(T::Color, 0.6, 1.0), (T::Equalize, 1.0, 2.0)],
    [(T::Invert, 0.4, 9.0), (T::Rotate, 0.6, 0.0)],
    [(T::Equalize, 1.0, 9.0), (T::ShearY, 0.6, 3.0)],
    [(T::Color, 0.4, 7.0), (T::Equalize, 0.6, 0.0)],
    [(T::Posterize, 0.4, 6.0), (T::AutoContrast, 0.4, 7.0)],
    [(T::Solarize, 0.6, 8.0), (T::Color, 0.6, 9.0)],
    [(T::Solarize, 0.2, 4.0), (T::Rotate, 0.8, 9.0)],
    [(T::Rotate, 1.0, 7.0), (T::TranslateYRel, 0.8, 9.0)],
    [(T::ShearX, 0.0, 0.0), (T::Solarize, 0.8, 4.0)],
    [(T::ShearY, 0.8, 0.0), (T::Color, 0.6, 4.0)],
    [(T::Color, 1.0, 0.0), (T::Rotate, 0.6, 2.0)],
    [(T::Equalize, 0.8, 4.0), (T::Equalize, 0.0, 8.0)],
    [(T::Equalize, 1.0, 4.0), (T::AutoContrast, 0.6, 2.0)],
    [(T::ShearY, 0.4, 7.0), (T::SolarizeAdd, 0.6, 7.0)],
    [(T::Posterize, 0.8, 2.0), (T::Solarize, 0.6, 10.0)],
    [(T::Solarize, 0.6, 8.0), (T::Equalize, 0.6, 1.0)],
    [(T::Color, 0.8, 6.0), (T::Rotate, 0.4, 5.0)],
];

/// ImageNet, from the paper (Cubuk et al. 2019); timm's `original`.
pub(crate) const ORIGINAL: [[TimmRow; 2]; 25] = [
    [(T::PosterizeOriginal, 0.4, 8.0), (T::Rotate, 0.6, 9.0)],
    [(T::Solarize, 0.6, 5.0), (T::AutoContrast, 0.6, 5.0)],
    [(T::Equalize, 0.8, 8.0), (T::Equalize, 0.6, 3.0)],
    [(T::PosterizeOriginal, 0.6, 7.0), (T::PosterizeOriginal, 0.6, 6.0)],
    [(T::Equalize, 0.4, 7.0), (T::Solarize, 0.2, 4.0)],
    [(T::Equalize, 0.4, 4.0), (T::Rotate, 0.8, 8.0)],
    [(T::Solarize, 0.6, 3.0), (T::Equalize, 0.6, 7.0)],
    [(T::PosterizeOriginal, 0.8, 5.0), (T::Equalize, 1.0, 2.0)],
    [(T::Rotate, 0.2, 3.0), (T::Solarize, 0.6, 8.0)],
    [(T::Equalize, 0.6, 8.0), (T::PosterizeOriginal, 0.4, 6.0)],
    [(T::Rotate, 0.8, 8.0), (T::Color, 0.4, 0.0)],
    [(T::Rotate, 0.4, 9.0), (T::Equalize, 0.6, 2.0)],
    [(T::Equalize, 0.0, 7.0), (T::Equalize, 0.8, 8.0)],
    [(T::Invert, 0.6, 4.0), (T::Equalize, 1.0, 8.0)],
    [(T::Color, 0.6, 4.0), (T::Contrast, 1.0, 8.0)],
    [(T::Rotate, 0.8, 8.0), (T::Color, 1.0, 2.0)],
    [(T::Color, 0.8, 8.0), (T::Solarize, 0.8, 7.0)],
    [(T::Sharpness, 0.4, 7.0), (T::Invert, 0.6, 8.0)],
    [(T::ShearX, 0.6, 5.0), (T::Equalize, 1.0, 9.0)],
    [(T::Color, 0.4, 0.0), (T::Equalize, 0.6, 3.0)],
    [(T::Equalize, 0.4, 7.0), (T::Solarize, 0.2, 4.0)],
    [(T::Solarize, 0.6, 5.0), (T::AutoContrast, 0.6, 5.0)],
    [(T::Invert, 0.6, 4.0), (T::Equalize, 1.0, 8.0)],
    [(T::Color, 0.6, 4.0), (T::Contrast, 1.0, 8.0)],
    [(T::Equalize, 0.8, 8.0), (T::Equalize, 0.6, 3.0)],
];

/// ImageNet; torchvision's `AutoAugmentPolicy.IMAGENET`.
pub(crate) const IMAGENET: [[TorchvisionRow; 2]; 25] = [
    [(V::Posterize, 0.4, 8), (V::Rotate, 0.6, 9)],
    [(V::Solarize, 0.6, 5), (V::AutoContrast, 0.6, 0)],
    [(V::Equalize, 0.8, 0), (V::Equalize, 0.6, 0)],
    [(V::Posterize, 0.6, 7), (V::Posterize, 0.6, 6)],
    [(V::Equalize, 0.4, 0), (V::Solarize, 0.2, 4)],
    [(V::Equalize, 0.4, 0), (V::Rotate, 0.8, 8)],
    [(V::Solarize, 0.6, 3), (V::Equalize, 0.6, 0)],
    [(V::Posterize, 0.8, 5), (V::Equalize, 1.0, 0)],
    [(V::Rotate, 0.2, 3), (V::Solarize, 0.6, 8)],
    [(V::Equalize, 0.6, 0), (V::Posterize, 0.4, 6)],
    [(V::Rotate, 0.8, 8), (V::Color, 0.4, 0)],
    [(V::Rotate, 0.4, 9), (V::Equalize, 0.6, 0)],
    [(V::Equalize, 0.0, 0), (V::Equalize, 0.8, 0)],
    [(V::Invert, 0.6, 0), (V::Equalize, 1.0, 0)],
    [(V::Color, 0.6, 4), (V::Contrast, 1.0, 8)],
    [(V::Rotate, 0.8, 8), (V::Color, 1.0, 2)],
    [(V::Color, 0.8, 8), (V::Solarize, 0.8, 7)],
    [(V::Sharpness, 0.4, 7), (V::Invert, 0.6, 0)],
    [(V::ShearX, 0.6, 5), (V::Equalize, 1.0, 0)],
    [(V::Color, 0.4, 0), (V::Equalize, 0.6, 0)],
    [(V::Equalize, 0.4, 0), (V::Solarize, 0.2, 4)],
    [(V::Solarize, 0.6, 5), (V::AutoContrast, 0.6, 0)],
    [(V::Invert, 0.6, 0), (V::Equalize, 1.0, 0)],
    [(V::Color, 0.6, 4), (V::Contrast, 1.0, 8)],
    [(V::Equalize, 0.8, 0), (V::Equalize, 0.6, 0)],
];

/// CIFAR-10; torchvision's `AutoAugmentPolicy.CIFAR10`.
pub(crate) const CIFAR10: [[TorchvisionRow; 2]; 25] = [
    [(V::Invert, 0.1, 0), (V::Contrast, 0.2, 6)],
    [(V::Rotate, 0.7, 2), (V::TranslateX, 0.3, 9)],
    [(V::Sharpness, 0.8, 1), (V::Sharpness, 0.9, 3)],
    [(V::ShearY, 0.5, 8), (V::TranslateY, 0.7, 9)],
    [(V::AutoContrast, 0.5, 0), (V::Equalize, 0.9, 0)],
    [(V::ShearY, 0.2, 7), (V::Posterize, 0.3, 7)],
    [(V::Color, 0.4, 3), (V::Brightness, 0.6, 7)],
    [(V::Sharpness, 0.3, 9), (V::Brightness, 0.7, 9)],
    [(V::Equalize, 0.6, 0), (V::Equalize, 0.5, 0)],
    [(V::Contrast, 0.6, 7), (V::Sharpness, 0.6, 5)],
    [(V::Color, 0.7, 7), (V::TranslateX, 0.5, 8)],
    [(V::Equalize, 0.3, 0), (V::AutoContrast, 0.4, 0)],
    [(V::TranslateY, 0.4, 3), (V::Sharpness, 0.2, 6)],
    [(V::Brightness, 0.9, 6), (V::Color, 0.2, 8)],
    [(V::Solarize, 0.5, 2), (V::Invert, 0.0, 0)],
    [(V::Equalize, 0.2, 0), (V::AutoContrast, 0.6, 0)],
    [(V::Equalize, 0.2, 0), (V::Equalize, 0.6, 0)],
    [(V::Color, 0.9, 9), (V::Equalize, 0.6, 0)],
    [(V::AutoContrast, 0.8, 0), (V::Solarize, 0.2, 8)],
    [(V::Brightness, 0.1, 3), (V::Color, 0.7, 0)],
    [(V::Solarize, 0.4, 5), (V::AutoContrast, 0.9, 0)],
    [(V::TranslateY, 0.9, 9), (V::TranslateY, 0.7, 9)],
    [(V::AutoContrast, 0.9, 0), (V::Solarize, 0.8, 3)],
    [(V::Equalize, 0.8, 0), (V::Invert, 0.1, 0)],
    [(V::TranslateY, 0.7, 9), (V::AutoContrast, 0.9, 0)],
];

/// SVHN; torchvision's `AutoAugmentPolicy.SVHN`.
pub(crate) const SVHN: [[TorchvisionRow; 2]; 25] = [
    [(V::ShearX, 0.9, 4), (V::Invert, 0.2, 0)],
    [(V::ShearY, 0.9, 8), (V::Invert, 0.7, 0)],
    [(V::Equalize, 0.6, 0), (V::Solarize, 0.6, 6)],
    [(V::Invert, 0.9, 0), (V::Equalize, 0.6, 0)],
    [(V::Equalize, 0.6, 0), (V::Rotate, 0.9, 3)],
    [(V::ShearX, 0.9, 4), (V::AutoContrast, 0.8, 0)],
    [(V::ShearY, 0.9, 8), (V::Invert, 0.4, 0)],
    [(V::ShearY, 0.9, 5), (V::Solarize, 0.2, 6)],
    [(V::Invert, 0.9, 0), (V::AutoContrast, 0.8, 0)],
    [(V::Equalize, 0.6, 0), (V::Rotate, 0.9, 3)],
    [(V::ShearX, 0.9, 4), (V::Solarize, 0.3, 3)],
    [(V::ShearY, 0.8, 8), (V::Invert, 0.7, 0)],
    [(V::Equalize, 0.9, 0), (V::TranslateY, 0.6, 6)],
    [(V::Invert, 0.9, 0), (V::Equalize, 0.6, 0)],
    [(V::Contrast, 0.3, 3), (V::Rotate, 0.8, 4)],
    [(V::Invert, 0.8, 0), (V::TranslateY, 0.0, 2)],
    [(V::ShearY, 0.7, 6), (V::Solarize, 0.4, 8)],
    [(V::Invert, 0.6, 0), (V::Rotate, 0.8, 4)],
    [(V::ShearY, 0.3, 7), (V::TranslateX, 0.9, 3)],
    [(V::ShearX, 0.1, 6), (V::Invert, 0.6, 0)],
    [(V::Solarize, 0.7, 2), (V::TranslateY, 0.6, 7)],
    [(V::ShearY, 0.8, 4), (V::Invert, 0.8, 0)],
    [(V::ShearX, 0.7, 9), (V::TranslateY, 0.8, 3)],
    [(V::ShearY, 0.8, 5), (V::AutoContrast, 0.7, 0)],
    [(V::ShearX, 0.7, 2), (V::Invert, 0.1, 0)],
];
/// Operations of timm's RandAugment.
pub(crate) const RAND: [T; 15] = [
    T::AutoContrast,
    T::Equalize,
    T::Invert,
    T::Rotate,
    T::Posterize,
    T::Solarize,
    T::SolarizeAdd,
    T::Color,
    T::Contrast,
    T::Brightness,
    T::Sharpness,
    T::ShearX,
    T::ShearY,
    T::TranslateXRel,
    T::TranslateYRel,
];

/// Operations of timm's `inc1`, which all get stronger with the magnitude.
pub(crate) const RAND_INCREASING: [T; 15] = [
    T::AutoContrast,
    T::Equalize,
    T::Invert,
    T::Rotate,
    T::PosterizeIncreasing,
    T::SolarizeIncreasing,
    T::SolarizeAdd,
    T::ColorIncreasing,
    T::ContrastIncreasing,
    T::BrightnessIncreasing,
    T::SharpnessIncreasing,
    T::ShearX,
    T::ShearY,
    T::TranslateXRel,
    T::TranslateYRel,
];

/// Weights of `RAND` and `RAND_INCREASING` under `w0`, an older setting of timm replaced by
/// `tweights`.
pub(crate) const RAND_WEIGHTS_0: [f64; 15] =
    [0.025, 0.005, 0.0, 0.3, 0.0, 0.005, 0.005, 0.025, 0.005, 0.005, 0.025, 0.2, 0.2, 0.1, 0.1];

/// timm's `t3a` (DeiT III).
pub(crate) const RAND_3A: [T; 3] = [T::SolarizeIncreasing, T::Desaturate, T::GaussianBlur];

/// timm's `tweights`.
pub(crate) const RAND_WEIGHTED: [(T, f64); 15] = [
    (T::Rotate, 3.0),
    (T::ShearX, 2.0),
    (T::ShearY, 2.0),
    (T::TranslateXRel, 1.0),
    (T::TranslateYRel, 1.0),
    (T::ColorIncreasing, 0.25),
    (T::SharpnessIncreasing, 0.25),
    (T::AutoContrast, 0.25),
    (T::SolarizeIncreasing, 0.05),
    (T::SolarizeAdd, 0.05),
    (T::ContrastIncreasing, 0.05),
    (T::BrightnessIncreasing, 0.05),
    (T::Equalize, 0.05),
    (T::PosterizeIncreasing, 0.05),
    (T::Invert, 0.05),
];

/// timm's `t3aw`.
pub(crate) const RAND_WEIGHTED_3A: [(T, f64); 14] = [
    (T::SolarizeIncreasing, 6.0),
    (T::Desaturate, 6.0),
    (T::GaussianBlur, 6.0),
    (T::Rotate, 3.0),
    (T::ShearX, 2.0),
    (T::ShearY, 2.0),
    (T::PosterizeIncreasing, 1.0),
    (T::AutoContrast, 1.0),
    (T::ColorIncreasing, 1.0),
    (T::SharpnessIncreasing, 1.0),
    (T::ContrastIncreasing, 1.0),
    (T::BrightnessIncreasing, 1.0),
    (T::Equalize, 1.0),
    (T::Invert, 1.0),
];

/// Operations of timm's AugMix chains.
pub(crate) const AUGMIX: [T; 13] = [
    T::AutoContrast,
    T::ColorIncreasing,
    T::ContrastIncreasing,
    T::BrightnessIncreasing,
    T::SharpnessIncreasing,
    T::Equalize,
    T::Rotate,
    T::PosterizeIncreasing,
    T::SolarizeIncreasing,
    T::ShearX,
    T::ShearY,
    T::TranslateXRel,
    T::TranslateYRel,
];
