//! Decoding of files by several threads, in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::result::Unread;
use crate::classifier::Tta;
use mbconv_data::{DataError, DecodeError, Preprocess, RgbPixels, decode, read_image};

/// A file with its preprocessed pixels.
pub struct Decoded {
    pub path: PathBuf,
    pub pixels: RgbPixels,
}

type Outcome = Result<Decoded, Unread>;

/// A file to decode, and the channel for its result.
type Job = (PathBuf, SyncSender<Outcome>);

/// Threads that decode files. At most `ahead` files are decoded in advance.
pub struct Decoders {
    /// Channels of the results, in the order of the files.
    pending: Receiver<Receiver<Outcome>>,
}

impl Decoders {
    /// Starts `workers` decoding threads and a thread that lists the files. All of them end when
    /// this is dropped.
    ///
    /// # Errors
    /// Returns [`DataError::Thread`] if a thread cannot be started.
    pub fn start(
        files: impl Iterator<Item = Result<PathBuf, Unread>> + Send + 'static,
        preprocess: &Preprocess,
        tta: Tta,
        workers: usize,
        ahead: usize,
    ) -> Result<Self, DataError> {
        let spawn = |name: String, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name).spawn(body).map(drop).map_err(DataError::Thread)
        };
        let (sender, pending) = sync_channel(ahead);
        // Has room for all pending files, so that sending a job never blocks.
        let (jobs, queue) = sync_channel::<Job>(ahead + 1);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..workers.max(1) {
            let (queue, preprocess) = (queue.clone(), preprocess.clone());
            spawn(format!("decoder-{number}"), Box::new(move || work(&queue, &preprocess, tta)))?;
        }
        spawn("files".into(), Box::new(move || list(files, &sender, &jobs)))?;
        Ok(Self { pending })
    }

    /// Returns the next file if it is listed within `patience`, since a list on standard input may
    /// be slow. Blocks until it is decoded.
    pub fn next(&self, patience: Duration) -> Result<Outcome, RecvTimeoutError> {
        let outcome = self.pending.recv_timeout(patience)?;
        Ok(outcome.recv().unwrap_or_else(|_| Err(Unread::new(Path::new("a decoder"), "its thread ended early"))))
    }
}

/// Distributes files until there are no more or the receiver is dropped.
fn list(
    files: impl Iterator<Item = Result<PathBuf, Unread>>,
    pending: &SyncSender<Receiver<Outcome>>,
    jobs: &SyncSender<Job>,
) {
    for file in files {
        let (sender, outcome) = sync_channel(1);
        if pending.send(outcome).is_err() {
            return;
        }
        let handed_out = match file {
            Ok(path) => jobs.send((path, sender)).is_ok(),
            Err(unread) => sender.send(Err(unread)).is_ok(),
        };
        if !handed_out {
            return;
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, preprocess: &Preprocess, tta: Tta) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((path, sender)) = job else { return };
        let outcome = match read_file(&path, preprocess, |image| tta.crop(preprocess, image)) {
            Ok(pixels) => Ok(Decoded { path, pixels }),
            Err(unread) => Err(unread),
        };
        // An error means that the receiver was dropped; then the queue ends too.
        let _ = sender.send(outcome);
    }
}

/// Reads and decodes an image file, and applies `make` to the pixels.
pub fn read_file<T>(path: &Path, preprocess: &Preprocess, make: impl FnOnce(RgbPixels) -> T) -> Result<T, Unread> {
    let bytes = read_image(path).map_err(|error| match error {
        DataError::Image { source, .. } => Unread::new(path, source),
        DataError::Io { source, .. } => Unread::new(path, source),
        other => Unread::new(path, other),
    })?;
    // Decoders from other crates may panic on malformed files. A panic is treated as an unreadable
    // image.
    let made = catch_unwind(AssertUnwindSafe(|| Ok(make(decode(&bytes, &preprocess.decoding())?))));
    let panicked = |_| Err(DecodeError::Damaged("the decoder panicked".into()));
    made.unwrap_or_else(panicked).map_err(|error| Unread::new(path, error))
}
