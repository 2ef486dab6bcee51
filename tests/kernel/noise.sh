# EBS volumes that contain only noise, as unwritten blocks of a volume with EBS encryption can read. The agent refuses them and names the
# cause, or formats them if the configuration says so, but never if they contain anything else.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# roles NOISE: writes a configuration with volumes.noise, EBS volumes ubdb, ubdc and ubde, and instance store ubdd.
roles() {
    config "$KEY_ARN" <<TOML
[volumes]
noise = "$1"
[filesystem]
type = "ext4"
mount_base = "/data"
[[volumes.match]]
path = "/dev/ubd[bce]"
role = "ebs"
[[volumes.match]]
path = "/dev/ubdd"
role = "instance-store"
TOML
}
fill() { dd if=/dev/urandom of="/dev/$1" bs=1M count="$(blockdev --getsize64 "/dev/$1")"B iflag=count_bytes oflag=direct status=none; }
sums() { sha256sum "$@" | cut -d' ' -f1; }
cause="unwritten blocks of a volume with EBS encryption look like this"

start_fake --log /run/requests
for disk in ubdb ubdc ubdd; do fill $disk; done
dd if=/dev/zero of=/dev/ubdb bs=4k seek=100 count=300 oflag=direct status=none
dd if=/dev/zero of=/dev/ubdc bs=4k seek=2000 count=300 oflag=direct status=none
# the last block but one contains data
blocks=$(($(blockdev --getsize64 /dev/ubdc) / 4096))
{ yes "what somebody has written" || :; } | dd of=/dev/ubdc bs=4k seek=$((blocks - 2)) count=1 iflag=fullblock oflag=direct status=none
# a few encrypted blocks on a disk of zeros
dd if=/dev/urandom of=/dev/ubde bs=4k seek=700 count=50 oflag=direct status=none
before=$(sums /dev/ubd[bcde])

say "refused by default, with the cause"
roles refuse
expect_agent 3 provision
assert_said "no signature and no structure in" "1.1 MiB zero" "$cause" 'set volumes.noise = "format-ebs"' "4 refused"
expect_agent 3 plan --json
assert_eq "$(report '[rows["ubd" + d]["evidence"]["found"] for d in "bcde"]')" "['noise', 'data', 'noise', 'data']" "what was found"
assert_eq "$(grep -o "$cause" /run/report | wc -l)" 1 "refusals that name the cause"
assert_eq "$(sums /dev/ubd[bcde])" "$before" "the refused disks"
assert_eq "$(requests /run/requests 'r["operation"] == "GenerateDataKey"')" 0 "data keys made"

say "formatted if configured, and nothing else"
roles format-ebs
others=$(sums /dev/ubd[cde])
expect_agent 3 plan
assert_said "would format 1" "volumes.noise is format-ebs; no signature and no structure"
expect_agent 3 provision
assert_said "1 formatted, 3 refused" "first seen at byte 0"
assert_eq "$(sums /dev/ubd[cde])" "$others" "the refused disks"
cryptsetup isLuks --type luks2 /dev/ubdb
findmnt -n /data
echo kept >/data/file
expect_agent 0 close
expect_agent 0 unlock
assert_eq "$(</data/file)" kept "the file"

say "a known volume that has lost its header does not count as new"
expect_agent 0 close
fill ubdb
before=$(sums /dev/ubdb)
expect_agent 1 provision
assert_said "expected known volume, LUKS UUID" ", but found: no signature and no structure"
assert_eq "$(sums /dev/ubdb)" "$before" "the known disk"
