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

use crate::args::{Arguments, Export, Format, Layout};
use crate::failure::Failure;

pub fn run(args: Export) -> Result<(), Failure> {
    let format = args.format.unwrap_or_else(|| format_of(&args.out));
    refuse_strangers(&args, format);
    let Export { model, out, layout, dtype, with_softmax, with_preprocessing, .. } = args;
    if out.is_dir() {
        let example = out.join(match format {
            Format::Safetensors => "model.safetensors",
            Format::Onnx => "model.onnx",
            Format::Burnpack => "model.bpk",
        });
        return Err(Failure::new(
            format!("{} is a folder", out.display()),
            format!("name the file to write, such as {}", quoted_path(example)),
        ));
    }
    let Model { network, card, .. } = Model::open(&model, &device::parse("cpu")?)?;
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

/// The format that a file's name asks for.
fn format_of(out: &Path) -> Format {
    match out.extension().and_then(|extension| extension.to_str()) {
        Some("onnx") => Format::Onnx,
        Some("bpk" | "burnpack") => Format::Burnpack,
        _ => Format::Safetensors,
    }
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
