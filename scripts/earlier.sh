#!/bin/bash
# Builds the agent of an earlier commit and prints its path. The random lives upgrade from it.
#
#   scripts/earlier.sh [COMMIT]    default: the commit ten source changes ago, because the last change often touches only texts
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."

die() { echo "earlier.sh: $*; set LIFE_EARLIER= to skip the upgrade" >&2; exit 1; }

wanted=${1:-$(git rev-list --skip=10 --max-count=1 HEAD -- src Cargo.toml Cargo.lock)}
[[ -n $wanted ]] || die "cannot find a commit ten source changes ago: expected a clone with the whole history"
commit=$(git rev-parse --quiet --short=12 --verify "$wanted^{commit}") || die "no commit '$wanted' in this repository"
target=${CARGO_TARGET_DIR:-target}/earlier
if [[ ! -x $target/luks-agent-$commit ]]; then
    rm -rf "$target/source"
    mkdir -p "$target/source"
    # -m: gives the files new times; otherwise cargo would reuse the program of another commit
    git archive "$commit" | tar -x -m -C "$target/source"
    env -u CARGO_BUILD_TARGET "${CARGO:-cargo}" build --quiet --locked --manifest-path "$target/source/Cargo.toml" \
        --target-dir "$target/build" --bin luks-agent >&2
    mv "$target/build/debug/luks-agent" "$target/luks-agent-$commit"
    rm -rf "$target/source"
fi
realpath "$target/luks-agent-$commit"
