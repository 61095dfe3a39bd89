//! Preparation of a run: checks, data loaders, the first network.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use mbconv_nets::{Architecture, Network, NetworkOptions};

use super::eager_step::EagerStep;
use super::error::TrainError;
use super::event::{Event, Run};
use super::graph_step::GraphStep;
use super::learner::Learner;
use super::step::TrainStep;
use crate::criterion::Criterion;
use mbconv_data::image_formats::{is_wide_gray, wide_gray_warning};
use mbconv_data::{
    Gray16, Loader, LoaderConfig, OnBadImage, Preprocess, Sampling, Source, StoredImage, Transform, keep,
};
use mbconv_interop::model_file::{ModelCard, MultiLabel};

use crate::config::finetune::FinetuneConfig;
use crate::device::is_host;
use crate::finetune::load_body;
use crate::memory;
use crate::optimizer::param_ids::fresh_network;
use crate::precision::MapPrecision;
use crate::run_dir::RunDir;

/// Line for the user of a run with `[quantization]`.
const QUANTIZED: &str = "quantization: weights and activations are rounded to 8 bits, in validation too; the model \
                         files contain the unrounded weights and the ranges of the activations";

/// The parts of a run that do not change.
pub(super) struct Setup<'a> {
    pub(super) run: Run<'a>,
    pub(super) criterion: Criterion<'a>,
    pub(super) train_loader: Loader,
    pub(super) val_loader: Option<Loader>,
    pub(super) preprocess: Preprocess,
    pub(super) finetune: FinetuneConfig,
    /// Options of the network for the classes of the data.
    options: NetworkOptions,
    architecture: Architecture,
    /// Device with autodiff.
    autodiff: Device,
    train_images: usize,
    /// Lines for the user.
    notes: Vec<String>,
    /// Lines for the log only.
    details: Vec<String>,
}

impl<'a> Setup<'a> {
    /// Checks the run and opens its data.
    pub(super) fn new(run: Run<'a>) -> Result<Self, TrainError> {
        let Run { recipe, data, device, group, .. } = run;
        check(&run)?;
        let source = data.split("train")?;
        let (mut notes, mut details) = (Vec::new(), Vec::new());
        if recipe.precision.is_slow(device) {
            notes.push("precision: bf16 is slower than f32 on the CPU, which converts every value".into());
        }
        if recipe.data.gray16 == Gray16::Clip {
            notes.extend(wide_gray_among(&*source));
        }
        let train_images = source.len();
        let autodiff = recipe.autodiff(device);
        let criterion = Criterion::new(recipe, &data.classes, &*source, &autodiff)?;
        let transform = recipe.train_transform_for(device);
        let deferred = transform.deferred;
        let train_loader = loader(&run, source, Transform::Train(transform), &mut details);
        let preprocess = recipe.preprocess();
        let eval = || Transform::Eval(preprocess.clone());
        let val_loader = data.val.clone().map(|source| loader(&run, source, eval(), &mut details));
        if deferred {
            details.push("data: training images are augmented on the device (augment.on)".into());
        }
        if train_loader.batches() == 0 {
            return Err(TrainError::TooFewImages { images: train_images, batch_size: recipe.batch_size });
        }
        let architecture = recipe.architecture(data.classes.len())?;
        if is_host(device) {
            let checked = memory::check_training(recipe, &architecture, group.size(), memory::available());
            group.all_ok(checked.map_err(TrainError::from))?;
        }
        Ok(Self {
            run,
            criterion,
            train_loader,
            val_loader,
            preprocess,
            finetune: recipe.finetune.clone().unwrap_or_default(),
            options: recipe.model.with_classes(data.classes.len()),
            architecture,
            autodiff,
            train_images,
            notes,
            details,
        })
    }

