# The token plug-in of cryptsetup on a real kernel: stock cryptsetup opens a volume of the agent through KMS, with and without the agent's
# configuration and state. The key service is away or refuses, and tokens are of a later release or of an enemy. The agent itself never
# loads a plug-in.
#
#   token-plugin.sh fake|localstack
#
# TOKEN_PLUGIN is the plug-in. It is installed in this node only.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

service=$1
folder=$(cryptsetup --help | sed -n 's/^.*token plugin path: \(.*\)\.$/\1/p')
plugin=$folder/libcryptsetup-token-luks-agent-awskms.so

# stock STATUS ARGS...: runs cryptsetup, and leaves what it says in /run/said.
stock() {
    local want=$1 got=0
    shift
    say "cryptsetup $*"
    timeout 100 cryptsetup "$@" >/run/said 2>&1 </dev/null || got=$?
    cat /run/said
    [[ $got == "$want" ]] || fail "expected exit status $want, got $got: cryptsetup $*"
}
stock_said() { for text in "$@"; do assert_contains "$(</run/said)" "$text" "the output of cryptsetup"; done; }

# opens ARGS...: stock cryptsetup opens the volume with its token.
opens() {
    stock 0 open --token-only "$@" /dev/ubdb rescued
    mount -o ro /dev/mapper/rescued /media
    assert_eq "$(</media/file)" kept "the file"
    umount /media
    stock 0 resize --token-only rescued
    cryptsetup close rescued
}

# asks: prints how many requests the key service got, if it counts them.
asks() { if [[ $service == fake ]]; then wc -l </run/requests; fi; }

# change EXPRESSION: replaces token 0 by what a Python expression makes of it. The plug-in validates it.
change() {
    cryptsetup token export --token-id 0 /dev/ubdb >/run/token
    python3 -c 'import json, sys
token = json.load(open("/run/token"))
print(json.dumps(eval(sys.argv[1])))' "$1" >/run/token.new
    cryptsetup token import --token-replace --token-id 0 --json-file /run/token.new /dev/ubdb
}

# denied: access is denied. The reason is told, at once, and the passphrase still opens the volume.
denied() {
    say "access denied"
    data_key -1 /etc/elsewhere/state/state.json >/run/key
    fake allow '["DescribeKey"]'
    local began=$SECONDS asked
    stock 1 open --token-only /dev/ubdb rescued
    stock_said "luks-agent: " "kms:Decrypt"
    # keyslots are preferred since the two rotations, so cryptsetup tries the token twice
    assert_eq "$(grep -c kms:Decrypt /run/said)" 1 "how often the reason is told"
    ((SECONDS - began < 15)) || fail "it took $((SECONDS - began)) s"
    [[ ! -e /dev/mapper/rescued ]] || fail "it is open"
    # without --token-only, cryptsetup asks for a passphrase then
    cryptsetup open --test-passphrase /dev/ubdb </run/key >/run/said 2>&1 || fail "the passphrase did not open it: $(</run/said)"
    stock_said "kms:Decrypt"
    # also where it has a key file
    stock 0 open --test-passphrase --key-file /run/key /dev/ubdb
    stock_said "kms:Decrypt"
    asked=$(wc -l </run/requests)
    stock 0 open --test-passphrase --disable-external-tokens --key-file /run/key /dev/ubdb
    assert_eq "$(wc -l </run/requests)" "$asked" "requests to KMS"
    fake allow null
}

case $service in
fake) start_fake --log /run/requests ;;
localstack)
    start_localstack
    KEY_ARN=$LOCALSTACK_KEY_ARN
    ;;
esac
ext4_volumes '/dev/ubdb' ebs
mkdir -p "$folder"

# two rotations, so that the token has number 0 again
say "the agent loads no plug-in, in none of its processes"
cat >/run/spy.c <<'END'
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) { close(open("/run/loaded", O_CREAT | O_WRONLY, 0600)); }
END
cc -shared -fPIC -o "$plugin" /run/spy.c
expect_agent 0 provision
echo kept >/data/file
sync -f /data
for command in verify rotate rotate verify "header show ubdb" close unlock close; do
    # shellcheck disable=SC2086
    expect_agent 0 $command
