//! `[finetune]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{RecipeError, ensure};

/// `[finetune]`: what a run begins with, and what of it stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FinetuneConfig {
    /// Model file or run folder that the weights come from; for the program's commands published weights by name, too. The
    /// classifier is new, unless its classes are the data's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Prefix of the network's keys in the weights, such as `"backbone."`, where they contain more
    /// than one network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Epochs at the beginning in which the classifier alone learns.
    pub head_epochs: usize,
    /// What does not learn at all: `"none"`, `"body"` (a linear probe), or a number of stages, counted from the image; the
    /// stem goes with the first.
    pub freeze: Freeze,
    /// Hold the running statistics of every batch-norm still, as for small batches.
    pub freeze_norms: bool,
}

/// What does not learn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freeze {
    /// Everything learns.
    #[default]
    None,
    /// The classifier alone learns.
    Body,
    /// The stem and so many stages do not learn.
    #[serde(untagged)]
    Stages(usize),
}

impl FinetuneConfig {
    pub(super) fn check(&self, stages: usize) -> Result<(), RecipeError> {
        match self.freeze {
            Freeze::Stages(frozen) => {
                let expected = format!("\"none\", \"body\", or at most the network's {stages} stages");
                ensure(frozen <= stages, "finetune.freeze", frozen, &expected)
            }
            _ => Ok(()),
        }
    }
}
