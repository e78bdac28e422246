#!/usr/bin/env bash
# Counts the instructions of the hot path and compares them with benchmarks/baseline.toml. NOVA_UPDATE=1 writes it anew.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

cargo=(cargo)
wanted=$(sed -n 's/^rustc = "\(.*\)"$/\1/p' benchmarks/baseline.toml)
own=$(rustc -vV | sed -n 's/^release: //p')
# Another compiler makes other code: the counts are those of one. Without rustup the guard says so itself.
if [ -z "${NOVA_UPDATE:-}" ] && [ "$own" != "$wanted" ] && command -v rustup >/dev/null; then
  echo "guard: rustc is $own, the baseline is of $wanted, which is taken"
  rustup toolchain list | grep -q "^$wanted-" || rustup toolchain install "$wanted" --profile minimal
  cargo=(rustup run "$wanted" cargo)
fi
exec "${cargo[@]}" run -q --locked -p nova-benchmarks --bin guard --profile guard
