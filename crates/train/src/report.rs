//! Reports of runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use mbconv_nets::{Inference, Network};
pub use mbconv_report::{
    Best, Chart, Comparison, Evaluated, History, Label, ModelFacts, Picture, Report, Scale, Series, Unit, stage_diagram,
};

use crate::classifier::{Classifier, Tta};
use crate::config::Recipe;
use crate::engine::event::Event;
use crate::evaluate::{EvaluateError, Labelled, Predicted, evaluate};
use crate::explain::{Explainer, Explanation, Method, overlay};
use crate::history::{METRICS, RECIPE, metric_of};
use crate::multi_label::{self, MultiLabelEvaluated, label_sets_of, multi_label_scores};
use crate::normalize::images;
use crate::observe::Observer;
use mbconv_data::{
    Batch, DataError, DataSet, Loader, LoaderConfig, OnBadImage, Preprocess, RgbPixels, Source, Transform,
};
use mbconv_interop::model_file::{Model, ModelCard, ModelError};

/// File name of the report in a run's folder.
pub const REPORT: &str = "report.html";

/// Reads a run's files into a report without an evaluation.
///
/// # Errors
/// An existing file that cannot be read.
pub fn of_run(folder: &Path) -> io::Result<Report<'static>> {
    let title = folder.canonicalize().unwrap_or_else(|_| folder.into());
    let title = title.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    let history = History::read(&folder.join(METRICS))?;
    let recipe = match std::fs::read_to_string(folder.join(RECIPE)) {
        Ok(recipe) => Some(recipe),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let table: Option<toml::Table> = recipe.as_deref().and_then(|recipe| recipe.parse().ok());
    let history = history.selected_by(table.as_ref().and_then(metric_of));
    Ok(Report { title, history, recipe, ..Report::default() })
}

/// Returns the properties of a model that a report shows.
pub fn model_facts(card: &ModelCard) -> ModelFacts {
    let p = &card.preprocess;
    ModelFacts {
        architecture: card.architecture.name.clone(),
        classes: card.classes.len(),
        input_size: p.crop,
        preprocessing: format!("resize {}, crop {}, mean {:?}, std {:?}", p.resize, p.crop, p.mean, p.std),
        program: card.program.clone(),
    }
}

/// The images of an evaluated source with heatmaps of the predicted classes.
pub struct Pictures<'a> {
    source: &'a dyn Source,
    preprocess: &'a Preprocess,
    /// `None` if the network cannot be explained.
    explainer: Option<Explainer>,
    device: &'a Device,
}

impl<'a> Pictures<'a> {
    /// Creates the images of `source` for `network` on `device`, without autodiff. Without a
    /// network they have no heatmaps.
    pub fn new(
        source: &'a dyn Source,
        network: Option<&Network>,
        preprocess: &'a Preprocess,
        device: &'a Device,
    ) -> Self {
        let explainer = network.and_then(|network| Explainer::new(network, Method::GradCam, None).ok());
        Self { source, preprocess, explainer, device }
    }

    /// Returns the image of a prediction. Without a heatmap if the image cannot be read, or if the
    /// heatmap is the same everywhere, as that of a feature map with one position.
    pub fn of(&self, predicted: &Predicted) -> Picture {
        let name = self.source.name(predicted.index);
        let decoding = self.preprocess.decoding();
        let decoded = self.source.get(predicted.index).ok().map(|sample| sample.image.into_pixels_as(&decoding));
        let Some(Ok(pixels)) = decoded else { return Picture { name, ..Picture::default() } };
        let heatmap = self.heatmap(&pixels, predicted.chosen);
        Picture { name, pixels: Some(pixels), heatmap }
    }

    fn heatmap(&self, image: &RgbPixels, class: usize) -> Option<RgbPixels> {
        let RgbPixels { width, height, data } = self.preprocess.apply(image.clone());
        let mut batch = Batch { images: data, labels: vec![0], height, width, indices: Vec::new(), plans: Vec::new() };
        let images = images(&mut batch, self.preprocess, self.device);
        let Explanation { heatmap, .. } = self.explainer.as_ref()?.explain(images, Some(class)).pop()?;
        let part = self.preprocess.cropped_part(image.width, image.height);
        (!heatmap.is_uniform()).then(|| overlay(image, &heatmap, part))
    }
}

