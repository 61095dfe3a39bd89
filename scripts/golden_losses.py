#!/usr/bin/env python3
"""Writes crates/train/tests/fixtures/loss: losses and gradients of PyTorch and timm.

    python scripts/golden_losses.py

Requires torch and timm.
"""
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.loss import BinaryCrossEntropy

OUT = Path(__file__).resolve().parent.parent / "crates" / "train" / "tests" / "fixtures" / "loss"

torch.manual_seed(0)
N, C = 5, 4
LOGITS = (3 * torch.randn(N, C)).round(decimals=3)
LABELS = torch.tensor([0, 3, 1, 1, 2])
SHARES = torch.softmax(torch.randn(N, C), 1).round(decimals=3)
SHARES[:, 0] += 1 - SHARES.sum(1)
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.25])
TEACHER = (2 * torch.randn(N, C)).round(decimals=3)


def smoothed(smoothing):
    return F.one_hot(LABELS, C) * (1 - smoothing) + smoothing / C


def focal(logits, shares, gamma, weight):
    """Focal loss of the softmax (Lin et al. 2017, equation 5), which PyTorch lacks."""
    log_p = F.log_softmax(logits, 1)
    return -(weight * shares * (1 - log_p.exp()) ** gamma * log_p).sum(1)


def main():
    cases = []

    def add(function, name, smoothing=0.0, dense=False, weighted=False, **extra):
        logits = LOGITS.clone().requires_grad_()
        losses = function(logits)
        losses.mean().backward()
        cases.append(
            dict(name=name, smoothing=smoothing, dense=dense, weighted=weighted, **extra)
            | dict(losses=losses.tolist(), gradient=logits.grad.reshape(-1).tolist())
        )

    for weighted in [False, True]:
        weight = WEIGHTS if weighted else None
        ones = WEIGHTS if weighted else torch.ones(C)
        for smoothing in [0.0, 0.1]:
            add(
                lambda x: F.cross_entropy(x, LABELS, weight=weight, label_smoothing=smoothing, reduction="none"),
                "cross_entropy", smoothing, weighted=weighted,
            )
            add(lambda x: focal(x, smoothed(smoothing), 1.5, ones), "focal", smoothing, weighted=weighted, gamma=1.5)
            for threshold in [None, 0.2]:
                bce = BinaryCrossEntropy(smoothing, threshold, weight=weight, reduction="none")
                add(lambda x: bce(x, LABELS).mean(1), "bce", smoothing, weighted=weighted, threshold=threshold)
        add(
            lambda x: F.cross_entropy(x, SHARES, weight=weight, reduction="none"),
            "cross_entropy", dense=True, weighted=weighted,
        )
        add(lambda x: focal(x, SHARES, 2.0, ones), "focal", dense=True, weighted=weighted, gamma=2.0)
        bce = BinaryCrossEntropy(0.0, 0.3, weight=weight, reduction="none")
        add(lambda x: bce(x, SHARES).sum(1), "bce", dense=True, weighted=weighted, threshold=0.3, sum=True)
    for t in [1.0, 3.0]:
        teacher = F.log_softmax(TEACHER / t, 1)
        add(
            lambda x: t * t * F.kl_div(F.log_softmax(x / t, 1), teacher, log_target=True, reduction="none").sum(1),
            "distillation", temperature=t,
        )
    OUT.mkdir(parents=True, exist_ok=True)
    fixture = dict(
        logits=LOGITS.tolist(), labels=LABELS.tolist(), shares=SHARES.tolist(), weights=WEIGHTS.tolist(),
        teacher=TEACHER.tolist(), cases=cases,
    )
    (OUT / "losses.json").write_text(json.dumps(fixture, indent=None) + "\n")
    print(f"torch {torch.__version__}: {len(cases)} cases")


main()
