//! `mbconv export`

use std::path::Path;

use clap::CommandFactory;
use clap::error::ErrorKind;
use mbconv_train::burnpack::to_burnpack;
use mbconv_train::files::write_atomically;
use mbconv_train::model_file::ModelError;
use mbconv_train::onnx::{OnnxOptions, to_onnx};
use mbconv_train::shell::quoted_path;
use mbconv_train::{Model, device};

use super::open_classifier;
use crate::args::{Arguments, Export, Format, Layout};
use crate::failure::Failure;

pub fn run(args: Export) -> Result<(), Failure> {
    if args.out.is_dir() {
        let example = args.out.join(match args.format {
            Some(Format::Safetensors) | None => "model.safetensors",
            Some(Format::Onnx) => "model.onnx",
            Some(Format::Burnpack) => "model.bpk",
        });
        return Err(Failure::new(
            format!("{} is a folder", args.out.display()),
            format!("name the file to write, such as {}", quoted_path(example)),
        ));
    }
    let format = match args.format {
        Some(format) => format,
        None => format_of(&args.out)?,
    };
    refuse_strangers(&args, format);
    let Export { model, out, layout, dtype, with_softmax, with_preprocessing, .. } = args;
    let Model { network, card, .. } = open_classifier(&model, &device::parse("cpu")?)?;
    let precision = dtype.into();
    match format {
        Format::Safetensors => {
            let home: mbconv_nets::Layout = layout.unwrap_or(Layout::Torchvision).into();
            Model::save_in(&network, &card, home, precision, &out)?;
            // Who asks for a home's keys means to load the file there.
            let notes = if layout.is_some() { home.differences(&card.architecture)? } else { Vec::new() };
            notes.iter().for_each(|note| eprintln!("note: {note}"));
        }
        Format::Onnx => {
            let options = OnnxOptions { precision, preprocessing: with_preprocessing, softmax: with_softmax };
            write(&out, &to_onnx(&network, &card, options)?)?;
        }
        Format::Burnpack => write(&out, &to_burnpack(&network, &card, precision)?)?,
    }
    let bytes = std::fs::metadata(&out)?.len();
    eprintln!("wrote {} ({:.3} MB)", out.display(), bytes as f64 / 1e6);
    Ok(())
}

/// Extensions of the formats that can be written.
const EXTENSIONS: [(&str, Format); 4] = [
    ("safetensors", Format::Safetensors),
    ("onnx", Format::Onnx),
    ("bpk", Format::Burnpack),
    ("burnpack", Format::Burnpack),
];

/// Extensions of other formats, and how to get there.
const ELSEWHERE: [(&[&str], &str); 3] = [
    (
        &["pt", "pth", "bin", "ckpt", "pkl", "tar"],
        "PyTorch reads .safetensors files: safetensors.torch.load_file returns the state dict",
    ),
    (&["tflite", "h5", "keras", "pb", "mlmodel", "mlpackage"], "write .onnx, which converters to this format read"),
    (&["engine", "plan", "trt", "xml", "ort"], "write .onnx, from which this format is built"),
];

/// The format that a file's extension names.
fn format_of(out: &Path) -> Result<Format, Failure> {
    let extension = out.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    if let Some((_, format)) = EXTENSIONS.iter().find(|(known, _)| *known == extension) {
        return Ok(*format);
    }
    let expected = "expected .safetensors, .onnx, .bpk or .burnpack";
    let message = match extension.as_str() {
        "" => format!("{} has no extension that names a format: {expected}", out.display()),
        _ => format!("{}: files of type .{extension} cannot be written: {expected}", out.display()),
    };
    let way = ELSEWHERE.iter().find(|(known, _)| known.contains(&extension.as_str()));
    Err(Failure::new(message, way.map_or("use one of them, or choose with --format", |(_, way)| way).to_string()))
}

/// Ends the program, as clap does, where an option is of another format: nothing is passed over in silence.
fn refuse_strangers(args: &Export, format: Format) {
    for (given, option, home, name) in [
        (args.layout.is_some(), "--layout", Format::Safetensors, "safetensors"),
        (args.with_softmax, "--with-softmax", Format::Onnx, "onnx"),
        (args.with_preprocessing, "--with-preprocessing", Format::Onnx, "onnx"),
    ] {
        if given && format != home {
            let message = format!("{option} is for --format {name}");
            Arguments::command().error(ErrorKind::ArgumentConflict, message).exit();
        }
    }
}

fn write(out: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |source| ModelError::Write { path: out.display().to_string(), source };
    Ok(write_atomically(out, bytes).map_err(failed)?)
}
