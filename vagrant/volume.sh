#!/bin/bash
# Does from outside what EC2 does to volumes: `aws ec2 attach-volume` and `detach-volume`, and the effect of a stop on instance store. For
# the libvirt provider.
#
#   volume.sh create SERIAL           creates a blank EBS volume
#   volume.sh attach NODE SERIAL      attaches the volume to a running node
#   volume.sh detach NODE SERIAL      detaches it from a running node; without `luks-agent close SERIAL` there first, it is pulled
#   volume.sh reset NODE              resets every block of the instance store of a halted node, as a stop does
#   volume.sh raw SERIAL FILE         copies the contents of the disk, byte by byte, to a file
set -euo pipefail

images=/var/lib/libvirt/images
size_mib=320

die() { echo "volume.sh: $*" >&2; exit 1; }

usage() { sed -n '5,9s/^#  *//p' "$0" >&2; exit 2; }

# without a terminal; on one, virsh looks for a polkit agent and complains that there is none
virsh() { setsid --wait virsh "$@"; }

guest() {
    vagrant ssh "$1" --no-tty --command "sudo ec2-volume $2 $3" -- -o LogLevel=ERROR
}

# Prints the first free name: vdb and so on, as virtio disks are called.
free_target() {
    local used letter
    used=$(virsh domblklist "$1")
    for letter in {b..z}; do
        [[ $used == *"vd$letter"* ]] || { echo "vd$letter"; return; }
    done
}

attach() {
    local domain=luks-agent-$1 serial=$2 image=$images/$2.qcow2
    [[ -e $image ]] || die "no volume $serial; use one of the Vagrantfile, or run 'volume.sh create' first"
    # persistent: it is still attached after a reboot
    virsh --quiet attach-disk "$domain" "$image" "$(free_target "$domain")" --targetbus virtio --driver qemu --subdriver qcow2 \
        --serial "behind-${serial: -13}" --persistent
    guest "$1" attach "$serial"
}

detach() {
    local domain=luks-agent-$1 image=$images/$2.qcow2
    virsh domblklist "$domain" | grep -qF "$image" || die "$2 is not attached to $1"
    guest "$1" detach "$2"
    virsh --quiet detach-disk "$domain" "$image" --persistent
    # the guest may take a while to release it
    for _ in {1..300}; do
        virsh domblklist "$domain" | grep -qF "$image" || return 0
        sleep 0.1
    done
    die "$1 did not release the disk behind $2 within 30 s"
}

reset() {
    local image
    [[ $(virsh domstate "luks-agent-$1") == "shut off" ]] || die "$1 is not halted; run 'vagrant halt $1' first"
    for image in $(virsh domblklist "luks-agent-$1" | grep -o "$images/AWS[^ ]*"); do
        qemu-img create -q -f qcow2 "$image" "${size_mib}M"
    done
}

[[ ${LIBVIRT_DEFAULT_URI:-} == qemu:///system ]] || export LIBVIRT_DEFAULT_URI=qemu:///system
case ${1:-}:$# in
    create:2)
        [[ $2 == vol* ]] || die "'$2' is not the serial number of an EBS volume: expected vol..."
        [[ ! -e $images/$2.qcow2 ]] || die "volume $2 already exists"
        virsh --quiet vol-create-as default "$2.qcow2" "${size_mib}M" --format qcow2
        ;;
    attach:3) attach "$2" "$3" ;;
    detach:3) detach "$2" "$3" ;;
    reset:2) reset "$2" ;;
    # --force-share: a running machine may have the disk open
    raw:3) qemu-img convert --force-share -O raw "$images/$2.qcow2" "$3" ;;
    *) usage ;;
esac
