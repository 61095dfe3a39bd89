//! `mbconv recipe check`

use std::io::Read;
use std::path::{Path, PathBuf};

use mbconv_train::Recipe;
use mbconv_train::config::{RecipeError, RecipeFile, line_of, read_recipe};

use crate::args::CheckRecipes;
use crate::error::CliError;
use crate::output::print_text;

/// Number of classes for building the network; it comes from the data.
const CLASSES: usize = 2;

pub fn run(args: &CheckRecipes) -> Result<(), CliError> {
    let mut valid = true;
    for recipe in &args.recipes {
        match check(recipe) {
            Ok(summary) => print_text(&summary)?,
            Err(error) => {
                error.print();
                valid = false;
            }
        }
    }
    if valid { Ok(()) } else { Err(CliError::Reported) }
}

fn check(recipe: &Path) -> Result<String, CliError> {
    let (path, text) = if recipe == Path::new("-") { standard_input()? } else { read_recipe(recipe)? };
    let path = path.display().to_string();
    let parsed = RecipeFile::parse(&text, &path, &[]);
    let auto = parsed.as_ref().is_ok_and(RecipeFile::has_auto_batch);
    let checked = parsed.and_then(|file| Recipe::try_from(file.or_batch(1)));
    let recipe = checked.map_err(|error| located(error, &path, &text))?;
    summary(&path, &recipe, auto)
}

fn standard_input() -> Result<(PathBuf, String), CliError> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(("standard input".into(), text))
}

/// Adds file and line to an error, unless it contains them.
fn located(error: RecipeError, path: &str, text: &str) -> CliError {
    let line = match &error {
        RecipeError::Parse { .. } => return error.into(),
        RecipeError::OutOfRange { key, .. } => line_of(text, key),
        _ => None,
    };
    let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
    CliError::new(format!("in {path}{line}: {error}"), error.hint())
}

/// Returns what would be trained. `auto` is the batch size of the recipe.
fn summary(path: &str, recipe: &Recipe, auto: bool) -> Result<String, CliError> {
    let architecture = recipe.architecture(CLASSES)?;
    let network = recipe.model.with_classes(CLASSES).title();
    let (size, stride) = (recipe.input.size, architecture.total_stride());
    let accumulate = match recipe.accumulate {
        1 => String::new(),
        batches => format!(", {batches} batches per update"),
    };
    let batches = if auto { "batches that fit in memory".into() } else { format!("batches of {}", recipe.batch_size) };
    let name = |value: serde_json::Value| value.as_str().unwrap_or_default().to_string();
    let optimizer = name(serde_json::json!(recipe.optimizer.name));
    let schedule = name(serde_json::json!(recipe.schedule.name));
    let rate = recipe.optimizer.learning_rate_for(recipe.batch_size * recipe.accumulate);
    Ok(format!(
        "{path}: OK\n  network   {network}, {size:#} pixels, total stride {stride}\n  \
         training  {} epochs in {batches}{accumulate}\n  \
         updates   {optimizer}, learning rate {rate}, {schedule}\n  data      {}\n",
        recipe.epochs,
        recipe.data.path.as_deref().unwrap_or("set by --data"),
    ))
}
