//! `mbconv data verify`

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use mbconv_train::data::tools::quarantine::{self, Moved, Undone};
use mbconv_train::data::tools::verify::{FileOf, Finding, Kind, Verification, VerifyOptions, verify};
use mbconv_train::data::{Extent, path_of};
use mbconv_train::files::write_atomically;
use mbconv_train::shell::{quoted, quoted_path};
use mbconv_train::text::{cell, visible, visible_name};
use serde_json::json;

use super::{open, with_progress};
use crate::args::Verify;
use crate::commands::{check_extension, print_json, print_text, thousands};
use crate::failure::Failure;

/// Findings of a kind, and files of a finding, that are shown on a terminal.
const SHOWN: usize = 10;

/// What `--fix` did.
struct Fixed {
    folder: PathBuf,
    moved: Vec<Moved>,
    /// Errors that are mended by it.
    errors: usize,
}

pub fn run(args: Verify, stop: &AtomicBool) -> Result<(), Failure> {
    let root = Path::new(path_of(&args.data.data));
    let folder = |given: &Option<PathBuf>| given.clone().unwrap_or_else(|| quarantine::default_folder(root));
    if let Some(given) = &args.undo {
        return undo(&Extent::of(&args.data.data), &folder(given), args.json.json);
    }
    if let Some(path) = &args.report {
        check_extension(path, "a report", &["json", "csv", "txt", "log", "md"])?;
    }
    let data = open(&args.data)?;
    let options = VerifyOptions { near: args.near, few: args.few };
    let found = with_progress("verifying", &data, stop, |work| verify(&data, &options, work))?;
    // Before anything is moved, so that what was found is known even if that fails.
    if let Some(path) = &args.report {
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
        let content = match extension.as_ref().and_then(|extension| extension.to_str()) {
            Some("json") => format!("{:#}\n", serde_json::to_value(&found).map_err(std::io::Error::from)?),
            Some("csv") => csv(&found),
            _ => visible(&text(&found, usize::MAX)).into_owned(),
        };
        write_atomically(path, content.as_bytes())
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display()), None))?;
        eprintln!("report: {}", path.display());
    }
    let fixed = args.fix.as_ref().map(|given| fix(&Extent::of(&args.data.data), folder(given), &found)).transpose()?;
    if args.json.json {
        let mut json = serde_json::to_value(&found).map_err(std::io::Error::from)?;
        if let Some(fixed) = &fixed {
            json["moved"] = json!(fixed.moved);
            json["moved_to"] = json!(fixed.folder);
        }
        print_json(&json)?;
    } else {
        let mut text = text(&found, SHOWN);
        if let Some(fixed) = &fixed {
            text += &tell(fixed, &args.data.data);
            text += &undecided(&found);
        }
        print_text(&text)?;
    }
    let errors = found.errors - fixed.map_or(0, |fixed| fixed.errors);
    if errors > 0 || args.strict && found.warnings > 0 { Err(Failure::Told) } else { Ok(()) }
}

fn fix(data: &Extent, folder: PathBuf, found: &Verification) -> Result<Fixed, Failure> {
    let (moved, settled) = quarantine::move_aside(data, &folder, &found.findings)?;
    let errors = settled.into_iter().filter(|&index| found.findings[index].kind.is_error()).count();
    Ok(Fixed { folder, moved, errors })
}

fn tell(fixed: &Fixed, data: &str) -> String {
    let folder = fixed.folder.display();
    match fixed.moved.len() {
        0 => "\nnothing was moved: there are no files of the data set that it can do without\n".into(),
        files => {
            let undo = match fixed.folder == quarantine::default_folder(Path::new(data)) {
                true => "--undo".to_string(),
                false => format!("--undo={}", quoted(&fixed.folder.to_string_lossy())),
            };
            let data = quoted_path(data);
            format!(
                "\n{} file(s) moved to {folder}; `mbconv data verify {data} {undo}` moves them back\n",
                thousands(files as u64)
            )
        }
    }
}

/// Findings that `--fix` leaves as they are, since only a person can decide.
fn undecided(found: &Verification) -> String {
    let left = |kinds: &[Kind]| found.findings.iter().filter(|finding| kinds.contains(&finding.kind)).count();
    let mut text = String::new();
    for (kinds, question) in [
        (&[Kind::Conflict, Kind::NearConflict][..], "label conflict(s) left: decide which class is right"),
        (&[Kind::NearLeak], "possible leak(s) left: decide whether images that look alike are the same"),
    ] {
        if let count @ 1.. = left(kinds) {
            let _ = writeln!(text, "{} {question}", thousands(count as u64));
        }
    }
    text
}

