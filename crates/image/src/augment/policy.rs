//! Augmentation policies: random choice of operations.

use std::fmt;
use std::str::FromStr;

use rand::distr::weighted::WeightedIndex;
use rand::{Rng, RngExt};
use rand_distr::{Beta, Distribution, Gamma};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::augment::plan::{Chain, Mixture};
use crate::augment::policies::{
    AUGMIX, CIFAR10, IMAGENET, ORIGINAL, RAND, RAND_3A, RAND_INCREASING, RAND_WEIGHTED, RAND_WEIGHTED_3A,
    RAND_WEIGHTS_0, SVHN, TimmRow, TorchvisionRow, V0,
};
use crate::augment::settings::{PolicyError, Settings};
use crate::augment::timm::{self, Magnitude, Step};
use crate::augment::torchvision::{self, Space};
use mbconv_kernels::image_ops::{Operation, Sampling};

use crate::augment::plan::AugmentPlan;

/// An augmentation policy, selected by name and sampled separately for each image.
///
/// | name | policy |
/// |---|---|
/// | `rand-m9-mstd0.5-inc1` | timm's RandAugment with all its settings, and the older `w0` |
/// | `v0`, `v0r`, `original`, `originalr`, `3a` | timm's AutoAugment, optionally `-mstd0.5` |
/// | `augmix-m3-w3-d2` | timm's AugMix |
/// | `ra` | torchvision's RandAugment, optionally with `-m9-n2` |
/// | `ta_wide` | torchvision's TrivialAugmentWide |
/// | `imagenet`, `cifar10`, `svhn` | torchvision's AutoAugment policies |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Policy {
    name: String,
    scheme: Scheme,
}

#[derive(Clone, Debug, PartialEq)]
enum Scheme {
    /// A random row of steps, with equal probability.
    TimmAuto(Vec<Vec<Step>>),
    /// `layers` random steps, without replacement if there are weights.
    TimmRand { steps: Vec<Step>, layers: usize, weights: Option<Vec<f64>> },
    /// `width` chains of `depth` steps (1 to 3 if `depth` is 0), mixed with each other and with the
    /// image.
    AugMix { steps: Vec<Step>, alpha: f64, width: usize, depth: usize, blended: bool },
    /// A random row, with equal probability.
    TorchvisionAuto(&'static [[TorchvisionRow; 2]]),
    /// `layers` random operations with magnitude bin `bin`.
    TorchvisionRand { layers: usize, bin: usize },
    /// One random operation with a random bin.
    TrivialWide,
}

impl Policy {
    /// Returns whether the policy is timm's. timm's operations fill with the mean color and choose
    /// their filter at random; torchvision's fill with black.
    pub fn is_timms(&self) -> bool {
        !matches!(self.scheme, Scheme::TorchvisionAuto(_) | Scheme::TorchvisionRand { .. } | Scheme::TrivialWide)
    }