done
[[ ! -e /run/loaded ]] || fail "the agent loaded a plug-in"
# the plug-in would have been seen
cryptsetup luksDump /dev/ubdb >/run/dump
[[ -e /run/loaded ]] || fail "cryptsetup did not load the plug-in either"

say "stock cryptsetup opens the volume, and the agent then leaves it to whoever opened it"
install -m 755 "$LUKS_AGENT" /usr/sbin/luks-agent
install -m 644 "${TOKEN_PLUGIN:?}" "$plugin"
opens
stock 0 luksDump /dev/ubdb
stock_said "luks-agent-awskms" "Provider:   aws-kms" "Key:        $KEY_ARN" "Region:     us-east-1"
stock 0 open --token-only --test-passphrase /dev/ubdb

say "without the agent's configuration and state, as on another machine"
mv /etc/luks-agent /etc/elsewhere
opens --readonly
[[ ! -e /etc/luks-agent ]] || fail "it made a folder"

# LocalStack has no policies
[[ $service == localstack ]] || denied

say "a token of a later release"
change 'dict(token, version=9, more={"of": ["it"]})'
opens
change 'dict(token, instance_id={"later": 1})'
stock 1 open --token-only /dev/ubdb rescued
stock_said "if a later release of luks-agent wrote it, install that release"
stock 0 luksDump /dev/ubdb
stock_said "(not readable by this release)"
change 'dict(token, instance_id=None, version=1)'
opens

say "tokens of an enemy"
asked=$(asks)
arn=$(python3 -c 'import json; print(json.load(open("/run/token.new"))["key_arn"])')
change 'dict(token, key_arn="arn:aws:kms:evil.example/:111122223333:key/\u001b[2J\n")'
stock 1 open --token-only /dev/ubdb rescued
stock_said "names no KMS key"
stock 0 luksDump /dev/ubdb
stock_said '\u{1b}[2J\n'
if grep -q $'\e' /run/said; then fail "a control character"; fi
change 'dict(token, key_arn="'"$arn"'", wrapped_key="A" * 8500)'
stock 1 open --token-only /dev/ubdb rescued
stock_said "the wrapped key has"
change 'dict(token, type="systemd-tpm9", wrapped_key="AQID")'
stock 1 open --token-only /dev/ubdb rescued
assert_eq "$(asks)" "$asked" "requests to KMS"
cryptsetup token remove --token-id 0 /dev/ubdb
python3 -c 'import json
token = json.load(open("/run/token"))
key = json.load(open("/etc/elsewhere/state/state.json"))["keys"][-1]
print(json.dumps(dict(token, type="luks-agent-awskms", wrapped_key=key["wrapped_key"])))' |
    cryptsetup token import --token-id 0 --json-file - /dev/ubdb
opens

say "a key of another Region"
change 'dict(token, key_arn=token["key_arn"].replace("us-east-1", "eu-west-1"))'
stock 1 open --token-only /dev/ubdb rescued
stock_said "luks-agent: KMS Decrypt with KMS key arn:aws:kms:eu-west-1:"
change 'dict(token, key_arn=token["key_arn"].replace("eu-west-1", "us-east-1"))'
AWS_REGION=eu-west-1 AWS_DEFAULT_REGION=eu-west-1 opens

say "KMS is gone"
case $service in
fake) kill "$FAKE_AWS_PID" ;;
localstack)
    kill "$LOCALSTACK_PID"
    wait "$LOCALSTACK_PID" || true
    ;;
esac
began=$SECONDS
stock 1 open --token-only /dev/ubdb rescued
stock_said "luks-agent: KMS Decrypt with KMS key $KEY_ARN"
((SECONDS - began < 40)) || fail "it took $((SECONDS - began)) s"
if pgrep -f 'luks-agent.*unwrap'; then fail "an agent is left"; fi

say "an earlier agent, and none"
printf '#!/bin/sh\necho "error: unrecognized subcommand" >&2\nexit 2\n' >/usr/sbin/luks-agent
stock 1 open --token-only /dev/ubdb rescued
stock_said "unrecognized subcommand"
rm /usr/sbin/luks-agent
stock 1 open --token-only /dev/ubdb rescued
stock_said "cannot start /usr/sbin/luks-agent"
rm "$plugin"
stock 1 open --token-only /dev/ubdb rescued
say "done"
