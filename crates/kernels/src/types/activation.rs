//! Activation functions.

use burn::tensor::{Tensor, activation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The upper bound of [`Activation::Relu6`].
pub const RELU6_MAX: f64 = 6.0;

/// A function applied to every element, after a normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Nothing: the linear bottleneck.
    Identity,
    /// `max(x, 0)`. The gradient is 0 at the kink, as in PyTorch.
    Relu,
    /// `min(max(x, 0), 6)`. The gradient is 0 at both kinks, as in PyTorch.
    Relu6,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
}

impl Activation {
    /// Applies the function to every element, in plain tensor operations.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Identity => x,
            Self::Relu => activation::relu(x),
            // Burn's clamp lets the gradient through at the kinks; filled elements do not.
            Self::Relu6 => {
                let below = x.clone().lower_equal_elem(0.0);
                let above = x.clone().greater_equal_elem(RELU6_MAX);
                x.mask_fill(below, 0.0).mask_fill(above, RELU6_MAX)
            }
            Self::Silu => activation::silu(x),
        }
    }
}
