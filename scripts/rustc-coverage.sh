#!/bin/bash
# What cargo calls for the packages of this workspace in place of rustc, for scripts/fuzz.sh: rustc with the compiler's own
# coverage, as cargo-fuzz asks for it. No sanitizer, which would need a nightly compiler: the packages have no unsafe code.
exec "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
