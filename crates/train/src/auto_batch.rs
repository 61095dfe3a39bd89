//! `batch_size = "auto"`: the largest batch whose training fits in memory.

use burn::tensor::Device;
use mbconv_data::{DataError, DataSet, ImageSize};
use mbconv_nets::Summary;

use crate::config::{Recipe, RecipeError, RecipeFile};
use crate::device::{describe, is_host};
use crate::distributed::Group;
use crate::memory;

/// Fraction of the available memory that a batch may fill. The rest is for the data loader, the
/// validation and other programs.
const SHARE: f64 = 0.7;
/// Minimum number of updates per epoch.
const UPDATES: usize = 8;
/// Largest batches, for data sets with fewer images than `LARGE_SET` and for others. Larger ones
/// rarely train faster on a CPU, and need another learning rate.
const MOST: [usize; 2] = [128, 256];
const LARGE_SET: usize = 100_000;

/// The reason why no batch size could be chosen, or a recipe cannot be trained.
#[derive(Debug, thiserror::Error)]
pub enum AutoBatchError {
    /// The recipe is invalid.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The data has no training images.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Accumulated batches.
    #[error("batch_size = \"auto\" cannot be combined with accumulate = {accumulate}")]
    Accumulated {
        /// Batches per update.
        accumulate: usize,
    },
    /// Several processes, whose machines may have different memory.
    #[error("batch_size = \"auto\" needs a single process, but there are {processes}")]
    Processes {
        /// Number of processes.
        processes: usize,
    },
    /// There is no estimate of training memory on the device.
    #[error("batch_size = \"auto\" needs the CPU: the training memory on {device} cannot be estimated")]
    Device {
        /// Name of the device.
        device: String,
    },
    /// The available memory is unknown.
    #[error("batch_size = \"auto\" needs the available memory, which this operating system does not report")]
    Unknown,
    /// Not even two images fit.
    #[error(
        "not even {images} images of {size:#} pixels can be trained in {available:.1} GB of available memory: \
         they need about {needed:.1} GB"
    )]
    NothingFits {
        /// Number of images of the smallest batch.
        images: usize,
        /// Image size.
        size: ImageSize,
        /// Estimated memory in GB.
        needed: f64,
        /// Available memory in GB.
        available: f64,
    },
}

impl AutoBatchError {
    /// Returns a hint for fixing the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Recipe(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Accumulated { .. } => Some("set one of them: --set accumulate=1, or --batch-size 32".into()),
            Self::Processes { processes } => {
                Some(format!("set the images of all processes: --batch-size {}", 32 * processes))
            }
            Self::Device { .. } | Self::Unknown => Some("set a number: --batch-size 32".into()),
            Self::NothingFits { .. } => {
                Some("a smaller input.size or gradient_checkpointing = true need less memory".into())
            }
        }
    }
}

/// Returns the checked recipe. For `batch_size = "auto"`, the batch size is `stored`, that of the
/// run that is resumed, or else is chosen for the data and the available memory; then a line with
/// the reason is returned too.
///
/// # Errors
/// An invalid recipe, or see [`AutoBatchError`].
pub fn with_batch_size(
    file: RecipeFile,
    stored: Option<usize>,
    data: &DataSet,
    device: &Device,
    group: &Group,
) -> Result<(Recipe, Option<String>), AutoBatchError> {
    if !file.has_auto_batch() {
        return Ok((file.try_into()?, None));
    }
    if let Some(stored) = stored {
        return Ok((file.or_batch(stored).try_into()?, None));
    }
    if group.size() > 1 {
        return Err(AutoBatchError::Processes { processes: group.size() });
    }
    if !is_host(device) {
        return Err(AutoBatchError::Device { device: describe(device) });
    }
    let images = data.split("train")?.len();
    let (batch, line) = choose(&file, images, data.classes.len(), memory::available())?;
    Ok((file.or_batch(batch).try_into()?, Some(line)))
}

