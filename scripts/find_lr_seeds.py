#!/usr/bin/env python3
"""Runs `mbconv find-lr` with several seeds and compares the suggestions.

    scripts/find_lr_seeds.py [--program target/release/mbconv] [--seeds 5] -- ARGUMENTS

ARGUMENTS are passed to `find-lr`, such as `configs/digits.toml`, or `--weights MODEL --data PHOTOS`.
Exits with status 1 if a seed has no suggestion, or if the largest is more than twice the smallest.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--program", default="target/release/mbconv")
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("arguments", nargs="+")
options = parser.parse_args()

suggestions = []
with tempfile.TemporaryDirectory() as folder:
    for seed in range(options.seeds):
        # The sweeps of one run use consecutive seeds.
        command = [options.program, "find-lr", *options.arguments, "--set", f"seed={100 * seed}", "--json"]
        command += ["--out", os.path.join(folder, "curve.svg")]
        output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
        curve = json.loads(output)
        suggestions.append(curve["suggestion"])
        single = ", ".join("none" if rate is None else f"{rate:.1e}" for rate in curve["sweeps"])
        shown = "none" if curve["suggestion"] is None else f"{curve['suggestion']:.2e}"
        print(f"seed {100 * seed}: {shown} (single sweeps: {single}; fall {100 * curve['fall']:.0f} %)", flush=True)
if None in suggestions:
    sys.exit("some seeds have no suggestion")
ratio = max(suggestions) / min(suggestions)
print(f"largest / smallest: {ratio:.2f}")
sys.exit(ratio > 2)
