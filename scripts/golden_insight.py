#!/usr/bin/env python3
"""Writes crates/train/tests/fixtures/insight.json: heatmaps and features of torchvision's MobileNetV2.

    python scripts/golden_insight.py

Loads models/cifar10_mobilenet_v2.safetensors into torchvision's network and computes Grad-CAM and
LayerCAM with PyTorch's autograd, and the pooled features, in float64. The images follow from a formula that the Rust test also
computes. Requires torch, torchvision and safetensors.
"""
import json
from pathlib import Path

import torch
import torchvision
from safetensors import safe_open

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "cifar10_mobilenet_v2.safetensors"
OUT = ROOT / "crates" / "train" / "tests" / "fixtures" / "insight.json"
SIDE = 32
IMAGES = 2
# The last layer of each stage, and the head, in torchvision's `features`.
STAGES = {1: 1, 3: 6, 5: 13, 7: 17, None: 18}
CLASSES = [None, 0, 7]
# Every 16th feature is stored.
FEATURE_STEP = 16


def images():
    """Returns bytes [IMAGES, 3, SIDE, SIDE]."""
    n, c, y, x = torch.meshgrid(*(torch.arange(size) for size in (IMAGES, 3, SIDE, SIDE)), indexing="ij")
    return (x * y * (n + 1) + 40 * c * (x // 8) + 90 * n + 5 * y) % 256


def network(state, width):
    """Returns torchvision's network with the model's stride of 1 in the stem."""
    model = torchvision.models.mobilenet_v2(num_classes=10, width_mult=width)
    model.features[0][0].stride = (1, 1)
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and all("num_batches" in key for key in missing.missing_keys), missing
    return model.double().eval()


def heatmap(model, inputs, layer, method, class_index):
    """Returns the predicted or given classes, and the normalized maps [N, H, W]."""
    kept = []
    handle = model.features[layer].register_forward_hook(lambda *call: kept.append(call[2]))
    logits = model(inputs)
    handle.remove()
    chosen = logits.argmax(1) if class_index is None else torch.full((len(inputs),), class_index)
    score = logits.gather(1, chosen[:, None]).sum()
    features = kept[0]
    (gradient,) = torch.autograd.grad(score, features)
    weights = gradient.mean((2, 3), keepdim=True) if method == "grad-cam" else gradient.relu()
    maps = (features * weights).sum(1).relu().detach()
    highest = maps.amax((1, 2), keepdim=True)
    return chosen.tolist(), maps / torch.where(highest > 0, highest, 1.0)


def main():
    with safe_open(MODEL, "pt") as file:
        card = json.loads(file.metadata()["mbconv"])
        state = {key: file.get_tensor(key) for key in file.keys()}
    assert card["architecture"]["strides"] == [1, 1, 2, 2, 2, 1, 2, 1]
    model = network(state, float(card["architecture"]["name"].split("_")[-1]))
    mean, std = (torch.tensor(card["preprocess"][key], dtype=torch.float64).reshape(3, 1, 1) for key in ("mean", "std"))
    inputs = (images().double() / 255 - mean) / std
    cases = []
    for stage, layer in STAGES.items():
        for method in ("grad-cam", "layer-cam"):
            for class_index in CLASSES:
                chosen, maps = heatmap(model, inputs, layer, method, class_index)
                # Large maps are stored at every fourth position.
                step = 1 if maps.shape[1] <= 8 else 4
                values = [[float(f"{value:.6g}") for value in image[::step, ::step].flatten()] for image in maps]
                cases.append(
                    {
                        "stage": stage,
                        "method": method,
                        "class": class_index,
                        "classes": chosen,
                        "side": maps.shape[1],
                        "maps": values,
                    }
                )
    with torch.no_grad():
        pooled = model.features(inputs).mean((2, 3))[:, ::FEATURE_STEP]
    features = json.dumps([[float(f"{value:.6g}") for value in image] for image in pooled])
    listed = ",\n".join(json.dumps(case) for case in cases)
    OUT.write_text(f'{{"features": {features},\n"heatmaps": [\n{listed}\n]}}\n')
    print(f"{OUT}: {len(cases)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
