//! `mbconv info`

use std::fmt::Write;

use mbconv_nets::{Architecture, Strides, Summary};
use mbconv_train::data::ImageSize;
use mbconv_train::model_file::{MultiLabel, Quantization};
use mbconv_train::text::visible_name;
use serde_json::json;

use crate::args::Info;
use crate::error::CliError;
use crate::model_ref::ModelRef;
use crate::output::{print_json, print_text};
use crate::table::{Table, wrapped};
use crate::units::{accuracy, count, percent, thousands};

pub fn run(args: Info) -> Result<(), CliError> {
    let mut model_ref = ModelRef::resolve(&args.model_ref, args.classes)?;
    if let Some(strides) = &args.strides {
        model_ref.options.strides = parse_strides(strides)?;
    }
    let architecture = model_ref.options.architecture()?;
    let input_size = args.input_size.or(model_ref.input_size).unwrap_or(architecture.resolution.into());
    let summary = Summary::new(&architecture, input_size.sides())?;
    if args.csv {
        return print_text(&to_csv(&summary));
    }
    if args.json.json {
        return print_json(&to_json(&model_ref, &architecture, &summary, &args));
    }
    print_text(&to_text(&model_ref, &architecture, &summary, &args))
}

/// Returns the training memory in bytes: with SGD and momentum, with Adam, and with SGD and
/// gradient checkpointing.
fn training(summary: &Summary, batch: usize) -> [u64; 3] {
    [(1, false), (2, false), (1, true)]
        .map(|(state, checkpointing)| summary.training_bytes(batch, state, checkpointing))
}

fn to_csv(summary: &Summary) -> String {
    let mut csv = "name,kind,in_channels,in_height,in_width,out_channels,out_height,out_width,parameters,macs,activation_bytes,receptive_field\n".to_string();
    for layer in &summary.layers {
        let ([c, h, w], [oc, oh, ow]) = (layer.input, layer.output);
        let _ = writeln!(
            csv,
            "{},{},{c},{h},{w},{oc},{oh},{ow},{},{},{},{}",
            layer.name, layer.kind, layer.parameters, layer.macs, layer.activation_bytes, layer.receptive_field
        );
    }
    csv
}

fn parse_strides(text: &str) -> Result<Strides, CliError> {
    match text {
        "imagenet" => Ok(Strides::Imagenet),
        "cifar" => Ok(Strides::Cifar),
        list => {
            let numbers = list.trim_matches(['[', ']']).split(',').map(|number| number.trim().parse());
            numbers.collect::<Result<_, _>>().map(Strides::Custom).map_err(|_| {
                CliError::new(
                    format!("invalid --strides `{text}`"),
                    "use imagenet, cifar, or numbers such as 1,1,1,2,2,1,2,1".to_string(),
                )
            })
        }
    }
}

fn to_json(model_ref: &ModelRef, architecture: &Architecture, summary: &Summary, args: &Info) -> serde_json::Value {
    let [sgd, adam, checkpointing] = training(summary, args.batch_size);
    let mut json = json!({
        "name": model_ref.options.name,
        "family": architecture.family,
        "classes": architecture.num_classes,
        "input_channels": architecture.input_channels,
        "width": architecture.width,
        "depth": architecture.depth,
        "parameters": summary.parameters,
        "size_bytes": summary.size_bytes,
        "macs": summary.macs,
        "input_size": ImageSize::from(summary.input_size),
        "strides": architecture.strides(),
        "activation_bytes": summary.activation_bytes,
        "peak_activation_bytes": summary.peak_activation_bytes,
        "training": {
            "batch_size": args.batch_size,
            "sgd_bytes": sgd,
            "adam_bytes": adam,
            "sgd_checkpointing_bytes": checkpointing,
        },
    });
    if args.layers {
        json["layers"] = json!(summary.layers);
    }
    if let Some(card) = &model_ref.card {
        json["class_names"] = json!(card.classes);
        json["preprocess"] = json!(card.preprocess);
        json["results"] = json!(card.results);
        json["temperature"] = json!(card.temperature);
        json["multi_label"] = json!(card.multi_label.is_some());
        json["thresholds"] = json!(card.thresholds());
        json["quantization"] = json!(card.quantization);
    }
    json
}

