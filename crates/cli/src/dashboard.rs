//! Burn's terminal dashboard, shown instead of the progress line with `--tui`.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn_train::Interrupter;
use burn_train::logger::TrainingProgressLogger;
use burn_train::metric::{MetricDefinition, MetricEntry, MetricId, NumericAttributes, NumericEntry, SerializedEntry};
use burn_train::renderer::tui::TuiMetricsRendererWrapper;
use burn_train::renderer::{MetricState, MetricsRenderer, MetricsRendererTraining};
use console::Term;
use mbconv_train::Event;
use mbconv_train::metrics::shows_top5;
use mbconv_train::observe::Observer;

use crate::terminal::columns;

/// The metrics: name, unit, and whether higher is better.
const METRICS: [(&str, Option<&str>, bool); 5] = [
    ("Loss", None, false),
    ("Top-1", Some("%"), true),
    ("Top-5", Some("%"), true),
    ("Learning rate", None, false),
    ("Images per second", None, true),
];
const LOSS: usize = 0;
const TOP1: usize = 1;
const TOP5: usize = 2;
const LEARNING_RATE: usize = 3;
const SPEED: usize = 4;

/// The two parts of an epoch, named as in Burn.
#[derive(Clone, Copy, PartialEq)]
enum Split {
    Train,
    Valid,
}

/// Curves and progress, using the whole terminal.
pub struct Dashboard<'a> {
    renderer: Option<TuiMetricsRendererWrapper>,
    interrupter: Interrupter,
    stop: &'a AtomicBool,
    epochs: usize,
    classes: usize,
    split: Option<Split>,
    /// Log lines to print after the dashboard is closed.
    lines: Vec<String>,
}

impl<'a> Dashboard<'a> {
    /// Creates the dashboard of a run that `stop` ends. It is shown when the run starts.
    pub fn new(stop: &'a AtomicBool) -> Self {
        let interrupter = Interrupter::new();
        Self { renderer: None, interrupter, stop, epochs: 0, classes: 0, split: None, lines: Vec::new() }
    }

    fn show(&mut self, event: &Event) {
        match event {
            Event::Line(line) => self.lines.push(line.to_string()),
            Event::Start { epoch, epochs, classes, .. } => {
                (self.epochs, self.classes) = (*epochs, *classes);
                let mut renderer = TuiMetricsRendererWrapper::new(self.interrupter.clone(), Some(*epoch));
                for (name, unit, higher_is_better) in METRICS {
                    if name == METRICS[TOP5].0 && !shows_top5(self.classes) {
                        continue;
                    }
                    let attributes = NumericAttributes { unit: unit.map(str::to_string), higher_is_better };
                    renderer.register_metric(MetricDefinition {
                        metric_id: id(name),
                        name: Arc::new(name.into()),
                        description: None,
                        attributes: attributes.into(),
                    });
                }
                renderer.start(*epochs, epoch + 1, None, None);
                self.renderer = Some(renderer);
            }
            Event::Train { images, total, scores, learning_rate, .. } => {
                self.advance(Split::Train, *images, *total);
                self.update(Split::Train, LOSS, scores.loss);
                self.update(Split::Train, TOP1, 100.0 * scores.top1);
                self.update(Split::Train, TOP5, 100.0 * scores.top5);
                self.update(Split::Train, LEARNING_RATE, *learning_rate);
            }
            Event::Validate { images, total } => self.advance(Split::Valid, *images, *total),
            Event::Epoch(row) => {
                if let Some(val) = &row.val {
                    self.update(Split::Valid, LOSS, val.loss);
                    self.update(Split::Valid, TOP1, 100.0 * val.top1);
                    self.update(Split::Valid, TOP5, 100.0 * val.top5);
                }
                self.update(Split::Train, SPEED, row.images_per_second);
                self.split = None;
                if let Some(renderer) = &mut self.renderer {
                    renderer.end_split();
                    if row.epoch < self.epochs {
                        renderer.update_epoch(row.epoch);
                    }
                }
                self.lines.push(row.line(self.classes, columns(&Term::stderr())));
            }
        }
    }

    fn advance(&mut self, split: Split, images: usize, total: usize) {
        let Some(renderer) = &mut self.renderer else { return };
        if self.split.replace(split) != Some(split) {
            renderer.start_split(if split == Split::Train { "train" } else { "valid" }, total);
        }
        renderer.update_split(images);
    }

    fn update(&mut self, split: Split, metric: usize, value: f64) {
        let Some(renderer) = &mut self.renderer else { return };
        if metric == TOP5 && !shows_top5(self.classes) {
            return;
        }
        let (name, unit, _) = METRICS[metric];
        let shown = match (metric, unit) {
            (LEARNING_RATE, _) => format!("{value:.3e}"),
            (_, Some(unit)) => format!("{value:.2} {unit}"),
            _ => format!("{value:.4}"),
        };
        let entry = MetricEntry::new(id(name), SerializedEntry::new(shown, value.to_string()));
        let state = MetricState::Numeric(entry, Some(NumericEntry::Value(value)));
        match split {
            Split::Train => renderer.update_train(state),
            Split::Valid => renderer.update_valid(state),
        }
    }
}

fn id(name: &str) -> MetricId {
    MetricId::new(Arc::new(name.into()))
}

impl Observer for Dashboard<'_> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        // Burn's "stop immediately" panics; here it ends the run with a checkpoint, as Ctrl-C does.
        let shown = panic::catch_unwind(AssertUnwindSafe(|| self.show(event)));
        if shown.is_err() || self.interrupter.should_stop() {
            self.stop.store(true, Ordering::Relaxed);
        }
        shown.map_err(|_| io::Error::other("closed by the user"))
    }
}

impl Drop for Dashboard<'_> {
    fn drop(&mut self) {
        if let Some(renderer) = self.renderer.take() {
            let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(renderer)));
        }
        for line in &self.lines {
            eprintln!("{line}");
        }
    }
}
