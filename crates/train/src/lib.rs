//! Training, evaluation and prediction for MBConv image classifiers on [Burn](https://burn.dev).
//!
//! Read the modules in this order:
//!
//! 1. [`config`]: settings of a run, checked before it starts;
//! 2. [`data`] (`mbconv-data`): reading data sets into batches of pixels; [`normalize`]:
//!    normalization on the device; [`precision`]: of feature maps;
//! 3. [`engine`]: the training loop, with [`criterion`], [`loss`], [`metrics`], [`optimizer`],
//!    [`schedule`], [`ema`], [`freeze`], [`checkpoint`], [`run_dir`] and [`run_lock`];
//!    [`observe`]: events of a run, used by [`report`] and [`tensorboard`]; [`compare`]: comparison
//!    of runs; [`lr_finder`]: the learning-rate range test;
//!    [`auto_batch`]: the batch size that fits;
//! 4. [`model_file`]: a file with weights, architecture, classes and preprocessing;
//! 5. [`classifier`], [`evaluate`], [`multi_label`], [`predict`], [`explain`], [`embed`],
//!    [`finetune`], [`quantize`](mod@quantize) and [`weight_average`]: use of model files; [`onnx`]
//!    and [`burnpack`]: export;
//! 6. [`scale`]: scaling of networks by formula, by budget or by search; [`tune`]: search of
//!    hyperparameters;
//! 7. [`device`]: CPUs and GPUs; [`distributed`]: several processes; [`mod@bench`]: benchmarks.

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod auto_batch;
mod batch_metrics;
pub mod bench;
pub mod checkpoint;
pub mod classifier;
pub mod compare;
pub mod config;
pub mod criterion;
pub mod device;
mod device_augment;
pub mod distributed;
pub mod ema;
pub mod embed;
pub mod engine;
pub mod evaluate;
pub mod explain;
pub mod finetune;
mod fingerprint;
mod fnv;
pub mod freeze;
pub mod history;
pub mod loss;
pub mod lr_finder;
pub mod memory;
pub mod metrics;
mod mixup;
pub mod multi_label;
pub mod normalize;
pub mod observe;
pub mod optimizer;
mod params;
pub mod precision;
pub mod predict;
pub mod preview;
pub mod quantize;
mod recovery;
pub mod report;
pub mod run_dir;
pub mod run_lock;
mod running_metrics;
pub mod scale;
pub mod schedule;
pub mod tensorboard;
mod trial;
pub mod tune;
pub mod weight_average;

pub use mbconv_files::{shell, text};
pub use mbconv_interop::{burnpack, import, model_file, model_folder, onnx, pretrained, quantized_model};
pub use {mbconv_data as data, mbconv_files as files};

pub use config::Recipe;
pub use distributed::Group;
pub use engine::{Event, Outcome, Run, train};
pub use model_file::{Model, ModelCard};
