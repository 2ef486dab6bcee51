#!/bin/bash
# Checks what the project depends on, by deny.toml: licences, known vulnerabilities, what is there twice, where it comes from.
#
#   scripts/deny.sh [bans|licenses|sources|advisories]...      (default: all of them)
#
# advisories is the only one that needs a network beside the registry's: RustSec's database is a repository on GitHub.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."

version=0.20.2

(($#)) || set -- bans licenses sources advisories
for check in "$@"; do
    [[ " bans licenses sources advisories " == *" $check "* ]] ||
        { echo "deny: unknown check '$check': expected bans, licenses, sources or advisories" >&2; exit 2; }
done

tools=$(scripts/cargo-tools.sh "cargo-deny@$version")
"$tools/cargo-deny" --workspace --all-features --locked check "$@"
