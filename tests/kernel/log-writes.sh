# Simulates a power cut at every write of a luksFormat. The disk has no header, or one that cryptsetup can read, and the volume can be
# unlocked only at the end.
source "$(dirname "$0")/lib.sh"

modprobe dm-log-writes
printf 'a test passphrase' >/run/passphrase
dmsetup create logged --table "0 $(blockdev --getsz /dev/ubdb) log-writes /dev/ubdb /dev/ubdc"
cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
    --key-file /run/passphrase /dev/mapper/logged
dmsetup remove logged

declare -A seen=()
look_at() {
    local device=$1 count=$3
    # skips the wipe before the header, which consists of identical writes of 1 MiB
    ((count < 1024)) || return 0
    if cryptsetup open --test-passphrase --key-file /run/passphrase "$device" 2>/dev/null; then
        last=unlockable
    elif cryptsetup isLuks "$device"; then
        last=unfinished
    else
        last=nothing
    fi
    seen[$last]=$((${seen[$last]-0} + 1))
}
replay_log /dev/ubdc /dev/ubdd /dev/ubde look_at
say "$REPLAYED writes: ${seen[nothing]-0} times no header, ${seen[unfinished]-0} times no keyslot," \
    "${seen[unlockable]-0} times unlockable"
assert_eq "$last" unlockable "the volume after the last write"
cmp /dev/ubdb /dev/ubdd
((REPLAYED > 20 && ${seen[unfinished]-0} > 0)) || fail "too few writes were logged"
