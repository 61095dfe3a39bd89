//! One module a command.

pub mod average;
pub mod bench;
pub mod compare;
pub mod data;
pub mod devices;
pub mod draw;
pub mod eval;
pub mod export;
pub mod fetch;
pub mod find_lr;
pub mod finetune;
pub mod import;
pub mod info;
pub mod list;
pub mod predict;
pub mod scale;
pub mod train;

use std::io::Write;
use std::path::Path;

use mbconv_train::Model;
use mbconv_train::device::Device;
use mbconv_train::import::{ImportError, ImportOptions, load_weights};
use mbconv_train::metrics::shows_top5;
use mbconv_train::text::visible;

use crate::failure::Failure;

/// Opens a model file, a run's best model, or weights of another program as `mbconv import` reads
/// them, whose origin is printed.
pub fn open_model(path: &Path, device: &Device) -> Result<Model, Failure> {
    let opened = load_weights(path, &ImportOptions::default(), device);
    let loaded = opened.map_err(|error| match (&error, error.hint()) {
        // Only `import` and `finetune` take what would mend these.
        (ImportError::Ambiguous { .. } | ImportError::NoNetwork { .. }, Some(hint)) => {
            let import = format!("make a model of it, `mbconv import {} MODEL.safetensors`, with", path.display());
            Failure::new(error.to_string(), format!("{import} {hint}"))
        }
        _ => error.into(),
    })?;
    if !loaded.origin.is_empty() {
        eprintln!("{}", loaded.origin);
    }
    Ok(loaded.model)
}

/// Opens a model as [`open_model`] does, to classify with it.
///
/// # Errors
/// A model of a single class, whose softmax is 1 for every image.
fn open_classifier(path: &Path, device: &Device) -> Result<Model, Failure> {
    let model = open_model(path, device)?;
    if model.card.classes.len() < 2 {
        return Err(Failure::new(
            format!("the model {} has a single class: its probability is 1 for every image", path.display()),
            "train or fine-tune it on two classes or more".to_string(),
        ));
    }
    Ok(model)
}

/// Prints one JSON document on standard output.
fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print_text(&format!("{value:#}\n"))
}

/// Prints on standard output, control characters escaped; a reader that has gone away is no
/// failure.
fn print_text(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(visible(text).as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Refuses a file name whose extension is none of these: it would announce another content than the file gets. A name without
/// an extension announces nothing.
fn check_extension(path: &Path, what: &str, extensions: &[&str]) -> Result<(), Failure> {
    let Some(extension) = path.extension() else { return Ok(()) };
    if extensions.iter().any(|known| extension.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let listed: Vec<String> = extensions.iter().map(|known| format!(".{known}")).collect();
    Err(Failure::new(
        format!("{} is not named as {what}", path.display()),
        format!("give a name that ends in {}", listed.join(" or ")),
    ))
}

/// 1234567 → `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// 0.97531 → `97.53 %`.
fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// `top-1 97.53 %, top-5 99.12 %`, without top-5 where it is always 100 %.
fn accuracy(top1: f64, top5: f64, classes: usize) -> String {
    let top5 = if shows_top5(classes) { format!(", top-5 {}", percent(top5)) } else { String::new() };
    format!("top-1 {}{top5}", percent(top1))
}

/// 43210000 → `43.2 MB`.
fn bytes(number: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.into_iter().find(|(size, _)| number as f64 >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", number as f64 / size),
        None => format!("{number} bytes"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_have_units() {
        for (number, text) in [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (43_210_000, "43.2 MB")] {
            assert_eq!(super::bytes(number), text);
        }
    }

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (2_236_682, "2,236,682")] {
            assert_eq!(super::thousands(number), text);
        }
    }
}
