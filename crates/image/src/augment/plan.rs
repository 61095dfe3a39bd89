//! The operations chosen for an image, to be applied now or later, on the CPU or on a device.

use mbconv_kernels::image_ops::{Operation, RgbPixels, Sampling};

/// Consecutive operations.
pub type Chain = Vec<(Operation, Sampling)>;

/// All operations on an image after cropping. A plan gives the same pixels on every CPU; on a GPU,
/// interpolated or blended values may differ by 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AugmentPlan {
    /// Operations before the mixture; for most policies all of them.
    pub first: Chain,
    /// Mixed versions of the image, for AugMix.
    pub mixture: Option<Mixture>,
    /// Operations after the mixture.
    pub then: Chain,
}

/// Mixed versions of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// Operations and weight of each version.
    pub versions: Vec<(Chain, f32)>,
    /// Weight of the versions' weighted sum against the original image. `None` blends the versions
    /// into the image one after the other, each with its own weight.
    pub strength: Option<f32>,
}

impl AugmentPlan {
    /// Adds an operation unless it is the identity.
    pub(crate) fn push(&mut self, operation: Operation, sampling: Sampling) {
        if operation != Operation::Identity {
            let chain = if self.mixture.is_some() { &mut self.then } else { &mut self.first };
            chain.push((operation, sampling));
        }
    }

    /// Returns whether the plan is empty.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.mixture.is_none() && self.then.is_empty()
    }

    /// Applies the plan to an image.
    pub fn apply(&self, image: RgbPixels) -> RgbPixels {
        let mut image = follow(image, &self.first);
        if let Some(mixture) = &self.mixture {
            mixture.apply(&mut image);
        }
        follow(image, &self.then)
    }
}

fn follow(image: RgbPixels, chain: &Chain) -> RgbPixels {
    chain.iter().fold(image, |image, (operation, sampling)| operation.apply(image, *sampling))
}

impl Mixture {
    fn apply(&self, image: &mut RgbPixels) {
        let versions = self.versions.iter().map(|(chain, share)| (follow(image.clone(), chain).data, *share));
        let Some(strength) = self.strength else {
            let mut mixed = image.data.clone();
            versions.for_each(|(version, share)| blend(&mut mixed, &version, share));
            image.data = mixed;
            return;
        };
        let mut sum = vec![0.0f32; image.data.len()];
        for (version, share) in versions {
            sum.iter_mut().zip(&version).for_each(|(sum, &value)| *sum += share * f32::from(value));
        }
        // As in timm, the cast truncates and saturates.
        let mixed: Vec<u8> = sum.into_iter().map(|value| value as u8).collect();
        blend(&mut image.data, &mixed, strength);
    }
}

fn blend(to: &mut [u8], from: &[u8], share: f32) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = (f32::from(*to) + share * (f32::from(from) - f32::from(*to))) as u8;
    }
}
