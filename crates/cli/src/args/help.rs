//! Groups of commands, headings of options, and examples in the help texts.

use std::fmt::Write;

use clap::builder::{StyledStr, Styles};
use clap::{Arg, ArgAction, Command, Subcommand};

/// Groups of `mbconv --help`, in their order, and their commands.
const GROUPS: [(&str, &str); 5] = [
    ("Train", "train finetune recipe find-lr tune compare average"),
    ("Use models", "eval calibrate quantize predict explain embed export import fetch"),
    ("Data", "data"),
    ("Networks", "list info draw scale bench"),
    ("Program", "devices completions man"),
];

/// Headings of options, in their order, and the options by field name. An option with a heading of
/// its own keeps it.
const HEADINGS: [(&str, &str); 9] = [
    ("Model", "weights arch prefix input_channels preprocess classes strides base input_size"),
    ("Data", "data split val test pool near few fix undo seed strict follow_links skip_bad_images workers tta"),
    (
        "Training",
        "epochs lr freeze freeze_norms recipe run seeds overrides on_nan resume steps sweeps from to trials halving eta metric",
    ),
    (
        "Scaling",
        "phi only alpha beta gamma step tolerance target_macs target_params target_size target_latency memory \
         side_step",
    ),
    ("Quantization", "images range weight_bits keep no_equalization no_bias_correction"),
    ("Measurement", "mode seconds profile gradient_checkpointing queue_steps"),
    (
        "Output",
        "out class stage method nearest query format size quality shard_size layout with_softmax with_preprocessing link copy moving list top_k per_class \
         logits predictions layers pretrained resolved markdown chart sheet sheet_classes sheet_images report csv json tui",
    ),
    ("Device", "device threads batch_size dtype"),
    ("Help", "help"),
];

