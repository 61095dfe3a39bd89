//! The training criterion: mixed targets, the loss and distillation.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use mbconv_nets::Network;

use crate::batch_metrics::{batch_metrics, multi_label_batch_metrics};
use crate::device::is_host;
use crate::evaluate::EvaluateError;
use crate::loss::{Loss, Targets, cross_entropy, soft_distillation};
use mbconv_data::{Batch, DataError, LabelSets, Source, class_counts};
use mbconv_interop::import::{ImportError, ImportOptions, load_weights};
use mbconv_interop::model_file::Model;

use crate::config::Recipe;
use crate::config::error::RecipeError;
use crate::config::loss::{DistillationConfig, DistillationKind, LossName};
use crate::mixup::Mixes;
use crate::normalize::{Normalizer, pixels, targets};

/// Errors of creating the criterion of a run.
#[derive(Debug, thiserror::Error)]
pub enum CriterionError {
    /// The class weights do not match the data.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The teacher could not be loaded.
    #[error("the teacher: {0}")]
    Teacher(#[from] ImportError),
    /// The teacher lacks a class or does not accept images.
    #[error("the teacher: {0}")]
    Classes(#[from] EvaluateError),
}

impl CriterionError {
    /// Returns a hint for fixing the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Teacher(error) => error.hint(),
            Self::Classes(EvaluateError::UnknownClass { .. }) => {
                Some("a teacher must have every class of the data, by name".into())
            }
            Self::Classes(error) => error.hint(),
            Self::Recipe(_) => None,
        }
    }
}

/// Computes the training loss of a batch.
pub(crate) struct Criterion<'a> {
    recipe: &'a Recipe,
    classes: usize,
    loss: Loss,
    /// The sets of classes of multi-label data.
    sets: Option<Arc<LabelSets>>,
    teacher: Option<Teacher<'a>>,
    /// Device with autodiff.
    device: Device,
}

impl<'a> Criterion<'a> {
    /// Creates the recipe's criterion for training on `source`. `device` must have autodiff
    /// enabled.
    pub(crate) fn new(
        recipe: &'a Recipe,
        classes: &[String],
        source: &dyn Source,
        device: &Device,
    ) -> Result<Self, CriterionError> {
        let counts = class_counts(source, classes.len());
        let loss = Loss::new(&recipe.loss, recipe.label_smoothing, &counts, device)?;
        let teacher =
            recipe.distillation.as_ref().map(|config| Teacher::open(config, classes, &device.clone().inner()));
        let sets = source.label_sets().cloned();
        Ok(Self { recipe, classes: classes.len(), loss, sets, teacher: teacher.transpose()?, device: device.clone() })
    }

    /// Returns a warning if the mean `loss` of the first batch is far above `ln(classes)`, the loss
    /// of a classifier with equal probabilities. Returns none for losses other than cross-entropy
    /// or with distillation, since their scale differs.
    pub(crate) fn doubt_first_loss(&self, loss: f64) -> Option<String> {
        let recipe = self.recipe;
        let uniform = (self.classes as f64).ln();
        let name = recipe.loss.name.resolved(self.sets.is_some());
        let comparable = name == LossName::CrossEntropy && recipe.distillation.is_none();
        (comparable && loss > 2.0 * uniform + 0.5).then(|| {
            format!(
                "warning: the first loss is {loss:.2}, far above ln({}) = {uniform:.2}, that of an untrained classifier: the \
                 first outputs are too large or wrong. Check labels, input.mean and input.std, and the weights it starts from",
                self.classes
            )
        })
    }

