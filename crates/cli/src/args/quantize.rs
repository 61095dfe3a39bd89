//! Arguments of `quantize`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mbconv_train::quantize::RangeMethod;

use super::inference::{LabelledImages, LoaderArgs};
use super::json::JsonArgs;
use super::values::positive;

#[derive(Args)]
pub struct Quantize {
    /// Model file, run folder (its best model), weights of another library, or published weights by
    /// name
    pub model: PathBuf,
    #[command(flatten)]
    pub data: LabelledImages,
    /// Number of calibration images, from the training split if there is one
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = positive)]
    pub images: usize,
    /// Choice of the ranges of feature maps: least mean squared error, all but 0.01 % of the values
    /// on each side, or all values [default: those of quantization-aware training, otherwise mse]
    #[arg(long, value_enum)]
    pub range: Option<Range>,
    /// Bits of the weights: 7 for ONNX Runtime and OpenVINO on processors without VNNI, whose
    /// 16-bit sums would overflow
    #[arg(long, value_name = "BITS", default_value_t = 8, value_parser = clap::value_parser!(u8).range(7..=8))]
    pub weight_bits: u8,
    /// Layers whose weights stay in single precision, such as stem,blocks.0.depthwise
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    pub keep: Vec<String>,
    /// Skip the equalization of channels between layers
    #[arg(long)]
    pub no_equalization: bool,
    /// Skip the correction of biases
    #[arg(long)]
    pub no_bias_correction: bool,
    /// Model file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub json: JsonArgs,
    /// Number of CPU threads, at most four per core [default: one per core]
    #[arg(long, value_parser = positive)]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub loader: LoaderArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Range {
    Mse,
    Percentile,
    Minmax,
}

impl From<Range> for RangeMethod {
    fn from(range: Range) -> Self {
        match range {
            Range::Mse => Self::Mse,
            Range::Percentile => Self::Percentile,
            Range::Minmax => Self::MinMax,
        }
    }
}
