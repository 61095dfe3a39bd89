//! Trains MobileNetV2 on the embedded digits, using only the library:
//! `cargo run --release --example digits`.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use mbconv_train::data::{self, OpenOptions};
use mbconv_train::history::LINE_WIDTH;
use mbconv_train::{Event, Group, Recipe, Run, train};

fn main() -> Result<(), Box<dyn Error>> {
    let recipe = Recipe::parse(include_str!("digits.toml"), &["epochs=4".into()])?;
    let data = data::open("digits", &OpenOptions::default())?;
    let out = std::env::temp_dir().join(format!("mbconv-digits-{}", std::process::id()));
    let run = Run {
        recipe: &recipe,
        data: &data,
        out: Path::new(&out),
        device: &Device::default(),
        group: &Group::alone(),
        resume: false,
        settings: None,
        lock: None,
        stop: &AtomicBool::new(false),
    };
    let outcome = train(run, &mut |event| {
        if let Event::Epoch(row) = event {
            println!("{}", row.line(data.classes.len(), LINE_WIDTH));
        }
    })?;
    println!("{outcome:?}; the model is {}", out.join("best.safetensors").display());
    Ok(())
}
