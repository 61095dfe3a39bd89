//! The training loop.

mod eager_step;
mod epoch;
pub(crate) mod error;
pub(crate) mod event;
mod graph_step;
pub(crate) mod learner;
mod setup;
pub(crate) mod step;
mod validate;

use self::epoch::Trainer;
pub use self::error::TrainError;
pub use self::event::{Event, Outcome, Run};
use self::setup::Setup;
use self::validate::{Validation, check_readable, validate};
use crate::history::LINE_WIDTH;

/// Trains a network, and calls `observer` with the events of the run.
///
/// Random values depend only on the recipe's seed, the epoch and the sample or step, so that an
/// interrupted and resumed run is bit-identical to an uninterrupted run. If there are several
/// processes, each computes its part of every batch.
///
/// # Errors
/// See [`TrainError`].
pub fn train(run: Run, observer: &mut dyn FnMut(Event)) -> Result<Outcome, TrainError> {
    train_until(run, run.recipe.epochs, observer)
}

/// Trains as [`train`], but only until the end of epoch `until`, from which the run can continue.
pub(crate) fn train_until(run: Run, until: usize, observer: &mut dyn FnMut(Event)) -> Result<Outcome, TrainError> {
    let recipe = run.group.all_ok(run.recipe.for_data(run.data.label_sets().is_some()).map_err(TrainError::from))?;
    let run = Run { recipe: &recipe, ..run };
    let Run { recipe, data, group, .. } = run;
    let setup = Setup::new(run)?;
    let (train_loader, val_loader) = (Some(&setup.train_loader), setup.val_loader.as_ref());
    let (mut folder, mut learner) = setup.start(observer)?;
    let mut trainer = Trainer::new(&setup, &folder.progress);

    while folder.progress.epoch < recipe.epochs.min(until) {
        let waited = folder.epochs_without_progress(setup.finetune.head_epochs, recipe.checkpoint.metric);
        if recipe.early_stopping > 0 && waited >= recipe.early_stopping {
            let line = format!("stopped early: no better validation for {waited} epochs (early_stopping)");
            folder.say(&line, observer)?;
            break;
        }

        let trained;
        (learner, trained) = trainer.train_epoch(learner, &mut folder, observer)?;
        let Some(trained) = trained else { return Ok(Outcome::Interrupted) };

        let epoch = trained.epoch;
        let validation = validate(&setup, &learner, epoch, observer)?;
        if let Err(error) = check_readable(val_loader, group) {
            // Once the images are repaired, a resumed run continues with the validation.
            trained.save(&mut folder, &learner, setup.steps())?;
            folder.report_skipped(val_loader, "validation", observer)?;
            return Err(error);
        }
        let Some(Validation { val, ema }) = validation else {
            trained.save(&mut folder, &learner, setup.steps())?;
            folder.say(&format!("interrupted while validating epoch {}", epoch + 1), observer)?;
            return Ok(Outcome::Interrupted);
        };

        let row = trained.row(val, ema);
        folder
            .complete_epoch(row.clone(), &learner, &setup.card(&learner.network), &recipe.checkpoint)
            .map_err(|error| error.at_step(epoch, setup.steps()))?;
        trainer.checkpoint_written();
        observer(Event::Epoch(&row));
        folder.log(&row.line(data.classes.len(), LINE_WIDTH))?;
        folder.report_skipped(train_loader, "training", observer)?;
        folder.report_skipped(val_loader, "validation", observer)?;
    }
    Ok(Outcome::Finished { best: folder.progress.best })
}
