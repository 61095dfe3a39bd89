#!/usr/bin/env python3
"""Writes the augmentation fixtures: Pillow's pixels, timm's and torchvision's magnitudes.

    python scripts/golden_augment.py FOLDER_OF_PHOTOGRAPHS

Uses the first photograph of the folder by name and writes to
crates/image/tests/fixtures/augment and crates/train/tests/fixtures. Requires numpy, Pillow, timm and torchvision.
"""
import json
import sys
from pathlib import Path

import numpy as np
import PIL
import timm
import torch
import torchvision
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from timm.data import auto_augment as aa
from timm.data.mixup import Mixup, FastCollateMixup, mixup_target  # noqa: F401
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

CRATES = Path(__file__).resolve().parent.parent / "crates"
OUT = CRATES / "image" / "tests" / "fixtures" / "augment"
FILL = (124, 116, 104)
FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}


def operations():
    """Returns tuples (name, argument, filter, function)."""
    rows = []
    for name, function in [
        ("ShearX", aa.shear_x),
        ("ShearY", aa.shear_y),
        ("TranslateX", aa.translate_x_abs),
        ("TranslateY", aa.translate_y_abs),
        ("Rotate", aa.rotate),
    ]:
        arguments = {"Shear": [0.3, -0.137, 0.99], "Trans": [7.0, -3.6, 100.0], "Rotat": [30.0, -13.7, 90.0, 180.0, 0.0]}
        for argument in arguments[name[:5]]:
            for filter, resample in FILTERS.items():
                rows.append((name, argument, filter, lambda i, f=function, a=argument, r=resample: f(i, a, fillcolor=FILL, resample=r)))
    for name, enhance in [
        ("Brightness", ImageEnhance.Brightness),
        ("Contrast", ImageEnhance.Contrast),
        ("Colour", ImageEnhance.Color),
        ("Sharpness", ImageEnhance.Sharpness),
    ]:
        for argument in [0.1, 0.55, 1.0, 1.37, 1.9]:
            rows.append((name, argument, "", lambda i, e=enhance, a=argument: e(i).enhance(a)))
    for argument in [0.1, -0.25, 0.5]:
        rows.append(("Hue", argument, "", lambda i, a=argument: F.adjust_hue(i, a)))
    for argument in [1, 4, 7, 8]:
        rows.append(("Posterize", argument, "", lambda i, a=argument: aa.posterize(i, a)))
    for argument in [0, 110, 127.5, 256]:
        rows.append(("Solarize", argument, "", lambda i, a=argument: ImageOps.solarize(i, a)))
    for argument in [0, 33, 110]:
        rows.append(("SolarizeAdd", argument, "", lambda i, a=argument: aa.solarize_add(i, a)))
    rows.append(("AutoContrast", 0, "", aa.auto_contrast))
    rows.append(("Equalize", 0, "", aa.equalize))
    rows.append(("Invert", 0, "", aa.invert))
    for argument in [0.1, 0.8, 2.0, 20.0]:
        rows.append(("Blur", argument, "", lambda i, a=argument: i.filter(ImageFilter.GaussianBlur(radius=a))))
    return rows


