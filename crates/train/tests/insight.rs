//! Compares heatmaps and features with those of torchvision's MobileNetV2, for the weights of
//! `models/cifar10_mobilenet_v2.safetensors`.
//!
//! `scripts/golden_insight.py` wrote `fixtures/insight.json`. A formula generates the images.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::data::dataset::Dataset;
use burn::tensor::Device;
use mbconv_data::{Batch, DataError, Loader, LoaderConfig, RgbPixels, Sample, Source, StoredImage, Transform};
use mbconv_train::Model;
use mbconv_train::embed::{Embedded, Embedder};
use mbconv_train::explain::{ExplainError, Explainer, Method};
use mbconv_train::normalize::images;
use serde::Deserialize;

const SIDE: usize = 32;
const IMAGES: usize = 2;

#[derive(Deserialize)]
struct Fixture {
    /// Every 16th feature of each image.
    features: Vec<Vec<f32>>,
    heatmaps: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    stage: Option<usize>,
    method: String,
    class: Option<usize>,
    /// The explained class of each image.
    classes: Vec<usize>,
    /// Side of the heatmaps; of those larger than 8, every fourth row and column is stored.
    side: usize,
    maps: Vec<Vec<f32>>,
}

fn fixture() -> Fixture {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/insight.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn model() -> Model {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/cifar10_mobilenet_v2.safetensors");
    Model::open(Path::new(path), &Device::default()).unwrap()
}

/// Returns bytes `[n, y, x, channel]`, as the script computes them.
fn batch() -> Batch {
    let byte = |index: usize| {
        let (channel, x) = (index % 3, index / 3 % SIDE);
        let (y, n) = (index / 3 / SIDE % SIDE, index / 3 / SIDE / SIDE);
        ((x * y * (n + 1) + 40 * channel * (x / 8) + 90 * n + 5 * y) % 256) as u8
    };
    Batch {
        images: (0..IMAGES * SIDE * SIDE * 3).map(byte).collect(),
        labels: vec![0; IMAGES],
        height: SIDE,
        width: SIDE,
        indices: Vec::new(),
        plans: Vec::new(),
    }
}

#[test]
fn heatmaps_agree_with_pytorch() {
    let model = model();
    let inputs = images(&mut batch(), &model.card.preprocess, &Device::default());
    for Case { stage, method, class, classes, side, maps } in fixture().heatmaps {
        let name = format!("stage {stage:?}, {method}, class {class:?}");
        let method = if method == "grad-cam" { Method::GradCam } else { Method::LayerCam };
        let explainer = Explainer::new(&model.network, method, stage).unwrap();
        let found = explainer.explain(inputs.clone(), class);
        assert_eq!(found.iter().map(|found| found.class).collect::<Vec<_>>(), classes, "{name}");
        for (found, expected) in found.iter().zip(maps) {
            let rows = found.heatmap.rows();
            assert_eq!(rows.len(), side, "{name}");
            let step = if side <= 8 { 1 } else { 4 };
            let values: Vec<f32> = rows.step_by(step).flat_map(|row| row.iter().step_by(step)).copied().collect();
            assert_eq!(values.len(), expected.len(), "{name}");
            for (found, expected) in values.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-4, "{name}: {found} instead of {expected}");
            }
        }
    }
}

#[test]
fn missing_stages_are_named() {
    let model = model();
    for stage in [0, 8] {
        let error = Explainer::new(&model.network, Method::GradCam, Some(stage)).err().unwrap();
        assert!(matches!(error, ExplainError::NoStage { stages: 7, .. }), "{error}");
        assert!(error.to_string().contains("stages are 1 to 7"), "{error}");
    }
}

/// The images of the batch as a source.
struct Images;

impl Dataset<Sample, DataError> for Images {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        const SIZE: usize = SIDE * SIDE * 3;
        let data = batch().images[index * SIZE..][..SIZE].to_vec();
        Ok(Sample { image: StoredImage::Pixels(RgbPixels { width: SIDE, height: SIDE, data }), label: 0 })
    }

    fn len(&self) -> usize {
        IMAGES
    }
}

impl Source for Images {
    fn name(&self, index: usize) -> String {
        index.to_string()
    }

    fn label(&self, _: usize) -> usize {
        0
    }
}

#[test]
fn features_agree_with_torchvision() {
    let model = model();
    let preprocess = &model.card.preprocess;
    let loader = Loader::new(Arc::new(Images), Transform::Eval(preprocess.clone()), LoaderConfig::default());
    let embedder = Embedder::new(&model.network);
    let mut found = Vec::new();
    let mut each = |images: &[Embedded]| {
        found.extend(images.iter().map(|image| image.features.to_vec()));
        ControlFlow::Continue(())
    };
    embedder.embed(&loader, preprocess, &Device::default(), &AtomicBool::new(false), &mut each).unwrap();
    let expected = fixture().features;
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), embedder.width());
        let found: Vec<f32> = found.iter().step_by(16).copied().collect();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
        }
    }
}
