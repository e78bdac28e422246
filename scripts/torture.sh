#!/usr/bin/env bash
# What `make torture` runs: simulated clusters under faults, each planted bug until it is found, clusters of processes in
# network namespaces under faults, a process killed at each of its calls, how long work stands still after each death, and
# ten thousand executions while each kind of process is killed. What it prints goes into docs/testing.md.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${SEEDS:-400} seconds=${SECONDS_EACH:-600} runs=${RUNS:-20} gaps=${GAPS:-20} sweep=${SWEEP:-40}

step() { printf '\n==> %s (%d s)\n' "$1" "$SECONDS"; }
broken=()
part() { # name, command...
  step "$1"
  "${@:2}" || broken+=("$1")
}

step "build of $(git describe --always --dirty)"
cargo build --profile simulate --locked -p nova-simulator
# Apart from it, whose bugs to be planted would be in the build.
cargo build --release --locked -p nova-cli
# It only drives and judges: what is measured is the release build of `nova`.
cargo build --locked -p nova-torture
export NOVA_BIN=${CARGO_TARGET_DIR:-target}/release/nova
torture=${CARGO_TARGET_DIR:-target}/debug/nova-torture
sim=${CARGO_TARGET_DIR:-target}/simulate/nova-sim

simulate() { "$sim" run --seeds "$seeds" --seconds "$seconds" | grep -v '^seed .*trace [0-9a-f]*$'; }
part "$seeds clusters in simulated time, $seconds seconds each" simulate
part "planted bugs" "$sim" plants
part "$runs clusters of processes" "$torture" run --runs "$runs" --seconds 45
part "a process that is killed at each of its calls" "$torture" sweep --most "$sweep"
part "how long work stands still: a leader" "$torture" gaps --of leader --times $((5 * gaps))
part "how long work stands still: the others" "$torture" gaps --of scheduler,worker,broker,power --times "$gaps"
part "ten thousand executions" make faults
step "done"
if [ ${#broken[@]} -gt 0 ]; then
  printf 'torture: not as wanted: %s\n' "${broken[@]}" >&2
  exit 1
fi