    /// Copies the pixels and targets of a batch to the device, mixed if the recipe enables mixing:
    /// in place on the CPU, otherwise on the device. Random values depend only on (seed, epoch,
    /// step).
    pub(crate) fn prepare(&self, mut batch: Batch, epoch: usize, step: usize) -> (Tensor<4>, Prepared) {
        let labels = targets(&batch, &self.device);
        let hot = self.sets.as_ref().map(|sets| self.smoothed(sets.multi_hot(&batch.labels, self.classes)));
        let size = [batch.labels.len(), self.classes];
        let tensor = |shares: Vec<f32>| Tensor::from_data(TensorData::new(shares, size), &self.device);
        if !self.recipe.mix.is_on(epoch, self.recipe.epochs) {
            return self.prepared(pixels(&mut batch, &self.device), Targets { labels, shares: hot.map(tensor) });
        }
        let place = [self.recipe.seed, epoch as u64, step as u64];
        let mixes = Mixes::draw(&batch, &self.recipe.mix, place);
        let shares = match hot {
            Some(hot) => mixes.mix_targets(&batch, &hot, self.classes),
            None => mixes.targets(&batch, self.classes, self.recipe.label_smoothing),
        };
        let targets = Targets { labels, shares: Some(tensor(shares)) };
        let pixels = if is_host(&self.device.clone().inner()) && batch.plans.is_empty() {
            mixes.mix_in_place(&mut batch);
            pixels(&mut batch, &self.device)
        } else {
            mixes.mix_on_device(pixels(&mut batch, &self.device))
        };
        self.prepared(pixels, targets)
    }

    /// Smooths multi-hot targets: each class is a question with two answers, so 1 becomes 1 - s / 2
    /// and 0 becomes s / 2.
    fn smoothed(&self, mut targets: Vec<f32>) -> Vec<f32> {
        let smoothing = self.recipe.label_smoothing as f32;
        targets.iter_mut().for_each(|target| *target = *target * (1.0 - smoothing) + 0.5 * smoothing);
        targets
    }

    /// Returns the losses of a prepared batch followed by the ranks of its targets, `[2N]`; see
    /// [`batch_metrics`].
    pub(crate) fn batch_metrics(&self, logits: &Tensor<2>, losses: &Tensor<1>, prepared: &Prepared) -> Tensor<1> {
        let Targets { labels, shares } = &prepared.targets;
        match (shares, &self.sets) {
            (Some(shares), Some(_)) => multi_label_batch_metrics(logits, shares, losses),
            _ => batch_metrics(logits, labels, losses),
        }
    }

    /// Returns pixels on the device, `[N, H, W, 3]`, and the training targets.
    pub(crate) fn prepared(&self, pixels: Tensor<4>, targets: Targets) -> (Tensor<4>, Prepared) {
        let teacher_input = self.teacher.is_some().then(|| pixels.clone());
        let images = pixels.dims()[0];
        (pixels, Prepared { images, targets, pixels: teacher_input })
    }

    /// Returns the loss of each image of a prepared batch, `[N]`, for the network's `logits`
    /// `[N, C]`.
    pub(crate) fn losses(&self, logits: Tensor<2>, prepared: &Prepared) -> Tensor<1> {
        let labels = self.loss.each(logits.clone(), &prepared.targets);
        let (Some(teacher), Some(pixels)) = (&self.teacher, &prepared.pixels) else { return labels };
        let alpha = teacher.config.alpha;
        labels.mul_scalar(1.0 - alpha) + teacher.losses(logits, pixels.clone().inner()).mul_scalar(alpha)
    }
}

/// Training targets of a batch.
pub(crate) struct Prepared {
    /// Number of images.
    pub(crate) images: usize,
    /// Targets of the loss.
    pub(crate) targets: Targets,
    /// Input of the teacher, if there is one.
    pixels: Option<Tensor<4>>,
}

/// The teacher of distillation.
struct Teacher<'a> {
    config: &'a DistillationConfig,
    network: Network,
    normalizer: Normalizer,
    /// Indices of the data's classes among the teacher's, `[C]`.
    columns: Tensor<1, Int>,
}

impl<'a> Teacher<'a> {
    fn open(config: &'a DistillationConfig, classes: &[String], device: &Device) -> Result<Self, CriterionError> {
        let Model { card, network, .. } = load_weights(&config.teacher, &ImportOptions::default(), device)?.model;
        card.preprocess.takes_pictures().map_err(DataError::from).map_err(EvaluateError::from)?;
        let find = |class: &String| {
            let unknown = || EvaluateError::UnknownClass { class: class.clone(), known: card.classes.len() };
            card.classes.iter().position(|known| known == class).map(|index| index as i64).ok_or_else(unknown)
        };
        let columns: Vec<i64> = classes.iter().map(find).collect::<Result<_, _>>()?;
        let columns = Tensor::from_data(columns.as_slice(), device);
        Ok(Self { config, network, normalizer: Normalizer::new(&card.preprocess, device), columns })
    }

