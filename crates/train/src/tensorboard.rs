//! Curves of a run for TensorBoard.

use std::io;
use std::path::{Path, PathBuf};

use mbconv_report::tensorboard::EventFile;

use crate::engine::event::Event;
use crate::observe::Observer;

/// Writes a run's curves for TensorBoard into its folder.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    recipe: String,
    /// Created when the run starts.
    file: Option<EventFile>,
    /// Values of the previous training event: epoch, images, and sums of loss, top-1 and top-5.
    before: (usize, usize, [f64; 3]),
    /// Completed steps.
    step: u64,
}

impl TensorBoard {
    /// Creates the writer of the run in `folder`; `recipe` is shown as text. The file
    /// `events.out.tfevents.…` is created when the run starts.
    pub fn new(folder: &Path, recipe: &str) -> Self {
        Self { folder: folder.into(), recipe: recipe.into(), file: None, before: Default::default(), step: 0 }
    }

    /// Creates a file. If a run resumes after `step` steps, TensorBoard discards later steps of
    /// earlier files.
    fn begin(&mut self, step: u64) -> io::Result<()> {
        let mut file = EventFile::create(&self.folder)?;
        match step {
            0 => file.text("recipe", &self.recipe)?,
            _ => file.restart(step + 1)?,
        }
        (self.file, self.step) = (Some(file), step);
        Ok(())
    }

    fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.scalars(step, values))
    }
}

impl Observer for TensorBoard {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Start { step, .. } => self.begin(*step),
            Event::Train { epoch, images, scores, learning_rate, step, .. } => {
                // Means since the last event, not since the start of the epoch.
                let sums = [scores.loss, scores.top1, scores.top5].map(|mean| mean * *images as f64);
                let (old_epoch, old_images, old_sums) = self.before;
                let (old_images, old_sums) = if old_epoch == *epoch { (old_images, old_sums) } else { (0, [0.0; 3]) };
                self.before = (*epoch, *images, sums);
                self.step = *step;
                let count = images.saturating_sub(old_images).max(1) as f64;
                let mean = |i: usize| (sums[i] - old_sums[i]) / count;
                self.scalars(
                    *step,
                    &[
                        ("train/loss", mean(0)),
                        ("train/top1", mean(1)),
                        ("train/top5", mean(2)),
                        ("train/learning_rate", *learning_rate),
                    ],
                )
            }
            Event::Epoch(row) => {
                let mut values =
                    vec![("epoch/images_per_second", row.images_per_second), ("epoch/train_loss", row.train_loss)];
                if let Some(val) = row.val {
                    values.extend([("val/loss", val.loss), ("val/top1", val.top1), ("val/top5", val.top5)]);
                    values.extend(val.macro_f1.map(|value| ("val/macro_f1", value)));
                    values.extend(val.map.map(|value| ("val/map", value)));
                    values.extend(val.balanced_accuracy.map(|value| ("val/balanced_accuracy", value)));
                }
                self.scalars(self.step, &values)
            }
            _ => Ok(()),
        }
    }
}
