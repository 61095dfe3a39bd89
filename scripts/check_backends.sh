#!/usr/bin/env bash
# Trains one epoch of the digits on every backend that this machine can build and run, and compares
# the loss and the accuracy with the CPU's.
#
#   scripts/check_backends.sh [ndarray] [wgpu] [mpi]      default: all three
#
# wgpu needs a Vulkan driver (Mesa's software driver will do), mpi an MPI library and libclang.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

# train NAME FEATURES DEVICE [LAUNCHER …]: trains one epoch into $runs/NAME
train() {
    local name=$1 features=$2 device=$3
    shift 3
    cargo build --release --package mbconv --features "$features"
    "$@" "$CARGO_TARGET_DIR/release/mbconv" train configs/digits.toml --set epochs=1 --device "$device" \
        --out "$runs/$name" 2> "$runs/$name.log" || { cat "$runs/$name.log"; exit 1; }
}

# The columns of metrics.csv by name.
compare() {
    python3 - "$runs/cpu/metrics.csv" "$runs/$1/metrics.csv" "$1" <<'PYTHON'
import csv
import sys

cpu, other = (next(csv.DictReader(open(path))) for path in sys.argv[1:3])
failed = False
for key, most in {"train_loss": 0.02, "val_loss": 0.05, "val_top1": 0.02}.items():
    a, b = float(cpu[key]), float(other[key])
    agrees = abs(a - b) <= most
    failed |= not agrees
    print(f"{sys.argv[3]:8} {key:10} {b:.5f}, on the CPU {a:.5f}{'' if agrees else '  DIFFERENT'}")
sys.exit(failed)
PYTHON
}

train cpu "" cpu
for backend in ${@:-ndarray wgpu mpi}; do
    case $backend in
        ndarray | wgpu) train "$backend" "$backend" "$backend" ;;
        mpi) train mpi mpi cpu mpirun --allow-run-as-root --oversubscribe -n 2 ;;
        *) echo "unknown backend $backend" >&2; exit 2 ;;
    esac
    compare "$backend"
done