    /// Adds the chosen operations for an image of `size`, (width, height); `sampling` is called for
    /// each of them.
    pub(crate) fn draw<R: Rng>(
        &self,
        plan: &mut AugmentPlan,
        size: (usize, usize),
        sampling: &impl Fn(&mut R) -> Sampling,
        rng: &mut R,
    ) {
        let mut push = |operation: Operation, rng: &mut R| plan.push(operation, sampling(rng));
        match &self.scheme {
            Scheme::TimmAuto(rows) => {
                for step in &rows[rng.random_range(0..rows.len())] {
                    push(step.draw(size, rng), rng);
                }
            }
            Scheme::TimmRand { steps, layers, weights } => {
                for index in choose(steps.len(), *layers, weights.as_deref(), rng) {
                    push(steps[index].draw(size, rng), rng);
                }
            }
            Scheme::AugMix { steps, alpha, width, depth, blended } => {
                let shares = dirichlet(*alpha, *width, rng);
                let strength = Beta::new(*alpha, *alpha).map_or(0.5, |beta| beta.sample(rng)) as f32;
                let shares = if *blended { blended_shares(&shares, strength) } else { shares };
                let mut chain = |_| -> Chain {
                    let depth = if *depth > 0 { *depth } else { rng.random_range(1..=3) };
                    let mut step = |_| (steps[rng.random_range(0..steps.len())].draw(size, rng), sampling(rng));
                    (0..depth).map(&mut step).collect()
                };
                let versions = shares.into_iter().map(|share| (chain(()), share)).collect();
                plan.mixture = Some(Mixture { versions, strength: (!blended).then_some(strength) });
            }
            Scheme::TorchvisionAuto(rows) => {
                for &(kind, probability, bin) in &rows[rng.random_range(0..rows.len())] {
                    if rng.random::<f64>() <= probability {
                        push(Space::AUTO.operation(kind, bin, size, rng), rng);
                    }
                }
            }
            Scheme::TorchvisionRand { layers, bin } => {
                for _ in 0..*layers {
                    let kind = torchvision::KINDS[rng.random_range(0..torchvision::KINDS.len())];
                    push(Space::RAND.operation(kind, *bin, size, rng), rng);
                }
            }
            Scheme::TrivialWide => {
                let kind = torchvision::KINDS[rng.random_range(0..torchvision::KINDS.len())];
                let bin = rng.random_range(0..Space::WIDE.bins);
                push(Space::WIDE.operation(kind, bin, size, rng), rng);
            }
        }
    }
}

/// Chooses `count` of `n` items: uniformly with replacement, or by weight without.
fn choose(n: usize, count: usize, weights: Option<&[f64]>, rng: &mut impl Rng) -> Vec<usize> {
    let Some(weights) = weights else {
        return (0..count).map(|_| rng.random_range(0..n)).collect();
    };
    let mut weights = weights.to_vec();
    let mut chosen = Vec::with_capacity(count);
    for _ in 0..count {
        let Ok(distribution) = WeightedIndex::new(&weights) else { break };
        let index = distribution.sample(rng);
        weights[index] = 0.0;
        chosen.push(index);
    }
    chosen
}

/// Samples a symmetric Dirichlet distribution: `n` weights that sum to 1.
fn dirichlet(alpha: f64, n: usize, rng: &mut impl Rng) -> Vec<f32> {
    let Ok(gamma) = Gamma::new(alpha, 1.0) else { return vec![1.0 / n as f32; n] };
    let samples: Vec<f64> = (0..n).map(|_| gamma.sample(rng)).collect();
    let sum: f64 = samples.iter().sum();
    samples.iter().map(|sample| if sum > 0.0 { (sample / sum) as f32 } else { 1.0 / n as f32 }).collect()
}

/// Returns timm's weights for blending the chains one after the other instead of summing them.
fn blended_shares(shares: &[f32], strength: f32) -> Vec<f32> {
    let mut left = 1.0;
    let mut blended: Vec<f32> = shares
        .iter()
        .rev()
        .map(|share| {
            let alpha = share * strength / left;
            left *= 1.0 - alpha;
            alpha
        })
        .collect();
    blended.reverse();
    blended
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let (base, settings) = match text.split_once('-') {
            Some((base, rest)) => (base, rest),
            None => (text, ""),
        };
        let mut settings = Settings::parse(settings)?;
        let scheme = match base {
            "rand" => rand_augment(&mut settings)?,
            "augmix" => aug_mix(&mut settings)?,
            "v0" | "v0r" | "original" | "originalr" | "3a" => auto_augment(base, &mut settings)?,
            "imagenet" => Scheme::TorchvisionAuto(&IMAGENET),
            "cifar10" => Scheme::TorchvisionAuto(&CIFAR10),
            "svhn" => Scheme::TorchvisionAuto(&SVHN),
            "ta_wide" => Scheme::TrivialWide,
            "ra" => Scheme::TorchvisionRand {
                layers: settings.take("n", 2.0, 0.0..=100.0)? as usize,
                bin: settings.take("m", 9.0, 0.0..=(Space::RAND.bins - 1) as f64)? as usize,
            },
            _ => return Err(PolicyError::Unknown),
        };
        settings.finish()?;
        Ok(Self { name: text.into(), scheme })
    }
}

