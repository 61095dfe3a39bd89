#!/usr/bin/env python3
"""Makes a small image folder for fine-tuning: upscaled CIFAR-10 test images.

    python scripts/make_finetune_set.py cifar10-jpg.tar.gz OUT [--train 60] [--val 100] [--size 128]

The archive contains `test/<class>/NNNN.jpg`. The first 60 images of each class go to `OUT/train/`,
the next 100 to `OUT/val/`. Class folders are named `small_<class>`, so that a model trained on
CIFAR-10 gets a new classifier.
"""
import argparse
import collections
import io
import pathlib
import tarfile

from PIL import Image


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--val", type=int, default=100)
    parser.add_argument("--size", type=int, default=128)
    args = parser.parse_args()
    images = collections.defaultdict(list)
    with tarfile.open(args.archive) as archive:
        for member in archive:
            parts = pathlib.PurePath(member.name).parts
            if len(parts) >= 3 and parts[-3] == "test" and member.isfile():
                images[parts[-2]].append((parts[-1], archive.extractfile(member).read()))
    for name, files in sorted(images.items()):
        files.sort()
        for index, (file, data) in enumerate(files[: args.train + args.val]):
            folder = args.out / ("train" if index < args.train else "val") / f"small_{name}"
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.open(io.BytesIO(data)).convert("RGB").resize((args.size, args.size), Image.Resampling.BICUBIC)
            image.save(folder / file, quality=95)
    print(f"{len(images)} classes in {args.out}")


if __name__ == "__main__":
    main()
