#!/usr/bin/env bash
# Fails if a child costs more than before: instructions and allocations in memory, commands and script calls on Redis.
# `benches/gate.sh --update` writes the figures of this machine into benches/baseline.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v valgrind >/dev/null || missing+=(valgrind)
if [ ${#missing[@]} -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

cargo bench --quiet --locked -p hatchet-benches -- gate "$@"
