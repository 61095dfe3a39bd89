#!/usr/bin/env python3
"""Compares the JPEG decoder's pixels with Pillow's, bit for bit.

    cargo build --release --example decode
    python scripts/check_jpeg.py PHOTOGRAPHS... [--count 200] [--program target/release/examples/decode]

PHOTOGRAPHS are folders of images. COUNT of them, evenly spaced, are encoded in each of the ways
below and decoded by both programs. Pillow writes most files; `cjpeg` and `jpegtran` (Debian:
libjpeg-turbo-progs) write samplings, scans and codings that Pillow cannot, and are skipped if
missing. Prints a Markdown table. The exit status is 1 if any pixel differs.
"""
import argparse
import io
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image, ImageFile

# One scan per component.
APART = "0;\n1;\n2;\n"
# Pillow needs arithmetic-coded data in one piece.
ImageFile.MAXBLOCK = 1 << 26
EXTENSIONS = {".jpg", ".jpeg", ".png"}


def pillow(**options):
    def encode(image):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        return buffer.getvalue()
    return encode


def as_mode(mode, **options):
    return lambda image: pillow(**options)(image.convert(mode))


def cropped(encode, width, height):
    return lambda image: encode(image.crop((0, 0, width, height)))


def odd(encode):
    """Crops to odd sides, so that blocks and chroma samples exceed the image."""
    return lambda image: encode(image.crop((0, 0, (image.width - 3) | 1, (image.height - 5) | 1)))


def cjpeg(*options, scans=None):
    def encode(image):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "image.ppm")
            image.save(source)
            command = ["cjpeg", *options]
            if scans:
                pathlib.Path(folder, "scans").write_text(scans)
                command += ["-scans", f"{folder}/scans"]
            return subprocess.run(command + [str(source)], check=True, stdout=subprocess.PIPE).stdout
    return encode


def without_tables(encode):
    """Removes the standard Huffman tables, as Motion JPEG does."""
    def strip(image):
        data, out, at = encode(image), b"\xff\xd8", 2
        while data[at + 1] != 0xDA:
            length = 2 + int.from_bytes(data[at + 2:at + 4], "big")
            out += b"" if data[at + 1] == 0xC4 else data[at:at + length]
            at += length
        return out + data[at:]
    return strip


def within_pixels(data, share):
    """Returns the offset after the given share of the data behind the header."""
    start = data.index(b"\xff\xda")
    return start + int((len(data) - start) * share)


def inside(encode):
    """Zeroes four bytes of the image data."""
    def damage(image):
        data = bytearray(encode(image))
        middle = within_pixels(data, 0.67)
        data[middle:middle + 4] = bytes(4)
        return bytes(data)
    return damage


def cut(encode):
    """Truncates the file and appends an end marker."""
    def shorten(image):
        data = encode(image)
        return data[: within_pixels(data, 0.6)] + b"\xff\xd9"
    return shorten


