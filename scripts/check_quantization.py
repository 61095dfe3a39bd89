#!/usr/bin/env python3
"""Compares an 8-bit model with its ONNX export in ONNX Runtime and OpenVINO.

    python scripts/check_quantization.py MODEL.int8.safetensors IMAGES [--mbconv target/release/mbconv]

IMAGES is a folder of images, which Pillow resizes (shorter side) and crops (center). Prints for each
runtime the part of the images with the same top-1 class and the root mean square difference of the
logits, relative to their standard deviation. ONNX Runtime runs without graph optimization, with it,
and with it and `session.x64quantprecision`. Requires numpy, Pillow, onnx and onnxruntime; OpenVINO
is optional.
"""
import argparse
import json
import subprocess
import tempfile

import numpy
import onnx
import onnxruntime
from PIL import Image

BATCH = 50


def prepare(path, preprocess):
    """Resizes the shorter side and crops the center; returns bytes [H, W, 3]."""
    image = Image.open(path).convert("RGB")
    resize, crop = preprocess["resize"], preprocess["crop"]
    shorter = min(image.size)
    if shorter != resize:
        size = [resize if side == shorter else int(resize * side / shorter) for side in image.size]
        image = image.resize(size, {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[preprocess["interpolation"]])
    left, top = [round((side - crop) / 2) for side in image.size]
    return numpy.asarray(image.crop((left, top, left + crop, top + crop)))


def runtimes(path):
    """Yields the name of each runtime and a function from images to logits."""
    levels = onnxruntime.GraphOptimizationLevel
    for name, level, precise in [
        ("ONNX Runtime, not optimized", levels.ORT_DISABLE_ALL, "0"),
        ("ONNX Runtime", levels.ORT_ENABLE_ALL, "0"),
        ("ONNX Runtime, x64quantprecision", levels.ORT_ENABLE_ALL, "1"),
    ]:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.add_session_config_entry("session.x64quantprecision", precise)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        yield name, lambda images, session=session: session.run(None, {"image": images})[0]
    try:
        import openvino
    except ImportError:
        return
    model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    yield "OpenVINO", lambda images: model(images)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("--mbconv", default="target/release/mbconv")
    args = parser.parse_args()

    command = [args.mbconv, "predict", args.model, args.images, "--logits", "--json"]
    predictions = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    expected = numpy.array([prediction["logits"] for prediction in predictions])
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.onnx"
        subprocess.run([args.mbconv, "export", args.model, path, "--with-preprocessing"], check=True, stderr=subprocess.DEVNULL)
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        preprocess = json.loads(metadata["preprocess"])
        images = numpy.stack([prepare(prediction["path"], preprocess) for prediction in predictions])
        for name, run in runtimes(path):
            parts = [run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
            found = numpy.concatenate(parts)
            same = (found.argmax(1) == expected.argmax(1)).mean()
            error = numpy.sqrt(((found - expected) ** 2).mean()) / expected.std()
            print(f"{name}: same top-1 {same:.2%} of {len(images)}, difference of the logits {error:.2%}")


if __name__ == "__main__":
    main()
