//! Arguments of `recipe`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::json::JsonArgs;

#[derive(Subcommand)]
pub enum Recipe {
    /// List the recipes that come with mbconv
    List(JsonArgs),
    /// Print a recipe, to start one's own from it
    Show(ShowRecipe),
    /// Describe the keys of recipes
    Keys(RecipeKeys),
    /// Check recipes without training
    Check(CheckRecipes),
    /// Print the JSON schema of recipes, for editors
    Schema,
}

#[derive(Args)]
pub struct ShowRecipe {
    /// Name from `mbconv recipe list`, TOML file or run folder
    pub recipe: PathBuf,
    /// Print all keys, with the defaults filled in
    #[arg(long)]
    pub resolved: bool,
}

#[derive(Args)]
pub struct RecipeKeys {
    /// Section, such as optimizer, or key, such as optimizer.learning_rate [default: all]
    pub section: Option<String>,
    /// Print Markdown tables
    #[arg(long, conflicts_with_all = ["json", "section"])]
    pub markdown: bool,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct CheckRecipes {
    /// TOML files, names or run folders; - reads standard input
    #[arg(required = true, value_name = "RECIPE")]
    pub recipes: Vec<PathBuf>,
}
