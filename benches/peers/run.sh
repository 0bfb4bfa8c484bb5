#!/usr/bin/env bash
# Measures the peers and the SDK by turns, each on a Redis of its own, and writes the table of BENCHMARKS.md.
# `benches/peers/run.sh [--runs N] [--on off,everysec,always]`
set -euo pipefail
cd "$(dirname "$0")"

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v npm >/dev/null || missing+=(nodejs npm)
if [ ${#missing[@]} -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

cargo build --quiet --release --locked --manifest-path apalis/Cargo.toml
npm ci --silent --no-audit --no-fund --prefix bullmq
cargo bench --quiet --locked -p hatchet-benches -- peers "$@"
