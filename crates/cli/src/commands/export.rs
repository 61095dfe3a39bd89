//! `mbconv export`

use std::path::Path;

use clap::CommandFactory;
use clap::error::ErrorKind;
use mbconv_train::burnpack::to_burnpack;
use mbconv_train::onnx::{OnnxOptions, to_onnx};
use mbconv_train::{Model, device};

use crate::args::{Arguments, Export, Format, Layout};
use crate::error::CliError;
use crate::model_ref::open_uncalibrated;
use crate::output::{check_is_file_name, print_written, write_file};

pub fn run(args: Export) -> Result<(), CliError> {
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
    let model = open_uncalibrated(&model, &device::parse("cpu")?)?;
    if let Some(temperature) = model.card.temperature {
        eprintln!("note: logits are divided by the temperature {temperature:.4}, in the classifier's weights and bias");
    }
    let Model { network, card, .. } = model.calibrated();
    let precision = dtype.into();
    match format {
        Format::Safetensors => {
            let target: mbconv_nets::Layout = layout.unwrap_or(Layout::Torchvision).into();
            Model::save_in(&network, &card, target, precision, &out)?;
            // An explicit layout means that the file is for that library.
            let notes = if layout.is_some() { target.differences(&card.architecture)? } else { Vec::new() };
            notes.iter().for_each(|note| eprintln!("note: {note}"));
        }
        Format::Onnx => {
            let options = OnnxOptions { precision, preprocessing: with_preprocessing, softmax: with_softmax };
            write_file(&out, &to_onnx(&network, &card, options)?)?;
        }
        Format::Burnpack => write_file(&out, &to_burnpack(&network, &card, precision)?)?,
    }
    print_written(&out)
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
