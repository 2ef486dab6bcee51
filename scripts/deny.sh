#!/bin/bash
# Checks the dependencies against deny.toml: licences, known vulnerabilities, duplicates, sources.
#
#   scripts/deny.sh [bans|licenses|sources|advisories]...      (default: all of them)
#
# Only advisories needs another host than the registry: the RustSec database is a repository on GitHub.
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
