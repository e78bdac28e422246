#!/usr/bin/env bash
# Requests made from docs/reference/openapi.json, as it allows them and as it does not, against a `nova dev` of its own.
# Usage: schemathesis.sh [options of schemathesis run]
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
port=${NOVA_SCHEMATHESIS_PORT:-17760}
place=${NOVA_CACHE:-$root/.cache}/schemathesis
cargo build --quiet --locked -p nova-cli
nova=$(realpath "${CARGO_TARGET_DIR:-target}/debug/nova")

data=$(mktemp -d)
: >"$data/out"
"$nova" dev --port "$port" --data "$data/cluster" --announce >"$data/out" 2>"$data/errors" &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; rm -rf "$data"' EXIT
until grep -q ready "$data/out"; do
  kill -0 "$pid" 2>/dev/null || { cat "$data/errors" >&2; exit 1; }
  sleep 0.1
done
url=http://127.0.0.1:$port
"$nova" --url "$url" apply examples/hello.yaml >/dev/null

# It leaves files where it runs. Its warnings are of what schemathesis.toml leaves out: names that fit and are not there.
status=0
(cd "$data" && SCHEMATHESIS_HOOKS=schemathesis_hooks PYTHONPATH="$root/scripts" PYTHONDONTWRITEBYTECODE=1 \
  "$place/bin/schemathesis" --config-file "$root/scripts/schemathesis.toml" run "$root/docs/reference/openapi.json" --url "$url" \
  --max-examples "${NOVA_SCHEMATHESIS_EXAMPLES:-60}" --request-timeout 30 --continue-on-failure --warnings off \
  --output-sanitize false "$@") || status=$?
kill -0 "$pid" || { echo "schemathesis: nova dev has ended" >&2; cat "$data/errors" >&2; exit 1; }
exit "$status"
