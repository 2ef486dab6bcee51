# The main job: first boot, a second provision that changes nothing, reboot, break-glass.
#
#   story.sh fake|localstack first|reboot|break-glass MARKER
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

service=$1 phase=$2 marker=$3
log=/root/requests.$phase
mounts=(/data /data1 /data2 /data3)

case $service in
fake)
    credentials
    start_fake_aws --seed story --log "$log"
    key_arn=$(sed -n 's/.*KMS key \(arn:[^ ,]*\).*/\1/p' /run/fake-aws.out)
    ;;
localstack)
    start_localstack
    key_arn=$LOCALSTACK_KEY_ARN
    export AWS_EC2_METADATA_DISABLED=true
    ;;
esac

case $phase in
first)
    configure "$key_arn"
    say "a node that was never provisioned"
    run_expect 1 agent unlock 2>/run/stderr
    cat /run/stderr
    assert_contains "$(</run/stderr)" "run 'luks-agent provision' first" "unlock before provision"
    [[ ! -e $STATE ]] || fail "unlock wrote a state file"

    run_expect 0 agent plan
    run_expect 0 agent plan --json >/run/report
    assert_eq "$(report '[rows["ubd" + d]["result"] for d in "bcde"]')" \
        "['would-format', 'would-format', 'would-format', 'would-format']" "the plan"
    assert_contains "$(report 'rows["ubda"]["reason"]')" "carries /" "what the plan says of the boot volume"
    [[ ! -e ${STATE%/*} ]] || fail "plan wrote a state directory"

    run_expect 0 agent provision
    for at in "${mounts[@]}"; do
        findmnt -no SOURCE,FSTYPE,OPTIONS "$at"
        for ((i = 0; i < 64; i++)); do marker_text "$marker"; done >"$at/file"
        sync -f "$at"
    done

    say "a second run changes nothing"
    cp "$STATE" /run/state.before
    run_expect 0 agent provision --json >/run/report
    assert_contains "$(report 'report["summary"]')" "nothing changed: 4 unchanged" "the second run"
    cmp "$STATE" /run/state.before

    agent status
    for disk in ubdb ubdc ubdd ubde; do
        cryptsetup luksDump "/dev/$disk" >/run/dump
        uuid=$(blkid -p -s UUID -o value "/dev/$disk")
        assert_eq "$(blkid -p -s TYPE -o value "/dev/$disk")" crypto_LUKS "the type of $disk in blkid"
        grep -q "$uuid" "$STATE" || fail "the state file does not know $uuid"
        for text in "UUID:.*$uuid" 'PBKDF:[[:space:]]*pbkdf2' 'Iterations:[[:space:]]*1000$' '0: luks-agent-awskms' 'Subsystem:[[:space:]]*luks-agent'; do
            grep -q "$text" /run/dump || { cat /run/dump; fail "luksDump of $disk lacks '$text'"; }
        done
        cryptsetup isLuks --type luks2 "/dev/$disk"
    done
    sed -n 1,30p /run/dump
    agent close
    findmnt /data && fail "/data is still mounted"
    [[ -z $(find /dev/mapper -name 'luks-*') ]] || fail "mappings are left"
    run_expect 0 agent unlock
    ;;
reboot)
    run_expect 0 agent status
    run_expect 0 agent unlock
    # LocalStack has no dry runs and unwraps the key for health. Not with the fake endpoint, where the calls are counted below.
    if [[ $service == localstack ]]; then
        run_expect 0 agent health
        # four changes of keys, so that the last token has number 0 again, with which break-glass begins
        other=$(aws kms create-key --query KeyMetadata.Arn --output text)
        run_expect 0 agent rotate
        run_expect 0 agent rewrap --to "$other"
        run_expect 0 agent rewrap --to "$key_arn"
        run_expect 0 agent rotate
        run_expect 0 agent close
        run_expect 0 agent unlock
    fi
    for at in "${mounts[@]}"; do
        expected=$(for ((i = 0; i < 64; i++)); do marker_text "$marker"; done)
        assert_eq "$(<"$at/file")" "$expected" "the file on $at"
        # leaves a write in the XFS log, where the next boot finds it
        echo more >"$at/more"
        sync -f "$at"
    done
    run_expect 0 agent unlock --json >/run/report
    assert_contains "$(report 'report["summary"]')" "nothing changed: 4 unchanged" "the second unlock"
    ;;
break-glass)
    # as docs/break-glass.md says, with stock tools only
    wrapped=$(python3 -c 'import json; print(json.load(open("'"$STATE"'"))["keys"][-1]["wrapped_key"])')
    base64 -d <<<"$wrapped" >/run/wrapped
    blockdev --setro /dev/ubdd
    aws kms decrypt --key-id "$key_arn" --ciphertext-blob fileb:///run/wrapped --query Plaintext --output text |
        tr -d '\n' | cryptsetup open --type luks2 --readonly --key-file=- /dev/ubdd rescued
    run_expect 32 mount -o ro /dev/mapper/rescued /media
    mount -o ro,norecovery,nouuid /dev/mapper/rescued /media
    assert_contains "$(</media/file)" "$(marker_text "$marker")" "the file on a read-only copy"
    umount /media
    cryptsetup close rescued
    blockdev --setrw /dev/ubdd
    aws kms decrypt --key-id "$key_arn" --ciphertext-blob fileb:///run/wrapped --query Plaintext --output text |
        tr -d '\n' | cryptsetup open --type luks2 --key-file=- /dev/ubdd rescued
    mount -o ro /dev/mapper/rescued /media
    assert_contains "$(</media/file)" "$(marker_text "$marker")" "the rescued file"
    umount /media
    cryptsetup close rescued
    # the wrapped key is also in the header, for a disk without its boot volume
    from_token=$(cryptsetup token export --token-id 0 /dev/ubdd |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["wrapped_key"])')
    assert_eq "$from_token" "$wrapped" "the wrapped key in the header"
    ;;
esac

if [[ $service == fake ]]; then
    say "requests: $(requests "$log" 'r["operation"] == "DescribeKey"') DescribeKey," \
        "$(requests "$log" 'r["operation"] == "GenerateDataKey"') GenerateDataKey," \
        "$(requests "$log" 'r["operation"] == "Decrypt"') Decrypt"
    assert_eq "$(requests "$log" 'r.get("encryption_context") is not None')" 0 "requests with an encryption context"
    case $phase in
    # Decrypt: once to prove the data key before the first write, and once for the unlock after close
    first) expected="1 2" ;;
    reboot) expected="0 1" ;;
    *) expected="0 0" ;;
    esac
    assert_eq "$(requests "$log" 'r["operation"] == "GenerateDataKey"') $(requests "$log" 'r["operation"] == "Decrypt"')" \
        "$expected" "GenerateDataKey and Decrypt requests"
fi
