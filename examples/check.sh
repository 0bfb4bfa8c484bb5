#!/usr/bin/env bash
# Builds all examples, runs each that has a file in expected/, and compares what it prints. Arguments go to cargo, for
# example --release; CARGO_TARGET_DIR and the like are the caller's. UPDATE=1 writes the files anew.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# By path and from the caller's directory: a relative CARGO_TARGET_DIR means there what it means to the caller.
manifest=(--manifest-path "$here/../Cargo.toml" --all-features)
cargo build --quiet "${manifest[@]}" --examples "$@"

failed=0
for expected in "$here"/expected/*.txt; do
    name=$(basename "$expected" .txt)
    if ! output=$(cargo run --quiet "${manifest[@]}" --example "$name" "$@"); then
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
