# A change of keys, of two volumes with files, killed at any system call. Whatever the moment, every volume opens with a key that is
# recorded, and the next run of the same command finishes: one key, one keyslot, one token.
#
#   change-sweep.sh COUNT SEED [POINT...]   tries COUNT points ("all" of them) in the order that SEED gives, or these points
#
# A point is COMMAND/PROCESS:N: the Nth system call that can change anything, of a process of rotate or rewrap as in sweep.sh. For each it
# prints a line: "-- point POINT ok|missed|BAD ...".
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# change COMMAND: sets `change` to the command and its arguments. Rewrap changes between two KMS keys.
change() {
    change=("$LUKS_AGENT" "$1")
    [[ $1 == rotate ]] && return
    local now
    now=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["keys"][-1]["key_arn"])' "$STATE")
    if [[ $now == "$KEY_ARN" ]]; then change+=(--to "$other"); else change+=(--to "$KEY_ARN"); fi
}
files_are_there() { cmp /root/file /data/file && cmp /root/file /data1/file; }
# reboots: the node comes back as after a reboot.
reboots() { agent close && agent unlock && files_are_there; }
# try POINT: prints what came of it.
try() {
    local killed
    change "${1%%/*}"
    killed=$("$CRASH" kill "${1#*/}" --output /run/killed -- "${change[@]}")
    cp "$STATE" /run/state.crashed
    if ! reboots >/run/reboots 2>&1; then
        echo "-- point $1 BAD lost: a volume does not open, $killed"
        sed 's/^/   /' /run/killed /run/reboots /run/state.crashed
    elif ! "${change[@]}" >/run/finished 2>&1 || [[ $(shape /dev/ubd[bc]) != "1 [None, None] 1 1 1 1" ]]; then
        echo "-- point $1 BAD stuck: $(shape /dev/ubd[bc]), $killed"
        sed 's/^/   /' /run/killed /run/reboots /run/finished /run/state.crashed
    else
        echo "-- point $1 ${killed/#missed*/missed} ok"
    fi
}

# points COMMAND: prints the points of a command.
points() {
    change "$1"
    "$CRASH" trace --list /run/list --output /run/traced -- "${change[@]}" || { cat /run/traced >&2; fail "$1"; }
    awk -v of="$1" '$1 == "process" { for (n = 1; n <= $4; n++) print of "/" $2 ":" n }' /run/list
}

start_fake
other=$(python3 -c 'import json, os, urllib.request
headers = {"X-Amz-Target": "TrentService.CreateKey", "Content-Type": "application/x-amz-json-1.1", "Authorization": "none"}
request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], b"{}", headers)
print(json.load(urllib.request.urlopen(request))["KeyMetadata"]["Arn"])')
ext4_volumes '/dev/ubd[bc]' ebs
agent provision
head -c 50000 /dev/urandom >/root/file
for at in /data /data1; do cp /root/file "$at/file"; sync -f "$at"; done
{ points rotate; points rewrap; } >/run/points
say "$(wc -l </run/points) points: $(cut -d: -f1 /run/points | uniq -c | xargs)"
if (($# > 2)); then
    printf '%s\n' "${@:3}" >/run/chosen
else
    python3 -c 'import random, sys
points = open("/run/points").read().split()
random.Random(int(sys.argv[2])).shuffle(points)
print(*(points if sys.argv[1] == "all" else points[:int(sys.argv[1])]), sep="\n")' "$1" "$2" >/run/chosen
fi
while read -r point <&3; do try "$point"; done 3</run/chosen
