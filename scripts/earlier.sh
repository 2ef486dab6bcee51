#!/bin/bash
# Builds the agent as an earlier commit had it, and prints where it is: what the random lives upgrade from.
#
#   scripts/earlier.sh [COMMIT]    unless told, what was before the last change of the source, committed or not
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."

# what the program is made of
source=(src Cargo.toml Cargo.lock)
if [[ $# -gt 0 ]]; then
    commit=$1
elif git diff --quiet HEAD -- "${source[@]}"; then
    commit=$(git rev-list -1 HEAD -- "${source[@]}")^
else
    commit=HEAD
fi
commit=$(git rev-parse --quiet --short=12 --verify "$commit^{commit}") ||
    { echo "earlier.sh: there is no commit '$commit' here: expected a clone with its history" >&2; exit 1; }
dir=${CARGO_TARGET_DIR:-target}/earlier
if [[ ! -x $dir/luks-agent-$commit ]]; then
    rm -rf "$dir/source"
    mkdir -p "$dir/source"
    # -m: the files are new, or cargo would take the program of another commit for this one's
    git archive "$commit" | tar -x -m -C "$dir/source"
    "${CARGO:-cargo}" build --quiet --manifest-path "$dir/source/Cargo.toml" --target-dir "$dir/build" --bin luks-agent >&2
    mv "$dir/build/debug/luks-agent" "$dir/luks-agent-$commit"
    rm -rf "$dir/source"
fi
realpath "$dir/luks-agent-$commit"
