# Where key material is while the agent is at work, and where it stays: the memory, environment and command line of every process,
# held still at six moments of a provision, an unlock and a close; then all that the node kept. Prints how often it was found,
# never what. This process and the fake endpoint have it too, and are left out.
#
#   hygiene.py KEY_ARN
import base64, fcntl, json, os, re, signal, ssl, subprocess, sys, time, urllib.request

KEY_ARN = sys.argv[1]
AGENT, URL, STATE = os.environ["LUKS_AGENT"], os.environ["AWS_ENDPOINT_URL"], "/etc/luks-agent/state/state.json"
# what it was run with, for a process that could trace any other
WITHOUT_PTRACE = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", "--"]
# What of a process that is not dumpable nobody can open without the right to trace it. Linux 7.2 opens the environment all the same; it
# holds no key (scan).
CLOSED = ["mem"] if int(os.uname().release.split(".")[0]) >= 7 else ["mem", "environ"]
HOLD = "/run/hold"
AGENTS = ["provision", "unlock", "close", "worker"]
TOOLS = ["mkfs.ext4", "mount", "umount"]
# the passphrase is all that is needed once the data key is proven
KEYS, TEXT = ["passphrase", "data key"], ["passphrase"]
ZEROS = bytes(1 << 20)
NOT_SCANNED = {os.getpid(), int(os.environ["FAKE_AWS_PID"])}
failures = []


def check(holds, what):
    if not holds:
        failures.append(what)
        print(f"FAILED: {what}", flush=True)


def wait(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value


def ask(path, body, headers={}, method="POST"):
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers, method=method)
    return json.load(urllib.request.urlopen(request, context=context))


def faults(*list_):
    ask("/_fake/faults", list_)


def needles():
    """The passphrase and the data key, from the wrapped key in the state file; without their first 16 bytes, over which the
    allocator writes its own when memory is freed."""
    wrapped = json.load(open(STATE))["keys"][0]["wrapped_key"]
    headers = {"X-Amz-Target": "TrentService.Decrypt", "Content-Type": "application/x-amz-json-1.1", "Authorization": "none"}
    passphrase = ask("/", {"KeyId": KEY_ARN, "CiphertextBlob": wrapped}, headers)["Plaintext"].encode()
    return {"passphrase": passphrase[16:], "data key": base64.b64decode(passphrase)[16:]}


def read(pid, name):
    try:
        return open(f"/proc/{pid}/{name}", "rb").read()
    except OSError:
        return b""


def kind(pid):
    """What a process is, by its command line; none for a kernel thread."""
    words = [word.decode(errors="replace") for word in read(pid, "cmdline").split(b"\0")]
    # a tool that waits is a script still
    name = os.path.basename(words[1] if words[0] == "/bin/bash" and len(words) > 2 else words[0])
    if name == "luks-agent" or words[:2] == ["/proc/self/exe", "worker"]:
        return next((word for word in words[1:] if word in AGENTS), name)
    return name or None


def memory(pid, wanted):
    """How often each of the wanted texts is in a process's memory, by the kind of memory."""
    found = {}
    try:
        maps, file = open(f"/proc/{pid}/maps").read().splitlines(), open(f"/proc/{pid}/mem", "rb", buffering=0)
    except OSError:
        return found
    with file:
        for line in maps:
            span, permissions, _, device, _, *path = line.split(None, 5)
            # what was only read from a file is in that file
            if permissions[0] != "r" or (permissions[1] != "w" and device != "00:00") or path[:1] == ["[vvar]"]:
                continue
            start, end = (int(text, 16) for text in span.split("-"))
            try:
                file.seek(start)
                data = file.read(end - start)
            except (OSError, ValueError):
                continue
            for name, needle in wanted.items():
                if hits := data.count(needle):
                    where = path[0] if path and path[0].startswith("[") else "file" if path else "anonymous"
                    found.setdefault(name, {}).setdefault(where, 0)
                    found[name][where] += hits
    return found


def scan(moment, wanted, may):
    """Looks at every process. `may` says what those of a kind may hold. Gives what each holds, by kind."""
    held = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid in NOT_SCANNED or (what := kind(pid)) is None:
            continue
        found = memory(pid, wanted)
        check(what != "worker" or b"AWS_" not in read(pid, "environ"), f"{moment}: a worker has credentials")
        for name in ["cmdline", "environ"]:
            check(not any(needle in read(pid, name) for needle in wanted.values()), f"{moment}: in the {name} of {what}")
        check(set(found) <= set(may.get(what, [])), f"{moment}: {what} ({pid}) holds {found}")
        held[what] = found
        if found or what in AGENTS + TOOLS:
            print(f"   {moment}: {what}: {found or '-'}", flush=True)
    return held


def pids(what):
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and kind(int(name)) == what]


def logged(text):
    return open("/run/agent.log").read().count(text)


def open_of(pid, file):
    """Root without the right to trace all processes opens a file of one in /proc: refused if the process is not dumpable."""
    return subprocess.run([*WITHOUT_PTRACE, "dd", f"if=/proc/{pid}/{file}", "count=0", "status=none"], capture_output=True)


def guarded(pid):
    """What keeps a process's memory to itself."""
    what = kind(pid)
    status = dict(line.split(":\t", 1) for line in read(pid, "status").decode().splitlines())
    check(int(status["VmLck"].split()[0]) > 0, f"{what}: no memory is locked")
    check(int(status["VmSwap"].split()[0]) == 0, f"{what}: memory is swapped")
    limits = re.search(r"Max core file size +(\w+) +(\w+)", read(pid, "limits").decode())
    check(limits and limits.groups() == ("0", "0"), f"{what}: core dumps are allowed")
    for file in CLOSED:
        look = open_of(pid, file)
        check(look.returncode != 0 and b"Permission denied" in look.stderr, f"{what}: its {file} can be read")


