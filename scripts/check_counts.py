"""Compares parameters and multiply-accumulates of every listed network with torchvision and timm.

    python scripts/check_counts.py [path of mbconv]

The counts of `mbconv list --json` must match exactly. Modules are built on PyTorch's `meta` device,
so no weights are allocated.
"""

import json
import subprocess
import sys

import timm
import torch
import torchvision


def peer(name):
    """Returns the module of a listed name and the library it comes from."""
    plain = name.removeprefix("tf_")
    if plain.startswith("mobilenet_v2"):
        suffix = plain.removeprefix("mobilenet_v2").removeprefix("_")
        if suffix in ("110d", "120d"):
            return timm.create_model(f"mobilenetv2_{suffix}"), "timm"
        width, _, divisor = suffix.partition("_round")
        model = torchvision.models.MobileNetV2(width_mult=float(width or 1), round_nearest=int(divisor or 8))
        return model, "torchvision"
    if plain in [f"efficientnet_b{number}" for number in range(8)] and plain == name:
        return getattr(torchvision.models, name)(), "torchvision"
    return timm.create_model(name), "timm"


def macs(model, side):
    """Returns the multiply-accumulates of convolutions and linear layers for one image."""
    counts = []

    def count(module, inputs, output):
        if isinstance(module, torch.nn.Conv2d):
            kernel = module.weight[0].numel()
            counts.append(kernel * output.shape[1] * output.shape[2] * output.shape[3])
        elif isinstance(module, torch.nn.Linear):
            counts.append(module.weight.numel())

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, side, side))
    return sum(counts)


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "target/release/mbconv"
    rows = json.loads(subprocess.run([program, "list", "--json"], check=True, capture_output=True).stdout)
    wrong = 0
    with torch.device("meta"):
        for row in rows:
            model, whose = peer(row["name"])
            own = (row["parameters"], row["macs"])
            theirs = (sum(p.numel() for p in model.parameters()), macs(model, row["resolution"]))
            wrong += own != theirs
            print(f"{row['name']:28}{whose:12}{own[0]:>12}{own[1]:>14}", "ok" if own == theirs else f"expected {theirs}")
    print(f"{len(rows) - wrong} of {len(rows)} agree")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
