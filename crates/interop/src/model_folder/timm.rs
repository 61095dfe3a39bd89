//! timm's `config.json`.

use mbconv_image::{Interpolation, Preprocess, ResizeMode};
use mbconv_nets::{Layout, Padding};
use serde_json::{Map, Value, json};

use super::error::FolderError;
use super::library::{crop_fraction, per_channel};
use crate::model_file::ModelCard;

/// Returns the configuration.
///
/// # Errors
/// A network that timm does not have.
pub(super) fn config(card: &ModelCard) -> Result<Value, FolderError> {
    let inexpressible = |reason| Err(FolderError::Inexpressible { library: "timm", reason });
    let options = &card.architecture;
    let network = options.architecture()?;
    let Some(target) = Layout::Timm.target(options)? else {
        return inexpressible(format!("{} is none of its networks", options.title()));
    };
    if network.strides() != target.strides {
        let (ours, theirs) = (network.strides(), target.strides);
        return inexpressible(format!("the strides of its {} are {theirs:?}, not {ours:?}", target.name));
    }
    // Arguments of timm's function that creates the network.
    let mut arguments = Map::new();
    if network.layer_options.padding != target.padding {
        let padding = if network.layer_options.padding == Padding::Same { "same" } else { "" };
        arguments.insert("pad_type".into(), padding.into());
    }
    if network.layer_options.norm_epsilon != target.epsilon {
        arguments.insert("bn_eps".into(), network.layer_options.norm_epsilon.into());
    }
    if network.input_channels != 3 {
        arguments.insert("in_chans".into(), network.input_channels.into());
    }
    let Preprocess { resize, crop, channels, mean, std, .. } = card.preprocess;
    let mut config = json!({
        "architecture": target.name,
        "num_classes": network.num_classes,
        "num_features": network.head,
        "label_names": card.classes,
        "pretrained_cfg": {
            "custom_load": false,
            "input_size": [network.input_channels, crop.height, crop.width],
            "fixed_input_size": false,
            "interpolation": interpolation(card.preprocess.interpolation),
            "crop_pct": crop_fraction(resize, crop).unwrap_or(crop.height as f64 / resize.height as f64),
            "crop_mode": crop_mode(card.preprocess.resize_mode),
            "mean": per_channel(mean, channels),
            "std": per_channel(std, channels),
            "num_classes": network.num_classes,
            "first_conv": "conv_stem",
            "classifier": "classifier",
        },
    });
    if !arguments.is_empty() {
        config["model_args"] = arguments.into();
    }
    Ok(config)
}

fn crop_mode(mode: ResizeMode) -> &'static str {
    match mode {
        ResizeMode::Shorter => "center",
        ResizeMode::Squash => "squash",
        ResizeMode::Letterbox => "border",
    }
}

fn interpolation(kernel: Interpolation) -> &'static str {
    match kernel {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
        Interpolation::Nearest => "nearest",
    }
}
