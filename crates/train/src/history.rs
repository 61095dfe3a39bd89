//! Results of epochs, and names of the files in a run's folder.

use serde::{Deserialize, Serialize};

use crate::config::checkpoint::{Metric, Score};
use crate::metrics::shows_top5;
use mbconv_interop::model_file::Results;

/// File name of the resolved recipe in a run's folder.
pub const RECIPE: &str = "recipe.toml";
/// File name of the table with one row per epoch.
pub const METRICS: &str = "metrics.csv";
/// File name of the log.
pub const LOG: &str = "log.txt";
/// Folder of the models of single epochs, if the recipe requests them.
pub const EPOCHS: &str = "epochs";

/// Columns of an epoch's line in the log, and of output that is not for a terminal.
pub const LINE_WIDTH: usize = 80;

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
    /// Returns the validation results that are better by `metric`, and whether they are those of
    /// the moving average.
    pub fn better(&self, metric: Metric) -> (Option<Results>, bool) {
        let score = |results: Option<Results>| results.map(|results| metric.score(&results));
        let averaged = score(self.ema) > score(self.val);
        (if averaged { self.ema } else { self.val }, averaged)
    }

    /// Returns the score of the better validation results, or of the training loss without any.
    pub fn score(&self, metric: Metric) -> Score {
        self.better(metric).0.map_or([0.0, -self.train_loss], |results| metric.score(&results))
    }

    /// Returns the epoch as one printed line of at most `width` columns. The least needed figures
    /// that do not fit are left out, and top-5 accuracy if it is always 100 % with this number of
    /// `classes`.
    pub fn line(&self, classes: usize, width: usize) -> String {
        let mut cells = self.cells(classes);
        while line_of(&cells).chars().count() > width
            && let Some((least, _)) = cells.iter().enumerate().max_by_key(|(_, cell)| cell.rank)
            && cells[least].rank > 0
        {
            cells.remove(least);
        }
        line_of(&cells)
    }

    /// Returns the figures of the line from left to right. Those with the highest rank are left out
    /// first: the loss of the moving average, top-5, speed, training top-1, learning rate, time,
    /// top-1 of the moving average, validation loss, training loss, validation top-1.
    fn cells(&self, classes: usize) -> Vec<Cell> {
        let cell = |rank, group, text| Cell { rank, group, text };
        let loss = |loss| format!("loss {}", six(loss));
        let top = |k, fraction| format!("top-{k} {} %", percent(fraction));
        // Multi-label data have no top-1 accuracy in the usual sense.
        let main = |results: &Results| match results.map {
            Some(map) => format!("mAP {} %", percent(map)),
            None => top(1, results.top1),
        };
        let mut cells = vec![cell(0, "epoch", format!("{:>3}", self.epoch)), cell(2, "train", loss(self.train_loss))];
        if self.val.is_none_or(|val| val.map.is_none()) {
            cells.push(cell(7, "train", top(1, self.train_top1)));
        }
        if let Some(val) = self.val {
            cells.extend([cell(3, "val", loss(val.loss)), cell(1, "val", main(&val))]);
            if shows_top5(classes) && val.map.is_none() {
                cells.push(cell(9, "val", top(5, val.top5)));
            }
            cells.extend(class_metric(&val).map(|text| cell(1, "val", text)));
        }
        if let Some(ema) = self.ema {
            cells.extend([cell(10, "ema", loss(ema.loss)), cell(4, "ema", main(&ema))]);
            cells.extend(class_metric(&ema).map(|text| cell(4, "ema", text)));
        }
        cells.extend([
            cell(6, "lr", format!("{:.2e}", self.learning_rate)),
            cell(8, "", format!("{:>5.0} img/s", self.images_per_second)),
            cell(5, "", seconds(self.seconds)),
        ]);
        cells
    }
}

/// A figure of an epoch's line.
struct Cell {
    rank: u8,
    /// Name that neighboring figures share.
    group: &'static str,
    text: String,
}

fn line_of(cells: &[Cell]) -> String {
    let mut line = String::new();
    let mut last = "";
    for Cell { group, text, .. } in cells {
        line += match (line.is_empty(), last == *group && !group.is_empty()) {
            (true, _) => "",
            (false, true) => " ",
            (false, false) => "  ",
        };
        if *group != last && !group.is_empty() {
            line += group;
            line.push(' ');
        }
        line += text;
        last = group;
    }
    line
}

/// Formats a number with six characters and up to four decimals.
fn six(value: f64) -> String {
    let mut fixed = (0..=4).rev().map(|decimals| format!("{value:>6.decimals$}"));
    fixed.find(|text| text.len() == 6).unwrap_or_else(|| format!("{value:>6.0e}"))
}

