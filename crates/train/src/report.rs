//! Reports of runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use mbconv_nets::Inference;
pub use mbconv_report::{
    Best, Chart, Comparison, Evaluated, History, Label, ModelFacts, Report, Scale, Series, Unit, stage_diagram,
};

use crate::classifier::{Classifier, Tta};
use crate::config::Recipe;
use crate::engine::event::Event;
use crate::evaluate::{EvaluateError, Labelled, evaluate};
use crate::history::{METRICS, RECIPE, metric_of};
use crate::observe::Observer;
use mbconv_data::{DataError, DataSet, Loader, LoaderConfig, OnBadImage, RgbPixels, Source, Transform};
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

/// Returns the name of an image of a source and, if it can be read, its pixels.
pub fn image_of(source: &dyn Source, index: usize) -> (String, Option<RgbPixels>) {
    let pixels = source.get(index).ok().and_then(|sample| sample.image.into_pixels().ok());
    (source.name(index), pixels)
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
    let labelled = Labelled::by_name(&loader, data, &card.classes)?;
    let network = Inference::new(&network);
    let classifier = Classifier { network: &network, preprocess: &card.preprocess, device, tta: Tta::None };
    let evaluation = evaluate(&classifier, &labelled, &card.classes, stop, progress)?;
    let name = format!("{} · validation", data.form);
    let evaluated = Some(Evaluated { evaluation: &evaluation, image: &|index| image_of(&*source, index), name: &name });
    let path = folder.join(REPORT);
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
