#!/usr/bin/env python3
"""Opens mbconv's model files with torchvision and compares logits.

    python scripts/check_torchvision.py MODEL.safetensors...
    python scripts/check_torchvision.py MODEL.safetensors... --images FILES... --mbconv PROGRAM [--tta VIEWS]

The first form builds the network described by each file's metadata and loads the weights with
`strict=True`. The second form also preprocesses the images with Pillow and torchvision according to
the metadata, and compares torchvision's logits with `mbconv predict`. The exit status is 1 if they
differ by more than 1e-3 of the largest logit. With --tta, the logits are the logarithms of the mean
probabilities of torchvision's FiveCrop, of horizontal flips, or of both. Requires torch, torchvision, safetensors and Pillow.
"""
import argparse
import json
import subprocess
import sys

import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from torch import nn
from torchvision.transforms import InterpolationMode, v2

LIMIT = 1e-3
INTERPOLATION = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
# Strides of the stem and the seven stages, in both families.
STRIDES = {"imagenet": [2, 1, 2, 2, 2, 1, 2, 1], "cifar": [1, 1, 1, 2, 2, 1, 2, 1]}
# Index of each stage's first block in MobileNetV2's flat list.
MOBILENET_STAGES = [1, 2, 4, 7, 11, 14, 17]


def build(architecture):
    """Returns torchvision's network with the strides and input channels of the metadata."""
    name, classes = architecture["name"], architecture["classes"]
    if name.startswith("mobilenet_v2"):
        width = float(name.removeprefix("mobilenet_v2").removeprefix("_") or 1)
        model = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=width)
        firsts = [model.features[index] for index in MOBILENET_STAGES]
    elif name.startswith("efficientnet_b"):
        model = torchvision.models.get_model(name, num_classes=classes)
        firsts = [stage[0] for stage in model.features[1:-1]]
    else:
        sys.exit(f"error: torchvision has no `{name}`")

    stem = model.features[0][0]
    channels = architecture.get("input_channels", stem.in_channels)
    if channels != stem.in_channels:
        stem = model.features[0][0] = nn.Conv2d(channels, stem.out_channels, 3, 2, 1, bias=False)
    strides = architecture.get("strides", "imagenet")
    strides = STRIDES.get(strides, strides) if isinstance(strides, str) else strides
    stem.stride = (strides[0], strides[0])
    for block, stride in zip(firsts, strides[1:], strict=True):
        convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
        depthwise = next(module for module in convolutions if module.groups > 1)
        depthwise.stride = (stride, stride)
        ends = (convolutions[0].in_channels, convolutions[-1].out_channels)
        block.use_res_connect = stride == 1 and ends[0] == ends[1]
    return model.eval()


def load(path):
    """Returns a model file's network in float32 and its metadata."""
    with safe_open(path, framework="pt") as file:
        card = json.loads((file.metadata() or {}).get("mbconv") or sys.exit(f"error: {path} has no `mbconv` metadata"))
        state = {key: file.get_tensor(key) for key in file.keys()}
    model = build(card["architecture"])
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()}, strict=True)
    if len(card["classes"]) != card["architecture"]["classes"]:
        sys.exit(f"error: {path} names {len(card['classes'])} classes of {card['architecture']['classes']}")
    return model, card


def views(preprocess, tta, image):
    """Returns the views of an image, `[views, channels, height, width]`."""
    resize = v2.Resize(preprocess["resize"], interpolation=INTERPOLATION[preprocess["interpolation"]])
    crop = v2.FiveCrop if tta in ["five-crop", "ten-crop"] else v2.CenterCrop
    normalize = v2.Compose([
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(preprocess["mean"], preprocess["std"]),
    ])
    crops = crop(preprocess["crop"])(resize(image))
    crops = torch.stack([normalize(crop) for crop in (crops if isinstance(crops, tuple) else [crops])])
    return torch.cat([crops, crops.flip(3)]) if tta in ["flip", "ten-crop"] else crops


def logits(model, views):
    """Returns the logits of an image; of several views, the logarithms of the mean probabilities."""
    found = model(views)
    return found if len(found) == 1 else found.softmax(1).mean(0, keepdim=True).log()


def predict(program, path, images, tta):
    """Returns the logits of `mbconv predict`, one row per image."""
    command = [program, "predict", path, *images, "--tta", tta, "--logits", "--json"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"error: `{' '.join(command)}` ended with {run.returncode}: {run.stderr.strip()}")
    rows = json.loads(run.stdout)
    if [row["path"] for row in rows] != images:
        sys.exit(f"error: `{' '.join(command)}` answered for {[row['path'] for row in rows]}")
    return torch.tensor([row["logits"] for row in rows])


def compare(model, card, path, options):
    """Prints the difference of the logits and returns whether they agree."""
    images = [Image.open(name).convert("RGB") for name in options.images]
    with torch.inference_mode():
        expected = torch.cat([logits(model, views(card["preprocess"], options.tta, image)) for image in images])
    found = predict(options.mbconv, path, options.images, options.tta)
    if found.shape != expected.shape:
        print(f"  logits have shape {list(found.shape)}, torchvision's {list(expected.shape)}")
        return False
    differences = (found - expected).abs().amax(1)
    size = expected.abs().max()
    worst = int(differences.argmax())
    relative = float(differences[worst] / size)
    same = int((found.argmax(1) == expected.argmax(1)).sum())
    print(f"  {len(options.images)} images: logits up to {size:.3f}, largest difference {differences[worst]:.2e}", end=" ")
    print(f"({relative:.1e} of that, {options.images[worst]}), same class {same} times")
    return relative <= LIMIT


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a .safetensors file written by mbconv")
    parser.add_argument("--images", nargs="+", default=[], metavar="FILE", help="images whose logits are compared")
    parser.add_argument("--mbconv", metavar="PROGRAM", help="path of the program; needed with --images")
    parser.add_argument("--tta", choices=["none", "flip", "five-crop", "ten-crop"], default="none", help="views")
    options = parser.parse_args()
    if bool(options.images) != bool(options.mbconv):
        parser.error("--images and --mbconv go together")
    torch.set_num_threads(2)

    agree = True
    for path in options.models:
        model, card = load(path)
        architecture = card["architecture"]
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{path}: {architecture['name']}, {architecture['classes']} classes, {count} parameters: loads strictly")
        if options.images:
            agree &= compare(model, card, path, options)
    sys.exit(not agree)


if __name__ == "__main__":
    main()
