# Every task runs with only the capabilities of its unit: first boot, growth of both file systems, health, stop, next boot, audit. The mount points
# are below a directory of another user, who also owns the files on the volumes.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

at=/srv/others/data
# volumes TYPE: writes a configuration in which new volumes get this file system.
volumes() {
    config "$KEY_ARN" <<END
[volumes]
grow = true
[filesystem]
type = "$1"
mount_base = "$at"
[[volumes.match]]
path = "/dev/mapper/disk-*"
role = "ebs"
END
}
mib() { echo $(($(findmnt -bno SIZE "$1") >> 20)); }

start_fake
mkdir -p /srv/others
chown 1000:1000 /srv/others
chmod 750 /srv/others

disk xfs ubdb 340
volumes xfs
as_unit luks-agent-boot.service
disk ext4 ubdc 100
volumes ext4
as_unit luks-agent-provision.service
for dir in "$at" "${at}1"; do
    findmnt -n "$dir"
    echo kept >"$dir/file"
    chown 1000:1000 "$dir" "$dir/file"
    chmod 700 "$dir"
done

say "both grow"
before=("$(mib "$at")" "$(mib "${at}1")")
resize xfs ubdb 400
resize ext4 ubdc 160
as_unit luks-agent-provision.service
assert_said "2 grown"
(($(mib "$at") - before[0] > 40 && $(mib "${at}1") - before[1] > 40)) || fail "the file systems: $(mib "$at"), $(mib "${at}1") MiB"

as_unit luks-agent-health.service
assert_said "2 sound"

as_unit luks-agent-boot.service ExecStop
assert_said "2 of 2 closed"
as_unit luks-agent-boot.service
for dir in "$at" "${at}1"; do assert_eq "$(<"$dir/file")" kept "the file in $dir"; done
as_unit luks-agent-health.service
assert_said "2 sound"

as_unit luks-agent-audit.service
assert_said "audit: encrypted"
# it sees what is mounted below the directory of another user
assert_eq "$(python3 -c 'import json
print([disk["reasons"] for disk in json.load(open("/run/luks-agent/audit.json"))["disks"] if disk["verdict"] == "encrypted" and disk["reasons"]])')" \
    "[]" "what is wrong with the volumes"
expect_agent 0 audit convert --format inventory /run/luks-agent/audit.json
assert_eq "$(report 'report["Content"]["DisksEncrypted"]')" 2 "the encrypted disks in the recorded report"
