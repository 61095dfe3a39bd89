//! Data loader: batches of pixels from worker threads, in an order that does not depend on timing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use mbconv_image::jpeg_crop::Scratch;
use mbconv_image::{DecodeError, Decoding, RgbPixels};

use mbconv_image::augment::AugmentPlan;

use crate::error::DataError;
use crate::sampler::{Draw, Sampling, epoch_order};
use crate::source::{Sample, Source, StoredImage};
use mbconv_image::{Transform, seed};

/// Samples that a worker thread takes at a time. Large enough to keep synchronization cheap, small
/// enough to spread a batch over the worker threads.
const CHUNK: usize = 8;

/// Delays before a failed read is repeated.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];

/// Number of consecutive failed images after which a read error is attributed to the storage and
/// ends the epoch.
const LOST: usize = 16;

/// A batch of equally sized images with their labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Pixels, `[n, height, width, 3]`.
    pub images: Vec<u8>,
    /// Classes, `[n]`.
    pub labels: Vec<usize>,
    /// Height of each image in pixels.
    pub height: usize,
    /// Width of each image in pixels.
    pub width: usize,
    /// Indices of the samples in the source, `[n]`.
    pub indices: Vec<usize>,
    /// Remaining operations for each image, `[n]`, if the
    /// [`TrainTransform`](mbconv_image::TrainTransform) is deferred; otherwise empty.
    pub plans: Vec<AugmentPlan>,
}

/// Handling of images that cannot be read or decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBadImage {
    /// Skips the image, uses the next one, and records it in [`Epoch::skipped`]. This includes
    /// missing files and files that fail to be read three times in a row; the latter end the epoch
    /// with the error if the 16 images before them failed too.
    Skip,
    /// Ends the epoch with the error.
    Fail,
}

/// Configuration of a [`Loader`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Images per batch; 0 counts as 1.
    pub batch_size: usize,
    /// Worker threads that read, decode and transform; 0 counts as 1. The batches do not depend on
    /// it.
    pub workers: usize,
    /// Batches to prepare ahead of the requested one; limits memory use.
    pub prefetch: usize,
    /// Seed of order and augmentation, combined with the epoch.
    pub seed: u64,
    /// Shuffles each epoch; otherwise samples keep the source's order.
    pub shuffle: bool,
    /// Sampling strategy of an epoch.
    pub sampling: Sampling,
    /// Drops the remainder, so that every batch has exactly `batch_size` images. Every epoch
    /// then has exactly [`Loader::batches`] batches: skipped images are replaced by images from the
    /// remainder and, if necessary, from the start of the epoch.
    pub drop_last: bool,
    /// Handling of bad images.
    pub on_bad_image: OnBadImage,
    /// Range of the images of each batch to load, by their position in the batch; all of them by
    /// default. Other images are not read, and skipped images are not replaced, so that several
    /// loaders can share an epoch.
    pub part: Range<usize>,
}

impl LoaderConfig {
    /// Returns the range of the images of each batch to load, or `None` for all images.
    fn wanted(&self) -> Option<Range<usize>> {
        (self.part.start > 0 || self.part.end < self.batch_size).then(|| self.part.clone())
    }
}

impl Default for LoaderConfig {
    fn default() -> Self {
        LoaderConfig {
            batch_size: 32,
            workers: std::thread::available_parallelism().map_or(1, |n| n.get()),
            prefetch: 2,
            seed: 0,
            shuffle: false,
            sampling: Sampling::Once,
            drop_last: false,
            on_bad_image: OnBadImage::Fail,
            part: 0..usize::MAX,
        }
    }
}

/// Loads epochs of batches from a source.
#[derive(Clone)]
pub struct Loader {
    source: Arc<dyn Source>,
    transform: Arc<Transform>,
    config: LoaderConfig,
    decoding: Decoding,
    skipped: Arc<Mutex<Skipped>>,
}

/// Skipped images with reasons, each once.
type Skipped = Vec<(String, String)>;

impl Loader {
    /// Creates a loader. Threads start and end with each [`Epoch`].
    pub fn new(source: Arc<dyn Source>, transform: Transform, config: LoaderConfig) -> Self {
        let config = LoaderConfig { batch_size: config.batch_size.max(1), workers: config.workers.max(1), ..config };
        let decoding = match &transform {
            Transform::Eval(preprocess) | Transform::FiveCrops(preprocess) => preprocess.decoding(),
            Transform::Train(_) => Decoding::default(),
        };
        Loader { source, transform: Arc::new(transform), config, decoding, skipped: Arc::default() }
    }

