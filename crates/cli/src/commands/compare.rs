//! `mbconv compare`

use mbconv_train::compare::{RunSummary, differences};
use mbconv_train::text::visible_name;
use serde_json::json;

use crate::args::Compare;
use crate::error::CliError;
use crate::output::{print_json, print_text};
use crate::units::percent_or_dash;

pub fn run(args: Compare) -> Result<(), CliError> {
    let runs: Vec<RunSummary> = args.runs.iter().map(|run| RunSummary::read(run)).collect::<Result<_, _>>()?;
    let differences = differences(&runs);
    if args.json.json {
        let differences: serde_json::Map<_, _> =
            differences.into_iter().map(|(key, values)| (key, json!(values))).collect();
        return print_json(&json!({ "runs": runs, "differences": differences }));
    }
    let plain = |value: Option<f64>, decimals: usize| value.map_or("–".into(), |value| format!("{value:.decimals$}"));
    let mut rows = vec![
        ["run", "model", "epochs", "best", "top-1", "top-5", "val loss", "train loss", "img/s", "time"]
            .map(String::from),
    ];
    for run in &runs {
        rows.push([
            run.path.display().to_string(),
            run.model.clone(),
            format!("{}/{}", run.epochs, run.planned_epochs),
            run.best_epoch.map_or("–".into(), |epoch| epoch.to_string()),
            percent_or_dash(run.top1),
            percent_or_dash(run.top5),
            plain(run.val_loss, 4),
            plain(run.train_loss, 4),
            plain(run.images_per_second, 0),
            format!("{:.1} min", run.seconds / 60.0),
        ]);
    }
    let mut text = table(rows.into_iter().map(Vec::from).collect(), 2);
    if runs.len() > 1 {
        let names = runs.iter().map(|run| run.path.display().to_string());
        let mut rows: Vec<Vec<String>> = vec![std::iter::once("recipe".into()).chain(names).collect()];
        for (key, values) in differences {
            let values = values.into_iter().map(|value| value.unwrap_or_else(|| "–".into()));
            rows.push(std::iter::once(key).chain(values).collect());
        }
        text += &if rows.len() > 1 {
            format!("\n{}", table(rows, usize::MAX))
        } else {
            "\nthe recipes are identical\n".into()
        };
    }
    print_text(&text)
}

/// Formats a table with aligned columns; columns from `right` on are right-aligned.
fn table(mut rows: Vec<Vec<String>>, right: usize) -> String {
    rows.iter_mut().flatten().for_each(|cell| *cell = visible_name(cell).into_owned());
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, &width))| if i >= right { format!("{cell:>width$}") } else { format!("{cell:<width$}") })
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}
