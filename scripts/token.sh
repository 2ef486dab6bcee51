#!/bin/bash
# Builds the token plug-in of cryptsetup: one static library of cargo's, linked as libcryptsetup wants it.
#
#   scripts/token.sh [FILE [LINKER_OPTION]...]      (default: target/token/libcryptsetup-token-luks-agent-awskms.so)
#
# rustc passes a version script of its own to the linker, with which GNU ld accepts no other, and lld exports names without a version. So cargo
# makes an archive, and the C compiler links it. LINKER_OPTION goes to the C compiler, such as -fuse-ld=lld. scripts/packages.sh builds for
# other machines, with:
#
#   CC=COMPILER                   what links (default: cc)
#   TOKEN_PROFILE=NAME            cargo's profile (default: release)
#   CARGO_BUILD_TARGET=TARGET     cargo's own variable
set -euo pipefail

project=$(dirname "$(dirname "$(realpath "$0")")")
# a folder of its own: cargo would build what the plug-in shares with the agent again and again, each time with the features of one of them
target=${CARGO_TARGET_DIR:-$project/target}/token
profile=${TOKEN_PROFILE:-release}
archive=$target/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}$profile/libluks_agent_cryptsetup_token.a
file=${1:-$target/libcryptsetup-token-luks-agent-awskms.so}
(($# == 0)) || shift

"${CARGO:-cargo}" build --quiet --locked --manifest-path "$project/Cargo.toml" --package luks-agent-cryptsetup-token --lib \
    --profile "$profile" --target-dir "$target"
keep=()
for name in open validate dump version; do keep+=("-Wl,-u,cryptsetup_token_$name"); done
# without a soname, lld writes the path of FILE into it
# libcryptsetup is named, because not every program that loads the plug-in shows the library to it
${CC:-cc} -shared -o "$file" "$@" "${keep[@]}" -Wl,--version-script="$project/cryptsetup-token/plugin.sym" -Wl,--gc-sections \
    -Wl,-z,defs,-z,relro,-z,now,-z,noexecstack -Wl,-soname,libcryptsetup-token-luks-agent-awskms.so -Wl,-s "$archive" \
    -lcryptsetup -lpthread -ldl
