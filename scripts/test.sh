#!/bin/bash
# Runs tiers of tests, all of them even if one fails, and closes with a summary. What they need is installed by then.
#
#   scripts/test.sh unit|kernel|machine|packages|packages-all|sweep-corpus|sweep-crashes|sweep-power...
set -uo pipefail
cd "$(dirname "$(realpath "$0")")/.." || exit 1

cargo=${CARGO:-cargo}
summary=()
failed=0

# Always --workspace: other packages in a run would mean other features of dependencies, and building them again.
run_tier() {
    case $1 in
        unit) "$cargo" test --workspace --no-fail-fast ;;
        # A node is two busy processes; more than two at once only wait for each other on a small machine.
        kernel) "$cargo" test --workspace --no-fail-fast --test 'kernel*' -- --include-ignored --test-threads=2 ;;
        machine) "$cargo" test --workspace --no-fail-fast --test 'machine*' -- --include-ignored --test-threads=1 ;;
        # what is in them, and their life on the oldest release that they are for; the others take a quarter of an hour more
        packages) "$cargo" test --workspace --no-fail-fast --test 'packages*' -- --include-ignored --test-threads=1 \
            --skip life_on_debian_12 --skip life_on_debian_13 --skip aarch64 ;;
        packages-all) "$cargo" test --workspace --no-fail-fast --test 'packages*' -- --include-ignored --test-threads=1 ;;
        # Of these the kernel and the machine tier have samples. What else the environment can say is in the tests' sources.
        sweep-corpus) CORPUS_ROLES=both "$cargo" test --workspace --test kernel_corpus -- --include-ignored --nocapture ;;
        sweep-crashes) SWEEP_POINTS=${SWEEP_POINTS:-all} SWEEP_NODES=${SWEEP_NODES:-2} \
            "$cargo" test --workspace --test kernel_sweep -- --include-ignored --nocapture ;;
        sweep-power) SWEEP_PULLS=${SWEEP_PULLS:-60} \
            "$cargo" test --workspace --test machine_power -- --include-ignored --nocapture ;;
        *) echo "test.sh: unknown tier '$1': expected unit, kernel, machine, packages, packages-all, sweep-corpus, sweep-crashes or sweep-power" >&2; return 2 ;;
    esac </dev/null
}

for tier in "$@"; do
    printf '\n== %s tier\n' "$tier"
    began=$SECONDS
    if run_tier "$tier"; then
        word=passed
    else
        word=FAILED
        failed=1
    fi
    summary+=("$(printf '%-13s %s  (%d s)' "$tier" "$word" "$((SECONDS - began))")")
done

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
