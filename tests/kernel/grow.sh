# Disks grow while their volumes are open, or closed, and a grow is interrupted.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

MIB=1048576
at=/data

# volumes TYPE MORE: writes a configuration in which new volumes get this file system. MORE goes into [volumes].
volumes() {
    config "$KEY_ARN" <<END
[volumes]
$2
[luks]
discards = true
[filesystem]
type = "$1"
mount_base = "$at"
[[volumes.match]]
path = "/dev/mapper/disk-*"
role = "ebs"
END
}
# volume NAME FIELD: prints a field of a volume in the state file. NAME is its file system.
volume() {
    python3 -c 'import json, sys
[v] = [v for v in json.load(open(sys.argv[1]))["volumes"] if v["filesystem"] == sys.argv[2]]
print(v[sys.argv[3]])' "$STATE" "$1" "$2"
}
mapper() { echo "luks-$(volume "$1" luks_uuid)"; }
# assert_mapping NAME MIB: the mapping covers all of a disk of that size.
assert_mapping() {
    assert_eq "$(blockdev --getsize64 "/dev/mapper/$(mapper "$1")")" $((($2 - 16) * MIB)) "the size of the mapping on $1"
}
# assert_filesystem NAME MIB: the file system covers all of a disk of that size.
assert_filesystem() {
    local size
    case $1 in
    xfs) size=$(xfs_info "$at" | sed -n 's/^data .*bsize=\([0-9]*\) *blocks=\([0-9]*\),.*/\1*\2/p') ;;
    ext4) size=$(dumpe2fs -h "/dev/mapper/$(mapper ext4)" 2>/dev/null | awk '/^Block (count|size):/ { printf "%s%s", sep, $3; sep = "*" }') ;;
    esac
    assert_eq "$((size))" $((($2 - 16) * MIB)) "the size of the file system on $1"
}
assert_whole() {
    assert_mapping "$1" "$2"
    assert_filesystem "$1" "$2"
    assert_eq "$(volume "$1" size)" $(($2 * MIB)) "the recorded size of $1"
}
# On the volume without a file system, which may be larger now, compares only the part that was written.
assert_kept() {
    assert_eq "$(sha256sum "$at/file" "${at}1/file" | cut -d' ' -f1)" "$files" "the files"
    assert_eq "$(head -c $((32 * MIB)) "/dev/mapper/$(mapper none)" | sha256sum)" "$raw" "what was written to the mapping"
}
decrypts() { requests /run/requests 'r["operation"] == "Decrypt"'; }
# assert_decrypts N: there were N Decrypt calls since the last check.
assert_decrypts() {
    local now
    now=$(decrypts)
    assert_eq $((now - seen)) "$1" "calls of Decrypt"
    seen=$now
}
tables() { dmsetup table | grep ^luks- | sort; }

# work DISK MAPPER MAPPING FILESYSTEM MOUNT_POINT: runs a worker with a job for the volume on DISK, and leaves its answer in /run/report. If
# MAPPING is true, the job has a passphrase that opens nothing.
work() {
    python3 - "$STATE" "$@" >/run/job <<'END'
import base64, json, os, sys
state, disk, mapper, mapping, filesystem, at = sys.argv[1:]
state = json.load(open(state))
[volume] = [v for v in state["volumes"] if v["filesystem"] == disk]
[key] = [k for k in state["keys"] if k["id"] == volume["key"]]
path = "/dev/mapper/disk-" + disk
rdev = os.stat(path).st_rdev
with open(path, "rb") as node:
    size = node.seek(0, 2)
print(json.dumps({
    "do": "grow",
    "target": {"path": path, "devno": {"major": os.major(rdev), "minor": os.minor(rdev)}, "diskseq": None, "size": size},
    "expected": {"luks_uuid": volume["luks_uuid"], "header": volume["header"], "other": None,
                 "key": {"provider": "aws-kms", "wrapped_key": key["wrapped_key"], "key_arn": key["key_arn"]}},
    "mapper": mapper, "mapping": mapping == "true", "filesystem": filesystem, "mount_point": at or None,
}))
if mapping == "true":
    print(base64.b64encode(b"x" * 32).decode())
END
    agent worker </run/job | tail -n 1 >/run/report
    : >/run/stderr
    cat /run/report
    assert_eq "$(tables)" "$tables_before" "the mappings after an invalid job"
}

