#!/bin/bash
# The scenario tests: a lab of its own, with its machines made from nothing, scenarios.sh in it, and nothing left behind, also when it
# is interrupted.
#
#   vagrant/test.sh                 after `make packages`; `make vagrant-test` does all that is needed
#   KEEP_LAB=1 vagrant/test.sh      leaves the lab, and says how to enter it
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# with software emulation, on two cores that have other things to do, too
limit=40m

(($# == 0)) || { echo "test.sh: takes no arguments" >&2; exit 2; }
"$here/box.sh" >/dev/null
localstack=$("$here/../scripts/deps.sh" --localstack-dir)
ansible=$("$here/../scripts/deps.sh" --ansible-dir)
[[ -e $ansible/complete ]] || { echo "test.sh: no Ansible in $ansible: run scripts/deps.sh vagrant" >&2; exit 1; }
if [[ -z ${LUKS_AGENT_DEB:-} ]]; then
    # the one that the Vagrantfile would take
    packages=("${CARGO_TARGET_DIR:-$here/../target}"/packages/luks-agent_*_amd64.deb)
    [[ -e ${packages[0]} ]] || { echo "test.sh: no package ${packages[0]}: run 'make packages'" >&2; exit 1; }
    LUKS_AGENT_DEB=$(realpath "$(ls -t "${packages[@]}" | head -n 1)")
fi
export LUKS_AGENT_DEB
cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
LUKS_AGENT_LAB=$(mktemp -d "$cache/lab-test.XXXXXX")
export LUKS_AGENT_LAB

# shellcheck disable=SC2317 # called by trap
clean_up() {
    trap '' INT TERM
    # of use only when this was interrupted
    kill "$inside" 2>/dev/null || true
    if [[ -n ${KEEP_LAB:-} ]]; then
        echo "the lab is left: enter it by LUKS_AGENT_LAB=$LUKS_AGENT_LAB vagrant/isolated.sh, and then end it with --remove"
    else
        "$here/isolated.sh" --remove
    fi
}
inside=
trap clean_up EXIT
trap 'exit 130' INT TERM

# in the background, so that a signal is heard at once; what it has started ends with the lab
timeout --kill-after=10 "$limit" "$here/isolated.sh" "$here/scenarios.sh" "$localstack" "$ansible" </dev/null &
inside=$!
code=0
wait "$inside" || code=$?
((code != 124)) || echo "FAILED: not done within $limit" >&2
exit "$code"
