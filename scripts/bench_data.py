#!/usr/bin/env python3
"""Compares the data pipeline with torchvision's: from JPEG files to batches of 224 px crops.

    cargo build --release --example bench_data
    python scripts/bench_data.py PHOTOGRAPHS [--policy ra] [--small CIFAR] [--threads 2]
        [--rounds 5] [--seconds 5]

PHOTOGRAPHS is a folder of JPEG files, which are read repeatedly, so from the page cache. Every
program makes random-resized crops with horizontal flips, as bytes. torchvision's `DataLoader` uses
one worker process per mbconv thread and batches of 64, once with Pillow and once with
torchvision.io's decoder (both use libjpeg-turbo). The programs alternate, each in its own process;
the result is the median of the rounds. With `--policy ra` all programs also apply torchvision's
RandAugment, and an additional row measures mbconv without the operations that a GPU would apply.
`--small` adds the speed of padded 32 px crops of a data set such as CIFAR on one thread. Prints
Markdown tables. Requires torch and torchvision.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

OURS = {"mbconv": "fast", "mbconv, exact": "exact"}
ON_A_DEVICE = "mbconv, RandAugment on a GPU"
PEERS = ["torchvision, Pillow", "torchvision.io"]
TIMMS = "rand-m9-mstd0.5-inc1"
SMALL = {"crop and flip": [], "crop, flip and RandAugment": [TIMMS], "crop, flip and RandAugment on a GPU": [TIMMS, "device"]}


def peer(program, args):
    """Images per second of torchvision's loader."""
    import torch
    import torchvision
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    files = sorted(str(path) for path in pathlib.Path(args.photographs).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    crop = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()]
    if args.policy:
        crop.append(v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR))
    pillow = program == "torchvision, Pillow"
    transform = v2.Compose(crop + [v2.PILToTensor()] if pillow else crop)

    class Photographs(Dataset):
        def __len__(self):
            return len(files) * 1000

        def __getitem__(self, index):
            path = files[index % len(files)]
            if pillow:
                return transform(Image.open(path).convert("RGB")), 0
            image = torchvision.io.decode_jpeg(torchvision.io.read_file(path), mode=torchvision.io.ImageReadMode.RGB)
            return transform(image), 0

    batches = iter(DataLoader(Photographs(), batch_size=64, num_workers=args.threads, shuffle=True, drop_last=True))
    for _ in range(2 * args.threads + 3):
        next(batches)
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < args.seconds:
        images += len(next(batches)[0])
    return images / (time.perf_counter() - started)


def ours(mode, data, threads, args, policy):
    command = [args.program, mode, data, threads, args.seconds, *policy]
    output = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(output)


def measure(program, args):
    policy = [args.policy] if args.policy else []
    if program == ON_A_DEVICE:
        return ours("fast", args.photographs, args.threads, args, [args.policy, "device"])["images_per_second"]
    if program in OURS:
        return ours(OURS[program], args.photographs, args.threads, args, policy)["images_per_second"]
    command = [sys.executable, __file__, args.photographs, "--worker", program]
    command += ["--policy", args.policy] if args.policy else []
    command += ["--threads", str(args.threads), "--seconds", str(args.seconds)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs")
    parser.add_argument("--program", default="target/release/examples/bench_data")
    parser.add_argument("--policy", choices=["ra"], help="also apply RandAugment")
    parser.add_argument("--small", help="a data set of small images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return print(peer(args.worker, args))
    programs = PEERS + list(OURS) + ([ON_A_DEVICE] if args.policy else [])
    results = {program: [] for program in programs}
    for _ in range(args.rounds):
        for program in programs:
            results[program].append(measure(program, args))
    speed = {program: statistics.median(results[program]) for program in programs}
    best = max(speed[program] for program in PEERS)
    print("| loader | images per second | range | relative to faster peer |\n|---|---:|---:|---:|")
    for program in programs:
        span = f"{min(results[program]):.0f}–{max(results[program]):.0f}"
        print(f"| {program} | {speed[program]:.0f} | {span} | {speed[program] / best:.2f} |")
    if args.small:
        print("\n| small images, one thread | images per second |\n|---|---:|")
        for name, policy in SMALL.items():
            figures = [ours("small", args.small, 1, args, policy)["images_per_second"] for _ in range(args.rounds)]
            print(f"| {name} | {statistics.median(figures):.0f} |", flush=True)


if __name__ == "__main__":
    main()
