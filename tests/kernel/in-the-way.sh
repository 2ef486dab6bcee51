# Obstacles: another agent, files at the mount points, data on the disks, volumes that are in use.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# configure_wipe refuse|wipe-instance-store
configure_wipe() {
    config "$KEY_ARN" <<TOML
[volumes]
when_not_blank = "$1"
[filesystem]
type = "ext4"
mount_base = "/srv/deep/data"
[[volumes.match]]
path = "/dev/ubd[bc]"
role = "instance-store"
[[volumes.match]]
path = "/dev/ubd[de]"
role = "ebs"
TOML
}
decrypts() { requests /run/requests 'r["operation"] == "Decrypt"'; }
sums() { sha256sum "$@" | cut -d' ' -f1; }
summary() { agent status --json >/run/report && report 'report["summary"]'; }

start_fake --log /run/requests
configure_wipe refuse
at=/srv/deep/data

say "a lock that any user can take does not block the agent"
chmod 755 "${CONFIG%/*}"
unprivileged() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
unprivileged flock --no-fork "${CONFIG%/*}" sleep 600 &
held_by_others() { ! flock --nonblock "${CONFIG%/*}" true; }
wait_for 30 held_by_others

say "data on the disks stays there"
sfdisk -q /dev/ubdb <<<'label: gpt
size=10MiB'
mkfs.ext4 -q /dev/ubdc
dd if=/dev/urandom of=/dev/ubdd bs=1k count=3 seek=20000 conv=notrunc status=none
sync
before=$(sums /dev/ubd[bcd])
expect_agent 3 provision
assert_said "gpt partition table" "ext4 at byte" "first seen at byte 20480000" "1 formatted, 3 refused" "wipefs --all"
assert_eq "$(sums /dev/ubd[bcd])" "$before" "the refused disks"
run_expect 66 unprivileged flock --nonblock "${STATE%/*}" true 2>/run/stderr
assert_eq "$(</run/stderr)" "flock: cannot open lock file ${STATE%/*}: Permission denied" "a lock of others on the state directory"
findmnt -n "$at"
assert_eq "$(stat -c %a /srv/deep "$at" | xargs)" "755 755" "the modes of the mount point and its parent"

say "wipe-instance-store: the agent formats only instance store"
before=$(sums /dev/ubdd)
configure_wipe wipe-instance-store
expect_agent 3 provision
assert_said "2 formatted, 1 unchanged, 1 refused"
assert_eq "$(sums /dev/ubdd)" "$before" "the refused EBS disk"
findmnt -n "${at}1"
findmnt -n "${at}2"

say "close"
run_expect 2 agent close /nowhere
expect_agent 2 close ubdd
assert_said "no open volume is called 'ubdd'" "one of: ubdb, ubdc, ubde"
expect_agent 0 close "${at}1"
assert_said "1 of 1 closed"
run_expect 1 findmnt "${at}1"
exec 7>"${at}2/held"
expect_agent 1 close
assert_said "failed" "nothing was changed: process $BASHPID (" "1 of 2 closed"
findmnt -n "${at}2"
exec 7>&-
expect_agent 0 close
[[ -z $(find /dev/mapper -name 'luks-*') ]] || fail "mappings are left"
expect_agent 0 close
assert_said "no volume is open, nothing changed"
configure_wipe refuse

say "taken mount points: the agent formats no disk for them, and mounts known volumes once they are free"
blank ubdd
# a name with an escape sequence
mine=${at}3/$'mi\e[2Jne'
mkdir -p "${at}3"
touch "$mine"
mount -t tmpfs tmpfs "${at}1"
expect_agent 1 provision
assert_said "nothing was done: mount point ${at}3 is not empty: it contains 'mi\u{1b}[2Jne'; move them away" \
    "mount point ${at}1 is taken: tmpfs is mounted there" "2 unlocked, 2 failed"
if grep -q $'\e' /run/report /run/stderr; then fail "a control character reached the terminal"; fi
assert_blank ubdd
expect_agent 1 provision
assert_said "2 unchanged, 2 failed"
assert_contains "$(summary)" "3 open, 0 locked, 0 missing, 0 new" "status meanwhile"
rm "$mine"
umount "${at}1"
expect_agent 0 provision
assert_said "1 formatted, 1 unlocked, 2 unchanged"
assert_eq "$(requests /run/requests 'r["operation"] == "GenerateDataKey"')" 1 "data keys made"

