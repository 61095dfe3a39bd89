//! `mbconv devices`

use std::fmt::Write;

use mbconv_train::device::{KINDS, Present, automatic, how_to_build, present};
use serde_json::json;

use super::{bytes, print_json, print_text};
use crate::args::JsonArgs;
use crate::failure::Failure;

pub fn run(args: JsonArgs) -> Result<(), Failure> {
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
            (true, true) => "in this build; none is present".into(),
            (true, false) => "in this build".into(),
        };
        let _ = writeln!(text, "{:<8}  {}; {status}", kind.name, kind.description);
        for device in present {
            let _ = writeln!(text, "          {}", line(&device));
        }
    }
    let _ = writeln!(text, "\n`auto` takes {automatic}: {reason}");
    let _ = writeln!(text, "this processor runs {threads} threads");
    print_text(&text)
}

/// Such as `cuda:0  NVIDIA H200, 150.8 GB`.
fn line(device: &Present) -> String {
    let mut text = format!("{}  {}", device.name, device.adapter.as_deref().unwrap_or("nameless"));
    if let Some(memory) = device.memory_bytes {
        let _ = write!(text, ", {}", bytes(memory));
    }
    if device.software {
        text += ", a program that plays a GPU on the processor";
    }
    text
}

fn reason(automatic: &str) -> &'static str {
    let compiled = KINDS.iter().any(|kind| kind.compiled && !["cpu", "ndarray"].contains(&kind.name));
    match (automatic, compiled) {
        ("cpu", true) => "no GPU is present",
        ("cpu", false) => "no kind of GPU is in this build",
        _ => "the first kind in this list of which a GPU is present",
    }
}