    /// Replaces the default, exact decoding.
    pub fn with_decoding(self, decoding: Decoding) -> Self {
        Loader { decoding, ..self }
    }

    /// Returns the maximum number of bytes of pixels held at a time: `prefetch` batches, the batch
    /// in assembly or ready, the batch returned last, and the chunks of the worker threads. In
    /// addition each worker thread holds one file and its decoded image.
    pub fn memory(&self) -> usize {
        let LoaderConfig { batch_size, prefetch, workers, .. } = self.config;
        let images = (prefetch + 2).saturating_mul(batch_size) + workers * CHUNK;
        let [height, width] = self.transform.size().sides();
        images.saturating_mul(height * width * self.transform.crops() * 3)
    }

    /// Starts an epoch.
    pub fn epoch(&self, epoch: usize) -> Epoch {
        self.epoch_from(epoch, Position::default())
    }

    /// Resumes an epoch at a position returned by [`Epoch::position`]. The remaining batches are
    /// the same as without the interruption.
    pub fn epoch_from(&self, epoch: usize, position: Position) -> Epoch {
        Epoch::start(self, epoch, position)
    }

    /// Returns the number of batches per epoch. Without `drop_last`, skipped images may reduce it.
    pub fn batches(&self) -> usize {
        let (samples, size) = (self.source.len(), self.config.batch_size);
        if self.config.drop_last { samples / size } else { samples.div_ceil(size) }
    }

    /// Returns the number of samples of the source.
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Returns whether the source has no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the images skipped in any epoch so far, each once, with the reason.
    pub fn skipped(&self) -> Vec<(String, String)> {
        lock(&self.skipped).clone()
    }

    /// Returns the source of the samples.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Returns the configuration.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }
}

/// Locks a mutex, ignoring poisoning: the guarded data are consistent between statements, so a
/// panic of another thread leaves them usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether an error is a possibly temporary read failure: any I/O error other than a
/// missing file or missing permission.
fn is_temporary(error: &DataError) -> bool {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error, DataError::Io { source, .. } if !matches!(source.kind(), NotFound | PermissionDenied))
}

/// A sample ready for a batch.
struct Made {
    pixels: RgbPixels,
    plan: AugmentPlan,
    label: usize,
}

/// A sample's index with the sample or the error.
type Ready = (usize, Result<Made, DataError>);

/// State shared by worker threads and consumer. Chunks of positions are taken in order, finished in
/// any order, and delivered in order.
struct Shared {
    source: Arc<dyn Source>,
    transform: Arc<Transform>,
    decoding: Decoding,
    /// Order of samples; positions beyond its end wrap around.
    order: Vec<Draw>,
    seed: u64,
    epoch: usize,
    queue: Mutex<Queue>,
    /// Notified when a chunk is finished.
    finished: Condvar,
    /// Notified when another chunk fits into memory, or at the end.
    room: Condvar,
    stop: AtomicBool,
}

struct Queue {
    /// First position of the next chunk to take.
    next: usize,
    /// End of the positions requested so far.
    end: usize,
    /// End of the positions that may be prepared within the memory limit.
    limit: usize,
    /// Finished chunks by first position.
    done: BTreeMap<usize, Vec<Ready>>,
}

impl Shared {
    /// Stops all threads.
    fn stop(&self) {
        // Hold the lock, so that no thread misses the notification between its check and its wait.
        let _queue = lock(&self.queue);
        self.stop.store(true, Ordering::Relaxed);
        self.room.notify_all();
        self.finished.notify_all();
    }

    /// Runs a worker thread.
    fn work(&self) {
        let mut scratch = Scratch::default();
        while let Some(positions) = self.take() {
            let start = positions.start;
            let mut chunk = Vec::with_capacity(positions.len());
            for position in positions {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                let draw = self.order[position % self.order.len()];
                chunk.push((draw.index, self.make(draw, &mut scratch)));
            }
            lock(&self.queue).done.insert(start, chunk);
            self.finished.notify_one();
        }
    }

