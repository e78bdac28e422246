#!/usr/bin/env bash
# Installs what a fresh Debian machine lacks. Usage: setup.sh build|test|deny|fuzz|schemathesis
#   build  a C toolchain for librdkafka and zstd
#   test   also Java and Maven for a real Kafka, strace for the proof of data syncs, valgrind for counts of instructions, and
#          what clusters are tortured with: iproute2 and nftables, xfsprogs, libfaketime
#   deny   cargo-deny
#   fuzz   cargo-fuzz
#   schemathesis  Python, and schemathesis in a place of its own
set -euo pipefail

need=${1:?setup.sh build|test|deny|fuzz|schemathesis}
die() { echo "setup: $*" >&2; exit 1; }

missing=()
want() { # command, Debian package
  command -v "$1" >/dev/null || missing+=("$2")
}

command -v cargo >/dev/null || die "Rust is missing: install rustup from your distribution or https://rustup.rs, then run this again"
want gcc gcc
want g++ g++
want make make
want pkg-config pkg-config
[ -e /usr/include/zlib.h ] || missing+=(zlib1g-dev)
if [ "$need" = test ]; then
  want java openjdk-17-jre-headless
  want mvn maven
  want strace strace
  want valgrind valgrind
  want ip iproute2
  want nft nftables
  want mkfs.xfs xfsprogs
  want faketime faketime
fi
if [ "$need" = schemathesis ]; then
  want python3 python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
fi
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || die "please install: ${missing[*]}"
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  echo "setup: installing ${missing[*]}"
  $sudo apt-get update -q >/dev/null || die "apt-get update failed"
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null \
    || die "apt-get could not install ${missing[*]}"
fi
if [ "$need" = deny ]; then
  cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
fi
if [ "$need" = fuzz ]; then
  version=0.13.2
  [ "$(cargo fuzz --version 2>/dev/null)" = "cargo-fuzz $version" ] || cargo install --locked --version "$version" cargo-fuzz
fi
if [ "$need" = schemathesis ]; then
  version=4.32.5
  place=${NOVA_CACHE:-$(cd "$(dirname "$0")/.." && pwd)/.cache}/schemathesis
  if ! "$place/bin/schemathesis" --version 2>/dev/null | grep -qF " $version"; then
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet "schemathesis==$version"
  fi
fi
