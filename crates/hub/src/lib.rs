//! Download of published weights by name, with resume, verification against the published hash,
//! and the cache folders of other tools.
//!
//! Read the modules in this order:
//!
//! 1. [`pretrained`]: known weights with their published accuracy;
//! 2. [`spec`]: names: a table row, a Hugging Face repository, a URL or a file;
//! 3. [`cache`]: cache folders, by the environment variables of huggingface_hub and PyTorch;
//! 4. [`resolve`](mod@resolve): from a name to a local file;
//! 5. [`fetch`]: atomic download over HTTP; [`error`]: errors, with instructions for manual
//!    downloads.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! let hub = mbconv_hub::Hub::from_env()?;
//! let file = hub.resolve("torchvision/mobilenet_v2", &mut |_| ControlFlow::Continue(()))?.path;
//! # Ok::<(), mbconv_hub::HubError>(())
//! ```

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod cache;
pub mod error;
pub mod fetch;
pub mod files;
pub mod pretrained;
pub mod resolve;
pub mod spec;

pub use cache::Cache;
pub use error::HubError;
pub use fetch::Progress;
pub use pretrained::{PRETRAINED, Pretrained, similar_weights};
pub use resolve::{Found, Hub};
pub use spec::Spec;
