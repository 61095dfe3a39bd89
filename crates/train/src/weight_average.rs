//! Averaging of models, which often improves generalization (Izmailov et al. 2018).

use std::collections::HashMap;
use std::path::PathBuf;

use burn::tensor::{Device, TensorData};
use mbconv_nets::weights::{load_state_dict, state_dict};

use mbconv_interop::import::{ImportError, ImportOptions, load_weights};
use mbconv_interop::model_file::{Model, ModelError, MultiLabel};

/// Errors of averaging models.
#[derive(Debug, thiserror::Error)]
pub enum AverageError {
    /// A model could not be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Weights from another library could not be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// No models were given.
    #[error("there are no models to average")]
    None,
    /// Two models have different architectures, classes or preprocessing.
    #[error("{first} and {other} differ in their {what}, so they cannot be averaged")]
    Differ {
        /// Path of the first model.
        first: String,
        /// Path of the other model.
        other: String,
        /// Name of the property that differs.
        what: &'static str,
    },
}

/// Averages the weights and running statistics of models with equal weights. The result has the
/// model card of the first model, without results and temperature.
///
/// # Errors
/// Returns an error if a model cannot be read or differs from the first in architecture, classes or
/// preprocessing.
pub fn average(models: &[PathBuf], device: &Device) -> Result<Model, AverageError> {
    let (first, others) = models.split_first().ok_or(AverageError::None)?;
    let open = |path: &PathBuf| load_weights(path, &ImportOptions::default(), device).map(|loaded| loaded.model);
    let mut model = open(first)?;
    // Double precision makes the result nearly independent of the order of the models.
    let values = |model: &Model| -> Vec<(String, Vec<usize>, Vec<f64>)> {
        let tensors = state_dict(&model.network).into_iter();
        tensors.map(|(info, data)| (info.key, info.shape, data.iter::<f64>().collect())).collect()
    };
    let mut sums = values(&model);
    for path in others {
        let other = open(path)?;
        let (a, b) = (&model.card, &other.card);
        let checks = [
            ("architectures", a.architecture == b.architecture),
            ("classes", a.classes == b.classes),
            ("preprocessing", a.preprocess == b.preprocess),
        ];
        if let Some((what, _)) = checks.into_iter().find(|(_, same)| !same) {
            let [first, other] = [first, path].map(|path| path.display().to_string());
            return Err(AverageError::Differ { first, other, what });
        }
        for ((_, _, sum), (_, _, more)) in sums.iter_mut().zip(values(&other)) {
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
    }
    let count = models.len() as f64;
    let state: HashMap<String, TensorData> = sums
        .into_iter()
        .map(|(key, shape, sum)| {
            let mean: Vec<f32> = sum.into_iter().map(|sum| (sum / count) as f32).collect();
            (key, TensorData::new(mean, shape))
        })
        .collect();
    model.network = load_state_dict(model.network, state)
        .map_err(|source| ModelError::Weights { path: first.display().to_string(), source })?;
    (model.card.results, model.card.temperature) = (None, None);
    model.card.multi_label = model.card.multi_label.map(|_| MultiLabel::default());
    Ok(model)
}
