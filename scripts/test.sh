#!/bin/bash
# Runs tiers of tests, all of them even if one fails, with the ten slowest tests of each, and closes with a summary. What they need is
# installed by then.
#
#   scripts/test.sh unit|kernel|machine|packages|packages-all|sweep-corpus|sweep-crashes|sweep-power...
#
# Tiers joined by "+" run together, which is faster than one after the other: a machine in QEMU waits half of the time.
set -uo pipefail
cd "$(dirname "$(realpath "$0")")/.." || exit 1

cargo=${CARGO:-cargo}
nextest=$(scripts/deps.sh --test-dir)/bin/cargo-nextest
summary=()
failed=0

# nextest TESTS ARGS...: runs these tests, and lists the slowest. Always --workspace: other packages in a run would mean other features
# of dependencies, and building them again.
nextest() {
    local log status=0
    log=$(mktemp)
    "$nextest" nextest run --workspace --no-fail-fast --color never --filterset "$1" "${@:2}" 2>&1 | tee "$log" || status=$?
    printf '\nthe slowest:\n'
    sed -nE 's/^ *(PASS|FAIL|TIMEOUT|SIGKILL|LEAK) \[ *([0-9.]+)s\] *(\([^)]*\) )?(.*)$/\2 \4/p' "$log" | sort -rnu | head -n 10 |
        while read -r seconds test; do printf '%8.1f s  %s\n' "$seconds" "$test"; done
    rm "$log"
    return "$status"
}

# tests_of TIER: those that need more than this machine, as a filterset of nextest
tests_of() {
    case $1 in
        kernel) echo 'binary(/^kernel/)' ;;
        machine) echo 'binary(/^machine/)' ;;
        # what is in them, and their life on the oldest release that they are for; the others take a quarter of an hour more
        packages) echo '(binary(/^packages/) - test(life_on_debian_12) - test(life_on_debian_13) - test(aarch64))' ;;
        packages-all) echo 'binary(/^packages/)' ;;
        *) return 1 ;;
    esac
}

sweep() {
    "$cargo" test --workspace --test "$1" -- --include-ignored --nocapture
}

run() {
    local tier processors tests='none()'
    case $1 in
        unit)
            nextest 'all()' && "$cargo" test --workspace --doc --quiet
            return
            ;;
        # Of these the kernel and the machine tier have samples. What else the environment can say is in the tests' sources.
        sweep-corpus) CORPUS_ROLES=both sweep kernel_corpus; return ;;
        sweep-crashes) SWEEP_POINTS=${SWEEP_POINTS:-all} SWEEP_NODES=${SWEEP_NODES:-2} sweep kernel_sweep; return ;;
        sweep-power) SWEEP_PULLS=${SWEEP_PULLS:-60} sweep machine_power; return ;;
    esac
    for tier in ${1//+/ }; do
        tests+=" | $(tests_of "$tier")" || {
            echo "test.sh: unknown tier '$tier': expected unit, kernel, machine, packages, packages-all, sweep-corpus, sweep-crashes or sweep-power" >&2
            return 2
        }
    done
    [[ +$1+ != *+kernel+* ]] || echo "kernel tier: Linux $("$(scripts/uml.sh --dir)/linux" --version)"
    # --run-ignored only: those that are not ignored are in the unit tier. The weights of tests are for ten slots on two processors.
    processors=$(nproc)
    nextest "$tests" --profile machines --run-ignored only --test-threads $((5 * (processors < 4 ? processors : 4)))
}

for tier in "$@"; do
    printf '\n== %s\n' "$tier"
    began=$SECONDS
    if run "$tier" </dev/null; then
        word=passed
    else
        word=FAILED
        failed=1
    fi
    summary+=("$(printf '%-24s %s  (%d s)' "$tier" "$word" "$((SECONDS - began))")")
done

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
