"""Packs image folders with `mbconv data pack` and reads them with `webdataset` and `datasets`.

    python scripts/check_shards.py DATA --mbconv target/release/mbconv [--size 256]

Every image must occur once with its class, byte by byte. With --size, it must match Pillow's bilinear
resize up to JPEG loss. A second run with one thread must write the same bytes.

DATA contains `train/` and `val/` with class folders.
"""

import argparse
import collections
import hashlib
import io
import json
import pathlib
import subprocess
import tempfile

import datasets
import numpy
import webdataset
from PIL import Image


def pixels(image):
    return numpy.asarray(image.convert("RGB"))


def resized(image, size):
    """Resizes like torchvision's Resize(size)."""
    w, h = image.size
    if min(w, h) <= size:
        return None
    w, h = (size, int(size * h / w)) if w <= h else (int(size * w / h), size)
    return image.convert("RGB").resize((w, h), Image.BILINEAR)


def read_wds(out, split, classes):
    shards = sorted(str(path) for path in out.glob(f"{split}-*.tar"))
    images = ("jpg", "jpeg", "png", "gif", "bmp", "webp", "tiff", "pnm")
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
        (extension,) = [key for key in sample if key in images]
        yield sample[extension], classes[int(sample["cls"])]


def read_parquet(out, split, classes):
    names = {"train": "train", "val": "validation", "test": "test"}
    data = datasets.load_dataset(str(out), split=names[split], cache_dir=str(out.parent / "cache"))
    assert data.features["label"].names == classes, data.features
    assert isinstance(data.features["image"], datasets.Image), data.features
    first = data[0]["image"]
    assert isinstance(first, Image.Image)
    for sample in data.cast_column("image", datasets.Image(decode=False)):
        yield sample["image"]["bytes"], classes[sample["label"]]


def check(data, mbconv, form, size):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        extra = ["--size", str(size)] if size else []

        def pack(name, *more):
            out = folder / name
            command = [mbconv, "data", "pack", data, out, "--format", form, "--shard-size", "25", *extra, *more]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}

        hashes = pack("a")
        assert hashes == pack("b", "--workers", "1"), "another number of threads wrote other bytes"
        manifest = json.loads((folder / "a" / "manifest.json").read_text())
        shards = {shard["file"]: shard["sha256"] for split in manifest["splits"] for shard in split["shards"]}
        assert all(hashes[file] == sha for file, sha in shards.items())
        assert set(hashes) == {*shards, "manifest.json", "classes.txt"}
        classes = (folder / "a" / "classes.txt").read_text().splitlines()

        count, worst = 0, 99.0
        for split in ("train", "val"):
            originals = collections.defaultdict(list)
            for path in (pathlib.Path(data) / split).rglob("*"):
                if path.is_file():
                    original = path.read_bytes()
                    small = resized(Image.open(io.BytesIO(original)), size) if size else None
                    key = pixels(small).shape if small else original
                    originals[path.parent.name, key].append(None if small is None else pixels(small))
            read = {"wds": read_wds, "parquet": read_parquet}[form]
            for stored, label in read(folder / "a", split, classes):
                count += 1
                if (label, stored) in originals:
                    originals[label, stored].pop()
                    if not originals[label, stored]:
                        del originals[label, stored]
                    continue
                image = pixels(Image.open(io.BytesIO(stored)))
                candidates = originals[label, image.shape]

                def psnr(other):
                    error = numpy.mean((image.astype(float) - other) ** 2)
                    return 99.0 if error == 0 else 10 * numpy.log10(255**2 / error)

                best = max(range(len(candidates)), key=lambda i: psnr(candidates[i]))
                worst = min(worst, psnr(candidates[best]))
                del candidates[best]
                if not candidates:
                    del originals[label, image.shape]
            assert not originals, f"{len(originals)} images are missing"
        assert worst > 30, f"an image has only {worst:.1f} dB"
        note = f", resized ones at least {worst:.1f} dB" if size else ""
        print(f"{form}{f' --size {size}' if size else ''}: {count} images, {len(shards)} shards, read back whole{note}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--mbconv", default="target/release/mbconv")
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    datasets.disable_progress_bars()
    for form in ("wds", "parquet"):
        for size in (None, args.size):
            check(args.data, args.mbconv, form, size)


if __name__ == "__main__":
    main()
