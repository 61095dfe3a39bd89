#!/usr/bin/env python3
"""Writes the fixtures of the data pipeline's tests: images as processed by Pillow and torchvision.

    python scripts/golden_resize.py FOLDER_OF_PHOTOGRAPHS

Uses the first landscape and the first portrait photograph of the folder by name, and writes to
crates/image/tests/fixtures/resize and .../decode. Requires numpy, Pillow, timm and torchvision.
"""
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
import torchvision
from PIL import Image, ImageOps
from timm.data import create_transform
from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

FIXTURES = Path(__file__).resolve().parent.parent / "crates" / "image" / "tests" / "fixtures"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
FILTERS = {
    "bilinear": (Image.BILINEAR, InterpolationMode.BILINEAR),
    "bicubic": (Image.BICUBIC, InterpolationMode.BICUBIC),
    "nearest": (Image.NEAREST, InterpolationMode.NEAREST),
}


def save_png(image, path):
    image.save(path, optimize=True)


def resize_fixtures(photos):
    out = FIXTURES / "resize"
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.png"):
        old.unlink()
    landscape = next(p for p in photos if p.width > p.height).resize((151, 113), Image.LANCZOS)
    portrait = next(p for p in photos if p.width < p.height).resize((83, 120), Image.LANCZOS)
    for name, photo, size, fraction in [
        ("landscape", landscape, (40, 72), 0.8),
        ("landscape", landscape, (61, 33), 1.0),
        ("portrait", portrait, (40, 72), 1.0),
        ("portrait", portrait, (61, 33), 0.8),
    ]:
        height, width = size
        for mode in ("center", "squash", "border"):
            evaluation = create_transform((3, height, width), crop_pct=fraction, crop_mode=mode, normalize=False)
            resized = f"{int(height / fraction)}x{int(width / fraction)}"
            save_png(F.to_pil_image(evaluation(photo)), out / f"{name}_{mode}{resized}_crop{height}x{width}.png")
    for name, photo, size in [("landscape", landscape, (40, 72)), ("portrait", portrait, (61, 33))]:
        crop = F.resized_crop(photo, 0, 0, photo.height, photo.width, size)
        save_png(crop, out / f"{name}_resized_crop{size[0]}x{size[1]}.png")
    for name, photo, side, preprocess in [
        # (name, photograph, side of the stretched square, (resize, crop) of evaluation)
        ("landscape", landscape, 64, [(57, 48)]),
        ("portrait", portrait, 97, [(57, 48), (86, 97)]),
    ]:
        save_png(photo, out / f"{name}.png")
        for filter, (pillow, mode) in FILTERS.items():
            save_png(photo.resize((side, side), pillow), out / f"{name}_stretch{side}_{filter}.png")
            # Centering below 1/2 rounds half pixels down, as timm does.
            color = tuple(round(255 * value) for value in IMAGENET_MEAN)
            box = ImageOps.pad(photo, (side, side), pillow, color, (0.499, 0.499))
            save_png(box, out / f"{name}_letterbox{side}_{filter}.png")
            timms = CenterCropOrPad(side, color)(ResizeKeepRatio(side, 1.0, filter)(photo))
            assert filter == "nearest" or np.array_equal(np.asarray(timms), np.asarray(box))
            for size, crop in preprocess:
                evaluation = v2.Compose([v2.Resize(size, interpolation=mode), v2.CenterCrop(crop)])
                save_png(evaluation(photo), out / f"{name}_resize{size}_crop{crop}_{filter}.png")


