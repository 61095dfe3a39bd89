//! `mbconv list`

use std::fmt::Write;

use mbconv_hub::PRETRAINED;
use mbconv_nets::registry::{NAMES, TENSORFLOW};
use mbconv_nets::{NetworkOptions, Summary};
use serde_json::json;

use crate::args::List;
use crate::error::CliError;
use crate::model_ref::IMAGENET_CLASSES;
use crate::output::{print_json, print_text};
use crate::table::wrapped;

pub fn run(args: List) -> Result<(), CliError> {
    if args.pretrained { pretrained(args.json.json) } else { architectures(args.json.json) }
}

/// Prints the names of published weights for `--weights`.
fn pretrained(as_json: bool) -> Result<(), CliError> {
    // Published percentages have three decimals.
    let fraction = |percent: f64| (percent * 1000.0).round() / 100_000.0;
    let mut rows = Vec::new();
    let mut text = format!("{:<46}{:>9}{:>9}{:>12}\n", "weights", "top-1", "top-5", "resolution");
    for row in PRETRAINED {
        let [top1, top5] = [row.top1, row.top5].map(|percent| percent.map(fraction));
        rows.push(json!({ "name": row.name, "top1": top1, "top5": top5, "resolution": row.resolution }));
        let shown = |percent: Option<f64>| percent.map_or("–".into(), |percent| format!("{percent:.2} %"));
        let _ = writeln!(text, "{:<46}{:>9}{:>9}{:>9} px", row.name, shown(row.top1), shown(row.top5), row.resolution);
    }
    let note = "Published ImageNet-1k validation accuracy at the given resolution. A name without its tag selects the \
                first of its rows. Also supported: hf:owner/name[@revision][/file] (Hugging Face) and https://…";
    let _ = writeln!(text, "\n{}", wrapped(note, 0));
    if as_json { print_json(&json!(rows)) } else { print_text(&text) }
}

/// Returns the family of a listed name.
fn family(name: &str) -> &'static str {
    let plain = name.strip_prefix(TENSORFLOW).unwrap_or(name);
    match plain.strip_prefix("efficientnet_") {
        None => "MobileNetV2",
        Some(suffix) if suffix.starts_with("lite") => "EfficientNet-Lite",
        Some("es" | "em" | "el") => "EfficientNet-EdgeTPU",
        Some(_) => "EfficientNet",
    }
}

fn architectures(as_json: bool) -> Result<(), CliError> {
    let mut rows = Vec::new();
    let mut text = format!("{:<24}{:>14}{:>12}{:>12}\n", "architecture", "parameters", "MACs", "resolution");
    let mut last = "";
    for name in NAMES {
        if family(name) != last {
            last = family(name);
            let _ = writeln!(text, "\n{last}");
        }
        let architecture = NetworkOptions::new(name, IMAGENET_CLASSES).architecture()?;
        let summary = Summary::new(&architecture, [architecture.resolution; 2])?;
        let (parameters, macs, resolution) = (summary.parameters, summary.macs, architecture.resolution);
        rows.push(json!({ "name": name, "family": family(name), "parameters": parameters, "macs": macs, "resolution": resolution }));
        let (millions, giga) = (parameters as f64 / 1e6, macs as f64 / 1e9);
        let _ = writeln!(text, "{name:<24}{millions:>12.3} M{giga:>10.3} G{resolution:>9} px");
    }
    let note = "1000 classes, one image at the given resolution. mobilenet_v2_<width> accepts any width; tf_: \
                TensorFlow's padding. Also supported: stage tables (TOML), and other widths and depths of these \
                networks: `mbconv scale`";
    let _ = writeln!(text, "\n{}", wrapped(note, 0));
    if as_json { print_json(&json!(rows)) } else { print_text(&text) }
}