fn rand_augment(settings: &mut Settings) -> Result<Scheme, PolicyError> {
    let increasing = settings.take("inc", 0.0, 0.0..=1.0)? != 0.0;
    let set = if increasing { RAND_INCREASING } else { RAND };
    let plain = |kinds: &[timm::Kind]| (kinds.to_vec(), None);
    let weighted = |rows: &[(timm::Kind, f64)]| {
        (rows.iter().map(|row| row.0).collect(), Some(rows.iter().map(|row| row.1).collect()))
    };
    let old_weights = settings.take_text("w");
    let (kinds, weights): (Vec<timm::Kind>, Option<Vec<f64>>) = match (settings.take_text("t"), old_weights) {
        (None, None) => plain(&set),
        (None, Some(text)) if text == "0" => (set.to_vec(), Some(RAND_WEIGHTS_0.to_vec())),
        (Some(text), None) if text == "weights" => weighted(&RAND_WEIGHTED),
        (Some(text), None) if text == "3aw" => weighted(&RAND_WEIGHTED_3A),
        (Some(text), None) if text == "3a" => plain(&RAND_3A),
        (Some(text), _) => return Err(PolicyError::setting("t", &text, "weights, 3a or 3aw")),
        (_, Some(text)) => return Err(PolicyError::setting("w", &text, "0")),
    };
    let probability = settings.take("p", 0.5, 0.0..=1.0)?;
    let most = settings.take("mmax", 10.0, 0.0..=1000.0)?;
    // timm treats 0 as its default.
    let most = if most == 0.0 { 10.0 } else { most };
    let mean = settings.take("m", 10.0, 0.0..=1000.0)?;
    let magnitude = Magnitude { most, ..Magnitude::new(mean, settings.deviation(0.0)?) };
    let available =
        weights.as_ref().map_or(usize::MAX, |weights: &Vec<f64>| weights.iter().filter(|w| **w > 0.0).count());
    let layers = settings.take("n", 2.0, 0.0..=(available.min(100)) as f64)? as usize;
    let steps = kinds.into_iter().map(|kind| Step { kind, probability, magnitude }).collect();
    Ok(Scheme::TimmRand { steps, layers, weights })
}

fn auto_augment(base: &str, settings: &mut Settings) -> Result<Scheme, PolicyError> {
    use timm::Kind::{GaussianBlurRand, Posterize, PosterizeIncreasing, PosterizeOriginal, Solarize};
    let deviation = settings.deviation(0.0)?;
    let step =
        |(kind, probability, mean): TimmRow| Step { kind, probability, magnitude: Magnitude::new(mean, deviation) };
    let rows = |rows: &[[TimmRow; 2]]| rows.iter().map(|row| row.iter().copied().map(step).collect()).collect();
    // The variants with an `r` posterize more at greater magnitudes.
    let research = |policy: &[[TimmRow; 2]]| {
        let swap = |(kind, probability, mean): TimmRow| match kind {
            Posterize | PosterizeOriginal => (PosterizeIncreasing, probability, mean),
            kind => (kind, probability, mean),
        };
        rows(&policy.iter().map(|row| row.map(swap)).collect::<Vec<_>>())
    };
    let of_deit = [(Solarize, 1.0, 5.0), (timm::Kind::Desaturate, 1.0, 10.0), (GaussianBlurRand, 1.0, 10.0)];
    Ok(Scheme::TimmAuto(match base {
        "v0" => rows(&V0),
        "v0r" => research(&V0),
        "original" => rows(&ORIGINAL),
        "originalr" => research(&ORIGINAL),
        _ => of_deit.map(|row| vec![step(row)]).to_vec(),
    }))
}

fn aug_mix(settings: &mut Settings) -> Result<Scheme, PolicyError> {
    let mean = settings.take("m", 3.0, 0.0..=1000.0)?;
    let magnitude = Magnitude { translation: 0.3, ..Magnitude::new(mean, settings.deviation(f64::INFINITY)?) };
    Ok(Scheme::AugMix {
        steps: AUGMIX.map(|kind| Step { kind, probability: 1.0, magnitude }).to_vec(),
        alpha: settings.take("a", 1.0, 1e-3..=1e3)?,
        width: settings.take("w", 3.0, 1.0..=100.0)? as usize,
        depth: settings.take("d", 0.0, 0.0..=100.0)? as usize,
        blended: settings.take("b", 0.0, 0.0..=1.0)? != 0.0,
    })
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl TryFrom<String> for Policy {
    type Error = PolicyError;

    fn try_from(text: String) -> Result<Self, PolicyError> {
        text.parse()
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        policy.name
    }
}
