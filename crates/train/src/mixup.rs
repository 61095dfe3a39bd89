//! Mixup and cutmix of image batches of bytes, as in timm's `FastCollateMixup`, on the CPU or on
//! the device.

use burn::tensor::{Int, Tensor, TensorData};
use rand::{Rng, RngExt};
use rand_distr::{Beta, Distribution};

use mbconv_data::Batch;
use mbconv_data::seed::mix_rng;

use crate::config::mix::{MixConfig, MixMode};

/// Mixing of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mix {
    /// The image is not mixed.
    None,
    /// Mixup: the weight of the image. Its partner has the remaining weight.
    Blend(f32),
    /// Cutmix: the rectangle that is replaced by the partner's pixels.
    Paste(Rectangle),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rectangle {
    top: usize,
    bottom: usize,
    left: usize,
    right: usize,
}

/// Mixing of each image of a batch: image `i` is mixed with image `n - 1 - i`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mixes(Vec<Mix>);

impl Mixes {
    /// Draws the mixing of a batch. The result depends only on (seed, epoch, step).
    pub(crate) fn draw(batch: &Batch, config: &MixConfig, [seed, epoch, step]: [u64; 3]) -> Self {
        let mut rng = mix_rng(seed, epoch as usize, step as usize);
        Self(draw(batch.labels.len(), (batch.width, batch.height), config, &mut rng))
    }

    /// Mixes the images of a batch in place.
    pub(crate) fn mix_in_place(&self, batch: &mut Batch) {
        let Self(mixes) = self;
        let length = batch.width * batch.height * 3;
        let n = mixes.len();
        let (first, second) = batch.images.split_at_mut(n / 2 * length);
        for (i, (a, b)) in first.chunks_exact_mut(length).zip(second.rchunks_exact_mut(length)).enumerate() {
            let (mix_a, mix_b) = (mixes[i], mixes[n - 1 - i]);
            let original = if mix_b == Mix::None { Vec::new() } else { a.to_vec() };
            mix_one(a, b, batch.width, mix_a);
            mix_one(b, &original, batch.width, mix_b);
        }
    }

    /// Mixes images on the device: `x` `[N, H, W, C]` and the result contain byte values.
    pub(crate) fn mix_on_device(&self, x: Tensor<4>) -> Tensor<4> {
        let Self(mixes) = self;
        let ([n, height, width, _], device) = (x.dims(), x.device());
        let each = |number: fn(&Mix) -> f32| {
            let numbers: Vec<f32> = mixes.iter().map(number).collect();
            Tensor::<4>::from_data(TensorData::new(numbers, [n, 1, 1, 1]), &device)
        };
        let edge = |edge: fn(&Rectangle) -> usize| {
            let numbers: Vec<f32> =
                mixes.iter().map(|mix| if let Mix::Paste(area) = mix { edge(area) as f32 } else { 0.0 }).collect();
            Tensor::<4>::from_data(TensorData::new(numbers, [n, 1, 1, 1]), &device)
        };
        let positions = |count: usize| Tensor::<1, Int>::arange(0..count as i64, &device).float();
        let within = |positions: Tensor<4>, shape: [usize; 4], start: Tensor<4>, end: Tensor<4>| {
            let positions = positions.expand(shape);
            positions.clone().greater_equal(start.expand(shape)).bool_and(positions.lower(end.expand(shape)))
        };
        let (rows, columns) = ([n, height, 1, 1], [n, 1, width, 1]);
        let vertical =
            within(positions(height).reshape([1, height, 1, 1]), rows, edge(|area| area.top), edge(|area| area.bottom));
        let horizontal = within(
            positions(width).reshape([1, 1, width, 1]),
            columns,
            edge(|area| area.left),
            edge(|area| area.right),
        );
        let all = [n, height, width, 1];
        let pasted = vertical.expand(all).bool_and(horizontal.expand(all));
        let share =
            each(|mix| if let Mix::Blend(share) = mix { *share } else { 1.0 }).expand(all).mask_fill(pasted, 0.0);
        let partner = x.clone().flip([0]);
        (x * share.clone() + partner * (share.neg() + 1.0)).round()
    }

    /// Returns the mixed targets, row-major `[n, classes]`: label smoothing spreads `smoothing`
    /// evenly over all classes, and the rest is divided between the labels in the proportion of the
    /// images.
    pub(crate) fn targets(&self, batch: &Batch, classes: usize, smoothing: f64) -> Vec<f32> {
        targets(&batch.labels, &self.shares(batch), classes, smoothing)
    }

    /// Mixes targets of the images, row-major `[n, classes]`, in the proportion of the images.
    pub(crate) fn mix_targets(&self, batch: &Batch, rows: &[f32], classes: usize) -> Vec<f32> {
        let pairs = rows.chunks_exact(classes).zip(rows.chunks_exact(classes).rev()).zip(self.shares(batch));
        let mix = |((row, other), share): ((&[f32], &[f32]), f32)| -> Vec<f32> {
            row.iter().zip(other).map(|(one, other)| one * share + other * (1.0 - share)).collect()
        };
        pairs.flat_map(mix).collect()
    }