def start(command, **options):
    """The agent, not allowed to trace: else who may trace it must be allowed as much."""
    return subprocess.Popen([*WITHOUT_PTRACE, AGENT, "--log-level", "debug", command], stdin=subprocess.DEVNULL, **options)


def held(tool):
    """Waits until the agent has come to a tool, which waits too; its process."""
    return wait(tool, lambda: os.path.exists(f"{HOLD}/at-{tool}") and pids(tool))


def go(tool):
    open(f"{HOLD}/go-{tool}", "w").close()
    wait(f"the end of {tool}", lambda: not pids(tool))
    for mark in ["at", "go"]:
        os.unlink(f"{HOLD}/{mark}-{tool}")


def full_pipe():
    """A pipe that takes no more until it is read: the agent stops where it prints its report, when all is done."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    os.write(into, bytes(4096))
    return out, into


def state(pid):
    """As in ps: S for a process that sleeps, D for one that waits for a disk."""
    return b"".join(read(pid, "stat").rpartition(b")")[2].split()[:1])


def reports(agent):
    """Whether the agent is at printing its report."""
    return not pids("worker") and state(agent.pid) == b"S"


log = open("/run/agent.log", "w")
sleeper = subprocess.Popen([*WITHOUT_PTRACE, "sleep", "600"])
wait("sleep", lambda: kind(sleeper.pid) == "sleep")
for file in CLOSED:
    check(open_of(sleeper.pid, file).returncode == 0, f"root cannot open the {file} of an ordinary process: the check shows nothing")

print("-- provision", flush=True)
# long enough to be stopped before the data key has been proven and is wiped
faults({"on": "Decrypt", "delay_ms": 3000, "times": 1})
out, into = full_pipe()
agent = start("provision", stdout=into, stderr=log)
os.close(into)
wait("a state file", lambda: os.path.exists(STATE))
os.kill(agent.pid, signal.SIGSTOP)
faults()
wanted = needles()
seen = scan("the key is being proven", wanted, {"provision": KEYS})
check(set(seen.get("provision", [])) == set(KEYS), "the data key is not found where it is: the search finds nothing")
guarded(agent.pid)
os.kill(agent.pid, signal.SIGCONT)

wait("formatting", lambda: logged("formatting"))
for worker in pids("worker"):
    os.kill(worker, signal.SIGSTOP)
seen = scan("the header is being written", wanted, {"provision": TEXT, "worker": TEXT})
check(seen.get("worker"), "the worker that formats does not have the passphrase: it was seen too late")
for worker in pids("worker"):
    guarded(worker)
    os.kill(worker, signal.SIGCONT)

held("mkfs.ext4")
scan("the file system is being made", wanted, {"provision": TEXT})
go("mkfs.ext4")
held("mount")
scan("it is being mounted", wanted, {"provision": TEXT})
for worker in pids("worker"):
    guarded(worker)
go("mount")
wait("the report", lambda: reports(agent))
scan("provision prints its report", wanted, {"provision": TEXT})
os.close(out)
check(agent.wait(60) == 0, "provision failed")
scan("provision has ended", wanted, {})

for command in ["close", "unlock"]:
    print(f"-- {command}", flush=True)
    tool = {"close": "umount", "unlock": "mount"}[command]
    if command == "unlock":
        # its look at the disk takes until the disk answers
        subprocess.run(["dmsetup", "suspend", "slow"], check=True)
    agent = start(command, stdout=log, stderr=log)
    if command == "unlock":
        # who looks does not have the key, which is unwrapped meanwhile
        try:
            wait("the passphrase", lambda: memory(agent.pid, wanted).get("passphrase"))
            (worker,) = wait("a worker that waits for the disk", lambda: [pid for pid in pids("worker") if state(pid) == b"D"])
            check(not logged("unlocking"), "the disk was not being looked at")
            scan("the disk is being looked at", wanted, {"unlock": KEYS})
            guarded(worker)
        finally:
            subprocess.run(["dmsetup", "resume", "slow"], check=True)
    held(tool)
    scan(f"{tool} of {command}", wanted, {"unlock": TEXT})
    for pid in [agent.pid, *pids("worker")]:
        guarded(pid)
    go(tool)
    check(agent.wait(60) == 0, f"{command} failed")

print("-- what is left", flush=True)
sleeper.kill()
os.sync()


def holds(path, sought):
    found, last = set(), b""
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(len(ZEROS)):
            # most of a disk is blank
            if chunk != ZEROS or any(last):
                text = last + chunk
                found |= {name for name, needle in sought.items() if needle in text}
            last = chunk[-128:]
    return found


everything = wanted | {"data key in hex": wanted["data key"].hex().encode()}
wrapped = {"the wrapped key": json.load(open(STATE))["keys"][0]["wrapped_key"].encode()}
# all that was written since the node's first boot is in the upper directory, or in memory
places = ["/run/uml/boot/upper", "/run", "/dev/shm"]
found_files = subprocess.run(["find", *places, "-xdev", "-type", "f", "-print0"], capture_output=True, check=True).stdout
files = ["/dev/ubda", "/dev/ubdb", *(name.decode() for name in found_files.split(b"\0") if name)]
check("/run/uml/boot/upper" + STATE in files and "/run/agent.log" in files, "the state file or the log is not among the files")
for path in files:
    found = holds(path, everything)
    check(not found, f"{path} holds {found}")
check(holds("/dev/ubda", wrapped), "not even the wrapped key is found on the boot volume")
swaps = open("/proc/swaps").read().splitlines()[1:]
print(f"   {len(files)} files and disks, {len(swaps)} swap areas", flush=True)
sys.exit(1 if failures else 0)
