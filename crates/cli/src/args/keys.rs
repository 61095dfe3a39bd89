//! Short forms of recipe keys.

use std::fmt::Display;

use clap::Args;
use clap::error::ErrorKind;

use super::values::{batch_size, positive};

#[derive(Args)]
pub struct KeyArgs {
    /// Number of epochs, short for --set epochs=N
    #[arg(long, value_name = "N", value_parser = positive)]
    pub epochs: Option<usize>,
    /// Base learning rate, short for --set optimizer.learning_rate=RATE
    #[arg(long, value_name = "RATE")]
    pub lr: Option<f64>,
    /// Number of images per batch, or auto for the largest that fits, short for --set batch_size=N
    #[arg(long, value_name = "N", value_parser = batch_size, help_heading = "Training")]
    pub batch_size: Option<String>,
}

impl KeyArgs {
    /// Returns the keys as `key=value`. Ends the program with a usage error if one of them is also
    /// in `overrides`.
    pub fn settings(&self, overrides: &[String]) -> Vec<String> {
        let epochs = short_form("--epochs", "epochs", self.epochs, overrides);
        let rate = short_form("--lr", "optimizer.learning_rate", self.lr, overrides);
        let batch_size = short_form("--batch-size", "batch_size", self.batch_size.as_ref(), overrides);
        [epochs, rate, batch_size].into_iter().flatten().collect()
    }
}

/// Returns the setting `key=value` of a short form. Ends the program with a usage error if the key
/// is also in `overrides`.
pub fn short_form(flag: &str, key: &str, value: Option<impl Display>, overrides: &[String]) -> Option<String> {
    let value = value?;
    let sets_key = |setting: &&String| setting.split('=').next().is_some_and(|set| set.trim() == key);
    if let Some(setting) = overrides.iter().find(sets_key) {
        let message = format!("{flag} {value} and --set {setting} set the same key\n");
        clap::Error::raw(ErrorKind::ArgumentConflict, message).exit();
    }
    Some(format!("{key}={value}"))
}
