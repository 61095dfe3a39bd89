//! `mbconv predict`

use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clap::CommandFactory;
use clap::error::ErrorKind;
use mbconv_train::classifier::Classifier;
use mbconv_train::predict::{Inputs, PredictOptions, Prediction, Table, TableFormat, Unread, predict};
use mbconv_train::text::{visible, visible_name};

use crate::args::{Arguments, Predict};
use crate::error::CliError;
use crate::model_ref::{ReadyModel, open_ready};
use crate::terminal::Progress;
use crate::units::count;

pub fn run(args: Predict, stop: &AtomicBool) -> Result<(), CliError> {
    let format = args.out.as_deref().map(TableFormat::of).transpose()?;
    if args.logits && !args.json.json && format != Some(TableFormat::JsonLines) {
        let message = "--logits needs --json or --out FILE.jsonl";
        Arguments::command().error(ErrorKind::MissingRequiredArgument, message).exit();
    }
    let model = open_ready(&args.model, &args.device, &args.dtype, stop)?;
    model.card.preprocess.takes_pictures().map_err(mbconv_train::data::DataError::from)?;
    let multi_label = model.card.multi_label.is_some();
    let options = PredictOptions {
        top_k: args.top_k.unwrap_or(5).min(model.card.classes.len()),
        thresholds: model.card.thresholds().filter(|_| args.top_k.is_none()),
        probabilities: multi_label && args.out.is_some(),
        logits: args.logits,
        workers: args.device.threads.or(std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1),
    };
    let create = |path| match multi_label {
        false => Table::create(path, options.top_k, false),
        true => Table::create_multi_label(path, &model.card.classes, false),
    };
    let table = args.out.as_deref().map(create).transpose()?;
    let mut output = Output {
        screen: Screen { style: Style::of(&args), begun: false, closed: false },
        table,
        skip_bad_images: args.skip_bad_images,
        progress: Progress::new(),
        total: Total::of(&args.paths),
        done: 0,
        bad: 0,
    };
    output.progress.count("predicting", 0, output.total.get());
    let mut failed = None;
    let mut each = |results: Vec<Result<Prediction, Unread>>| match output.write(results) {
        Ok(flow) => flow,
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    };
    let files = Inputs::new(args.paths);
    let ReadyModel { card, inference: network, device, .. } = &model;
    let (preprocess, tta) = (&card.preprocess, args.tta.tta.into());
    let classifier = Classifier { network, preprocess, device, tta, multi_label };
    let predicted = predict(&classifier, &card.classes, files, &options, stop, &mut each);
    // Completes the JSON document also after an error.
    let ended = output.finish(stop.load(Ordering::Relaxed));
    predicted?;
    match failed {
        Some(error) => Err(error),
        None => ended,
    }
}

/// Format of the results on standard output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Text,
    Json,
    Nothing,
}

impl Style {
    fn of(args: &Predict) -> Self {
        match (args.json.json, &args.out) {
            (true, _) => Self::Json,
            (false, Some(_)) => Self::Nothing,
            (false, None) => Self::Text,
        }
    }
}

/// The results on standard output.
struct Screen {
    style: Style,
    /// The JSON list has an entry.
    begun: bool,
    /// The reader, such as `head`, has closed the pipe.
    closed: bool,
}

impl Screen {
    fn add(&mut self, text: &mut String, prediction: &Prediction) -> io::Result<()> {
        match self.style {
            Style::Nothing => {}
            Style::Text => {
                let _ = writeln!(text, "{}", visible_name(&prediction.path));
                if prediction.predictions.is_empty() {
                    let _ = writeln!(text, "  no class above its threshold");
                }
                for candidate in &prediction.predictions {
                    let probability = 100.0 * candidate.probability;
                    let _ = writeln!(text, "  {probability:6.2} %  {}", visible_name(&candidate.label));
                }
            }
            Style::Json => {
                *text += if self.begun { ",\n  " } else { "[\n  " };
                let entry = format!("{:#}", serde_json::to_value(prediction)?);
                *text += &entry.replace('\n', "\n  ");
                self.begun = true;
            }
        }
        Ok(())
    }

    fn end(&self) -> &'static str {
        match (self.style, self.begun) {
            (Style::Json, true) => "\n]\n",
            (Style::Json, false) => "[]\n",
            _ => "",
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        match out.write_all(visible(text).as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            written => written,
        }
    }
}

/// Writes results as they arrive.
struct Output {
    screen: Screen,
    table: Option<Table>,
    skip_bad_images: bool,
    progress: Progress,
    total: Total,
    done: usize,
    bad: usize,
}

impl Output {
    /// Writes the results of a batch. Breaks if all outputs are closed.
    fn write(&mut self, results: Vec<Result<Prediction, Unread>>) -> Result<ControlFlow<()>, CliError> {
        let mut text = String::new();
        for result in results {
            match result {
                Ok(prediction) => {
                    self.done += 1;
                    self.screen.add(&mut text, &prediction)?;
                    if let Some(table) = &mut self.table {
                        table.write(&prediction)?;
                    }
                }
                Err(unread) => {
                    self.bad += 1;
                    // Keeps the order of results and errors on a terminal.
                    let before = std::mem::take(&mut text);
                    self.progress.suspend(|| self.screen.write(&before))?;
                    let prefix = if self.skip_bad_images { "skipped" } else { "error:" };
                    self.progress.line(&format!("{prefix} {}: {}", visible_name(&unread.path), unread.why));
                }
            }
        }
        self.progress.suspend(|| self.screen.write(&text))?;
        if let Some(table) = &mut self.table {
            table.flush()?;
        }
        self.progress.count("predicting", self.done + self.bad, self.total.get());
        let closed = self.screen.closed && self.table.is_none();
        Ok(if closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Completes the outputs and reports unreadable images.
    fn finish(mut self, interrupted: bool) -> Result<(), CliError> {
        self.progress.finish();
        self.screen.write(self.screen.end())?;
        let rows = count(self.done);
        match self.table {
            Some(table) if interrupted => eprintln!("{} contains the first {rows} rows", table.part().display()),
            Some(table) => {
                let path = table.finish()?;
                eprintln!("wrote {} ({rows} rows)", path.display());
            }
            None => {}
        }
        if interrupted {
            return Err(CliError::Interrupted);
        }
        let tried = self.done + self.bad;
        match self.bad {
            0 => Ok(()),
            _ if self.skip_bad_images && self.done > 0 => Ok(()),
            _ if self.skip_bad_images => Err(CliError::new("no image could be read", None)),
            _ if tried == 1 => Err(CliError::Reported),
            bad => Err(CliError::new(
                format!("{} of {} images could not be read", count(bad), count(tried)),
                "with --skip-bad-images the exit status is 0".to_string(),
            )),
        }
    }
}

/// Number of images, counted on a separate thread for the progress bar.
struct Total(Arc<AtomicUsize>);

impl Total {
    const UNKNOWN: usize = usize::MAX;

    fn of(paths: &[PathBuf]) -> Self {
        let total = Self(Arc::new(AtomicUsize::new(Self::UNKNOWN)));
        if Progress::is_shown() && !Inputs::reads_stdin(paths) {
            let (counted, inputs) = (total.0.clone(), Inputs::new(paths.to_vec()));
            std::thread::spawn(move || counted.store(inputs.count(), Ordering::Relaxed));
        }
        total
    }

    fn get(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&total| total != Self::UNKNOWN)
    }
}
