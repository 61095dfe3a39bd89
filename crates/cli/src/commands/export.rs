//! `mbconv export`

use std::path::Path;

use clap::CommandFactory;
use clap::error::ErrorKind;
use mbconv_nets::Network;
use mbconv_nets::quantization::quantized_layers;
use mbconv_train::burnpack::to_burnpack;
use mbconv_train::model_folder::{self, FolderError, Library};
use mbconv_train::onnx::{OnnxOptions, quantized_to_onnx, to_onnx};
use mbconv_train::quantized_model::{QuantizedModel, Weights};
use mbconv_train::{Model, ModelCard, device};

use crate::args::{Arguments, Export, Format, Layout};
use crate::error::CliError;
use crate::model_ref::{NEVER, is_quantized, locate, open_uncalibrated};
use crate::output::{check_is_file_name, print_written, write_file};

pub fn run(args: Export) -> Result<(), CliError> {
    if let Some(library) = folder_library(&args) {
        return write_folder(args, library);
    }
    let example = match args.format {
        Some(Format::Safetensors) | None => "model.safetensors",
        Some(Format::Onnx) => "model.onnx",
        Some(Format::Burnpack) => "model.bpk",
    };
    check_is_file_name(&args.out, example)?;
    let format = match args.format {
        Some(format) => format,
        None => format_of(&args.out)?,
    };
    check_options(&args, format);
    let Export { model, out, layout, dtype, with_softmax, with_preprocessing, .. } = args;
    let model = locate(&model, &NEVER)?;
    let onnx = OnnxOptions { precision: dtype.into(), preprocessing: with_preprocessing, softmax: with_softmax };
    if format == Format::Onnx && is_quantized(&model) {
        return write_quantized(&model, onnx, &out);
    }
    let Model { network, card, .. } = calibrated(&model)?;
    let precision = dtype.into();
    match format {
        Format::Safetensors => {
            let target: mbconv_nets::Layout = layout.unwrap_or(Layout::Torchvision).into();
            // An explicit layout means that the file is for that library.
            let notes = match layout {
                Some(Layout::Hf) => differences_to_transformers(&network, &card)?,
                Some(_) => target.differences(&card.architecture)?,
                None => Vec::new(),
            };
            Model::save_in(&network, &card, target, precision, &out)?;
            notes.iter().for_each(|note| eprintln!("note: {note}"));
        }
        Format::Onnx => write_file(&out, &to_onnx(&network, &card, onnx)?)?,
        Format::Burnpack => write_file(&out, &to_burnpack(&network, &card, precision)?)?,
    }
    print_written(&out)
}

/// Writes the ONNX file of an 8-bit model.
fn write_quantized(model: &Path, options: OnnxOptions, out: &Path) -> Result<(), CliError> {
    let model = QuantizedModel::open(model)?;
    note_temperature(&model.card);
    let QuantizedModel { card, stages, .. } = model.calibrated();
    write_file(out, &quantized_to_onnx(&stages, &card, options)?)?;
    let exceeds_7_bits = |weights: &Weights| matches!(weights, Weights::Int8 { weight, .. } if weight.iter().any(|value| value.unsigned_abs() > 64));
    if quantized_layers(&stages).iter().any(|(_, layer)| exceeds_7_bits(&layer.weights)) {
        eprintln!(
            "note: on x86 processors without VNNI, ONNX Runtime and OpenVINO overflow with 8-bit weights; for them, \
             use `mbconv quantize --weight-bits 7`"
        );
    }
    print_written(out)
}

/// Opens a model with its temperature included in the weights.
fn calibrated(model: &Path) -> Result<Model, CliError> {
    let model = open_uncalibrated(model, &device::parse("cpu")?, &NEVER)?;
    note_temperature(&model.card);
    Ok(model.calibrated())
}

fn note_temperature(card: &ModelCard) {
    if let Some(temperature) = card.temperature {
        eprintln!("note: logits are divided by the temperature {temperature:.4}, in the classifier's weights and bias");
    }
}

