//! The page that compares runs.

use std::fmt::Write;
use std::io;
use std::path::Path;

use mbconv_files::write_atomically;

use crate::chart::{Chart, Series, Unit, outlier_limit, series_class};
use crate::history::History;
use crate::html::{document, escape, section};

/// A comparison of runs as a single HTML file: curves, results, and differences of the recipes.
#[derive(Default)]
pub struct Comparison {
    /// Name and epochs of each run.
    pub runs: Vec<(String, History)>,
    /// Results: the headings, then a row per run, in the order of the runs.
    pub results: Vec<Vec<String>>,
    /// Differences of the recipes: the headings, then a row per key.
    pub differences: Vec<Vec<String>>,
}

/// Title, column of `metrics.csv` and unit of each chart.
const CHARTS: [(&str, &str, Unit); 7] = [
    ("Training loss", "train_loss", Unit::Plain),
    ("Validation loss", "val_loss", Unit::Plain),
    ("Validation loss of the averaged weights", "ema_loss", Unit::Plain),
    ("Training top-1", "train_top1", Unit::Percent),
    ("Validation top-1", "val_top1", Unit::Percent),
    ("Validation top-1 of the averaged weights", "ema_top1", Unit::Percent),
    ("Learning rate", "learning_rate", Unit::Plain),
];

impl Comparison {
    /// Writes the page.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write_atomically(path, self.to_html().as_bytes())
    }

    /// Renders the page.
    pub fn to_html(&self) -> String {
        let title = format!("Comparison of {} run{}", self.runs.len(), if self.runs.len() == 1 { "" } else { "s" });
        let mut body = format!("<header><h1>{title}</h1></header>");
        section(&mut body, "Results", &table(&self.results, &|run| format!("<td class=key>{}</td>", key(run))));
        let charts: String =
            CHARTS.iter().filter_map(|&(title, column, unit)| self.chart(title, column, unit)).collect();
        if !charts.is_empty() {
            section(&mut body, "Curves", &format!("<div class=charts>{charts}</div>"));
        }
        if self.differences.len() > 1 {
            section(&mut body, "Differences of the recipes", &table(&self.differences, &|_| String::new()));
        }
        document(&title, &body)
    }

    /// Renders a column of all runs, or returns `None` if no run has it.
    fn chart<'a>(&'a self, title: &'a str, column: &str, unit: Unit) -> Option<String> {
        let curve = |(name, history): &'a (String, History)| Series { name, points: history.curve(column) };
        let series: Vec<Series> = self.runs.iter().map(curve).collect();
        let y_most = column.ends_with("_loss").then(|| outlier_limit(&series)).flatten();
        // The table of results has the colors.
        Chart { title, series, unit, y_most, legend: false, ..Chart::default() }.to_svg()
    }
}

/// Renders the line of a run in the charts.
fn key(run: usize) -> String {
    format!("<svg viewBox=\"0 0 18 10\"><polyline class=\"line {}\" points=\"1,5 17,5\"/></svg>", series_class(run))
}

/// Renders a table whose first row has the headings and whose first column has names. `before`
/// renders the first cell of a row.
fn table(rows: &[Vec<String>], before: &dyn Fn(usize) -> String) -> String {
    let Some((headings, rows)) = rows.split_first() else { return String::new() };
    let cells = |tag: &str, row: &[String]| {
        let cell = |(column, text): (usize, &String)| {
            format!("<{tag}{}>{}</{tag}>", if column == 0 { "" } else { " class=n" }, escape(text))
        };
        row.iter().enumerate().map(cell).collect::<String>()
    };
    let key = if before(0).is_empty() { "" } else { "<th></th>" };
    let mut text = format!("<div class=wide><table><thead><tr>{key}{}</tr></thead><tbody>", cells("th", headings));
    for (index, row) in rows.iter().enumerate() {
        let _ = write!(text, "<tr>{}{}</tr>", before(index), cells("td", row));
    }
    text + "</tbody></table></div>"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(text: &str) -> History {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrics.csv");
        std::fs::write(&file, text).unwrap();
        History::read(&file).unwrap()
    }

    #[test]
    fn curves_of_all_runs_share_charts_and_colors() {
        let long: String = (1..=80).map(|epoch| format!("{epoch},0.1,{},0.5,0.4\n", 2.0 / f64::from(epoch))).collect();
        let row = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let page = Comparison {
            runs: vec![
                ("<b>&a".into(), history(&format!("epoch,learning_rate,train_loss,val_top1,ema_top1\n{long}"))),
                ("empty".into(), history("")),
                ("short".into(), history("epoch,learning_rate,train_loss,val_top1\n1,0.2,2,0.25\n2,0.1,nan,0.5\n")),
            ],
            results: vec![row("run top-1"), row("<b>&a 50"), row("empty –"), row("short 50")],
            differences: vec![row("recipe a b c"), row("seed 0 1 <2>")],
        };
        let html = page.to_html();
        assert!(html.contains("&lt;b&gt;&amp;a") && html.contains("&lt;2&gt;") && !html.contains("<b>"), "{html}");
        assert!(!html.contains("NaN") && !html.contains("http"), "one file, without other resources");
        let titles: Vec<&str> =
            CHARTS.iter().map(|chart| chart.0).filter(|name| html.contains(&format!(">{name}<"))).collect();
        assert_eq!(
            titles,
            ["Training loss", "Validation top-1", "Validation top-1 of the averaged weights", "Learning rate"]
        );
        // The third run keeps its color although the second has no curve.
        let loss = html.split("<svg class=\"chart\"").nth(1).unwrap();
        assert!(loss.contains("line s0") && loss.contains("point s2") && !loss.contains("s1\""), "{loss}");
        assert!(Comparison::default().to_html().contains("Comparison of 0 runs"));
    }

    #[test]
    fn further_runs_are_dashed() {
        let classes = [0, 7, 8, 23, 24].map(series_class);
        assert_eq!(classes, ["s0", "s7", "s0 d1", "s7 d2", "s0"]);
    }
}
