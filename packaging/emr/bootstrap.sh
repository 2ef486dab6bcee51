#!/bin/bash
# EMR bootstrap action: installs luks-agent on a node, or checks the luks-agent of its AMI.
#
#   bootstrap.sh [--package s3://BUCKET/KEY.rpm --sha256 HEX] [--config s3://BUCKET/KEY.toml] [--leave-mounted] [--require-encrypted]
#
#   --package, --sha256   install this package; without them, luks-agent must be installed already, as in a custom AMI
#   --config              install this file as /etc/luks-agent/config.d/50-bootstrap.toml
#   --leave-mounted       ignore the disks that are mounted now, which EMR made; luks-agent would refuse them at every boot
#   --require-encrypted   fail unless luks-agent.target is reached and /mnt, /mnt1 ... are encrypted; EMR then terminates the node
#
# EMR makes and mounts its volumes before it runs bootstrap actions, so this encrypts none of them; docs/emr-bootstrap.md says when to
# use it.
set -euo pipefail

die() {
    echo "luks-agent bootstrap: $*" >&2
    exit 1
}

((EUID == 0)) || exec sudo -- bash "$0" "$@" # EMR runs bootstrap actions as hadoop

package="" sha256="" config="" leave_mounted=no require_encrypted=no
while (($#)); do
    case $1 in
        --package | --sha256 | --config) (($# > 1)) || die "$1 expects a value" ;;&
        --package) package=$2 && shift ;;
        --sha256) sha256=$2 && shift ;;
        --config) config=$2 && shift ;;
        --leave-mounted) leave_mounted=yes ;;
        --require-encrypted) require_encrypted=yes ;;
        *) die "unknown argument '$1': expected --package, --sha256, --config, --leave-mounted or --require-encrypted" ;;
    esac
    shift
done
for object in $package $config; do
    [[ $object == s3://?*/?* ]] || die "'$object' is not an S3 object; expected s3://BUCKET/KEY"
done
[[ -z $package || $sha256 =~ ^[0-9a-f]{64}$ ]] || die "--package needs --sha256 with 64 lower-case hexadecimal digits"
[[ -n $package ]] || command -v luks-agent >/dev/null || die "luks-agent is not installed; use --package, or an AMI with luks-agent"

# shellcheck source=/dev/null
system=$(. /etc/os-release && echo "$ID $VERSION_ID")
[[ $system == "amzn 2023" ]] || die "'$system' is not supported: expected Amazon Linux 2023 (EMR 7), for LUKS2"

drop_ins=/etc/luks-agent/config.d
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The configuration comes before the package, because the agent may start as soon as it is installed.
if [[ -n $config ]]; then
    aws s3 cp --only-show-errors "$config" "$work/config.toml" || die "cannot fetch '$config'; the error of 'aws s3 cp' is above"
    install -D -m 0644 "$work/config.toml" "$drop_ins/50-bootstrap.toml"
fi

# Lists the disk below every file system that is mounted now, except file systems on luks-agent's mappings. The list includes the boot
# volume, whose role no rule changes.
mounted_disks() {
    local source
    findmnt --noheadings --raw --output SOURCE | sed -n 's,^\(/dev/[^[]*\).*,\1,p' | grep -v '^/dev/mapper/luks-' |
        sort -u | while read -r source; do
        lsblk --inverse --noheadings --raw --output NAME,TYPE,SERIAL "$source" | awk '$2 == "disk" { print $1, $3 }'
    done | sort -u
}

if [[ $leave_mounted == yes ]]; then
    mounted_disks >"$work/disks"
    while read -r disk serial; do
        [[ -n $serial ]] || die "'$disk' has no serial number for a rule; --leave-mounted needs an instance type with NVMe disks"
        printf '[[volumes.match]]\nserial = "%s"\nrole = "ignore"\n' "$serial"
    done <"$work/disks" >"$work/mounted.toml"
    install -D -m 0644 "$work/mounted.toml" "$drop_ins/40-mounted.toml"
fi

if [[ -n $package ]]; then
    aws s3 cp --only-show-errors "$package" "$work/luks-agent.rpm" || die "cannot fetch '$package'; the error of 'aws s3 cp' is above"
    sha256sum --check --quiet <<<"$sha256  $work/luks-agent.rpm" || die "the checksum of '$package' differs from --sha256"
    dnf install --assumeyes --quiet "$work/luks-agent.rpm" || die "cannot install '$package'; the error of dnf is above"
fi
luks-agent status >/dev/null || die "luks-agent does not accept its configuration; its message is above"
systemctl enable --quiet luks-agent.target luks-agent.service
systemctl reload-or-restart luks-agent.service

wrong=()
systemctl start luks-agent.target || wrong+=("luks-agent.target was not reached")
mapfile -t mount_points < <(findmnt --noheadings --raw --output TARGET | grep -E '^/mnt[0-9]*$' | sort -u)
((${#mount_points[@]})) || wrong+=("nothing is mounted at /mnt")
for mount_point in "${mount_points[@]}"; do
    source=$(findmnt --noheadings --raw --output SOURCE --target "$mount_point")
    stack=$(lsblk --inverse --noheadings --raw --output TYPE "${source%%[*}")
    [[ $stack == *crypt* ]] || wrong+=("$mount_point is not encrypted")
done
luks-agent status || true
((${#wrong[@]})) || exit 0

printf 'luks-agent bootstrap: %s\n' "${wrong[@]}" >&2
luks-agent plan || true
[[ $require_encrypted == no ]] || die "the node does not meet --require-encrypted"
