//! `mbconv list`

use std::fmt::Write;

use mbconv_hub::PRETRAINED;
use mbconv_nets::registry::{NAMES, TENSORFLOW};
use mbconv_nets::{NetworkOptions, Summary};
use serde_json::json;

use super::{print_json, print_text};
use crate::args::List;
use crate::failure::Failure;

pub fn run(args: List) -> Result<(), Failure> {
    if args.pretrained { pretrained(args.json.json) } else { architectures(args.json.json) }
}

/// Published weights, as `--weights` takes them.
fn pretrained(as_json: bool) -> Result<(), Failure> {
    // Per cent have three decimals; a hundredth of one must not have seventeen.
    let share = |percent: f64| (percent * 1000.0).round() / 100_000.0;
    let mut rows = Vec::new();
    let mut text = format!("{:<46}{:>9}{:>9}{:>12}\n", "weights", "top-1", "top-5", "resolution");
    for row in PRETRAINED {
        let [top1, top5] = [row.top1, row.top5].map(|percent| percent.map(share));
        rows.push(json!({ "name": row.name, "top1": top1, "top5": top5, "resolution": row.resolution }));
        let shown = |percent: Option<f64>| percent.map_or("–".into(), |percent| format!("{percent:.2} %"));
        let _ = writeln!(text, "{:<46}{:>9}{:>9}{:>9} px", row.name, shown(row.top1), shown(row.top5), row.resolution);
    }
    text += "\nImageNet-1k validation accuracy as published, at the resolution shown; without its tag a name means the first\n";
    text += "of its rows. Others: hf:owner/name[@revision][/file] of the Hugging Face hub, and https://…\n";
    if as_json { print_json(&json!(rows)) } else { print_text(&text) }
}

/// The family that a listed name belongs to.
fn family(name: &str) -> &'static str {
    let plain = name.strip_prefix(TENSORFLOW).unwrap_or(name);
    match plain.strip_prefix("efficientnet_") {
        None => "MobileNetV2",
        Some(suffix) if suffix.starts_with("lite") => "EfficientNet-Lite",
        Some("es" | "em" | "el") => "EfficientNet-EdgeTPU",
        Some(_) => "EfficientNet",
    }
}

fn architectures(as_json: bool) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut text = format!("{:<24}{:>14}{:>12}{:>12}\n", "architecture", "parameters", "MACs", "resolution");
    let mut last = "";
    for name in NAMES {
        if family(name) != last {
            last = family(name);
            let _ = writeln!(text, "\n{last}");
        }
        let architecture = NetworkOptions::new(name, 1000).architecture()?;
        let summary = Summary::new(&architecture, architecture.resolution)?;
        let (parameters, macs, resolution) = (summary.parameters, summary.macs, architecture.resolution);
        rows.push(json!({ "name": name, "family": family(name), "parameters": parameters, "macs": macs, "resolution": resolution }));
        let (millions, giga) = (parameters as f64 / 1e6, macs as f64 / 1e9);
        let _ = writeln!(text, "{name:<24}{millions:>12.3} M{giga:>10.3} G{resolution:>9} px");
    }
    text += "\n1000 classes, one image at the resolution shown; mobilenet_v2_<width> takes any width; tf_: TensorFlow's padding.\n";
    text += "Others: a stage table of your own (TOML), and any of these at any width and depth: `mbconv scale`\n";
    if as_json { print_json(&json!(rows)) } else { print_text(&text) }
}
