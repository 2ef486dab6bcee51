#!/bin/bash
# For scripts/fuzz.sh: cargo calls this instead of rustc for the packages of this workspace. It adds the compiler's coverage with the same
# options as cargo-fuzz. It adds no sanitizer, which would need a nightly compiler; what is fuzzed has no unsafe code.
exec "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
