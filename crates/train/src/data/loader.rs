//! Batches of pixels, made on worker threads in an order that does not depend on them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::augment::Plan;
use super::fast::Scratch;
use super::order::{Draw, Sampling, epoch_order};
use super::{DataError, DecodeError, Decoding, RgbPixels, Sample, Source, StoredImage, Transform, seed};

/// Samples that a worker takes at a time: enough to make taking cheap, few enough to spread a batch over the workers.
const CHUNK: usize = 8;

/// How long a worker waits before it tries a failed read again.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];

/// Failed reads in a row after which it is not the images that are bad but what they lie on.
const LOST: usize = 16;

/// Images of one size and their labels.
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
    /// Which samples of the source these are, `[n]`.
    pub indices: Vec<usize>,
    /// What is left to do to each image, `[n]`, if a [`TrainTransform`](super::TrainTransform) was deferred; otherwise empty.
    pub plans: Vec<Plan>,
}

/// What to do about an image that cannot be read or decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBadImage {
    /// Leave it out, take the next one, and list it in [`Epoch::skipped`]. So too a file that has vanished, and one that still
    /// cannot be read at the third try; but 16 of the latter in a row end the epoch with the error.
    Skip,
    /// End the epoch with the error.
    Fail,
}

/// How a [`Loader`] collects samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Images a batch; 0 counts as 1.
    pub batch_size: usize,
    /// Threads that read, decode and transform; 0 counts as 1. The result does not depend on it.
    pub workers: usize,
    /// Batches to have ready beyond the one asked for; bounds the memory.
    pub prefetch: usize,
    /// Decides the order and the augmentation, together with the epoch.
    pub seed: u64,
    /// Whether each epoch has an order of its own, or that of the source.
    pub shuffle: bool,
    /// Which samples an epoch takes, and how often.
    pub sampling: Sampling,
    /// Whether every batch has exactly `batch_size` images, the rest being left out. Then every epoch has exactly
    /// [`Loader::batches`] batches: for skipped images, others are taken from the rest and, if need be, from the epoch's start.
    pub drop_last: bool,
    /// What to do about bad images.
    pub on_bad_image: OnBadImage,
    /// Which images of every batch are wanted, by their place in it; all of them by default. The other images are not even
    /// read, and none makes up for one that is skipped, so that several loaders deal an epoch out among them.
    pub part: Range<usize>,
}

impl LoaderConfig {
    /// Which images of every batch are wanted, or nothing if all are.
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

/// Makes epochs of batches from a source.
#[derive(Clone)]
pub struct Loader {
    source: Arc<dyn Source>,
    transform: Arc<Transform>,
    config: LoaderConfig,
    decoding: Decoding,
    skipped: Arc<Mutex<Skipped>>,
}

/// Images that were left out, with the reason, and how many of them have been taken note of.
#[derive(Default)]
struct Skipped {
    all: Vec<(String, String)>,
    taken: usize,
}

impl Loader {
    /// Starts nothing yet: threads live as long as an [`Epoch`].
    pub fn new(source: Arc<dyn Source>, transform: Transform, config: LoaderConfig) -> Self {
        let config = LoaderConfig { batch_size: config.batch_size.max(1), workers: config.workers.max(1), ..config };
        let decoding = match &transform {
            Transform::Eval(preprocess) => preprocess.decoding(),
            Transform::Train(_) => Decoding::default(),
        };
        Loader { source, transform: Arc::new(transform), config, decoding, skipped: Arc::default() }
    }

    /// The same with other than the exact decoding.
    pub fn with_decoding(self, decoding: Decoding) -> Self {
        Loader { decoding, ..self }
    }

    /// The most bytes that pixels of ready and of half-made batches take: `prefetch` batches, the one that is put together or waits to
    /// be handed out, the one that was, and what the workers are at. Besides, each worker holds one file and its decoded image.
    pub fn memory(&self) -> usize {
        let LoaderConfig { batch_size, prefetch, workers, .. } = self.config;
        let images = (prefetch + 2).saturating_mul(batch_size) + workers * CHUNK;
        images.saturating_mul(self.transform.size().pow(2) * 3)
    }

    /// The batches of an epoch, from its start.
    pub fn epoch(&self, epoch: usize) -> Epoch {
        self.epoch_from(epoch, Position::default())
    }

    /// The batches of an epoch from a position in it, which is what [`Epoch::position`] gave; the batches that follow are
    /// those that would have followed then.
    pub fn epoch_from(&self, epoch: usize, position: Position) -> Epoch {
        Epoch::start(self, epoch, position)
    }

    /// Batches an epoch. Without `drop_last`, skipped images may make them fewer.
    pub fn batches(&self) -> usize {
        let (samples, size) = (self.source.len(), self.config.batch_size);
        if self.config.drop_last { samples / size } else { samples.div_ceil(size) }
    }

    /// Samples of the source.
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Whether the source has no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The images that were left out in any epoch so far, each once, with the reason.
    pub fn skipped(&self) -> Vec<(String, String)> {
        lock(&self.skipped).all.clone()
    }

