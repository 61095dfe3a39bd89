//! The base network, the template of its recipes, and the table of scaled networks.

use std::path::Path;

use mbconv_nets::Summary;
use mbconv_train::Recipe;
use mbconv_train::config::RecipeFile;
use mbconv_train::data::ImageSize;
use mbconv_train::scale::{
    Base, Factors, Scaled, default_recipe, recipe_file, recipe_text, suggested_batch, training_bytes,
};
use serde_json::{Value, json};

use crate::args::NetworkArgs;
use crate::error::CliError;
use crate::model_ref::{IMAGENET_CLASSES, ModelRef};
use crate::output::{create_folder, write_file};
use crate::table::wrapped;

/// Default base network.
const BASE: &str = "efficientnet_b0";

/// The network to scale, and the template of the recipes.
pub struct Plan {
    pub base: Base,
    pub template: RecipeFile,
    pub args: NetworkArgs,
}

impl Plan {
    /// Creates a plan. The recipe `proxy` is the template, and its network the default base.
    pub fn new(args: NetworkArgs, proxy: Option<&Path>) -> Result<Self, CliError> {
        let given = proxy.or(args.recipe.as_deref());
        let mut template = given.map(|path| RecipeFile::read(path, &args.overrides)).transpose()?;
        let (mut options, side) = match (&args.base, &template, proxy) {
            (None, Some(template), Some(_)) => {
                (template.model.with_classes(IMAGENET_CLASSES), Some(template.input.size))
            }
            (base, ..) => {
                let base = base.as_deref().unwrap_or(BASE);
                let ModelRef { options, input_size, recipe, .. } = ModelRef::resolve(base, None)?;
                if template.is_none() && recipe.is_some() {
                    template = Some(RecipeFile::read(Path::new(base), &args.overrides)?);
                }
                (options, input_size)
            }
        };
        let template = match template {
            Some(template) => template,
            None if args.overrides.is_empty() => default_recipe(),
            None => default_recipe().with(&args.overrides)?,
        };
        // Reports an invalid template before any work.
        Recipe::try_from(template.clone())?;
        let side = args.input_size.or(side.map(square).transpose()?);
        square(template.input.size)?;
        options.num_classes = args.classes.unwrap_or(options.num_classes);
        Ok(Self { base: Base::new(options, side, args.side_step)?, template, args })
    }

    /// Returns the line of assumptions below a table.
    pub fn notes(&self) -> String {
        let classes = self.base.scaled(Factors::NONE).map_or(0, |scaled| scaled.options.num_classes);
        let written = match &self.args.out {
            Some(out) => format!("recipes in {}", out.display()),
            None => "--out DIR writes recipes".into(),
        };
        let memory = self.args.memory as f64 / 1e9;
        let notes = format!(
            "{classes} classes; memory: estimate for the given batch, the largest within {memory:.0} GB; {written}"
        );
        wrapped(&notes, 0)
    }

    /// Writes a network's recipe if an output folder is given, and adds its path to `json`.
    pub fn write_recipe(&self, name: &str, scaled: &Scaled, origin: &str, json: &mut Value) -> Result<(), CliError> {
        let Some(out) = &self.args.out else { return Ok(()) };
        let file = recipe_file(scaled, &self.template, self.args.memory);
        Recipe::try_from(file.clone())?;
        create_folder(out)?;
        let path = out.join(format!("{name}.toml"));
        write_file(&path, recipe_text(scaled, &file, origin).as_bytes())?;
        json["recipe"] = json!(path.display().to_string());
        Ok(())
    }

    /// Returns the table's row of a network.
    pub fn row(&self, name: &str, scaled: &Scaled) -> String {
        let Summary { parameters, macs, .. } = scaled.summary;
        let (batch, memory) = self.batch_and_memory(scaled);
        let [depth, width] = [scaled.options.depth, scaled.options.width]
            .map(|factor| factor.map_or("–".into(), |factor| format!("{factor:.3}")));
        let (depth, width) = match (scaled.options.architecture(), scaled.options.depth) {
            (Ok(architecture), None) => (format!("{:.3}", architecture.depth), format!("{:.3}", architecture.width)),
            _ => (depth, width),
        };
        format!(
            "{name:<25}{depth:>7}{width:>7}{:>4} px{:>8.3} M{:>7.4} G{batch:>6}{:>6.1} GB",
            scaled.resolution,
            parameters as f64 / 1e6,
            macs as f64 / 1e9,
            memory as f64 / 1e9
        )
    }

    /// Returns the suggested batch size and its estimated training memory.
    fn batch_and_memory(&self, scaled: &Scaled) -> (usize, u64) {
        let (batch, _) = suggested_batch(scaled, &self.template, self.args.memory);
        (batch, training_bytes(scaled, &self.template, batch))
    }

    /// Returns a network's JSON object.
    pub fn json(&self, name: &str, scaled: &Scaled) -> Value {
        let (batch, accumulate) = suggested_batch(scaled, &self.template, self.args.memory);
        json!({
            "name": name,
            "base": self.base.name(),
            "factors": scaled.factors,
            "width": scaled.options.width,
            "depth": scaled.options.depth,
            "resolution": scaled.resolution,
            "dropout": scaled.options.dropout,
            "drop_path": scaled.options.drop_path,
            "classes": scaled.options.num_classes,
            "parameters": scaled.summary.parameters,
            "size_bytes": scaled.summary.size_bytes,
            "macs": scaled.summary.macs,
            "batch_size": batch,
            "accumulate": accumulate,
            "training_bytes": self.batch_and_memory(scaled).1,
        })
    }
}

/// Returns the side of a square.
///
/// # Errors
/// A rectangle, which scaled networks do not have.
fn square(size: ImageSize) -> Result<usize, CliError> {
    let hint = "scale with a square input.size, and set the rectangle in the scaled recipe";
    let error = || CliError::new(format!("scaling needs square images, not {size}"), hint.to_string());
    if size.is_square() { Ok(size.width) } else { Err(error()) }
}

/// Returns the table's header.
pub fn header() -> String {
    format!(
        "{:<25}{:>7}{:>7}{:>7}{:>10}{:>9}{:>6}{:>9}",
        "network", "depth", "width", "image", "params", "MACs", "batch", "memory"
    )
}
