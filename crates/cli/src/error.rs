//! Errors of commands, with exit status and hints.

use std::fmt;
use std::path::Path;

use mbconv_hub::HubError;
use mbconv_nets::ArchitectureError;
use mbconv_train::auto_batch::AutoBatchError;
use mbconv_train::burnpack::BurnpackError;
use mbconv_train::compare::CompareError;
use mbconv_train::config::RecipeError;
use mbconv_train::data::DataError;
use mbconv_train::data::tools::CurateError;
use mbconv_train::device::DeviceError;
use mbconv_train::distributed::{Group, GroupError};
use mbconv_train::embed::FeatureError;
use mbconv_train::engine::TrainError;
use mbconv_train::evaluate::EvaluateError;
use mbconv_train::import::ImportError;
use mbconv_train::model_file::ModelError;
use mbconv_train::model_folder::FolderError;
use mbconv_train::onnx::OnnxError;
use mbconv_train::precision::NoBf16;
use mbconv_train::predict::TableError;
use mbconv_train::quantize::QuantizeError;
use mbconv_train::report::ReportError;
use mbconv_train::scale::ScaleError;
use mbconv_train::scale::search::SearchError;
use mbconv_train::text::visible_name;
use mbconv_train::tune::TuneError;
use mbconv_train::weight_average::AverageError;

/// The reason why a command did not succeed.
pub enum CliError {
    /// The user interrupted it.
    Interrupted,
    /// The error is already printed, by this or another process.
    Reported,
    /// An error to print.
    Message {
        /// Description of the error.
        message: String,
        /// A command or change that fixes it.
        hint: Option<String>,
    },
}

impl CliError {
    /// Prints the error and its hint on standard error.
    pub fn print(&self) {
        if let Self::Message { message, hint } = self {
            // Further lines quote a recipe.
            for (number, line) in message.lines().enumerate() {
                if number == 0 { eprintln!("error: {line}") } else { eprintln!("{line}") }
            }
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
        }
    }

    /// Prints the error of one of several processes. An error common to all is printed once. A
    /// process that fails alone ends the others, which would wait for it. Each prints before it
    /// exits, because `mpirun` kills every process when one exits.
    pub fn report_among(self, group: &Group) -> Self {
        let Self::Message { message, hint } = self else { return self };
        group.wait_before_report();
        if group.must_report() {
            let who = if group.is_leader() { String::new() } else { format!("{}: ", group.who()) };
            Self::Message { message: format!("{who}{message}"), hint }.print();
        }
        if group.fails_alone() {
            group.abort();
        } else {
            group.wait();
        }
        Self::Reported
    }

    /// Creates an error with a message of one line. Line breaks, which names may contain, are
    /// escaped.
    pub fn new(message: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        let hint = hint.into().map(|hint| visible_name(&hint).into_owned());
        Self::Message { message: visible_name(&message.into()).into_owned(), hint }
    }

    /// Begins the message with the recipe's key that it is about.
    pub fn about(self, key: &str) -> Self {
        match self {
            Self::Message { message, hint } => Self::Message { message: format!("{key}: {message}"), hint },
            other => other,
        }
    }

    /// Creates the error of a file that could not be written.
    pub fn cannot_write(path: &Path, error: impl fmt::Display) -> Self {
        Self::new(format!("cannot write {}: {error}", path.display()), None)
    }
}

macro_rules! with_hint {
    ($($error:ty),+) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::new(error.to_string(), error.hint())
            }
        }
    )+};
}

with_hint!(
    ArchitectureError,
    AutoBatchError,
    DataError,
    DeviceError,
    FolderError,
    GroupError,
    ImportError,
    ModelError,
    NoBf16,
    OnnxError,
    ScaleError,
    SearchError,
    TrainError,
    TuneError
);

macro_rules! interruptible {
    ($($error:ty),+) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                match error {
                    <$error>::Interrupted => Self::Interrupted,
                    error => Self::new(error.to_string(), error.hint()),
                }
            }
        }
    )+};
}

interruptible!(CurateError, EvaluateError, HubError, QuantizeError);

macro_rules! without_hint {
    ($($error:ty),+) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::new(error.to_string(), None)
            }
        }
    )+};
}

without_hint!(BurnpackError, FeatureError, TableError, std::io::Error);

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Reported => f.write_str("failed"),
            Self::Message { message, .. } => f.write_str(message),
        }
    }
}

impl From<CompareError> for CliError {
    fn from(error: CompareError) -> Self {
        let hint = matches!(error, CompareError::NoRun { .. });
        Self::new(error.to_string(), hint.then(|| "give folders written by `mbconv train --out`".into()))
    }
}

impl From<RecipeError> for CliError {
    fn from(error: RecipeError) -> Self {
        let hint = error.hint();
        match error {
            // The message quotes the line of the recipe.
            RecipeError::Parse { path, message, .. } => {
                Self::Message { message: format!("in {}: {message}", visible_name(&path)), hint }
            }
            error => Self::new(error.to_string(), hint),
        }
    }
}

impl From<ReportError> for CliError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Evaluate(error) => error.into(),
            error => Self::new(error.to_string(), None),
        }
    }
}

impl From<AverageError> for CliError {
    fn from(error: AverageError) -> Self {
        match error {
            AverageError::Model(error) => error.into(),
            AverageError::Import(error) => error.into(),
            error => Self::new(error.to_string(), None),
        }
    }
}
