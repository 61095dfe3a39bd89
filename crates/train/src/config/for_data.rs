//! Settings that depend on whether the data are multi-label.

use mbconv_data::Sampling;

use super::checkpoint::Metric;
use super::error::{RecipeError, ensure};
use super::file::{Recipe, RecipeFile};
use super::loss::{ClassWeights, LossName, NamedWeights};

impl Recipe {
    /// Returns the recipe with the loss and the metric that `auto` stands for.
    ///
    /// # Errors
    /// Returns an error if a setting does not fit this kind of data.
    pub fn for_data(&self, multi_label: bool) -> Result<Self, RecipeError> {
        let mut file = RecipeFile::clone(self);
        file.loss.name = file.loss.name.resolved(multi_label);
        file.checkpoint.metric = file.checkpoint.metric.resolved(multi_label);
        if multi_label {
            check_multi_label(&file)?;
        } else {
            let fits = file.checkpoint.metric != Metric::Map;
            ensure(fits, "checkpoint.metric", "map", "another metric: these data have one class per image")?;
        }
        Self::try_from(file)
    }
}

/// Checks the settings of a run on multi-label data.
fn check_multi_label(file: &RecipeFile) -> Result<(), RecipeError> {
    let metrics = [Metric::Map, Metric::MacroF1, Metric::Loss];
    let metric = file.checkpoint.metric;
    let balanced = file.loss.class_weights == ClassWeights::Named(NamedWeights::Balanced);
    let of = |text: &str| format!("{text} for multi-label data");
    let loss = file.loss.name.text();
    ensure(file.loss.name == LossName::Bce, "loss.name", loss, &of("bce"))?;
    ensure(!balanced, "loss.class_weights", "balanced", &of("none or a list"))?;
    ensure(metrics.contains(&metric), "checkpoint.metric", metric.name(), &of("map, macro_f1 or loss"))?;
    ensure(file.sampling != Sampling::Balanced, "sampling", "balanced", &of("once or repeated"))?;
    ensure(file.distillation.is_none(), "distillation", "set", &of("left out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(settings: &[&str]) -> Recipe {
        let text = "epochs = 1\nbatch_size = 8\n[model]\nname = \"mobilenet_v2_0.1\"\n[input]\nsize = 32\n\
                    [optimizer]\nname = \"sgd\"\nlearning_rate = 0.1\n";
        Recipe::parse(text, &settings.iter().map(|setting| setting.to_string()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn loss_and_metric_depend_on_the_data() {
        let of = |multi_label| {
            let recipe = recipe(&[]).for_data(multi_label).unwrap();
            (recipe.loss.name, recipe.checkpoint.metric)
        };
        assert_eq!(of(false), (LossName::CrossEntropy, Metric::Top1));
        assert_eq!(of(true), (LossName::Bce, Metric::Map));
        let given = recipe(&["loss.name=focal", "checkpoint.metric=loss"]).for_data(false).unwrap();
        assert_eq!((given.loss.name, given.checkpoint.metric), (LossName::Focal, Metric::Loss));
    }

    #[test]
    fn unfit_settings_are_errors() {
        for (setting, multi_label, words) in [
            ("loss.name=cross_entropy", true, "`loss.name` is cross_entropy, but must be bce for multi-label data"),
            ("loss.name=focal", true, "must be bce"),
            ("loss.class_weights=balanced", true, "none or a list for multi-label data"),
            ("checkpoint.metric=top1", true, "`checkpoint.metric` is top1, but must be map, macro_f1 or loss"),
            ("sampling=balanced", true, "once or repeated"),
            ("distillation.teacher=t", true, "`distillation` is set, but must be left out"),
            ("checkpoint.metric=map", false, "one class per image"),
        ] {
            let recipe = recipe(&[setting]);
            let error = recipe.for_data(multi_label).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(recipe.for_data(!multi_label).is_ok(), "{setting}");
        }
        assert!(
            recipe(&["loss.class_weights=[1.0, 2.0]", "mix.mixup=0.2", "label_smoothing=0.1"]).for_data(true).is_ok()
        );
    }
}
