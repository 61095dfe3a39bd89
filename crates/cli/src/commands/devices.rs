//! `mbconv devices`

use std::fmt::Write;

use mbconv_train::device::{KINDS, Present, automatic, how_to_build, present};
use serde_json::json;

use crate::args::JsonArgs;
use crate::error::CliError;
use crate::output::{print_json, print_text};
use crate::table::wrapped;
use crate::units::bytes;

pub fn run(args: JsonArgs) -> Result<(), CliError> {
    let automatic = automatic();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let kinds = KINDS.map(|kind| (kind, present(kind.name)));
    let reason = reason(automatic);
    if args.json {
        let kinds = kinds.map(|(kind, present)| {
            json!({"kind": kind.name, "description": kind.description, "compiled": kind.compiled, "present": present})
        });
        return print_json(&json!({"auto": automatic, "reason": reason, "threads": threads, "kinds": kinds}));
    }
    let mut text = String::new();
    for (kind, present) in kinds {
        let status = match (kind.compiled, present.is_empty()) {
            (false, _) => format!("not in this build: {}", how_to_build(kind.name)),
            (true, true) => "in this build; none found".into(),
            (true, false) => "in this build".into(),
        };
        let description = wrapped(&format!("{}; {status}", kind.description), 10);
        let _ = writeln!(text, "{:<8}  {description}", kind.name);
        for device in present {
            let _ = writeln!(text, "          {}", line(&device));
        }
    }
    let _ = writeln!(text, "\n`auto` selects {automatic}: {reason}");
    let _ = writeln!(text, "CPU threads: {threads}");
    print_text(&text)
}

/// Formats a device such as `cuda:0  NVIDIA H200, 150.8 GB`.
fn line(device: &Present) -> String {
    let mut text = format!("{}  {}", device.name, device.adapter.as_deref().unwrap_or("unnamed"));
    if let Some(memory) = device.memory_bytes {
        let _ = write!(text, ", {}", bytes(memory));
    }
    if device.software {
        text += ", a software renderer on the CPU";
    }
    text
}

fn reason(automatic: &str) -> &'static str {
    let compiled = KINDS.iter().any(|kind| kind.compiled && !["cpu", "ndarray"].contains(&kind.name));
    match (automatic, compiled) {
        ("cpu", true) => "no GPU was found",
        ("cpu", false) => "this build has no GPU backend",
        _ => "the first kind in this list with a GPU",
    }
}
