#!/usr/bin/env bash
# Shows that the simulation can fail: applies each mutant (or those that are named) to a copy of the tree, and counts the seeds that find it.
# A mutant that no seed finds is an error, and so is a seed that fails without any. Those of the Redis backend are looked for there.
#
#   tests/mutants/run.sh [name…]
#   MUTANT_SEEDS=500 tests/mutants/run.sh         how many seeds are played, 2000 otherwise; on Redis a tenth of them
#   MUTANT_FAILURES=1 tests/mutants/run.sh        stops at the first that finds it
set -euo pipefail
cd "$(dirname "$0")/../.."
seeds=${MUTANT_SEEDS:-2000}
failures=${MUTANT_FAILURES:-1000000}
target=${CARGO_TARGET_DIR:-$PWD/target}
copy=$target/mutants
mkdir -p "$copy/tree"

# Only what differs is copied, so that only that is built again. What is there for the first time keeps its time, and is as built as it
# is in the tree.
fresh() {
    git ls-files | while read -r file; do
        [ -e "$copy/tree/$file" ] || { mkdir -p "$(dirname "$copy/tree/$file")" && cp -p "$file" "$copy/tree/$file"; }
        cmp -s "$file" "$copy/tree/$file" || cp "$file" "$copy/tree/$file"
    done
}

# What the other tests have built, with the same flags. A copy: cargo takes a crate of this workspace for the same wherever its sources
# are, so in one directory what is built from a mutant would be taken for what it is not.
warm() {
    [ ! -d "$copy/target" ] && [ -d "$target/debug/deps" ] || return 0
    rm -rf "$copy/tree"
    mkdir -p "$copy/target/debug/deps" "$copy/tree"
    cp -a "$target/debug/.fingerprint" "$target/debug/build" "$copy/target/debug"
    find "$target/debug/deps" -maxdepth 1 -regex '.*\.\(rlib\|rmeta\|so\|d\)' -exec cp -a -t "$copy/target/debug/deps" {} +
}

build() {
    (cd "$copy/tree" && CARGO_TARGET_DIR="$copy/target" cargo test --quiet --locked --workspace --all-features \
        --test simulation --no-run --message-format=json 2>"$copy/build.log" |
        grep -o '"executable":"[^"]*/simulation-[^"]*"' | tail -1 | cut -d'"' -f4)
}

# Plays the seeds in one place.
play() {
    local program=$1 place=$2 name=$3 count=$seeds
    [ "$place" = on_memory ] || count=$((seeds / 10))
    SIMULATION_BRIEFLY=1 SIMULATION_FAILURES=$failures SIMULATION_SEEDS=0..$count RUST_BACKTRACE=0 \
        timeout 900 "$program" "$place" --nocapture >"$copy/$name.log" 2>&1
}

# Tells how many seeds failed and which was the first.
judge() {
    local name=$1 found first played
    found=$(grep -c '^seed [0-9]*: ' "$copy/$name.log" || true)
    first=$(grep -o '^seed [0-9]*: ' "$copy/$name.log" | grep -o '[0-9]*' | sort -n | head -1)
    played=$(grep -o '^[0-9]* seeds in' "$copy/$name.log" | grep -o '[0-9]*' | head -1)
    printf '%-50s %s of %s seeds find it, the first is %s\n' "$name" "$found" "${played:-?}" "${first:--}"
    [ "$found" -gt 0 ]
}

# Where a mutant can be seen.
place_of() {
    if grep -q '^+++ b/hatchet-backend-redis/' "tests/mutants/$1.patch"; then echo on_redis; else echo on_memory; fi
}

names=("$@")
[ ${#names[@]} -gt 0 ] || names=($(cd tests/mutants && ls -- *.patch | sed 's/\.patch$//'))
places=$(for name in "${names[@]}"; do place_of "$name"; done | sort -u)

warm
fresh
program=$(build) || { cat "$copy/build.log"; exit 1; }
for place in $places; do
    play "$program" "$place" none && continue
    grep '^seed' "$copy/none.log"
    echo "seeds fail without a mutant: nothing can be said"
    [ -n "${MUTANT_ANYWAY:-}" ] || exit 1
done

missed=()
for name in "${names[@]}"; do
    fresh
    patch -s -p1 -d "$copy/tree" --no-backup-if-mismatch -r - -F3 <"tests/mutants/$name.patch" >/dev/null ||
        { echo "$name does not fit any more" && missed+=("$name") && continue; }
    program=$(build) || { cat "$copy/build.log" && echo "$name does not compile" && missed+=("$name") && continue; }
    play "$program" "$(place_of "$name")" "$name" || true
    judge "$name" || missed+=("$name")
done
if [ ${#missed[@]} -gt 0 ]; then
    echo "not found: ${missed[*]}"
    exit 1
fi
