# Somebody with access to a detached disk has changed its header and fixed the checksums. The agent does not open that volume, and opens the
# other one. src/storage/cryptsetup/tests/tampered.rs has the whole list; these are the changes that stock cryptsetup would accept.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake
ext4_volumes '/dev/ubd[bc]' ebs
expect_agent 0 provision
echo kept >/data/file
expect_agent 0 close
dd if=/dev/ubdb of=/root/header bs=32k count=1 status=none

# tamper STATEMENT: runs a Python statement on the metadata `m` of both copies of ubdb's header, and fixes their checksums.
tamper() {
    python3 -c 'import hashlib, json, sys
with open("/dev/ubdb", "r+b") as disk:
    for at in (0, 16384):
        disk.seek(at)
        copy = bytearray(disk.read(16384))
        m = json.loads(bytes(copy[4096:]).split(b"\0")[0])
        exec(sys.argv[1])
        text = json.dumps(m).encode()
        copy[4096:] = text + bytes(12288 - len(text))
        copy[448:512] = bytes(64)
        copy[448:480] = hashlib.sha256(copy).digest()
        disk.seek(at)
        disk.write(copy)' "$1"
    sync /dev/ubdb
}

tried=0
# refused TEXT STATEMENT
refused() {
    tamper "$2"
    cryptsetup isLuks /dev/ubdb || fail "cryptsetup does not recognise the header any more: $2"
    before=$(sha256sum </dev/ubdb)
    expect_agent 1 unlock
    assert_said "the LUKS2 header is not what luks-agent wrote: $1" "find out who changed it" "1 unlocked, 1 failed"
    assert_eq "$(find /dev/mapper -name 'luks-*' | wc -l)" 1 "open mappings"
    expect_agent 1 provision
    assert_said "the LUKS2 header is not what luks-agent wrote"
    expect_agent 0 close
    assert_eq "$(sha256sum </dev/ubdb)" "$before" "the disk with the tampered header"
    dd if=/root/header of=/dev/ubdb bs=32k conv=notrunc,fsync status=none
    tried=$((tried + 1))
}

refused "its segment has cipher cipher_null-ecb" 'm["segments"]["0"]["encryption"] = "cipher_null-ecb"'
refused "keyslot 0 has cipher cipher_null-ecb" 'm["keyslots"]["0"]["area"]["encryption"] = "cipher_null-ecb"'
refused "its flags are" 'm["config"]["flags"] = ["allow-discards"]'
refused "segment offset is 33554432" 'm["segments"]["0"]["offset"] = "33554432"'
refused "the wrapped key in its token is not the one in the state file" 'm["tokens"]["0"]["wrapped_key"] = "AQID"'
refused "it has no luks-agent-awskms token" 'm["tokens"] = {}'
# libcryptsetup accepts any passphrase for this one
refused "its volume key digest" 'm["digests"]["0"]["digest"] = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="'

say "restored"
tamper 'pass'
expect_agent 0 unlock
assert_eq "$(cat /data/file)" kept "the file"
say "$tried tampered headers refused"