start_fake --log /run/requests

say "three volumes"
disk xfs ubdb 340
volumes xfs ""
expect_agent 0 provision
disk ext4 ubdc 100
volumes ext4 ""
expect_agent 0 provision
disk none ubdd 48
volumes none ""
expect_agent 0 provision
assert_whole xfs 340
assert_whole ext4 100
assert_mapping none 48
head -c $((20 * MIB)) /dev/urandom >"$at/file"
head -c $((20 * MIB)) /dev/urandom >"${at}1/file"
head -c $((32 * MIB)) /dev/urandom >"/dev/mapper/$(mapper none)"
files=$(sha256sum "$at/file" "${at}1/file" | cut -d' ' -f1)
raw=$(head -c $((32 * MIB)) "/dev/mapper/$(mapper none)" | sha256sum)
seen=$(decrypts)

say "nothing to grow: no call to KMS, no write"
before=$(stat -c %Y-%i "$STATE")
expect_agent 0 grow
assert_said "nothing changed: 3 unchanged" "as large as its disk"
assert_decrypts 0
assert_eq "$(stat -c %Y-%i "$STATE")" "$before" "the state file"

say "two disks have grown"
resize xfs ubdb 400
resize ext4 ubdc 160
tables_before=$(tables)
expect_agent 0 provision
assert_said "nothing changed: 3 unchanged"
assert_eq "$(tables)" "$tables_before" "the mappings, unless asked or configured to grow"
assert_decrypts 0
expect_agent 0 grow
assert_said "2 grown, 1 unchanged" "from 340 MiB to 400 MiB" "from 100 MiB to 160 MiB"
assert_decrypts 1
assert_whole xfs 400
assert_whole ext4 160
assert_kept
assert_eq "$(tables | grep -c allow_discards)" 3 "mappings with their flags"
expect_agent 0 grow
assert_said "nothing changed: 3 unchanged"
assert_decrypts 0

say "grow of a named volume without a file system"
resize none ubdd 64
resize ext4 ubdc 170
run_expect 2 agent grow /nowhere
expect_agent 0 grow /dev/mapper/disk-none
assert_said "grow: 1 grown" "from 48 MiB to 64 MiB"
assert_mapping none 64
assert_mapping ext4 160
assert_kept
assert_decrypts 1

say "automatic growth"
volumes none "grow = true"
expect_agent 0 plan
assert_said "would grow" "from 160 MiB to 170 MiB" "would unlock 0, would grow 1, 0 refused"
assert_mapping ext4 160
expect_agent 0 provision
assert_said "1 grown, 2 unchanged"
assert_whole ext4 170
assert_decrypts 1
expect_agent 0 provision
assert_said "nothing changed: 3 unchanged"
assert_decrypts 0

say "killed between the mapping and the file system"
tool=$(command -v xfs_growfs)
cp "$tool" /run/xfs_growfs
rm "$tool"
printf '#!/bin/bash\nkill -9 $PPID\n' >"$tool"
chmod +x "$tool"
resize xfs ubdb 420
expect_agent 1 grow
assert_said "ended without an answer, signal: 9" "1 failed"
assert_mapping xfs 420
assert_filesystem xfs 400
assert_eq "$(volume xfs size)" $((400 * MIB)) "the recorded size of xfs"
assert_decrypts 1

say "a tool that fails, and one that is missing"
printf '#!/bin/bash\necho no luck today >&2\nexit 1\n' >"$tool"
expect_agent 1 provision
assert_said "'xfs_growfs' failed, exit status: 1: no luck today" "2 unchanged, 1 failed"
rm "$tool"
resize none ubdd 66
tables_before=$(tables)
for command in grow provision; do
    expect_agent 1 "$command"
    assert_said "'xfs_growfs' is not installed: install package xfsprogs"
done
assert_eq "$(tables)" "$tables_before" "the mappings while a tool is missing"
resize none ubdd 64
cp /run/xfs_growfs "$tool"
expect_agent 0 provision
assert_said "1 grown, 2 unchanged" "from 400 MiB to 420 MiB"
assert_whole xfs 420
assert_decrypts 0
assert_kept