/// Returns the library if the output is a folder for it.
fn folder_library(args: &Export) -> Option<Library> {
    let library = match args.layout? {
        Layout::Timm => Library::Timm,
        Layout::Hf => Library::Transformers,
        Layout::Torchvision => return None,
    };
    let extension = args.out.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let extension = extension.to_ascii_lowercase();
    let is_file = EXTENSIONS.iter().any(|(known, _)| *known == extension)
        || OTHER_FORMATS.iter().any(|(known, _)| known.contains(&&*extension));
    (args.format.is_none() && (args.out.is_dir() || !is_file)).then_some(library)
}

/// Writes a folder that `library` opens.
fn write_folder(args: Export, library: Library) -> Result<(), CliError> {
    check_options(&args, Format::Safetensors);
    let Export { model, out, dtype, .. } = args;
    let Model { network, card, .. } = calibrated(&model)?;
    model_folder::write(&network, &card, library, dtype.into(), &out)?;
    if let Some(note) = library.preprocessing_note(&card.preprocess) {
        eprintln!("note: {note}");
    }
    eprintln!("wrote the folder {}; its README.md is a template of a model card", out.display());
    Ok(())
}

/// Returns how the network differs from that of transformers.
///
/// # Errors
/// A network whose layers have no keys there.
fn differences_to_transformers(network: &Network, card: &ModelCard) -> Result<Vec<String>, CliError> {
    match model_folder::configuration(Library::Transformers, card) {
        Ok(_) => Ok(Vec::new()),
        Err(error @ FolderError::Inexpressible { .. })
            if mbconv_nets::Layout::HuggingFace.holds(network.architecture()) =>
        {
            Ok(vec![error.to_string()])
        }
        Err(error) => Err(error.into()),
    }
}

/// Extensions of the supported formats.
const EXTENSIONS: [(&str, Format); 4] = [
    ("safetensors", Format::Safetensors),
    ("onnx", Format::Onnx),
    ("bpk", Format::Burnpack),
    ("burnpack", Format::Burnpack),
];

/// Extensions of other formats, with advice.
const OTHER_FORMATS: [(&[&str], &str); 3] = [
    (
        &["pt", "pth", "bin", "ckpt", "pkl", "tar"],
        "PyTorch reads .safetensors files: safetensors.torch.load_file returns the state dict",
    ),
    (&["tflite", "h5", "keras", "pb", "mlmodel", "mlpackage"], "write .onnx and convert that file to this format"),
    (&["engine", "plan", "trt", "xml", "ort"], "write .onnx and build this format from it"),
];

/// Returns the format of a file's extension.
fn format_of(out: &Path) -> Result<Format, CliError> {
    let extension = out.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    if let Some((_, format)) = EXTENSIONS.iter().find(|(known, _)| *known == extension) {
        return Ok(*format);
    }
    let expected = "expected .safetensors, .onnx, .bpk or .burnpack";
    let message = match extension.as_str() {
        "" => format!("{} has no extension: {expected}", out.display()),
        _ => format!("{}: unsupported file type .{extension}: {expected}", out.display()),
    };
    let advice = OTHER_FORMATS.iter().find(|(known, _)| known.contains(&extension.as_str()));
    Err(CliError::new(
        message,
        advice.map_or("use one of these extensions, or --format", |(_, advice)| advice).to_string(),
    ))
}

/// Exits with a usage error if an option belongs to another format.
fn check_options(args: &Export, format: Format) {
    for (given, option, of, name) in [
        (args.layout.is_some(), "--layout", Format::Safetensors, "safetensors"),
        (args.with_softmax, "--with-softmax", Format::Onnx, "onnx"),
        (args.with_preprocessing, "--with-preprocessing", Format::Onnx, "onnx"),
    ] {
        if given && format != of {
            let message = format!("{option} is for --format {name}");
            Arguments::command().error(ErrorKind::ArgumentConflict, message).exit();
        }
    }
}
