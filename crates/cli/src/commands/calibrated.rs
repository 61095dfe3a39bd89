//! Results of `mbconv calibrate`.

use mbconv_train::Model;
use mbconv_train::metrics::Temperature;
use mbconv_train::model_file::ModelCard;

use crate::error::CliError;

/// A calibrated model's card, and the results to print.
pub(super) struct Calibrated {
    pub card: ModelCard,
    pub json: serde_json::Value,
    pub text: String,
    pub note: Option<String>,
}

/// Returns the error of a model whose logits are not finite.
pub(super) fn not_finite(model: &Model) -> CliError {
    CliError::new(format!("the model {} gives logits that are not finite", model.path.display()), None)
}

/// Describes a temperature at its limit.
pub(super) fn limit_note(temperature: &Temperature) -> String {
    let value = temperature.value;
    let reason = match value < 1.0 {
        true => "every image is classified correctly, or nearly so: lower ones would always be better",
        false => "the model is no better than guessing on these images",
    };
    format!("the temperature is at its limit {value}: {reason}; calibrate on more, or other, held-out images")
}
