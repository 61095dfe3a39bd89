//! `mbconv compare`

use std::path::Path;

use mbconv_train::compare::{Difference, RunSummary, differences};
use mbconv_train::report::Comparison;
use serde_json::json;

use crate::args::Compare;
use crate::error::CliError;
use crate::output::{check_extension, check_is_file_name, print_json, print_text, print_written};
use crate::table::Table;
use crate::units::percent_or_dash;

/// Position of the top-5 accuracy in the table.
const TOP5: usize = 5;

pub fn run(args: Compare) -> Result<(), CliError> {
    if let Some(out) = &args.out {
        check_is_file_name(out, "compare.html")?;
        check_extension(out, "an HTML file", &["html", "htm"])?;
    }
    let runs: Vec<RunSummary> = args.runs.iter().map(|run| RunSummary::read(run)).collect::<Result<_, _>>()?;
    let differences = differences(&runs);
    if let Some(out) = &args.out {
        write_page(out, &runs, &differences)?;
    }
    if args.json.json {
        let differences: serde_json::Map<_, _> =
            differences.into_iter().map(|(key, values)| (key, json!(values))).collect();
        return print_json(&json!({ "runs": runs, "differences": differences }));
    }
    let mut text = Table::new(results(&runs), 2).in_parts();
    if runs.len() > 1 {
        text += &if differences.is_empty() {
            "\nthe recipes are identical\n".into()
        } else {
            format!("\n{}", Table::new(differing_keys(&runs, &differences), usize::MAX).in_parts())
        };
    }
    print_text(&text)
}

/// Writes the page with the curves of the runs.
fn write_page(out: &Path, runs: &[RunSummary], differences: &[Difference]) -> Result<(), CliError> {
    let page = Comparison {
        runs: runs.iter().map(|run| (run.path.display().to_string(), run.history.clone())).collect(),
        results: results(runs),
        differences: differing_keys(runs, differences),
    };
    page.write(out).map_err(|error| CliError::cannot_write(out, error))?;
    print_written(out)
}

/// Returns the rows of the table of results, the first with the headings.
fn results(runs: &[RunSummary]) -> Vec<Vec<String>> {
    let plain = |value: Option<f64>, decimals: usize| value.map_or("–".into(), |value| format!("{value:.decimals$}"));
    let headings = ["run", "model", "epochs", "best", "top-1", "top-5", "val loss", "train loss", "img/s", "time"];
    let mut rows = vec![headings.map(String::from).to_vec()];
    for run in runs {
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
    rows
}

/// Returns the rows of the table of recipe keys with different values, the first with the headings.
fn differing_keys(runs: &[RunSummary], differences: &[Difference]) -> Vec<Vec<String>> {
    let names = runs.iter().map(|run| run.path.display().to_string());
    let headings = std::iter::once("recipe".into()).chain(names).collect();
    let row = |(key, values): &Difference| {
        let values = values.iter().map(|value| value.clone().unwrap_or_else(|| "–".into()));
        std::iter::once(key.clone()).chain(values).collect()
    };
    std::iter::once(headings).chain(differences.iter().map(row)).collect()
}
