#!/bin/bash
# Runs tiers of tests, all of them even if one fails. Lists the ten slowest tests of each, and ends with a summary. What the tests need must
# be installed already.
#
#   scripts/test.sh check|try|unit|kernel|machine|browser|packages|packages-all|fips|sweep-corpus|sweep-crashes|sweep-power|sweep-life...
#
# check is the part of the unit tier that builds in seconds. try runs the one test that $TEST names, with the console of its virtual
# machine. Tiers joined by "+" run together, which is faster than one after the other, because a machine in QEMU waits half of the time.
set -uo pipefail
cd "$(dirname "$(realpath "$0")")/.." || exit 1

cargo=${CARGO:-cargo}
nextest=$(scripts/deps.sh --test-dir)/bin/cargo-nextest
log=$(mktemp)
trap 'rm "$log"' EXIT
summary=()
failed=0

# nextest TESTS ARGS...: runs these tests. Always with --workspace: another set of packages would need other features of the dependencies,
# and cargo would build them again.
nextest() {
    "$nextest" nextest run --workspace --no-fail-fast --color never --filterset "$1" "${@:2}" 2>&1 | tee "$log"
}

# slowest NAME BINARIES: prints the ten slowest tests of the last run, in binaries whose names begin with BINARIES.
slowest() {
    printf '\nthe slowest tests of the %s tier:\n' "$1"
    sed -nE 's/^ *[A-Z]+ \[ *([0-9.]+)s\] *(\([^)]*\) )?(.*)$/\1 \3/p' "$log" | grep -E "^[0-9.]+ $2" | sort -u | sort -rn |
        head -n 10 | while read -r seconds test; do printf '%8.1f s  %s\n' "$seconds" "$test"; done
}

# tests_of TIER: prints the tests of a tier with virtual machines or a browser, as a filterset of nextest.
tests_of() {
    case $1 in
        kernel) echo 'binary(/^kernel/)' ;;
        # on Debian 12; packages-all has the same on Debian 13
        machine) echo 'binary(/^machine/) - test(stock_tools_on_debian_13)' ;;
        browser) echo 'binary(browser)' ;;
        # the contents of the packages, and their life on the oldest supported release; the others take twenty minutes more
        packages) echo '(binary(/^packages/) - test(life_on_debian_12) - test(life_on_debian_13) - test(life_of_the_rpm) - test(aarch64) - binary(packages_selinux))' ;;
        packages-all) echo 'binary(/^packages/) + test(stock_tools_on_debian_13)' ;;
        *) return 1 ;;
    esac
}

# try_one NAME: runs the test of that name and shows what it prints.
try_one() {
    local file
    file=$(grep -lE "fn $1\(" tests/kernel*.rs tests/machine*.rs) || {
        echo "test.sh: no test '$1' in tests/kernel*.rs or tests/machine*.rs; expected the whole name of a test" >&2
        return 2
    }
    UML_DIR=$(scripts/uml.sh --dir) nextest "test(/(^|::)$1\$/)" --test "$(basename "$file" .rs)" --run-ignored all --no-capture
}

# sweep BINARY [TEST...]: runs all tests of a test program, or these.
sweep() {
    "$cargo" test --workspace --test "$1" -- --include-ignored --nocapture "${@:2}"
}

run() {
    local tier processors tests='none()' failures=0 ignored=only
    case $1 in
        check)
            # not the other integration tests: each is one more program to link
            if [[ -x $nextest ]]; then
                nextest 'all()' --lib --test docs --test architecture
            else
                echo "cargo-nextest is not installed ('scripts/deps.sh test' installs it); using cargo test"
                "$cargo" test --workspace --lib --test docs --test architecture --quiet
            fi
            return
            ;;
        try) try_one "${TEST:-the_main_job_with_the_fake_endpoint}"; return ;;
        unit)
            nextest 'all()' || failures=1
            slowest unit ''
            "$cargo" test --workspace --doc --quiet || failures=1
            return "$failures"
            ;;
        # the same calls to KMS as in the unit tier, with the other module
        fips) nextest 'all()' --features fips --lib --test kms --test fips; return ;;
        # The kernel and machine tiers run samples of these. The sources of the tests document more environment variables.
        sweep-corpus) CORPUS_ROLES=both sweep kernel_corpus; return ;;
        sweep-crashes)
            SWEEP_POINTS=${SWEEP_POINTS:-all} SWEEP_NODES=${SWEEP_NODES:-2} sweep kernel_sweep || failures=1
            VOLUME_POINTS=${SWEEP_POINTS:-all} sweep kernel_volumes a_killed_adopt || failures=1
            CRASH_STEP=${CRASH_STEP:-1} sweep kernel_keys and_a_kill_loses_nothing || failures=1
            return "$failures"
            ;;
        sweep-power) SWEEP_PULLS=${SWEEP_PULLS:-60} sweep machine_power; return ;;
        sweep-life)
            # LIFE_EARLIER= (set, but empty) skips the upgrade
            LIFE_EARLIER=${LIFE_EARLIER-$(scripts/earlier.sh)} || return 1
            export LIFE_EARLIER
            LIFE_SEED=${LIFE_SEED:-$((RANDOM * 1000))} LIFE_LIVES=${LIFE_LIVES:-100} LIFE_EVENTS=${LIFE_EVENTS:-20} \
                LIFE_NODES=${LIFE_NODES:-2} LIFE_TRIES=${LIFE_TRIES:-30} sweep kernel_life
            return
            ;;
    esac
    for tier in ${1//+/ }; do
        tests+=" | $(tests_of "$tier")" || {
            echo "test.sh: unknown tier '$tier': expected check, try, unit or fips (alone), kernel, machine, browser, packages, packages-all, sweep-corpus, sweep-crashes, sweep-power or sweep-life" >&2
            return 2
        }
    done
    [[ +$1+ != *+kernel+* ]] || echo "kernel tier: Linux $("$(scripts/uml.sh --dir)/linux" --version)"
    # make test runs the tests that are not ignored in the unit tier; make test-packages does not run that tier
    [[ $1 != packages-all ]] || ignored=all
    UML_DIR=$(scripts/uml.sh --dir 2>/dev/null)
    export UML_DIR
    processors=$(nproc)
    nextest "$tests" --profile machines --run-ignored "$ignored" --test-threads $((3 * (processors < 4 ? processors : 4) / 2)) || failures=1
    for tier in ${1//+/ }; do
        slowest "$tier" "luks-agent::${tier%-all}"
    done
    return "$failures"
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
