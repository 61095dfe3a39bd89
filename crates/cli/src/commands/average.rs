//! `mbconv average`

use mbconv_nets::weights::Precision;
use mbconv_train::{Model, device, weight_average};

use crate::args::Average;
use crate::error::CliError;
use crate::model_ref::{NEVER, locate};
use crate::output::check_extension;

pub fn run(args: Average) -> Result<(), CliError> {
    let (out, models) = args.paths.split_last().expect("clap asks for two paths at least");
    if out.is_dir() {
        return Err(CliError::new(
            format!("{} is a folder, but the last path is the file to write", out.display()),
            "usage: mbconv average MODEL… OUT.safetensors".to_string(),
        ));
    }
    check_extension(out, "a model file", &["safetensors"])?;
    let models: Vec<_> = models.iter().map(|model| locate(model, &NEVER)).collect::<Result<_, _>>()?;
    let mean = weight_average::average(&models, &device::parse("cpu")?)?;
    Model::save(&mean.network, &mean.card, Precision::F32, out)?;
    eprintln!("{}: average of {} models", out.display(), models.len());
    eprintln!("batch-norm statistics are averaged too; measure the result with `mbconv eval`");
    Ok(())
}