/// Formats a fraction as a percentage with five characters.
fn percent(fraction: f64) -> String {
    let text = format!("{:5.2}", 100.0 * fraction);
    if text == "100.00" { "100.0".into() } else { text }
}

/// Formats seconds with four characters, unless they are 10⁴ or more.
fn seconds(seconds: f64) -> String {
    if seconds < 99.95 { format!("{seconds:>4.1} s") } else { format!("{seconds:>4.0} s") }
}

/// Formats the metric of the classes that selects the best model, if there is one.
fn class_metric(results: &Results) -> Option<String> {
    let named = [("macro F1", results.macro_f1), ("balanced accuracy", results.balanced_accuracy)];
    named.iter().find_map(|(name, value)| Some(format!("{name} {} %", percent((*value)?))))
}

/// Returns the name of the metric by which a recipe, given as TOML, selects the best model.
pub(crate) fn metric_of(recipe: &toml::Table) -> Option<&str> {
    recipe.get("checkpoint")?.get("metric")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Scores;

    fn row(ema: bool) -> EpochRow {
        let results = |loss, top1| crate::metrics::results(7, Scores { top1, top5: 0.91, loss }, 1000);
        EpochRow {
            epoch: 7,
            learning_rate: 0.05,
            train_loss: 1.234567,
            train_top1: 0.5678,
            train_top5: 0.9,
            val: Some(results(2.5, 0.4321)),
            ema: ema.then(|| results(2.25, 0.4567)),
            images_per_second: 1234.4,
            seconds: 40.51,
        }
    }

    #[test]
    fn lines_fit_the_width() {
        let lines = [(false, 60), (false, 80), (false, 120), (true, 60), (true, 80), (true, 120), (true, 200)]
            .map(|(ema, width)| row(ema).line(10, width));
        let expected = [
            "epoch   7  train loss 1.2346  val loss 2.5000 top-1 43.21 %",
            "epoch   7  train loss 1.2346  val loss 2.5000 top-1 43.21 %  lr 5.00e-2  40.5 s",
            "epoch   7  train loss 1.2346 top-1 56.78 %  val loss 2.5000 top-1 43.21 % top-5 91.00 %  lr 5.00e-2   \
             1234 img/s  40.5 s",
            "epoch   7  train loss 1.2346  val loss 2.5000 top-1 43.21 %",
            "epoch   7  train loss 1.2346  val loss 2.5000 top-1 43.21 %  ema top-1 45.67 %",
            "epoch   7  train loss 1.2346 top-1 56.78 %  val loss 2.5000 top-1 43.21 %  ema top-1 45.67 %  \
             lr 5.00e-2  40.5 s",
            "epoch   7  train loss 1.2346 top-1 56.78 %  val loss 2.5000 top-1 43.21 % top-5 91.00 %  \
             ema loss 2.2500 top-1 45.67 %  lr 5.00e-2   1234 img/s  40.5 s",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn top5_needs_more_than_five_classes_and_columns_do_not_move() {
        assert!(!row(true).line(5, 200).contains("top-5"));
        let odd = [0.0, 9.99999, 12.345678, 123.456, 98765.4, 999_999.9, 1.5e7, 1e300, f64::INFINITY, f64::NAN];
        for width in [20, 40, 60, 80, 120, 200] {
            let usual = row(true).line(10, width).chars().count();
            assert!(usual <= width.max(9));
            for train_loss in odd {
                let line = EpochRow { train_loss, train_top1: 1.0, seconds: 4321.0, ..row(true) }.line(10, width);
                assert!(line.chars().count() == usual, "{width}: {line}");
            }
        }
    }

    #[test]
    fn multi_label_lines_show_the_mean_average_precision() {
        let map = |results: Option<Results>| results.map(|results| Results { map: Some(0.875), ..results });
        let row = row(true);
        let row = EpochRow { val: map(row.val), ema: map(row.ema), ..row };
        let expected = "epoch   7  train loss 1.2346  val loss 2.5000 mAP 87.50 %  ema mAP 87.50 %  lr 5.00e-2  40.5 s";
        assert_eq!(row.line(10, 100), expected);
    }

    #[test]
    fn lines_without_validation_show_training_alone() {
        let line = EpochRow { val: None, ..row(false) }.line(10, 80);
        assert_eq!(line, "epoch   7  train loss 1.2346 top-1 56.78 %  lr 5.00e-2   1234 img/s  40.5 s");
    }
}
