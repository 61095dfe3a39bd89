//! Heatmaps of the parts of an image that speak for a class: Grad-CAM and LayerCAM.

mod colors;
mod heatmap;
mod overlay;

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor};
use mbconv_data::{Batch, Preprocess, RgbPixels};
use mbconv_kernels::global_average;
use mbconv_nets::Network;
use mbconv_nets::weights::{WeightsError, load_state_dict, state_dict};
use rayon::prelude::*;

pub use heatmap::Heatmap;
pub use overlay::{Captioned, LETTERS, overlay, sheet};

use crate::metrics::argmax;
use crate::normalize::images;
use crate::predict::{Unread, read_file};

/// Weighting of a feature map's channels by the gradient of a class's logit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Each channel by its mean gradient (Selvaraju et al. 2017,
    /// <https://arxiv.org/abs/1610.02391>).
    #[default]
    GradCam,
    /// Each position by its positive gradient (Jiang et al. 2021,
    /// <https://doi.org/10.1109/TIP.2021.3089943>). Finer than Grad-CAM in early stages.
    LayerCam,
}

/// The reason why a network cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The network has no stage of this number.
    #[error("the network has no stage {stage}: its stages are 1 to {stages}")]
    NoStage {
        /// The requested stage.
        stage: usize,
        /// Number of stages.
        stages: usize,
    },
    /// The weights cannot be copied.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Computes heatmaps from a feature map of a network.
pub struct Explainer {
    /// On a device with autodiff, with frozen layers.
    network: Network,
    /// Number of blocks up to the feature map; `None` for the last feature map before pooling.
    blocks: Option<usize>,
    method: Method,
}

/// The result for an image.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Logits of all classes.
    pub logits: Vec<f32>,
    /// The explained class.
    pub class: usize,
    /// The heatmap of the cropped image.
    pub heatmap: Heatmap,
}

impl Explainer {
    /// Copies `network` to its device with autodiff. The feature map is the output of `stage`,
    /// counted from 1, or by default the last one before pooling.
    ///
    /// # Errors
    /// The network does not have this stage.
    pub fn new(network: &Network, method: Method, stage: Option<usize>) -> Result<Self, ExplainError> {
        let mut architecture = network.architecture().clone();
        let blocks = match stage {
            None => None,
            Some(stage) => {
                let stages = architecture.blocks.last().map_or(0, |block| block.stage + 1);
                if !(1..=stages).contains(&stage) {
                    return Err(ExplainError::NoStage { stage, stages });
                }
                Some(architecture.blocks.iter().filter(|block| block.stage < stage).count())
            }
        };
        // Stochastic depth would be active on a device with autodiff.
        architecture.blocks.iter_mut().for_each(|block| block.drop_path = 0.0);
        let device = network.stem.weight.device().autodiff();
        let state = state_dict(network).into_iter().map(|(info, data)| (info.key, data)).collect();
        let network = load_state_dict(architecture.init(&device), state)?.freeze();
        Ok(Self { network, blocks, method })
    }

    /// Explains normalized images `[N, H, W, C]` on the network's device without autodiff: why
    /// `class`, or by default the predicted class.
    ///
    /// The heatmap is the ReLU of the weighted sum over channels, divided by its largest value.
    pub fn explain(&self, images: Tensor<4>, class: Option<usize>) -> Vec<Explanation> {
        let (before, after) = self.network.blocks.split_at(self.blocks.unwrap_or(self.network.blocks.len()));
        let mut map = before.iter().fold(self.network.stem.forward(Tensor::from_inner(images)), |x, b| b.forward(x));
        if self.blocks.is_none() {
            map = self.network.head.forward(map);
        }
        let map = map.detach().require_grad();
        let last = match self.blocks {
            None => map.clone(),
            Some(_) => self.network.head.forward(after.iter().fold(map.clone(), |x, block| block.forward(x))),
        };
        let logits = self.network.classifier.forward(global_average(last).flatten(1, 3));
        let [count, classes] = logits.dims();
        let values: Vec<f32> = logits.clone().into_data().iter().collect();
        let targets: Vec<usize> =
            values.chunks(classes).map(|logits| class.unwrap_or_else(|| argmax(logits))).collect();
        let indices: Vec<i64> = targets.iter().map(|&target| target as i64).collect();
        let indices = Tensor::<1, Int>::from_data(indices.as_slice(), &logits.device()).reshape([count, 1]);
        // Images do not influence each other in evaluation, so one pass gives all gradients.
        let gradients = logits.gather(1, indices).sum().backward();
        let gradient = map.grad(&gradients);
        let map = map.inner();
        let gradient = gradient.unwrap_or_else(|| map.zeros_like());
        let weights = match self.method {
            Method::GradCam => gradient.mean_dim(1).mean_dim(2),
            Method::LayerCam => relu(gradient),
        };
        let [_, height, width, _] = map.dims();
        let sums: Vec<f32> = relu((map * weights).sum_dim(3)).into_data().iter().collect();
        let results = values.chunks(classes).zip(targets).zip(sums.chunks(height * width));
        results
            .map(|((logits, class), sums)| Explanation {
                logits: logits.to_vec(),
                class,
                heatmap: Heatmap::normalized(width, sums.to_vec()),
            })
            .collect()
    }
}

/// An image file with its explanation.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The file.
    pub path: PathBuf,
    /// The whole image.
    pub image: RgbPixels,
    /// The explanation of the part that the preprocessing crops.
    pub explanation: Explanation,
}

/// Explains image files together, in their order. Holds all of them in memory. Each that cannot be
/// read gives an error result. `device` is the device of the network without autodiff.
pub fn explain_files(
    explainer: &Explainer,
    preprocess: &Preprocess,
    files: &[PathBuf],
    class: Option<usize>,
    device: &Device,
) -> Vec<Result<Explained, Unread>> {
    let read = |path: &PathBuf| read(path, preprocess);
    let read: Vec<Result<(RgbPixels, RgbPixels), Unread>> = files.par_iter().map(read).collect();
    let crops: Vec<&RgbPixels> = read.iter().flatten().map(|(_, crop)| crop).collect();
    let explanations = match crops.first() {
        None => Vec::new(),
        Some(&&RgbPixels { width, height, .. }) => {
            let mut batch = Batch {
                images: crops.iter().flat_map(|crop| &crop.data).copied().collect(),
                labels: vec![0; crops.len()],
                height,
                width,
                indices: Vec::new(),
                plans: Vec::new(),
            };
            explainer.explain(images(&mut batch, preprocess, device), class)
        }
    };
    let mut explanations = explanations.into_iter();
    let results = files.iter().zip(read).map(|(path, read)| {
        let (image, _) = read?;
        let explanation = explanations.next().ok_or_else(|| Unread::new(path, "the network gave no result"))?;
        Ok(Explained { path: path.clone(), image, explanation })
    });
    results.collect()
}

/// Reads an image, whole and preprocessed.
fn read(path: &Path, preprocess: &Preprocess) -> Result<(RgbPixels, RgbPixels), Unread> {
    read_file(path, preprocess, |image| (image.clone(), preprocess.apply(image)))
}
