#!/bin/bash
# Runs the scenario tests: starts a separate lab with new machines, runs scenarios.sh in it, and removes the lab, even if it is interrupted.
#
#   vagrant/test.sh                 needs `make packages` first; `make vagrant-test` does everything
#   KEEP_LAB=1 vagrant/test.sh      keeps the lab, and says how to enter it
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# enough for software emulation on two busy cores
limit=40m

(($# == 0)) || { echo "test.sh: takes no arguments" >&2; exit 2; }
"$here/box.sh" >/dev/null
localstack=$("$here/../scripts/deps.sh" --localstack-dir)
ansible=$("$here/../scripts/deps.sh" --ansible-dir)
[[ -e $ansible/complete ]] || { echo "test.sh: no Ansible in $ansible; run scripts/deps.sh vagrant" >&2; exit 1; }
if [[ -z ${LUKS_AGENT_DEB:-} ]]; then
    # the package that the Vagrantfile would use
    packages=("${CARGO_TARGET_DIR:-$here/../target}"/packages/luks-agent_*_amd64.deb)
    [[ -e ${packages[0]} ]] || { echo "test.sh: no package ${packages[0]}; run 'make packages'" >&2; exit 1; }
    LUKS_AGENT_DEB=$(realpath "$(ls -t "${packages[@]}" | head -n 1)")
fi
export LUKS_AGENT_DEB
cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
LUKS_AGENT_LAB=$(mktemp -d "$cache/lab-test.XXXXXX")
export LUKS_AGENT_LAB

# shellcheck disable=SC2317 # trap calls it
clean_up() {
    trap '' INT TERM
    # needed only if the script was interrupted
    kill "$inside" 2>/dev/null || true
    if [[ -n ${KEEP_LAB:-} ]]; then
        echo "the lab still runs; enter it with LUKS_AGENT_LAB=$LUKS_AGENT_LAB vagrant/isolated.sh, and remove it with --remove"
    else
        "$here/isolated.sh" --remove
    fi
}
inside=
trap clean_up EXIT
trap 'exit 130' INT TERM

# in the background, so that the shell handles a signal at once; its processes end with the lab
timeout --kill-after=10 "$limit" "$here/isolated.sh" "$here/scenarios.sh" "$localstack" "$ansible" </dev/null &
inside=$!
code=0
wait "$inside" || code=$?
((code != 124)) || echo "FAILED: timed out after $limit" >&2
exit "$code"
