#!/usr/bin/env python3
"""Checks `mbconv export` against the programs that open its files.

    python scripts/check_onnx.py MODEL.safetensors... --images FILES... --mbconv target/release/mbconv
    python scripts/check_onnx.py --random NAME... --images FILES... --mbconv target/release/mbconv

For every model it writes, with the program, ONNX files of f32 and f16, with and without preprocessing and softmax inside,
passes them through `onnx.checker` (with shape inference), runs them in ONNX Runtime on the images as the file's own
metadata say they are prepared, one by one and all in one batch, and compares with the logits of `mbconv predict`. It also
loads `export --layout timm` strictly into timm's network of the same name, where timm has it, and compares its logits.
The second form first makes a model of each architecture with random weights *and random running statistics*.

Prints one row a model for docs/parity.md. Status 1 where f32 logits differ by more than 1e-4 of the logits' scale.
Needs torch, torchvision, timm, onnx, onnxruntime, safetensors, Pillow and numpy.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import timm
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

LIMIT = 1e-4
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def run(program, *arguments):
    """Standard output of the program."""
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: `{' '.join(map(str, arguments))}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def prepare(path, preprocess):
    """Bytes [H, W, 3]: the shorter side resized, the centre cropped, as torchvision does both."""
    image = Image.open(path).convert("RGB")
    size, crop = preprocess["resize"], preprocess["crop"]
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if short != size:
        target = int(size * long / short)
        image = image.resize((size, target) if width <= height else (target, size), FILTERS[preprocess["interpolation"]])
    width, height = image.size
    canvas = Image.new("RGB", (max(width, crop), max(height, crop)))
    canvas.paste(image, ((canvas.width - width) // 2, (canvas.height - height) // 2))
    left, top = round((canvas.width - crop) / 2), round((canvas.height - crop) / 2)
    return np.asarray(canvas.crop((left, top, left + crop, top + crop)))


def normalise(pixels, preprocess):
    """f32 [N, 3, H, W] of bytes [N, H, W, 3]."""
    mean, std = (np.asarray(preprocess[key], np.float32) for key in ("mean", "std"))
    return ((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def randomise(model, images, preprocess):
    """Random weights, and running statistics that are near enough to the images' that no layer explodes, yet random too."""
    generator = torch.Generator().manual_seed(1)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim == 4:
                value.copy_(noise * (2 / value[0].numel()) ** 0.5)
            elif value.ndim == 2:
                # Logits of the size that trained networks have.
                value.copy_(2 * noise * value.shape[1] ** -0.5)
            else:
                value.copy_(0.2 * noise + (1 if name.endswith("weight") else 0))
        model.eval()
        for norm in norms:
            norm.train()
            norm.momentum = None
        model(torch.from_numpy(normalise(np.stack([prepare(image, preprocess) for image in images]), preprocess)))
        for norm in norms:
            uniform, normal = (f(norm.running_var.shape, generator=generator) for f in (torch.rand, torch.randn))
            norm.running_mean += 0.05 * norm.running_var.sqrt() * normal
            norm.running_var *= 0.9 + 0.2 * uniform
    return model.eval()


def fresh(name, classes, images, folder):
    """A model file with a card for the architecture, made without training."""
    resolution = {"b1": 240, "b2": 260, "b3": 300, "b4": 380, "b5": 456, "b6": 528, "b7": 600}
    size = resolution.get(name.removeprefix("efficientnet_"), 224)
    preprocess = {
        "resize": size * 8 // 7,
        "crop": size,
        "interpolation": "bicubic" if name.startswith("efficientnet") else "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    card = {
        "format": 1,
        "program": "check_onnx.py",
        "architecture": {"name": name, "classes": classes},
        "classes": [f"class {index}" for index in range(classes)],
        "preprocess": preprocess,
    }
    if name.startswith("mobilenet_v2"):
        width = float(name.removeprefix("mobilenet_v2").removeprefix("_") or 1)
        model = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=width)
    else:
        model = torchvision.models.get_model(name, num_classes=classes)
    out = folder / f"{name}.safetensors"
    save_file(randomise(model, images, preprocess).state_dict(), out, {"mbconv": json.dumps(card)})
    return out


