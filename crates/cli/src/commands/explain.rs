//! `mbconv explain`

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mbconv_train::config::nearest;
use mbconv_train::data::tools::canvas::png;
use mbconv_train::data::{DataError, RgbPixels};
use mbconv_train::explain::{Captioned, Explained, Explainer, explain_files, overlay, sheet};
use mbconv_train::metrics::{sigmoid, softmax};
use mbconv_train::model_file::ModelCard;
use mbconv_train::predict::{Candidate, Inputs, Unread, candidates};
use mbconv_train::text::visible_name;
use serde_json::{Value, json};

use crate::args::Explain;
use crate::error::CliError;
use crate::model_ref::open_classifier;
use crate::output::{check_extension, create_folder, print_json, print_text, print_written, write_file};
use crate::units::{count, percent};

/// Number of images explained together.
const BATCH: usize = 8;
/// Number of classes in the JSON document, as `predict` prints.
const TOP: usize = 5;

pub fn run(args: Explain, stop: &AtomicBool) -> Result<(), CliError> {
    let mut out = args.out.as_deref().map(Out::new).transpose()?;
    let device = args.device.open()?;
    let model = open_classifier(&args.model, &device, stop)?;
    let card = &model.card;
    card.preprocess.takes_pictures().map_err(DataError::from)?;
    let class = args.class.as_deref().map(|class| find_class(class, &card.classes)).transpose()?;
    let explainer = Explainer::new(&model.network, args.method.into(), args.stage).map_err(|error| {
        CliError::new(error.to_string(), "`mbconv info MODEL --layers` lists the stages".to_string())
    })?;
    let mut results = Results { card, json: args.json.json.then(Vec::new), done: 0, bad: 0 };
    let mut inputs = Inputs::new(args.images);
    while !stop.load(Ordering::Relaxed) {
        let batch: Vec<Result<PathBuf, Unread>> = inputs.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        let files: Vec<PathBuf> = batch.iter().flatten().cloned().collect();
        let mut explained = explain_files(&explainer, &card.preprocess, &files, class, &device).into_iter();
        for input in batch {
            match input.and_then(|path| explained.next().unwrap_or_else(|| Err(unexplained(&path)))) {
                Ok(image) => results.add(&image, class.is_some(), out.as_mut())?,
                Err(unread) => {
                    results.bad += 1;
                    eprintln!("error: {}: {}", visible_name(&unread.path), unread.why);
                }
            }
        }
    }
    if let Some(out) = out {
        out.finish()?;
    }
    results.finish(stop.load(Ordering::Relaxed))
}

fn unexplained(path: &Path) -> Unread {
    Unread { path: path.display().to_string(), why: "the network gave no result".into() }
}

/// Returns the index of a class given by name, regardless of case if no name is equal, or by index.
fn find_class(given: &str, classes: &[String]) -> Result<usize, CliError> {
    let position = |is_it: &dyn Fn(&String) -> bool| classes.iter().position(is_it);
    let found = position(&|class| class == given)
        .or_else(|| position(&|class| class.eq_ignore_ascii_case(given)))
        .or_else(|| given.parse().ok().filter(|&index: &usize| index < classes.len()));
    found.ok_or_else(|| {
        let near = nearest(given, classes.iter().map(String::as_str));
        let meant = near.map(|near| format!("did you mean \"{near}\"? ")).unwrap_or_default();
        let last = classes.len() - 1;
        CliError::new(
            format!("the model has no class \"{given}\""),
            format!(
                "{meant}its classes are {}, or 0 to {last} by index; `mbconv info MODEL` lists them",
                some(classes)
            ),
        )
    })
}

/// Returns the first few names.
fn some(classes: &[String]) -> String {
    mbconv_train::text::enumerate(&classes.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Printed results.
struct Results<'a> {
    card: &'a ModelCard,
    /// Entries of the JSON document, if it is requested.
    json: Option<Vec<Value>>,
    done: usize,
    bad: usize,
}

impl Results<'_> {
    /// Prints the result for an image and writes its overlay.
    fn add(&mut self, image: &Explained, is_given: bool, out: Option<&mut Out>) -> Result<(), CliError> {
        self.done += 1;
        let explanation = &image.explanation;
        let probabilities = match self.card.multi_label {
            None => softmax(&explanation.logits),
            Some(_) => sigmoid(&explanation.logits),
        };
        let predicted = candidates(&probabilities, &self.card.classes, TOP);
        let index = explanation.class;
        let class = Candidate { label: self.card.classes[index].clone(), index, probability: probabilities[index] };
        let named = |class: &Candidate| format!("{} {}", visible_name(&class.label), percent(class.probability.into()));
        let mut lines = vec![named(&predicted[0])];
        if is_given && predicted[0].index != index {
            lines.push(format!("heatmap of {}", named(&class)));
        }
        if explanation.heatmap.is_zero() {
            lines.push(format!("nothing speaks for {}", visible_name(&class.label)));
        }
        let path = image.path.display().to_string();
        let text = format!("{}: {}\n", visible_name(&path), lines.join(", "));
        let written = match out {
            Some(out) => {
                let part = self.card.preprocess.cropped_part(image.image.width, image.image.height);
                let drawn = overlay(&image.image, &explanation.heatmap, part);
                out.add(&image.path, drawn, lines.last().cloned().unwrap_or_default())?
            }
            None => None,
        };
        let Some(entries) = &mut self.json else { return print_text(&text) };
        let rows: Vec<&[f32]> = explanation.heatmap.rows().collect();
        let mut entry = json!({ "path": path, "predictions": predicted, "class": class, "heatmap": rows });
        if let Some(written) = written {
            entry["out"] = written.display().to_string().into();
        }
        entries.push(entry);
        Ok(())
    }

    /// Completes the output and reports unreadable images.
    fn finish(self, interrupted: bool) -> Result<(), CliError> {
        if let Some(entries) = self.json {
            print_json(&entries.into())?;
        }
        let tried = self.done + self.bad;
        match self.bad {
            _ if interrupted => Err(CliError::Interrupted),
            0 => Ok(()),
            _ if tried == 1 => Err(CliError::Reported),
            bad => Err(CliError::new(format!("{} of {} images could not be read", count(bad), count(tried)), None)),
        }
    }
}

