#!/usr/bin/env bash
# Plays a fleet in which an older version of this library and this one work on the same store: `tests/redis/mixed.rs`. The worker program of
# the older version has its library and the workflows of this tree.
#
#   tests/mixed/run.sh COMMIT
#   HATCHET_TEST_SEED=7 tests/mixed/run.sh COMMIT         repeats what was drawn
set -euo pipefail
cd "$(dirname "$0")/../.."
commit=$(git rev-parse --verify "${1:?which commit is the older version?}^{commit}")
target=${CARGO_TARGET_DIR:-$PWD/target}
tree=$target/mixed/tree
export CARGO_INCREMENTAL=0

git worktree remove --force "$tree" 2>/dev/null || rm -rf "$tree"
git worktree prune
git worktree add --quiet --force --detach "$tree" "$commit"
trap 'git worktree remove --force "$tree"' EXIT

# The wrapper of the store in `mortal.rs` stays as it was, since the contract that it implements is that of its version.
cp tests/redis/{program,codes,ledger}.rs "$tree/tests/redis/"
cp tests/mixed/worker.rs "$tree/tests/redis/main.rs"

# What it depends on is built with the same flags here.
if [ ! -d "$target/mixed/target" ] && [ -d "$target/debug/deps" ]; then
    mkdir -p "$target/mixed/target/debug/deps"
    cp -a "$target/debug/.fingerprint" "$target/debug/build" "$target/mixed/target/debug"
    find "$target/debug/deps" -maxdepth 1 -regex '.*\.\(rlib\|rmeta\|so\|d\)' -exec cp -a -t "$target/mixed/target/debug/deps" {} +
fi
old=$(cd "$tree" && CARGO_TARGET_DIR="$target/mixed/target" cargo test --locked --workspace --all-features --test redis --no-run \
    --message-format=json | grep -o '"executable":"[^"]*/redis-[^"]*"' | tail -1 | cut -d'"' -f4)
echo "the older program is $old, built from $commit"

HATCHET_OLD_PROGRAM=$old cargo test --locked --workspace --all-features --test redis mixed -- --ignored --nocapture
