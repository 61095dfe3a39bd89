#!/usr/bin/env python3
"""Writes datasets/digits/digits.png from scikit-learn's copy of the UCI optical digits. Needs scikit-learn and Pillow.

    python scripts/make_digits.py
"""
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
table = np.column_stack([digits.target, digits.data]).astype(np.uint8)
assert table.shape == (1797, 65) and table[:, 1:].max() == 16

out = Path(__file__).resolve().parent.parent / "datasets" / "digits" / "digits.png"
out.parent.mkdir(parents=True, exist_ok=True)
Image.fromarray(table).save(out, optimize=True)
print(out, out.stat().st_size, "bytes")
