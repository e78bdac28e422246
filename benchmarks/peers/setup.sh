#!/usr/bin/env bash
# Puts the other engines of the comparison into .cache/peers, each from its package registry with a pinned version.
# Usage: setup.sh [restate-1|restate-3|temporal]...   left out: all. What is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")"

restate=1.7.12 # npm; Temporal's versions are in temporal/go.mod, those of Restate's SDK in restate-service/Cargo.lock
cache=${NOVA_CACHE:-$(cd ../.. && pwd)/.cache}/peers
die() { echo "peers: $*" >&2; exit 2; }
want() { # command, what installs it
  command -v "$1" >/dev/null || die "$1 is missing; install $2, then run this again"
}

set_up_restate() {
  want npm "Node.js (apt-get install npm)"
  want cargo "Rust (rustup, from your distribution or https://rustup.rs)"
  mkdir -p "$cache/restate"
  local server=$cache/restate/node_modules/@restatedev/restate-server-linux-x64/bin/restate-server
  if [ ! -x "$server" ] || ! "$server" --version | grep -qxF "restate-server $restate"; then
    echo "peers: installing Restate $restate"
    npm install --prefix "$cache/restate" --no-audit --no-fund --ignore-scripts --silent \
      "@restatedev/restate-server@$restate" || die "npm could not install Restate"
    [ -x "$server" ] || die "npm did not bring a Restate server for this machine: it must be an x86-64 Linux"
  fi
  echo "peers: building the service for Restate (minutes the first time)"
  CARGO_TARGET_DIR=$cache/target cargo build --release --locked --quiet --manifest-path restate-service/Cargo.toml
  cp "$cache/target/release/nova-peers-restate-service" "$cache/restate/"
}

set_up_postgres() {
  local programs
  for programs in "$(command -v postgres | xargs -r dirname)" /usr/lib/postgresql/*/bin; do
    [ -x "$programs/initdb" ] && [ -x "$programs/postgres" ] && [ -x "$programs/psql" ] && break
    programs=
  done
  if [ -z "$programs" ]; then
    command -v apt-get >/dev/null || die "PostgreSQL is missing; install its server and psql, then run this again"
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "peers: installing PostgreSQL"
    # Only its programs are wanted: without this the package would start a server beside the one that is measured.
    $sudo mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] \
      || echo "create_main_cluster = false" | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
    $sudo apt-get update -q >/dev/null || die "apt-get update failed"
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
      -o Dpkg::Options::=--force-confold postgresql >/dev/null || die "apt-get could not install postgresql"
    programs=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
  fi
  ln -sfn "$programs" "$cache/postgres"
}

set_up_temporal() {
  want go "Go (apt-get install golang, or a newer one: temporal/go.mod says which)"
  mkdir -p "$cache/temporal"
  set_up_postgres
  echo "peers: building Temporal (five minutes of two cores the first time)"
  (cd temporal && go build -o "$cache/temporal/temporal-server" go.temporal.io/server/cmd/server \
    && go build -o "$cache/temporal/temporal-sql-tool" go.temporal.io/server/cmd/tools/sql \
    && go build -o "$cache/temporal/bench" ./bench) || die "Temporal could not be built"
  local source
  source=$(cd temporal && go list -m -f '{{.Dir}}' go.temporal.io/server)
  rm -rf "$cache/temporal/schema"
  cp -r --no-preserve=mode "$source/schema/postgresql/v12" "$cache/temporal/schema"
}

[ $# -gt 0 ] || set -- restate-1 temporal
mkdir -p "$cache"
for peer in "$@"; do
  case $peer in
    restate-1 | restate-3 | temporal) ;;
    *) die "$peer is none of restate-1, restate-3, temporal" ;;
  esac
done
case " $* " in *" restate-"*) set_up_restate ;; esac
case " $* " in *" temporal "*) set_up_temporal ;; esac
