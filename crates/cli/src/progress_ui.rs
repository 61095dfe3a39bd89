//! The display of a training run.

#[cfg(feature = "tui")]
use std::io::IsTerminal;

use mbconv_train::engine::TrainError;
use mbconv_train::observe::Observers;
use mbconv_train::report::{self, ReportWriter};
use mbconv_train::tensorboard::TensorBoard;
use mbconv_train::{Group, Outcome, Run};

#[cfg(feature = "tui")]
use crate::dashboard::Dashboard;
use crate::error::CliError;
use crate::terminal::Progress;

/// The display of a training run.
pub enum ProgressUi {
    /// None: another process shows the run.
    Hidden,
    Line,
    #[cfg(feature = "tui")]
    Dashboard,
}

impl ProgressUi {
    /// Returns the dashboard if `tui` is set, otherwise the progress line.
    ///
    /// # Errors
    /// A dashboard without a terminal, or in a program without it.
    pub fn new(tui: bool, group: &Group) -> Result<Self, CliError> {
        match tui {
            _ if !group.is_leader() => Ok(Self::Hidden),
            false => Ok(Self::Line),
            #[cfg(feature = "tui")]
            true if std::io::stdout().is_terminal() => Ok(Self::Dashboard),
            #[cfg(feature = "tui")]
            true => Err(CliError::new("--tui needs a terminal as standard output", "omit --tui".to_string())),
            #[cfg(not(feature = "tui"))]
            true => {
                let hint = "build with it: cargo build --release --features tui".to_string();
                Err(CliError::new("this program was built without the dashboard", hint))
            }
        }
    }

    /// Prints a line.
    pub fn line(&self, progress: &Progress, line: &str) {
        if !matches!(self, Self::Hidden) {
            progress.line(line);
        }
    }

    /// Trains with all observers of the run, then completes its report.
    pub fn train(self, run: Run, progress: &mut Progress) -> Result<Outcome, TrainError> {
        let mut observers = Observers::default();
        match self {
            Self::Hidden => return mbconv_train::train(run, &mut |_| ()),
            Self::Line => observers.add("progress", &mut *progress),
            #[cfg(feature = "tui")]
            Self::Dashboard => observers.add("dashboard", Dashboard::new(run.stop)),
        }
        observers.add("TensorBoard curves", TensorBoard::new(run.out, &run.recipe.to_toml()));
        observers.add("report", ReportWriter::new(run.out));
        let outcome = mbconv_train::train(run, &mut |event| observers.event(&event));
        drop(observers);
        if let Ok(Outcome::Finished { best: Some(_) }) = outcome {
            // A run succeeds without its report.
            if let Err(CliError::Message { message, .. }) = finish_report(&run, progress) {
                progress.line(&format!("note: the report is incomplete: {message}"));
            }
        }
        progress.finish();
        outcome
    }
}

/// Writes the run's report again, with the best model's results on the validation images.
fn finish_report(run: &Run, progress: &mut Progress) -> Result<(), CliError> {
    let Run { recipe, data, out, device, stop, .. } = *run;
    let total = data.val.as_ref().map_or(0, |val| val.len());
    let mut advance = |images| progress.advance("report", images, total, String::new());
    let path = report::complete(out, data, recipe, device, stop, &mut advance)?;
    progress.line(&format!("report: {}", path.display()));
    Ok(())
}