    /// Opens the run's folder, and creates the learner or loads it from the checkpoint.
    pub(super) fn start(&self, observer: &mut dyn FnMut(Event)) -> Result<(RunDir, Learner), TrainError> {
        let Run { recipe, data, group, .. } = self.run;
        let mut folder = group.all_ok(RunDir::open(&self.run, self.train_images))?;
        // Only the first process reads the folder.
        folder.begun = group.any(folder.begun);
        let mut notes = self.notes.clone();
        let mut network = fresh_network(&self.architecture, recipe.seed, &self.autodiff);
        if !folder.begun {
            network = self.load_weights(network, &mut notes)?;
        }
        if recipe.sampling == Sampling::Once {
            notes.extend(incomplete_batch_note(self.train_images, recipe.batch_size, folder.begun));
        }
        if recipe.quantization.is_some() {
            network = network.with_fake_quantization();
            notes.push(QUANTIZED.into());
        }
        let average = recipe.ema.as_ref().map(|_| network.valid());
        let learner = Learner { network, optimizer: recipe.optimizer.init(&self.architecture), average };
        let learner = folder.beginning(learner, group)?;
        for line in folder.introduction(&self.run, &self.options, self.train_images).iter().chain(&notes) {
            folder.say(line, observer)?;
        }
        self.details.iter().try_for_each(|line| folder.log(line))?;
        let progress = &folder.progress;
        let step = (progress.epoch * self.steps() + progress.position.batches) as u64;
        let multi_label = data.label_sets().is_some();
        let (epoch, epochs, classes) = (progress.epoch, recipe.epochs, data.classes.len());
        observer(Event::Start { epoch, epochs, step, classes, multi_label });
        if !folder.begun || folder.changed() {
            folder.save_checkpoint(&learner)?;
        }
        Ok((folder, learner))
    }

    /// Loads the weights of `[finetune]`, if any, in the first process.
    fn load_weights(&self, network: Network, notes: &mut Vec<String>) -> Result<Network, TrainError> {
        let Run { data, group, .. } = self.run;
        let FinetuneConfig { weights: Some(weights), prefix, .. } = &self.finetune else { return Ok(network) };
        let loaded = match group.is_leader() {
            true => load_body(network, &self.options.name, &data.classes, weights, prefix.as_deref())
                .map_err(TrainError::from),
            false => Ok((network, Vec::new())),
        };
        let (network, lines) = group.all_ok(loaded)?;
        notes.extend(lines);
        Ok(network)
    }

    /// Creates the steps of the run: replayed if possible, otherwise operation by operation.
    pub(super) fn train_step(&self) -> Box<dyn TrainStep + '_> {
        match GraphStep::new(self.run, &self.criterion, &self.preprocess, &self.autodiff) {
            Some(step) => Box::new(step),
            None => Box::new(EagerStep::new(self.run, &self.criterion, &self.preprocess, &self.autodiff)),
        }
    }

    /// Returns the number of batches per epoch.
    pub(super) fn steps(&self) -> usize {
        self.train_loader.batches()
    }

    /// Returns the number of optimizer steps per epoch.
    pub(super) fn updates(&self) -> usize {
        self.steps().div_ceil(self.run.recipe.accumulate)
    }

    /// Returns the model card of the run's models, with the ranges of `network`.
    pub(super) fn card(&self, network: &Network) -> ModelCard {
        let Run { recipe, data, .. } = self.run;
        let card = ModelCard::new(self.options.clone(), data.classes.clone(), self.preprocess.clone());
        let multi_label = data.label_sets().map(|_| MultiLabel::default());
        let activation_ranges = recipe.quantization.as_ref().map(|_| network.activation_ranges());
        ModelCard { recipe: Some(recipe.to_json()), activation_ranges, ..card }.with_multi_label(multi_label)
    }
}

/// Checks that the processes agree, and that recipe, data and device fit together.
fn check(run: &Run) -> Result<(), TrainError> {
    let Run { recipe, data, device, group, .. } = run;
    group.compare(recipe, data)?;
    data.check_trainable()?;
    let synchronized = recipe.sync_batch_norm && group.size() > 1;
    if synchronized && !is_host(device) {
        return Err(TrainError::Unsynchronized);
    }
    if synchronized && recipe.precision == MapPrecision::Bf16 {
        return Err(TrainError::UnsynchronizedBf16);
    }
    Ok(recipe.precision.check(device)?)
}

