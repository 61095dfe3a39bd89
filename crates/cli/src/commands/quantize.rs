//! `mbconv quantize`

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mbconv_nets::Inference;
use mbconv_nets::weights::state_dict;
use mbconv_train::Model;
use mbconv_train::classifier::{Classifier, Tta};
use mbconv_train::data::{self, Batch, DataError, DataSet, ImageFiles, Loader, LoaderConfig, Source, Transform};
use mbconv_train::device;
use mbconv_train::evaluate::{EvaluateError, Labelled};
use mbconv_train::metrics::shows_top5;
use mbconv_train::model_file::{ModelCard, Quantization};
use mbconv_train::quantize::{
    Calibration, Comparison, LayerError, QuantizeOptions, RangeMethod, calibration_sample, images_at_once, quantize,
};
use mbconv_train::quantized_model::QuantizedModel;
use serde_json::json;

use super::labelled_data::LabelledData;
use crate::args::Quantize;
use crate::error::CliError;
use crate::model_ref::open_uncalibrated;
use crate::output::{check_extension, check_is_file_name, print_json, print_text, print_written};
use crate::terminal::Progress;
use crate::units::{bytes, count, percent};

/// Number of calibration images below which a note advises more.
const FEW_IMAGES: usize = 32;
/// Number of layers in the table.
const LAYERS_SHOWN: usize = 5;

pub fn run(args: Quantize, stop: &AtomicBool) -> Result<(), CliError> {
    check_is_file_name(&args.out, "model.int8.safetensors")?;
    check_extension(&args.out, "a model file", &["safetensors"])?;
    device::set_threads(args.threads);
    let device = device::parse("cpu")?;
    let model = open_uncalibrated(&args.model, &device, stop)?;
    model.card.preprocess.takes_pictures().map_err(DataError::from)?;
    let images = Images::open(&args, &model.card)?;
    let batches = images.calibration_batches(&args, &model.card)?;
    let used = batches.iter().map(|batch| batch.labels.len()).sum::<usize>();
    if used < FEW_IMAGES {
        let images = if used == 1 { "image" } else { "images" };
        eprintln!("note: only {used} calibration {images}: use at least 100 that resemble those of the application");
    }

    let options = QuantizeOptions {
        range: args.range.map_or_else(RangeMethod::default, RangeMethod::from),
        trained_ranges: model.card.activation_ranges.clone().filter(|_| args.range.is_none()),
        equalize: !args.no_equalization,
        correct_biases: !args.no_bias_correction,
        keep: args.keep.clone(),
        largest_weight: if args.weight_bits == 7 { 64 } else { 127 },
    };
    let calibration = Calibration { batches: &batches, preprocess: &model.card.preprocess, device: &device, stop };
    let mut progress = Progress::new();
    let quantized = quantize(&model.network, &calibration, &options, &mut |step, part| {
        progress.advance(step, (part * used as f64) as usize, used, String::new());
    });
    progress.finish();
    let quantized = quantized?;

    let networks = [Inference::new(&model.network), Inference::quantized(&quantized.stages)];
    let comparison = images.compare(&model, &networks, &device, stop)?;
    let range = if options.trained_ranges.is_some() { "trained" } else { options.range.name() };
    let quantization = Quantization { range: range.into(), images: used, kept: options.keep };
    let card =
        ModelCard { results: None, activation_ranges: None, ..model.card.clone() }.with_quantization(quantization);
    QuantizedModel::save(&quantized.stages, &card, &args.out)?;
    let report =
        Report { comparison, sizes: sizes(&model, &args.out)?, errors: &quantized.errors, images: &images, used };
    if args.json.json {
        print_json(&report.to_json())?
    } else {
        print_text(&report.text(model.card.classes.len()))?
    }
    print_written(&args.out)
}

/// Returns the bytes of the model in single precision and of the written file.
fn sizes(model: &Model, out: &Path) -> Result<[u64; 2], CliError> {
    let values: usize = state_dict(&model.network).iter().map(|(_, data)| data.num_elements()).sum();
    Ok([4 * values as u64, std::fs::metadata(out)?.len()])
}

/// Images for calibration and comparison.
struct Images {
    calibration: Arc<dyn Source>,
    calibration_split: &'static str,
    loader: Loader,
    split: &'static str,
    /// The model's class of each label of the data, if the data have the model's classes.
    labels: Option<Vec<usize>>,
}

