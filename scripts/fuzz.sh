#!/usr/bin/env bash
# Gives each decoder bytes of libFuzzer, under AddressSanitizer. Usage: fuzz.sh [seconds for each target] [target...]
# NOVA_FUZZ_SMALL=1 leaves out the three targets that need large parts of a service, whose build takes longest.
# What is found lies in .cache/fuzz/crashes; a fixed one goes to crates/hostile/corpus, where every `make test` runs it.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
# The instruments are behind a switch of the compiler that a stable one has too.
export RUSTC_BOOTSTRAP=1
cache=${NOVA_CACHE:-$PWD/.cache}/fuzz
mkdir -p "$cache/crashes"
targets=("$@")
all() {
  if [ "${NOVA_FUZZ_SMALL:-}" = 1 ]; then
    cargo fuzz list --fuzz-dir crates/hostile/fuzz | grep -vxE 'config|raft_append|snapshot_file'
  else
    cargo fuzz list --fuzz-dir crates/hostile/fuzz
  fi
}
if [ ${#targets[@]} -eq 0 ]; then
  listed=$(all)
  mapfile -t targets <<<"$listed"
fi
features=()
[ "${NOVA_FUZZ_SMALL:-}" != 1 ] || features=(--no-default-features)

cargo fuzz build --fuzz-dir crates/hostile/fuzz "${features[@]}"
failed=()
for target in "${targets[@]}"; do
  printf '\n==> %s (%d s)\n' "$target" "$SECONDS"
  mkdir -p "$cache/corpus/$target"
  # New inputs go to the first folder; those that are committed are only read.
  cargo fuzz run --fuzz-dir crates/hostile/fuzz "${features[@]}" "$target" "$cache/corpus/$target" "crates/hostile/corpus/$target" -- \
    -max_total_time="$seconds" -rss_limit_mb=1024 -malloc_limit_mb=512 -timeout=20 -max_len=20000 -verbosity=0 \
    -print_final_stats=1 -artifact_prefix="$cache/crashes/$target-" || failed+=("$target")
done
printf '\n==> done (%d s)\n' "$SECONDS"
if [ ${#failed[@]} -gt 0 ]; then
  echo "fuzz: broken: ${failed[*]}; what broke them is in $cache/crashes" >&2
  exit 1
fi
