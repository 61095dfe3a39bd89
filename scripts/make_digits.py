#!/usr/bin/env python3
"""Writes the embedded digits from scikit-learn's UCI digits, and one example per class.

    python scripts/make_digits.py

Requires scikit-learn and Pillow.
"""
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
table = np.column_stack([digits.target, digits.data]).astype(np.uint8)
assert table.shape == (1797, 65) and table[:, 1:].max() == 16

root = Path(__file__).resolve().parent.parent
out = root / "crates" / "data" / "src" / "formats" / "digits.png"
Image.fromarray(table).save(out, optimize=True)
print(out, out.stat().st_size, "bytes")

# One image per class from the default validation split (seed 0, a fifth of the images).
EXAMPLES = [20, 1, 12, 59, 24, 33, 65, 7, 38, 31]
examples = root / "datasets" / "digits" / "examples"
examples.mkdir(parents=True, exist_ok=True)
for row in EXAMPLES:
    pixels = (table[row, 1:].reshape(8, 8).astype(int) * 255 + 8) // 16
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(examples / f"{table[row, 0]}.png")
