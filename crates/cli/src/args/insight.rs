//! Arguments of `explain` and `embed`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mbconv_train::explain;

use super::device::DeviceArgs;
use super::inference::LoaderArgs;
use super::json::JsonArgs;
use super::values::positive;

#[derive(Args)]
pub struct Explain {
    /// Model file, run folder (its best model), weights of another library, or published weights by
    /// name
    pub model: PathBuf,
    /// Image files, folders, quoted patterns such as 'photos/**/*.jpg', or - for paths from
    /// standard input
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// Class to explain, by name or index [default: the predicted class of each image]
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Stage whose output is used, from 1; early stages are finer, late ones know classes better
    /// [default: the last feature map before pooling]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub stage: Option<usize>,
    /// Weights of the feature map's channels: their mean gradient, or the positive gradient at each
    /// position
    #[arg(long, value_enum, default_value_t = Method::GradCam)]
    pub method: Method,
    /// PNG file to write, a contact sheet for several images; or a folder, for a file per image
    #[arg(long, value_name = "PATH", required_unless_present = "json")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Method {
    GradCam,
    LayerCam,
}

impl From<Method> for explain::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::GradCam => Self::GradCam,
            Method::LayerCam => Self::LayerCam,
        }
    }
}

#[derive(Args)]
pub struct Embed {
    /// Model file, run folder (its best model), weights of another library, or published weights by
    /// name
    pub model: PathBuf,
    /// Data set, or folder of images
    pub data: String,
    /// Split: train, val, test or all [default: all]
    #[arg(long)]
    pub split: Option<String>,
    /// File for the features: .npy, with the paths and labels of its rows in a .csv file of the
    /// same name, .csv or .parquet
    #[arg(long, value_name = "FILE", required_unless_present_any = ["nearest", "query"])]
    pub out: Option<PathBuf>,
    /// Print the K most similar images of each image, the closest pairs first
    #[arg(long, value_name = "K", value_parser = positive)]
    pub nearest: Option<usize>,
    /// Print the images that are most similar to these files or folders instead
    #[arg(long, value_name = "IMAGE", num_args = 1..)]
    pub query: Vec<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub loader: LoaderArgs,
}
