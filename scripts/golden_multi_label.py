#!/usr/bin/env python3
"""Writes crates/train/tests/fixtures/multi_label.json: multi-label metrics of scikit-learn.

    python scripts/golden_multi_label.py

Rows repeat, so that probabilities are tied. Class 4 has no images, class 3 has all of them.
Requires numpy, scikit-learn and torch.
"""
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn import metrics

OUT = Path(__file__).resolve().parent.parent / "crates" / "train" / "tests" / "fixtures" / "multi_label.json"
N, C, SMOOTHING = 150, 5, 0.1
THRESHOLDS = [0.5, 0.3, 0.62, 0.05, 0.9]


def data():
    random = np.random.default_rng(1)
    rows = random.normal(-0.5, 2, (50, C)).round(2).astype(np.float32)
    logits = rows[random.integers(0, len(rows), N)]
    truths = logits + random.normal(0, 2, (N, C)) > 0.5
    truths[:, 3], truths[:, 4] = True, False
    return logits, truths


def best_f1(truths, probabilities):
    """The highest F1 of any threshold, for each class with images."""
    best = []
    for c in range(C):
        precision, recall, _ = metrics.precision_recall_curve(truths[:, c], probabilities[:, c])
        with np.errstate(invalid="ignore"):
            f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
        best.append(float(f1.max()) if truths[:, c].any() else 0.0)
    return best


def temperature(logits, truths):
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=200, tolerance_grad=1e-14, tolerance_change=1e-16)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits / log_t.exp(), truths)
        value.backward()
        return value

    for _ in range(20):
        value = optimizer.step(loss)
    return dict(temperature=log_t.exp().item(), loss=value.item())


def main():
    warnings.simplefilter("ignore")
    logits, truths = data()
    x, y = torch.tensor(logits, dtype=torch.float64), torch.tensor(truths, dtype=torch.float64)
    # Rounded to f32 as in mbconv, so that equal logits have equal probabilities.
    probabilities = x.sigmoid().numpy().astype(np.float32)
    chosen = probabilities >= np.array(THRESHOLDS, dtype=np.float32)
    average = {
        name: metrics.precision_recall_fscore_support(truths, chosen, average=name, zero_division=0)
        for name in ["micro", "macro"]
    }
    per_class = metrics.precision_recall_fscore_support(truths, chosen, average=None, zero_division=0)
    precision = [
        metrics.average_precision_score(truths[:, c], probabilities[:, c]) if truths[:, c].any() else None
        for c in range(C)
    ]
    auroc = [
        metrics.roc_auc_score(truths[:, c], probabilities[:, c]) if len(set(truths[:, c])) == 2 else None
        for c in range(C)
    ]
    mean = lambda values: float(np.mean([value for value in values if value is not None]))
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    fixture = dict(
        logits=[[float(f"{value:.2f}") for value in row] for row in logits],
        labels=[np.flatnonzero(row).tolist() for row in truths],
        thresholds=THRESHOLDS,
        map=mean(precision), macro_auroc=mean(auroc), loss=bce(x, y).item(),
        exact_match=metrics.accuracy_score(truths, chosen),
        average_precision=precision, auroc=auroc,
        precision=per_class[0].tolist(), recall=per_class[1].tolist(), f1=per_class[2].tolist(),
        images=per_class[3].tolist(),
        best_f1=best_f1(truths, probabilities),
        smoothing=SMOOTHING, smoothed_loss=bce(x, y * (1 - SMOOTHING) + SMOOTHING / 2).item(),
        fitted=temperature(x, y),
    )
    for name, values in average.items():
        fixture |= {f"{name}_precision": values[0], f"{name}_recall": values[1], f"{name}_f1": values[2]}
    OUT.write_text(json.dumps(fixture) + "\n")
    print({key: value for key, value in fixture.items() if key not in ["logits", "labels"]})


main()
