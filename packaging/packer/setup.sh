#!/bin/bash
# Installs luks-agent into an image. Runs as root on the machine that becomes the image:
#
#   setup.sh PACKAGE.rpm CONFIG.toml
#
# Nothing specific to this machine may stay in the image: no state file, because every node would miss its volumes, and no identity.
set -euo pipefail

die() {
    echo "setup.sh: $*" >&2
    exit 1
}

(($# == 2)) || die "expected two arguments: PACKAGE.rpm and CONFIG.toml"
package=$1
config=$2
units=(luks-agent.target luks-agent.service)

((EUID == 0)) || die "needs root; run it with sudo"
[[ -r $package ]] || die "cannot read the package '$package'"
[[ -r $config ]] || die "cannot read the configuration '$config'"
! grep -Eq '111122223333|alias/example' "$config" || die "'$config' still names the example KMS key; replace it with your own"
# shellcheck source=/dev/null
system=$(. /etc/os-release && echo "$ID $VERSION_ID")
[[ $system == "amzn 2023" ]] || die "'$system' is not supported: expected Amazon Linux 2023; Amazon Linux 2 has no LUKS2"

# The agent must not run here: it would encrypt this machine's volumes. The masks are in /run, which is not part of the image.
systemctl mask --runtime --quiet luks-agent-boot.service luks-agent.service
dnf install --assumeyes --quiet "$package"
install -D -m 0644 "$config" /etc/luks-agent/config.d/50-image.toml

# Fails if the configuration is invalid. Reads the configuration and the disks, writes nothing and does not call KMS.
luks-agent plan || die "'luks-agent plan' failed: the configuration is invalid, or the agent refuses a disk of this machine"

systemctl unmask --runtime --quiet luks-agent-boot.service luks-agent.service
systemctl enable "${units[@]}"

state=$(find /etc/luks-agent -name 'state.json*' -print -quit)
[[ -z $state ]] || die "the state file '$state' exists: an image must not contain the state of a node"

dnf clean all --quiet
rm -f "$package" "$config" /etc/ssh/ssh_host_*
cloud-init clean --logs
# Emptied, not removed: systemd then makes a new ID at boot, and does not treat that boot as the first boot of an unconfigured system.
truncate --size=0 /etc/machine-id
echo "setup.sh: installed $(luks-agent --version)"
