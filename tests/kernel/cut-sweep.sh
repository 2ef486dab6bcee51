# Power cuts during the commands for keys and volumes, on a node with two volumes with files. Whatever of their writes reached the disks, every
# volume opens with a recorded key (except one that is being erased), and the next run of the same command finishes.
#
#   cut-sweep.sh prepare [COMMAND...]   records each command, or these, and prints where its writes are
#   cut-sweep.sh points POINT...        tries points, and prints a line for each: "-- point POINT ok|BAD ..."
#
# A point is cut-COMMAND/STATE:B:C[:LOSE][:reboot], as in sweep.sh: the disks have the first B and C writes, without some since the last flush,
# which LOSE selects; the state file is version STATE. With `reboot`, the volumes are closed again before the next run.
#
# The volumes are on dm devices of our own, under which dm-log-writes can be put, so that the state file needs no edits.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

base=/var/lib/cut-sweep
commands=(rotate rewrap adopt adopt-rekey recovery-key erase header-restore)
sides=(b c)
backup=$base/backup
other_id=99999999-8888-4777-8666-555555555555

# table SIDE [LOG]: puts the disk below /dev/mapper/cut-SIDE, by way of dm-log-writes if there is a log.
table() {
    local name=cut-$1 disk=/dev/ubd$1 size table
    size=$(blockdev --getsz "$disk")
    table="0 $size linear $disk 0"
    [[ -z ${2-} ]] || table="0 $size log-writes $disk $2"
    if [[ -e /dev/mapper/$name ]]; then
        dmsetup reload "$name" --table "$table"
        dmsetup resume "$name"
    else
        dmsetup create "$name" --table "$table"
    fi
}
mark() {
    local side
    for side in "${sides[@]}"; do dmsetup message "cut-$side" 0 mark "$1"; done
}
# close_all: what a reboot does to mounts and mappings.
close_all() {
    local target name
    findmnt -rno TARGET,SOURCE | sed -n 's,^\([^ ]*\) /dev/mapper/luks-.*,\1,p' | while read -r target; do umount "$target"; done
    dmsetup ls | sed -n 's/^\(luks-[^\t]*\).*/\1/p' | while read -r name; do dmsetup remove --retry "$name"; done
}
roles() {
    local own=()
    [[ $1 != adopt-rekey ]] || own=(/dev/ubdd ebs)
    ext4_volumes '/dev/mapper/cut-[bc]' ebs "${own[@]}"
}
uuid_of() { sed -n "s/^$1 //p" "$base/uuids"; }
mount_of() { findmnt -rnfo TARGET "/dev/mapper/luks-$(uuid_of "$1")"; }
files() {
    local side at
    for side in "${sides[@]}"; do
        { at=$(mount_of "$side") && cmp "$base/file" "$at/file"; } || return 1
    done
}
# header_area DEVICE-OR-FILE
header_area() { head -c $((16 << 20)) "$1" | sha256sum; }

