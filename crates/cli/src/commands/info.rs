//! `mbconv info`

use std::fmt::Write;
use std::path::Path;

use mbconv_nets::{Architecture, ArchitectureOptions, Strides, Summary};
use mbconv_train::Recipe;
use mbconv_train::model_file::{ModelCard, read_card};
use mbconv_train::recipe::RecipeFile;
use serde_json::json;

use super::{percent, print_json, print_text, thousands};
use crate::args::Info;
use crate::failure::Failure;

/// Classes of an architecture that is given by name only: ImageNet's.
const CLASSES: usize = 1000;

/// What `info` was asked about.
struct Subject {
    options: ArchitectureOptions,
    input_size: Option<usize>,
    card: Option<ModelCard>,
}

pub fn run(args: Info) -> Result<(), Failure> {
    let subject = find(&args)?;
    let architecture = subject.options.architecture()?;
    let input_size = args.input_size.or(subject.input_size).unwrap_or(architecture.resolution);
    let summary = Summary::new(&architecture, input_size)?;
    if args.json.json {
        return print_json(&to_json(&subject, &architecture, &summary, args.layers));
    }
    print_text(&to_text(&subject, &architecture, &summary, args.layers))
}

fn find(args: &Info) -> Result<Subject, Failure> {
    let path = Path::new(&args.subject);
    let is_recipe = path.extension().is_some_and(|extension| extension == "toml");
    let mut subject = if is_recipe {
        let recipe = Recipe::try_from(RecipeFile::read(path, &[])?)?;
        let options = recipe.model.options(args.classes.unwrap_or(CLASSES));
        Subject { options, input_size: Some(recipe.input.size), card: None }
    } else if path.exists() || args.subject.ends_with(".safetensors") {
        let card = read_card(path)?;
        Subject { options: card.architecture.clone(), input_size: Some(card.preprocess.crop), card: Some(card) }
    } else {
        let options = ArchitectureOptions::new(&args.subject, CLASSES);
        Subject { options, input_size: None, card: None }
    };
    subject.options.classes = args.classes.unwrap_or(subject.options.classes);
    if let Some(strides) = &args.strides {
        subject.options.strides = parse_strides(strides)?;
    }
    Ok(subject)
}

fn parse_strides(text: &str) -> Result<Strides, Failure> {
    match text {
        "imagenet" => Ok(Strides::Imagenet),
        "cifar" => Ok(Strides::Cifar),
        list => {
            let numbers = list.trim_matches(['[', ']']).split(',').map(|number| number.trim().parse());
            numbers.collect::<Result<_, _>>().map(Strides::Custom).map_err(|_| {
                Failure::new(
                    format!("`{text}` are no strides"),
                    "give imagenet, cifar, or numbers such as 1,1,1,2,2,1,2,1".to_string(),
                )
            })
        }
    }
}

fn to_json(subject: &Subject, architecture: &Architecture, summary: &Summary, layers: bool) -> serde_json::Value {
    let mut json = json!({
        "name": subject.options.name,
        "classes": architecture.classes,
        "input_channels": architecture.input_channels,
        "parameters": summary.parameters,
        "size_bytes": summary.size_bytes,
        "macs": summary.macs,
        "input_size": summary.input_size,
        "strides": architecture.strides(),
    });
    if layers {
        json["layers"] = json!(summary.layers);
    }
    if let Some(card) = &subject.card {
        json["class_names"] = json!(card.classes);
        json["preprocess"] = json!(card.preprocess);
        json["results"] = json!(card.results);
    }
    json
}

fn to_text(subject: &Subject, architecture: &Architecture, summary: &Summary, layers: bool) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    let strides: Vec<String> = architecture.strides().iter().map(usize::to_string).collect();
    row("architecture", subject.options.name.clone());
    row("classes", architecture.classes.to_string());
    if architecture.input_channels != 3 {
        row("channels", architecture.input_channels.to_string());
    }
    row("parameters", thousands(summary.parameters as u64));
    row("size", format!("{:.3} MB as f32", summary.size_bytes as f64 / 1e6));
    row("MACs", format!("{} at {1}×{1} px", thousands(summary.macs), summary.input_size));
    row("strides", format!("{} (stem, stages), {} in all", strides.join(" "), architecture.total_stride()));
    row("blocks", architecture.blocks.len().to_string());
    if let Some(card) = &subject.card {
        row("class names", shortened(&card.classes));
        row("preprocessing", card.preprocess.to_string());
        if let Some(results) = &card.results {
            let (top1, top5) = (percent(results.top1), percent(results.top5));
            row("measured", format!("top-1 {top1}, top-5 {top5} of {} validation images", results.images));
        }
        row("written by", card.program.clone());
    }
    if layers {
        let width = summary.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "\n{:<width$}  {:<22}{:>16}{:>16}{:>12}{:>16}",
            "layer", "kind", "in", "out", "parameters", "MACs"
        );
        for layer in &summary.layers {
            let shape = |[c, h, w]: [usize; 3]| format!("{c}×{h}×{w}");
            let (input, output) = (shape(layer.input), shape(layer.output));
            let (parameters, macs) = (thousands(layer.parameters as u64), thousands(layer.macs));
            let _ = writeln!(
                text,
                "{:<width$}  {:<22}{input:>16}{output:>16}{parameters:>12}{macs:>16}",
                layer.name, layer.kind
            );
        }
    }
    text
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown}, … {} in all", names.len()) } else { shown }
}