    /// Those of [`skipped`](Self::skipped) that no earlier call of this gave: an image is told of once, not every epoch.
    pub fn take_skipped(&self) -> Vec<(String, String)> {
        let mut skipped = lock(&self.skipped);
        let new = skipped.all[skipped.taken..].to_vec();
        skipped.taken = skipped.all.len();
        new
    }

    /// The source that samples come from.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// How samples are collected.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }
}

/// A poisoned lock only says that some thread panicked; what it guards here is consistent between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the operating system failed to read, other than by finding nothing or being forbidden to.
fn passing(error: &DataError) -> bool {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error, DataError::Io { source, .. } if !matches!(source.kind(), NotFound | PermissionDenied))
}

/// A sample ready for a batch.
struct Made {
    pixels: RgbPixels,
    plan: Plan,
    label: usize,
}

/// A sample's index, and the sample, or why there is none.
type Ready = (usize, Result<Made, DataError>);

/// What workers and consumer share. Chunks of positions are taken in order, finished in any, and delivered in order.
struct Shared {
    source: Arc<dyn Source>,
    transform: Arc<Transform>,
    decoding: Decoding,
    /// The epoch's order of samples; positions beyond its end wrap around.
    order: Vec<Draw>,
    seed: u64,
    epoch: usize,
    queue: Mutex<Queue>,
    /// Signalled when a chunk is finished.
    finished: Condvar,
    /// Signalled when there is room for another chunk, or nothing left to do.
    room: Condvar,
    stop: AtomicBool,
}

struct Queue {
    /// First position of the chunk to be taken next.
    next: usize,
    /// Position up to which samples are wanted so far.
    end: usize,
    /// Position up to which samples may be made ready without exceeding the memory.
    limit: usize,
    /// Finished chunks by first position.
    done: BTreeMap<usize, Vec<Ready>>,
}

impl Shared {
    /// Ends all threads.
    fn stop(&self) {
        // Under the lock, so that none checks before and waits after.
        let _queue = lock(&self.queue);
        self.stop.store(true, Ordering::Relaxed);
        self.room.notify_all();
        self.finished.notify_all();
    }

    /// A worker's life.
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

    /// Waits for room and takes the next chunk of positions; none when the epoch is being dropped.
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
        // Decoders are other people's code and are fed whatever lies on the disk: a panic in one is a bad image, not the end.
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

