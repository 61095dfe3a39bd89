//! Arguments of the commands that convert models: `export`, `import`, `fetch`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mbconv_nets::weights::Precision;

use super::values::positive;

#[derive(Args)]
pub struct Export {
    /// Model file, run folder (its best model), weights of another library, or published weights by
    /// name
    pub model: PathBuf,
    /// File to write; with --layout timm or hf also a folder to publish, if OUT has no extension of
    /// a file or exists
    pub out: PathBuf,
    /// File format [default: by OUT's extension: .safetensors, .onnx, .bpk or .burnpack]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Library whose key layout a safetensors file has [default: torchvision]
    #[arg(long, value_enum)]
    pub layout: Option<Layout>,
    /// Precision of the weights; ONNX has no bf16
    #[arg(long, value_enum, default_value_t = Dtype::F32, help_heading = "Output")]
    pub dtype: Dtype,
    /// ONNX: output probabilities (`probabilities`) instead of logits
    #[arg(long)]
    pub with_softmax: bool,
    /// ONNX: take RGB bytes, [batch, H, W, 3] (input `image`), and normalize them in the model
    #[arg(long)]
    pub with_preprocessing: bool,
}

#[derive(Args)]
pub struct Import {
    /// A .pth or .safetensors file, a folder that save_pretrained wrote, or published weights by
    /// name
    pub file: PathBuf,
    /// Model file to write
    pub out: PathBuf,
    /// Architecture, if it cannot be detected from the weights; timm's names are accepted
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// Prefix of the network's keys, such as backbone., if the file contains several networks
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Number of image channels; the stem is adapted if it differs from the file's (for 1, gray, by
    /// summing its weights)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub input_channels: Option<usize>,
    /// Text file with one class name per line; another number than the model's replaces the
    /// classifier
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    /// Preprocessing [default: the source's]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(mbconv_train::import::PRESETS))]
    pub preprocess: Option<String>,
}

#[derive(Args)]
pub struct Fetch {
    /// Weights: torchvision/…, timm/…, lukemelas/…, d-li14/…, hf:owner/name, https://… (see `mbconv
    /// list --pretrained`), or an architecture for its default weights
    pub weights: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Safetensors,
    Onnx,
    Burnpack,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Layout {
    Torchvision,
    Timm,
    /// Hugging Face transformers
    Hf,
}

impl From<Layout> for mbconv_nets::Layout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Torchvision => Self::Torchvision,
            Layout::Timm => Self::Timm,
            Layout::Hf => Self::HuggingFace,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}
