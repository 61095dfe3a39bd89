//! `mbconv embed`

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mbconv_train::Model;
use mbconv_train::data::{self, DataError, ImageFiles, Loader, OpenOptions, Source, Transform, list_images, path_of};
use mbconv_train::device::Device;
use mbconv_train::embed::{Embedded, Embedder, FeatureError, FeatureTable, Features, Neighbor};
use mbconv_train::predict::Inputs;
use mbconv_train::text::visible_name;
use serde_json::{Value, json};

use crate::args::Embed;
use crate::error::CliError;
use crate::model_ref::open_model;
use crate::output::{print_json, print_text, print_written};
use crate::terminal::Progress;

/// Default number of images similar to a query.
const NEAREST: usize = 5;

pub fn run(args: Embed, stop: &AtomicBool) -> Result<(), CliError> {
    let device = args.device.open()?;
    let model = open_model(&args.model, &device, stop)?;
    let images = open(&args)?;
    let queries = match args.query.is_empty() {
        true => None,
        false => Some(Images { source: Arc::new(ImageFiles(files(&args.query)?)), classes: Vec::new() }),
    };
    let embedding =
        Embedding { embedder: Embedder::new(&model.network), model: &model, args: &args, device: &device, stop };
    let mut table = args.out.as_deref().map(|out| FeatureTable::create(out, embedding.embedder.width())).transpose()?;
    let with_neighbors = args.nearest.is_some() || queries.is_some();
    let mut rows = embedding.of(&images, table.as_mut(), with_neighbors)?;
    let mut report = json!({ "images": rows.done, "features": embedding.embedder.width() });
    if let Some(table) = table {
        let files = table.finish()?;
        files.iter().try_for_each(|path| print_written(path))?;
        report["out"] = files.iter().map(|path| path.display().to_string()).collect();
    }
    let mut text = String::new();
    if with_neighbors {
        let nearest = args.nearest.unwrap_or(NEAREST);
        let found: Vec<Similar> = match &queries {
            Some(queries) => {
                let asked = embedding.of(queries, None, true)?;
                let found = rows.features.nearest_to(&asked.features, nearest, &device);
                asked.images.into_iter().map(|index| (queries, index)).zip(found).collect()
            }
            None => {
                let found = rows.features.nearest(nearest, &device);
                let mut pairs: Vec<Similar> = rows.images.iter().map(|&index| (&images, index)).zip(found).collect();
                let closest = |(_, found): &Similar| found.first().map_or(f32::MIN, |first| first.similarity);
                pairs.sort_by(|a, b| closest(b).total_cmp(&closest(a)));
                pairs
            }
        };
        let origins = Origins { images: &images, rows: std::mem::take(&mut rows.images) };
        report["nearest"] = found.iter().map(|similar| origins.json(similar)).collect();
        found.iter().for_each(|similar| origins.write(&mut text, similar));
    }
    if args.json.json { print_json(&report) } else { print_text(&text) }
}

/// Opens the images of the data set, or of a folder without class folders.
fn open(args: &Embed) -> Result<Images, CliError> {
    let options = OpenOptions { val_fraction: 0.0, classes_may_differ: true, ..OpenOptions::default() };
    match data::open(&args.data, &options) {
        Ok(data) => {
            data.notes.iter().for_each(|note| eprintln!("note: {note}"));
            let (_, source) = data.select(Some(args.split.as_deref().unwrap_or("all")))?;
            let labels = data.label_sets().map_or(data.classes.len(), |sets| sets.len());
            let classes = (0..labels).map(|label| data.label_name(label).into_owned()).collect();
            Ok(Images { source, classes })
        }
        Err(DataError::NoClassFolders { .. }) if args.split.is_none() => {
            let files = list_images(Path::new(path_of(&args.data)))?;
            Ok(Images { source: Arc::new(ImageFiles(files)), classes: Vec::new() })
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the files of the queries.
fn files(arguments: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let listed: Result<Vec<PathBuf>, _> = Inputs::new(arguments.to_vec()).collect();
    listed.map_err(|unread| CliError::new(unread.to_string(), None))
}

/// Images, and the names of their labels; none for images without labels.
struct Images {
    source: Arc<dyn Source>,
    classes: Vec<String>,
}

impl Images {
    /// Returns the name of an image's label.
    fn label(&self, index: usize) -> Option<&str> {
        self.classes.get(self.source.label(index)).map(String::as_str)
    }
}

/// An image, and the images similar to it.
type Similar<'a> = ((&'a Images, usize), Vec<Neighbor>);

struct Embedding<'a> {
    embedder: Embedder,
    model: &'a Model,
    args: &'a Embed,
    device: &'a Device,
    stop: &'a AtomicBool,
}

/// Embedded images.
struct Rows {
    done: usize,
    /// Features, and the index of the image of each row, if they are kept.
    features: Features,
    images: Vec<usize>,
}

impl Embedding<'_> {
    /// Computes the features of images, writes them to `table`, and returns them if `keep`.
    fn of(&self, images: &Images, mut table: Option<&mut FeatureTable>, keep: bool) -> Result<Rows, CliError> {
        let preprocess = &self.model.card.preprocess;
        let loader = Loader::new(images.source.clone(), Transform::Eval(preprocess.clone()), self.args.loader.config());
        let mut rows = Rows { done: 0, features: Features::new(self.embedder.width()), images: Vec::new() };
        let mut progress = Progress::new();
        let mut failed: Option<FeatureError> = None;
        let mut each = |batch: &[Embedded]| {
            for &Embedded { index, features } in batch {
                if let Some(table) = &mut table
                    && let Err(error) =
                        table.write(&images.source.name(index), images.label(index).unwrap_or_default(), features)
                {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
                if keep {
                    rows.features.push(features);
                    rows.images.push(index);
                }
            }
            rows.done += batch.len();
            progress.advance("embedding", rows.done, loader.len(), String::new());
            ControlFlow::Continue(())
        };
        let embedded = self.embedder.embed(&loader, preprocess, self.device, self.stop, &mut each);
        progress.finish();
        embedded?;
        for (name, why) in loader.skipped() {
            eprintln!("skipped {name}: {why}");
        }
        failed.map_or(Ok(rows), |error| Err(error.into()))
    }
}

/// The images of the rows among which neighbors were found.
struct Origins<'a> {
    images: &'a Images,
    rows: Vec<usize>,
}

impl Origins<'_> {
    fn json(&self, ((images, index), found): &Similar) -> Value {
        let entry = |images: &Images, index: usize| {
            let mut entry = json!({ "path": images.source.name(index) });
            if let Some(label) = images.label(index) {
                entry["label"] = label.into();
            }
            entry
        };
        let mut image = entry(images, *index);
        let neighbors = found.iter().map(|neighbor| {
            let mut other = entry(self.images, self.rows[neighbor.row]);
            other["similarity"] = neighbor.similarity.into();
            other
        });
        image["nearest"] = neighbors.collect();
        image
    }

    /// Writes an image and the similar ones, and marks those with another label.
    fn write(&self, text: &mut String, ((images, index), found): &Similar) {
        let own = images.label(*index);
        let _ = writeln!(text, "{}", visible_name(&images.source.name(*index)));
        for &Neighbor { row, similarity } in found {
            let other = self.rows[row];
            let mark = match (own, self.images.label(other)) {
                (Some(own), Some(label)) if own != label => {
                    format!("  ({} instead of {})", visible_name(label), visible_name(own))
                }
                _ => String::new(),
            };
            let _ = writeln!(text, "  {similarity:.4}  {}{mark}", visible_name(&self.images.source.name(other)));
        }
    }
}
