//! `[finetune]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{RecipeError, ensure};

/// `[finetune]`: initial weights and frozen layers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FinetuneConfig {
    /// Model file or run folder of the initial weights; the program also accepts names of published
    /// weights and of architectures. The classifier is reinitialized unless the model's classes are
    /// those of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Prefix of the network's keys in the weights, such as `"backbone."`, if the weights contain
    /// several networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Number of epochs at the beginning that train only the classifier.
    pub head_epochs: usize,
    /// Frozen layers. Their batch-norms use the running statistics.
    pub freeze: Freeze,
    /// Freeze the running statistics of all batch-norms, for example with small batches.
    pub freeze_norms: bool,
}

/// Frozen layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Freeze {
    /// No frozen layers.
    #[default]
    None,
    /// All layers except the classifier: a linear probe.
    Body,
    /// The stem and this number of stages.
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
