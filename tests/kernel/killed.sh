# Kills the agent, or one of its workers, at a random moment of provision, ten times. The next provision finishes without help, and the
# files on committed volumes are still there.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake --log /run/requests
ext4_volumes /dev/ubdb instance-store /dev/ubdc ebs

now() { echo $((10#$(date +%s%3N))); }

expect_agent 0 provision
# the mount point of the EBS volume
agent status --json >/run/report
kept=$(report 'rows["ubdc"]["mount_point"]')
head -c 5000000 /dev/urandom >"$kept/file"
sync -f "$kept"
sum=$(sha256sum <"$kept/file")

# lose DISK...: blanks the disks, as a stop does to the instance store.
lose() {
    expect_agent 0 close >/run/out
    blank "$@"
}

# measures a provision that is not disturbed
lose ubdb
began=$(now)
expect_agent 0 provision
usual=$(($(now) - began))
assert_said "1 formatted, 1 unlocked"

RANDOM=${SEED:=$$}
say "seed $SEED, a provision takes $usual ms"
for round in {1..10}; do
    lose ubdb
    delay=$((RANDOM % usual))
    "$LUKS_AGENT" provision >/run/killed 2>&1 &
    agent=$!
    sleep "$((delay / 1000)).$(printf %03d $((delay % 1000)))"
    if ((round % 2)); then
        victim=$agent
    else
        victim=$(pgrep -f 'exe worker$' | shuf -n 1 || true)
    fi
    killed=0
    [[ -n $victim ]] && kill -KILL "$victim" 2>/dev/null && killed=1
    status=0
    wait "$agent" || status=$?
    say "round $round: after $delay ms, killed $killed, status $status: $(tail -n 1 /run/killed)"
    case $killed$((round % 2)) in
    11) assert_eq "$status" 137 "the status of the killed agent" ;;
    # 0 if the worker had already answered
    10) ((status <= 1)) || fail "a worker was killed, and the agent exited with $status" ;;
    esac
    # at once, while leftover processes may still be running
    (expect_agent 0 provision) >/run/out || { cat /run/out; exit 1; }
    findmnt -n /data >/run/out
    findmnt -n /data1 >/run/out
    assert_eq "$(sha256sum <"$kept/file")" "$sum" "the file on the committed volume"
done
assert_eq "$(findmnt -rno SOURCE -t ext4 | grep -c /dev/mapper/luks-)" 2 "mounted volumes"
assert_eq "$(requests /run/requests 'r["operation"] == "GenerateDataKey"')" 1 "data keys made"
