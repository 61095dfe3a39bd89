//! What a training step minimises: mixed targets, the loss, a teacher.

use burn::tensor::{Device, Int, Tensor, TensorData};
use mbconv_nets::Network;

use crate::batch::{Normaliser, pixels, targets};
use crate::data::{Batch, Source};
use crate::device::is_host;
use crate::evaluate::EvaluateError;
use crate::import::{ImportError, ImportOptions, load_weights};
use crate::loss::{Loss, Targets, cross_entropy, soft_distillation};
use crate::mix::Mixes;
use crate::model_file::Model;
use crate::recipe::{DistillationConfig, DistillationKind, LossName, Recipe, RecipeError};

/// Why a run has no objective.
#[derive(Debug, thiserror::Error)]
pub enum ObjectiveError {
    /// Class weights that do not fit the data.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A teacher that cannot be opened.
    #[error("the teacher: {0}")]
    Teacher(#[from] ImportError),
    /// A teacher that lacks a class, or takes other images.
    #[error("the teacher: {0}")]
    Classes(#[from] EvaluateError),
}

impl ObjectiveError {
    /// What would mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Teacher(error) => error.hint(),
            Self::Classes(EvaluateError::UnknownClass { .. }) => {
                Some("a teacher must know every class of the data, by name".into())
            }
            Self::Classes(error) => error.hint(),
            Self::Recipe(_) => None,
        }
    }
}

/// What a training step minimises.
pub(crate) struct Objective<'a> {
    recipe: &'a Recipe,
    classes: usize,
    loss: Loss,
    teacher: Option<Teacher<'a>>,
    /// Where gradients are taken.
    device: Device,
}

impl<'a> Objective<'a> {
    /// The recipe's objective for training on `source`; `device` is one that takes gradients.
    pub(crate) fn new(
        recipe: &'a Recipe,
        classes: &[String],
        source: &dyn Source,
        device: &Device,
    ) -> Result<Self, ObjectiveError> {
        let mut counts = vec![0; classes.len()];
        (0..source.len()).for_each(|index| counts[source.label(index)] += 1);
        let loss = Loss::new(&recipe.loss, recipe.label_smoothing, &counts, device)?;
        let teacher =
            recipe.distillation.as_ref().map(|config| Teacher::open(config, classes, &device.clone().inner()));
        Ok(Self { recipe, classes: classes.len(), loss, teacher: teacher.transpose()?, device: device.clone() })
    }

    /// Returns a warning if the first batch's mean `loss` is far above `ln(classes)`, the loss of a classifier that
    /// finds all classes equally likely. Cross-entropy alone, since only its scale is known.
    pub(crate) fn doubt_first_loss(&self, loss: f64) -> Option<String> {
        let recipe = self.recipe;
        let uniform = (self.classes as f64).ln();
        let comparable = recipe.loss.name == LossName::CrossEntropy && recipe.distillation.is_none();
        (comparable && loss > 2.0 * uniform + 0.5).then(|| {
            format!(
                "warning: the first loss is {loss:.2}, far above ln({}) = {uniform:.2}, that of an untrained classifier: its \
                 first outputs are large or wrong. Check labels, input.mean and input.std, and the weights it starts from",
                self.classes
            )
        })
    }

    /// A batch's pixels on the device and what the network shall say of them, mixed where the recipe says so: in place on the
    /// processor, elsewhere once they are there. Draws from (seed, epoch, step) alone.
    pub(crate) fn prepare(&self, mut batch: Batch, epoch: usize, step: usize) -> (Tensor<4>, Prepared) {
        let labels = targets(&batch, &self.device);
        if !self.recipe.mix.is_on(epoch, self.recipe.epochs) {
            return self.prepared(pixels(&mut batch, &self.device), Targets { labels, shares: None });
        }
        let place = [self.recipe.seed, epoch as u64, step as u64];
        let mixes = Mixes::draw(&batch, &self.recipe.mix, place);
        let shares = mixes.targets(&batch, self.classes, self.recipe.label_smoothing);
        let shares = TensorData::new(shares, [batch.labels.len(), self.classes]);
        let targets = Targets { labels, shares: Some(Tensor::from_data(shares, &self.device)) };
        let pixels = if is_host(&self.device.clone().inner()) && batch.plans.is_empty() {
            mixes.blend(&mut batch);
            pixels(&mut batch, &self.device)
        } else {
            mixes.blend_there(pixels(&mut batch, &self.device))
        };
        self.prepared(pixels, targets)
    }

