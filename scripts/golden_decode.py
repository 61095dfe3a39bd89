#!/usr/bin/env python3
"""Writes image files of many kinds and Pillow's pixels for the decoding tests.

    python scripts/golden_decode.py

Creates `crates/image/tests/fixtures/kinds` from the photograph `fixtures/decode/rgb.png`: each file,
and its `convert("RGB")` as a PNG file. Requires numpy, Pillow and `cjpeg` (Debian:
libjpeg-turbo-progs).
"""
import io
import pathlib
import struct
import zlib

import numpy as np
import PIL
from PIL import Image

import check_jpeg

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "crates/image/tests/fixtures"
JPEG = {
    "odd_420": "4:2:0, odd size", "quality_100": "4:2:0, quality 100", "440": "4:4:0, odd size", "411": "4:1:1",
    "410": "4:1:0", "1x4": "1×4", "chroma_above": "chroma above luma", "mixed": "mixed", "rgb": "RGB",
    "apart_420": "not interleaved 4:2:0", "apart_440": "not interleaved 4:4:0", "chroma_apart": "chroma apart",
    "first_scans": "first scans only", "means_only": "means only", "arithmetic": "arithmetic, restarts",
    "arithmetic_progressive": "arithmetic, progressive", "progressive_444": "progressive 4:4:4, odd size",
    "progressive_restarts": "restarts by block, progressive", "no_tables": "no tables", "damaged": "damaged 4:2:0",
    "damaged_restarts": "damaged, restarts", "damaged_progressive": "damaged, progressive",
    "cut_progressive": "cut off, progressive", "cut_baseline": "cut off", "5x1": "5×1 pixels",
}
TIFF_TYPES = {"H": 3, "I": 4}


def save(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def tiff(data, width, height, bits, photometric, samples=1, format=1, extra=None, colors=None, big_endian=False):
    """Returns an uncompressed TIFF file of a kind that Pillow cannot write."""
    order = ">" if big_endian else "<"
    tags = {256: ("H", [width]), 257: ("H", [height]), 258: ("H", [bits] * samples), 259: ("H", [1]),
            262: ("H", [photometric]), 273: ("I", [0]), 277: ("H", [samples]), 278: ("H", [height]),
            279: ("I", [len(data)]), 339: ("H", [format] * samples)}
    if extra is not None:
        tags[338] = ("H", [extra])
    if colors is not None:
        tags[320] = ("H", colors)
    place = 8 + 2 + 12 * len(tags) + 4
    sizes = {tag: len(values) * struct.calcsize(kind) for tag, (kind, values) in tags.items()}
    tags[273] = ("I", [place + sum(size for size in sizes.values() if size > 4)])
    entries, beside = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        raw = struct.pack(order + kind * len(values), *values)
        entries += struct.pack(order + "HHI", tag, TIFF_TYPES[kind], len(values))
        if len(raw) <= 4:
            entries += raw.ljust(4, b"\0")
        else:
            entries += struct.pack(order + "I", place + len(beside))
            beside += raw
    mark = b"MM\0*" if big_endian else b"II*\0"
    return mark + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(4) + beside + data


def tga(kind, depth, width, height, pixels, flags=0, identity=b"", palette=b"", colors=0, color_depth=0, first=0):
    return struct.pack("<BBBHHBHHHHBB", len(identity), palette != b"", kind, first, colors, color_depth, 0, 0, width,
                       height, depth, flags) + identity + palette + pixels


def gif(image, screen, left, top, background, transparent=None, local=False):
    """Returns a GIF whose frame has an offset on a screen of another size."""
    data = save(image, "GIF", interlace=0)
    colors = 3 * (2 << (data[10] & 7))
    table, at = data[13:13 + colors], data.index(b"\x2c", 13 + colors)
    flags = data[10] | 0x80
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, flags, background, 0) + (table[::-1] if local else table)
    if transparent is not None:
        out += b"\x21\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    out += b"\x2c" + struct.pack("<HHHHB", left, top, *image.size, 0x80 | flags & 7 if local else 0)
    return out + (table if local else b"") + data[at + 10:]


