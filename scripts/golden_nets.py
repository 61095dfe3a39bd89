#!/usr/bin/env python3
"""Writes crates/nets/tests/fixtures/golden_*.json: torchvision's results for golden.rs.

A network of TensorFlow is torchvision's with timm's `Conv2dSame`, which pads each side of the image
by itself.

    python scripts/golden_nets.py

Weights, running statistics and images follow from a formula of (key, flat index), which the Rust
test also computes, so fixtures contain only results. Torchvision runs in float64. The difference of
its float32 run is printed as the accuracy to expect of a float32 program. Requires timm,
torch and torchvision.
"""
import json
import re
from pathlib import Path

import numpy as np
import torch
import torchvision
from timm.layers import Conv2dSame
from torch import nn
from torchvision.ops import StochasticDepth

FIXTURES = Path(__file__).resolve().parent.parent / "crates" / "nets" / "tests" / "fixtures"
CLASSES = 10
# Neither square nor a multiple of 32, to get feature maps with odd sides: 5x4 and 3x2 at the end.
IMAGES = (4, 3, 64, 80)
LABELS = [1, 4, 7, 0]
# Uniform weights with variance 2 / fan-in (He et al.), so that activations keep their scale.
GAIN = 6.0

# Keys whose first values are stored: stem, first depthwise, a middle pointwise, a depthwise with
# stride 2, the last norm, the classifier; for EfficientNet also a 5x5 depthwise and a
# squeeze-excitation.
MOBILENET_V2 = [
    "features.0.0.weight",
    "features.0.1.running_mean",
    "features.0.1.running_var",
    "features.1.conv.0.0.weight",
    "features.4.conv.1.0.weight",
    "features.9.conv.0.0.weight",
    "features.9.conv.1.1.running_mean",
    "features.9.conv.1.1.running_var",
    "features.18.1.weight",
    "features.18.1.bias",
    "features.18.1.running_mean",
    "features.18.1.running_var",
    "classifier.1.weight",
    "classifier.1.bias",
]
EFFICIENTNET = [
    "features.0.0.weight",
    "features.0.1.running_mean",
    "features.0.1.running_var",
    "features.1.0.block.0.0.weight",
    "features.2.0.block.1.0.weight",
    "features.3.1.block.1.0.weight",
    "features.5.1.block.0.0.weight",
    "features.5.1.block.1.1.running_mean",
    "features.5.1.block.1.1.running_var",
    "features.4.0.block.2.fc1.weight",
    "features.4.0.block.2.fc1.bias",
    "features.4.0.block.2.fc2.weight",
    "features.4.0.block.2.fc2.bias",
    "features.8.1.weight",
    "features.8.1.bias",
    "features.8.1.running_mean",
    "features.8.1.running_var",
    "classifier.1.weight",
    "classifier.1.bias",
]
# Norm weights and biases [a, b] are a + b u. If rounding moves a value across ReLU6's kinks at 0 or
# 6, gradients of these small feature maps change by up to a hundredth of their norm. The norms of
# the second network keep all training values between the kinks, so its gradients compare closely.
USUAL = {"weight": [1.0, 0.2], "bias": [0.0, 0.1]}
BETWEEN_KINKS = {"weight": [0.36, 0.06], "bias": [3.0, 0.1]}


def tf_efficientnet_b0(**options):
    """Returns torchvision's EfficientNet-B0 with the padding and batch-norm of TensorFlow."""
    model = torchvision.models.efficientnet_b0(norm_layer=lambda channels: nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01), **options)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child.kernel_size != (1, 1):
                bias = child.bias is not None
                same = Conv2dSame(child.in_channels, child.out_channels, child.kernel_size, child.stride, 0, 1, child.groups, bias)
                setattr(parent, name, same)
    return model


NETWORKS = {
    "mobilenet_v2": (torchvision.models.mobilenet_v2, {}, USUAL, MOBILENET_V2, IMAGES),
    "mobilenet_v2_0.5": (torchvision.models.mobilenet_v2, {"width_mult": 0.5}, BETWEEN_KINKS, MOBILENET_V2, IMAGES),
    "efficientnet_b0": (torchvision.models.efficientnet_b0, {}, USUAL, EFFICIENTNET, IMAGES),
    # Even and odd sides need different padding: the feature maps have 48x81, 24x41, 12x21, 6x11 and
    # 3x6 positions.
    "tf_efficientnet_b0": (tf_efficientnet_b0, {}, USUAL, EFFICIENTNET, (4, 3, 96, 161)),
}
# Only the chosen tensors of these networks are probed, to keep the fixtures small.
SMALL = ("mobilenet_v2", "tf_efficientnet_b0")


def uniform(key, count):
    """Returns `count` values in [-1, 1), multiples of 2^-23: splitmix64 of FNV-1a(key) + index."""
    seed = 0xCBF29CE484222325
    for byte in key.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0


