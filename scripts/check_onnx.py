#!/usr/bin/env python3
"""Checks the files written by `mbconv export` with ONNX Runtime and timm.

    python scripts/check_onnx.py MODEL.safetensors... --images FILES... --mbconv PROGRAM
    python scripts/check_onnx.py --random NAME... --images FILES... --mbconv PROGRAM

Exports each model to ONNX in f32 and f16, in f32 also with preprocessing or softmax inside. Passes
the files through `onnx.checker` (with shape inference), runs them in ONNX Runtime with the
preprocessing of their metadata, one image at a time and in one batch, and compares the logits with
`mbconv predict`. Loads `export --layout timm` strictly into timm's network of that name, if there is
one, and compares its logits too. The second form first builds each network in its library with
random weights and random running statistics, and imports it.

Prints one table row per model for docs/parity.md. The exit status is 1 if f32 logits differ by more
than 1e-4 of the largest logit. Requires onnx, onnxruntime and the packages of peers.py.
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

from peers import FlatMobileNetV2, randomise

LIMIT = 1e-4
FILTERS = {name: Image.Resampling[name.upper()] for name in ("bilinear", "bicubic", "nearest")}


def run(program, *arguments):
    """Runs the program and returns its standard output."""
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: `{' '.join(map(str, arguments))}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def prepare(path, preprocess):
    """Resizes and center-crops like torchvision, or letterboxes like timm; returns bytes [H, W, C], gray if C is 1."""
    image = Image.open(path).convert("RGB")
    size, crop, color = preprocess["resize"], preprocess["crop"], 0
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if preprocess.get("resize_mode") == "squash":
        image = image.resize((size, size), FILTERS[preprocess["interpolation"]])
    elif preprocess.get("resize_mode") == "letterbox":
        color = tuple(round(255 * value) for value in preprocess["mean"])
        size = tuple(round(length * size / long) for length in image.size)
        image = image.resize(size, FILTERS[preprocess["interpolation"]])
    elif short != size:
        target = int(size * long / short)
        image = image.resize((size, target) if width <= height else (target, size), FILTERS[preprocess["interpolation"]])
    width, height = image.size
    canvas = Image.new("RGB", (max(width, crop), max(height, crop)), color)
    canvas.paste(image, ((canvas.width - width) // 2, (canvas.height - height) // 2))
    half = (lambda rest: rest // 2) if preprocess.get("crop_rounding") == "down" else (lambda rest: round(rest / 2))
    left, top = half(canvas.width - crop), half(canvas.height - crop)
    cropped = canvas.crop((left, top, left + crop, top + crop))
    return np.asarray(cropped) if preprocess.get("channels", 3) == 3 else np.asarray(cropped.convert("L"))[..., None]


def normalise(pixels, preprocess):
    """Converts bytes [N, H, W, C] to normalized f32 [N, C, H, W]."""
    mean, std = (np.asarray(preprocess[key][: pixels.shape[-1]], np.float32) for key in ("mean", "std"))
    return ((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def fresh(program, name, classes, images, folder):
    """Builds the library's network with random weights and imports it; returns the model file."""
    torchvisions = name.startswith(("mobilenet_v2", "efficientnet_b")) and not name.endswith(("0d", "b8"))
    if name == "mobilenet_v2_0.1_round4":
        model = FlatMobileNetV2(classes, 0.1)
    elif name.startswith("mobilenet_v2") and torchvisions:
        width = float(name.removeprefix("mobilenet_v2").removeprefix("_") or 1)
        model = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=width)
    elif torchvisions:
        model = torchvision.models.get_model(name, num_classes=classes)
    else:
        model = timm.create_model(timm_name(name), num_classes=classes)
    weights, out = folder / "weights.safetensors", folder / f"{name}.safetensors"

    def write():
        save_file(model.state_dict(), weights)
        run(program, "import", weights, out, "--arch", name)

    # The preprocessing is known after the first import.
    write()
    preprocess = card_of(out)["preprocess"]
    pixels = np.stack([prepare(image, preprocess) for image in images])
    randomise(model, 0, torch.from_numpy(np.concatenate([normalise(pixels, preprocess), normalise(pixels[:, ::-1], preprocess)])))
    write()
    return out


def card_of(path):
    """Returns the metadata of a model file."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["mbconv"])


def timm_name(name):
    """Returns timm's name of an architecture, or None if timm lacks it."""
    widths = {"": "100", "_0.35": "035", "_0.5": "050", "_0.75": "075", "_1.4": "140", "_110d": "110d", "_120d": "120d"}
    if name.startswith("mobilenet_v2"):
        width = widths.get(name.removeprefix("mobilenet_v2"))
        return width and f"mobilenetv2_{width}"
    return None if name.startswith("tf_mobilenet") else name


def check_timm(program, path, card, pixels, expected, folder):
    """Returns the largest difference of timm's logits, or None if timm lacks the network."""
    name = timm_name(card["architecture"]["name"])
    if name is None or card["architecture"].get("strides", "imagenet") != "imagenet":
        return None
    out = folder / "timm.safetensors"
    run(program, "export", path, out, "--layout", "timm")
    # Torchvision uses TensorFlow's epsilon from B5 on.
    original = name.startswith("tf_") or name in {f"efficientnet_b{number}" for number in (5, 6, 7)}
    architecture = card["architecture"]
    epsilon = architecture.get("norm_epsilon", 1e-3 if original else 1e-5)
    shape = {"num_classes": architecture["classes"], "in_chans": architecture.get("input_channels", 3)}
    model = timm.create_model(name, **shape, bn_eps=epsilon).eval()
    model.load_state_dict(load_file(out), strict=True)
    with torch.inference_mode():
        rows = [model(torch.from_numpy(normalise(image[None], card["preprocess"]))) for image in pixels]
    return float(np.abs(torch.cat(rows).numpy() - expected).max())


def check(program, path, images, folder):
    card = card_of(path)
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
    parser.add_argument("--random", nargs="+", default=[], metavar="NAME", help="architectures to test with random weights")
    parser.add_argument("--classes", type=int, default=1000, help="number of classes of the random models")
    parser.add_argument("--images", nargs="+", required=True, metavar="FILE", help="PNG images")
    parser.add_argument("--mbconv", required=True, metavar="PROGRAM", help="path of the program")
    options = parser.parse_args()
    torch.set_num_threads(2)

    columns = ["architecture", "largest logit", "ONNX f32", "relative", "with preprocessing", "softmax (probabilities)"]
    print("|", " | ".join([*columns, "ONNX f16", "timm, strict"]), "|")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    agree = True
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        models = [Path(model) for model in options.models]
        for subject in [*models, *options.random]:
            path = subject if isinstance(subject, Path) else fresh(options.mbconv, subject, options.classes, options.images, folder)
            name, scale, worst = check(options.mbconv, path, options.images, folder)
            first, *rest = worst.values()
            cells = [f"{value:.1e}" if value is not None else "–" for value in (first, first / scale, *rest)]
            print(f"| `{name}` | {scale:.2f} | {' | '.join(cells)} |", flush=True)
            for label in ("f32", "f32, preprocessing", "f32, softmax", "timm"):
                agree &= worst[label] is None or worst[label] <= LIMIT * max(scale, 1)
    sys.exit(not agree)


if __name__ == "__main__":
    main()