/// Returns the batch size for `images` training images and `available` bytes of memory, and a line
/// with the reason.
fn choose(
    file: &RecipeFile,
    images: usize,
    classes: usize,
    available: Option<u64>,
) -> Result<(usize, String), AutoBatchError> {
    if file.accumulate > 1 {
        return Err(AutoBatchError::Accumulated { accumulate: file.accumulate });
    }
    let recipe = Recipe::try_from(file.clone().or_batch(1))?;
    let available = available.ok_or(AutoBatchError::Unknown)?;
    let size = recipe.input.size;
    let summary = Summary::new(&recipe.architecture(classes)?, size.sides()).map_err(RecipeError::from)?;
    let needed = |batch: usize| memory::training_bytes(&recipe, &summary, batch);
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;

    let by_set = MOST[usize::from(images >= LARGE_SET)];
    let by_updates = (images / UPDATES).max(2).min(images.max(1));
    let most = by_set.min(by_updates);
    let fits = |batch: &usize| needed(*batch) as f64 <= SHARE * available as f64;
    let powers = || (0..usize::BITS).map(|power| 1usize << power).take_while(|batch| *batch <= most);
    let least = most.min(2);
    let Some(batch) = powers().take_while(fits).last().filter(|batch| *batch >= least) else {
        let (needed, available) = (gigabytes(needed(least)), gigabytes(available));
        return Err(AutoBatchError::NothingFits { images: least, size, needed, available });
    };
    let next = 2 * batch;
    let reason = if next <= most {
        format!("{next} would need {:.2} GB, above {:.0} % of it", gigabytes(needed(next)), 100.0 * SHARE)
    } else if by_updates < by_set {
        format!("more would leave fewer than {UPDATES} updates per epoch of {images} images")
    } else {
        format!("the limit for {images} training images")
    };
    let line = format!(
        "batch size {batch} (auto): training needs about {:.2} GB of {:.2} GB available memory; {reason}",
        gigabytes(needed(batch)),
        gigabytes(available)
    );
    Ok((batch, line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::default_recipe;

    fn recipe(settings: &[&str]) -> RecipeFile {
        let own = ["batch_size=auto", "model.name=mobilenet_v2", "input.size=224", "optimizer.name=sgd"];
        let settings: Vec<String> = own.iter().chain(settings).map(|setting| setting.to_string()).collect();
        default_recipe().with(&settings).unwrap()
    }

    #[test]
    fn batch_is_the_largest_power_of_two_within_the_limits() {
        let choose =
            |images, gigabytes: u64| choose(&recipe(&["accumulate=1"]), images, 1000, Some(gigabytes * 1_000_000_000));
        for (images, gigabytes, batch, words) in [
            (5_000, 1000, 128, "the limit for 5000 training images"),
            (200_000, 1000, 256, "the limit for 200000"),
            (243, 1000, 16, "fewer than 8 updates per epoch of 243 images"),
            (3, 1000, 2, "fewer than 8 updates"),
            (1, 1000, 1, "fewer than 8 updates"),
            // 4.1 GB are estimated for a batch of 64.
            (5_000, 6, 64, "128 would need"),
            (5_000, 5, 32, "64 would need 4."),
        ] {
            let (chosen, line) = choose(images, gigabytes).unwrap();
            assert!(chosen == batch && line.contains(words), "{images}, {gigabytes} GB: {line}");
        }
        let error = choose(5_000, 0).unwrap_err();
        assert!(error.to_string().contains("not even 2 images of 224×224"), "{error}");
        assert!(error.hint().unwrap().contains("input.size"));
    }

    #[test]
    fn settings_without_an_estimate_are_refused() {
        let error = choose(&recipe(&["accumulate=4"]), 100, 2, Some(1 << 40)).unwrap_err();
        assert!(error.to_string().contains("accumulate = 4") && error.hint().is_some(), "{error}");
        assert!(matches!(choose(&recipe(&["accumulate=1"]), 100, 2, None), Err(AutoBatchError::Unknown)));
    }
}
