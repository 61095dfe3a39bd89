#!/usr/bin/env python3
"""Compares training with torchvision's networks and the optimizers of PyTorch and timm.

    cargo build --release --workspace --example follow && cargo build --release
    python scripts/train_parity.py FOLDER_OF_CIFAR_10_BINARY

mbconv first trains each network for one epoch at a high learning rate. Both programs then continue
from these weights for 100 steps of 32 CIFAR-10 images, without augmentation, dropout and drop-path,
with warm-up and cosine schedule per step, no weight decay on norms and biases, and a moving average
with TensorFlow's warm-up; in f32, and for 50 steps in f64. Prints a Markdown table. With --bf16 the
table compares 50 steps in bf16 with 50 steps in f32, in mbconv and in PyTorch with autocast.

Training from random weights is chaotic: a one-bit difference grows up to tenfold per step, between
any two programs.
"""
import argparse
import copy
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file, save_file
from timm.optim import RMSpropTF

BATCH, EPOCHS, WARMUP, DECAY = 32, 5, 10, 1e-4
OPTIMIZERS = {
    "sgd": (lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True), 0.001),
    "rmsprop_tf": (lambda groups, lr: RMSpropTF(groups, lr=lr, alpha=0.9, momentum=0.9, eps=1e-3), 0.0001),
    "adamw": (lambda groups, lr: torch.optim.AdamW(groups, lr=lr), 0.0001),
}
START = """
epochs = 1
batch_size = 128
[model]
name = "{network}"
dropout = 0.0
drop_path = 0.0
[input]
size = 32
crop = "pad"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[optimizer]
name = "sgd"
learning_rate = 0.1
momentum = 0.9
nesterov = true
weight_decay = 5e-4
[schedule]
name = "cosine"
warmup_epochs = 0.2
"""
RECIPE = """
epochs = {epochs}
batch_size = {batch}
[model]
name = "{network}"
dropout = 0.0
drop_path = 0.0
[input]
size = 32
[optimizer]
name = "{optimizer}"
learning_rate = {lr}
weight_decay = {decay}
[schedule]
name = "cosine"
warmup_epochs = {warmup}
warmup_start = 0.01
[ema]
decay = 0.99
"""


def batches(folder: pathlib.Path, steps: int):
    raw = np.frombuffer((folder / "data_batch_1.bin").read_bytes(), np.uint8).reshape(-1, 3073)[: steps * BATCH]
    pixels = torch.from_numpy(raw[:, 1:].reshape(steps, BATCH, 3, 32, 32).astype(np.float32) / 255)
    return (pixels - 0.5) / 0.25, torch.from_numpy(raw[:, 0].reshape(steps, BATCH).astype(np.int64))


def network(name: str, start: pathlib.Path):
    if name == "efficientnet_b0":
        model = torchvision.models.efficientnet_b0(num_classes=10, dropout=0.0, stochastic_depth_prob=0.0)
    else:
        model = torchvision.models.mobilenet_v2(num_classes=10, dropout=0.0)
    model.load_state_dict(load_file(start), strict=True)
    return model