    /// Returns the share of each image in its mixture.
    fn shares(&self, batch: &Batch) -> Vec<f32> {
        let area = (batch.width * batch.height) as f64;
        let share = |mix: &Mix| match *mix {
            Mix::None => 1.0,
            Mix::Blend(share) => share,
            Mix::Paste(Rectangle { top, bottom, left, right }) => {
                (1.0 - ((bottom - top) * (right - left)) as f64 / area) as f32
            }
        };
        self.0.iter().map(share).collect()
    }
}

/// Draws the mixing of each image.
fn draw(n: usize, size: (usize, usize), config: &MixConfig, rng: &mut impl Rng) -> Vec<Mix> {
    let mut one = || draw_one(size, config, rng);
    match config.mode {
        MixMode::Batch => vec![one(); n],
        MixMode::Elem => (0..n).map(|_| one()).collect(),
        MixMode::Pair => {
            let half: Vec<Mix> = (0..n / 2).map(|_| one()).collect();
            let middle = (n % 2 == 1).then_some(Mix::None);
            half.iter().copied().chain(middle).chain(half.iter().rev().copied()).collect()
        }
    }
}

fn draw_one((width, height): (usize, usize), config: &MixConfig, rng: &mut impl Rng) -> Mix {
    let MixConfig { mixup, cutmix, cutmix_range, probability, switch_probability, .. } = *config;
    let cutmix = if cutmix_range.is_some() { 1.0 } else { cutmix };
    if rng.random::<f64>() >= probability || (mixup <= 0.0 && cutmix <= 0.0) {
        return Mix::None;
    }
    let cut = cutmix > 0.0 && (mixup <= 0.0 || rng.random::<f64>() < switch_probability);
    let alpha = if cut { cutmix } else { mixup };
    let share = Beta::new(alpha, alpha).map_or(1.0, |beta| beta.sample(rng));
    if !cut {
        return Mix::Blend(share as f32);
    }
    let below = |end: usize, rng: &mut _| if end > 0 { RngExt::random_range(rng, 0..end) } else { 0 };
    match cutmix_range {
        None => {
            let ratio = (1.0 - share).sqrt();
            // The center of the rectangle may be any pixel; the part outside the image is cut off.
            let mut span = |length: usize| {
                let cut = (length as f64 * ratio) as usize;
                let centre = below(length, rng);
                (centre.saturating_sub(cut / 2), (centre + cut.div_ceil(2)).min(length))
            };
            let ((top, bottom), (left, right)) = (span(height), span(width));
            Mix::Paste(Rectangle { top, bottom, left, right })
        }
        Some([low, high]) => {
            let mut span = |length: usize| {
                let (least, most) = ((length as f64 * low) as usize, (length as f64 * high) as usize);
                let cut = least + below(most.saturating_sub(least), rng);
                let start = below(length - cut + 1, rng);
                (start, start + cut)
            };
            let ((top, bottom), (left, right)) = (span(height), span(width));
            Mix::Paste(Rectangle { top, bottom, left, right })
        }
    }
}

fn mix_one(image: &mut [u8], partner: &[u8], width: usize, mix: Mix) {
    match mix {
        Mix::None => {}
        Mix::Blend(share) => {
            for (value, &other) in image.iter_mut().zip(partner) {
                let mixed = f32::from(*value) * share + f32::from(other) * (1.0 - share);
                *value = mixed.round_ties_even() as u8;
            }
        }
        Mix::Paste(Rectangle { top, bottom, left, right }) => {
            for y in top..bottom {
                let row = (y * width + left) * 3..(y * width + right) * 3;
                image[row.clone()].copy_from_slice(&partner[row]);
            }
        }
    }
}