    /// Pixels on the device, `[N, H, W, 3]`, and what is to be learnt from them.
    pub(crate) fn prepared(&self, pixels: Tensor<4>, targets: Targets) -> (Tensor<4>, Prepared) {
        let kept = self.teacher.is_some().then(|| pixels.clone());
        let images = pixels.dims()[0];
        (pixels, Prepared { images, targets, pixels: kept })
    }

    /// The loss of each image of a prepared batch, `[N]`, whose `logits` `[N, C]` the network gave.
    pub(crate) fn losses(&self, logits: Tensor<2>, prepared: &Prepared) -> Tensor<1> {
        let labels = self.loss.each(logits.clone(), &prepared.targets);
        let (Some(teacher), Some(pixels)) = (&self.teacher, &prepared.pixels) else { return labels };
        let alpha = teacher.config.alpha;
        labels.mul_scalar(1.0 - alpha) + teacher.losses(logits, pixels.clone().inner()).mul_scalar(alpha)
    }
}

/// What a batch is to be learnt from, beside its pixels.
pub(crate) struct Prepared {
    /// How many.
    pub(crate) images: usize,
    /// What the network shall say.
    pub(crate) targets: Targets,
    /// For a teacher, where there is one.
    pixels: Option<Tensor<4>>,
}

/// A network to learn from.
struct Teacher<'a> {
    config: &'a DistillationConfig,
    network: Network,
    normaliser: Normaliser,
    /// Where the data's classes stand among the teacher's, `[C]`.
    columns: Tensor<1, Int>,
}

impl<'a> Teacher<'a> {
    fn open(config: &'a DistillationConfig, classes: &[String], device: &Device) -> Result<Self, ObjectiveError> {
        let Model { card, network, .. } = load_weights(&config.teacher, &ImportOptions::default(), device)?.model;
        card.preprocess.takes_pictures().map_err(EvaluateError::from)?;
        let find = |class: &String| {
            let unknown = || EvaluateError::UnknownClass { class: class.clone(), known: card.classes.len() };
            card.classes.iter().position(|known| known == class).map(|index| index as i64).ok_or_else(unknown)
        };
        let columns: Vec<i64> = classes.iter().map(find).collect::<Result<_, _>>()?;
        let columns = Tensor::from_data(columns.as_slice(), device);
        Ok(Self { config, network, normaliser: Normaliser::new(&card.preprocess, device), columns })
    }

    /// The distance of each image's logits from the teacher's, `[N]`. The teacher sees the same pixels as the student, at the
    /// student's size, but normalised as it is used to.
    fn losses(&self, student: Tensor<2>, pixels: Tensor<4>) -> Tensor<1> {
        let logits = self.network.forward_channels_last(self.normaliser.apply(pixels));
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
    use crate::data::{self, OpenOptions};

    #[test]
    fn a_first_loss_far_above_that_of_an_untrained_classifier_is_doubted() {
        let data = data::open("digits", &OpenOptions::default()).unwrap();
        let train = data.split("train").unwrap();
        let doubt = |settings: &[&str], loss| {
            let text = "epochs = 1\nbatch_size = 8\n[model]\nname = \"mobilenet_v2_0.1\"\n[input]\nsize = 32\n\
                        [optimizer]\nname = \"sgd\"\nlearning_rate = 0.1\n";
            let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
            let recipe = Recipe::parse(text, &settings).unwrap();
            let objective = Objective::new(&recipe, &data.classes, &*train, &Device::default().autodiff()).unwrap();
            objective.doubt_first_loss(loss)
        };
        // ln(10) = 2.30
        assert_eq!(doubt(&[], 4.0), None);
        let warning = doubt(&[], 9.0).unwrap();
        assert!(warning.contains("the first loss is 9.00, far above ln(10) = 2.30"), "{warning}");
        // Binary cross-entropy has another scale.
        assert_eq!(doubt(&["loss.name=bce"], 9.0), None);
    }
}