def bmp(width, height, depth, compression, rest, data):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, len(data), 0, 0, 0, 0) + rest
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(data), 0, 0, 14 + len(header)) + header + data


def rows(array, align):
    """Returns rows from bottom to top, padded to a multiple of `align` bytes."""
    return b"".join(row.tobytes() + bytes(-row.nbytes % align) for row in array[::-1])


def change_png(data, chunk=None, at_end=0):
    """Corrupts the checksum of a chunk and cuts off bytes at the end."""
    data = bytearray(data[: len(data) - at_end])
    if chunk:
        at = data.index(chunk)
        data[at + 4 + int.from_bytes(data[at - 4:at], "big")] ^= 0xFF
    return bytes(data)


def png16(values, transparent):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    data = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)),
              chunk(b"tRNS", struct.pack(">H", transparent)), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def files(photo):
    for name, kind in JPEG.items():
        yield f"{name}.jpg", {**check_jpeg.KINDS, **check_jpeg.CJPEG_KINDS}[kind](photo)
    rgb = photo.crop((4, 3, 27, 22))
    gray, palette = rgb.convert("L"), rgb.quantize(16)
    a, g, p = np.asarray(rgb), np.asarray(gray), np.asarray(palette)
    height, width = g.shape
    alpha = np.linspace(0, 255, width, dtype=np.uint8)[None].repeat(height, 0)
    rgba = Image.fromarray(np.dstack([a, alpha]))
    colors = palette.getpalette()[:48]
    red, green, blue = (a[..., i].astype(np.uint16) for i in range(3))
    bits15 = ((red >> 3) << 10 | (green >> 3) << 5 | blue >> 3).astype("<u2")
    bits16 = ((red >> 3) << 11 | (green >> 2) << 5 | blue >> 3).astype("<u2")
    halves = np.pad(p, ((0, 0), (0, 1)))
    halves = (halves[:, ::2] << 4 | halves[:, 1::2]).astype(np.uint8)
    spread = [value * 257 for band in range(3) for value in colors[band::3]]

    yield "palette.tif", save(palette, "TIFF")
    yield "palette_4_bits.tif", tiff(halves.tobytes(), width, height, 4, 3, colors=spread)
    yield "white_is_zero.tif", tiff(g.tobytes(), width, height, 8, 0)
    yield "signed_16.tif", tiff((g * 3 - 200.0).astype(">i2").tobytes(), width, height, 16, 1, format=2, big_endian=True)
    yield "signed_32.tif", save(Image.fromarray(g.astype(np.int32) * 2 - 50), "TIFF", compression="tiff_lzw")
    yield "float.tif", save(Image.fromarray(g.astype(np.float32) * 1.5 - 20.25), "TIFF", compression="tiff_adobe_deflate")
    yield "gray_alpha.tif", tiff(np.dstack([g, alpha]).tobytes(), width, height, 8, 1, samples=2, extra=2)
    yield "premultiplied.tif", tiff(np.asarray(rgba).tobytes(), width, height, 8, 2, samples=4, extra=1)
    yield "unspecified_alpha.tif", tiff(np.asarray(rgba).tobytes(), width, height, 8, 2, samples=4, extra=0)
    ink = (255 - np.asarray(rgba)).astype("<u2") * 257
    yield "cmyk_16.tif", tiff(ink.tobytes(), width, height, 16, 5, samples=4)
    yield "predictor.tif", save(rgb, "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    yield "packbits.tif", save(rgb.convert("1"), "TIFF", compression="packbits")
    yield "group4.tif", save(rgb.convert("1"), "TIFF", compression="group4")
    yield "jpeg.tif", save(rgb, "TIFF", compression="jpeg")
    yield "zstd.tif", save(rgb, "TIFF", compression="zstd")
    yield "big.tif", save(rgb, "TIFF", big_tiff=True)
    for orientation in range(2, 9):
        yield f"orientation{orientation}.tif", save(rgb, "TIFF", compression="tiff_lzw", tiffinfo={274: orientation})

    yield "rgb.tga", save(rgb, "TGA")
    yield "run_lengths.tga", save(rgba, "TGA", compression="tga_rle")
    yield "from_top.tga", save(gray, "TGA", orientation=1)
    yield "palette.tga", save(palette, "TGA")
    yield "identity_from_right.tga", tga(2, 24, width, height, rows(a[..., ::-1], 1), 0x10, b"identity")
    yield "bits15.tga", tga(2, 16, width, height, rows(bits15, 1))
    yield "palette15.tga", tga(1, 8, width, height, p.tobytes(), 0x20, b"", struct.pack("<16H", *(
        colors[3 * i] >> 3 << 10 | colors[3 * i + 1] >> 3 << 5 | colors[3 * i + 2] >> 3 for i in range(16))), 16, 16)

    yield "small.gif", gif(palette, (40, 30), 7, 9, 5)
    yield "small_transparent.gif", gif(palette, (40, 30), 7, 9, 5, transparent=9)
    yield "small_local.gif", gif(palette, (40, 30), 7, 9, 5, local=True)
    yield "beyond.gif", gif(palette, (width, height), 5, 3, 0)
    yield "gray.gif", gif(gray, (40, 30), 3, 3, 200)

    yield "bits15.bmp", bmp(width, height, 16, 0, b"", rows(bits15, 4))
    yield "bits16.bmp", bmp(width, height, 16, 3, struct.pack("<III", 0xF800, 0x7E0, 0x1F), rows(bits16, 4))
    yield "from_top.bmp", bmp(width, -height, 24, 0, b"", rows(a[::-1, :, ::-1], 4))

    yield "maximum_100.pgm", b"P5\n%d %d\n100\n" % gray.size + (g * 100.0 / 255).astype(np.uint8).tobytes()
    yield "maximum_1000.pgm", b"P5\n%d %d\n1000\n" % gray.size + (g * 4).astype(">u2").tobytes()
    yield "maximum_1000.ppm", b"P6\n%d %d\n1000\n" % gray.size + (a * 3.9).astype(">u2").tobytes()
    yield "plain.ppm", b"P3 #comment\n%d %d 99\n" % gray.size + " ".join(str(v) for v in (a // 3).ravel()).encode()
    yield "plain.pbm", b"P1\n%d %d\n" % gray.size + "".join(str(v) for v in (g.ravel() < 128).astype(int)).encode()

    square = rgb.resize((32, 32))
    yield "rgb.ico", save(square, "ICO", sizes=[(32, 32), (16, 16)])
    yield "bmp.ico", save(square, "ICO", sizes=[(32, 32)], bitmap_format="bmp")
    yield "palette.ico", save(square.quantize(16), "ICO", sizes=[(32, 32)], bitmap_format="bmp")

    yield "wrong_checksum.png", change_png(save(rgb, "PNG"), b"IDAT")
    yield "no_end.png", change_png(save(rgb, "PNG"), at_end=12)
    yield "gray16_transparent.png", png16(g.astype(np.uint16) * 2 + 20, int(g[0, 0]) * 2 + 20)


def main():
    out = FIXTURES / "kinds"
    out.mkdir(exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    photo = Image.open(FIXTURES / "decode/rgb.png").convert("RGB")
    total = 0
    for name, data in files(photo):
        (out / name).write_bytes(data)
        pixels = Image.open(io.BytesIO(data)).convert("RGB")
        # Drops the transparency metadata.
        Image.fromarray(np.asarray(pixels)).save(out / f"{name}.rgb.png", optimize=True)
        total += 1
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"Pillow {PIL.__version__}: {total} files and their pixels, {size} bytes in {out}")


if __name__ == "__main__":
    main()
