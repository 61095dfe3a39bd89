//! The operations chosen for an image, to be applied now or later, on the CPU or on a device.

use burn::tensor::{Int, Tensor, TensorData};
use mbconv_kernels::pictures::{Operation, RgbPixels, Sampling, channels, from_channels, perform};

/// Consecutive operations.
pub type Chain = Vec<(Operation, Sampling)>;

/// All operations on an image after cropping. A plan gives the same pixels on every CPU; on a GPU,
/// interpolated or blended values may differ by 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
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

impl Plan {
    /// Adds an operation unless it is the identity.
    pub(in crate::data) fn push(&mut self, operation: Operation, sampling: Sampling) {
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

    /// Applies each image's plan on the images' device, if there are plans.
    pub(crate) fn apply_there(plans: &[Plan], pictures: Tensor<3, Int>) -> Tensor<3, Int> {
        if plans.is_empty() {
            return pictures;
        }
        let mut pictures = follow_there(pictures, |image| &plans[image].first);
        let versions = |plan: &Plan| plan.mixture.as_ref().map_or(0, |mixture| mixture.versions.len());
        let versions = plans.iter().map(versions).max().unwrap_or(0);
        if versions > 0 {
            pictures = mix_there(plans, pictures, versions);
        }
        follow_there(pictures, |image| &plans[image].then)
    }
}

fn follow(image: RgbPixels, chain: &Chain) -> RgbPixels {
    chain.iter().fold(image, |image, (operation, sampling)| operation.apply(image, *sampling))
}

/// Shorter chains end with identities.
fn follow_there<'a>(
    mut pictures: Tensor<3, Int>,
    chain: impl Fn(usize) -> &'a [(Operation, Sampling)],
) -> Tensor<3, Int> {
    let images = pictures.dims()[0];
    let longest = (0..images).map(|image| chain(image).len()).max().unwrap_or(0);
    for step in 0..longest {
        let operation = |image| chain(image).get(step).cloned().unwrap_or((Operation::Identity, Sampling::default()));
        pictures = perform(pictures, (0..images).map(operation).collect());
    }
    pictures
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

/// Applies [`Mixture::apply`] to each image, with at most `versions` versions.
fn mix_there(plans: &[Plan], pictures: Tensor<3, Int>, versions: usize) -> Tensor<3, Int> {
    let device = pictures.device();
    // One value per image; 0 leaves the image unchanged.
    let each = |number: &dyn Fn(&Mixture) -> Option<f32>| {
        let numbers = plans.iter().map(|plan| plan.mixture.as_ref().and_then(number).unwrap_or(0.0));
        Tensor::<4>::from_data(TensorData::new(numbers.collect(), [plans.len(), 1, 1, 1]), &device)
    };
    let image = channels(pictures.clone());
    let byte = |values: Tensor<4>| values.floor().clamp(0.0, 255.0);
    let blend = |to: Tensor<4>, from: Tensor<4>, share: Tensor<4>| byte(to.clone() + (from - to) * share);
    let version = |at: usize| {
        let chain = |image: usize| -> &[_] {
            let mixture = plans[image].mixture.as_ref();
            mixture.and_then(|mixture| mixture.versions.get(at)).map_or(&[], |(chain, _)| chain)
        };
        let share = each(&|mixture: &Mixture| mixture.versions.get(at).map(|(_, share)| *share));
        (channels(follow_there(pictures.clone(), chain)), share)
    };
    let versions = (0..versions).map(version);
    let in_turn = plans.iter().flat_map(|plan| &plan.mixture).all(|mixture| mixture.strength.is_none());
    from_channels(if in_turn {
        versions.fold(image, |mixed, (version, share)| blend(mixed, version, share))
    } else {
        let sum = versions.fold(image.zeros_like(), |sum, (version, share)| sum + version * share);
        blend(image, byte(sum), each(&|mixture: &Mixture| mixture.strength))
    })
}