/// Rewrites a run's report after every epoch; [`complete`] adds the evaluation.
#[derive(Debug)]
pub struct ReportWriter {
    folder: PathBuf,
}

impl ReportWriter {
    /// Creates the reporter of the run in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }
}

impl Observer for ReportWriter {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Epoch(_) => of_run(&self.folder)?.write(&self.folder.join(REPORT)),
            _ => Ok(()),
        }
    }
}

/// Writes the report of a finished run with an evaluation of its best model on the validation
/// images, and returns its path.
///
/// # Errors
/// A model or images that cannot be read, a page that cannot be written, or a set `stop`.
pub fn complete(
    folder: &Path,
    data: &DataSet,
    recipe: &Recipe,
    device: &Device,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(usize),
) -> Result<PathBuf, ReportError> {
    let Model { card, network, .. } = Model::open(folder, device)?;
    let source = data.split("val")?;
    let config = LoaderConfig {
        batch_size: recipe.batch_size,
        workers: recipe.workers(),
        on_bad_image: OnBadImage::Skip,
        part: 0..usize::MAX,
        ..LoaderConfig::default()
    };
    let loader = Loader::new(source.clone(), Transform::Eval(card.preprocess.clone()), config)
        .with_decoding(recipe.data.decoding(false));
    let folded = Inference::new(&network);
    let multi_label = card.multi_label.is_some();
    let classifier = Classifier { network: &folded, preprocess: &card.preprocess, device, tta: Tta::None, multi_label };
    let path = folder.join(REPORT);
    let name = format!("{} · validation", data.form);
    if multi_label {
        let sets = label_sets_of(data, &card.classes)?;
        let scores = multi_label_scores(&classifier, (&loader, &sets), card.classes.len(), stop, progress)?;
        let thresholds = card.thresholds().unwrap_or_default();
        let evaluation = multi_label::evaluation(&scores, &card.classes, &thresholds, loader.skipped());
        let evaluated = Some(MultiLabelEvaluated { evaluation: &evaluation, name: &name });
        Report { model: Some(model_facts(&card)), multi_label: evaluated, ..of_run(folder)? }.write(&path)?;
        return Ok(path);
    }
    let labelled = Labelled::by_name(&loader, data, &card.classes)?;
    let evaluation = evaluate(&classifier, &labelled, &card.classes, stop, progress)?;
    let pictures = Pictures::new(&*source, Some(&network), &card.preprocess, device);
    let evaluated =
        Some(Evaluated { evaluation: &evaluation, image: &|predicted| pictures.of(predicted), name: &name });
    Report { model: Some(model_facts(&card)), evaluated, ..of_run(folder)? }.write(&path)?;
    Ok(path)
}

/// The reason why a report could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The model could not be opened.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model could not be evaluated.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use mbconv_data::{OpenOptions, open};
    use mbconv_nets::{NetworkOptions, Strides};

    use super::*;

    #[test]
    fn heatmaps_need_a_feature_map_with_several_positions() {
        let device = Device::default();
        device.seed(1);
        let data = open("digits", &OpenOptions::default()).unwrap();
        let source = data.split("val").unwrap();
        let preprocess = Preprocess { resize: 32.into(), crop: 32.into(), ..Preprocess::default() };
        // With random weights, nothing speaks for some of the classes.
        let predicted =
            |chosen| Predicted { index: 3, label: 1, chosen, probability: 0.5, target_probability: 0.1, loss: 2.3 };
        let pictures = |strides| {
            let options = NetworkOptions { strides, ..NetworkOptions::new("mobilenet_v2_0.25", 10) };
            let network = options.architecture().unwrap().init(&device);
            let pictures = Pictures::new(&*source, Some(&network), &preprocess, &device);
            (0..10).map(|class| pictures.of(&predicted(class))).collect::<Vec<_>>()
        };
        // 4×4 positions, and one.
        let fine = pictures(Strides::Cifar);
        assert!(fine.iter().all(|picture| picture.name == source.name(3) && picture.pixels.is_some()));
        let heatmap = fine.into_iter().find_map(|picture| picture.heatmap).unwrap();
        assert_eq!((heatmap.width, heatmap.height), (768, 768));
        assert!(heatmap.data.chunks(3).any(|pixel| pixel[0] != pixel[1]), "digits are gray, the heatmap is not");
        assert!(pictures(Strides::Imagenet).iter().all(|picture| picture.heatmap.is_none()));
    }
}
