//! Results of epochs, and names of the files in a run's folder.

use serde::{Deserialize, Serialize};

use crate::metrics::shows_top5;
use mbconv_interop::model_file::{Results, Score};

/// File name of the resolved recipe in a run's folder.
pub const RECIPE: &str = "recipe.toml";
/// File name of the table with one row per epoch.
pub const METRICS: &str = "metrics.csv";
/// File name of the log.
pub const LOG: &str = "log.txt";
/// Folder of the models of single epochs, if the recipe requests them.
pub const EPOCHS: &str = "epochs";

/// Results of one epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Mean training loss, including label smoothing.
    pub train_loss: f64,
    /// Top-1 accuracy on the augmented training images during the epoch.
    pub train_top1: f64,
    /// Top-5 accuracy on the augmented training images.
    pub train_top5: f64,
    /// Validation results, if the data have a validation split.
    pub val: Option<Results>,
    /// Validation results of the moving average of the weights, if there is one.
    #[serde(default)]
    pub ema: Option<Results>,
    /// Training images per second.
    pub images_per_second: f64,
    /// Training time in seconds, without validation.
    pub seconds: f64,
}

impl EpochRow {
    /// Returns the better validation results, and whether they are those of the moving average.
    pub fn better(&self) -> (Option<Results>, bool) {
        let score = |results: Option<Results>| results.map(|results| results.score());
        let averaged = score(self.ema) > score(self.val);
        (if averaged { self.ema } else { self.val }, averaged)
    }

    /// Returns the score of the better validation results, or of the training loss without any.
    pub fn score(&self) -> Score {
        self.better().0.map_or([0.0, -self.train_loss], |results| results.score())
    }

    /// Returns the epoch as one printed line. It includes top-5 accuracy if that is meaningful for
    /// this number of `classes`.
    pub fn line(&self, classes: usize) -> String {
        let Self { epoch, learning_rate, train_loss, train_top1, images_per_second, seconds, .. } = self;
        let mut line = format!("epoch {epoch:>3}  train loss {train_loss:.4} top-1 {:6.2} %", 100.0 * train_top1);
        if let Some(Results { top1, top5, loss, .. }) = self.val {
            line += &format!("  val loss {loss:.4} top-1 {:6.2} %", 100.0 * top1);
            if shows_top5(classes) {
                line += &format!(" top-5 {:6.2} %", 100.0 * top5);
            }
        }
        if let Some(Results { top1, loss, .. }) = self.ema {
            line += &format!("  average loss {loss:.4} top-1 {:6.2} %", 100.0 * top1);
        }
        line + &format!("  lr {learning_rate:.2e}  {images_per_second:.0} img/s  {seconds:.1} s")
    }
}
