#!/bin/bash
# Builds the packages for x86_64 twice from scratch, here and from a copy of the last commit in another directory, and compares them byte
# by byte. Takes as long as two release builds.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."

[[ -z $(git status --porcelain) ]] || { echo "reproducible: the checkout has uncommitted changes; commit them first" >&2; exit 1; }
work=$(mktemp -d /var/tmp/luks-agent-reproducible.XXXXXX)
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

mkdir "$work/another-place"
git archive HEAD | tar -x -C "$work/another-place"
CARGO_TARGET_DIR=$work/first PACKAGE_OUT=$work/1 scripts/packages.sh x86_64
CARGO_TARGET_DIR=$work/another-place/target PACKAGE_OUT=$work/2 "$work/another-place/scripts/packages.sh" x86_64
cd "$work/1"
sha256sum -- *
for package in *; do
    cmp "$package" "../2/$package" || { echo "reproducible: the two builds of $package differ; compare them with diffoscope" >&2; exit 1; }
done
echo "reproducible: both builds have the same bytes"
