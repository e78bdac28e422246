#!/usr/bin/env bash
# What `make torture` runs: simulated clusters under faults, each planted bug until it is found, clusters of processes in
# network namespaces under faults, a process killed at each of its calls, how long work stands still after each death, and
# ten thousand executions while each kind of process is killed.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-400} seconds=${2:-600} runs=${3:-20}

step() { printf '\n==> %s (%d s)\n' "$1" "$SECONDS"; }

step "build"
cargo build --release --locked -p nova-simulator -p nova-cli
# It only drives and judges: what is measured is the release build of `nova`.
cargo build --locked -p nova-torture
export NOVA_BIN=${CARGO_TARGET_DIR:-target}/release/nova
torture=${CARGO_TARGET_DIR:-target}/debug/nova-torture
sim=${CARGO_TARGET_DIR:-target}/release/nova-sim
step "$seeds clusters in simulated time, $seconds seconds each"
"$sim" run --seeds "$seeds" --seconds "$seconds" | grep -v '^seed .*trace [0-9a-f]*$'
step "planted bugs"
"$sim" plants
step "$runs clusters of processes"
"$torture" run --runs "$runs" --seconds 60
step "a process that is killed at each of its calls"
"$torture" sweep
step "how long work stands still"
"$torture" gaps || echo "SHORT: see above"
step "ten thousand executions"
make faults
step "done"
