//! Tables and paragraphs that fit the terminal.

use console::Term;
use mbconv_train::text::visible_name;

use crate::terminal::columns;

/// Distance between columns.
const GAP: usize = 2;

/// A table; the first row has the headings.
pub struct Table {
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
    /// First right-aligned column.
    right: usize,
}

impl Table {
    /// Creates a table whose columns from `right` on are right-aligned. Control characters are
    /// escaped.
    pub fn new(mut rows: Vec<Vec<String>>, right: usize) -> Self {
        rows.iter_mut().flatten().for_each(|cell| *cell = visible_name(cell).into_owned());
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        Self { rows, widths, right }
    }

    /// Formats the table. Columns that do not fit standard output follow in further tables, which
    /// repeat the first column.
    pub fn in_parts(&self) -> String {
        let parts = self.parts(columns(&Term::stdout()));
        parts.iter().map(|part| self.text(part)).collect::<Vec<_>>().join("\n")
    }

    /// Formats the columns that fit standard output, and returns the headings of the others.
    /// `by_need` lists the columns, the most needed first.
    pub fn fitting(&self, by_need: &[usize]) -> (String, Vec<&str>) {
        let (shown, hidden) = by_need.split_at(self.fit(by_need, columns(&Term::stdout())));
        let mut shown = shown.to_vec();
        shown.sort_unstable();
        (self.text(&shown), hidden.iter().map(|&column| self.rows[0][column].as_str()).collect())
    }

    /// Returns how many of the columns fit, but at least one.
    fn fit(&self, columns: &[usize], width: usize) -> usize {
        let ends = columns.iter().scan(0, |end, &column| {
            *end += self.widths[column] + GAP;
            Some(*end - GAP)
        });
        ends.take_while(|&end| end <= width).count().max(1)
    }

    fn parts(&self, width: usize) -> Vec<Vec<usize>> {
        let mut parts = Vec::new();
        let mut left: Vec<usize> = (1..self.widths.len()).collect();
        while !left.is_empty() {
            let mut part = [vec![0], left].concat();
            left = part.split_off(self.fit(&part, width).max(2));
            parts.push(part);
        }
        parts
    }

    fn text(&self, columns: &[usize]) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let cell = |&column: &usize| {
                let (cell, width) = (row.get(column).map_or("", String::as_str), self.widths[column]);
                if column >= self.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            };
            text += columns.iter().map(cell).collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}

/// Breaks text that follows a label of `indent` columns at spaces, so that its lines fit standard
/// output. Further lines are indented.
pub fn wrapped(text: &str, indent: usize) -> String {
    wrapped_to(text, indent, columns(&Term::stdout()))
}

fn wrapped_to(text: &str, indent: usize, width: usize) -> String {
    let mut wrapped = String::new();
    let mut at = indent;
    for word in text.split(' ') {
        let length = word.chars().count();
        if at > indent && at + 1 + length > width {
            wrapped += "\n";
            wrapped += &" ".repeat(indent);
            at = indent;
        } else if at > indent {
            wrapped.push(' ');
            at += 1;
        }
        wrapped += word;
        at += length;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let rows = ["run model top-1 loss", "runs/a mobilenet 97.53 0.1", "runs/b mobilenet 9.53 0.25"];
        Table::new(rows.map(|row| row.split(' ').map(String::from).collect()).into(), 2)
    }

    #[test]
    fn columns_that_do_not_fit_follow_below() {
        let table = table();
        assert_eq!(table.parts(80), [[0, 1, 2, 3]]);
        assert_eq!(table.parts(30), [[0, 1, 2, 3]]);
        assert_eq!(table.parts(29), [vec![0, 1, 2], vec![0, 3]]);
        assert_eq!(table.parts(1), [[0, 1], [0, 2], [0, 3]]);
        assert_eq!(table.text(&[0, 2, 3]), "run     top-1  loss\nruns/a  97.53   0.1\nruns/b   9.53  0.25\n");
    }

    #[test]
    fn least_needed_columns_are_left_out_first() {
        let table = table();
        for (width, shown) in [(80, 4), (30, 4), (29, 3), (19, 3), (18, 2), (1, 1)] {
            assert_eq!(table.fit(&[0, 2, 3, 1], width), shown, "{width}");
        }
    }

    #[test]
    fn text_is_broken_at_spaces() {
        let text = "for one image, at most 6 MB";
        assert_eq!(wrapped_to(text, 0, 80), text);
        assert_eq!(wrapped_to(text, 4, 18), "for one image,\n    at most 6 MB");
        assert_eq!(wrapped_to("a longword b", 2, 4), "a\n  longword\n  b");
    }
}