# change COMMAND: sets `change` to the command line.
change() {
    case $1 in
    rotate) change=(rotate) ;;
    rewrap) change=(rewrap --to "${KEY_ARN%/*}/$other_id") ;;
    adopt) change=(adopt --all) ;;
    adopt-rekey) change=(adopt --all --rekey) ;;
    recovery-key) change=(recovery-key enroll) ;;
    erase) change=(erase --yes "$(uuid_of b)" "$(uuid_of c)") ;;
    header-restore) change=(header restore "$(uuid_of b)" "$backup" --replace-keyslots) ;;
    esac
}
# keep COMMAND: saves disks and state file, with which the command begins.
keep() {
    local side
    mkdir -p "$base/$1/state"
    for side in "${sides[@]}"; do dd if="/dev/mapper/cut-$side" of="$base/$1/base.$side" bs=1M conv=sparse status=none; done
    [[ ! -e $STATE ]] || cp "$STATE" "$base/$1/state/0"
}
# put COMMAND STATE B C LOSE: makes disks and state file as the power cut left them.
put() {
    local dir=$base/$1 version=$2 next size writes lose=()
    [[ -z $5 ]] || lose=(--lose "$5")
    for writes in "b:$3" "c:$4"; do
        "$CRASH" rebuild --base "$dir/base.${writes%:*}" "${lose[@]}" "$dir/log.${writes%:*}" "/dev/mapper/cut-${writes%:*}" "${writes#*:}"
    done
    rm -rf "${STATE%/*}"
    mkdir -m 700 "${STATE%/*}"
    [[ ! -e $dir/state/$version ]] || install -m 600 "$dir/state/$version" "$STATE"
    # the next version was begun, and is torn
    next=$dir/state/$((version + 1))
    if (($3 % 2)) && [[ -e $next ]]; then
        size=$(stat -c %s "$next")
        head -c $(($4 * 7 % size)) "$next" >"$STATE.new"
        chmod 600 "$STATE.new"
    fi
}
# start COMMAND: makes disks and state file as they are before the command.
start() {
    local side
    close_all
    rm -rf "${STATE%/*}"
    roles "$1"
    for side in "${sides[@]}"; do dd if="$base/$1/base.$side" of="/dev/mapper/cut-$side" bs=1M oflag=direct status=none; done
    [[ ! -e $base/$1/state/0 ]] || install -D -m 600 "$base/$1/state/0" "$STATE"
    [[ ! -d ${STATE%/*} ]] || chmod 700 "${STATE%/*}"
}

# record COMMAND: runs the command on logged disks. Both logs get a mark at each version of the state file.
record() {
    local dir=$base/$1 i side traced=()
    start "$1"
    for i in 0 1; do
        blkdiscard --force --zeroout "${logs[i]}"
        table "${sides[i]}" "${logs[i]}"
    done
    # these are run while the volumes are in use
    case $1 in
    rotate | rewrap | recovery-key) agent unlock ;;
    esac >/run/out 2>&1 || { cat /run/out; fail "unlock before $1"; }
    sync
    mark begin
    change "$1"
    hook="last=\$(ls $dir/state | sort -n | tail -n 1)
        if [[ -e $STATE ]] && ! cmp -s $STATE $dir/state/\${last:-0}; then
            n=\$((\${last:-0} + 1)); cp $STATE $dir/state/\$n
            dmsetup message cut-b 0 mark \$n; dmsetup message cut-c 0 mark \$n
        fi"
    traced=("$CRASH" trace --list /run/list --output /run/traced --on-rename "$hook" -- "$LUKS_AGENT" "${change[@]}")
    if [[ $1 == recovery-key ]]; then
        # it wants a terminal
        in_terminal "${traced[@]}" >/run/out
    else
        "${traced[@]}"
    fi || { cat /run/traced; fail "$1"; }
    mark 'done'
    close_all
    for i in 0 1; do
        side=${sides[i]}
        table "$side"
        dd if="${logs[i]}" of="$dir/log.$side" bs=1M conv=sparse status=none
        "$CRASH" log "$1/$side" "$dir/log.$side" | grep '^marks '
    done
}

prepare() {
    local side command
    modprobe dm-log-writes
    roles rotate
    agent provision
    head -c 50000 /dev/urandom >"$base/file"
    for side in "${sides[@]}"; do
        echo "$side $(cryptsetup luksUUID "/dev/mapper/cut-$side")" >>"$base/uuids"
        cp "$base/file" "$(mount_of "$side")/file"
        sync -f "$(mount_of "$side")"
    done
    close_all
    for command in rotate rewrap erase; do keep "$command"; done

    say "with recovery keys, which are replaced"
    agent unlock
    on_terminal 0 "" recovery-key enroll
    close_all
    keep recovery-key

    say "with keyslots that lie where those of the backup do, so that the restore goes by way of a third header"
    start rotate
    agent header backup "$(uuid_of b)" "$backup"
    data_key >/run/key
    printf 'of somebody else' >/run/other
    slots=(--batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000)
    disk=/dev/mapper/cut-b
    cryptsetup luksAddKey "${slots[@]}" --key-file /run/key "$disk" /run/other
    cryptsetup luksAddKey "${slots[@]}" --key-file /run/key --key-slot 2 "$disk" /run/key
    cryptsetup token export --token-id 0 "$disk" | sed 's/"keyslots": *\["0"\]/"keyslots":["2"]/' >/run/token
    cryptsetup luksKillSlot --batch-mode "$disk" 0
    printf 'of a third one' >/run/third
    cryptsetup luksAddKey "${slots[@]}" --key-file /run/key --key-slot 0 "$disk" /run/third
    cryptsetup token remove --token-id 0 "$disk"
    cryptsetup token import --token-id 0 --json-file /run/token "$disk"
    agent unlock
    close_all
    keep header-restore

    say "volumes of another node"
    start rotate
    rm -rf "${STATE%/*}"
    keep adopt
    ext4_volumes /dev/ubdd ebs
    agent provision
    close_all
    keep adopt-rekey
    for command in "$@"; do record "$command"; done
}

# Ends the trial of a point.
lost() { echo "wrong: lost: $*"; exit 1; }
stuck() { echo "wrong: stuck: $*"; exit 1; }
# finishes COMMAND: the next run.
finishes() {
    if [[ $1 == recovery-key ]]; then
        (on_terminal 0 "" "${change[@]}")
    else
        agent "${change[@]}"
    fi || stuck "the next $1 failed"
}
# check COMMAND STATE REBOOT: what must be true after a power cut.
check() {
    local side expected="1 [None, None] 1 1 1 1" shape
    if [[ -e $STATE ]] && { [[ $1 != adopt-rekey ]] || (($2)); }; then
        agent unlock || lost "unlock failed"
        files || lost "a file"
        [[ $1 != header-restore && -z $3 ]] || close_all
    fi
    finishes "$1"
    case $1 in
    # and a volume of the node's own
    adopt-rekey) expected="1 [None, None, None] 1 1 1 1" ;;
    recovery-key)
        expected="1 [None, None] 2 2 2 2"
        for side in "${sides[@]}"; do
            printf %s "$(shown_key)" | cryptsetup open --test-passphrase --key-file=- "/dev/mapper/cut-$side" ||
                stuck "the recovery key opens not $side"
        done
        ;;
    header-restore)
        [[ $(header_area /dev/mapper/cut-b) == "$(header_area "$backup")" ]] || stuck "the header is not that of the backup"
        ;;
    esac
    shape=$(shape /dev/mapper/cut-[bc])
    [[ $shape == "$expected" ]] || stuck "$shape instead of $expected"
    { agent close && agent unlock && files; } || lost "a volume, after the next $1"
}
check_erase() {
    local side dir=$base/erase former phase
    for side in "${sides[@]}"; do
        phase=$(state "[v['phase'] for v in state['volumes'] if v['luks_uuid'] == '$(uuid_of "$side")']") || lost "the state file"
        if [[ $phase == "['committed']" ]]; then
            cmp "$dir/base.$side" "/dev/mapper/cut-$side" || lost "$side, which is recorded as untouched"
        fi
    done
    finishes erase
    for side in "${sides[@]}"; do
        cmp -n $((16 << 20)) "/dev/mapper/cut-$side" /dev/zero || stuck "bytes are left in the header area of $side"
        cmp -i $((16 << 20)) "$dir/base.$side" "/dev/mapper/cut-$side" || lost "what is behind the header area of $side"
    done
    former=$(state 'len(state["volumes"]), [f["end"] for f in state["former"]]')
    [[ $former == "(0, ['erased', 'erased'])" ]] || stuck "the state file says $former"
}
# try POINT
try() {
    local point=$1 command=${1%%/*} version b c seed="" reboot="" word began=${EPOCHREALTIME/./}
    command=${command#cut-}
    IFS=: read -r version b c seed reboot <<<"${point#*/}"
    if [[ $seed == reboot ]]; then seed="" reboot=reboot; fi
    close_all
    roles "$command"
    change "$command"
    put "$command" "$version" "$b" "$c" "$seed"
    case $command in
    erase) word=check_erase ;;
    *) word=check ;;
    esac
    if ("$word" "$command" "$version" "$reboot") >/run/tried 2>&1; then
        echo "-- point $point ok, $(((${EPOCHREALTIME/./} - began) / 1000)) ms"
    else
        echo "-- point $point BAD, state $version of $(find "$base/$command/state" -type f | wc -l)"
        grep '^wrong: ' /run/tried | sed 's/^/   /'
        grep -v '^wrong: ' /run/tried | sed 's/^/   /'
        [[ ! -e $STATE ]] || sed 's/^/   /' "$STATE"
    fi
}

mkdir -p "$base"
printf '[{"id": "%s"}]' "$other_id" >/run/keys.json
start_fake --keys /run/keys.json
for side in "${sides[@]}"; do table "$side"; done
logs=(/dev/ubde /dev/ubdf)
case $1 in
prepare)
    shift
    prepare "${@:-${commands[@]}}"
    ;;
points)
    for point in "${@:2}"; do try "$point"; done
    ;;
esac
