#!/usr/bin/env bash
# Tests the HTTP API against its own OpenAPI document with schemathesis, which is installed into target/ at a fixed version.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=4.32.5
place="${CARGO_TARGET_DIR:-target}/schemathesis-$version"
if ! [ -x "$place/bin/schemathesis" ]; then
    rm -rf "$place"
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
fi

SCHEMATHESIS="$(realpath "$place/bin/schemathesis")" \
    cargo test --workspace --all-features --locked --test schemathesis -- --ignored --nocapture
