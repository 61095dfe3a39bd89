//! Reports of runs and evaluations as a single HTML file: curves, confusion matrix, worst mistakes,
//! recipe.

mod chart;
mod confusion;
mod diagram;
mod history;
mod page;
mod pictures;
mod svg_file;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use mbconv_nets::Inference;

pub use chart::{Chart, Label, Scale, Series, Unit};
pub use diagram::stage_diagram;
pub use history::{Best, History};

use crate::data::{DataError, DataSet, Loader, LoaderConfig, OnBadImage, Source, Transform};
use crate::engine::Event;
use crate::evaluate::{EvaluateError, Evaluation, Labelled, evaluate};
use crate::files::write_atomically;
use crate::model_file::{Model, ModelCard, ModelError};
use crate::observe::Observer;
use crate::recipe::Recipe;
use crate::run_folder::{METRICS, RECIPE};

/// File name of the report in a run's folder.
pub const REPORT: &str = "report.html";

const STYLE: &str = include_str!("style.css");

/// The contents of a report.
#[derive(Default)]
pub struct Report<'a> {
    /// Title: the name of a run or model.
    pub title: String,
    /// Epochs of the run.
    pub history: History,
    /// Recipe as TOML.
    pub recipe: Option<String>,
    /// Card of the evaluated model.
    pub card: Option<&'a ModelCard>,
    /// Evaluation results and their data.
    pub evaluated: Option<Evaluated<'a>>,
}

/// An evaluation and its images.
#[derive(Clone, Copy)]
pub struct Evaluated<'a> {
    /// Results.
    pub evaluation: &'a Evaluation,
    /// Images, for showing mistakes.
    pub source: &'a dyn Source,
    /// Name of the data, such as `split val of photos`.
    pub name: &'a str,
}

impl Report<'_> {
    /// Reads a run's files, without an evaluation.
    ///
    /// # Errors
    /// An existing file that cannot be read.
    pub fn of_run(folder: &Path) -> io::Result<Self> {
        let title = folder.canonicalize().unwrap_or_else(|_| folder.into());
        let title = title.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
        let history = History::read(&folder.join(METRICS))?;
        let recipe = match std::fs::read_to_string(folder.join(RECIPE)) {
            Ok(recipe) => Some(recipe),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { title, history, recipe, ..Self::default() })
    }

    /// Renders the page.
    pub fn to_html(&self) -> String {
        page::html(self)
    }

    /// Writes the page.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write_atomically(path, self.to_html().as_bytes())
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
            Event::Epoch(_) => Report::of_run(&self.folder)?.write(&self.folder.join(REPORT)),
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
    let evaluation = evaluate(&network, &labelled, &card.preprocess, &card.classes, device, stop, progress)?;
    let name = format!("{} · validation", data.form);
    let evaluated = Some(Evaluated { evaluation: &evaluation, source: &*source, name: &name });
    let path = folder.join(REPORT);
    Report { card: Some(&card), evaluated, ..Report::of_run(folder)? }.write(&path)?;
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

/// Escapes text for HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c => escaped.push(c),
        }
    }
    escaped
}

/// Formats 0.97531 as `97.53 %`.
fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
