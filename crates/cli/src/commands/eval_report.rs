//! Reports of `mbconv eval`.

use std::path::Path;

use mbconv_train::config::RecipeFile;
use mbconv_train::report::{self, REPORT, Report};
use mbconv_train::run_dir::RECIPE;

use crate::error::CliError;
use crate::model_ref::ReadyModel;
use crate::output::create_folder;

/// Writes the report of an evaluation, with the curves of the run if the model is in a run folder.
pub(super) fn write_report(
    given: &Path,
    model: &ReadyModel,
    evaluation: Report,
    folder: &Path,
) -> Result<(), CliError> {
    let run = model.path.parent().filter(|run| run.join(RECIPE).is_file());
    let Report { history, recipe, .. } = match run {
        Some(run) => report::of_run(run)?,
        None => {
            Report { recipe: RecipeFile::of_model(&model.card).map(|recipe| recipe.to_toml()), ..Report::default() }
        }
    };
    let title = given.file_name().unwrap_or(given.as_os_str()).to_string_lossy().into_owned();
    create_folder(folder)?;
    let path = folder.join(REPORT);
    let model = Some(report::model_facts(&model.card));
    Report { title, history, recipe, model, ..evaluation }.write(&path)?;
    eprintln!("report: {}", path.display());
    Ok(())
}