    /// Waits for room and takes the next chunk of positions. Returns `None` when the epoch is
    /// dropped.
    fn take(&self) -> Option<Range<usize>> {
        let mut queue = lock(&self.queue);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if queue.next < queue.end.min(queue.limit) {
                let start = queue.next;
                queue.next = (start + CHUNK).min(queue.end);
                return Some(start..queue.next);
            }
            queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads, decodes and transforms one sample.
    fn make(&self, Draw { index, repeat }: Draw, scratch: &mut Scratch) -> Result<Made, DataError> {
        let failed = |source: DecodeError| DataError::Image { name: self.source.name(index), source };
        // Third-party decoders process untrusted bytes: a panic counts as a bad image.
        let made = catch_unwind(AssertUnwindSafe(|| {
            let Sample { image, label } = self.read(index)?;
            let rng = || seed::repeat_rng(self.seed, self.epoch, index, repeat);
            if let (Transform::Train(train), StoredImage::Encoded(bytes), true) =
                (&*self.transform, &image, self.decoding.fast)
                && let Some((pixels, plan)) = train.apply_jpeg(bytes, &self.decoding, &mut rng(), scratch)
            {
                return Ok(Made { pixels, plan, label });
            }
            let pixels = image.into_pixels_as(&self.decoding).map_err(failed)?;
            let (pixels, plan) = self.transform.apply(pixels, &mut rng());
            Ok(Made { pixels, plan, label })
        }));
        made.unwrap_or_else(|_| Err(failed(DecodeError::Damaged("the decoder panicked".into()))))
    }

    /// Reads a sample, with pauses and retries after failures that may be temporary, as on
    /// networks and failing disks.
    fn read(&self, index: usize) -> Result<Sample, DataError> {
        for pause in PAUSES {
            match self.source.get(index) {
                Err(error) if is_temporary(&error) => {
                    let end = Instant::now() + pause;
                    while Instant::now() < end && !self.stop.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
                read => return read,
            }
        }
        self.source.get(index)
    }
}

/// A position between two batches of an epoch, from which it can be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Number of batches before it.
    pub batches: usize,
    /// Number of samples before it, including skipped ones.
    pub samples: usize,
}

/// Iterator over the batches of an epoch. A separate thread assembles the next batch. Dropping the
/// iterator stops its threads, at the latest when each has finished its current image.
pub struct Epoch {
    shared: Arc<Shared>,
    assembler: Option<JoinHandle<()>>,
    batches: Option<Receiver<Delivery>>,
    position: Position,
    skipped: Vec<(String, String)>,
    /// The error, if the assembling thread could not be started.
    failed: Option<DataError>,
}

/// A result of [`Assembly::deliver`].
struct Delivery {
    batch: Result<Option<Batch>, DataError>,
    /// Position of the epoch after the batch.
    position: Position,
    /// Images skipped since the previous delivery.
    skipped: Vec<(String, String)>,
}

impl Epoch {
    fn start(loader: &Loader, epoch: usize, position: Position) -> Epoch {
        let assembly = Assembly::start(loader, epoch, position);
        let shared = assembly.shared.clone();
        let mut this = Epoch { shared, assembler: None, batches: None, position, skipped: Vec::new(), failed: None };
        if assembly.over {
            return this;
        }
        // A channel without buffer: one finished batch waits to be received.
        let (sender, batches) = sync_channel(0);
        match std::thread::Builder::new().name("loader-batches".into()).spawn(move || assembly.deliver(&sender)) {
            Ok(assembler) => (this.assembler, this.batches) = (Some(assembler), Some(batches)),
            Err(error) => this.failed = Some(DataError::Thread(error)),
        }
        this
    }

