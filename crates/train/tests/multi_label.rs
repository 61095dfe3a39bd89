//! Multi-label metrics against scikit-learn's and PyTorch's, from `scripts/golden_multi_label.py`.

use burn::tensor::{Device, Int, Tensor};
use mbconv_train::config::{LossConfig, LossName};
use mbconv_train::loss::{Loss, Targets};
use mbconv_train::metrics::{MultiLabelScores, fit_sigmoid_temperature};
use mbconv_train::multi_label::evaluation;
use serde_json::Value;

const TOLERANCE: f64 = 1e-6;

struct Golden {
    values: Value,
    logits: Vec<Vec<f32>>,
    labels: Vec<Vec<usize>>,
}

fn golden() -> Golden {
    let values: Value = serde_json::from_str(include_str!("fixtures/multi_label.json")).unwrap();
    let logits = serde_json::from_value(values["logits"].clone()).unwrap();
    let labels = serde_json::from_value(values["labels"].clone()).unwrap();
    Golden { values, logits, labels }
}

fn scores(Golden { logits, labels, .. }: &Golden) -> MultiLabelScores {
    let mut scores = MultiLabelScores::new(logits[0].len());
    for (logits, labels) in logits.iter().zip(labels) {
        scores.add(logits, labels);
    }
    scores
}

/// Returns whether each image has each class.
fn truths(Golden { logits, labels, .. }: &Golden) -> Vec<bool> {
    let classes = logits[0].len();
    labels.iter().flat_map(|labels| (0..classes).map(|class| labels.contains(&class))).collect()
}

#[track_caller]
fn assert_close(found: &Value, expected: &Value, name: &str) {
    match (found.as_f64(), expected.as_f64()) {
        (Some(a), Some(b)) => assert!((a - b).abs() < TOLERANCE, "{name}: {a}, not {b}"),
        _ => assert_eq!(found, expected, "{name}"),
    }
}

#[test]
fn multi_label_evaluation_matches_scikit_learn() {
    let golden = golden();
    let scores = scores(&golden);
    let names: Vec<String> = (0..golden.logits[0].len()).map(|class| class.to_string()).collect();
    let thresholds: Vec<f32> = serde_json::from_value(golden.values["thresholds"].clone()).unwrap();
    let found = serde_json::to_value(evaluation(&scores, &names, &thresholds, Vec::new())).unwrap();
    for name in [
        "map",
        "macro_auroc",
        "loss",
        "micro_precision",
        "micro_recall",
        "micro_f1",
        "macro_precision",
        "macro_recall",
        "macro_f1",
        "exact_match",
    ] {
        assert_close(&found[name], &golden.values[name], name);
    }
    for name in ["precision", "recall", "f1", "images", "auroc", "average_precision"] {
        for (class, expected) in golden.values[name].as_array().unwrap().iter().enumerate() {
            assert_close(&found["classes"][class][name], expected, &format!("{name} of class {class}"));
        }
    }
}

#[test]
fn chosen_thresholds_reach_the_highest_f1() {
    let golden = golden();
    let scores = scores(&golden);
    let outcomes = scores.outcomes(&scores.best_thresholds());
    for (class, outcomes) in outcomes.iter().enumerate() {
        let expected = golden.values["best_f1"][class].as_f64().unwrap();
        assert!((outcomes.f1() - expected).abs() < TOLERANCE, "class {class}: {}, not {expected}", outcomes.f1());
    }
}

#[test]
fn sigmoid_temperature_matches_lbfgs() {
    let golden = golden();
    let fitted = fit_sigmoid_temperature(&golden.logits.concat(), &truths(&golden));
    let expected = &golden.values["fitted"];
    assert!((fitted.value - expected["temperature"].as_f64().unwrap()).abs() < 1e-4 * fitted.value, "{fitted:?}");
    assert!((fitted.loss - expected["loss"].as_f64().unwrap()).abs() < 1e-9 && !fitted.at_limit, "{fitted:?}");
}

#[test]
fn loss_of_smoothed_multi_hot_targets_matches_pytorch() {
    let golden = golden();
    let (device, size) = (Device::default(), [golden.logits.len(), golden.logits[0].len()]);
    let smoothing = golden.values["smoothing"].as_f64().unwrap() as f32;
    let shares: Vec<f32> =
        truths(&golden).into_iter().map(|truth| if truth { 1.0 - smoothing / 2.0 } else { smoothing / 2.0 }).collect();
    let tensor = |values: &[f32]| Tensor::<1>::from_floats(values, &device).reshape(size);
    let loss = Loss::new(&LossConfig { name: LossName::Bce, ..Default::default() }, 0.0, &vec![1; size[1]], &device);
    let targets = Targets { labels: Tensor::<1, Int>::zeros([size[0]], &device), shares: Some(tensor(&shares)) };
    let found = loss.unwrap().each(tensor(&golden.logits.concat()), &targets).mean().into_scalar::<f32>();
    assert!((f64::from(found) - golden.values["smoothed_loss"].as_f64().unwrap()).abs() < 1e-5, "{found}");
}
