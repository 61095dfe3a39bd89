#!/usr/bin/env bash
# Trains one epoch of the digits on every backend and compares it with the CPU's.
#
#   scripts/check_backends.sh [ndarray] [wgpu] [mpi]       default: all three
#
# Each backend must reach the CPU's training loss within 1 %, and give the CPU's trained model the
# CPU's validation loss within 0.1 %. wgpu runs on Mesa's software Vulkan if there is no GPU. mpi
# trains with two processes.
#
# Requires mesa-vulkan-drivers for wgpu, libopenmpi-dev openmpi-bin clang libclang-dev for mpi.
set -euo pipefail
cd "$(dirname "$0")/.."

backends=("$@")
[ ${#backends[@]} -gt 0 ] || backends=(ndarray wgpu mpi)
features=$(IFS=,; echo "${backends[*]}")
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

cargo build --release --package mbconv --features "$features"
mbconv=${CARGO_TARGET_DIR:-target}/release/mbconv

# Prints the training loss of the first epoch.
training_loss() { awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i } NR == 2 { print $column["train_loss"] }' "$1/metrics.csv"; }
# Prints the validation loss of the CPU's model on a device.
validation_loss() { "$mbconv" eval "$runs/cpu" --data digits --device "$1" --json | sed -n 's/^ *"loss": \([0-9.e+-]*\),*$/\1/p'; }
# Fails if two numbers differ by more than a share.
compare() {
    awk -v name="$1" -v cpu="$2" -v other="$3" -v share="$4" 'BEGIN {
        difference = (other - cpu) / cpu
        printf "%-28s cpu %.6f, here %.6f, difference %+.3f %%\n", name, cpu, other, 100 * difference
        exit !(difference <= share && difference >= -share)
    }'
}

# A low learning rate and no dropout, so that differences of rounding stay small.
train=(train digits --epochs 1 --set augment.on=workers --set optimizer.learning_rate=0.001 --set model.dropout=0)
"$mbconv" "${train[@]}" --device cpu --out "$runs/cpu"
for backend in "${backends[@]}"; do
    device=$backend
    launch=()
    if [ "$backend" = mpi ]; then
        device=cpu
        launch=(mpirun --allow-run-as-root --oversubscribe -np 2)
    fi
    "${launch[@]}" "$mbconv" "${train[@]}" --device "$device" --out "$runs/$backend"
    compare "$backend: training loss" "$(training_loss "$runs/cpu")" "$(training_loss "$runs/$backend")" 0.01
    compare "$backend: validation loss" "$(validation_loss cpu)" "$(validation_loss "$device")" 0.001
done
