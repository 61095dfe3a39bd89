//! Hyperparameter search: random search, and successive halving (Jamieson and Talwalkar 2016).
//!
//! 1. [`Space`]: the keys to search and their distributions, from settings such as
//!    `optimizer.learning_rate=log(1e-4,1e-1)`;
//! 2. [`Study`]: the trials and their results, saved in the folder of the study;
//! 3. [`Tuner`]: trains the trials, and writes the results after each.

mod error;
mod results;
mod rungs;
mod space;
mod study;
mod tuner;

pub use error::TuneError;
pub use results::{BEST, CHART, CSV};
pub use rungs::Rung;
pub use space::{Dimension, Distribution, Space, SpaceError};
pub use study::{STUDY, Status, Study, Trial};
pub use tuner::{Progress, TRIALS, Tuner};