/// Examples, by command.
const EXAMPLES: [(&str, &[&str]); 37] = [
    (
        "train",
        &[
            "train digits",
            "train photos_mobilenet_v2 --data photos --epochs 20",
            "train mine.toml --set ema.decay=0.99",
        ],
    ),
    (
        "finetune",
        &["finetune efficientnet_lite0 photos", "finetune runs/pets photos --out runs/more --epochs 5 --freeze body"],
    ),
    ("find-lr", &["find-lr digits", "find-lr --weights torchvision/mobilenet_v2 --data photos --sweeps 1"]),
    ("recipe", &["recipe list", "recipe show digits", "recipe keys optimizer"]),
    ("recipe list", &["recipe list"]),
    ("recipe show", &["recipe show digits > mine.toml", "recipe show runs/pets --resolved"]),
    ("recipe keys", &["recipe keys", "recipe keys optimizer.learning_rate"]),
    ("recipe check", &["recipe check mine.toml"]),
    ("recipe schema", &["recipe schema > recipe.schema.json"]),
    (
        "tune",
        &[
            "tune digits --trials 8 --set 'optimizer.learning_rate=log(1e-2,1)'",
            "tune mine.toml --halving --set 'optimizer.weight_decay=log(1e-5,1e-2)'",
        ],
    ),
    ("compare", &["compare runs/*", "compare runs/a runs/b --out compare.html"]),
    ("average", &["average runs/a runs/b mean.safetensors"]),
    ("eval", &["eval runs/pets --data photos", "eval runs/pets --data photos --split test --report report --json"]),
    (
        "calibrate",
        &["calibrate runs/pets --data photos", "calibrate runs/pets --data photos --out calibrated.safetensors"],
    ),
    (
        "quantize",
        &[
            "quantize runs/pets --data photos --out pets.int8.safetensors",
            "quantize runs/pets --data photos --images 1000 --keep stem,classifier --out pets.int8.safetensors",
        ],
    ),
    ("predict", &["predict runs/pets new.jpg album", "predict runs/pets 'album/**/*.jpg' --top-k 3 --out album.csv"]),
    (
        "explain",
        &[
            "explain runs/pets cat.jpg --out cat.png",
            "explain runs/pets album --class dog --method layer-cam --out cams",
        ],
    ),
    (
        "embed",
        &[
            "embed runs/pets photos --out photos.parquet",
            "embed runs/pets photos --nearest 3",
            "embed runs/pets album --query new.jpg --nearest 5",
        ],
    ),
    ("export", &["export runs/pets pets.onnx", "export runs/pets pets-timm --layout timm"]),
    (
        "import",
        &["import timm/efficientnet_b0.ra_in1k b0.safetensors", "import mine.pth mine.safetensors --classes names.txt"],
    ),
    ("fetch", &["fetch torchvision/mobilenet_v2"]),
    ("data", &["data inspect photos", "data split photos photos-split --test 0.1"]),
    ("data inspect", &["data inspect photos", "data inspect photos --sheet batches.png --recipe mine.toml"]),
    ("data verify", &["data verify photos", "data verify photos --near --fix"]),
    ("data pack", &["data pack photos shards --format wds --size 256"]),
    ("data split", &["data split photos photos-split --val 0.2 --test 0.1", "data split photos lists --list"]),
    ("info", &["info efficientnet_b4 --layers", "info runs/pets"]),
    ("list", &["list", "list --pretrained"]),
    ("draw", &["draw efficientnet_b0 --out b0.svg", "draw --chart --out networks.svg"]),
    ("scale", &["scale formula --phi 1..7", "scale budget --target-macs 600M --out recipes"]),
    ("scale formula", &["scale formula --phi 1..7", "scale formula --base mobilenet_v2 --phi 0.5 --out recipes"]),
    ("scale budget", &["scale budget --target-macs 600M --target-params 8M --out recipes"]),
    (
        "scale search",
        &["scale search --step 0.1", "scale search --run configs/digits.toml --data digits --out runs/search"],
    ),
    ("bench", &["bench mobilenet_v2", "bench efficientnet_b0 --mode train --batch-size 16 --profile"]),
    ("devices", &["devices"]),
    ("completions", &["completions bash > ~/.local/share/bash-completion/completions/mbconv"]),
    ("man", &["man ~/.local/share/man/man1"]),
];

/// First commands of a new user, and their purpose.
const FIRST_STEPS: [(&str, &str); 4] = [
    ("train digits", "train on the embedded digits"),
    ("eval runs/digits --data digits", "measure the accuracy"),
    ("data inspect pets", "look at your own images"),
    ("finetune mobilenet_v2 pets", "train on them"),
];

/// Returns the help template of `mbconv`, with its commands by group.
pub fn template() -> StyledStr {
    let styles = Styles::styled();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let commands = super::Command::augment_subcommands(Command::new("mbconv"));
    let width = commands.get_subcommands().map(|command| command.get_name().len()).max().unwrap_or(0);
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    for (group, names) in GROUPS {
        let _ = write!(text, "\n{header}{group}:{header:#}\n");
        for name in names.split(' ') {
            let about = commands.find_subcommand(name).and_then(Command::get_about).cloned().unwrap_or_default();
            let _ = writeln!(text, "  {literal}{name:<width$}{literal:#}  {about}");
        }
    }
    let _ = write!(text, "\n{header}Options:{header:#}\n{{options}}\n\n{header}First steps:{header:#}\n");
    for (command, purpose) in FIRST_STEPS {
        let _ = writeln!(text, "  # {purpose}\n  {literal}mbconv {command}{literal:#}");
    }
    text += "\n`mbconv COMMAND --help` describes a command's options.\n";
    text.into()
}

/// Adds headings and examples to a command and its subcommands.
pub fn complete(command: Command) -> Command {
    let path = command.get_name().to_string();
    complete_at(command, &path)
}

