//! The parameters of a normalization.

use crate::types::activation::Activation;

/// Source of the mean and variance of a normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// The statistics of the input itself, so that gradients flow through them: training.
    Batch,
    /// Constants: evaluation, or a frozen batch-norm.
    Fixed,
}

/// The parameters of a normalization other than its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Added to the variance.
    pub epsilon: f64,
    /// Source of mean and variance.
    pub statistics: Statistics,
    /// The activation that follows.
    pub activation: Activation,
}
