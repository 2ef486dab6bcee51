#!/bin/bash
# Checks what the project depends on, by deny.toml: licences, known vulnerabilities, what is there twice, where it comes from.
#
#   scripts/deny.sh [bans|licenses|sources|advisories]...      (default: all of them)
#
# advisories is the only one that needs a network beside the registry's: RustSec's database is a repository on GitHub.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."

version=0.20.2

cargo=${CARGO:-cargo}
cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
tool=$cache/cargo-deny-$version

(($#)) || set -- bans licenses sources advisories
for check in "$@"; do
    [[ " bans licenses sources advisories " == *" $check "* ]] ||
        { echo "deny: unknown check '$check': expected bans, licenses, sources or advisories" >&2; exit 2; }
done

if [[ ! -x $tool/bin/cargo-deny ]]; then
    echo "deny: building cargo-deny $version (some minutes, once)" >&2
    CARGO_TARGET_DIR=$tool/target "$cargo" install --quiet --locked --debug --root "$tool" "cargo-deny@$version"
    rm -rf "$tool/target"
fi
"$tool/bin/cargo-deny" --workspace --all-features --locked check "$@"
