//! Recipes of scaled networks.

use std::fmt::Write;

use super::formula::Scaled;
use crate::config::RecipeFile;
use crate::config::optimizer::OptimizerName;

/// Returns the default template: the ImageNet recipe of EfficientNet's authors.
pub fn default_recipe() -> RecipeFile {
    RecipeFile::parse(include_str!("imagenet.toml"), "imagenet.toml", &[]).expect("the embedded recipe is valid")
}

/// Returns the maximum number of optimizer values per parameter.
pub(crate) fn optimizer_state(recipe: &RecipeFile) -> usize {
    let own = match recipe.optimizer.name {
        OptimizerName::Sgd => 1,
        OptimizerName::RmspropTf | OptimizerName::AdamW | OptimizerName::Lamb | OptimizerName::Muon => 2,
        OptimizerName::Adan => 4,
    };
    own + usize::from(recipe.ema.is_some())
}

/// Estimates the bytes for training `scaled` with the recipe's optimizer and batches of `batch`.
pub fn training_bytes(scaled: &Scaled, recipe: &RecipeFile, batch: usize) -> u64 {
    scaled.summary.training_bytes(batch, optimizer_state(recipe), recipe.gradient_checkpointing)
}

/// Returns the batch size and the number of accumulated batches per update. The batch is the
/// largest power of two, up to the template's images per update, whose estimated training memory is
/// at most `memory` bytes. Updates stay as large as the template's, so that its learning rate stays
/// valid.
pub fn suggested_batch(scaled: &Scaled, template: &RecipeFile, memory: u64) -> (usize, usize) {
    let images = template.batch_size.saturating_mul(template.accumulate);
    let fits = |batch: &usize| *batch <= template.batch_size && training_bytes(scaled, template, *batch) <= memory;
    let batch = if fits(&template.batch_size) {
        template.batch_size
    } else {
        (0..usize::BITS - 1).map(|power| 1 << power).take_while(fits).last().unwrap_or(1)
    };
    (batch, images.div_ceil(batch).max(1))
}

/// Returns `template` for the scaled network: its architecture, proportional image sizes, and a
/// batch whose training memory is at most `memory` bytes.
pub fn recipe_file(scaled: &Scaled, template: &RecipeFile, memory: u64) -> RecipeFile {
    let (batch_size, accumulate) = suggested_batch(scaled, template, memory);
    RecipeFile { batch_size, accumulate, ..with_network(scaled, template) }
}

/// Returns `template` with the scaled network and its image sizes.
pub(super) fn with_network(scaled: &Scaled, template: &RecipeFile) -> RecipeFile {
    let mut file = template.clone();
    file.model = scaled.options.for_recipe();
    let from = template.input.size.shorter().max(1) as f64;
    let in_proportion = |side: usize| (side as f64 * scaled.resolution as f64 / from).round().max(1.0) as usize;
    file.input.size = scaled.resolution.into();
    file.input.eval_size = template.input.eval_size.map(|size| size.map(in_proportion));
    file.input.eval_resize = template.input.eval_resize.map(|size| size.map(in_proportion));
    if let Some(progressive) = &mut file.input.progressive {
        progressive.start = in_proportion(progressive.start).min(scaled.resolution);
    }
    file
}

/// Formats `file` as text with a header that gives its `origin` and its cost.
pub fn recipe_text(scaled: &Scaled, file: &RecipeFile, origin: &str) -> String {
    let summary = &scaled.summary;
    let mut text = String::new();
    let _ = writeln!(text, "# {origin}");
    let _ = writeln!(text, "#");
    let _ = writeln!(
        text,
        "# {:.3} M parameters, {:.3} G multiply-accumulates at {} px ({} classes); training is estimated to need {:.1} GB.",
        summary.parameters as f64 / 1e6,
        summary.macs as f64 / 1e9,
        scaled.resolution,
        scaled.options.num_classes,
        training_bytes(scaled, file, file.batch_size) as f64 / 1e9
    );
    text.push('\n');
    text + &file.to_toml()
}

#[cfg(test)]
mod tests {
    use mbconv_data::ImageSize;
    use mbconv_nets::NetworkOptions;

    use super::*;
    use crate::Recipe;
    use crate::scale::{Base, Coefficients, SIDE_STEP};

    #[test]
    fn recipes_are_ready_to_train() {
        let base = Base::new(NetworkOptions::new("efficientnet_b0", 1000), None, SIDE_STEP).unwrap();
        let template = default_recipe();
        let mut batches = Vec::new();
        for phi in [0.0, 1.0, 2.5, 7.0] {
            let scaled = base.scaled(Coefficients::PUBLISHED.at(phi)).unwrap();
            let file = recipe_file(&scaled, &template, 16_000_000_000);
            assert_eq!(file.batch_size * file.accumulate, 2048);
            assert!(training_bytes(&scaled, &file, file.batch_size) <= 16_000_000_000);
            batches.push(file.batch_size);
            let text = recipe_text(&scaled, &file, "B0 at some φ");
            let recipe = Recipe::parse(&text, &[]).unwrap();
            assert_eq!(*recipe, file);
            let architecture = recipe.architecture(1000).unwrap();
            assert_eq!(mbconv_nets::summary::trainable_parameters(&architecture), scaled.summary.parameters);
            let side = ImageSize::square(scaled.resolution);
            assert_eq!((recipe.input.size, recipe.preprocess().crop), (side, side));
            assert_eq!(recipe.preprocess().resize.width, (256.0 * scaled.resolution as f64 / 224.0).round() as usize);
        }
        assert!(batches.is_sorted_by(|a, b| a >= b) && batches[0] > batches[3], "{batches:?}");
    }

    #[test]
    fn where_nothing_fits_one_image_is_suggested() {
        let base = Base::new(NetworkOptions::new("efficientnet_b0", 1000), None, SIDE_STEP).unwrap();
        let scaled = base.scaled(Coefficients::PUBLISHED.at(0.0)).unwrap();
        assert_eq!(suggested_batch(&scaled, &default_recipe(), 0), (1, 2048));
    }
}