def images(photo):
    """Returns (name, image): low contrast, few colors, one row, one pixel."""
    small = photo.resize((45, 34), Image.LANCZOS)
    dull = small.point(lambda value: 40 + value // 2)
    few = small.point(lambda value: value // 64 * 64).crop((0, 0, 20, 20))
    return [("dull", dull), ("few", few), ("line", small.crop((0, 5, 45, 6))), ("dot", small.crop((7, 7, 8, 8)))]


def write_operations(photo):
    rows = operations()
    for name, image in images(photo):
        image.save(OUT / f"{name}.png", optimize=True)
        results = [np.asarray(function(image)) for *_, function in rows]
        Image.fromarray(np.vstack(results)).save(OUT / f"{name}_operations.png", optimize=True)
    table = [{"name": name, "argument": argument, "filter": filter} for name, argument, filter, _ in rows]
    (OUT / "operations.json").write_text(json.dumps(table, indent=0) + "\n")


class Always:
    """Replaces `random` so that no sign is flipped."""

    @staticmethod
    def random():
        return 0.25


def write_levels():
    """Writes the arguments for timm's magnitudes, without sign flips, and torchvision's bins."""
    aa.random = Always
    table = {"timm": {}, "torchvision": {}}
    for name in sorted(set(aa._RAND_TRANSFORMS + aa._RAND_INCREASING_TRANSFORMS + ["PosterizeOriginal", "Desaturate", "GaussianBlur"])):
        level = aa.LEVEL_TO_ARG[name]
        if level is not None:
            table["timm"][name] = [float(level(m, {})[0]) for m in [0, 1, 3.7, 9, 10, 12]]
    for space, policy in [("auto", v2.AutoAugment), ("rand", v2.RandAugment), ("wide", v2.TrivialAugmentWide)]:
        bins = 10 if space == "auto" else 31
        rows = {}
        for name, (magnitudes, _) in policy._AUGMENTATION_SPACE.items():
            values = magnitudes(bins, 45, 331)
            if values is not None:
                rows[name] = [float(value) for value in values]
        table["torchvision"][space] = rows
    (OUT / "levels.json").write_text(json.dumps(table, indent=0) + "\n")


def write_mixes():
    """Writes timm's mixed batches and targets with the mixing parameters."""
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (4, 3, 6, 5), dtype=np.uint8)
    labels = np.array([2, 0, 1, 2])
    cases = []
    for mode in ["batch", "pair", "elem"]:
        count = {"batch": 1, "pair": 2, "elem": 4}[mode]
        for cut in [False, True]:
            lam = rng.random(count).astype(np.float32)
            boxes = [[1, 4, 0, 3], [0, 6, 2, 4], [2, 3, 1, 5], [5, 6, 0, 1]][:count]
            mix = FastCollateMixup(mixup_alpha=1.0, cutmix_alpha=1.0, mode=mode, label_smoothing=0.1, num_classes=3)
            if mode == "batch":
                mix._params_per_batch = lambda: (float(lam[0]), cut)
            else:
                mix._params_per_elem = lambda n: (lam.copy(), np.full(n, cut))
            calls = iter(boxes)
            from timm.data import mixup as module

            def box(shape, lam, ratio_minmax=None, correct_lam=True, count=None):
                yl, yh, xl, xh = next(calls)
                return (yl, yh, xl, xh), 1.0 - (yh - yl) * (xh - xl) / float(shape[-2] * shape[-1])

            module.cutmix_bbox_and_lam = box
            pixels, targets = mix([(image.copy(), int(label)) for image, label in zip(batch, labels)])
            cases.append({
                "mode": mode,
                "cut": cut,
                "lam": [float(value) for value in lam],
                "boxes": boxes,
                "images": pixels.numpy().transpose(0, 2, 3, 1).reshape(-1).tolist(),
                "targets": [float(value) for value in targets.double().reshape(-1)],
            })
    fixture = {"images": batch.transpose(0, 2, 3, 1).reshape(-1).tolist(), "labels": labels.tolist(), "cases": cases}
    (CRATES / "train" / "tests" / "fixtures" / "mixes.json").write_text(json.dumps(fixture) + "\n")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    paths = sorted(p for p in Path(sys.argv[1]).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    OUT.mkdir(parents=True, exist_ok=True)
    write_operations(Image.open(paths[0]).convert("RGB"))
    write_levels()
    write_mixes()
    total = sum(p.stat().st_size for p in OUT.iterdir())
    versions = f"Pillow {PIL.__version__}, timm {timm.__version__}, torchvision {torchvision.__version__}, torch {torch.__version__}"
    print(f"{versions}: {total} bytes under {OUT}")


main()
