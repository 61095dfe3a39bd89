#!/usr/bin/env python3
"""Reads a run's event files with TensorBoard and compares them with its metrics.csv.

    pip install tensorboard
    python scripts/check_tensorboard.py RUN
"""
import csv
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run = Path(sys.argv[1])
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    for tag, column in [("val/top1", "val_top1"), ("val/loss", "val_loss"), ("epoch/train_loss", "train_loss")]:
        scalars = events.Scalars(tag)
        assert len(scalars) == len(rows), (tag, len(scalars), len(rows))
        for scalar, row in zip(scalars, rows):
            assert abs(scalar.value - float(row[column])) < 1e-5 * max(1, scalar.value), (tag, scalar, row)
    steps = [scalar.step for scalar in events.Scalars("train/loss")]
    assert steps == sorted(set(steps)), "steps repeat"
    text = events.Tensors("recipe/text_summary" if "recipe/text_summary" in tags["tensors"] else "recipe")
    recipe = text[0].tensor_proto.string_val[0].decode()
    assert "epochs = " in recipe
    print(f"{len(rows)} epochs, {len(steps)} points of train/loss up to step {steps[-1]}; tags {tags['scalars']}")


main()