    /// Returns the position after the last returned batch.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the images skipped so far in this epoch, with the reasons.
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    fn stop(&mut self) {
        self.batches = None;
        self.shared.stop();
        if let Some(assembler) = self.assembler.take() {
            // Ignore a panic: `next` reports that the thread ended early.
            let _ = assembler.join();
        }
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let ended = |_| Delivery {
            batch: Err(DataError::Thread(std::io::Error::other("the batch-assembly thread ended early"))),
            position: self.position,
            skipped: Vec::new(),
        };
        let Delivery { batch, position, skipped } = self.batches.as_ref()?.recv().unwrap_or_else(ended);
        self.position = position;
        self.skipped.extend(skipped);
        if !matches!(batch, Ok(Some(_))) {
            self.stop();
        }
        batch.transpose()
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Assembles samples of the worker threads into batches.
struct Assembly {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    config: LoaderConfig,
    /// Height and width of the images.
    size: [usize; 2],
    /// Number of batches in the whole epoch.
    batches: usize,
    position: Position,
    /// Samples received from the worker threads but not yet in a batch.
    waiting: std::vec::IntoIter<Ready>,
    /// First position of the next chunk.
    chunk: usize,
    /// Images skipped, each once; the first `reported` of them have been delivered.
    skipped: Vec<(String, String)>,
    reported: usize,
    all_skipped: Arc<Mutex<Skipped>>,
    /// Number of consecutive failed samples. The epoch ends with an error when it reaches the
    /// number of samples.
    failures: usize,
    /// If only a part of each batch is loaded: start position of the epoch, and the size of a whole
    /// batch.
    dealt: Option<(Position, usize)>,
    /// The error, if no worker thread could be started.
    failed: Option<DataError>,
    /// True if there are no samples to load.
    over: bool,
}

impl Assembly {
    fn start(loader: &Loader, epoch: usize, position: Position) -> Self {
        let mut config = loader.config.clone();
        let (samples, batches) = (loader.source.len(), loader.batches());
        let label = |index| loader.source.label(index);
        let runs = loader.source.runs();
        let mut order = epoch_order(samples, label, &runs, config.sampling, config.shuffle, config.seed, epoch);
        let transform = Arc::new(loader.transform.at_epoch(epoch));
        let [height, width] = transform.size().sides();
        let size = [height * transform.crops(), width];
        let whole = config.batch_size;
        let dealt = config.wanted().map(|_| (position, whole));
        let mut start = position.samples;
        let mut end = match config.drop_last {
            true => start + batches.saturating_sub(position.batches) * whole,
            false => samples.max(start),
        };
        if let Some(part) = config.wanted() {
            let all = (start..end).filter(|place| part.contains(&((place - start) % whole)));
            order = all.map(|place| order[place % samples.max(1)]).collect();
            (start, end) = (0, order.len());
            config.batch_size = part.len();
        }
        let limit = start + config.prefetch * config.batch_size;
        let shared = Arc::new(Shared {
            source: loader.source.clone(),
            transform,
            decoding: loader.decoding,
            order,
            seed: config.seed,
            epoch,
            queue: Mutex::new(Queue { next: start, end, limit, done: BTreeMap::new() }),
            finished: Condvar::new(),
            room: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut this = Self {
            shared,
            workers: Vec::new(),
            size,
            batches,
            position,
            waiting: Vec::new().into_iter(),
            chunk: start,
            skipped: Vec::new(),
            reported: 0,
            all_skipped: loader.skipped.clone(),
            failures: 0,
            dealt,
            failed: None,
            over: start == end,
            config,
        };
        for number in 0..this.config.workers.min((end - start).div_ceil(CHUNK)) {
            let shared = this.shared.clone();
            match std::thread::Builder::new().name(format!("loader-{number}")).spawn(move || shared.work()) {
                Ok(worker) => this.workers.push(worker),
                Err(error) => {
                    // Fewer worker threads suffice, but at least one is needed.
                    this.failed = this.workers.is_empty().then_some(DataError::Thread(error));
                    break;
                }
            }
        }
        this
    }

    /// Sends batches until the end or until the receiver is dropped.
    fn deliver(mut self, to: &SyncSender<Delivery>) {
        loop {
            let batch = self.batch();
            let last = !matches!(batch, Ok(Some(_)));
            let skipped = self.skipped[self.reported..].to_vec();
            self.reported = self.skipped.len();
            if to.send(Delivery { batch, position: self.position(), skipped }).is_err() || last {
                return;
            }
        }
    }

    /// Returns the position after the last batch.
    fn position(&self) -> Position {
        match self.dealt {
            None => self.position,
            Some((begun, whole)) => {
                let batches = self.position.batches;
                Position { batches, samples: begun.samples + (batches - begun.batches) * whole }
            }
        }
    }

    /// Returns the next sample in the epoch's order. The batch needs `wanted` more samples.
    fn sample(&mut self, wanted: usize) -> Result<Option<Ready>, DataError> {
        loop {
            if let Some(ready) = self.waiting.next() {
                self.position.samples += 1;
                return Ok(Some(ready));
            }
            let mut queue = lock(&self.shared.queue);
            if self.chunk >= queue.end {
                if !self.config.drop_last || self.dealt.is_some() {
                    return Ok(None);
                }
                // Samples were skipped; request replacements.
                queue.end = self.chunk + wanted;
            }
            queue.limit = queue.limit.max(self.chunk + wanted + self.config.prefetch * self.config.batch_size);
            self.shared.room.notify_all();
            let chunk = loop {
                if let Some(chunk) = queue.done.remove(&self.chunk) {
                    break chunk;
                }
                if self.shared.stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                if self.workers.iter().any(JoinHandle::is_finished) {
                    return Err(DataError::Thread(std::io::Error::other("a worker thread ended early")));
                }
                let pause = std::time::Duration::from_secs(1);
                queue = self.shared.finished.wait_timeout(queue, pause).unwrap_or_else(PoisonError::into_inner).0;
            };
            drop(queue);
            self.chunk += chunk.len();
            self.waiting = chunk.into_iter();
        }
    }

    /// Records a failed sample, or returns the error if it must not be skipped.
    fn skip(&mut self, index: usize, error: DataError) -> Result<(), DataError> {
        let of_one_image = match &error {
            DataError::Image { .. } | DataError::NotFound { .. } => true,
            DataError::Io { .. } => !is_temporary(&error) || self.failures < LOST,
            _ => false,
        };
        if self.config.on_bad_image == OnBadImage::Fail || !of_one_image {
            return Err(error);
        }
        let reason = match &error {
            DataError::Image { source, .. } => source.to_string(),
            DataError::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        let entry = (self.shared.source.name(index), reason);
        let mut all = lock(&self.all_skipped);
        if !all.contains(&entry) {
            all.push(entry.clone());
        }
        drop(all);
        if !self.skipped.contains(&entry) {
            self.skipped.push(entry);
        }
        self.failures += 1;
        let samples = self.shared.order.len();
        if self.failures >= samples {
            let first = self.skipped.first().map(|(name, why)| format!("{name}: {why}"));
            return Err(DataError::NoImages { samples, first });
        }
        Ok(())
    }

    /// Assembles the next batch; returns `None` at the end of the epoch.
    fn batch(&mut self) -> Result<Option<Batch>, DataError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.config.drop_last && self.position.batches >= self.batches {
            return Ok(None);
        }
        let size = self.config.batch_size;
        let [height, width] = self.size;
        let mut batch = Batch {
            images: Vec::with_capacity(size * height * width * 3),
            labels: Vec::with_capacity(size),
            height,
            width,
            indices: Vec::with_capacity(size),
            plans: Vec::new(),
        };
        let deferred = self.shared.transform.is_deferred();
        let mut skipped = 0;
        while batch.labels.len() + skipped < size {
            match self.sample(size - batch.labels.len())? {
                None => break,
                Some((index, Ok(Made { pixels, plan, label }))) => {
                    self.failures = 0;
                    batch.images.extend_from_slice(&pixels.data);
                    batch.labels.push(label);
                    batch.indices.push(index);
                    batch.plans.extend(deferred.then_some(plan));
                }
                Some((index, Err(error))) => {
                    self.skip(index, error)?;
                    skipped += usize::from(self.dealt.is_some());
                }
            }
        }
        if batch.labels.is_empty() && skipped == 0 {
            return Ok(None);
        }
        self.position.batches += 1;
        if batch.labels.is_empty() {
            // Other processes hold the other parts of this batch, so an optimizer step needs this
            // part.
            let first = self.skipped.last().map(|(name, why)| format!("{name}: {why}"));
            return if self.config.drop_last {
                Err(DataError::NoImages { samples: skipped, first })
            } else {
                self.batch()
            };
        }
        Ok(Some(batch))
    }
}

impl Drop for Assembly {
    fn drop(&mut self) {
        self.shared.stop();
        for worker in self.workers.drain(..) {
            // Ignore a panic: `sample` reports that a thread ended early.
            let _ = worker.join();
        }
    }
}
