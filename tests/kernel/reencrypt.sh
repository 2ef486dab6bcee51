# A new volume key, under a write load that is verified, interrupted at random moments.
#
#   reencrypt.sh first SEED            provisions, checks what is refused and what is said, begins to re-encrypt; kills the agent, then the
#                                      worker in the midst of a hot zone; the test cuts the power
#   reencrypt.sh moments SEED COUNT    the node comes back: verifies, goes on, and interrupts that COUNT times; the test cuts the power
#   reencrypt.sh last                  verifies, finishes, and checks that the old volume key opens nothing; ubdc is a copy of the disk
#
# There are two loads: that of load.py, which is verified after power cuts, too, and fio, which is not interrupted.
#
# A moment is one of: SIGTERM of the agent, SIGKILL of the agent, and at last SIGKILL of the worker or nothing before the power is cut.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"
LOAD=$(dirname "$0")/load.py

# header EXPRESSION: prints a Python expression on the metadata `m` of the header of ubdb.
header() {
    python3 -c 'import json, os, sys
disk = os.open("/dev/ubdb", os.O_RDONLY)
os.posix_fadvise(disk, 0, 0, os.POSIX_FADV_DONTNEED)
m = json.loads(os.pread(disk, 12288, 4096).split(b"\0")[0])
print(eval(sys.argv[1]))' "$1"
}
volume_key() {
    header '__import__("hashlib").sha256("{salt}\n{digest}".format(**list(m["digests"].values())[0]).encode()).hexdigest()'
}
is_reencrypting() { [[ $(header 'm["config"].get("requirements", {}).get("mandatory")') == "['online-reencrypt-v2']" ]]; }
start_load() {
    python3 "$LOAD" run /data/load /root/load.log >/run/load 2>&1 &
    load=$!
    # direct: it reads from the disk, not from memory. It verifies what it wrote 32 blocks ago, and ends at the first damage
    fio --name=fio --filename=/data/fio --size=2M --rw=randwrite --bs=4k --direct=1 --ioengine=psync --thread --fsync=16 \
        --verify=crc32c --verify_backlog=32 --verify_fatal=1 --time_based --runtime=1h --output-format=json --output=/run/fio.json \
        >/run/fio 2>&1 &
    fio=$!
    wait_for 60 grep -q running /run/load
}
stop_load() {
    kill -0 "$load" || { cat /run/load; fail "the load has ended"; }
    kill -0 "$fio" || { cat /run/fio /run/fio.json; fail "fio has ended"; }
    kill "$load"
    kill "$fio"
    wait "$load" || true
    # 128: it was asked to end, and has found no damage until then
    local status=0
    wait "$fio" || status=$?
    [[ $status == 128 ]] || { cat /run/fio; fail "fio ended with $status"; }
    local blocks
    # before the JSON, it says in the same file by which signal it ended
    blocks=$(sed -n '/^{/,$p' /run/fio.json | jq '.jobs[0].read.total_ios')
    ((blocks > 0)) || fail "fio verified nothing"
    say "fio verified $blocks blocks"
    verify
}
verify() {
    python3 "$LOAD" verify /data/load /root/load.log
    cmp /root/file /data/file
}
# reencrypt SPEED: goes on in the background.
reencrypt() {
    # not through agent(): the signals are for the agent, not for a shell around it
    "$LUKS_AGENT" rotate --volume-key --max-speed "$1" >/run/rotate.report 2>/run/rotate.log &
    rotate=$!
    wait_for 300 has_moved_or_ended
    if ! kill -0 "$rotate"; then
        # it was finished, but that was not recorded, so this time it was
        ended 0
        say "it was finished; begins anew"
        reencrypt "$1"
    fi
}
has_moved_or_ended() { [[ $(dmsetup table 2>/dev/null | grep -c -e '-overlay:') -gt 1 ]] || ! kill -0 "$rotate"; }
worker() { pgrep -P "$rotate" -f worker; }
# between: sleeps for a random time.
between() { sleep "$((RANDOM % 2)).$((RANDOM % 1000 + 1000))"; }
ended() {
    local got=0
    wait "$rotate" || got=$?
    cat /run/rotate.log /run/rotate.report
    [[ $got == "$1" ]] || fail "expected exit status $1, got $got: luks-agent rotate"
}
# interrupt SIGNAL: sends it to the agent, unless that has finished just now.
interrupt() {
    say "moment: SIG$1 of the agent"
    if ! kill "-$1" "$rotate"; then
        ended 0
    elif [[ $1 == TERM ]] && is_planned; then
        ended 1
    else
        wait "$rotate" || true
    fi
    wait_for 20 is_whole
}
# stop_in_hot_zone: stops the worker (SIGSTOP) while it overwrites a hot zone, as both copies of the header say.
stop_in_hot_zone() {
    worker=$(worker)
    python3 - "$worker" <<'PY' || fail "the worker was never seen in a hot zone"
import glob, json, os, signal, sys, time
disk = os.open("/dev/ubdb", os.O_RDONLY)
def is_hot(copy):
    os.posix_fadvise(disk, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        segments = json.loads(os.pread(disk, 12288, copy + 4096).split(b"\0")[0])["segments"]
    except ValueError:  # it is being written
        return False
    return any("in-reencryption" in segment.get("flags", []) for segment in segments.values())
def is_stopped(worker):
    return all(open(stat).read().rsplit(")")[1].split()[0] == "T" for stat in glob.glob(f"/proc/{worker}/task/*/stat"))
worker = int(sys.argv[1])
while os.path.exists(f"/proc/{worker}"):
    if is_hot(0) and is_hot(16384):
        os.kill(worker, signal.SIGSTOP)
        while not is_stopped(worker):
            time.sleep(0.001)
        if is_hot(0) and is_hot(16384):
            sys.exit(0)
        os.kill(worker, signal.SIGCONT)
sys.exit(1)
PY
}
# has_ended_by_itself: whether the worker has ended and has left no device.
has_ended_by_itself() { [[ ! -e /proc/$worker ]] && is_whole; }
is_planned() { [[ $(state '[v.get("volume_key_change") for v in state["volumes"]]') != "[None]" ]]; }
# is_whole: whether no device is left below the mapping.
is_whole() { ! dmsetup table | grep -q overlay; }

# refuse_to_begin TEXT...: it is refused, and neither the header nor the state file is written to.
refuse_to_begin() {
    local before
    before=$(head -c 16M /dev/ubdb | sha256sum)
    expect_agent 3 rotate --volume-key
    cmp "$STATE" /root/state.json
    assert_eq "$(head -c 16M /dev/ubdb | sha256sum)" "$before" "the header area"
    assert_said "nothing was changed" "$@"
}

start_fake
ext4_volumes '/dev/ubdb' ebs
RANDOM=${2:-0}
case $1 in
first)
    expect_agent 0 provision
    assert_eq "$(state '[v["volume_key"] for v in state["volumes"]]')" "['$(volume_key)']" "the recorded volume key"
    # with the load, nearly all of the volume: whichever hot zone is lost, there is data in it
    head -c 32000000 /dev/urandom >/root/file
    marker_text reencrypt >>/root/file
    cp /root/file /data/file
    sync -f /data
    dd if=/dev/ubdb of=/root/header.old bs=1M count=16 status=none

    say "another keyslot would be lost, so nothing is begun: the data key stays too"
    data_key >/root/passphrase.old
    printf 'of somebody else' >/run/other
    cryptsetup luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /root/passphrase.old /dev/ubdb /run/other
    cp "$STATE" /root/state.json
    refuse_to_begin "keyslot 1 (pbkdf2, of no token) would be lost" "cryptsetup luksKillSlot"
    cryptsetup luksRemoveKey --batch-mode /dev/ubdb /run/other
    on_terminal 0 "" recovery-key enroll
    refuse_to_begin "keyslot 1 (argon2id, of luks-agent-recovery) would be lost" "luks-agent recovery-key remove"
    expect_agent 0 close
    refuse_to_begin "keyslot 1 (argon2id, of luks-agent-recovery) would be lost"
    expect_agent 0 unlock
    expect_agent 0 recovery-key remove
    expect_agent 0 health

    say "stopped with SIGTERM: it can be used, closed and opened as before"
    start_load
    reencrypt 2M
    expect_agent 0 status
    assert_said "its re-encryption is not finished"
    expect_agent 0 health
    assert_said "% has the new volume key"
    expect_agent 0 verify
    assert_said "% has the new volume key"
    expect_agent 3 rotate
    assert_said "being re-encrypted"
    expect_agent 0 provision
    expect_agent 1 close /data
    assert_said "its data is being re-encrypted"
    kill -TERM "$rotate"
    ended 1
    grep -q "stopped as asked" /run/rotate.report || fail "it does not say that it was stopped"
    is_whole || fail "it left devices behind"
    is_reencrypting || fail "it is finished"
    stop_load
    expect_agent 0 health
    expect_agent 0 verify
    expect_agent 3 header backup ubdb /root/backup
    assert_said "its data is being re-encrypted"
    expect_agent 0 close
    expect_agent 0 unlock
    verify

    say "the agent is killed: the worker finishes its hot zone, and stops"
    start_load
    reencrypt 1M
    worker=$(worker)
    kill -KILL "$rotate"
    wait "$rotate" || true
    wait_for 20 has_ended_by_itself
    is_reencrypting || fail "the worker went on without the agent"
    stop_load

    say "the worker is killed in the midst of a hot zone: what is left of it is repaired when the volume is opened again"
    start_load
    reencrypt 2M
    stop_in_hot_zone
    kill -KILL "$worker"
    ended 1
    grep -q "restart the node" /run/rotate.report || fail "it does not say what to do"
    expect_agent 1 health
    assert_said "its re-encryption was killed"
    say "cut the power here"
    sleep 1000
    ;;
