//! A run or an evaluation as one HTML page that needs nothing else: curves, confusion matrix, worst mistakes, recipe.

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

/// Name of the page in a run's folder.
pub const REPORT: &str = "report.html";

const STYLE: &str = include_str!("style.css");

/// What a page tells of.
#[derive(Default)]
pub struct Report<'a> {
    /// What stands at the top: a run's or a model's name.
    pub title: String,
    /// The run's epochs.
    pub history: History,
    /// The recipe, as TOML.
    pub recipe: Option<String>,
    /// The model that was evaluated.
    pub card: Option<&'a ModelCard>,
    /// What it was evaluated on, and how well it did.
    pub evaluated: Option<Evaluated<'a>>,
}

/// An evaluation, with the images that it was made on.
#[derive(Clone, Copy)]
pub struct Evaluated<'a> {
    /// The results.
    pub evaluation: &'a Evaluation,
    /// The images, for pictures of mistakes.
    pub source: &'a dyn Source,
    /// What to call them, such as `split val of photos`.
    pub name: &'a str,
}

impl Report<'_> {
    /// What the files in a run's folder tell, without an evaluation.
    ///
    /// # Errors
    /// A file that is there but cannot be read.
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

    /// The page.
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

/// Keeps a run's page up to date, epoch by epoch; what an evaluation adds comes at the end.
#[derive(Debug)]
pub struct ReportWriter {
    folder: PathBuf,
}

impl ReportWriter {
    /// For the run in `folder`.
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

/// Writes the page of a finished run, with what its best model makes of the validation images; gives the page's path.
///
/// # Errors
/// A model or images that cannot be read, a page that cannot be written, a set `stop`.
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

/// Why a page could not be completed.
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

/// Text as it may stand in HTML.
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

/// 0.97531 → `97.53 %`.
fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
