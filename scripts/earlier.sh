#!/bin/bash
# Builds the agent as an earlier commit had it, and prints where it is: what the random lives upgrade from.
#
#   scripts/earlier.sh [COMMIT]    default: the commit ten changes of the source ago; the last one alone is often a matter of words
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."

die() { echo "earlier.sh: $*; set LIFE_EARLIER= to leave the upgrade out" >&2; exit 1; }

wanted=${1:-$(git rev-list --skip=10 --max-count=1 HEAD -- src Cargo.toml Cargo.lock)}
[[ -n $wanted ]] || die "the source has not changed ten times here: expected a clone with its whole history"
commit=$(git rev-parse --quiet --short=12 --verify "$wanted^{commit}") || die "there is no commit '$wanted' here"
target=${CARGO_TARGET_DIR:-target}/earlier
if [[ ! -x $target/luks-agent-$commit ]]; then
    rm -rf "$target/source"
    mkdir -p "$target/source"
    # -m: the files are new, or cargo would take the program of another commit for this one's
    git archive "$commit" | tar -x -m -C "$target/source"
    env -u CARGO_BUILD_TARGET "${CARGO:-cargo}" build --quiet --locked --manifest-path "$target/source/Cargo.toml" \
        --target-dir "$target/build" --bin luks-agent >&2
    mv "$target/build/debug/luks-agent" "$target/luks-agent-$commit"
    rm -rf "$target/source"
fi
realpath "$target/luks-agent-$commit"
