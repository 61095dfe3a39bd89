//! Import of published weights: converts a file of torchvision, timm,
//! lukemelas/EfficientNet-PyTorch, Hugging Face transformers or d-li14/mobilenetv2.pytorch to a
//! [`Model`](crate::Model) with the conventions of its source.
//!
//! [`load_weights`] accepts any file or folder with weights, including mbconv's own:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use burn::tensor::Device;
//! use mbconv_interop::import::{ImportOptions, load_weights};
//!
//! # fn main() -> Result<(), mbconv_interop::import::ImportError> {
//! let loaded = load_weights(
//!     Path::new("mobilenet_v2-7ebf99e0.pth"),
//!     &ImportOptions::default(),
//!     &Device::default(),
//! )?;
//! println!("{}", loaded.origin);
//! let (model, note) = loaded.model.with_classes(vec!["cat".into(), "dog".into()])?;
//! assert_eq!(model.network.architecture().num_classes, 2);
//! println!("{}", note.unwrap_or_default());
//! # Ok(())
//! # }
//! ```

mod checkpoint;
mod error;
pub(crate) mod foreign;
mod hints;
mod keys;
mod load;
mod origin;
mod pickle;
mod presets;
pub(crate) mod signature;
mod state;

pub use error::ImportError;
pub use keys::NotFound;
pub use load::{ImportOptions, Loaded, from_bytes, load_weights};
pub use presets::{PRESETS, preprocess};
