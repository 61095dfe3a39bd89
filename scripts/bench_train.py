#!/usr/bin/env python3
"""Training throughput on the CPU, mbconv beside PyTorch (torchvision's networks, channels-last), in one run.

    python scripts/bench_train.py --mbconv target/release/mbconv [--rounds 3] [--threads 2] [--case mobilenet_v2:32:128 ...]

A case is NETWORK:SIZE:BATCH. mbconv trains on the embedded digits, resized, with decoding and augmentation in the loop; PyTorch
steps on one batch that is already there (forward, cross-entropy, backward, SGD with Nesterov momentum). The two take turns;
the median of the rounds counts. Prints a Markdown table.
"""
import argparse
import csv
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
import torchvision

RECIPE = pathlib.Path(__file__).resolve().parent.parent / "configs" / "digits.toml"
DEFAULT = ["mobilenet_v2:32:128", "efficientnet_b0:32:128", "mobilenet_v2:224:16", "efficientnet_b0:224:16"]


def pytorch(network: str, size: int, batch: int, seconds: float) -> float:
    """Images per second of PyTorch's training step."""
    model = getattr(torchvision.models, network)(num_classes=10).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,))

    def step():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    for _ in range(2):
        step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    return steps * batch / (time.perf_counter() - started)


def mbconv(program: str, network: str, size: int, batch: int, threads: int, epochs: int) -> float:
    """Images per second of the last epoch of a short run."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "model.name": network, "model.strides": "imagenet", "input.size": size, "batch_size": batch,
            "epochs": epochs, "schedule.warmup_epochs": 0, "optimizer.learning_rate": 0.01,
            "label_smoothing": 0.0, "model.drop_path": 0.0, "data.val_fraction": 0.2,
        }
        command = [program, "train", str(RECIPE), "--out", f"{folder}/run", "--device", "cpu"]
        command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env={**os.environ, "RAYON_NUM_THREADS": str(threads)})
        rows = list(csv.DictReader(open(f"{folder}/run/metrics.csv")))
        return float(rows[-1]["images_per_second"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbconv", default="target/release/mbconv")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="of PyTorch a round")
    parser.add_argument("--case", action="append", help="NETWORK:SIZE:BATCH; may be repeated")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}, {args.threads} threads\n")
    print("| training, images per second | PyTorch channels-last | mbconv | ratio |\n|---|---:|---:|---:|")
    for case in args.case or DEFAULT:
        network, size, batch = case.split(":")
        size, batch = int(size), int(batch)
        peer, ours = [], []
        for _ in range(args.rounds):
            peer.append(pytorch(network, size, batch, args.seconds))
            ours.append(mbconv(args.mbconv, network, size, batch, args.threads, 1 if size > 64 else 2))
        peer, ours = statistics.median(peer), statistics.median(ours)
        print(f"| {network} {size} px, batch {batch} | {peer:.0f} | {ours:.0f} | {ours / peer:.2f} |", flush=True)


if __name__ == "__main__":
    main()
