#!/usr/bin/env python3
"""Compares imported weights with the libraries they come from, and updates docs/parity.md.

    python scripts/parity.py --mbconv target/release/mbconv --images PHOTOGRAPHS...
        [--only TEXT] [--skip TEXT...] [--out docs/parity.md]

Each network is built in its library with random weights and random running statistics, saved in
that library's format and imported with `mbconv import`. Both programs compute the logits of the
photographs: the library with its own preprocessing, mbconv with `predict --logits --json`. The
photographs are converted to PNG first, so that both read the same pixels. The exit status is 1 if a
difference exceeds 1e-4 of the largest logit. Rows of networks that were not run stay in the table.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

from peers import logits, peers, randomise

LIMIT = 1e-4
# Markers around the table in the document.
BEGIN, END = "<!-- imports -->", "<!-- end of imports -->"
CLASSES = {"transformers": 1001}
COLUMNS = ("library", "network", "file", "detected as", "preprocessing", "largest logit", "largest difference", "relative")


def run(*command):
    """Runs a command and returns its standard output and standard error; raises if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout, done.stderr


def compare(peer, images, mbconv, folder):
    """Returns one row of the table."""
    model = peer.build(CLASSES.get(peer.source, 1000))
    preprocess = peer.preprocess(folder)
    batch = torch.stack([preprocess(Image.open(image).convert("RGB")) for image in images])
    colour = batch.expand(-1, 3, -1, -1)
    model = randomise(model, 0, torch.cat([colour, colour.flip(-1), colour.flip(-2)]))
    path = peer.write(model, folder)
    model = peer.finish(model)
    imported = folder / "imported.safetensors"
    _, told = run(mbconv, "import", path, imported, *peer.options)
    with torch.no_grad():
        expected = torch.cat([logits(model, image[None]) for image in batch])
    out, _ = run(mbconv, "predict", imported, *images, "--logits", "--json", "--device", "cpu")
    found = torch.tensor([prediction["logits"] for prediction in json.loads(out)])
    size = expected.abs().max().item()
    difference = (found - expected).abs().max().item()
    name = told.split(" with ")[0]
    applied = told.split("preprocessing ")[1].split(";")[0].split("\n")[0]
    applied = applied.split(": ", 1)[1].split(", mean")[0]
    return (peer.source, peer.name, peer.file, name, applied, size, difference, difference / size)


def write(document, row):
    """Replaces the row of the same comparison in the document's table, or appends it."""
    line = f"| {' | '.join(row[:5])} | {row[5]:.3g} | {row[6]:.1e} | {row[7]:.1e} |"
    before, rest = document.read_text().split(BEGIN)
    table, after = rest.split(END)
    lines = {tuple(line.split(" | ")[:5]): line for line in table.strip().split("\n")[2:]}
    lines[tuple(line.split(" | ")[:5])] = line
    head = [f"| {' | '.join(COLUMNS)} |", "|---|---|---|---|---|---:|---:|---:|"]
    document.write_text(f"{before}{BEGIN}\n" + "\n".join([*head, *lines.values()]) + f"\n{END}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mbconv", required=True)
    parser.add_argument("--images", nargs="+", required=True)
    parser.add_argument("--only", default="", help="only networks whose library and name contain this text")
    parser.add_argument("--skip", nargs="*", default=[], help="skip networks whose library and name contain one of these texts")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        images = []
        for index, image in enumerate(arguments.images):
            images.append(Path(folder) / f"{index:03}.png")
            Image.open(image).convert("RGB").save(images[-1])
        for peer in peers():
            called = f"{peer.source} {peer.name}"
            if arguments.only not in called or any(text in called for text in arguments.skip):
                continue
            with tempfile.TemporaryDirectory() as place:
                try:
                    row = compare(peer, images, arguments.mbconv, Path(place))
                except RuntimeError as error:
                    print(f"{called}: {error}", file=sys.stderr)
                    worst = float("inf")
                    continue
            worst = max(worst, row[-1])
            if arguments.out:
                write(arguments.out, row)
            print(*row[:5], f"{row[5]:.3g} {row[6]:.1e} {row[7]:.1e}", sep=" | ", flush=True)
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