/// Output of the overlays.
enum Out {
    /// A file per image in a folder. Names in use.
    Folder(PathBuf, HashSet<String>),
    /// One file: the overlay of a single image, or a contact sheet.
    File(PathBuf, Vec<Captioned>),
}

impl Out {
    /// A path without an extension, or an existing folder, is a folder.
    fn new(path: &Path) -> Result<Self, CliError> {
        if path.is_dir() || path.extension().is_none() {
            create_folder(path)?;
            return Ok(Self::Folder(path.into(), HashSet::new()));
        }
        check_extension(path, "a PNG image", &["png"])?;
        Ok(Self::File(path.into(), Vec::new()))
    }

    /// Writes an overlay, or keeps it for the contact sheet. Returns the file written.
    fn add(&mut self, image: &Path, overlay: RgbPixels, caption: String) -> Result<Option<PathBuf>, CliError> {
        match self {
            Self::File(_, overlays) => {
                let name = image.file_name().unwrap_or(image.as_os_str()).to_string_lossy().into_owned();
                overlays.push((overlay, [caption, name]));
                Ok(None)
            }
            Self::Folder(folder, names) => {
                let stem = image.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let numbered = (2..).map(|number| format!("{stem}_{number}"));
                let name = std::iter::once(stem.clone()).chain(numbered).find(|name| !names.contains(name));
                let name = name.unwrap_or(stem);
                let path = folder.join(format!("{name}.png"));
                names.insert(name);
                write_png(&path, &overlay)?;
                Ok(Some(path))
            }
        }
    }

    fn finish(self) -> Result<(), CliError> {
        match self {
            Self::Folder(folder, names) => {
                eprintln!("wrote {} images to {}", count(names.len()), folder.display());
                Ok(())
            }
            Self::File(path, overlays) => {
                match overlays.as_slice() {
                    [] => return Ok(()),
                    [(overlay, _)] => write_png(&path, overlay)?,
                    several => write_png(&path, &sheet(several))?,
                }
                print_written(&path)
            }
        }
    }
}

fn write_png(path: &Path, pixels: &RgbPixels) -> Result<(), CliError> {
    let bytes = png(pixels).map_err(|error| CliError::cannot_write(path, error))?;
    write_file(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_name_or_index() {
        let classes = ["ants", "Bees", "7"].map(String::from);
        for (given, expected) in [("ants", 0), ("bees", 1), ("1", 1), ("7", 2), ("0", 0)] {
            assert_eq!(find_class(given, &classes).ok(), Some(expected), "{given}");
        }
        for given in ["3", "-1", "wasps", ""] {
            let Err(CliError::Message { message, hint: Some(hint) }) = find_class(given, &classes) else {
                panic!("{given} is found")
            };
            assert!(message.contains(&format!("\"{given}\"")) && hint.contains("0 to 2 by index"), "{message} {hint}");
        }
        let Err(CliError::Message { hint: Some(hint), .. }) = find_class("Beess", &classes) else { panic!() };
        assert!(hint.starts_with("did you mean \"Bees\"?"), "{hint}");
    }

    #[test]
    fn files_of_equal_name_are_numbered() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = Out::new(&folder.path().join("cams")).ok().unwrap();
        let image = || RgbPixels { width: 1, height: 1, data: vec![0; 3] };
        for (path, expected) in [("a/x.jpg", "x.png"), ("b/x.jpg", "x_2.png"), ("x_2.jpg", "x_2_2.png")] {
            let written = out.add(Path::new(path), image(), String::new()).ok().unwrap().unwrap();
            assert_eq!(written.file_name().unwrap(), expected);
            assert!(written.is_file());
        }
        assert!(Out::new(&folder.path().join("cam.jpg")).is_err());
    }
}
