//! `mbconv calibrate` of multi-label models: the temperature, and the threshold of each class.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use mbconv_train::Model;
use mbconv_train::classifier::{Classifier, Tta};
use mbconv_train::data::LabelSets;
use mbconv_train::device::Device;
use mbconv_train::evaluate::{Labelled, classify};
use mbconv_train::metrics::{DEFAULT_THRESHOLD, MultiLabelScores, Outcomes, fit_sigmoid_temperature, macro_mean};
use mbconv_train::model_file::{ModelCard, MultiLabel};
use mbconv_train::multi_label::label_sets_of;
use mbconv_train::precision::MapPrecision;
use mbconv_train::text::visible_name;
use serde_json::{Value, json};

use super::calibrated::{Calibrated, limit_note, not_finite};
use super::labelled_data::LabelledData;
use crate::error::CliError;
use crate::terminal::Progress;
use crate::units::{count, percent};

/// Fits the temperature and chooses the thresholds.
pub fn calibrate(
    model: &Model,
    data: &LabelledData,
    device: &Device,
    stop: &AtomicBool,
) -> Result<Calibrated, CliError> {
    let classes = &model.card.classes;
    let sets = label_sets_of(&data.data, classes)?;
    let images = Images::of(model, data, &sets, device, stop)?;
    let temperature = fit_sigmoid_temperature(&images.logits, &images.truths(&sets, classes.len()));
    if !temperature.loss.is_finite() {
        return Err(not_finite(model));
    }
    let before = images.scores(&sets, classes.len(), 1.0);
    let after = images.scores(&sets, classes.len(), temperature.value);
    let thresholds = after.best_thresholds();
    let default = vec![DEFAULT_THRESHOLD; classes.len()];
    let rows = [Quality::of(&before, &default), Quality::of(&after, &thresholds)];
    let multi_label = Some(MultiLabel { thresholds: Some(thresholds.clone()) });
    let card = ModelCard { temperature: Some(temperature.value), ..model.card.clone() }.with_multi_label(multi_label);
    let number = images.labels.len();
    let shown = format!("{} images of {}", count(number), data.split_name());
    Ok(Calibrated {
        card,
        json: json!({
            "temperature": temperature.value,
            "at_limit": temperature.at_limit,
            "thresholds": thresholds,
            "images": number,
            "split": data.split,
            "before": rows[0].to_json(),
            "after": rows[1].to_json(),
        }),
        text: text(temperature.value, &shown, &rows, &after, &thresholds, classes),
        note: temperature.at_limit.then(|| limit_note(&temperature)),
    })
}

/// Logits and labels of all images.
struct Images {
    /// `[N · classes]`.
    logits: Vec<f32>,
    labels: Vec<usize>,
}

impl Images {
    fn of(
        model: &Model,
        data: &LabelledData,
        sets: &LabelSets,
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<Self, CliError> {
        let network = MapPrecision::F32.inference(&model.network);
        let preprocess = &model.card.preprocess;
        let classifier = Classifier { network: &network, preprocess, device, tta: Tta::None, multi_label: true };
        let mut images = Self { logits: Vec::new(), labels: Vec::new() };
        let mut progress = Progress::new();
        let total = data.loader.len();
        let labelled = Labelled::in_sets(&data.loader, sets);
        let classified = classify(&classifier, &labelled, stop, &mut |batch| {
            for image in batch {
                images.logits.extend(image.logits);
                images.labels.push(image.label);
            }
            progress.advance("classifying", images.labels.len(), total, String::new());
            ControlFlow::Continue(())
        });
        progress.finish();
        classified?;
        Ok(images)
    }

    /// Returns whether each image has each class, `[N · classes]`.
    fn truths(&self, sets: &LabelSets, classes: usize) -> Vec<bool> {
        sets.multi_hot(&self.labels, classes).into_iter().map(|target| target > 0.0).collect()
    }

    /// Returns the probabilities with a temperature.
    fn scores(&self, sets: &LabelSets, classes: usize, temperature: f64) -> MultiLabelScores {
        let mut scores = MultiLabelScores::new(classes);
        for (logits, &label) in self.logits.chunks_exact(classes).zip(&self.labels) {
            let scaled: Vec<f32> = logits.iter().map(|&logit| (f64::from(logit) / temperature) as f32).collect();
            scores.add(&scaled, sets.classes(label));
        }
        scores
    }
}

/// Quality of probabilities and thresholds.
struct Quality {
    loss: f64,
    micro_f1: f64,
    macro_f1: f64,
}

impl Quality {
    fn of(scores: &MultiLabelScores, thresholds: &[f32]) -> Self {
        let outcomes = scores.outcomes(thresholds);
        let micro_f1 = Outcomes::sum(&outcomes).f1();
        Self { loss: scores.loss(), micro_f1, macro_f1: macro_mean(&outcomes, Outcomes::f1) }
    }

    fn to_json(&self) -> Value {
        json!({ "loss": self.loss, "micro_f1": self.micro_f1, "macro_f1": self.macro_f1 })
    }
}

fn text(
    temperature: f64,
    images: &str,
    [before, after]: &[Quality; 2],
    scores: &MultiLabelScores,
    thresholds: &[f32],
    classes: &[String],
) -> String {
    let mut text = format!("temperature {temperature:.4} and thresholds, fitted on {images}\n\n");
    let mut row = |name: &str, [before, after]: [String; 2]| {
        let _ = writeln!(text, "{name:<26}{before:>9}{after:>10}");
    };
    row("", ["before", "after"].map(String::from));
    row("binary cross-entropy", [before, after].map(|quality| format!("{:.4}", quality.loss)));
    row("micro F1", [before, after].map(|quality| percent(quality.micro_f1)));
    row("macro F1", [before, after].map(|quality| percent(quality.macro_f1)));
    let width = classes.iter().map(|class| visible_name(class).chars().count()).max().unwrap_or(0).max(5);
    let _ = writeln!(text, "\n{:<width$}  images  threshold        F1", "class");
    for (index, outcomes) in scores.outcomes(thresholds).iter().enumerate() {
        let (name, threshold, f1) = (visible_name(&classes[index]), thresholds[index], percent(outcomes.f1()));
        let _ = writeln!(text, "{name:<width$}  {:>6}  {threshold:>9.3}  {f1:>8}", outcomes.images);
    }
    text
}
