//! `mbconv data inspect`

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use mbconv_train::auto_batch::with_batch_size;
use mbconv_train::config::RecipeFile;
use mbconv_train::data::tools::canvas::png;
use mbconv_train::data::tools::inspect::{ClassCount, Inspection, Odd, SplitSummary, inspect};
use mbconv_train::data::tools::sheet::{SheetOptions, contact_sheet};
use mbconv_train::data::{self, RgbPixels};
use mbconv_train::device::Device;
use mbconv_train::preview::{TrainingSheet, training_sheet};
use mbconv_train::text::visible_name;
use mbconv_train::{Group, Recipe};

use super::open::{open, with_progress};
use crate::args::Inspect;
use crate::error::CliError;
use crate::output::{check_extension, print_json, print_text, write_file};
use crate::table::wrapped;
use crate::units::{bytes, count};

/// Maximum number of classes shown; of more, the largest and the smallest are shown.
const CLASSES_SHOWN: usize = 24;
/// Maximum number of entries of other lists.
const SHOWN: usize = 5;
/// Length of the longest bar of the histogram in characters.
const BAR: usize = 40;

pub fn run(args: Inspect, stop: &AtomicBool) -> Result<(), CliError> {
    if let Some(path) = &args.sheet {
        check_extension(path, "a PNG file", &["png"])?;
    }
    let data = open(&args.data)?;
    let inspection = with_progress("inspecting", &data, stop, |work| inspect(&data, work))?;
    if let Some(path) = &args.sheet {
        let sheet = match &args.recipe {
            Some(recipe) => training_images(&args, recipe)?,
            None => {
                let options = SheetOptions { classes: args.sheet_classes, images: args.sheet_images, seed: args.seed };
                contact_sheet(&data, &options)?
            }
        };
        write_file(path, &png(&sheet).map_err(|error| CliError::cannot_write(path, error))?)?;
        eprintln!("contact sheet: {} ({}×{} pixels)", path.display(), sheet.width, sheet.height);
    }
    if args.json.json {
        return print_json(&serde_json::to_value(&inspection).map_err(std::io::Error::from)?);
    }
    print_text(&text(&inspection))
}

/// Returns a sheet of the training images of a recipe.
fn training_images(args: &Inspect, recipe: &Path) -> Result<RgbPixels, CliError> {
    let file = RecipeFile::read(recipe, &args.overrides)?;
    Recipe::try_from(file.clone().or_batch(1))?;
    let data = data::open(&args.data.data, &file.data.open_options(file.seed))?;
    let (recipe, line) = with_batch_size(file, None, &data, &Device::default(), &Group::alone())?;
    line.iter().for_each(|line| eprintln!("{line}"));
    let TrainingSheet { pixels, images, batches, size: [height, width] } = training_sheet(&recipe, &data)?;
    let batches = if batches == 1 { "1 batch".into() } else { format!("{batches} batches") };
    eprintln!("first {images} training images of {width}×{height} pixels, in {batches} of epoch 1");
    Ok(pixels)
}