def pytorch(model, make, lr, images, labels, bf16=False):
    steps = len(images)
    # PyTorch's f32 depthwise convolutions are 20 times as slow in the contiguous layout.
    layout = torch.channels_last if images.dtype == torch.float32 else torch.contiguous_format
    model = model.to(images.dtype, memory_format=layout)
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = make(groups, lr)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, WARMUP),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - WARMUP),
        ],
        [WARMUP],
    )
    average = copy.deepcopy(model).eval()
    losses = []
    model.train()
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(images[step].contiguous(memory_format=layout))
        loss = torch.nn.functional.cross_entropy(logits.to(images.dtype), labels[step])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        schedule.step()
        decay = min(0.99, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, value in zip(average.state_dict().values(), model.state_dict().values()):
                if mean.is_floating_point():
                    mean.mul_(decay).add_(value, alpha=1 - decay)
    with torch.no_grad():
        return losses, torch.nn.functional.cross_entropy(average(images[0]), labels[0]).item()


def follow(program, files, *precision):
    answer = subprocess.run([program, *map(str, files), *precision], check=True, capture_output=True).stdout
    answer = json.loads(answer)
    return answer["losses"], answer["average_loss"]


def apart(found, expected):
    """Returns the largest relative difference of two lists."""
    return max(abs(a / b - 1) for a, b in zip(found, expected))


def spread(found, expected):
    """Returns the root mean square and the mean of the relative differences."""
    differences = np.array(found) / np.array(expected) - 1
    return f"{np.sqrt(np.mean(differences**2)):.1e}, {np.mean(differences):+.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=pathlib.Path)
    parser.add_argument("--mbconv", default="target/release/mbconv")
    parser.add_argument("--follow", default="target/release/examples/follow")
    parser.add_argument("--steps", type=int, default=100, help="a multiple of 5, at least 50")
    parser.add_argument("--network", action="append", help="only this network")
    parser.add_argument("--bf16", action="store_true", help="compare bf16 with f32 in each program")
    args = parser.parse_args()
    images, labels = batches(args.cifar, args.steps)
    if args.bf16:
        print("| network | optimizer, learning rate | mbconv: losses, rms and mean | mbconv: moving average | PyTorch: losses, rms and mean | PyTorch: moving average |")
        print("|---|---|---:|---:|---:|---:|")
    else:
        print("| network | optimizer, learning rate | loss at steps 1, 50 and last | f32: steps 1–50 | f32: all steps | f32: moving average | f64: steps 1–50 | f64: moving average |")
        print("|---|---|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in args.network or ["mobilenet_v2", "efficientnet_b0"]:
            (folder / "start.toml").write_text(START.format(network=name))
            subprocess.run([args.mbconv, "train", folder / "start.toml", "--data", args.cifar, "--out", folder / name, "--device", "cpu"], check=True)
            start = folder / name / "last.safetensors"
            for optimizer, (make, lr) in OPTIMIZERS.items():

                def both(precision, steps, bf16=False):
                    """Returns losses and moving-average loss of mbconv and PyTorch."""
                    save_file({"images": images[:steps].contiguous(), "labels": labels[:steps].contiguous()}, folder / "batches.safetensors")
                    (folder / "recipe.toml").write_text(
                        RECIPE.format(epochs=EPOCHS, batch=BATCH, network=name, optimizer=optimizer, lr=lr, decay=DECAY,
                                      warmup=WARMUP * EPOCHS / steps)
                    )
                    files = [folder / "recipe.toml", start, folder / "batches.safetensors"]
                    option = ["double"] if precision == torch.float64 else ["bf16"] if bf16 else []
                    ours = follow(args.follow, files, *option)
                    return ours, pytorch(network(name, start), make, lr, images[:steps].to(precision), labels[:steps], bf16)

                if args.bf16:
                    row = [
                        cell
                        for (losses, average), (single, single_average) in zip(both(torch.float32, 50, True), both(torch.float32, 50))
                        for cell in (spread(losses, single), f"{average / single_average - 1:+.1e}")
                    ]
                    print(f"| {name} | {optimizer}, {lr} | {' | '.join(row)} |", flush=True)
                    continue
                (single, single_average), (theirs, their_average) = both(torch.float32, args.steps)
                (double, double_average), (truth, true_average) = both(torch.float64, 50)
                print(
                    f"| {name} | {optimizer}, {lr} | {theirs[0]:.4f}, {theirs[49]:.4f}, {theirs[-1]:.4f} | {apart(single[:50], theirs):.1e}"
                    f" | {apart(single, theirs):.1e} | {abs(single_average / their_average - 1):.1e} | {apart(double, truth):.1e}"
                    f" | {abs(double_average / true_average - 1):.1e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
