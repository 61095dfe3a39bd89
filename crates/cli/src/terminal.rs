//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use mbconv_train::Event;
use mbconv_train::observe::Observer;
use mbconv_train::text::visible_name;

use crate::signals::keep_ignored;

/// Exit status of an interrupted command, as in shells after Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// How often a plain log mentions an unfinished epoch.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

impl Observer for &mut Progress {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        self.show(event);
        Ok(())
    }
}

/// Prints a line on standard error, whether or not that can be written.
pub fn print_line(line: &str) {
    let _ = std::io::stderr().write_all(format!("{}\n", visible_name(line)).as_bytes());
}

/// A flag that Ctrl-C, or a request to terminate, sets; the second time the program ends at once.
/// Signals that are ignored stay so.
pub fn stop_on_interrupt() -> &'static AtomicBool {
    static STOP: AtomicBool = AtomicBool::new(false);
    let handler = || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
        // The terminal shows `^C` in the line before.
        print_line("");
        eprintln!("stopping after this step; once more to stop at once");
    };
    if let Err(error) = keep_ignored(|| ctrlc::set_handler(handler)) {
        eprintln!("note: Ctrl-C will end the program at once ({error})");
    }
    &STOP
}

/// A stretch of work that a plain log tells of now and then.
struct Plain {
    prefix: String,
    started: Instant,
    mentioned: Instant,
    /// Images already done when it began: a resumed epoch has some.
    first: usize,
}

/// Template of the progress bar.
const OF_TOTAL: &str = "{prefix} {wide_bar} {pos}/{len} images  {per_sec}  {eta} left  {msg}";
/// Template of the progress bar while the total is unknown.
const OF_UNKNOWN_TOTAL: &str = "{prefix} {pos} images  {per_sec}";

fn show_as(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─").with_key(
            "per_sec",
            |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.0} img/s", state.per_sec());
            },
        ));
    }
}

/// A progress display over images.
pub struct Progress {
    bar: Option<ProgressBar>,
    epochs: usize,
    classes: usize,
    /// What is under way on a plain log.
    plain: Option<Plain>,
}

impl Progress {
    /// True if standard error is a terminal, which can show a bar.
    pub fn is_shown() -> bool {
        std::io::stderr().is_terminal()
    }

    /// A bar if standard error is a terminal.
    pub fn new() -> Self {
        let bar = Self::is_shown().then(|| {
            let bar = ProgressBar::hidden();
            show_as(&bar, OF_TOTAL);
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            bar
        });
        Self { bar, epochs: 0, classes: 0, plain: None }
    }

    /// Shows an event of training.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Line(line) => self.line(line),
            Event::Start { epochs, classes, .. } => (self.epochs, self.classes) = (*epochs, *classes),
            Event::Train { epoch, images, total, scores, .. } => {
                let prefix = format!("epoch {epoch}/{}", self.epochs);
                let message = format!("loss {:.3}  top-1 {:.1} %", scores.loss, 100.0 * scores.top1);
                self.advance(&prefix, *images, *total, message);
            }
            Event::Validate { images, total } => self.advance("validation", *images, *total, String::new()),
            Event::Epoch(row) => {
                self.plain = None;
                self.line(&row.line(self.classes));
            }
        }
    }

    /// Moves to `images` of `total`.
    pub fn advance(&mut self, prefix: &str, images: usize, total: usize, message: String) {
        let Some(bar) = &self.bar else {
            return self.advance_plainly(prefix, images, total, &message);
        };
        if bar.prefix() != prefix || bar.length() != Some(total as u64) {
            show_as(bar, OF_TOTAL);
            bar.reset();
            bar.set_length(total as u64);
            bar.set_prefix(prefix.to_string());
        }
        bar.set_message(message);
        bar.set_position(images as u64);
    }

    /// Shows on a terminal that `images` are done, of `total` if that is known.
    pub fn count(&mut self, prefix: &str, images: usize, total: Option<usize>) {
        let Some(bar) = &self.bar else { return };
        match total {
            Some(total) => self.advance(prefix, images, total, String::new()),
            None => {
                if bar.prefix() != prefix {
                    show_as(bar, OF_UNKNOWN_TOTAL);
                    bar.set_prefix(prefix.to_string());
                }
                bar.set_position(images as u64);
            }
        }
    }

    /// Does something that writes to the terminal, with the bar out of the way.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn advance_plainly(&mut self, prefix: &str, images: usize, total: usize, message: &str) {
        let now = Instant::now();
        if self.plain.as_ref().is_none_or(|plain| plain.prefix != prefix) {
            self.plain = Some(Plain { prefix: prefix.into(), started: now, mentioned: now, first: images });
        }
        let Some(plain) = &mut self.plain else { return };
        if now - plain.mentioned >= PLAIN_INTERVAL && images > plain.first {
            let speed = (images - plain.first) as f64 / (now - plain.started).as_secs_f64();
            let left = total.saturating_sub(images) as f64 / speed;
            eprintln!("{prefix}: {images}/{total} images  {speed:.0} img/s  {left:.0} s left  {message}");
            plain.mentioned = now;
        }
    }

    /// Prints a line above the bar.
    pub fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