say "another agent"
expect_agent 0 close
decrypts_before=$(decrypts)
fake faults '[{"on": "Decrypt", "delay_ms": 5000, "times": 1}]'
"$LUKS_AGENT" unlock >/run/first 2>&1 &
first=$!
# the first agent calls KMS while it holds the lock
more_decrypts() { (($(decrypts) > $1)); }
wait_for 30 more_decrypts "$decrypts_before"
expect_agent 0 provision
assert_said "waiting for another luks-agent (pid $first, $LUKS_AGENT unlock) to finish: it holds the lock on ${STATE%/*}" \
    "nothing changed: 4 unchanged"
wait "$first"
say "another agent that does not finish in time"
sed -i 's/^deadline = .*/deadline = "1s"/; s/^\[volumes\]/&\ndeadline = "1s"/' "$CONFIG"
flock --no-fork "${STATE%/*}" sleep 600 &
holder=$!
is_locked() { ! flock --nonblock "${STATE%/*}" true; }
wait_for 30 is_locked
expect_agent 1 close
assert_said "another luks-agent is running (pid $holder, sleep 600) and holds the lock on ${STATE%/*}; gave up after 2 s" \
    "wait for it to finish"
kill "$holder"
wait "$holder" || true
configure_wipe refuse

say "another program has locked a disk"
expect_agent 0 close
exec 8</dev/ubdd
flock 8
expect_agent 1 unlock
assert_said "another program has locked /dev/ubdd" "3 unlocked"
exec 8<&-
expect_agent 0 unlock

say "mappings without a device node, as a process leaves them that is killed too early"
umount "$at"
rm /dev/mapper/luks-*
expect_agent 0 provision
assert_said "1 unlocked, 3 unchanged"
findmnt -n "$at"
assert_eq "$(find /dev/mapper -name 'luks-*' | wc -l)" 1 "nodes made"
rm /dev/mapper/luks-*
expect_agent 0 close
assert_said "4 of 4 closed"
[[ -z $(dmsetup ls | grep luks-) ]] || fail "mappings are left"

say "mappings without a table, as a process leaves them that is killed while it creates them"
agent status --json >/run/report
names=$(report '" ".join(row["mapper"] for row in rows.values() if row["result"] == "locked")')
read -r name_only loaded _ <<<"$names"
for name in "$name_only" "$loaded"; do
    uuid=${name#luks-}
    dmsetup create "$name" --notable --uuid "CRYPT-LUKS2-${uuid//-/}-$name"
done
disk=$(report "[row['device'] for row in rows.values() if row['mapper'] == '$loaded'][0]")
# an inactive table holds the disk too
dmsetup load "$loaded" --table "0 8 linear /dev/$disk 0"
[[ -n $(ls "/sys/block/$disk/holders") ]] || fail "$disk has no holder"
dmsetup create not-ours --notable
expect_agent 0 unlock
assert_said "4 unlocked" "$loaded"
for mounted in "$at" "${at}1" "${at}2" "${at}3"; do findmnt -n "$mounted"; done
dmsetup remove not-ours

say "sysfs loses a disk for a moment: its volume is missing, but stays open and mounted"
: >/run/empty
mount --bind /run/empty /sys/block/ubde/queue/logical_block_size
for command in unlock provision; do
    expect_agent 1 "$command"
    assert_said "skipping a disk that cannot be read"
    for mounted in "$at" "${at}1" "${at}2" "${at}3"; do findmnt -n "$mounted"; done
done
umount /sys/block/ubde/queue/logical_block_size
expect_agent 0 provision
assert_said "4 unchanged"

say "closed on purpose: the daemon's runs leave the volume closed, and call no Decrypt"
expect_agent 0 close ubde
decrypts_before=$(decrypts)
expect_agent 0 provision --leave-closed
assert_said "3 unchanged" "closed with 'luks-agent close'; 'luks-agent unlock' opens it"
assert_eq "$(decrypts)" "$decrypts_before" "Decrypt"
assert_contains "$(summary)" "3 open, 1 locked" "status meanwhile"
expect_agent 0 provision
assert_said "1 unlocked, 3 unchanged"
expect_agent 0 provision --leave-closed
assert_said "4 unchanged"