    /// Reads a sample, again after a pause where another try may help: networks and disks have their moments.
    fn read(&self, index: usize) -> Result<Sample, DataError> {
        for pause in PAUSES {
            match self.source.get(index) {
                Err(error) if passing(&error) => {
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

/// A place between two batches of an epoch, to continue from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Batches that came before.
    pub batches: usize,
    /// Samples that came before, skipped ones included.
    pub samples: usize,
}

/// The batches of one epoch, the next of which is put together on a thread of its own. Dropping it stops its threads, at the latest
/// after the image that each is at.
pub struct Epoch {
    shared: Arc<Shared>,
    assembler: Option<JoinHandle<()>>,
    batches: Option<Receiver<Delivery>>,
    position: Position,
    skipped: Vec<(String, String)>,
    /// Why there is no thread to put batches together.
    failed: Option<DataError>,
}

/// What an [`Assembly`] hands out.
struct Delivery {
    batch: Result<Option<Batch>, DataError>,
    /// Where the epoch stands after it.
    position: Position,
    /// Images that were left out since the last.
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
        // One batch waits to be handed out, no more.
        let (sender, batches) = sync_channel(0);
        match std::thread::Builder::new().name("loader-batches".into()).spawn(move || assembly.deliver(&sender)) {
            Ok(assembler) => (this.assembler, this.batches) = (Some(assembler), Some(batches)),
            Err(error) => this.failed = Some(DataError::Thread(error)),
        }
        this
    }

    /// Where the epoch stands: after the batch that came last.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The images of this epoch that were left out so far, with the reason.
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    fn stop(&mut self) {
        self.batches = None;
        self.shared.stop();
        if let Some(assembler) = self.assembler.take() {
            // If it panicked, it has nothing more to say here.
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
            batch: Err(DataError::Thread(std::io::Error::other("the one that puts batches together ended early"))),
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

/// Puts the workers' samples together to batches.
struct Assembly {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    config: LoaderConfig,
    /// Height and width of the images.
    side: usize,
    /// Batches of the whole epoch.
    batches: usize,
    position: Position,
    /// Samples delivered by the workers but in no batch yet.
    waiting: std::vec::IntoIter<Ready>,
    /// First position of the chunk that comes next.
    chunk: usize,
    /// Images that were left out, each once, and how many of them have been handed out.
    skipped: Vec<(String, String)>,
    told: usize,
    all_skipped: Arc<Mutex<Skipped>>,
    /// Samples skipped in a row: when they are as many as there are, none is left.
    failures: usize,
    /// Where the epoch was begun and images of a whole batch, if only a part of each is wanted.
    dealt: Option<(Position, usize)>,
    /// Why no worker could be started.
    failed: Option<DataError>,
    /// Whether there is nothing to do.
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
        let side = transform.size();
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
            side,
            batches,
            position,
            waiting: Vec::new().into_iter(),
            chunk: start,
            skipped: Vec::new(),
            told: 0,
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
                    // Fewer threads do the same work, but none do not.
                    this.failed = this.workers.is_empty().then_some(DataError::Thread(error));
                    break;
                }
            }
        }
        this
    }

    /// Hands batches out, until there are no more or nobody takes them.
    fn deliver(mut self, to: &SyncSender<Delivery>) {
        loop {
            let batch = self.batch();
            let last = !matches!(batch, Ok(Some(_)));
            let skipped = self.skipped[self.told..].to_vec();
            self.told = self.skipped.len();
            if to.send(Delivery { batch, position: self.position(), skipped }).is_err() || last {
                return;
            }
        }
    }

    /// Where the epoch stands: after the batch that came last.
    fn position(&self) -> Position {
        match self.dealt {
            None => self.position,
            Some((begun, whole)) => {
                let batches = self.position.batches;
                Position { batches, samples: begun.samples + (batches - begun.batches) * whole }
            }
        }
    }

    /// The next sample in the epoch's order; `wanted` are needed for the batch.
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
                // Samples were skipped: others make up for them.
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
                    return Err(DataError::Thread(std::io::Error::other("one of them ended early")));
                }
                let pause = std::time::Duration::from_secs(1);
                queue = self.shared.finished.wait_timeout(queue, pause).unwrap_or_else(PoisonError::into_inner).0;
            };
            drop(queue);
            self.chunk += chunk.len();
            self.waiting = chunk.into_iter();
        }
    }

    /// Notes a sample that failed, or gives the error back where it is not to be skipped.
    fn skip(&mut self, index: usize, error: DataError) -> Result<(), DataError> {
        let of_one_image = match &error {
            DataError::Image { .. } | DataError::NotFound { .. } => true,
            DataError::Io { .. } => !passing(&error) || self.failures < LOST,
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
        if !all.all.contains(&entry) {
            all.all.push(entry.clone());
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

    fn batch(&mut self) -> Result<Option<Batch>, DataError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.config.drop_last && self.position.batches >= self.batches {
            return Ok(None);
        }
        let size = self.config.batch_size;
        let mut batch = Batch {
            images: Vec::with_capacity(size * self.side * self.side * 3),
            labels: Vec::with_capacity(size),
            height: self.side,
            width: self.side,
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
            // The other parts of the batch are elsewhere, so an update cannot do without this one.
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
            // A worker that panicked has nothing more to say here.
            let _ = worker.join();
        }
    }
}

/// A [`Loader`] behind Burn's [`DataLoader`], for training loops written for that: each call of `iter` is the next epoch.
///
/// Batches stay in the host's memory; to put them on a device is the receiver's part.
pub struct BurnLoader {
    loader: Loader,
    epoch: AtomicUsize,
}

impl BurnLoader {
    /// Counts epochs from `epoch`.
    pub fn new(loader: Loader, epoch: usize) -> Self {
        BurnLoader { loader, epoch: AtomicUsize::new(epoch) }
    }

    fn with(&self, loader: Loader) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(BurnLoader::new(loader, self.epoch.load(Ordering::Relaxed)))
    }
}

impl DataLoader<Batch> for BurnLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let epoch = self.loader.epoch(self.epoch.fetch_add(1, Ordering::Relaxed));
        Box::new(BurnEpoch { epoch, processed: 0, total: self.num_items() })
    }

    fn num_items(&self) -> usize {
        match self.loader.config.drop_last {
            true => self.loader.batches() * self.loader.config.batch_size,
            false => self.loader.len(),
        }
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<Batch>> {
        self.with(self.loader.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let end = end.min(self.loader.len());
        let part = Part { source: self.loader.source.clone(), range: start.min(end)..end };
        self.with(Loader { source: Arc::new(part), ..self.loader.clone() })
    }
}

struct BurnEpoch {
    epoch: Epoch,
    processed: usize,
    total: usize,
}

impl Iterator for BurnEpoch {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.epoch.next()?;
        if let Ok(batch) = &batch {
            self.processed += batch.labels.len();
        }
        Some(batch.map_err(DatasetError::new))
    }
}

impl DataLoaderIterator<Batch> for BurnEpoch {
    fn progress(&self) -> Progress {
        Progress::new(self.processed, self.total, Some("items".into()))
    }
}

/// Consecutive samples of a source.
struct Part {
    source: Arc<dyn Source>,
    range: Range<usize>,
}

impl Part {
    fn index(&self, index: usize) -> usize {
        assert!(index < self.range.len(), "sample {index} of {}", self.range.len());
        self.range.start + index
    }
}

impl Dataset<Sample, DataError> for Part {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        self.source.get(self.index(index))
    }

    fn len(&self) -> usize {
        self.range.len()
    }
}

impl Source for Part {
    fn name(&self, index: usize) -> String {
        self.source.name(self.index(index))
    }

    fn label(&self, index: usize) -> usize {
        self.source.label(self.index(index))
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.source.path(self.index(index))
    }
}
