//! The rows of a run's `metrics.csv`, by the names of its columns.

use std::path::Path;

/// A table of numbers, one row an epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    columns: Vec<String>,
    rows: Vec<Vec<Option<f64>>>,
}

impl History {
    /// Reads the file; nothing where there is none or it is empty.
    ///
    /// # Errors
    /// A file that is there but cannot be read.
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
        let rows = lines.map(|cells| cells.map(|cell| cell.parse().ok().filter(|v: &f64| v.is_finite())).collect());
        Self { columns, rows: rows.collect() }
    }

    /// Number of epochs.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no epochs.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A column's values with their epochs; rows without a value are left out, and an unknown column has none.
    pub fn column(&self, name: &str) -> Vec<(f64, f64)> {
        let position = |name: &str| self.columns.iter().position(|column| column == name);
        let (Some(epoch), Some(column)) = (position("epoch"), position(name)) else { return Vec::new() };
        let cell = |row: &Vec<Option<f64>>, i: usize| row.get(i).copied().flatten();
        self.rows.iter().filter_map(|row| Some((cell(row, epoch)?, cell(row, column)?))).collect()
    }

    /// A column's last value.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.column(name).last().map(|point| point.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_gaps_left_out() {
        let history = History::parse("epoch,train_loss,val_top1\n1,2.5,\n2,nan,0.5\n3,1.5,0.75\n");
        assert_eq!(history.len(), 3);
        assert_eq!(history.column("train_loss"), [(1.0, 2.5), (3.0, 1.5)]);
        assert_eq!(history.column("val_top1"), [(2.0, 0.5), (3.0, 0.75)]);
        assert_eq!(history.column("ema_top1"), []);
        assert_eq!(history.last("val_top1"), Some(0.75));
        assert!(History::parse("").is_empty());
    }
}
