//! `mbconv export`

use mbconv_train::{Model, device};

use crate::args::{Export, Format, Layout};
use crate::failure::Failure;

pub fn run(args: Export) -> Result<(), Failure> {
    let Export { model, out, format: Format::Safetensors, layout: Layout::Torchvision, dtype } = args;
    let model = Model::open(&model, &device::parse("cpu")?)?;
    if out.is_dir() {
        let example = out.join("model.safetensors");
        return Err(Failure::new(
            format!("{} is a folder", out.display()),
            format!("name the file to write, such as {}", example.display()),
        ));
    }
    Model::save(&model.network, &model.card, dtype.into(), &out)?;
    let bytes = std::fs::metadata(&out)?.len();
    eprintln!("wrote {} ({:.3} MB)", out.display(), bytes as f64 / 1e6);
    Ok(())
}
