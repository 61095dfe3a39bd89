//! Classes of single images.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use burn::tensor::activation::softmax;
use mbconv_nets::Inference;
use serde::Serialize;

use crate::batch::images;
use crate::data::{Batch, DataError, Preprocess, RgbPixels, decode, list_images};
use crate::model_file::ModelCard;

/// Images that go through the network together.
const BATCH: usize = 32;

/// What the network says of one image.
#[derive(Clone, Debug, Serialize)]
pub struct Prediction {
    /// The image's file.
    pub path: String,
    /// The likeliest classes, best first.
    pub predictions: Vec<Candidate>,
    /// Raw outputs of every class, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

/// One class with its probability.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Name of the class.
    pub label: String,
    /// Index of the class.
    pub index: usize,
    /// Softmax probability.
    pub probability: f32,
}

/// The image files meant by `paths`: files as they are, folders searched through, in order of name.
///
/// # Errors
/// A path that does not exist, a folder without images.
pub fn image_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let images = list_images(path)?;
        if images.is_empty() {
            return Err(DataError::NoImagesIn { path: path.clone() });
        }
        files.extend(images);
    }
    Ok(files)
}

/// The `top_k` likeliest classes of each file, preprocessed as the model file says, by `network`, which is the model's.
///
/// # Errors
/// The first file that cannot be read or decoded; a network that takes no pictures.
pub fn predict(
    network: &Inference,
    card: &ModelCard,
    files: &[PathBuf],
    top_k: usize,
    with_logits: bool,
    device: &Device,
) -> Result<Vec<Prediction>, DataError> {
    card.preprocess.takes_pictures()?;
    let mut results = Vec::with_capacity(files.len());
    let preprocess = &card.preprocess;
    for chunk in files.chunks(BATCH) {
        let mut batch = Batch {
            images: Vec::new(),
            labels: vec![0; chunk.len()],
            height: preprocess.crop,
            width: preprocess.crop,
            indices: Vec::new(),
            plans: Vec::new(),
        };
        for file in chunk {
            batch.images.extend(preprocess.apply(read(file, preprocess)?).data);
        }
        let logits = network.forward_channels_last(images(&mut batch, preprocess, device));
        let probabilities: Vec<f32> = softmax(logits.clone(), 1).into_data().iter().collect();
        let logits: Vec<f32> = logits.into_data().iter().collect();
        let classes = card.classes.len();
        for ((file, probabilities), logits) in
            chunk.iter().zip(probabilities.chunks(classes)).zip(logits.chunks(classes))
        {
            let mut order: Vec<usize> = (0..classes).collect();
            order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
            let candidates = order.into_iter().take(top_k).map(|index| Candidate {
                label: card.classes[index].clone(),
                index,
                probability: probabilities[index],
            });
            results.push(Prediction {
                path: file.display().to_string(),
                predictions: candidates.collect(),
                logits: with_logits.then(|| logits.to_vec()),
            });
        }
    }
    Ok(results)
}

fn read(path: &Path, preprocess: &Preprocess) -> Result<RgbPixels, DataError> {
    let io = |source| DataError::Io { path: path.into(), source };
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        // A pipe may never end, nor a device.
        return Err(io(std::io::Error::other("it is not a regular file")));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    decode(&bytes, &preprocess.decoding())
        .map_err(|source| DataError::Image { name: path.display().to_string(), source })
}
