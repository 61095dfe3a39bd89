#!/usr/bin/env bash
# Compares one process using all threads with several processes sharing the threads: images per
# second and MPI's time per update.
#
#     cargo build --release --features mpi
#     scripts/bench_mpi.sh RECIPE DATA [PROCESSES…]     # by default 1 and 2
#
# Each run trains two epochs; the second one is measured.
set -euo pipefail
recipe=$1 data=$2; shift 2
program=${MBCONV:-target/release/mbconv}
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
echo "| processes | threads each | images per second | communication |"
echo "|---:|---:|---:|---|"
cores=$(nproc)
train() {
    local name=$1 threads=$2; shift 2
    "$@" "$program" train "$recipe" --data "$data" --device cpu --threads "$threads" --out "$runs/$name" \
        --set epochs=2 ${SET:+--set "$SET"} > /dev/null 2> "$runs/$name.log" || { cat "$runs/$name.log"; exit 1; }
    local speed
    speed=$(awk -F, 'NR == 3 { print $9 }' "$runs/$name/metrics.csv")
    echo "| ${name#n} | $threads | $speed | $(grep '^communication' "$runs/$name/log.txt" | tail -1 | cut -d' ' -f2-) |"
}
train n1 "$cores" env
train "n1 with one thread" 1 env
for processes in "${@:-2}"; do
    threads=$((cores / processes > 0 ? cores / processes : 1))
    train "n$processes" "$threads" mpirun -np "$processes" --oversubscribe --bind-to none
done
