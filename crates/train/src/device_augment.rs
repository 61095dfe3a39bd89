//! Augmentation of batches on their device.

use burn::tensor::{Int, Tensor, TensorData};
use mbconv_kernels::image_ops::{Operation, Sampling, channels, from_channels, perform};

use mbconv_data::augment::{AugmentPlan, Mixture};

/// Applies each image's plan on the images' device, if there are plans.
pub fn apply(plans: &[AugmentPlan], pictures: Tensor<3, Int>) -> Tensor<3, Int> {
    if plans.is_empty() {
        return pictures;
    }
    let mut pictures = apply_chains(pictures, |image| &plans[image].first);
    let versions = |plan: &AugmentPlan| plan.mixture.as_ref().map_or(0, |mixture| mixture.versions.len());
    let versions = plans.iter().map(versions).max().unwrap_or(0);
    if versions > 0 {
        pictures = apply_mixtures(plans, pictures, versions);
    }
    apply_chains(pictures, |image| &plans[image].then)
}

/// Shorter chains end with identities.
fn apply_chains<'a>(
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

/// Applies each image's mixture, with at most `versions` versions.
fn apply_mixtures(plans: &[AugmentPlan], pictures: Tensor<3, Int>, versions: usize) -> Tensor<3, Int> {
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
        (channels(apply_chains(pictures.clone(), chain)), share)
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
