#!/usr/bin/env bash
# Installs what the tests need, and runs all of them.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v openssl >/dev/null || missing+=(openssl)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v pdftotext >/dev/null || missing+=(poppler-utils)
{ command -v chromium && command -v chromedriver; } >/dev/null || missing+=(chromium chromium-driver)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
[ -e /usr/share/developers-reference ] || missing+=(developers-reference)
if [ ${#missing[@]} -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

cargo test --workspace --all-features --locked
hatchet-dashboard/tests/schemathesis.sh