def png(rows, bits, colour, extra=()):
    """Returns a PNG file of a kind that Pillow cannot write, from packed rows."""
    width, rows = rows

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows), 9)
    chunks = [chunk(b"IHDR", header), *(chunk(k, d) for k, d in extra), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def encode(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def adobe_transform(jpeg, transform):
    """Returns the JPEG with another color transform in Adobe's marker."""
    at = jpeg.index(b"Adobe") + 11
    return jpeg[:at] + bytes([transform]) + jpeg[at + 1 :]


def without_adobe(jpeg):
    at = jpeg.index(b"\xff\xee")
    length = int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg[:at] + jpeg[at + 2 + length :]


def decode_fixtures(photo):
    out = FIXTURES / "decode"
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        if old.suffix != ".md":
            old.unlink()
    side = min(photo.size)
    rgb = photo.resize((37, 29), Image.LANCZOS, box=(0, 0, side, side * 29 // 37))
    a = np.asarray(rgb)
    height, width, _ = a.shape
    ramp = np.linspace(0, 255, width, dtype=np.uint8)[None].repeat(height, 0)
    rgba = Image.fromarray(np.dstack([a, ramp]))
    grey = rgb.convert("L")
    la = Image.merge("LA", [grey, Image.fromarray(ramp)])
    rng = np.random.default_rng(0)
    wide = a.astype(np.uint16) * 257 ^ rng.integers(0, 256, a.shape, dtype=np.uint16)
    # Half of the values are below 256, to distinguish clipping from scaling.
    grey16 = np.where(np.arange(width) % 2, wide[..., 0], wide[..., 0] >> 8).astype(np.uint16)
    palette = rgb.quantize(31)
    frames = [palette, rgb.transpose(Image.FLIP_LEFT_RIGHT).quantize(31)]
    # All four inks occur.
    cmyk = Image.fromarray(np.dstack([255 - a, ramp // 2]), mode="CMYK")
    cmyk_jpeg = encode(cmyk, "JPEG", quality=92)

    def big(array):
        return (width, [row.astype(">u2").tobytes() for row in array])

    def packed(array, bits):
        rows = []
        for row in array:
            digits = "".join(f"{value:0{bits}b}" for value in row)
            digits += "0" * (-len(digits) % 8)
            rows.append(int(digits, 2).to_bytes(len(digits) // 8, "big"))
        return (width, rows)

    g = np.asarray(grey)
    files = {
        "baseline_420.jpg": encode(rgb, "JPEG", quality=90, subsampling=2),
        "baseline_422.jpg": encode(rgb, "JPEG", quality=90, subsampling=1),
        "baseline_444.jpg": encode(rgb, "JPEG", quality=90, subsampling=0),
        "progressive.jpg": encode(rgb, "JPEG", quality=90, progressive=True),
        "restarts.jpg": encode(rgb, "JPEG", quality=90, restart_marker_blocks=2),
        "grey.jpg": encode(grey, "JPEG", quality=90),
        "adobe_rgb.jpg": encode(rgb, "JPEG", quality=90, keep_rgb=True),
        "cmyk.jpg": cmyk_jpeg,
        "cmyk_not_adobe.jpg": without_adobe(cmyk_jpeg),
        "ycck.jpg": adobe_transform(cmyk_jpeg, 2),
        "rgb.png": encode(rgb, "PNG"),
        "rgba.png": encode(rgba, "PNG"),
        "la.png": encode(la, "PNG"),
        "palette.png": encode(palette, "PNG"),
        "palette_transparent.png": encode(palette, "PNG", transparency=bytes([0, 128, 255] * 10 + [7])),
        "bits1.png": encode(grey.convert("1"), "PNG"),
        "bits2.png": png(packed(g >> 6, 2), 2, 0),
        "bits4.png": png(packed(g >> 4, 4), 4, 0, [(b"tRNS", struct.pack(">H", 9))]),
        "grey16.png": png(big(grey16), 16, 0),
        "rgb16.png": png(big(wide.reshape(height, -1)), 16, 2),
        "la16.png": png(big(np.dstack([grey16, wide[..., 1]]).reshape(height, -1)), 16, 4),
        "rgba16.png": png(big(np.dstack([wide, wide[..., 1]]).reshape(height, -1)), 16, 6),
        "animated.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "transparent.gif": encode(palette, "GIF", transparency=3),
        "lossless.webp": encode(rgba, "WEBP", lossless=True, exact=True),
        "animated.webp": encode(rgb, "WEBP", lossless=True, save_all=True, append_images=[rgb.rotate(180)]),
        "rgb.bmp": encode(rgb, "BMP"),
        "palette.bmp": encode(palette, "BMP"),
        "rgb.tif": encode(rgb, "TIFF", compression="tiff_lzw"),
        "cmyk.tif": encode(cmyk, "TIFF", compression="tiff_deflate"),
        "grey16.tif": encode(Image.fromarray(grey16), "TIFF"),
        "grey.pgm": encode(grey, "PPM"),
    }
    for name, data in files.items():
        (out / name).write_bytes(data)
        expected = Image.open(io.BytesIO(data)).convert("RGB")
        save_png(expected, out / f"{name}.rgb.png")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    paths = sorted(Path(sys.argv[1]).iterdir())
    photos = [Image.open(p).convert("RGB") for p in paths if p.suffix.lower() in (".jpg", ".jpeg", ".png")]
    resize_fixtures(photos)
    decode_fixtures(photos[0])
    total = sum(p.stat().st_size for p in FIXTURES.rglob("*") if p.is_file())
    print(f"Pillow {PIL.__version__}, torchvision {torchvision.__version__}: {total} bytes under {FIXTURES}")


main()
