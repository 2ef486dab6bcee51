#!/bin/bash
# Runs in the guest. Creates NVMe controllers with EC2's model names and serial numbers, over NVMe/TCP on the loopback interface.
#
#   ec2-nvme.sh attach SERIAL [BACKING]   connects a controller. BACKING is the disk behind it: its virtio serial number, or the path of a
#                                         file. The default is behind- and the end of SERIAL. It must differ from SERIAL; otherwise the
#                                         two look like two paths to one disk
#   ec2-nvme.sh attach-burst N DIR BYTES  connects N EBS volumes at the same moment, backed by files in DIR
#   ec2-nvme.sh grow SERIAL BYTES         grows a volume that is backed by a file, as EC2 grows an EBS volume
#   ec2-nvme.sh detach SERIAL             detaches the volume as if it was pulled; the disk behind it keeps its data
#   ec2-nvme.sh attach-all                connects the volumes that ec2nvme=SERIAL,SERIAL,... on the kernel command line names, in that
#                                         order (ec2-nvme.service runs it at boot)
#   ec2-nvme.sh list                      prints the name, serial number and model of every controller
#
# As on EC2, a SERIAL vol... is an EBS volume, and AWS... an instance store volume. The order of connecting determines the names nvme0,
# nvme1 ...
set -euo pipefail

nvmet=/sys/kernel/config/nvmet
host=nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001
host_id=${host##*:}

die() { echo "ec2-nvme: $*" >&2; exit 1; }

model_of() {
    case $1 in
        vol*) echo "Amazon Elastic Block Store" ;;
        AWS*) echo "Amazon EC2 NVMe Instance Storage" ;;
        *) die "serial $1 is neither vol... nor AWS..." ;;
    esac
}

target_up() {
    [ -d "$nvmet" ] || modprobe -a nvmet nvmet-tcp nvme-tcp
    mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
    local port=$nvmet/ports/1
    [ -d "$port" ] && return
    mkdir "$port"
    echo tcp >"$port/addr_trtype"
    echo ipv4 >"$port/addr_adrfam"
    echo 127.0.0.1 >"$port/addr_traddr"
    echo 4420 >"$port/addr_trsvcid"
}

backing_of() {
    local disk serial
    [[ $1 != /* ]] || { echo "$1"; return; }
    for disk in /sys/block/vd*; do
        # the attribute does not end with a newline, so read fails
        read -r serial 2>/dev/null <"$disk/serial" || true
        [ "$serial" = "$1" ] && { echo "/dev/${disk##*/}"; return; }
    done
    die "no virtio disk has the serial $1"
}

offer() {
    local serial=$1 model backing sub=$nvmet/subsystems/$1
    model=$(model_of "$serial")
    backing=$(backing_of "${2:-behind-${serial: -13}}")
    target_up
    [ ! -d "$sub" ] || die "$serial is attached already"
    mkdir "$sub"
    echo 1 >"$sub/attr_allow_any_host"
    echo "$model" >"$sub/attr_model"
    # In Linux 5.10 (Debian 11) the attribute is a number, and the kernel parses as much as it can. Then the serial is a fixed hash instead.
    { echo "$serial" >"$sub/attr_serial"; } 2>/dev/null || true
    [ "$(cat "$sub/attr_serial")" = "$serial" ] || echo "0x$(md5sum <<<"$serial" | cut -c1-16)" >"$sub/attr_serial"
    mkdir "$sub/namespaces/1"
    echo "$backing" >"$sub/namespaces/1/device_path"
    echo 1 >"$sub/namespaces/1/enable"
    ln -s "$sub" "$nvmet/ports/1/subsystems/$serial"
}

# Prints the link that udev creates for a connected volume, from the serial number that the kernel shows.
link_of() {
    local ctl model serial
    for ctl in /sys/class/nvme/nvme*; do
        [ "$(cat "$ctl/subsysnqn")" = "$1" ] || continue
        # sysfs pads both with spaces, read drops them
        read -r model <"$ctl/model"
        read -r serial <"$ctl/serial"
        echo "/dev/disk/by-id/nvme-${model// /_}_$serial"
    done
}

connect() {
    local end=$((SECONDS + 60))
    # both ends are in this kernel; on a busy emulator one can run into a deadline of the other
    until { echo "transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn=$1,hostnqn=$host,hostid=$host_id" >/dev/nvme-fabrics; } 2>/dev/null; do
        [ -z "$(link_of "$1")" ] || return 0
        ((SECONDS < end)) || die "the kernel did not connect $1 within 60 s: $(dmesg | grep nvme | tail -n 3)"
        sleep 1
    done
}

appears() {
    # systemd 251 and later
    if udevadm wait --help >/dev/null 2>&1; then
        udevadm wait --timeout=30 "$1"
        return
    fi
    local end=$((SECONDS + 30))
    until [ -e "$1" ]; do
        ((SECONDS < end)) || return
        udevadm settle --timeout=5 --exit-if-exists="$1"
    done
}

attach() {
    local link
    offer "$1" "${2:-}"
    connect "$1"
    link=$(link_of "$1")
    appears "$link" || die "$link did not appear within 30 s"
}

# Stops udev until all volumes are connected, which takes seconds under software emulation. The caller starts it again.
attach_burst() {
    local count=$1 dir=$2 bytes=$3 n serial
    mkdir -p "$dir"
    udevadm control --stop-exec-queue
    for ((n = 1; n <= count; n++)); do
        serial=$(printf 'vol0%016d' "$n")
        truncate -s "$bytes" "$dir/$serial"
        offer "$serial" "$dir/$serial"
        connect "$serial"
    done
}

grow() {
    local ns=$nvmet/subsystems/$1/namespaces/1
    truncate -s "$2" "$(cat "$ns/device_path")"
    echo 1 >"$ns/revalidate_size"
}

detach() {
    local serial=$1 sub=$nvmet/subsystems/$1 ctl
    for ctl in /sys/class/nvme/nvme*; do
        [ -e "$ctl/subsysnqn" ] && [ "$(cat "$ctl/subsysnqn")" = "$serial" ] && echo 1 >"$ctl/delete_controller"
    done
    [ -d "$sub" ] || die "$serial is not attached"
    rm "$nvmet/ports/1/subsystems/$serial"
    rmdir "$sub/namespaces/1" "$sub"
    udevadm settle
}

attach_all() {
    local word serial
    for word in $(cat /proc/cmdline); do
        case $word in
            ec2nvme=*)
                for serial in $(tr , ' ' <<<"${word#ec2nvme=}"); do
                    # a volume that fails must not prevent the others
                    (attach "$serial") || failed=1
                done ;;
        esac
    done
    [ -z "${failed:-}" ]
}

list() {
    local disk serial model
    for disk in /sys/block/nvme*n1; do
        [ -e "$disk" ] || continue
        read -r serial <"$disk/device/serial"
        read -r model <"$disk/device/model"
        echo "${disk##*/} $serial $model"
    done
}

case ${1:-} in
    attach) attach "$2" "${3:-}" ;;
    attach-burst) attach_burst "$2" "$3" "$4" ;;
    grow) grow "$2" "$3" ;;
    detach) detach "$2" ;;
    attach-all) attach_all ;;
    list) list ;;
    *) die "usage: attach SERIAL [BACKING] | attach-burst N DIR BYTES | grow SERIAL BYTES | detach SERIAL | attach-all | list" ;;
esac