/// Creates the loader of a split, and adds lines about its memory to `details`.
fn loader(run: &Run, source: Arc<dyn Source>, transform: Transform, details: &mut Vec<String>) -> Loader {
    let Run { recipe, group, .. } = run;
    let train = matches!(transform, Transform::Train(_));
    let decoding = recipe.data.decoding(train);
    let split = if train { "training" } else { "validation" };
    let source = match keep(&source, recipe.data.cache, decoding) {
        Some((cached, bytes)) => {
            details.push(format!(
                "data: {} {split} images stay in memory once decoded, about {} MB (data.cache)",
                cached.len(),
                bytes.div_ceil(1_000_000)
            ));
            cached
        }
        None => source,
    };
    let config = LoaderConfig {
        batch_size: recipe.batch_size,
        workers: recipe.workers(),
        prefetch: recipe.data.prefetch,
        seed: recipe.seed,
        shuffle: train,
        sampling: if train { recipe.sampling } else { Sampling::Once },
        drop_last: train,
        on_bad_image: OnBadImage::Skip,
        part: group.part(recipe.batch_size),
    };
    let loader = Loader::new(source, transform, config).with_decoding(decoding);
    let ahead = format!("{} batches ahead on {} threads", recipe.data.prefetch, recipe.workers());
    details.push(format!("data: {split} has {ahead}, at most {} MB", loader.memory().div_ceil(1_000_000)));
    loader
}

/// Returns a warning if a sample of the images contains gray images of more than 8 bits.
fn wide_gray_among(source: &dyn Source) -> Option<String> {
    const PROBES: usize = 64;
    let probes = PROBES.min(source.len());
    let wide: Vec<usize> = (0..probes)
        .map(|probe| probe * source.len() / probes)
        .filter(|&index| match source.get(index).map(|sample| sample.image) {
            Ok(StoredImage::Encoded(bytes)) => is_wide_gray(&bytes),
            _ => false,
        })
        .collect();
    let first = *wide.first()?;
    Some(format!("warning: {}", wide_gray_warning(wide.len(), probes, &source.name(first))))
}

/// Returns a line about the images that do not fill a last batch, if there are any. If they are
/// many and the run has not `begun`, the line suggests a better batch size.
fn incomplete_batch_note(images: usize, batch_size: usize, begun: bool) -> Option<String> {
    /// Images are many if they are at least this fraction of all images: one in ten.
    const MANY: usize = 10;
    let left_out = images % batch_size;
    if left_out == 0 {
        return None;
    }
    let line = format!(
        "{left_out} of {images} images are left out of each epoch, different ones each time (incomplete last batch of \
         {batch_size})"
    );
    let better = (batch_size / 2 + 1..batch_size).rev().min_by_key(|size| images % size);
    match better.filter(|size| images % size < left_out) {
        _ if left_out * MANY < images => Some(line),
        Some(size) if !begun => Some(format!("note: {line}; --set batch_size={size} leaves out {}", images % size)),
        _ => Some(format!("note: {line}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_an_incomplete_batch_are_reported() {
        assert_eq!(incomplete_batch_note(16, 8, false), None);
        let line = incomplete_batch_note(15, 8, false).unwrap();
        assert_eq!(
            line,
            "note: 7 of 15 images are left out of each epoch, different ones each time (incomplete last batch of 8); \
             --set batch_size=5 leaves out 0"
        );
        // A batch size cannot change once a run has begun.
        assert!(!incomplete_batch_note(15, 8, true).unwrap().contains("--set"));
        let few = incomplete_batch_note(1001, 10, false).unwrap();
        assert!(few.starts_with("1 of 1001 images") && !few.contains("--set"), "{few}");
    }
}
