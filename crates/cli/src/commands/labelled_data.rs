//! Images with labels for `eval`, `calibrate` and `quantize`.

use mbconv_train::classifier::Tta;
use mbconv_train::config::RecipeFile;
use mbconv_train::data::{self, DataError, DataSet, Loader, MOST_UNREADABLE, NO_SPLITS, OpenOptions};
use mbconv_train::model_file::ModelCard;

use crate::args::{LabelledImages, LoaderArgs};

/// A split of a data set, ready to be classified by a model.
pub struct LabelledData {
    pub data: DataSet,
    pub loader: Loader,
    /// Name of the split.
    pub split: &'static str,
}

impl LabelledData {
    /// Opens the data for the model `card`, with notes on standard error. Data without splits are
    /// divided as in training, so that `val` contains no training image; if `held_out`, that is the
    /// default split.
    pub fn open(
        args: &LabelledImages,
        loader: &LoaderArgs,
        card: &ModelCard,
        tta: Tta,
        held_out: bool,
    ) -> Result<Self, DataError> {
        let recipe = RecipeFile::of_model(card);
        let options = recipe.map(|recipe| recipe.data.open_options(recipe.seed)).unwrap_or_default();
        // Classes are matched by name: a split may have a subset of them.
        let data = data::open(&args.data, &OpenOptions { classes_may_differ: true, ..options })?;
        let default = (held_out && data.val.is_some()).then_some("val");
        let selected = data.select(args.split.as_deref().or(default));
        // The note about held-out images does not apply to all images.
        let whole = selected.as_ref().is_ok_and(|(split, _)| *split == "all");
        for note in data.notes.iter().filter(|note| !(whole && note.starts_with(NO_SPLITS))) {
            eprintln!("note: {note}");
        }
        let (split, source) = selected?;
        let loader = Loader::new(source, tta.transform(&card.preprocess), loader.config());
        if let Some(note) = trained_on(card, &data, args, split) {
            eprintln!("note: {note}");
        }
        Ok(Self { data, loader, split })
    }

    /// Returns the name of the split in messages.
    pub fn split_name(&self) -> String {
        match self.split {
            "all" if self.data.divided => "the whole data set (it has no splits)".into(),
            "all" => "all splits".into(),
            split => format!("the split `{split}`"),
        }
    }

    /// Prints the images that could not be read.
    pub fn report_skipped(&self) {
        let (skipped, total) = (self.loader.skipped(), self.loader.len());
        for (name, why) in &skipped {
            eprintln!("skipped {name}: {why}");
        }
        let skipped = skipped.len();
        if skipped as f64 > MOST_UNREADABLE * total as f64 {
            eprintln!("warning: {skipped} of {total} images cannot be read; the results are for the others");
        }
    }
}

/// Returns a note if the images include training images of the model.
fn trained_on(card: &ModelCard, data: &DataSet, args: &LabelledImages, split: &str) -> Option<String> {
    let trained = &RecipeFile::of_model(card)?.data.path?;
    let place = |path: &str| std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    if split != "all" || data.train.is_none() || place(trained) != place(&args.data) {
        return None;
    }
    let remedy = match data.val {
        Some(_) => "use --split val for the held-out images only",
        None => "no images were held out",
    };
    Some(format!("the model was trained on images of {}, which are evaluated here too: {remedy}", args.data))
}
