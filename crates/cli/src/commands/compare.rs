//! `mbconv compare`

use mbconv_train::compare::{RunSummary, differences};
use serde_json::json;

use crate::args::Compare;
use crate::error::CliError;
use crate::output::{print_json, print_text};
use crate::table::Table;
use crate::units::percent_or_dash;

/// Position of the top-5 accuracy in the table.
const TOP5: usize = 5;

pub fn run(args: Compare) -> Result<(), CliError> {
    let runs: Vec<RunSummary> = args.runs.iter().map(|run| RunSummary::read(run)).collect::<Result<_, _>>()?;
    let differences = differences(&runs);
    if args.json.json {
        let differences: serde_json::Map<_, _> =
            differences.into_iter().map(|(key, values)| (key, json!(values))).collect();
        return print_json(&json!({ "runs": runs, "differences": differences }));
    }
    let plain = |value: Option<f64>, decimals: usize| value.map_or("–".into(), |value| format!("{value:.decimals$}"));
    let headings = ["run", "model", "epochs", "best", "top-1", "top-5", "val loss", "train loss", "img/s", "time"];
    let mut rows = vec![headings.map(String::from).to_vec()];
    for run in &runs {
        rows.push(vec![
            run.path.display().to_string(),
            run.model.clone(),
            format!("{}/{}", run.epochs, run.planned_epochs),
            run.best_epoch.map_or("–".into(), |epoch| epoch.to_string()),
            percent_or_dash(run.top1),
            percent_or_dash(run.top5.filter(|_| run.shows_top5)),
            plain(run.val_loss, 4),
            plain(run.train_loss, 4),
            plain(run.images_per_second, 0),
            format!("{:.1} min", run.seconds / 60.0),
        ]);
    }
    if !runs.iter().any(|run| run.shows_top5) {
        rows.iter_mut().for_each(|row| drop(row.remove(TOP5)));
    }
    let mut text = Table::new(rows, 2).in_parts();
    if runs.len() > 1 {
        let names = runs.iter().map(|run| run.path.display().to_string());
        let mut rows: Vec<Vec<String>> = vec![std::iter::once("recipe".into()).chain(names).collect()];
        for (key, values) in differences {
            let values = values.into_iter().map(|value| value.unwrap_or_else(|| "–".into()));
            rows.push(std::iter::once(key).chain(values).collect());
        }
        text += &if rows.len() > 1 {
            format!("\n{}", Table::new(rows, usize::MAX).in_parts())
        } else {
            "\nthe recipes are identical\n".into()
        };
    }
    print_text(&text)
}
