//! Published weights by name: fetched over HTTP, resumed, checked against their published hash, and cached where other
//! tools look.
//!
//! Read the modules in this order:
//!
//! 1. [`pretrained`]: the weights that are known, with their published accuracy;
//! 2. [`spec`]: what a name means: a table's row, a Hugging Face repository, a URL or a file;
//! 3. [`cache`]: where files are kept, by the environment variables of huggingface_hub and PyTorch;
//! 4. [`resolve`](mod@resolve): from a name to a file on this machine;
//! 5. [`fetch`]: one file over HTTP, whole or not at all; [`error`]: why not, and where to put it by hand.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! let hub = mbconv_hub::Hub::from_env()?;
//! let file = hub.resolve("torchvision/mobilenet_v2", &mut |_| ControlFlow::Continue(()))?.path;
//! # Ok::<(), mbconv_hub::HubError>(())
//! ```
#![deny(missing_docs)]

pub mod cache;
pub mod error;
pub mod fetch;
pub mod pretrained;
pub mod resolve;
pub mod spec;

pub use cache::Cache;
pub use error::HubError;
pub use fetch::Progress;
pub use pretrained::{PRETRAINED, Pretrained};
pub use resolve::{Found, Hub};
pub use spec::Spec;