fn undo(data: &Extent, folder: &Path, json: bool) -> Result<(), Failure> {
    let undone = quarantine::undo(data, folder)?;
    let Undone { back, left, gone, outside, damaged } = &undone;
    if json {
        print_json(&json!({
            "moved_back": back, "left": left, "gone": gone, "outside": outside, "damaged_lines": damaged,
        }))?;
    } else {
        let mut text = format!("{} file(s) moved back\n", thousands(back.len() as u64));
        let shown = |path: &Path| visible_name(&path.display().to_string()).into_owned();
        for Moved { from, to, .. } in left {
            let _ = writeln!(text, "left where it is: {}, as {} is taken", shown(to), shown(from));
        }
        for Moved { from, to, .. } in gone {
            let _ = writeln!(text, "not found: neither {} nor {} is there", shown(to), shown(from));
        }
        for Moved { from, to, .. } in outside {
            let (to, from, folder) = (shown(to), shown(from), shown(folder));
            let _ = writeln!(text, "refused: {to} to {from}: not from {folder} into the data set");
        }
        for line in damaged {
            let _ = writeln!(text, "line {line} of {} cannot be read", shown(&folder.join(quarantine::LOG)));
        }
        print_text(&text)?;
    }
    if undone.is_complete() { Ok(()) } else { Err(Failure::Told) }
}

/// All that was found, with at most so many of each kind.
fn text(found: &Verification, shown: usize) -> String {
    let Verification { form, images, findings, .. } = found;
    let mut text = String::new();
    let splits: Vec<String> = ["train", "val", "test"]
        .iter()
        .filter_map(|name| images.get(name).map(|count| format!("{name} {}", thousands(*count as u64))))
        .collect();
    let _ = writeln!(
        text,
        "{form}: {} images decoded ({})",
        thousands(images.values().sum::<usize>() as u64),
        splits.join(", ")
    );
    for note in &found.notes {
        let _ = writeln!(text, "note: {}", visible_name(note));
    }
    for kind in Kind::all() {
        let all: Vec<&Finding> = findings.iter().filter(|finding| finding.kind == kind).collect();
        if all.is_empty() {
            continue;
        }
        let severity = if kind.is_error() { "error" } else { "warning" };
        let _ = writeln!(text, "\n{severity}: {} {}", thousands(all.len() as u64), kind.title());
        for finding in all.iter().take(shown) {
            let detail = visible_name(&finding.detail);
            let named = |file: &FileOf| visible_name(&file.to_string()).into_owned();
            match finding.files.as_slice() {
                [] => {
                    let _ = writeln!(text, "  {detail}");
                }
                [file] => {
                    let _ = writeln!(text, "  {}: {detail}", named(file));
                }
                files => {
                    let _ = writeln!(text, "  {detail}:");
                    files.iter().take(shown).for_each(|file| text += &format!("    {}\n", named(file)));
                    more(&mut text, "    ", files.len(), shown);
                }
            }
        }
        more(&mut text, "  ", all.len(), shown);
    }
    if found.errors + found.warnings == 0 {
        text += "nothing is wrong\n";
        return text;
    }
    let number =
        |count: usize, what: &str| format!("{} {what}{}", thousands(count as u64), if count == 1 { "" } else { "s" });
    let _ = writeln!(text, "\n{}, {}:", number(found.errors, "error"), number(found.warnings, "warning"));
    for kind in Kind::all() {
        if let Some(&count) = found.counts.get(kind.name()) {
            let severity = if kind.is_error() { "error" } else { "warning" };
            let _ = writeln!(text, "  {:<14} {:>9}  {severity}", kind.name(), thousands(count as u64));
        }
    }
    text
}

fn more(text: &mut String, indent: &str, all: usize, shown: usize) {
    if all > shown {
        let _ = writeln!(
            text,
            "{indent}… and {} more (all of them with --json or --report FILE)",
            thousands((all - shown) as u64)
        );
    }
}

/// A row a file; the files of a finding share its number.
fn csv(found: &Verification) -> String {
    let quoted = |field: &str| format!("\"{}\"", cell(field).replace('"', "\"\""));
    let mut text = String::from("finding,severity,kind,split,class,name,detail\n");
    for (number, finding) in found.findings.iter().enumerate() {
        let severity = if finding.kind.is_error() { "error" } else { "warning" };
        let mut row = |split: &str, class: &str, name: &str| {
            let (class, name, detail) = (quoted(class), quoted(name), quoted(&finding.detail));
            let _ = writeln!(text, "{number},{severity},{},{split},{class},{name},{detail}", finding.kind.name());
        };
        match finding.files.as_slice() {
            [] => row("", "", ""),
            files => files.iter().for_each(|file| row(file.split, &file.class, &file.name)),
        }
    }
    text
}
