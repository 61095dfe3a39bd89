#!/usr/bin/env python3
"""Opens model folders of `mbconv export --layout timm|hf` with timm and transformers.

    python scripts/check_model_folders.py --mbconv target/release/mbconv --images FILES
    python scripts/check_model_folders.py --mbconv PROGRAM --images FILES --models MODEL…

For every model, which may be anything that mbconv accepts, the script exports a folder for each
library, opens it, and compares class names, preprocessed images and logits with mbconv's. By default
the models are networks with random weights. A library that does not have the network
is reported with the reason. The exit status is 1 if logits differ by more than 1e-4 of the largest.
Requires torch, timm, transformers, safetensors and Pillow.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.utils.logging import disable_progress_bar

LIMIT = 1e-4
# Networks with random weights: timm's name.
RANDOM = ["mobilenetv2_100", "efficientnet_b0", "tf_efficientnet_b0", "tf_efficientnet_b1", "efficientnet_lite0",
          "tf_efficientnet_lite0"]


def random_model(name, images, folder, program):
    """Writes timm's network with random weights as a model of mbconv.

    The running statistics are those of the images, so that every layer passes its input on, and the
    logits depend on the image but not on rounding.
    """
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
            torch.nn.init.normal_(module.bias, std=0.1)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        model(torch.stack([transform(Image.open(path).convert("RGB")) for path in images]))
    weights, out = folder / f"{name}.random.safetensors", folder / f"{name}.safetensors"
    save_file(model.state_dict(), weights)
    subprocess.run([program, "import", weights, out, "--arch", name], check=True, capture_output=True)
    return str(out)


def mbconv_logits(program, model, images):
    """Returns mbconv's logits of the images and its class names."""
    output = subprocess.run([program, "predict", model, *images, "--logits", "--json", "--device", "cpu"], check=True,
                            capture_output=True).stdout
    names = json.loads(subprocess.run([program, "info", model, "--json"], check=True, capture_output=True).stdout)
    return torch.tensor([row["logits"] for row in json.loads(output)]), names["class_names"]


def open_timm(folder):
    """Returns class names, preprocessing and network of a folder opened with timm."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    return model.pretrained_cfg["label_names"], transform, model


def open_hf(folder):
    """Returns class names, preprocessing and network of a folder opened with transformers."""
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    names = [model.config.id2label[index] for index in range(len(model.config.id2label))]
    return (names, lambda image: processor(image, return_tensors="pt").pixel_values[0],
            lambda batch: model(batch).logits)


def check(layout, opened, names, expected, images, shared):
    """Returns problems with a folder and describes its differences. `shared` preprocesses exactly as mbconv."""
    labels, transform, model = opened
    with torch.no_grad():
        same = model(torch.stack([shared(Image.open(path).convert("RGB")) for path in images]))
        own = model(torch.stack([transform(Image.open(path).convert("RGB")) for path in images]))
    size = expected.abs().max()
    network, whole = ((found - expected).abs().max() / size for found in (same, own))
    problems = [] if list(labels) == names else ["class names differ"]
    if network > LIMIT:
        problems.append(f"logits differ by {network:.1e} of the largest")
    print(f"  {layout}: {'; '.join(problems) or 'OK'} (logits {network:.1e}, with the library's resizing {whole:.1e})")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbconv", required=True)
    parser.add_argument("--images", nargs="+", required=True)
    parser.add_argument("--models", nargs="+", default=[])
    args = parser.parse_args()
    disable_progress_bar()
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = args.models or [random_model(name, args.images, folder, args.mbconv) for name in RANDOM]
        for number, model in enumerate(models):
            print(Path(model).stem)
            expected, names = mbconv_logits(args.mbconv, model, args.images)
            shared = None
            for layout, opener in [("timm", open_timm), ("hf", open_hf)]:
                out = folder / f"{number}-{layout}"
                done = subprocess.run([args.mbconv, "export", model, out, "--layout", layout], capture_output=True,
                                      text=True)
                if done.returncode != 0:
                    print(f"  {layout}: refused: {done.stderr.strip().splitlines()[-2]}")
                    continue
                opened = opener(out)
                # timm resizes with Pillow, as mbconv does, transformers with torch.
                shared = shared or opened[1]
                failed |= bool(check(layout, opened, names, expected, args.images, shared))
    sys.exit(failed)


if __name__ == "__main__":
    main()
