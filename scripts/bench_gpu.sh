#!/usr/bin/env bash
# Compares training and inference on a GPU with PyTorch in less than ten minutes.
#   scripts/bench_gpu.sh [--device cuda|vulkan|wgpu] [--batch-size 256] [--input-size 224] ...
# Arguments are those of bench_gpu.py. Builds the program for the device first, which does not count
# as measuring time; --mbconv FILE uses an existing program.
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