fn to_text(model_ref: &ModelRef, architecture: &Architecture, summary: &Summary, args: &Info) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14}{}", wrapped(&visible_name(&value), 14));
    };
    let strides: Vec<String> = architecture.strides().iter().map(usize::to_string).collect();
    row("architecture", model_ref.options.title());
    row("family", architecture.family.to_string());
    row("classes", architecture.num_classes.to_string());
    if architecture.input_channels != 3 {
        row("channels", architecture.input_channels.to_string());
    }
    row("parameters", count(summary.parameters));
    row("size", format!("{:.3} MB as f32", summary.size_bytes as f64 / 1e6));
    row("MACs", format!("{} at {:#} px", thousands(summary.macs), ImageSize::from(summary.input_size)));
    row("strides", format!("{} (stem, stages), {} in total", strides.join(" "), architecture.total_stride()));
    let mega = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    row(
        "activations",
        format!(
            "{} for one image, at most {} in and out of a layer",
            mega(summary.activation_bytes),
            mega(summary.peak_activation_bytes)
        ),
    );
    let [sgd, adam, checkpointing] =
        training(summary, args.batch_size).map(|bytes| format!("{:.2} GB", bytes as f64 / 1e9));
    row(
        "training",
        format!("about {sgd} at batch size {} (Adam {adam}, checkpointing {checkpointing})", args.batch_size),
    );
    row("blocks", architecture.blocks.len().to_string());
    if let Some(card) = &model_ref.card {
        row("class names", shortened(&card.classes));
        row("preprocessing", card.preprocess.to_string());
        if let Some(results) = &card.results {
            let accuracy = match results.map {
                Some(map) => format!("mAP {}", percent(map)),
                None => accuracy(results.top1, results.top5, card.classes.len()),
            };
            row("measured", format!("{accuracy} on {} validation images", results.images));
        }
        if let Some(temperature) = card.temperature {
            row("temperature", format!("{temperature:.4}, by which the logits are divided"));
        }
        if let Some(MultiLabel { thresholds }) = &card.multi_label {
            let thresholds = thresholds.as_ref().map_or("0.5", |_| "chosen for each class");
            row("multi-label", format!("sigmoid probabilities, thresholds {thresholds}"));
        }
        if let Some(Quantization { range, images, kept }) = &card.quantization {
            let kept = if kept.is_empty() { String::new() } else { format!("; in f32: {}", kept.join(", ")) };
            row("quantization", format!("8 bits, ranges by {range} on {} images{kept}", count(*images)));
        }
        row("written by", card.program.clone());
    }
    if args.layers {
        text.push('\n');
        text += &layer_table(summary);
    }
    text
}

/// Formats a table of all layers and the totals.
fn layer_table(summary: &Summary) -> String {
    let headings = ["layer", "kind", "in", "out", "parameters", "MACs", "output, kB", "field, px"];
    let kilo = |bytes: u64| thousands(bytes.div_ceil(1000));
    let shape = |[c, h, w]: [usize; 3]| format!("{c}×{h}×{w}");
    let mut rows = vec![headings.map(String::from)];
    rows.extend(summary.layers.iter().map(|layer| {
        [
            layer.name.clone(),
            layer.kind.clone(),
            shape(layer.input),
            shape(layer.output),
            count(layer.parameters),
            thousands(layer.macs),
            kilo(layer.activation_bytes),
            count(layer.receptive_field),
        ]
    }));
    let (parameters, macs) = (count(summary.parameters), thousands(summary.macs));
    let none = String::new;
    rows.push(["total".into(), none(), none(), none(), parameters, macs, kilo(summary.activation_bytes), none()]);
    let table = Table::new(rows.into_iter().map(Vec::from).collect(), 2);
    let (mut text, hidden) = table.fitting(&[0, 3, 4, 5, 6, 1, 7, 2]);
    text += "\noutput: f32 activations for one image; field: side of the receptive field\n";
    if !hidden.is_empty() {
        let _ = writeln!(text, "not shown at this width, but by --csv: {}", hidden.join("; "));
    }
    text
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| visible_name(name)).collect();
    let shown = shown.join(", ");
    if names.len() > SHOWN { format!("{shown}, … {} in total", names.len()) } else { shown }
}
