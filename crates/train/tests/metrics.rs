//! Metrics against scikit-learn's, from `scripts/golden_metrics.py`.

use mbconv_train::evaluate::{Classified, Evaluation, Evaluator};
use mbconv_train::metrics::fit_temperature;
use serde_json::Value;

const TOLERANCE: f64 = 1e-6;

struct Golden {
    values: Value,
    logits: Vec<Vec<f32>>,
    labels: Vec<usize>,
}

fn golden() -> Golden {
    let values: Value = serde_json::from_str(include_str!("fixtures/metrics.json")).unwrap();
    let logits = serde_json::from_value(values["logits"].clone()).unwrap();
    let labels = serde_json::from_value(values["labels"].clone()).unwrap();
    Golden { values, logits, labels }
}

fn evaluation(Golden { logits, labels, .. }: &Golden) -> Evaluation {
    let names: Vec<String> = (0..logits[0].len()).map(|class| class.to_string()).collect();
    let mut evaluator = Evaluator::new(&names, labels.len(), &[1, 2, 3]);
    for (index, (logits, &label)) in logits.iter().zip(labels).enumerate() {
        evaluator.add(&Classified { index, label, logits });
    }
    evaluator.finish(Vec::new())
}

#[track_caller]
fn assert_close(found: &Value, expected: &Value, name: &str) {
    match (found.as_f64(), expected.as_f64()) {
        (Some(a), Some(b)) => assert!((a - b).abs() < TOLERANCE, "{name}: {a}, not {b}"),
        _ => assert_eq!(found, expected, "{name}"),
    }
}

#[test]
fn evaluation_matches_scikit_learn() {
    let golden = golden();
    let found = serde_json::to_value(evaluation(&golden)).unwrap();
    for name in [
        "loss",
        "macro_precision",
        "macro_recall",
        "macro_f1",
        "weighted_f1",
        "balanced_accuracy",
        "macro_auroc",
        "macro_average_precision",
        "ece",
        "brier",
        "confusion_matrix",
    ] {
        assert_close(&found[name], &golden.values[name], name);
    }
    for k in ["1", "2", "3"] {
        assert_close(&found["top_k"][k], &golden.values["top_k"][k], k);
    }
    assert_close(&found["top1"], &golden.values["top_k"]["1"], "top1");
    for name in ["precision", "recall", "f1", "images", "auroc", "average_precision"] {
        for (class, expected) in golden.values[name].as_array().unwrap().iter().enumerate() {
            assert_close(&found["classes"][class][name], expected, &format!("{name} of class {class}"));
        }
    }
}

#[test]
fn temperature_matches_lbfgs() {
    let golden = golden();
    let fitted = fit_temperature(&golden.logits.concat(), &golden.labels, golden.logits[0].len());
    let expected = &golden.values["fitted"];
    assert!((fitted.value - expected["temperature"].as_f64().unwrap()).abs() < 1e-4 * fitted.value, "{fitted:?}");
    assert!((fitted.loss - expected["loss"].as_f64().unwrap()).abs() < 1e-9 && !fitted.at_limit, "{fitted:?}");
}
