# What wipe-instance-store wipes, and what it does not. The run `before` prepares committed volumes on ubdh and ubdi, and LVM on ubdf.
#
#   corpus-wipe.sh before|wipe
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

lvm() { command lvm "$@" --config 'devices { obtain_device_list_from_udev=0 use_devicesfile=0 } activation { udev_sync=0 udev_rules=0 }'; }

# configure_wipe EBS INSTANCE_STORE refuse|wipe-instance-store: writes a configuration; EBS and INSTANCE_STORE are letters of disks.
configure_wipe() {
    config "$KEY_ARN" <<TOML
[volumes]
when_not_blank = "$3"
[filesystem]
type = "ext4"
mount_base = "/data"
[[volumes.match]]
path = "/dev/ubd[$1]"
role = "ebs"
[[volumes.match]]
path = "/dev/ubd[$2]"
role = "instance-store"
TOML
}

start_fake
case $1 in
before)
    configure_wipe z hi refuse
    expect_agent 0 provision
    expect_agent 0 close
    lvm pvcreate -q /dev/ubdf
    lvm vgcreate -q data /dev/ubdf
    lvm lvcreate -q --yes --wipesignatures n -n one -L 16M data
    ;;
wipe)
    lvm vgchange -q -ay data
    mkdir -p /run/mounted /run/partition
    mount -o ro /dev/ubdd /run/mounted
    [[ -b /dev/ubde1 ]] || fail "no partition"
    mount -o ro /dev/ubde1 /run/partition
    configure_wipe pon bcdefghijklm wipe-instance-store
    agent provision --json >/run/report 2>/run/stderr || say "exit status $?"
    cat /run/stderr
    printf 'report wipe %s\n' "$(python3 -c 'import json; print(json.dumps(json.load(open("/run/report"))))')"
    ;;
esac
