#!/bin/bash
# Installs luks-agent into an image, as root on the machine that the image is made of:
#
#   setup.sh PACKAGE.rpm CONFIG.toml
#
# Nothing of this machine may stay in the image: no state file, whose volumes every node would miss, and no identity.
set -euo pipefail

die() {
    echo "setup.sh: $*" >&2
    exit 1
}

(($# == 2)) || die "expected two arguments, PACKAGE.rpm and CONFIG.toml"
package=$1
config=$2
units=(luks-agent.target luks-agent.service)

((EUID == 0)) || die "expected to run as root"
[[ -r $package ]] || die "cannot read the package $package"
[[ -r $config ]] || die "cannot read the configuration $config"
! grep -Eq '111122223333|alias/example' "$config" || die "$config still names the KMS key of the example"
# shellcheck source=/dev/null
system=$(. /etc/os-release && echo "$ID $VERSION_ID")
[[ $system == "amzn 2023" ]] || die "expected Amazon Linux 2023, not $system; the cryptsetup of Amazon Linux 2 knows no LUKS2"

# What is installed shall not run here: it would encrypt this machine's volumes. The masks are in /run, which no image has.
systemctl mask --runtime --quiet luks-agent-boot.service luks-agent.service
dnf install --assumeyes --quiet "$package"
install -D -m 0644 "$config" /etc/luks-agent/config.d/50-image.toml

# Reads configuration and disks, writes nothing and asks KMS nothing; fails if the configuration has a mistake.
luks-agent plan || die "the agent does not accept the configuration, or this machine has volumes of its own"

systemctl unmask --runtime --quiet luks-agent-boot.service luks-agent.service
systemctl enable "${units[@]}"

state=$(find /etc/luks-agent -name 'state.json*' -print -quit)
[[ -z $state ]] || die "$state is in the way: an image must not have the state of a node"

dnf clean all --quiet
rm -f "$package" "$config" /etc/ssh/ssh_host_*
cloud-init clean --logs
# empty, not away: it is made anew at boot, and systemd does not take that boot for the first of an unconfigured system
truncate --size=0 /etc/machine-id
echo "setup.sh: $(luks-agent --version) is in the image"
