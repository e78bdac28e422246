#!/usr/bin/env bash
# Builds NovaFlow, starts a whole cluster in one process and a small HTTP server, and runs a real workflow on them:
# three fetches at once, one endpoint that fails twice, a branch, a merge, and a post of the result.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "Building (the first time takes some minutes)"
# Not optimised: it is ready in half the time, and fast enough to watch.
cargo build --locked -p nova-cli --bin nova --example shop
nova="${CARGO_TARGET_DIR:-target}"/debug/nova
shop="${CARGO_TARGET_DIR:-target}"/debug/examples/shop

data=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$data"
}
trap cleanup EXIT

# Waits until a program has said `ready <url>`, and prints the url.
ready() { # file, pid
  for _ in $(seq 300); do
    if grep -q '^ready ' "$1" 2>/dev/null; then sed -n 's/^ready //p' "$1" | head -1; return; fi
    kill -0 "$2" 2>/dev/null || { cat "$1" >&2; echo "demo: a program ended early" >&2; exit 1; }
    sleep 0.1
  done
  cat "$1" >&2; echo "demo: a program did not get ready" >&2; exit 1
}

"$shop" >"$data/shop.out" & pids+=($!)
"$nova" dev --data "$data/cluster" --port 0 --announce >"$data/dev.out" 2>"$data/dev.err" & pids+=($!)
shop_url=$(ready "$data/shop.out" "${pids[0]}")
url=$(ready "$data/dev.out" "${pids[1]}")
export NOVA_URL=$url
say "A cluster answers at $url, and a small shop at $shop_url"

say "1. A mistake is answered where it is:  nova validate"
sed 's/needs: \[customer/needs: [custmer/; s/maxAttempts/maxAttemps/' examples/order.yaml >"$data/mistake.yaml"
"$nova" validate "$data/mistake.yaml" | sed "s|$data/||" || true

say "2. The right document, run on real data:  nova run examples/order.yaml"
"$nova" run examples/order.yaml --input "{\"baseUrl\": \"$shop_url\", \"orderId\": \"A-1001\"}" --key demo-1

say "3. The same key again starts nothing: it answers the first execution"
"$nova" run order --input "{\"baseUrl\": \"$shop_url\", \"orderId\": \"A-1001\"}" --key demo-1 --detach

say "4. What happened, as history keeps it:  nova list executions"
"$nova" list executions

say "Where to look next"
cat <<TEXT
  nova dev                      the same cluster, for every day; data stays in ./data
  nova run examples/hello.yaml  the smallest workflow
  docs/reference/language.md    the language; nova validate checks it without a cluster
  docs/architecture.md          how it works, on one page
TEXT
