#!/usr/bin/env python3
"""Compares what mbconv makes of other projects' weights with what their homes do, and writes docs/parity.md.

    python scripts/parity.py --mbconv target/release/mbconv --images PHOTOGRAPHS... [--only TEXT] [--out docs/parity.md]

Each network is built in its home with random weights and random running statistics, written as its home would, imported
with `mbconv import`, and fed the photographs by both: the home with its own preprocessing, mbconv with
`predict --logits --json`. The photographs are converted to PNG first, so that both see the same pixels. Status 1 where the
largest difference exceeds 1e-4 of the logits' size. The document keeps the rows of networks that were not run.
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
# Where in the document the table stands.
BEGIN, END = "<!-- imports -->", "<!-- end of imports -->"
CLASSES = {"transformers": 1001}
COLUMNS = ("source", "network", "file", "found", "preprocessing", "size of the logits", "largest difference", "relative")


def run(*command):
    """Standard output and standard error of a command that succeeds."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout, done.stderr


def compare(peer, images, mbconv, folder):
    """One row of the table."""
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
    """Puts a row into the document's table: in the place of the same comparison, or at the end."""
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
    parser.add_argument("--only", default="", help="peers whose source and name contain this")
    parser.add_argument("--skip", nargs="*", default=[], help="peers whose source and name contain one of these")
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
