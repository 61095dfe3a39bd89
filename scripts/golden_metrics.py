#!/usr/bin/env python3
"""Writes crates/train/tests/fixtures/metrics.json: metrics of scikit-learn for random logits.

    python scripts/golden_metrics.py

Rows repeat, so that scores are tied. Class 4 has no images but is predicted; class 5 neither.
Requires numpy, scikit-learn and torch.
"""
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn import metrics

OUT = Path(__file__).resolve().parent.parent / "crates" / "train" / "tests" / "fixtures" / "metrics.json"
N, C, BINS = 200, 6, 15


def data():
    random = np.random.default_rng(0)
    rows = random.normal(0, 2, (60, C)).round(2).astype(np.float32)
    rows[:, 4] -= 1
    rows[:, 5] -= 9
    logits = rows[random.integers(0, len(rows), N)]
    noisy = logits[:, :4] + random.normal(0, 2.5, (N, 4))
    return logits, noisy.argmax(1)


def expected_calibration_error(probabilities, labels):
    """Guo et al. 2017."""
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    error = 0.0
    for low, high in zip(edges, edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return error


def temperature(logits, labels):
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    logits, labels = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    optimizer = torch.optim.LBFGS([log_t], max_iter=200, tolerance_grad=1e-14, tolerance_change=1e-16)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(logits / log_t.exp(), labels)
        value.backward()
        return value

    for _ in range(20):
        value = optimizer.step(loss)
    return dict(temperature=log_t.exp().item(), loss=value.item())


def main():
    logits, labels = data()
    probabilities = torch.tensor(logits, dtype=torch.float64).softmax(1).numpy()
    chosen = probabilities.argmax(1)
    assert set(labels) == {0, 1, 2, 3} and set(chosen) == {0, 1, 2, 3, 4}
    one_hot = np.eye(C)[labels]
    with warnings.catch_warnings():
        # Warns of the class that is predicted but has no images.
        warnings.simplefilter("ignore")
        balanced = metrics.balanced_accuracy_score(labels, chosen)
    per_class = metrics.precision_recall_fscore_support(labels, chosen, labels=range(C), zero_division=0)
    average = {
        name: metrics.precision_recall_fscore_support(labels, chosen, average=name, zero_division=0)
        for name in ["macro", "weighted"]
    }
    present = sorted(set(labels))
    auroc = [metrics.roc_auc_score(labels == c, probabilities[:, c]) if c in present else None for c in range(C)]
    precision = [
        metrics.average_precision_score(labels == c, probabilities[:, c]) if c in present else None for c in range(C)
    ]
    fixture = dict(
        logits=[[float(f"{value:.2f}") for value in row] for row in logits],
        labels=labels.tolist(),
        top_k={k: metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(C)) for k in [1, 2, 3]},
        loss=metrics.log_loss(labels, probabilities, labels=range(C)),
        precision=per_class[0].tolist(), recall=per_class[1].tolist(), f1=per_class[2].tolist(),
        images=per_class[3].tolist(),
        macro_precision=average["macro"][0], macro_recall=average["macro"][1], macro_f1=average["macro"][2],
        weighted_f1=average["weighted"][2], balanced_accuracy=balanced,
        auroc=auroc, average_precision=precision,
        macro_auroc=float(np.mean([auroc[c] for c in present])),
        macro_average_precision=float(np.mean([precision[c] for c in present])),
        ece=expected_calibration_error(probabilities, labels),
        brier=float(((probabilities - one_hot) ** 2).sum(1).mean()),
        confusion_matrix=metrics.confusion_matrix(labels, chosen, labels=range(C)).tolist(),
        fitted=temperature(logits, labels),
    )
    OUT.write_text(json.dumps(fixture) + "\n")
    print({key: value for key, value in fixture.items() if key not in ["logits", "labels"]})


main()
