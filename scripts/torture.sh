#!/usr/bin/env bash
# What `make torture` runs: simulated clusters under faults, each planted bug until it is found, and a cluster of real
# processes on a real Kafka while each kind of process is killed.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-400} seconds=${2:-600}

step() { printf '\n==> %s (%d s)\n' "$1" "$SECONDS"; }

step "build"
cargo build --release --locked -p nova-simulator
sim=${CARGO_TARGET_DIR:-target}/release/nova-sim
step "$seeds clusters in simulated time, $seconds seconds each"
"$sim" run --seeds "$seeds" --seconds "$seconds" | grep -v '^seed .*trace [0-9a-f]*$'
step "planted bugs"
"$sim" plants
step "real processes"
make faults
step "done"
