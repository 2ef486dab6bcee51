#!/bin/bash
# Fuzzes for longer, guided by coverage, on stable Rust. Inputs that found a fault stay in target/fuzz/found. The corpus grows in
# target/fuzz/corpus, and the next run continues with it.
#
#   scripts/fuzz.sh [TARGET]...        (default: all of them)
#   FUZZ_SECONDS   seconds for each target (default 180)
#   FUZZ_SEED      seed of the random numbers (default: a new one each time, which is printed)
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."

seconds=${FUZZ_SECONDS:-180}
seed=${FUZZ_SEED:-$RANDOM}
cargo=${CARGO:-cargo}
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
out=$target_dir/fuzz
targets=(fuzz/seeds/*)
(($#)) || set -- "${targets[@]##*/}"

# Only the crates of this workspace are built with coverage; the dependencies are not built again.
RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/rustc-coverage.sh "$cargo" build --workspace --bin luks-agent-fuzz
mkdir -p "$out/found"
# the next build without coverage overwrites the program
cp "$target_dir/debug/luks-agent-fuzz" "$out/luks-agent-fuzz"

memory=/dev/shm
[[ -d $memory ]] || memory=${TMPDIR:-/tmp}
work=$(mktemp -d "$memory/luks-agent-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT

summary=()
failed=0
for target in "$@"; do
    [[ -d fuzz/seeds/$target ]] || { echo "fuzz.sh: unknown target '$target': expected one of" fuzz/seeds/* >&2; exit 2; }
    printf '\n== %s, FUZZ_SEED=%s\n' "$target" "$seed"
    mkdir -p "$out/corpus/$target"
    dictionary=()
    [[ ! -e fuzz/dictionaries/$target.dict ]] || dictionary=("-dict=fuzz/dictionaries/$target.dict")
    log=$work/log
    word=passed
    FUZZ_TARGET=$target TMPDIR=$work "$out/luks-agent-fuzz" "-seed=$seed" "-max_total_time=$seconds" -timeout=10 \
        -max_len=16384 -print_final_stats=1 -close_fd_mask=1 "${dictionary[@]}" "-artifact_prefix=$out/found/$target-" \
        "$out/corpus/$target" "fuzz/seeds/$target" 2>&1 | tee "$log" | grep --line-buffered -vE '\b(NEW|REDUCE|NEW_FUNC)\b|# Uses|dictionary. #|#\s*pulse' ||
        { word=FAILED; failed=1; }
    figure() { sed -n "s/^stat::$1: *//p" "$log"; }
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    summary+=("$(printf '%-8s %s  %9s executions, %6s a second, %6s edges' "$target" "$word" \
        "$(figure number_of_executed_units)" "$(figure average_exec_per_sec)" "$covered")")
done

printf '\n== summary, FUZZ_SEED=%s\n' "$seed"
printf '%s\n' "${summary[@]}"
if ((failed)); then
    echo "fix the faults that the inputs in $out/found show, and move each input to fuzz/seeds/TARGET under a name that says what it is"
fi
exit "$failed"
