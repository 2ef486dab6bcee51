# The agent cannot verify that these disks are blank, although they may be: unreadable, slow, unsteady, in use, changing.
#
#   corpus-odd.sh PREPARED      PREPARED is a file that is written over a disk between plan and format
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

prepared=$1
modprobe -a dm-delay dm-dust dm-flakey

# print_report WORD: prints the report in /run/report with device-mapper names.
print_report() {
    dmsetup info -c --noheadings --separator ' ' -o blkdevname,name | grep ^dm- >/run/names || true
    printf 'report %s %s\n' "$1" "$(python3 -c 'import json
names = dict(line.split() for line in open("/run/names"))
report = json.load(open("/run/report"))
for row in report["rows"]: row["device"] = names.get(row["device"], row["device"])
print(json.dumps(report))')"
}

# size in sectors of each of the seven disks that are made from ubdb
unit=$((33 * 2048))
make() { dmsetup create "$1" --table "$2"; }
sectors() { blockdev --getsz "$1"; }

start_fake --log /run/requests
modprobe ext2 2>/dev/null || true

say "blank_scan = full reads the whole disk"
config "$KEY_ARN" <<'TOML'
[volumes]
blank_scan = "full"
[[volumes.match]]
path = "/dev/ubdm"
role = "ebs"
TOML
agent provision --json >/run/report || say "exit status $?"
print_report full

say "unreadable"
at() { echo $(($1 * unit)); }
middle=$((unit / 2))
make error-start "0 8 error
8 $((unit - 8)) linear /dev/ubdb $(($(at 0) + 8))"
make error-middle "0 $middle linear /dev/ubdb $(at 1)
$middle 8 error
$((middle + 8)) $((unit - middle - 8)) linear /dev/ubdb $(($(at 1) + middle + 8))"
make error-end "0 $((unit - 8)) linear /dev/ubdb $(at 2)
$((unit - 8)) 8 error"
number=3
for bad in start:0 middle:$middle end:$((unit - 1)); do
    make "dust-${bad%:*}" "0 $unit dust /dev/ubdb $(at $number) 512"
    # dm-dust counts sectors from the start of the device below
    dmsetup message "dust-${bad%:*}" 0 addbadblock $(($(at $number) + ${bad#*:}))
    dmsetup message "dust-${bad%:*}" 0 enable
    number=$((number + 1))
done
make ext4-error "0 $((unit - 8)) linear /dev/ubdb $(at 6)
$((unit - 8)) 8 error"

say "read-only"
blockdev --setro /dev/ubdc

say "unsteady: the first byte of every read, and of every read in one second of three"
# dm-flakey cannot corrupt a read that the driver completes, so it must not be on the disk itself
make flaky-below "0 $(sectors /dev/ubdd) linear /dev/ubdd 0"
make flaky "0 $(sectors /dev/ubdd) flakey /dev/mapper/flaky-below 0 0 600 5 corrupt_bio_byte 1 r 1 0"
# so slow that the agent's check takes longer than three seconds
make slow-below "0 $(sectors /dev/ubde) delay /dev/ubde 0 300"
make sometimes "0 $(sectors /dev/ubde) flakey /dev/mapper/slow-below 0 2 1 5 corrupt_bio_byte 1 r 1 0"

say "slow, and too slow"
make slow "0 $(sectors /dev/ubdf) delay /dev/ubdf 0 20"
make too-slow "0 $(sectors /dev/ubdg) delay /dev/ubdg 0 250"

say "changing between plan and format"
make swapped "0 $(sectors /dev/ubdi) linear /dev/ubdi 0"
make turning "0 $(sectors /dev/ubdn) linear /dev/ubdn 0"

say "in use, where the kernel's tables do not show it"
python3 -c 'import os, time
disk = os.open("/dev/ubdk", os.O_RDONLY | os.O_EXCL)
open("/run/opened", "w").close()
time.sleep(10000)' &
unshare --mount sh -c 'mount -t ext2 -o ro /dev/ubdl /media && touch /run/mounted && sleep 10000' &
wait_for 60 test -e /run/opened -a -e /run/mounted

say "held by another device"
make holder "0 $(sectors /dev/ubdo) linear /dev/ubdo 0"

# configure_odd TOML ROLE: writes a configuration that begins with TOML and gives ROLE to the odd disks.
configure_odd() {
    KMS_DEADLINE=2m config "$KEY_ARN" <<TOML
$1
[filesystem]
type = "ext4"
mount_base = "/data"
[[volumes.match]]
path = "/dev/mapper/{flaky-below,slow-below,holder}"
role = "ignore"
[[volumes.match]]
path = "/dev/{ubd[chklop],mapper/*}"
role = "$2"
TOML
}

say "disks change after provision has planned, and before it may format"
configure_odd '[volumes]
deadline = "15s"' ebs
provision_until_decrypt
dd if="$prepared" of=/dev/ubdh bs=1M conv=fsync status=none
dmsetup remove swapped
make swapped "0 $(sectors /dev/ubdj) linear /dev/ubdj 0"
dmsetup suspend turning
dmsetup load turning --table "0 $(sectors /dev/ubdn) error"
dmsetup resume turning
expect_rest_of_provision 1
print_report odd

say "a disk that cannot be read, or is in use, is not wiped either"
expect_agent 0 close
for gone in flaky sometimes slow too-slow swapped turning; do dmsetup remove "$gone"; done
configure_odd '[volumes]
when_not_blank = "wipe-instance-store"' instance-store
sed -i 's/ubd\[chklop\]/ubd[cklo]/' "$CONFIG"
agent provision --json >/run/report 2>/run/stderr || say "exit status $?"
cat /run/stderr
print_report wipe
