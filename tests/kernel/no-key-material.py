# Fails if what options.sh wrote down of processes, logs or any disk holds key material. Prints none of it.
#
#   no-key-material.py STATE_FILE KEY_ARN
import base64, json, os, subprocess, sys, urllib.request

state, key = json.load(open(sys.argv[1])), sys.argv[2]
request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], method="POST", data=json.dumps(
    {"KeyId": key, "CiphertextBlob": state["keys"][0]["wrapped_key"]}).encode(),
    headers={"X-Amz-Target": "TrentService.Decrypt", "Content-Type": "application/x-amz-json-1.1",
             "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kms/aws4_request, "
                              "SignedHeaders=host, Signature=0", "X-Amz-Date": "20260101T000000Z"})
passphrase = json.load(urllib.request.urlopen(request))["Plaintext"].encode()
data_key = base64.b64decode(passphrase)
# it is the right one, or its absence would mean nothing
for disk in ["ubdb", "ubdc", "ubdd"]:
    subprocess.run(["cryptsetup", "open", "--test-passphrase", "--key-file=-", "/dev/" + disk], input=passphrase, check=True)
needles = {"the passphrase": passphrase, "the data key": data_key, "the data key in hex": data_key.hex().encode()}

def holds(path, needle_map):
    found, last = set(), b""
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(1 << 22):
            text = last + chunk
            found |= {name for name, needle in needle_map.items() if needle in text}
            last = chunk[-64:]
    return found

seen = open("/run/seen", "rb").read()
for process in [b"/proc/self/exe\0worker\0", b"mkfs.ext4\0", b"luks-agent\0provision\0"]:
    assert process in seen, f"the scan saw no {process} at work"
for worker in seen.split(b"\n"):
    if b"/proc/self/exe\0worker\0" in worker:
        assert b"AWS_" not in worker, "a worker has credentials in its environment"
# the search itself works
assert holds("/dev/ubda", {"the wrapped key": state["keys"][0]["wrapped_key"].encode()}), "no state file on the boot volume"
for path in ["/run/seen", "/run/log", "/run/requests", "/run/fake-aws.out", sys.argv[1],
             "/dev/ubda", "/dev/ubdb", "/dev/ubdc", "/dev/ubdd"]:
    found = holds(path, needles)
    assert not found, f"{path} holds {found}"
