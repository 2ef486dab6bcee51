#!/bin/bash
# Builds tools from crates.io into the cache and prints the directory with their programs:
#
#   scripts/cargo-tools.sh NAME@VERSION...      directory on stdout, progress on stderr
set -euo pipefail

cargo=${CARGO:-cargo}
cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
# the name of the directory depends on the versions, so another version gets another directory
tools=$cache/cargo-tools-$(sha256sum <<<"$*" | cut -c1-12)

for tool in "$@"; do
    [[ -x $tools/bin/${tool%@*} ]] && continue
    echo "cargo-tools: building ${tool/@/ } (some minutes, once)" >&2
    # without optimisation and debug information, which would take longer to build than the tools ever run
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$tools/target "$cargo" install --quiet --locked --debug --root "$tools" "$tool" >&2
done
rm -rf "$tools/target"
echo "$tools/bin"