KINDS = {
    "4:4:4": pillow(quality=90, subsampling=0),
    "4:2:2": pillow(quality=85, subsampling=1),
    "4:2:0": pillow(quality=75, subsampling=2),
    "4:2:0, odd size": odd(pillow(quality=92, subsampling=2)),
    "4:2:2, odd size": odd(pillow(quality=60, subsampling=1)),
    "4:2:0, quality 100": pillow(quality=100, subsampling=2),
    "4:2:0, quality 5": pillow(quality=5, subsampling=2),
    "gray": as_mode("L", quality=88),
    "CMYK": as_mode("CMYK", quality=88),
    "optimized tables": pillow(quality=80, optimize=True),
    "progressive 4:2:0": pillow(quality=80, progressive=True),
    "progressive 4:4:4, odd size": odd(pillow(quality=95, subsampling=0, progressive=True)),
    "progressive gray": as_mode("L", quality=80, progressive=True),
    "restarts by row": pillow(quality=80, restart_marker_rows=1),
    "restarts by block, progressive": pillow(quality=80, progressive=True, restart_marker_blocks=5),
    "no tables": without_tables(pillow(quality=80)),
    "damaged 4:2:0": inside(pillow(quality=80)),
    "cut off": cut(pillow(quality=80)),
    "cut off, progressive": cut(pillow(quality=80, progressive=True)),
    "damaged, restarts": inside(pillow(quality=80, restart_marker_blocks=7)),
    "damaged, progressive": inside(pillow(quality=80, progressive=True)),
    **{f"{w}×{h} pixels": cropped(pillow(quality=90, subsampling=2), w, h) for w, h in [(1, 1), (2, 3), (5, 1), (17, 16)]},
}
CJPEG_KINDS = {
    "4:4:0": cjpeg("-quality", "85", "-sample", "1x2"),
    "4:4:0, odd size": odd(cjpeg("-quality", "85", "-sample", "1x2")),
    "4:1:1": cjpeg("-quality", "85", "-sample", "4x1"),
    "4:1:0": odd(cjpeg("-quality", "85", "-sample", "4x2")),
    "1×4": odd(cjpeg("-quality", "85", "-sample", "1x4")),
    "chroma above luma": odd(cjpeg("-quality", "85", "-sample", "1x1,2x2,2x1")),
    "mixed": odd(cjpeg("-quality", "85", "-sample", "2x2,1x2,2x1")),
    "RGB": cjpeg("-rgb", "-quality", "85"),
    "not interleaved 4:2:0": odd(cjpeg("-quality", "90", "-sample", "2x2", scans=APART)),
    "not interleaved 4:4:0": odd(cjpeg("-quality", "90", "-sample", "1x2", scans=APART)),
    "chroma apart": cjpeg("-quality", "90", scans="0;\n1 2;\n"),
    "first scans only": cjpeg("-quality", "90", scans="0 1 2: 0-0, 0, 0;\n0: 1-5, 0, 2;\n"),
    "means only": odd(cjpeg("-quality", "90", scans="0 1 2: 0-0, 0, 1;\n")),
    "arithmetic": cjpeg("-arithmetic", "-quality", "85"),
    "arithmetic, restarts": cjpeg("-arithmetic", "-restart", "1", "-quality", "85"),
    "arithmetic, progressive": odd(cjpeg("-arithmetic", "-progressive", "-quality", "85")),
}


def by_pillow(data):
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, SyntaxError):
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--program", default="target/release/examples/decode")
    args = parser.parse_args()
    files = sorted(
        path for folder in args.photographs for path in pathlib.Path(folder).rglob("*")
        if path.suffix.lower() in EXTENSIONS
    )
    files = files[:: max(len(files) // args.count, 1)][: args.count]
    kinds = {"as it is": None, **KINDS}
    if shutil.which("cjpeg"):
        kinds |= CJPEG_KINDS
    decoder = subprocess.Popen([args.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    failed = False
    print("| kind | files | files that differ | pixels that differ | greatest difference |\n|---|---:|---:|---:|---:|")
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        for kind, encode in kinds.items():
            count = different = pixels = greatest = 0
            for path in files:
                data = encode(Image.open(path).convert("RGB")) if encode else path.read_bytes()
                theirs = by_pillow(data)
                file.seek(0)
                file.truncate()
                file.write(data)
                file.flush()
                decoder.stdin.write(file.name.encode() + b"\n")
                decoder.stdin.flush()
                width, height = struct.unpack("<II", decoder.stdout.read(8))
                ours = np.frombuffer(decoder.stdout.read(width * height * 3), np.uint8)
                if theirs is None and width * height == 0:
                    continue
                count += 1
                if theirs is None or theirs.shape != (height, width, 3):
                    different, pixels, greatest = different + 1, pixels + width * height, 255
                    print(f"{path}, {kind}: {width}×{height}, Pillow {theirs if theirs is None else theirs.shape}", file=sys.stderr)
                    continue
                distance = np.abs(ours.reshape(theirs.shape).astype(int) - theirs).max(axis=2)
                if distance.any():
                    different += 1
                    pixels += int(np.count_nonzero(distance))
                    greatest = max(greatest, int(distance.max()))
            failed |= different > 0
            print(f"| {kind} | {count} | {different} | {pixels} | {greatest} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