def fill(key, shape, norm):
    """Returns the tensor of `key`, computed in float64 and rounded to float32.

    `norm` contains the scales of batch-norm tensors.
    """
    u = uniform(key, int(np.prod(shape)))
    kind = key.rsplit(".", 1)[1]
    if kind == "running_var":
        values = 1.0 + 0.5 * u
    elif norm and kind in norm:
        values = norm[kind][0] + norm[kind][1] * u
    elif kind in ("running_mean", "bias"):
        values = 0.1 * u
    else:
        values = u * np.sqrt(GAIN / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def images(shape):
    """Returns noise images, each with its own contrast and brightness."""
    noise = uniform("images", int(np.prod(shape))).reshape(shape)
    number = np.arange(shape[0]).reshape(-1, 1, 1, 1)
    return torch.from_numpy((noise * 0.5 * (number + 1) + 0.5 * (number - 1.5)).astype(np.float32))


def build(name):
    """Returns network `name` with the formula's weights, without dropout and stochastic depth."""
    function, options, norm, *_ = NETWORKS[name]
    model = function(num_classes=CLASSES, **options)
    state = model.state_dict()
    for key, tensor in state.items():
        layer, kind = key.rsplit(".", 1)
        if kind != "num_batches_tracked":
            state[key] = fill(key, tuple(tensor.shape), norm if f"{layer}.running_var" in state else None)
    model.load_state_dict(state)
    for module in model.modules():
        if isinstance(module, (nn.Dropout, StochasticDepth)):
            module.p = 0.0
    return model


def probe(key, tensor):
    """Returns the norm and a projection that detects permutations and sign changes."""
    values = tensor.detach().double().flatten().numpy()
    return [float(np.linalg.norm(values)), float(values @ uniform(f"probe {key}", values.size))]


def measure(name, dtype):
    """Computes the contents of a network's fixture in `dtype`."""
    model = build(name).to(dtype)
    inputs = images(NETWORKS[name][-1]).to(dtype)
    labels = torch.tensor(LABELS)

    def run(training):
        model.zero_grad()
        model.train(training)
        logits = model(inputs)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        gradients = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
        return {"logits": logits.detach(), "loss": loss.detach(), "gradients": gradients}

    evaluated = run(training=False)
    trained = run(training=True)
    statistics = {key: tensor.clone() for key, tensor in model.state_dict().items() if "running_" in key}
    return {"eval": evaluated, "train": {**trained, "statistics": statistics}}


def rounded(value):
    """Rounds nested floats to seven significant digits."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.7g}")


def worst(found, expected):
    """Returns the largest difference relative to a tensor's norm, and its key.

    Gradients of biases before a norm are pure rounding error, so the norms that divide are at least
    a thousandth of the largest one.
    """
    floor = max(tensor.norm() for tensor in expected.values()) / 1000
    errors = {
        key: float((found[key].double() - tensor).norm() / max(tensor.norm(), floor)) for key, tensor in expected.items()
    }
    key = max(errors, key=errors.get)
    return f"{errors[key]:.1e} ({key})"


def write(name):
    _, _, norm, keys, shape = NETWORKS[name]
    exact = measure(name, torch.float64)
    single = measure(name, torch.float32)

    def section(run):
        tensors = {**run["gradients"], **run.get("statistics", {})}
        return {
            "logits": run["logits"].tolist(),
            "loss": float(run["loss"]),
            "probes": {key: probe(key, tensor) for key, tensor in tensors.items()},
            "first": {key: tensors[key].flatten()[:8].tolist() for key in keys if key in tensors},
        }

    sections = {mode: section(run) for mode, run in exact.items()}
    # Gradients in evaluation mode are those of fine-tuning with frozen norms. In training all
    # tensors are probed, except in the small network; in evaluation only the chosen ones.
    for mode in ("eval", "train") if name in SMALL else ("eval",):
        probes = sections[mode]["probes"]
        sections[mode]["probes"] = {key: probes[key] for key in keys if key in probes}
    path = FIXTURES / f"golden_{name}.json"
    lines = json.dumps({"images": shape, "labels": LABELS, "norm": norm, **rounded(sections)}, indent=1)
    path.write_text(one_line_lists(lines) + "\n")

    print(f"{path.name}: {path.stat().st_size} bytes")
    for mode, run in exact.items():
        spread = (run["logits"] - run["logits"].mean(0)).abs().max()
        print(f"  {mode}: logits up to {run['logits'].abs().max():.3f}, differing between images by {spread:.3f}")
        logits = (single[mode]["logits"] - run["logits"]).abs().max() / run["logits"].abs().max()
        print(f"    float32 against float64: logits {logits:.1e}", end="")
        for group in ("gradients", "statistics"):
            if group in run:
                print(f", {group} {worst(single[mode][group], run[group])}", end="")
        print()


def one_line_lists(text):
    """Puts each list of numbers on one line."""
    return re.sub(r"\[[^\[\]{}]*\]", lambda match: "[" + " ".join(match[0][1:-1].split()) + "]", text)


if __name__ == "__main__":
    torch.set_num_threads(2)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        write(name)