moments)
    expect_agent 0 unlock
    verify
    for ((moment = 1; moment < $3; moment++)); do
        start_load
        reencrypt 1M
        between
        if ((RANDOM % 2)); then interrupt TERM; else interrupt KILL; fi
        stop_load
    done
    start_load
    reencrypt 1M
    between
    if ((RANDOM % 2)) && kill -0 "$rotate"; then
        say "moment: SIGKILL of the worker, and the power"
        kill -KILL "$(worker)"
        ended 1
        grep -q "restart the node" /run/rotate.report || fail "it does not say what to do"
        expect_agent 1 health
        assert_said "its re-encryption was killed"
    else
        say "moment: the power"
    fi
    say "cut the power here"
    sleep 1000
    ;;
last)
    expect_agent 0 unlock
    verify
    start_load
    began=$(date +%s%N)
    if is_planned; then
        expect_agent 0 rotate --volume-key --max-speed 8M
        assert_said "re-encrypted" "1 of 1 volumes have a new volume key"
    fi
    say "took $((($(date +%s%N) - began) / 1000000)) ms"
    stop_load
    assert_eq "$(header 'len(m["keyslots"]), len(m["tokens"]), len(m["digests"]), len(m["segments"]), m["config"].get("requirements")')" \
        "(1, 1, 1, 1, None)" "the header"
    assert_eq "$(header 'list(m["tokens"].values())[0]["keyslots"] == list(m["keyslots"])')" True "the keyslot of the token"
    assert_eq "$(state '[(v.get("volume_key_change"), str(v["keyslot"]["number"])) for v in state["volumes"]]')" \
        "[(None, '$(header 'list(m["keyslots"])[0]')')]" "the record"
    assert_eq "$(state '[v["volume_key"] for v in state["volumes"]]')" "['$(volume_key)']" "the recorded volume key"
    expect_agent 0 health
    assert_said "1 sound"
    expect_agent 0 close
    expect_agent 0 unlock
    verify
    expect_agent 0 close

    say "the old volume key decrypts nothing: a copy of the disk, with the header from before"
    dd if=/dev/ubdb of=/dev/ubdc bs=1M status=none
    dd if=/root/header.old of=/dev/ubdc bs=1M conv=notrunc status=none
    cryptsetup open --key-file /root/passphrase.old /dev/ubdc old
    blkid -p /dev/mapper/old && fail "the old volume key decrypts the data"
    grep -q "$(marker_text reencrypt)" /dev/mapper/old && fail "the old volume key decrypts the file"
    cryptsetup close old
    blank ubdc
    # the same check finds the file where the volume key is right
    expect_agent 0 unlock
    grep -q "$(marker_text reencrypt)" /dev/mapper/luks-* || fail "the file is not found with the new volume key either"
    ;;
esac