say "not mounted"
resize xfs ubdb 440
umount "$at"
tables_before=$(tables)
expect_agent 1 grow
assert_said "is open, but not mounted" "mount it with 'luks-agent unlock'"
assert_eq "$(tables)" "$tables_before" "the mapping of the unmounted volume"
expect_agent 0 unlock
expect_agent 0 grow "$at"
assert_said "grow: 1 grown"
assert_whole xfs 440
assert_decrypts 1

say "grown while closed: the mapping has the size of the disk once it is opened"
umount "$at"
expect_agent 0 close
resize xfs ubdb 460
resize ext4 ubdc 190
resize none ubdd 72
expect_agent 1 grow
assert_said "is not open" "open it with 'luks-agent unlock'"
expect_agent 0 unlock
assert_decrypts 1
assert_mapping xfs 460
assert_filesystem xfs 440
expect_agent 0 provision
assert_said "from 440 MiB to 460 MiB" "from 170 MiB to 190 MiB" "2 grown, 1 unchanged"
assert_decrypts 0
assert_whole xfs 460
assert_whole ext4 190
assert_mapping none 72
assert_eq "$(volume none size)" $((72 * MIB)) "the recorded size of the volume without a file system"
expect_agent 0 health
assert_said "3 sound"
assert_decrypts 1
assert_kept

say "no key"
resize ext4 ubdc 200
tables_before=$(tables)
fake faults '[{"on": "Decrypt", "effect": {"error": {"code": "DisabledException"}}}]'
KMS_DEADLINE=2s volumes none "grow = true"
expect_agent 4 grow
assert_said "1 without a key"
assert_eq "$(tables)" "$tables_before" "the mappings without a key"
fake faults '[]'
volumes none "grow = true"
expect_agent 0 grow
assert_whole ext4 200
seen=$(decrypts)

say "a changed header"
resize xfs ubdb 480
tables_before=$(tables)
cryptsetup token export --token-id 0 /dev/mapper/disk-xfs >/run/token
cryptsetup token remove --token-id 0 /dev/mapper/disk-xfs
expect_agent 1 grow
assert_said "the LUKS2 header is not what luks-agent wrote" "2 unchanged, 1 failed"
assert_eq "$(tables)" "$tables_before" "the mapping of a changed header"
# the worker checks the header even without a key
work xfs "$(mapper xfs)" false xfs "$at"
assert_said "failed" "the LUKS2 header is not what luks-agent wrote"
cryptsetup token import --token-id 0 --json-file /run/token /dev/mapper/disk-xfs
seen=$(decrypts)

say "the worker refuses jobs that no plan makes"
work xfs "$(mapper ext4)" true xfs "$at"
assert_said "failed" "it maps device"
work xfs "$(mapper ext4)" false none ""
assert_said "failed" "it maps device"
work xfs "$(mapper xfs)" true xfs "${at}1"
assert_said "failed" "is not mounted as xfs at ${at}1"
work xfs "$(mapper xfs)" true ext4 "$at"
assert_said "failed" "is not mounted as ext4 at $at"
work xfs "$(mapper xfs)" true xfs "$at"
assert_said "failed" "the data key opens no keyslot of"
assert_filesystem xfs 460
expect_agent 0 grow
assert_whole xfs 480
assert_kept

say "shrunk"
resize none ubdd 60
tables_before=$(tables)
before=$(sha256sum /dev/ubdd)
state_before=$(sha256sum "$STATE")
for command in grow provision unlock; do
    expect_agent 1 "$command"
    assert_said "wrong" "the disk is smaller than its open volume" "it has 62914560 bytes, 75497472 are in use" "restore the volume from a snapshot" "2 unchanged, 1 failed"
    assert_eq "$(tables)" "$tables_before" "the mapping that is larger than its disk"
done
work none "$(mapper none)" true none ""
assert_said "failed" "more than fit on its disk of 62914560 bytes"
assert_eq "$(sha256sum /dev/ubdd)" "$before" "the disk that has shrunk"
assert_eq "$(sha256sum "$STATE")" "$state_before" "the state file"
resize none ubdd 72
expect_agent 0 grow
assert_said "nothing changed: 3 unchanged"

say "all volumes after close and unlock"
expect_agent 0 close
seen=$(decrypts)
expect_agent 0 unlock
assert_said "3 unlocked"
assert_decrypts 1
assert_whole xfs 480
assert_whole ext4 200
assert_mapping none 72
assert_kept
