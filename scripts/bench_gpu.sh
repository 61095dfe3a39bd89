#!/usr/bin/env bash
# Training and inference on a GPU beside PyTorch, in one call under ten minutes: see bench_gpu.py, which takes the arguments.
#   scripts/bench_gpu.sh [--device cuda|vulkan|wgpu] [--batch-size 256] [--input-size 224] [--minutes 9] ...
# Builds the program with that device first, which does not count; --mbconv FILE names one that is built.
set -euo pipefail
cd "$(dirname "$0")/.."

device=cuda
program=
arguments=("$@")
while [ $# -gt 0 ]; do
    case "$1" in
        --device) device="$2"; shift ;;
        --mbconv) program="$2"; shift ;;
    esac
    shift
done
kind="${device%%:*}"
if [ -z "$program" ]; then
    program="${CARGO_TARGET_DIR:-target}/release/mbconv"
    if [ "$kind" = cpu ]; then cargo build --release; else cargo build --release --features "$kind"; fi
fi
exec python3 scripts/bench_gpu.py --device "$device" ${arguments[@]+"${arguments[@]}"} --mbconv "$program"
