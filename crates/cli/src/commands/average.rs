//! `mbconv average`

use mbconv_nets::weights::Precision;
use mbconv_train::{Model, device, weight_average};

use super::check_extension;
use crate::args::Average;
use crate::failure::Failure;

pub fn run(args: Average) -> Result<(), Failure> {
    let (out, models) = args.paths.split_last().expect("clap asks for two paths at least");
    if out.is_dir() {
        return Err(Failure::new(
            format!("{} is a folder, but the last path is the file to write", out.display()),
            "mbconv average MODEL… OUT.safetensors".to_string(),
        ));
    }
    check_extension(out, "a model file", &["safetensors"])?;
    let mean = weight_average::average(models, &device::parse("cpu")?)?;
    Model::save(&mean.network, &mean.card, Precision::F32, out)?;
    eprintln!("{}: the mean of {} models", out.display(), models.len());
    eprintln!("the batch-norms' statistics are means too; `mbconv eval` tells what it is worth");
    Ok(())
}