def timm_name(name):
    """timm's name of a torchvision-style architecture, if it has one of that shape."""
    widths = {"mobilenet_v2_0.35": "mobilenetv2_035", "mobilenet_v2_0.5": "mobilenetv2_050",
              "mobilenet_v2_0.75": "mobilenetv2_075", "mobilenet_v2": "mobilenetv2_100", "mobilenet_v2_1.4": "mobilenetv2_140"}
    return widths.get(name, name if name.startswith("efficientnet_b") else None)


def check_timm(program, path, card, pixels, expected, folder):
    """Largest difference of timm's logits, or None where timm has no such network."""
    name = timm_name(card["architecture"]["name"])
    if name is None or card["architecture"].get("strides", "imagenet") != "imagenet":
        return None
    out = folder / "timm.safetensors"
    run(program, "export", path, out, "--layout", "timm")
    # From B5 on the weights follow torchvision, which has the original's epsilon there.
    number = name.removeprefix("efficientnet_b")
    epsilon = 1e-3 if number in "567" else 1e-5
    model = timm.create_model(name, num_classes=card["architecture"]["classes"], bn_eps=epsilon).eval()
    model.load_state_dict(load_file(out), strict=True)
    with torch.inference_mode():
        rows = [model(torch.from_numpy(normalise(image[None], card["preprocess"]))) for image in pixels]
    return float(np.abs(torch.cat(rows).numpy() - expected).max())


def check(program, path, images, folder):
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["mbconv"])
    rows = json.loads(run(program, "predict", path, *images, "--logits", "--json"))
    expected = np.asarray([row["logits"] for row in rows], np.float32)
    pixels = np.stack([prepare(image, card["preprocess"]) for image in images])
    inputs = normalise(pixels, card["preprocess"])
    scale = float(np.abs(expected).max())

    worst = {}
    for label, dtype, options, name, feed, output in [
        ("f32", "f32", [], "input", inputs, "logits"),
        ("f32, preprocessing", "f32", ["--with-preprocessing"], "image", pixels, "logits"),
        ("f32, softmax", "f32", ["--with-softmax"], "input", inputs, "probabilities"),
        ("f16", "f16", [], "input", inputs, "logits"),
    ]:
        out = folder / "model.onnx"
        run(program, "export", path, out, "--dtype", dtype, *options)
        onnx.checker.check_model(str(out), full_check=True)
        model = onnx.load(str(out))
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(metadata["class_names"]) == card["classes"]
        assert json.loads(metadata["preprocess"]) == card["preprocess"]
        runtime = session(str(out))
        assert [value.name for value in runtime.get_inputs()] == [name]
        assert [value.name for value in runtime.get_outputs()] == [output]
        together = runtime.run(None, {name: feed})[0]
        single = np.concatenate([runtime.run(None, {name: row[None]})[0] for row in feed])
        target = softmax(expected) if output == "probabilities" else expected
        worst[label] = max(float(np.abs(found - target).max()) for found in (together, single))
        if dtype == "f32":
            assert (together.argmax(1) == expected.argmax(1)).all(), f"{label}: another class"
    worst["timm"] = check_timm(program, path, card, pixels, expected, folder)
    return card["architecture"]["name"], scale, worst


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="model files of mbconv")
    parser.add_argument("--random", nargs="+", default=[], metavar="NAME", help="architectures to make models of")
    parser.add_argument("--classes", type=int, default=1000, help="classes of those")
    parser.add_argument("--images", nargs="+", required=True, metavar="FILE", help="PNG images")
    parser.add_argument("--mbconv", required=True, metavar="PROGRAM", help="path of the program")
    options = parser.parse_args()
    torch.set_num_threads(2)

    print("| architecture | largest logit | ONNX f32 | with preprocessing | softmax (probabilities) | ONNX f16 | timm, strict |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    agree = True
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        models = [Path(model) for model in options.models]
        for subject in [*models, *options.random]:
            path = subject if isinstance(subject, Path) else fresh(subject, options.classes, options.images, folder)
            name, scale, worst = check(options.mbconv, path, options.images, folder)
            cells = [f"{value:.1e}" if value is not None else "–" for value in worst.values()]
            print(f"| `{name}` | {scale:.2f} | {' | '.join(cells)} |", flush=True)
            for label in ("f32", "f32, preprocessing", "f32, softmax", "timm"):
                agree &= worst[label] is None or worst[label] <= LIMIT * max(scale, 1)
    sys.exit(not agree)


if __name__ == "__main__":
    main()
