#!/usr/bin/env bash
# Runs the kernels' unsafe loops under AddressSanitizer with every instruction set of this machine:
# first their unit tests, which include arguments that do not fit each other, then all loops of
# inference and training on odd and empty shapes.
# Requires a toolchain with the sanitizer runtime, such as rustup's on x86-64 Linux.
set -euo pipefail
cd "$(dirname "$0")/../crates/kernels/sanitize"
export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
export RAYON_NUM_THREADS=3 ASAN_OPTIONS=detect_leaks=0
host=$(rustc -vV | sed -n 's/^host: //p')
cargo test --no-run --target "$host"
cargo build --release --target "$host"
for instructions in portable avx2 best; do
    MBCONV_CPU=$instructions cargo test --quiet --target "$host"
    MBCONV_CPU=$instructions "$CARGO_TARGET_DIR/$host/release/sanitize"
done
