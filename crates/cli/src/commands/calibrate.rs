//! `mbconv calibrate`

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use mbconv_train::Model;
use mbconv_train::classifier::{Classifier, Tta};
use mbconv_train::device;
use mbconv_train::evaluate::{Labelled, classify};
use mbconv_train::metrics::{Calibration, Reliability, Temperature, argmax, cross_entropy, fit_temperature, softmax};
use mbconv_train::model_file::{ModelCard, ModelError, copy_with_card, read_card, resolve};
use mbconv_train::precision::MapPrecision;
use serde_json::json;

use super::calibrate_multi_label;
use super::calibrated::{Calibrated, limit_note, not_finite};
use super::labelled_data::LabelledData;
use crate::args::Calibrate;
use crate::error::CliError;
use crate::model_ref::open_uncalibrated;
use crate::output::{check_extension, check_is_file_name, print_json, print_text, print_written};
use crate::terminal::Progress;
use crate::units::{count, percent};

pub fn run(args: Calibrate, stop: &AtomicBool) -> Result<(), CliError> {
    if let Some(out) = &args.out {
        check_is_file_name(out, "model.safetensors")?;
        check_extension(out, "a model file", &["safetensors"])?;
    }
    let device = args.device.open()?;
    let model = open_uncalibrated(&args.model, &device, stop)?;
    let target = Target::of(&args.model, args.out.clone())?;
    let data = LabelledData::open(&args.images, &args.loader, &model.card, Tta::None, true)?;
    let Calibrated { card, mut json, text, note } = match model.card.multi_label {
        None => single_label(&model, &data, &device, stop)?,
        Some(_) => calibrate_multi_label::calibrate(&model, &data, &device, stop)?,
    };
    data.report_skipped();
    target.write(&model, &card)?;
    if args.json.json {
        json["model"] = json!(target.out);
        print_json(&json)?;
    } else {
        print_text(&text)?;
    }
    if let Some(note) = note {
        eprintln!("note: {note}");
    }
    print_written(&target.out)
}

/// Fits the temperature of a model with one class per image.
fn single_label(
    model: &Model,
    data: &LabelledData,
    device: &device::Device,
    stop: &AtomicBool,
) -> Result<Calibrated, CliError> {
    let logits = Logits::of(model, data, device, stop)?;
    let temperature = fit_temperature(&logits.values, &logits.labels, logits.classes);
    if !temperature.loss.is_finite() {
        return Err(not_finite(model));
    }
    let [before, after] = [1.0, temperature.value].map(|value| logits.quality(value));
    let images = format!("{} images of {}", count(logits.labels.len()), data.split_name());
    Ok(Calibrated {
        card: ModelCard { temperature: Some(temperature.value), ..model.card.clone() },
        json: json!({
            "temperature": temperature.value,
            "at_limit": temperature.at_limit,
            "images": logits.labels.len(),
            "split": data.split,
            "before": before.to_json(),
            "after": after.to_json(),
        }),
        text: table(&temperature, &images, [&before, &after]),
        note: temperature.at_limit.then(|| limit_note(&temperature)),
    })
}

/// The model file to write.
struct Target {
    out: PathBuf,
    /// The file whose weights are copied, if the model is a model file.
    from: Option<PathBuf>,
}

impl Target {
    fn of(model: &Path, out: Option<PathBuf>) -> Result<Self, CliError> {
        let from = resolve(model).ok().filter(|file| read_card(file).is_ok());
        match out.or_else(|| from.clone()) {
            Some(out) => Ok(Self { out, from }),
            None => Err(CliError::new(
                format!("{} is not a model file of mbconv, which could store the temperature", model.display()),
                "name the model file to write with --out FILE.safetensors".to_string(),
            )),
        }
    }

    fn write(&self, model: &Model, card: &ModelCard) -> Result<(), ModelError> {
        match &self.from {
            Some(from) => copy_with_card(from, card, &self.out),
            None => Model::save(&model.network, card, Default::default(), &self.out),
        }
    }
}

/// Logits and labels of all images.
struct Logits {
    /// `[N, classes]`.
    values: Vec<f32>,
    labels: Vec<usize>,
    classes: usize,
}

impl Logits {
    fn of(model: &Model, data: &LabelledData, device: &device::Device, stop: &AtomicBool) -> Result<Self, CliError> {
        let Model { card, network, .. } = model;
        let network = MapPrecision::F32.inference(network);
        let classifier =
            Classifier { network: &network, preprocess: &card.preprocess, device, tta: Tta::None, multi_label: false };
        let labelled = Labelled::by_name(&data.loader, &data.data, &card.classes)?;
        let mut logits = Self { values: Vec::new(), labels: Vec::new(), classes: card.classes.len() };
        let mut progress = Progress::new();
        let total = data.loader.len();
        let classified = classify(&classifier, &labelled, stop, &mut |images| {
            for image in images {
                logits.values.extend(image.logits);
                logits.labels.push(image.label);
            }
            progress.advance("classifying", logits.labels.len(), total, String::new());
            ControlFlow::Continue(())
        });
        progress.finish();
        classified?;
        Ok(logits)
    }

    /// Measures the probabilities with a temperature.
    fn quality(&self, temperature: f64) -> Quality {
        let mut reliability = Reliability::default();
        let mut loss = 0.0;
        for (logits, &label) in self.values.chunks(self.classes).zip(&self.labels) {
            let chosen = argmax(logits);
            let scaled: Vec<f32> = logits.iter().map(|&logit| (f64::from(logit) / temperature) as f32).collect();
            reliability.add(&softmax(&scaled), label, chosen);
            loss += cross_entropy(&scaled, label);
        }
        Quality { loss: loss / self.labels.len().max(1) as f64, calibration: reliability.calibration() }
    }
}

/// Quality of probabilities.
struct Quality {
    /// Mean negative log-likelihood.
    loss: f64,
    calibration: Calibration,
}

impl Quality {
    fn to_json(&self) -> serde_json::Value {
        json!({ "loss": self.loss, "ece": self.calibration.ece, "brier": self.calibration.brier })
    }
}

fn table(temperature: &Temperature, images: &str, [before, after]: [&Quality; 2]) -> String {
    let mut text = format!("temperature {:.4}, fitted on {images}\n\n", temperature.value);
    let mut row = |name: &str, [before, after]: [String; 2]| {
        let _ = writeln!(text, "{name:<26}{before:>9}{after:>10}");
    };
    row("", ["before", "after"].map(String::from));
    row("negative log-likelihood", [before, after].map(|quality| format!("{:.4}", quality.loss)));
    row("ECE (15 bins)", [before, after].map(|quality| percent(quality.calibration.ece)));
    row("Brier score", [before, after].map(|quality| format!("{:.4}", quality.calibration.brier)));
    text
}
