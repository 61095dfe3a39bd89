//! `mbconv data verify`

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use mbconv_train::data::tools::quarantine::{self, Moved, Undone};
use mbconv_train::data::tools::verify::{FileOf, Finding, Kind, Verification, VerifyOptions, verify};
use mbconv_train::data::{Extent, path_of};
use mbconv_train::shell::{quoted, quoted_path};
use mbconv_train::text::{cell, visible, visible_name};
use serde_json::json;

use super::open::{open, with_progress};
use crate::args::Verify;
use crate::error::CliError;
use crate::output::{check_extension, print_json, print_text, write_file};
use crate::units::count;

/// Maximum number of findings per kind, and of files per finding, that are printed.
const SHOWN: usize = 10;

/// The result of `--fix`.
struct Fixed {
    folder: PathBuf,
    moved: Vec<Moved>,
    /// Number of errors it fixed.
    errors: usize,
}

pub fn run(args: Verify, stop: &AtomicBool) -> Result<(), CliError> {
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
    // Writes the report before files are moved, so that it exists even if moving fails.
    if let Some(path) = &args.report {
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
        let content = match extension.as_ref().and_then(|extension| extension.to_str()) {
            Some("json") => format!("{:#}\n", serde_json::to_value(&found).map_err(std::io::Error::from)?),
            Some("csv") => csv(&found),
            _ => visible(&text(&found, usize::MAX)).into_owned(),
        };
        write_file(path, content.as_bytes())?;
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
            text += &fix_summary(fixed, &args.data.data);
            text += &undecided(&found);
        }
        print_text(&text)?;
    }
    let errors = found.errors - fixed.map_or(0, |fixed| fixed.errors);
    if errors > 0 || args.strict && found.warnings > 0 { Err(CliError::Reported) } else { Ok(()) }
}

fn fix(data: &Extent, folder: PathBuf, found: &Verification) -> Result<Fixed, CliError> {
    let (moved, settled) = quarantine::move_aside(data, &folder, &found.findings)?;
    let errors = settled.into_iter().filter(|&index| found.findings[index].kind.is_error()).count();
    Ok(Fixed { folder, moved, errors })
}

fn fix_summary(fixed: &Fixed, data: &str) -> String {
    let folder = fixed.folder.display();
    match fixed.moved.len() {
        0 => "\nno files were moved: none can be removed from the data set automatically\n".into(),
        files => {
            let undo = match fixed.folder == quarantine::default_folder(Path::new(data)) {
                true => "--undo".to_string(),
                false => format!("--undo={}", quoted(&fixed.folder.to_string_lossy())),
            };
            let data = quoted_path(data);
            format!(
                "\n{} file(s) moved to {folder}; `mbconv data verify {data} {undo}` moves them back\n",
                count(files)
            )
        }
    }
}

/// Lists findings that `--fix` does not change, because they need a decision by the user.
fn undecided(found: &Verification) -> String {
    let left = |kinds: &[Kind]| found.findings.iter().filter(|finding| kinds.contains(&finding.kind)).count();
    let mut text = String::new();
    for (kinds, question) in [
        (&[Kind::Conflict, Kind::NearConflict][..], "label conflict(s) left: choose the correct class"),
        (&[Kind::NearLeak], "possible leak(s) left: check whether the similar images are the same"),
    ] {
        if let findings @ 1.. = left(kinds) {
            let _ = writeln!(text, "{} {question}", count(findings));
        }
    }
    text
}

fn undo(data: &Extent, folder: &Path, json: bool) -> Result<(), CliError> {
    let undone = quarantine::undo(data, folder)?;
    let Undone { back, left, gone, outside, damaged } = &undone;
    if json {
        print_json(&json!({
            "moved_back": back, "left": left, "gone": gone, "outside": outside, "damaged_lines": damaged,
        }))?;
    } else {
        let mut text = format!("{} file(s) moved back\n", count(back.len()));
        let shown = |path: &Path| visible_name(&path.display().to_string()).into_owned();
        for Moved { from, to, .. } in left {
            let _ = writeln!(text, "not moved: {}, because {} exists", shown(to), shown(from));
        }
        for Moved { from, to, .. } in gone {
            let _ = writeln!(text, "not found: neither {} nor {} exists", shown(to), shown(from));
        }
        for Moved { from, to, .. } in outside {
            let (to, from, folder) = (shown(to), shown(from), shown(folder));
            let _ = writeln!(text, "not moved: {to} to {from}, which is not from {folder} into the data set");
        }
        for line in damaged {
            let _ = writeln!(text, "line {line} of {} cannot be read", shown(&folder.join(quarantine::LOG)));
        }
        print_text(&text)?;
    }
    if undone.is_complete() { Ok(()) } else { Err(CliError::Reported) }
}

/// Formats the findings, at most `shown` of each kind.
fn text(found: &Verification, shown: usize) -> String {
    let Verification { form, images, findings, .. } = found;
    let mut text = String::new();
    let splits: Vec<String> = ["train", "val", "test"]
        .iter()
        .filter_map(|name| images.get(name).map(|number| format!("{name} {}", count(*number))))
        .collect();
    let _ = writeln!(text, "{form}: {} images decoded ({})", count(images.values().sum()), splits.join(", "));
    for note in &found.notes {
        let _ = writeln!(text, "note: {}", visible_name(note));
    }
    for kind in Kind::all() {
        let all: Vec<&Finding> = findings.iter().filter(|finding| finding.kind == kind).collect();
        if all.is_empty() {
            continue;
        }
        let severity = if kind.is_error() { "error" } else { "warning" };
        let _ = writeln!(text, "\n{severity}: {} {}", count(all.len()), kind.title());
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
        text += "no problems found\n";
        return text;
    }
    let number = |number: usize, noun: &str| format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" });
    let _ = writeln!(text, "\n{}, {}:", number(found.errors, "error"), number(found.warnings, "warning"));
    for kind in Kind::all() {
        if let Some(&findings) = found.counts.get(kind.name()) {
            let severity = if kind.is_error() { "error" } else { "warning" };
            let _ = writeln!(text, "  {:<14} {:>9}  {severity}", kind.name(), count(findings));
        }
    }
    text
}

fn more(text: &mut String, indent: &str, all: usize, shown: usize) {
    if all > shown {
        let _ = writeln!(text, "{indent}… and {} more (--json or --report FILE lists all)", count(all - shown));
    }
}

/// Formats the findings as CSV, one row per file; the files of a finding share its number.
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
