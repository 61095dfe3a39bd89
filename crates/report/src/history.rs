//! The rows of a run's `metrics.csv`, by column name.

use std::path::Path;

/// A numeric table with one row per epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    columns: Vec<String>,
    rows: Vec<Vec<Option<f64>>>,
    /// Metric that selects the best epoch, if it is not the top-1 accuracy.
    metric: Option<String>,
}

/// The best validation result of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Top-1 accuracy.
    pub top1: f64,
    /// Top-5 accuracy.
    pub top5: Option<f64>,
    /// Loss.
    pub loss: Option<f64>,
    /// Mean average precision of a multi-label model.
    pub map: Option<f64>,
    /// True if the result is that of the averaged weights.
    pub averaged: bool,
}

impl History {
    /// Reads the file. Returns an empty history if it is missing or empty.
    ///
    /// # Errors
    /// An existing file that cannot be read.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines().map(|line| line.split(',').map(str::trim));
        let columns = lines.next().map(|cells| cells.map(String::from).collect()).unwrap_or_default();
        let rows = lines.map(|cells| cells.map(|cell| cell.parse().ok()).collect());
        Self { columns, rows: rows.collect(), metric: None }
    }

    /// Sets the metric that selects the best epoch, such as `macro_f1`; the default is `top1`.
    pub fn selected_by(self, metric: Option<&str>) -> Self {
        Self { metric: metric.map(String::from), ..self }
    }

    /// Returns the number of epochs.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether there are no epochs.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the finite values of a column with their epochs. Unknown columns are empty.
    pub fn column(&self, name: &str) -> Vec<(f64, f64)> {
        self.curve(name).into_iter().filter(|(_, value)| value.is_finite()).collect()
    }

    /// Returns the values of a column with their epochs, without empty cells.
    pub(crate) fn curve(&self, name: &str) -> Vec<(f64, f64)> {
        let position = |name: &str| self.columns.iter().position(|column| column == name);
        let (Some(epoch), Some(column)) = (position("epoch"), position(name)) else { return Vec::new() };
        let cell = |row: &Vec<Option<f64>>, i: usize| row.get(i).copied().flatten();
        self.rows.iter().filter_map(|row| Some((cell(row, epoch)?, cell(row, column)?))).collect()
    }

    /// Returns the best validation result, of the network or of its moving average: the best
    /// metric, then the lowest loss, then the earliest epoch, as in training.
    pub fn best(&self) -> Option<Best> {
        let metric = self.metric.as_deref().unwrap_or("top1");
        let mut best: Option<(Best, [f64; 3])> = None;
        for kind in ["val", "ema"] {
            let [top1, top5, loss, map, values] =
                ["top1", "top5", "loss", "map", metric].map(|name| self.column(&format!("{kind}_{name}")));
            let at =
                |column: &[(f64, f64)], epoch: f64| column.iter().find(|point| point.0 == epoch).map(|point| point.1);
            for &(epoch, top1) in &top1 {
                let (top5, loss) = (at(&top5, epoch), at(&loss, epoch));
                let cost = loss.unwrap_or(f64::INFINITY);
                let value = if metric == "loss" { -cost } else { at(&values, epoch).unwrap_or(f64::NEG_INFINITY) };
                let score = [value, -cost, -epoch];
                if best.is_none_or(|(_, old)| score > old) {
                    let (averaged, map) = (kind == "ema", at(&map, epoch));
                    let result = Best { epoch: epoch as usize, top1, top5, loss, map, averaged };
                    best = Some((result, score));
                }
            }
        }
        best.map(|(best, _)| best)
    }

    /// Returns the last value of a column.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.column(name).last().map(|point| point.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_by_name_without_empty_cells() {
        let history = History::parse("epoch,train_loss,val_top1\n1,2.5,\n2,nan,0.5\n3,1.5,0.75\n");
        assert_eq!(history.len(), 3);
        assert_eq!(history.column("train_loss"), [(1.0, 2.5), (3.0, 1.5)]);
        assert_eq!(history.column("val_top1"), [(2.0, 0.5), (3.0, 0.75)]);
        assert_eq!(history.column("ema_top1"), []);
        assert_eq!(history.curve("train_loss").len(), 3);
        assert_eq!(history.curve("val_top1").len(), 2);
        assert_eq!(history.last("val_top1"), Some(0.75));
        assert!(History::parse("").is_empty() && History::parse("").best().is_none());
    }

    #[test]
    fn best_result_may_be_of_averaged_weights() {
        let head = "epoch,val_loss,val_top1,val_top5,ema_loss,ema_top1,ema_top5\n";
        let best = |rows: &str| History::parse(&format!("{head}{rows}")).best().unwrap();
        let of = |rows| (best(rows).epoch, best(rows).top1, best(rows).averaged);
        assert_eq!(of("1,1.0,0.5,0.9,1.2,0.4,0.9\n2,0.9,0.6,0.9,0.8,0.7,0.9\n"), (2, 0.7, true));
        assert_eq!(of("1,1.0,0.5,0.9,,,\n2,0.9,0.5,0.9,,,\n3,0.9,0.5,0.9,,,\n"), (2, 0.5, false));
    }

    #[test]
    fn best_result_follows_the_metric() {
        let csv = "epoch,val_loss,val_top1,val_macro_f1\n1,0.5,0.9,\n2,0.7,0.8,0.7\n3,0.6,0.7,0.6\n";
        let best = |metric| History::parse(csv).selected_by(metric).best().unwrap().epoch;
        assert_eq!([None, Some("top1"), Some("loss"), Some("macro_f1")].map(best), [1, 1, 1, 2]);
    }
}
