//! Trains with given batches and initial weights and prints the losses as JSON, for
//! `scripts/train_parity.py`:
//! `cargo run --release --example follow RECIPE.toml START.safetensors BATCHES.safetensors [double
//! | bf16]`.
//!
//! With `double`, computes in f64, with the reference implementation of the kernels by Burn's
//! operations. With `bf16`, feature maps are in bf16, as with `precision = "bf16"` in a recipe.
//!
//! `BATCHES` contains normalized `images`, f32 `[steps, N, 3, H, W]`, and `labels`, i64
//! `[steps, N]`.

use std::error::Error;
use std::path::Path;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Int, IntDType, Tensor, TensorData};
use mbconv_nets::{Network, weights};
use mbconv_train::config::{Recipe, RecipeFile};
use mbconv_train::ema;
use mbconv_train::loss::cross_entropy;
use mbconv_train::optimizer::with_stable_ids;
use safetensors::SafeTensors;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (recipe, start, batches, maps) = match arguments.as_slice() {
        [recipe, start, batches] => (recipe, start, batches, FloatDType::F32),
        [recipe, start, batches, precision] if precision == "double" => (recipe, start, batches, FloatDType::F64),
        [recipe, start, batches, precision] if precision == "bf16" => (recipe, start, batches, FloatDType::BF16),
        _ => return Err("RECIPE START BATCHES [double | bf16]".into()),
    };
    let recipe = Recipe::try_from(RecipeFile::read(Path::new(recipe), &[])?)?;
    let mut device = Device::flex();
    if maps == FloatDType::F64 {
        device.configure((FloatDType::F64, IntDType::I64))?;
    }
    let device = device.autodiff();
    let bytes = std::fs::read(batches)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let (images, labels) = (file.tensor("images")?, file.tensor("labels")?);
    let pixels: Vec<f32> = images.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let labels: Vec<i64> = labels.data().as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b)).collect();
    let [steps, n, c, h, w] = images.shape() else { return Err("images must be [steps, N, 3, H, W]".into()) };
    let batch = |step: usize, device: &Device| {
        let data = pixels[step * n * c * h * w..][..n * c * h * w].to_vec();
        let images = Tensor::<4>::from_data(TensorData::new(data, [*n, *c, *h, *w]), device);
        (images, Tensor::<1, Int>::from_data(&labels[step * n..][..*n], device))
    };

    let architecture = recipe.architecture(10)?;
    let network = Network::new(&architecture, &device);
    let mut network = with_stable_ids(weights::from_safetensors(network, &std::fs::read(start)?)?);
    let mut optimizer = recipe.optimizer.init(&architecture);
    let mut average = network.valid();
    let mut losses = Vec::new();
    for step in 0..*steps {
        let (images, labels) = batch(step, &device);
        let loss = cross_entropy(network.forward(images.cast(maps)), labels, recipe.label_smoothing).mean();
        losses.push(loss.clone().into_scalar::<f64>());
        let mut gradients = GradientsParams::from_grads(loss.backward(), &network);
        recipe.optimizer.clipping().apply(&network, &mut gradients);
        let rate = recipe.optimizer.learning_rate * recipe.schedule.factor(step, steps / recipe.epochs, recipe.epochs);
        network = optimizer.step(rate, network, gradients);
        if let Some(config) = &recipe.ema {
            average = ema::update(average, &network, config.decay_at(step));
        }
    }
    let (images, labels) = batch(0, &device.clone().inner());
    let loss = cross_entropy(average.forward(images), labels, 0.0).mean().into_scalar::<f64>();
    println!("{}", serde_json::json!({ "losses": losses, "average_loss": loss }));
    Ok(())
}
