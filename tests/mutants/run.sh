#!/usr/bin/env bash
# Shows that the simulation can fail: applies each mutant (or those that are named) to a copy of the tree, and counts the seeds that find it.
# A mutant that no seed finds is an error, and so is a seed that fails without any.
#
#   tests/mutants/run.sh [name…]
#   MUTANT_SEEDS=500 tests/mutants/run.sh         how many seeds are played, 2000 otherwise
#   MUTANT_FAILURES=1 tests/mutants/run.sh        stops at the first that finds it
set -euo pipefail
cd "$(dirname "$0")/../.."
seeds=${MUTANT_SEEDS:-2000}
failures=${MUTANT_FAILURES:-1000000}
copy=${CARGO_TARGET_DIR:-$PWD/target}/mutants
mkdir -p "$copy/tree"

# Only what differs is copied, so that only that is built again.
fresh() {
    git ls-files | while read -r file; do
        cmp -s "$file" "$copy/tree/$file" || { mkdir -p "$(dirname "$copy/tree/$file")" && cp "$file" "$copy/tree/$file"; }
    done
}

build() {
    (cd "$copy/tree" && CARGO_TARGET_DIR="$copy/target" cargo test --quiet --locked -p hatchet-workflow --features testing \
        --test simulation --no-run --message-format=json 2>"$copy/build.log" |
        grep -o '"executable":"[^"]*/simulation-[^"]*"' | tail -1 | cut -d'"' -f4)
}

# Plays the seeds, and tells how many failed and which was the first.
play() {
    SIMULATION_BRIEFLY=1 SIMULATION_FAILURES=$failures SIMULATION_SEEDS=0..$seeds RUST_BACKTRACE=0 \
        timeout 900 "$1" on_memory --nocapture >"$copy/$2.log" 2>&1 && return 0
    # One that loops without an end is found, too.
    grep -c '^seed [0-9]*: ' "$copy/$2.log" || true
}

judge() {
    local name=$1 found first played
    found=$(grep -c '^seed [0-9]*: ' "$copy/$name.log" || true)
    first=$(grep -o '^seed [0-9]*: ' "$copy/$name.log" | grep -o '[0-9]*' | sort -n | head -1)
    played=$(grep -o '^[0-9]* seeds in' "$copy/$name.log" | grep -o '[0-9]*' | head -1)
    printf '%-45s %s of %s seeds find it, the first is %s\n' "$name" "$found" "${played:-?}" "${first:--}"
    [ "$found" -gt 0 ]
}

fresh
program=$(build) || { cat "$copy/build.log"; exit 1; }
if ! SIMULATION_BRIEFLY=1 SIMULATION_SEEDS=0..$seeds RUST_BACKTRACE=0 "$program" on_memory --nocapture >"$copy/none.log" 2>&1; then
    grep '^seed' "$copy/none.log"
    echo "seeds fail without a mutant: nothing can be said"
    [ -n "${MUTANT_ANYWAY:-}" ] || exit 1
fi

missed=()
names=("$@")
[ ${#names[@]} -gt 0 ] || names=($(cd tests/mutants && ls -- *.patch | sed 's/\.patch$//'))
for name in "${names[@]}"; do
    fresh
    patch -s -p1 -d "$copy/tree" --no-backup-if-mismatch -F3 <"tests/mutants/$name.patch" || { echo "$name does not fit any more"; exit 1; }
    program=$(build) || { cat "$copy/build.log"; echo "$name does not compile"; exit 1; }
    play "$program" "$name" >/dev/null || true
    judge "$name" || missed+=("$name")
done
if [ ${#missed[@]} -gt 0 ]; then
    echo "not found: ${missed[*]}"
    exit 1
fi