/// Returns the smoothed and mixed targets, row-major.
fn targets(labels: &[usize], shares: &[f32], classes: usize, smoothing: f64) -> Vec<f32> {
    let off = (smoothing / classes as f64) as f32;
    let on = (1.0 - smoothing + smoothing / classes as f64) as f32;
    let one_hot = |class: usize, label: usize| if class == label { on } else { off };
    let mut targets = Vec::with_capacity(labels.len() * classes);
    for ((&label, &other), &share) in labels.iter().zip(labels.iter().rev()).zip(shares) {
        targets.extend((0..classes).map(|class| one_hot(class, label) * share + one_hot(class, other) * (1.0 - share)));
    }
    targets
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Fixture {
        images: Vec<u8>,
        labels: Vec<usize>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        mode: String,
        cut: bool,
        lam: Vec<f32>,
        boxes: Vec<[usize; 4]>,
        images: Vec<u8>,
        targets: Vec<f64>,
    }

    /// With timm's random values, images are bit-identical to timm's.
    #[test]
    fn mixed_images_and_targets_match_timm() {
        let fixture: Fixture = serde_json::from_str(include_str!("../tests/fixtures/mixes.json")).unwrap();
        assert_eq!(fixture.cases.len(), 6);
        for case in fixture.cases {
            let draws: Vec<Mix> = case
                .lam
                .iter()
                .zip(&case.boxes)
                .map(
                    |(&lam, &[top, bottom, left, right])| {
                        if case.cut { Mix::Paste(Rectangle { top, bottom, left, right }) } else { Mix::Blend(lam) }
                    },
                )
                .collect();
            let mixes: Vec<Mix> = match case.mode.as_str() {
                "batch" => vec![draws[0]; 4],
                "pair" => vec![draws[0], draws[1], draws[1], draws[0]],
                _ => draws,
            };
            let mut batch = Batch {
                images: fixture.images.clone(),
                labels: fixture.labels.clone(),
                height: 6,
                width: 5,
                indices: vec![0; 4],
                plans: vec![],
            };
            let (mixes, device) = (Mixes(mixes), Device::default());
            let on_device =
                Tensor::from_data(TensorData::new(batch.images.clone(), [4, 6, 5, 3]).convert::<f32>(), &device);
            let on_device: Vec<u8> = mixes.mix_on_device(on_device).into_data().convert::<u8>().try_to_vec().unwrap();
            mixes.mix_in_place(&mut batch);
            assert_eq!(batch.images, case.images, "{} {}", case.mode, case.cut);
            assert_eq!(on_device, case.images, "{} {} on the device", case.mode, case.cut);
            for (ours, theirs) in mixes.targets(&batch, 3, 0.1).iter().zip(&case.targets) {
                assert!((f64::from(*ours) - theirs).abs() < 1e-6, "{} {}", case.mode, case.cut);
            }
        }
    }

    fn config(mixup: f64, cutmix: f64, mode: MixMode) -> MixConfig {
        MixConfig { mixup, cutmix, mode, ..MixConfig::default() }
    }

    #[test]
    fn switch_probability_selects_mixup_or_cutmix() {
        let both = config(0.2, 1.0, MixMode::Elem);
        let mixes = draw(2000, (32, 32), &both, &mut mix_rng(0, 0, 0));
        let cut = mixes.iter().filter(|mix| matches!(mix, Mix::Paste(_))).count();
        assert!((900..1100).contains(&cut), "{cut}");
        let rare = MixConfig { probability: 0.1, ..both };
        let kept = draw(2000, (32, 32), &rare, &mut mix_rng(0, 0, 0)).iter().filter(|mix| **mix == Mix::None).count();
        assert!((1740..1860).contains(&kept), "{kept}");
    }

    #[test]
    fn last_epochs_are_not_mixed() {
        let mix = MixConfig { off_epochs: 3, ..config(0.2, 0.0, MixMode::Batch) };
        assert!(mix.is_on(6, 10) && !mix.is_on(7, 10) && !MixConfig::default().is_on(0, 10));
    }

    proptest! {
        /// Covers odd batch sizes, and compares mixing on the CPU and on the device.
        #[test]
        fn targets_sum_to_one_and_mixing_is_reproducible(n in 0usize..7, side in 1usize..6, mode in 0usize..3, seed in any::<u64>(), range in any::<bool>()) {
            let mode = [MixMode::Batch, MixMode::Pair, MixMode::Elem][mode];
            let cutmix_range = range.then_some([0.2, 0.9]);
            let config = MixConfig { cutmix_range, ..config(0.8, 1.0, mode) };
            let batch = Batch {
                images: (0..n * side * side * 3).map(|i| (seed.wrapping_mul(i as u64 + 7) >> 40) as u8).collect(),
                labels: (0..n).map(|i| i % 4).collect(),
                height: side,
                width: side,
                indices: vec![0; n],
                plans: vec![],
            };
            let mixes = Mixes::draw(&batch, &config, [seed, 1, 2]);
            let run = || {
                let (mut batch, mixes) = (batch.clone(), Mixes::draw(&batch, &config, [seed, 1, 2]));
                mixes.mix_in_place(&mut batch);
                let targets = mixes.targets(&batch, 4, 0.1);
                // One-hot rows are mixed as labels.
                let rows: Vec<f32> = batch.labels.iter().flat_map(|label| (0..4).map(move |class| if class == *label { 1.0 } else { 0.0 })).collect();
                assert_eq!(mixes.mix_targets(&batch, &rows, 4), mixes.targets(&batch, 4, 0.0));
                (batch, targets)
            };
            let (mixed, targets) = run();
            prop_assert_eq!(targets.len(), n * 4);
            for row in targets.chunks(4) {
                prop_assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
            if n % 2 == 1 {
                let middle = n / 2 * side * side * 3..(n / 2 + 1) * side * side * 3;
                prop_assert_eq!(&mixed.images[middle.clone()], &batch.images[middle]);
            }
            if n > 0 {
                let on_device = TensorData::new(batch.images.clone(), [n, side, side, 3]).convert::<f32>();
                let on_device = mixes.mix_on_device(Tensor::from_data(on_device, &Device::default()));
                let on_device: Vec<u8> = on_device.into_data().convert::<u8>().try_to_vec().unwrap();
                prop_assert_eq!(&on_device, &mixed.images);
            }
            let again = run();
            prop_assert_eq!((mixed, targets), again);
        }
    }
}
