# What the token plug-in of cryptsetup does to the process that loads it: after an open, neither the passphrase nor the data key is in its
# memory, and valgrind finds no fault of it, nor a leak.
#
#   token-process.sh memory|valgrind
#
# TOKEN_PLUGIN is the plug-in. It is installed in this node only.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake
ext4_volumes '/dev/ubdb' ebs
expect_agent 0 provision
expect_agent 0 close
folder=$(cryptsetup --help | sed -n 's/^.*token plugin path: \(.*\)\.$/\1/p')
install -m 755 "$LUKS_AGENT" /usr/sbin/luks-agent
install -D -m 644 "${TOKEN_PLUGIN:?}" "$folder/libcryptsetup-token-luks-agent-awskms.so"

# opens [FILE]: opens the volume with its token, in a program that then stops itself. Prints what is found of the key in its memory. The
# program keeps a copy of FILE.
opens() {
    local status=0
    /run/opens "$@" &
    stopped() { [[ ! -e /proc/$! ]] || grep -q '^State:.T' "/proc/$!/status"; }
    wait_for 100 stopped
    python3 /run/search $! || status=$?
    kill -CONT $!
    wait $! || fail "the program did not open the volume"
    cryptsetup close rescued
    return $status
}

no_key_is_left() {
    data_key >/run/key
    base64 -d /run/key | cat /run/key - >/run/keys
    cat >/run/opens.c <<'END'
#include <fcntl.h>
#include <libcryptsetup.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

// The allocator would soon give the memory to somebody who writes over it. In this program and its libraries, every copy stays.
void free(void *memory) { (void)memory; }

int main(int argc, char **argv)
{
    struct crypt_device *cd;
    char *volatile kept = malloc(128);

    if (argc > 1 && read(open(argv[1], O_RDONLY), kept, 128) != 44 + 32)
        return 1;
    if (crypt_init(&cd, "/dev/ubdb") || crypt_load(cd, CRYPT_LUKS2, NULL) ||
        crypt_activate_by_token(cd, "rescued", CRYPT_ANY_TOKEN, NULL, CRYPT_ACTIVATE_READONLY) < 0)
        return 1;
    raise(SIGSTOP);
    crypt_free(cd);
    return 0;
}
END
    cc -Wall -rdynamic -o /run/opens /run/opens.c -lcryptsetup
    # parts, because something may be written over the rest of a copy
    cat >/run/search <<'END'
import base64, re, sys
text = open("/run/key", "rb").read()
keys = {"passphrase": text, "data key": base64.b64decode(text)}
parts = {name: [key[i : i + 12] for i in range(len(key) - 11)] for name, key in keys.items()}
searched = found = 0
memory = open(f"/proc/{sys.argv[1]}/mem", "rb", buffering=0)
for line in open(f"/proc/{sys.argv[1]}/maps"):
    start, end, rights, name = re.match(r"(\w+)-(\w+) (\S+) \S+ \S+ \S+ *(.*)", line).groups()
    # the kernel does not show these to another process
    if rights[0] != "r" or name in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
        continue
    memory.seek(int(start, 16))
    data = b""
    while len(data) < int(end, 16) - int(start, 16):
        data += memory.read(int(end, 16) - int(start, 16) - len(data))
    searched += len(data)
    for key, those in parts.items():
        here = [part for part in those if part in data]
        if here:
            found += 1
            print(f"{len(here)} of {len(those)} parts of the {key} in {name or 'unnamed memory'}")
assert searched > 1 << 20, searched
print(f"searched {searched >> 10} KiB")
sys.exit(3 if found else 0)
END
    say "a program that keeps copies"
    run_expect 3 opens /run/keys >/run/found
    cat /run/found
    for key in passphrase "data key"; do assert_contains "$(</run/found)" "of the $key in [heap]" "what was found"; done
    say "a program that keeps none"
    run_expect 0 opens
}

# checked STATUS ARGS...: valgrind watches cryptsetup, which must exit with STATUS, and not the agent.
checked() {
    local want=$1
    shift
    say "cryptsetup $*"
    run_expect "$want" valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --trace-children=no \
        --keep-debuginfo=yes cryptsetup "$@" </dev/null
}

valgrind_finds_nothing() {
    checked 0 open --token-only --test-passphrase /dev/ubdb
    checked 0 luksDump /dev/ubdb >/run/dump
    assert_contains "$(</run/dump)" "Key:        $KEY_ARN" "the dump"
    cryptsetup token export --token-id 0 /dev/ubdb >/run/token
    checked 0 token import --token-replace --token-id 0 --json-file /run/token /dev/ubdb
    fake allow '["DescribeKey"]'
    checked 1 open --token-only --test-passphrase /dev/ubdb
}

case $1 in
memory) no_key_is_left ;;
valgrind) valgrind_finds_nothing ;;
esac
say "done"
