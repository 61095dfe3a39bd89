//! The command line.

mod data;
mod device;
mod help;
mod inference;
mod insight;
mod json;
mod keys;
mod models;
mod networks;
mod quantize;
mod recipe;
mod scale;
mod shell;
mod train;
mod tune;
mod values;

use clap::{Parser, Subcommand};

pub use self::data::{Data, DataArgs, Inspect, Pack, Split, Verify};
pub use self::device::{DeviceArgs, DtypeArgs};
pub use self::inference::{Calibrate, Eval, LabelledImages, LoaderArgs, Predict};
pub use self::insight::{Embed, Explain};
pub use self::json::JsonArgs;
pub use self::models::{Export, Fetch, Format, Import, Layout};
pub use self::networks::{Bench, BenchMode, Draw, Info, List};
pub use self::quantize::Quantize;
pub use self::recipe::{CheckRecipes, Recipe, RecipeKeys, ShowRecipe};
pub use self::scale::{
    BudgetArgs, CoefficientArgs, DEFAULT_PHI, FormulaArgs, NetworkArgs, Only, Scale, ScaleCommand, SearchArgs,
    SeriesArgs,
};
pub use self::shell::{Completions, Man};
pub use self::train::{Average, Compare, FindLr, Finetune, Train};
pub use self::tune::Tune;

/// Train, evaluate and use MobileNetV2 and EfficientNet image classifiers.
#[derive(Parser)]
#[command(
    name = "mbconv",
    version,
    help_template = help::template(),
    mut_subcommands(help::complete)
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Train a network from a TOML recipe
    Train(Train),
    /// Fine-tune a model on your images, with settings chosen from them
    Finetune(Finetune),
    /// Measure accuracy, F1, AUROC and calibration on a data set
    Eval(Eval),
    /// Fit the temperature that calibrates a model's probabilities
    Calibrate(Calibrate),
    /// Convert a model to 8 bits and measure the difference
    Quantize(Quantize),
    /// Run a learning-rate range test and draw the loss
    FindLr(FindLr),
    /// Search hyperparameters with many short trainings
    Tune(Tune),
    /// Compare training runs in a table
    Compare(Compare),
    /// Classify image files, folders of images, or a list of paths
    Predict(Predict),
    /// Show which parts of images speak for a class, as heatmaps
    Explain(Explain),
    /// Write the features of images, or find similar images
    Embed(Embed),
    /// Average the weights of several models
    Average(Average),
    /// Export a model for other tools
    Export(Export),
    /// Convert weights of torchvision, timm, Hugging Face and others
    Import(Import),
    /// Download published weights into the cache and print their path
    Fetch(Fetch),
    /// List, print and check recipes, and describe their keys
    #[command(subcommand)]
    Recipe(Recipe),
    /// Inspect, verify, pack or split a data set
    #[command(subcommand)]
    Data(Data),
    /// Show a network's parameters, size, cost and layers
    Info(Info),
    /// List the architectures, or published weights
    List(List),
    /// Draw a network's stages, or published accuracy over cost, as SVG
    Draw(Draw),
    /// Scale depth, width and resolution by formula, budget or search
    Scale(Box<Scale>),
    /// Measure the speed and memory of a network on this machine
    Bench(Bench),
    /// List the devices that this build can use
    Devices(JsonArgs),
    /// Print a script that completes commands and options in a shell
    Completions(Completions),
    /// Write man pages of all commands to a folder
    Man(Man),
}

#[cfg(test)]
#[path = "../../tests/common/documented.rs"]
mod documented;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::{ContextKind, ErrorKind};

    use super::documented::{calls, code_spans, commands, pages};
    use super::*;

    #[test]
    fn command_line_definition_is_valid() {
        Arguments::command().debug_assert();
    }

    fn parse(arguments: &[String]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("mbconv").chain(arguments.iter().map(String::as_str)))
    }

    #[test]
    fn documented_commands_parse() {
        let commands: Vec<_> = pages().iter().flat_map(|page| commands(page)).collect();
        let calls =
            commands.iter().flat_map(|command| calls(&command.text).into_iter().map(|call| (&command.place, call)));
        let (calls, mut failures): (Vec<_>, Vec<_>) = (calls.collect(), Vec::new());
        for (place, arguments) in &calls {
            if let Err(error) = parse(arguments) {
                failures.push(format!("{place}: mbconv {}\n{error}", arguments.join(" ")));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert!(calls.len() > 50, "found only {} commands", calls.len());
    }

    /// Returns true if the wrong word is a placeholder, such as `COMMAND`.
    fn is_placeholder(error: &clap::Error) -> bool {
        [ContextKind::InvalidSubcommand, ContextKind::InvalidValue]
            .into_iter()
            .filter_map(|kind| error.get(kind))
            .any(|word| word.to_string().chars().all(|character| character.is_ascii_uppercase()))
    }

    /// Commands in running text may lack arguments, as in `mbconv train`, and describe others by
    /// `…`, `[` or `|`.
    #[test]
    fn commands_and_options_in_running_text_exist() {
        let wrong = [
            ErrorKind::UnknownArgument,
            ErrorKind::InvalidSubcommand,
            ErrorKind::InvalidValue,
            ErrorKind::ValueValidation,
            ErrorKind::ArgumentConflict,
        ];
        let (mut parsed, mut failures) = (0, Vec::new());
        for page in pages() {
            for span in code_spans(&page).iter().filter(|span| !span.contains(['…', '[', '|'])) {
                for arguments in calls(span) {
                    parsed += 1;
                    if let Err(error) = parse(&arguments)
                        && wrong.contains(&error.kind())
                        && !is_placeholder(&error)
                    {
                        failures.push(format!("{}: `{span}`\n{error}", page.display()));
                    }
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert!(parsed > 50, "found only {parsed} commands");
    }
}
