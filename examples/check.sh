#!/usr/bin/env bash
# Builds all examples, runs each that has a file in expected/, and compares what it prints. Arguments go to cargo, for
# example --release; CARGO_TARGET_DIR and the like are the caller's. UPDATE=1 writes the files anew. Those whose names begin
# with redis_ get a redis-server of their own, which ends with this script.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
longest=120 # seconds; an example that hangs has failed
# By path and from the caller's directory: a relative CARGO_TARGET_DIR means there what it means to the caller.
manifest=(--manifest-path "$here/../Cargo.toml" --all-features)
cargo build --quiet "${manifest[@]}" --examples "$@"

run() {
    local name=$1
    shift
    timeout "$longest" cargo run --quiet "${manifest[@]}" --example "$name" "${cargo[@]}" -- "$@"
}
cargo=("$@")

# Starts a server on a port that nobody uses. Sets HATCHET_URL.
start_redis() {
    local port
    directory=$(mktemp -d)
    for _ in $(seq 20); do
        port=$((20000 + RANDOM % 12000))
        redis-server --port "$port" --bind 127.0.0.1 --save "" --appendonly yes --dir "$directory" >/dev/null &
        server=$!
        for _ in $(seq 500); do
            kill -0 "$server" 2>/dev/null || break
            if [ "$(redis-cli -p "$port" ping 2>/dev/null)" = PONG ] && kill -0 "$server" 2>/dev/null; then
                export HATCHET_URL=redis://127.0.0.1:$port
                return
            fi
            sleep 0.02
        done
    done
    echo "no redis-server could be started" >&2
    exit 1
}
stop_redis() {
    if [ -n "${server:-}" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        rm -rf "$directory"
    fi
}
trap stop_redis EXIT

# The worker is a program of its own, which ends with its input.
run_redis_worker() {
    coproc worker { run redis_worker worker; }
    local pid=$worker_PID
    run redis_worker client
    exec {worker[1]}>&-
    wait "$pid"
}

output_of() {
    case $1 in
        redis_worker) run_redis_worker ;;
        dashboard) run dashboard --once ;;
        *) run "$1" ;;
    esac
}

failed=0
# The example that has tests.
if cargo test --quiet "${manifest[@]}" --example histories "${cargo[@]}" >/dev/null; then
    echo "ok       histories, its test"
else
    echo "FAILED   histories, its test"
    failed=1
fi
for expected in "$here"/expected/*.txt; do
    name=$(basename "$expected" .txt)
    if [[ $name == redis_* && -z ${server:-} ]]; then
        start_redis
    fi
    if ! output=$(output_of "$name"); then
        echo "FAILED   $name: it ended with an error"
        failed=1
    elif [ -n "${UPDATE:-}" ]; then
        echo "$output" >"$expected"
        echo "updated  $name"
    elif difference=$(diff <(echo "$output") "$expected"); then
        echo "ok       $name"
    else
        echo "FAILED   $name: < is what it prints, > what is expected"
        echo "$difference"
        failed=1
    fi
done
exit "$failed"
