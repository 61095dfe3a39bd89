//! Training, evaluation and prediction for MBConv image classifiers on [Burn](https://burn.dev).
//!
//! Read the modules in this order:
//!
//! 1. [`recipe`]: everything a run depends on, checked before any work;
//! 2. [`data`]: from a path to batches of pixels; [`batch`]: from those to the device, [`precision`]: of what is computed there;
//! 3. [`engine`]: the training loop, with its [`loss`], [`metrics`], [`optimizer`], [`schedule`], [`ema`], [`freeze`],
//!    [`checkpoint`] and [`run_folder`]; an [`objective`] says what it minimises, and [`observe`]rs are told what
//!    happens: a [`report`], [`tensorboard`]; [`compare`] sets runs side by side, [`find_lr`] tries learning rates;
//! 4. [`model_file`]: one file that holds a model and says how to use it;
//! 5. [`evaluate`], [`predict`], [`finetune`] and [`average`]: what to do with one; [`onnx`] and [`burnpack`]: for other
//!    programs;
//! 6. [`curate`]: what is in a data set, what is wrong with it, and other forms of it;
//! 7. [`scale`]: families of networks from one, by formula, by budget, by search;
//! 8. [`device`]: where to do it, [`group`]: on how many, [`mod@bench`]: how fast.
#![deny(missing_docs)]

pub mod average;
pub mod batch;
pub mod bench;
pub mod burnpack;
pub mod checkpoint;
pub mod compare;
pub mod curate;
pub mod data;
pub mod device;
pub mod ema;
pub mod engine;
pub mod evaluate;
pub mod files;
pub mod find_lr;
pub mod finetune;
mod fingerprint;
pub mod freeze;
pub mod group;
pub mod import;
pub mod loss;
pub mod memory;
pub mod metrics;
mod mix;
pub mod model_file;
pub mod objective;
pub mod observe;
pub mod onnx;
pub mod optimizer;
pub mod precision;
pub mod predict;
pub mod recipe;
pub mod report;
pub mod run_folder;
mod running;
pub mod scale;
pub mod schedule;
pub mod shell;
mod stepper;
pub mod tensorboard;
pub mod text;

pub use engine::{Event, Outcome, Run, train};
pub use group::Group;
pub use model_file::{Model, ModelCard};
pub use recipe::Recipe;