impl Images {
    /// Opens the data set, or a folder of images without classes.
    fn open(args: &Quantize, card: &ModelCard) -> Result<Self, CliError> {
        let path = &args.data.data;
        match LabelledData::open(&args.data, &args.loader, card, Tta::None, true) {
            Ok(LabelledData { data, loader, split }) => {
                let (calibration_split, calibration) = match &data.train {
                    Some(train) => ("train", train.clone()),
                    None => (split, loader.source().clone()),
                };
                let labels = labels(&loader, &data, card)?;
                Ok(Self { calibration, calibration_split, loader, split, labels })
            }
            Err(DataError::NoClassFolders { .. }) if args.data.split.is_none() => {
                let files = data::list_images(Path::new(data::path_of(path)))?;
                let calibration: Arc<dyn Source> = Arc::new(ImageFiles(files));
                let transform = Tta::None.transform(&card.preprocess);
                let loader = Loader::new(calibration.clone(), transform, args.loader.config());
                Ok(Self { calibration, calibration_split: "all", loader, split: "all", labels: None })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the calibration images.
    fn calibration_batches(&self, args: &Quantize, card: &ModelCard) -> Result<Vec<Batch>, CliError> {
        let sample = calibration_sample(&self.calibration, args.images);
        let config = args.loader.config();
        let batch_size = config.batch_size.min(images_at_once(&card.preprocess));
        let config = LoaderConfig { batch_size, ..config };
        let loader = Loader::new(sample, Transform::Eval(card.preprocess.clone()), config);
        let batches = loader.epoch(0).collect::<Result<Vec<_>, _>>()?;
        report_skipped(&loader);
        Ok(batches)
    }

    /// Compares the networks on all images.
    fn compare(
        &self,
        model: &Model,
        networks: &[Inference; 2],
        device: &device::Device,
        stop: &AtomicBool,
    ) -> Result<Comparison, CliError> {
        let preprocess = &model.card.preprocess;
        let classifiers = networks.each_ref().map(|network| Classifier {
            network,
            preprocess,
            device,
            tta: Tta::None,
            multi_label: model.card.multi_label.is_some(),
        });
        let mut comparison = Comparison::default();
        let mut progress = Progress::new();
        for batch in self.loader.epoch(0) {
            if stop.load(Ordering::Relaxed) {
                progress.finish();
                return Err(CliError::Interrupted);
            }
            let batch = batch?;
            let labels =
                self.labels.as_ref().map(|labels| batch.labels.iter().map(|label| labels[*label]).collect::<Vec<_>>());
            comparison.add(classifiers.each_ref(), batch, labels.as_deref());
            progress.advance("comparing", comparison.images, self.loader.len(), String::new());
        }
        progress.finish();
        report_skipped(&self.loader);
        Ok(comparison)
    }
}

fn report_skipped(loader: &Loader) {
    loader.skipped().iter().for_each(|(name, why)| eprintln!("skipped {name}: {why}"));
}

/// Returns the model's class of each label, or prints why the accuracy cannot be measured.
fn labels(loader: &Loader, data: &DataSet, card: &ModelCard) -> Result<Option<Vec<usize>>, CliError> {
    let reason = match Labelled::by_name(loader, data, &card.classes) {
        Ok(labelled) if card.multi_label.is_none() => return Ok(Some(labelled.labels)),
        Ok(_) | Err(EvaluateError::MultiLabelData) => "images may have several classes".to_string(),
        Err(EvaluateError::UnknownClass { class, .. }) => format!("the model has no class `{class}`"),
        Err(error) => return Err(error.into()),
    };
    eprintln!("note: {reason}: predictions are compared without labels");
    Ok(None)
}

/// The printed results.
struct Report<'a> {
    comparison: Comparison,
    sizes: [u64; 2],
    errors: &'a [LayerError],
    images: &'a Images,
    /// Number of calibration images.
    used: usize,
}

impl Report<'_> {
    fn share(&self, hits: usize) -> f64 {
        hits as f64 / self.comparison.images.max(1) as f64
    }

    fn images_per_second(&self) -> [f64; 2] {
        self.comparison.time.map(|time| self.comparison.images as f64 / time.as_secs_f64().max(1e-9))
    }

    fn text(&self, classes: usize) -> String {
        let Self { comparison, images, used, .. } = self;
        let mut text = format!("calibrated on {} images ({})", count(*used), images.calibration_split);
        let _ = writeln!(text, ", compared on {} images ({})\n", count(comparison.images), images.split);
        let mut row = |name: &str, [before, after]: [String; 2], note: String| {
            let line = format!("{name:<18}{before:>12}{after:>12}  {note}");
            let _ = writeln!(text, "{}", line.trim_end());
        };
        row("", ["f32", "int8"].map(String::from), String::new());
        if images.labels.is_some() {
            let difference = |[before, after]: [usize; 2]| {
                format!("{:+.2} points", 100.0 * (self.share(after) - self.share(before)))
            };
            row("top-1", comparison.top1.map(|hits| percent(self.share(hits))), difference(comparison.top1));
            if shows_top5(classes) {
                row("top-5", comparison.top5.map(|hits| percent(self.share(hits))), difference(comparison.top5));
            }
        }
        row("same prediction", [String::new(), percent(self.share(comparison.agreeing))], String::new());
        row("error of logits", [String::new(), percent(comparison.error())], String::new());
        let [before, after] = self.sizes;
        row("file", self.sizes.map(bytes), percent(after as f64 / before.max(1) as f64));
        let speed = self.images_per_second();
        row("images per second", speed.map(|speed| format!("{speed:.1}")), format!("{:.2} x", speed[1] / speed[0]));
        let width = self.errors.iter().take(LAYERS_SHOWN).map(|error| error.layer.len()).max().unwrap_or(0).max(18);
        let _ = writeln!(text, "\n{:<width$}  error of the logits if only it has 8 bits", "layer");
        for LayerError { layer, error } in self.errors.iter().take(LAYERS_SHOWN) {
            let _ = writeln!(text, "{layer:<width$}  {}", percent(*error));
        }
        text
    }

    fn to_json(&self) -> serde_json::Value {
        let Self { comparison, images, used, .. } = self;
        let of_both = |values: [f64; 2]| json!({ "f32": values[0], "int8": values[1] });
        let accuracy = |hits: [usize; 2]| images.labels.as_ref().map(|_| of_both(hits.map(|hits| self.share(hits))));
        json!({
            "calibration_images": used,
            "calibration_split": images.calibration_split,
            "images": comparison.images,
            "split": images.split,
            "top1": accuracy(comparison.top1),
            "top5": accuracy(comparison.top5),
            "logit_error": comparison.error(),
            "agreement": self.share(comparison.agreeing),
            "size_bytes": { "f32": self.sizes[0], "int8": self.sizes[1] },
            "images_per_second": of_both(self.images_per_second()),
            "layers": self.errors.iter().map(|LayerError { layer, error }| json!({ "name": layer, "error": error })).collect::<Vec<_>>(),
        })
    }
}
