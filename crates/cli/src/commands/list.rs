//! `mbconv list`

use std::fmt::Write;

use mbconv_nets::registry::NAMES;
use mbconv_nets::{ArchitectureOptions, Summary};
use serde_json::json;

use super::{print_json, print_text};
use crate::args::List;
use crate::failure::Failure;

pub fn run(args: List) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut text = format!("{:<20}{:>14}{:>12}{:>12}\n", "architecture", "parameters", "MACs", "resolution");
    for name in NAMES {
        let architecture = ArchitectureOptions::new(name, 1000).architecture()?;
        let summary = Summary::new(&architecture, architecture.resolution)?;
        let (parameters, macs, resolution) = (summary.parameters, summary.macs, architecture.resolution);
        rows.push(json!({ "name": name, "parameters": parameters, "macs": macs, "resolution": resolution }));
        let (millions, giga) = (parameters as f64 / 1e6, macs as f64 / 1e9);
        let _ = writeln!(text, "{name:<20}{millions:>12.3} M{giga:>10.3} G{resolution:>9} px");
    }
    text += "\n1000 classes, one image at the resolution shown; mobilenet_v2_<width> takes any width\n";
    if args.json.json { print_json(&json!(rows)) } else { print_text(&text) }
}
