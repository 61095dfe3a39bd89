//! What a command can end with besides success.

use std::fmt;

use mbconv_hub::HubError;
use mbconv_nets::ArchitectureError;
use mbconv_train::burnpack::BurnpackError;
use mbconv_train::compare::CompareError;
use mbconv_train::data::DataError;
use mbconv_train::data::tools::CurateError;
use mbconv_train::device::DeviceError;
use mbconv_train::distributed::{Group, GroupError};
use mbconv_train::engine::TrainError;
use mbconv_train::evaluate::EvaluateError;
use mbconv_train::import::ImportError;
use mbconv_train::model_file::ModelError;
use mbconv_train::onnx::OnnxError;
use mbconv_train::precision::NoBf16;
use mbconv_train::predict::TableError;
use mbconv_train::recipe::RecipeError;
use mbconv_train::report::ReportError;
use mbconv_train::scale::ScaleError;
use mbconv_train::scale::search::SearchError;
use mbconv_train::text::visible_name;
use mbconv_train::weight_average::AverageError;

/// Why a command did not succeed.
pub enum Failure {
    /// The user stopped it.
    Interrupted,
    /// It was told of already, here or by another process.
    Told,
    /// An error to show.
    Failed {
        /// What happened.
        message: String,
        /// What would mend it.
        hint: Option<String>,
    },
}

impl Failure {
    /// Shows an error on standard error.
    pub fn tell(&self) {
        if let Self::Failed { message, hint } = self {
            // The lines after the first show a part of a recipe.
            for (number, line) in message.lines().enumerate() {
                if number == 0 { eprintln!("error: {line}") } else { eprintln!("{line}") }
            }
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
        }
    }

    /// Reports the failure of one of several processes. An error common to all is reported once; a
    /// process that fails alone ends the others, which would wait for it. Each reports before it
    /// exits, since `mpirun` kills every process when one exits.
    pub fn among(self, group: &Group) -> Self {
        let Self::Failed { message, hint } = self else { return self };
        group.wait_before_report();
        if group.must_report() {
            let who = if group.is_leader() { String::new() } else { format!("{}: ", group.who()) };
            Self::Failed { message: format!("{who}{message}"), hint }.tell();
        }
        if group.fails_alone() {
            group.abort();
        } else {
            group.wait();
        }
        Self::Told
    }

    /// An error of the command line's own.
    pub fn new(message: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self::of(&message.into(), hint.into())
    }

    /// An error of a message of one line, in which names may have line breaks.
    fn of(message: &str, hint: Option<String>) -> Self {
        let hint = hint.map(|hint| visible_name(&hint).into_owned());
        Self::Failed { message: visible_name(message).into_owned(), hint }
    }
}

macro_rules! with_hint {
    ($($error:ty),+) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::of(&error.to_string(), error.hint())
            }
        }
    )+};
}

with_hint!(
    ArchitectureError,
    DataError,
    DeviceError,
    GroupError,
    ImportError,
    ModelError,
    NoBf16,
    OnnxError,
    ScaleError,
    SearchError,
    TrainError
);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Told => f.write_str("failed"),
            Self::Failed { message, .. } => f.write_str(message),
        }
    }
}

impl From<BurnpackError> for Failure {
    fn from(error: BurnpackError) -> Self {
        Self::new(error.to_string(), None)
    }
}

impl From<EvaluateError> for Failure {
    fn from(error: EvaluateError) -> Self {
        match error {
            EvaluateError::Interrupted => Self::Interrupted,
            error => Self::of(&error.to_string(), error.hint()),
        }
    }
}

impl From<CurateError> for Failure {
    fn from(error: CurateError) -> Self {
        match error {
            CurateError::Interrupted => Self::Interrupted,
            error => Self::of(&error.to_string(), error.hint()),
        }
    }
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Self {
        let hint = matches!(error, CompareError::NoRun { .. });
        Self::new(error.to_string(), hint.then(|| "give folders that `mbconv train --out` made".into()))
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Interrupted => Self::Interrupted,
            error => Self::of(&error.to_string(), error.hint()),
        }
    }
}

impl From<RecipeError> for Failure {
    fn from(error: RecipeError) -> Self {
        let hint = match &error {
            RecipeError::Model(error) => error.hint(),
            RecipeError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("recipes that come with mbconv are in configs/".into())
            }
            RecipeError::Table { .. } => {
                Some("the path is meant from the recipe's folder, or from the working folder".into())
            }
            _ => None,
        };
        match error {
            // Shows the line of the recipe that is wrong.
            RecipeError::Parse { path, message } => {
                Self::Failed { message: format!("in {}: {message}", visible_name(&path)), hint }
            }
            error => Self::of(&error.to_string(), hint),
        }
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Evaluate(error) => error.into(),
            error => Self::new(error.to_string(), None),
        }
    }
}

impl From<AverageError> for Failure {
    fn from(error: AverageError) -> Self {
        match error {
            AverageError::Model(error) => error.into(),
            AverageError::Import(error) => error.into(),
            error => Self::new(error.to_string(), None),
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        Self::new(error.to_string(), None)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string(), None)
    }
}
