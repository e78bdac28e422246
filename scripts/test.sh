#!/usr/bin/env bash
# Everything `make test` runs, in the order in which a mistake is cheapest to see.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

step() { printf '\n==> %s (%d s)\n' "$1" "$SECONDS"; }

step "format"
cargo fmt --all --check
step "tables of measurements"
scripts/results.py --check
step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
step "tests"
cargo test --workspace --locked --no-fail-fast
step "instruction counts"
scripts/guard.sh
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked -q
step "done"
