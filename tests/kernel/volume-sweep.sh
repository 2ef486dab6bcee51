# adopt, forget and erase are killed at one system call after the other; the next run finishes each with nobody's help. There are two
# volumes, ubdb and ubdc.
#
#   volume-sweep.sh COUNT SEED [POINT...]   tries COUNT points of each command ("all" of them), or these points
#
# A point is COMMAND/PROCESS:N: the Nth system call that can change anything, of a process of the command as in sweep.sh. For each it
# prints a line: "-- point POINT ok|missed|BAD ...".
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake
ext4_volumes '/dev/ubd[bc]' ebs
tail_sum() { dd if="/dev/$1" bs=1M skip=16 iflag=direct status=none | sha256sum; }
sum() { sha256sum <"/dev/$1"; }
uuid_of() { cryptsetup luksUUID "/dev/$1"; }

expect_agent 0 provision
# the same on both: if one cannot be examined in the killed run, the other one gets the first mount point
head -c 50000 /dev/urandom | tee /data/file >/data1/file
file=$(sha256sum </data/file)
expect_agent 0 close
for disk in ubdb ubdc; do dd if="/dev/$disk" of="/root/$disk" bs=1M status=none; done
cp -a "${STATE%/*}" /root/state
uuid=$(uuid_of ubdb) data=$(tail_sum ubdb) bystander=$(sum ubdc)

# reset: everything is as it was before the command, and closed.
reset() {
    local name
    umount /data /data1 2>/dev/null || true
    dmsetup ls | sed -n 's/^\(luks-[^\t]*\).*/\1/p' | while read -r name; do dmsetup remove --retry "$name"; done
    for disk in ubdb ubdc; do dd if="/root/$disk" of="/dev/$disk" bs=1M oflag=direct status=none; done
    rm -rf "${STATE%/*}"
    [[ $1 == adopt ]] || cp -a /root/state "${STATE%/*}"
}

# command of each action, and what must be true after the kill, and after the next run
declare -A command=([adopt]="adopt --all" [forget]="forget --even-if-attached vol-1" [erase]="erase --yes vol-1")
phase='[v["phase"] for v in state["volumes"] if v["serial"] == "vol-1"]'

killed_adopt() {
    # one of them, if the worker of the other was killed
    [[ ! -e $STATE ]] || assert_eq "$(state '{v["phase"] for v in state["volumes"]}')" "{'committed'}" "the phases"
}
after_adopt() {
    expect_agent 0 adopt --all
    assert_eq "$(sha256sum </data/file)" "$file" "the file on an adopted volume"
    findmnt -n /data1
    assert_eq "$(state '[v["phase"] for v in state["volumes"]], len(state["keys"])')" "(['committed', 'committed'], 1)" "the state file"
    expect_agent 0 unlock
    assert_said "nothing changed: 2 unchanged"
}
killed_forget() { :; }
after_forget() {
    expect_agent 0 forget --even-if-attached vol-1
    assert_eq "$(state '[(f["volume"]["serial"], f["end"]) for f in state["former"]], len(state["volumes"]), len(state["keys"])')" \
        "([('vol-1', 'forgotten')], 1, 1)" "the state file"
    assert_eq "$(sum ubdb)" "$(sha256sum </root/ubdb)" "the disk of a forgotten volume"
}
killed_erase() {
    case $(state "$phase") in
    "['committed']") assert_eq "$(sum ubdb)" "$(sha256sum </root/ubdb)" "a disk that is recorded as untouched" ;;
    "['erasing']") ;;
    *) cmp -s -n $((16 << 20)) /dev/ubdb /dev/zero || fail "recorded as erased, and bytes are left" ;;
    esac
}
after_erase() {
    expect_agent 0 erase --yes vol-1
    cmp -s -n $((16 << 20)) /dev/ubdb /dev/zero || fail "bytes are left in the header area"
    assert_eq "$(tail_sum ubdb)" "$data" "what is behind the header area"
    assert_eq "$(sum ubdc)" "$bystander" "the other volume"
    assert_eq "$(state '[(f["volume"]["luks_uuid"], f["end"]) for f in state["former"]], len(state["volumes"])')" \
        "([('$uuid', 'erased')], 1)" "the state file"
}

# try ACTION POINT: prints what came of it.
try() {
    local call
    reset "$1"
    # shellcheck disable=SC2086
    call=$("$CRASH" kill "$2" --output /run/killed -- "$LUKS_AGENT" ${command[$1]})
    if ("killed_$1") >/run/out 2>&1 && ("after_$1") >>/run/out 2>&1; then
        say "point $1/$2 ${call/#missed*/missed} ok"
    else
        say "point $1/$2 BAD $call"
        sed 's/^/   /' /run/killed /run/out "$STATE"
    fi
}

for action in adopt forget erase; do
    if (($# > 2)); then
        points=$(printf '%s\n' "${@:3}" | sed -n "s|^$action/||p")
    else
        reset "$action"
        # shellcheck disable=SC2086
        "$CRASH" trace --list /run/list --output /run/traced -- "$LUKS_AGENT" ${command[$action]} || { cat /run/traced; fail "$action"; }
        points=$(awk '$1 == "process" { for (i = 1; i <= $4; i++) print $2 ":" i }' /run/list)
        [[ -n $points ]] || fail "no points of $action"
        say "$(wc -w <<<"$points") points of $action: $(cut -d: -f1 <<<"$points" | uniq -c | xargs)"
        [[ $1 == all ]] || points=$(python3 -c 'import random, sys
points = sys.stdin.read().split()
print("\n".join(random.Random(sys.argv[1]).sample(points, min(int(sys.argv[2]), len(points)))))' "$2" "$1" <<<"$points")
    fi
    for point in $points; do try "$action" "$point"; done
done