    /// Returns the distillation loss of each image, `[N]`. The teacher receives the same pixels as
    /// the student, in the student's size, but with its own normalization.
    fn losses(&self, student: Tensor<2>, pixels: Tensor<4>) -> Tensor<1> {
        let logits = self.network.forward_channels_last(self.normalizer.apply(pixels));
        let logits = logits.select(1, self.columns.clone());
        match self.config.kind {
            DistillationKind::Soft => {
                let teacher = logits.to_device(&student.device());
                soft_distillation(student, teacher, self.config.temperature)
            }
            DistillationKind::Hard => {
                let chosen = logits.argmax(1).squeeze_dim::<1>(1).to_device(&student.device());
                cross_entropy(student, chosen, 0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mbconv_data::OpenOptions;

    #[test]
    fn multi_label_targets_are_smoothed_and_mixed() {
        let folder = tempfile::tempdir().unwrap();
        for image in 0..2 {
            let bytes = [&b"P6 4 4 255\n"[..], &[image * 200; 48]].concat();
            std::fs::write(folder.path().join(format!("{image}.ppm")), bytes).unwrap();
        }
        let table = folder.path().join("t.csv");
        std::fs::write(&table, "path,label\n0.ppm,a|b\n1.ppm,\n").unwrap();
        let options = OpenOptions { val_fraction: 0.0, ..OpenOptions::default() };
        let data = mbconv_data::open(table.to_str().unwrap(), &options).unwrap();
        let source = data.split("train").unwrap();
        let shares = |settings: &[&str]| {
            let text = "epochs = 1\nbatch_size = 2\nlabel_smoothing = 0.2\n[model]\nname = \"mobilenet_v2_0.1\"\n\
                        [input]\nsize = 32\n[optimizer]\nname = \"sgd\"\nlearning_rate = 0.1\n";
            let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
            let recipe = Recipe::parse(text, &settings).unwrap().for_data(true).unwrap();
            let criterion = Criterion::new(&recipe, &data.classes, &*source, &Device::default().autodiff()).unwrap();
            let labels = vec![source.label(0), source.label(1)];
            let batch =
                Batch { images: vec![0; 2 * 48], labels, height: 4, width: 4, indices: vec![0, 1], plans: vec![] };
            let (_, prepared) = criterion.prepare(batch, 0, 0);
            prepared.targets.shares.unwrap().into_data().try_to_vec::<f32>().unwrap()
        };
        let smoothed = shares(&[]);
        assert!(smoothed.iter().zip([0.9, 0.9, 0.1, 0.1]).all(|(a, b)| (a - b).abs() < 1e-6), "{smoothed:?}");
        let mixed = shares(&["mix.mixup=1.0"]);
        // Both images are mixed in the same proportion.
        assert!(mixed[0] == mixed[1] && mixed[2] == mixed[3] && (mixed[0] + mixed[2] - 1.0).abs() < 1e-6, "{mixed:?}");
        assert!(mixed[0] > 0.1 && mixed[0] < 0.9, "{mixed:?}");
    }

    #[test]
    fn high_first_loss_gives_a_warning() {
        let data = mbconv_data::open("digits", &OpenOptions::default()).unwrap();
        let train = data.split("train").unwrap();
        let doubt = |settings: &[&str], loss| {
            let text = "epochs = 1\nbatch_size = 8\n[model]\nname = \"mobilenet_v2_0.1\"\n[input]\nsize = 32\n\
                        [optimizer]\nname = \"sgd\"\nlearning_rate = 0.1\n";
            let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
            let recipe = Recipe::parse(text, &settings).unwrap();
            let criterion = Criterion::new(&recipe, &data.classes, &*train, &Device::default().autodiff()).unwrap();
            criterion.doubt_first_loss(loss)
        };
        // ln(10) = 2.30
        assert_eq!(doubt(&[], 4.0), None);
        let warning = doubt(&[], 9.0).unwrap();
        assert!(warning.contains("the first loss is 9.00, far above ln(10) = 2.30"), "{warning}");
        // Binary cross-entropy has a different scale.
        assert_eq!(doubt(&["loss.name=bce"], 9.0), None);
    }
}
