# A Xen disk that the block device mapping does not list, and IMDS that does not answer. There is no Xen here: the test adds a disk to
# sysfs, which nothing opens.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

mkdir -p /run/block /run/class/block /run/class/dmi/id
cp -a /sys/block/. /run/block/
mount --bind /sys/class/block /run/class/block
mount --rbind /run/class /sys/class
disk=/run/block/xvdf
mkdir -p $disk/queue $disk/holders $disk/slaves
echo 202:80 >$disk/dev
echo 20971520 >$disk/size
echo 512 | tee $disk/queue/logical_block_size >$disk/queue/physical_block_size
echo 0 | tee $disk/removable >$disk/ro
mount --bind /run/block /sys/block
# mappings: updates the list of disks with the mappings that were created or removed.
mappings() {
    rm -f /run/block/dm-*
    local dm
    for dm in /sys/devices/virtual/block/dm-*; do
        [[ ! -e $dm ]] || ln -s "../devices/virtual/block/${dm##*/}" "/run/block/${dm##*/}"
    done
}

start_fake
KMS_DEADLINE=25s ext4_volumes /dev/ubdb ebs
because="xen disk that the block device mapping of IMDS does not list: it may be an EBS volume that was attached later"
remedy='add a [[volumes.match]] rule with path = "/dev/xvdf" and role = "ebs"'

say "every command reports it, and the node is not healthy"
expect_agent 0 status
assert_said "xvdf" "$because" "$remedy" "1 unclear and not encrypted"
expect_agent 3 plan
assert_said "$because" "$remedy" "would format 1"
expect_agent 1 health
expect_agent 3 provision
assert_said "xvdf is not encrypted: $because" "1 formatted, 1 refused"
mappings
expect_agent 1 health
assert_said "xvdf: $because" "$remedy" "1 of 2 sound"
if grep -q "would not survive" /run/stderr; then fail "the next boot would do"; fi
expect_agent 0 unlock
assert_said "xvdf is not encrypted: $because"
expect_agent 0 boot

say "IMDS is off: commands that format nothing wait a few seconds, and commands that may format wait for it"
export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:9
echo "Amazon EC2" >/run/class/dmi/id/sys_vendor
took() {
    local began=$SECONDS
    expect_agent "$@"
    say "took $((SECONDS - began)) s"
    TOOK=$((SECONDS - began))
}
for command in status health grow close; do
    case $command in health) code=1 ;; *) code=0 ;; esac
    took $code $command
    ((TOOK < 15)) || fail "'$command' took $TOOK s"
done
mappings
took 0 unlock
((TOOK >= 20)) || fail "unlock did not wait for IMDS"

say "a rule settles it"
export AWS_EC2_METADATA_SERVICE_ENDPOINT=$AWS_ENDPOINT_URL
ext4_volumes /dev/ubdb ebs /dev/xvdf ignore
mappings
expect_agent 0 health
assert_said "1 sound"
expect_agent 0 provision