fn text(inspection: &Inspection) -> String {
    let Inspection { form, images, classes, splits, sizes, .. } = inspection;
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<9} {}", wrapped(&visible_name(&value), 10));
    };
    row("form", form.clone());
    row("images", format!("{} in {} classes, {}", count(*images), count(classes.len()), bytes(inspection.bytes)));
    for (name, summary) in in_order(splits) {
        row(name, split(summary, classes.len()));
    }
    row("formats", shares(&inspection.formats));
    row("pixels", shares(&inspection.colors));
    if let Some(sizes) = sizes {
        let [[w0, h0], [w1, h1]] = [sizes.smallest, sizes.largest];
        if sizes.different == 1 {
            row("size", format!("all {w0}×{h0}"));
        } else {
            let median = sizes.median_shorter_side;
            row(
                "sizes",
                format!(
                    "{w0}×{h0} to {w1}×{h1}, median shorter side {median}, shape up to {:.1}:1",
                    sizes.longest_shape
                ),
            );
            let common =
                sizes.common.iter().map(|size| format!("{}×{} ({})", size.width, size.height, count(size.images)));
            row("common", format!("{}; {} different", common.collect::<Vec<_>>().join(", "), count(sizes.different)));
        }
    }
    if inspection.turned > 0 {
        row("rotated", format!("{} with an EXIF orientation, which is not applied", count(inspection.turned)));
    }
    for note in &inspection.notes {
        row("note", note.clone());
    }
    if let Some(sizes) = sizes.as_ref().filter(|sizes| sizes.different > 1) {
        let _ = writeln!(text, "\nshorter side      images");
        let most = sizes.shorter_side.iter().map(|bar| bar.images).max().unwrap_or(1).max(1);
        for bar in sizes.shorter_side.iter().filter(|bar| bar.images > 0) {
            let range = match bar.to {
                Some(to) => format!("{}–{}", bar.from, to - 1),
                None => format!("{} or more", bar.from),
            };
            let length = (bar.images * BAR).div_ceil(most);
            let _ = writeln!(text, "{range:>14} {:>9}  {}", count(bar.images), "█".repeat(length));
        }
    }
    if !inspection.odd.is_empty() {
        text += "\nunusual images:\n";
    }
    for Odd { what, detail, images, examples } in &inspection.odd {
        let _ = writeln!(text, "  {}: {}", kind(what, detail), count(*images));
        examples.iter().for_each(|file| text += &format!("    {}\n", visible_name(&file.to_string())));
        if *images > examples.len() {
            text += "    …\n";
        }
    }
    if inspection.unreadable > 0 {
        let _ = writeln!(text, "\n{} unreadable (details: `mbconv data verify`):", count(inspection.unreadable));
        for image in inspection.unreadable_images.iter().take(SHOWN) {
            let _ = writeln!(text, "  {}: {}", visible_name(&image.name), visible_name(&image.why));
        }
    }
    text + &class_table(classes, splits)
}

/// Returns the heading of a group of unusual images.
fn kind(what: &str, detail: &str) -> String {
    match what {
        "small" => format!("small, from {detail}"),
        "large" => format!("large, up to {detail}"),
        "shape" => format!("long or narrow, up to {detail}"),
        _ => detail.to_string(),
    }
}

/// Returns the splits in the order train, val, test.
fn in_order<'a, T>(splits: &'a BTreeMap<&'static str, T>) -> impl Iterator<Item = (&'static str, &'a T)> {
    ["train", "val", "test"].into_iter().filter_map(|name| splits.get(name).map(|split| (name, split)))
}

fn split(summary: &SplitSummary, classes: usize) -> String {
    let SplitSummary { images, smallest, largest, evenness, .. } = summary;
    let each = match smallest == largest {
        true => format!("{} per class", count(*largest)),
        false => format!("{} to {} per class, evenness {evenness:.3}", count(*smallest), count(*largest)),
    };
    let missing = classes - summary.classes;
    let missing = if missing > 0 { format!(", {} without images", count(missing)) } else { String::new() };
    format!("{} images, {each}{missing}", count(*images))
}

fn shares(counts: &BTreeMap<&'static str, usize>) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(_, images)| Reverse(**images));
    sorted.iter().map(|(name, images)| format!("{name} {}", count(**images))).collect::<Vec<_>>().join(", ")
}

fn class_table(classes: &[ClassCount], splits: &BTreeMap<&'static str, SplitSummary>) -> String {
    let names: Vec<&str> = in_order(splits).map(|(name, _)| name).collect();
    let mut sorted: Vec<&ClassCount> = classes.iter().collect();
    let hidden = classes.len().saturating_sub(CLASSES_SHOWN);
    if hidden > 0 {
        sorted.sort_by_key(|class| (Reverse(class.images.values().sum::<usize>()), class.index));
    }
    let half = if hidden > 0 { CLASSES_SHOWN / 2 } else { sorted.len() };
    let shown = || sorted.iter().take(half).chain(sorted.iter().skip(half + hidden));
    let width = shown().map(|class| visible_name(&class.label).chars().count()).max().unwrap_or(0).max(5);
    let mut text = format!("\n{:>5}  {:<width$}", "label", "class");
    names.iter().for_each(|name| text += &format!("{name:>10}"));
    text.push('\n');
    for (place, class) in shown().enumerate() {
        if hidden > 0 && place == half {
            let _ = writeln!(text, "       … {} more classes (--json lists all)", count(hidden));
        }
        let _ = write!(text, "{:>5}  {:<width$}", class.index, visible_name(&class.label));
        for name in &names {
            let _ = write!(text, "{:>10}", count(class.images.get(name).copied().unwrap_or(0)));
        }
        text.push('\n');
    }
    text
}
