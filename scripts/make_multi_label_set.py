#!/usr/bin/env python3
"""Writes a multi-label data set: mosaics of CIFAR-10 images and the table of their classes.

    python scripts/make_multi_label_set.py cifar-10-batches-bin mosaics

Each of the 1,000 mosaics has 96x96 pixels: nine cells, one to three of which show an image of
different classes. Requires numpy and Pillow.
"""
import pathlib
import sys

import numpy as np
from PIL import Image

NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()
SPLITS = {"train": ("data_batch_1.bin", 800), "val": ("test_batch.bin", 200)}


def main():
    source, out = map(pathlib.Path, sys.argv[1:])
    (out / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = ["path,label,split"]
    for split, (name, count) in SPLITS.items():
        records = np.frombuffer((source / name).read_bytes(), np.uint8).reshape(-1, 3073)
        labels, pixels = records[:, 0], records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for number in range(count):
            mosaic = np.full((96, 96, 3), 128, np.uint8)
            classes = random.choice(len(NAMES), random.integers(1, 4), replace=False)
            for cell, label in zip(random.choice(9, len(classes), replace=False), classes):
                image = pixels[random.choice(np.flatnonzero(labels == label))]
                top, left = 32 * (cell // 3), 32 * (cell % 3)
                mosaic[top:top + 32, left:left + 32] = image
            path = f"images/{split}_{number:03}.png"
            Image.fromarray(mosaic).save(out / path)
            rows.append(f"{path},{'|'.join(NAMES[label] for label in sorted(classes))},{split}")
    (out / "labels.csv").write_text("\n".join(rows) + "\n")


main()