fn complete_at(command: Command, path: &str) -> Command {
    let help = Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Print help");
    let after = after_help(&command, path);
    command.disable_help_flag(true).arg(help).mut_args(with_heading).after_help(after).mut_subcommands(|command| {
        let path = format!("{path} {}", command.get_name());
        complete_at(command, &path)
    })
}

fn with_heading(arg: Arg) -> Arg {
    let has_one = arg.is_positional() || arg.get_help_heading().is_some();
    match HEADINGS.iter().find(|(_, options)| !has_one && is_in(options, arg.get_id().as_str())) {
        Some((heading, _)) => arg.help_heading(*heading),
        None => arg,
    }
}

fn is_in(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|other| other == word)
}

/// Returns the examples of the command at `path`, then its own text.
fn after_help(command: &Command, path: &str) -> StyledStr {
    let styles = Styles::styled();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let mut text = format!("{header}Examples:{header:#}\n");
    for example in examples(path) {
        let _ = writeln!(text, "  {literal}mbconv {example}{literal:#}");
    }
    if let Some(own) = command.get_after_help() {
        let _ = write!(text, "\n{own}");
    }
    text.trim_end().to_string().into()
}

fn examples(path: &str) -> &'static [&'static str] {
    EXAMPLES.iter().find(|(command, _)| *command == path).map_or(&[], |(_, examples)| examples)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::Arguments;
    use super::*;

    /// Returns all commands with their paths.
    fn commands() -> Vec<(String, Command)> {
        fn add(all: &mut Vec<(String, Command)>, path: &str, command: &Command) {
            for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
                let path = format!("{path} {}", command.get_name()).trim_start().to_string();
                add(all, &path, command);
                all.push((path, command.clone()));
            }
        }
        let mut all = Vec::new();
        let mut root = Arguments::command();
        root.build();
        add(&mut all, "", &root);
        all
    }

    #[test]
    fn every_command_is_in_one_group() {
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.split(' ')).collect();
        let mut defined: Vec<String> = commands().into_iter().map(|(path, _)| path).collect();
        defined.retain(|path| !path.contains(' '));
        listed.sort_unstable();
        defined.sort_unstable();
        assert_eq!(listed, defined);
    }

    #[test]
    fn every_option_has_a_heading_in_order() {
        for (path, command) in commands() {
            let options = command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set());
            for option in options {
                assert!(option.get_help_heading().is_some(), "{path}: --{} is not in HEADINGS", option.get_id());
            }
            let mut headings = Vec::new();
            for heading in command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_help_heading) {
                if !headings.contains(&heading) {
                    headings.push(heading);
                }
            }
            let order = HEADINGS.iter().map(|(heading, _)| *heading).filter(|heading| headings.contains(heading));
            assert_eq!(headings, order.collect::<Vec<_>>(), "headings of {path}");
        }
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        for (path, _) in commands() {
            assert!(!examples(&path).is_empty(), "{path} is not in EXAMPLES");
        }
        let all = EXAMPLES.iter().flat_map(|(path, examples)| examples.iter().map(move |example| (*path, *example)));
        for (path, example) in all.chain(FIRST_STEPS.map(|(command, _)| ("", command))) {
            assert!(example.starts_with(path), "{example}");
            // Redirections belong to the shell.
            let arguments = example.split(" > ").next().unwrap_or_default().split(' ');
            let parsed = Arguments::try_parse_from(std::iter::once("mbconv").chain(arguments));
            assert!(parsed.is_ok(), "{example}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
        }
    }

    #[test]
    fn summaries_fit_80_columns() {
        let root = Arguments::command().render_help().to_string();
        assert!(root.contains("Train:\n  train") && root.contains("First steps:"), "{root}");
        for line in root.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for (path, mut command) in commands() {
            let help = command.render_help().to_string();
            let summary = help.lines().next().unwrap_or_default();
            assert!(!summary.is_empty() && summary.chars().count() <= 80, "{path}: {summary}");
        }
    }
}
