//! `mbconv recipe`

mod check;
mod keys;
mod markdown;

use std::fmt::Write;

use mbconv_train::Recipe;
use mbconv_train::config::{EMBEDDED, EmbeddedRecipe, RecipeFile, read_recipe};
use serde_json::json;

use crate::args;
use crate::args::ShowRecipe;
use crate::error::CliError;
use crate::output::{print_json, print_text};

pub fn run(command: args::Recipe) -> Result<(), CliError> {
    match command {
        args::Recipe::List(args) => list(args.json),
        args::Recipe::Show(args) => show(&args),
        args::Recipe::Keys(args) => keys::run(args),
        args::Recipe::Check(args) => check::run(&args),
        args::Recipe::Schema => print_json(RecipeFile::schema()),
    }
}

fn list(as_json: bool) -> Result<(), CliError> {
    if as_json {
        let row = |recipe: &EmbeddedRecipe| -> Result<_, CliError> {
            let resolved = Recipe::parse(recipe.text, &[])?;
            Ok(json!({
                "name": recipe.name,
                "title": recipe.title(),
                "network": resolved.model.title(),
                "input_size": resolved.input.size,
                "epochs": resolved.epochs,
                "data": resolved.data.path,
            }))
        };
        return print_json(&json!(EMBEDDED.iter().map(row).collect::<Result<Vec<_>, _>>()?));
    }
    let width = EMBEDDED.iter().map(|recipe| recipe.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for recipe in EMBEDDED {
        let _ = writeln!(text, "{:<width$}  {}", recipe.name, recipe.title());
    }
    text += "\nTrain: mbconv train NAME [--data DATA]\n";
    text += "Start your own recipe: mbconv recipe show NAME > mine.toml\n";
    print_text(&text)
}

fn show(args: &ShowRecipe) -> Result<(), CliError> {
    let (path, text) = read_recipe(&args.recipe)?;
    if !args.resolved {
        return print_text(&text);
    }
    let file = RecipeFile::parse(&text, &path.display().to_string(), &[])?;
    Recipe::try_from(file.clone().or_batch(1))?;
    print_text(&file.to_toml())
}
