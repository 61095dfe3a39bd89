//! Compound scaling (Tan and Le 2019, section 3): a family of networks from one base.
//!
//! Depth grows by α^φ, width by β^φ and the image size by γ^φ. With α·β²·γ² ≈ 2,
//! multiply-accumulates grow by about 2^φ.
//!
//! 1. [`Coefficients`] and [`Base`]: from φ to a network and a recipe ([`config`](recipe_text));
//! 2. [`budget`]: from a cost limit to φ;
//! 3. [`grid`]: all coefficients that satisfy the constraint;
//! 4. [`search`]: training of candidates with a proxy recipe, and their ranking.

pub mod budget;
pub(crate) mod config;
mod formula;
pub mod search;

pub use config::{default_recipe, recipe_file, recipe_text, suggested_batch, training_bytes};
pub use formula::{Base, Coefficients, Dimension, Factors, SIDE_STEP, ScaleError, Scaled, grid};
