# Searches for key material while the agent works, and afterwards: in the memory, environment and command line of every process, stopped at
# six moments of a provision, an unlock and a close; then in everything that the node stored. Prints how often it was found, never the
# material itself. Skips this process and the fake endpoint, which have it too.
#
#   hygiene.py KEY_ARN
import base64, fcntl, json, os, re, signal, ssl, subprocess, sys, time, urllib.request

KEY_ARN = sys.argv[1]
AGENT, URL, STATE = os.environ["LUKS_AGENT"], os.environ["AWS_ENDPOINT_URL"], "/etc/luks-agent/state/state.json"
# runs a process without the capability to trace others
WITHOUT_PTRACE = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", "--"]
# The files in /proc of a process that is not dumpable, which only a process that may trace it can open. Linux 7.2 opens the environment
# anyway; it contains no key (see scan).
CLOSED = ["mem"] if int(os.uname().release.split(".")[0]) >= 7 else ["mem", "environ"]
HOLD = "/run/hold"
AGENTS = ["provision", "unlock", "close", "worker"]
TOOLS = ["mkfs.ext4", "mount", "umount"]
# once the data key is proven, the agent needs only the passphrase
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
    """Returns the passphrase and the data key, from the wrapped key in the state file. Omits their first 16 bytes, which the allocator
    overwrites when memory is freed."""
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
    """Returns the name of a process from its command line; None for a kernel thread."""
    words = [word.decode(errors="replace") for word in read(pid, "cmdline").split(b"\0")]
    # a tool that waits is still a script
    name = os.path.basename(words[1] if words[0] == "/bin/bash" and len(words) > 2 else words[0])
    if name == "luks-agent" or words[:2] == ["/proc/self/exe", "worker"]:
        return next((word for word in words[1:] if word in AGENTS), name)
    return name or None


def memory(pid, wanted):
    """Counts the occurrences of each wanted text in the memory of a process, by kind of memory."""
    found = {}
    try:
        maps, file = open(f"/proc/{pid}/maps").read().splitlines(), open(f"/proc/{pid}/mem", "rb", buffering=0)
    except OSError:
        return found
    with file:
        for line in maps:
            span, permissions, _, device, _, *path = line.split(None, 5)
            # skips unmodified file contents, which are in the file
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
    """Searches every process. `may` says what processes of each name may hold. Returns what was found, by name."""
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
    """Opens a file of a process in /proc, as root without the capability to trace. The kernel refuses if the process is not dumpable."""
    return subprocess.run([*WITHOUT_PTRACE, "dd", f"if=/proc/{pid}/{file}", "count=0", "status=none"], capture_output=True)


def guarded(pid):
    """Checks that the memory of a process is locked and cannot be swapped, dumped or read."""
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
    """Starts the agent without the capability to trace. With it, a process that looks at the agent would need it too."""
    return subprocess.Popen([*WITHOUT_PTRACE, AGENT, "--log-level", "debug", command], stdin=subprocess.DEVNULL, **options)


def held(tool):
    """Waits until the agent has started a tool, which then waits. Returns the pids of the tool."""
    return wait(tool, lambda: os.path.exists(f"{HOLD}/at-{tool}") and pids(tool))


def go(tool):
    open(f"{HOLD}/go-{tool}", "w").close()
    wait(f"the end of {tool}", lambda: not pids(tool))
    for mark in ["at", "go"]:
        os.unlink(f"{HOLD}/{mark}-{tool}")


def full_pipe():
    """Creates a full pipe: the agent blocks when it prints its report at the end."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    os.write(into, bytes(4096))
    return out, into


def state(pid):
    """Returns the state of a process as in ps: S if it sleeps, D if it waits for a disk."""
    return b"".join(read(pid, "stat").rpartition(b")")[2].split()[:1])


def reports(agent):
    """Whether the agent is printing its report."""
    return not pids("worker") and state(agent.pid) == b"S"


log = open("/run/agent.log", "w")
sleeper = subprocess.Popen([*WITHOUT_PTRACE, "sleep", "600"])
wait("sleep", lambda: kind(sleeper.pid) == "sleep")
for file in CLOSED:
    check(open_of(sleeper.pid, file).returncode == 0, f"root cannot open the {file} of an ordinary process, so the check proves nothing")

print("-- provision", flush=True)
# long enough to stop the agent before it has proven the data key and wipes it
faults({"on": "Decrypt", "delay_ms": 3000, "times": 1})
out, into = full_pipe()
agent = start("provision", stdout=into, stderr=log)
os.close(into)
wait("a state file", lambda: os.path.exists(STATE))
os.kill(agent.pid, signal.SIGSTOP)
faults()
wanted = needles()
seen = scan("the key is being proven", wanted, {"provision": KEYS})
check(set(seen.get("provision", [])) == set(KEYS), "the data key is not found in the agent that has it: the search does not work")
guarded(agent.pid)
os.kill(agent.pid, signal.SIGCONT)

wait("formatting", lambda: logged("formatting"))
for worker in pids("worker"):
    os.kill(worker, signal.SIGSTOP)
seen = scan("the header is being written", wanted, {"provision": TEXT, "worker": TEXT})
check(seen.get("worker"), "the worker that formats does not have the passphrase: it was stopped too late")
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
        # the probe of the disk blocks until the disk answers
        subprocess.run(["dmsetup", "suspend", "slow"], check=True)
    agent = start(command, stdout=log, stderr=log)
    if command == "unlock":
        # the worker that probes does not have the key, which the agent unwraps meanwhile
        try:
            wait("the passphrase", lambda: memory(agent.pid, wanted).get("passphrase"))
            (worker,) = wait("a worker that waits for the disk", lambda: [pid for pid in pids("worker") if state(pid) == b"D"])
            check(not logged("unlocking"), "the disk was not being probed")
            scan("the disk is being probed", wanted, {"unlock": KEYS})
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
            # most of a disk is zeros
            if chunk != ZEROS or any(last):
                text = last + chunk
                found |= {name for name, needle in sought.items() if needle in text}
            last = chunk[-128:]
    return found


everything = wanted | {"data key in hex": wanted["data key"].hex().encode()}
wrapped = {"the wrapped key": json.load(open(STATE))["keys"][0]["wrapped_key"].encode()}
# everything that was written since the node's first boot is in the upper directory, or in memory
places = ["/run/uml/boot/upper", "/run", "/dev/shm"]
found_files = subprocess.run(["find", *places, "-xdev", "-type", "f", "-print0"], capture_output=True, check=True).stdout
files = ["/dev/ubda", "/dev/ubdb", *(name.decode() for name in found_files.split(b"\0") if name)]
check("/run/uml/boot/upper" + STATE in files and "/run/agent.log" in files, "the state file or the log is not among the files")
for path in files:
    found = holds(path, everything)
    check(not found, f"{path} holds {found}")
check(holds("/dev/ubda", wrapped), "the wrapped key is not found on the boot volume: the search does not work")
swaps = open("/proc/swaps").read().splitlines()[1:]
print(f"   {len(files)} files and disks, {len(swaps)} swap areas", flush=True)
sys.exit(1 if failures else 0)
