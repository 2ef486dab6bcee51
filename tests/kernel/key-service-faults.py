# Runs `luks-agent provision` on a node with each fault of KMS and IMDS in tests/kms/faults.toml. Checks the exit code, the message, the
# number of attempts, and what is left on the disk and in the state directory. Several rows run at a time, each with its own endpoint, disk
# and state directory, because they mostly wait.
#
#   key-service-faults.py TABLE DISK...
import json, os, re, shutil, socket, subprocess, sys, threading, time, tomllib, urllib.request

TABLE = tomllib.load(open(sys.argv[1], "rb"))
DISKS = sys.argv[2:]
AGENT, FAKE = os.environ["LUKS_AGENT"], os.environ["FAKE_AWS"]
CALLS = ["DescribeKey", "GenerateDataKey", "Decrypt"]
FIRST_KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
# as in src/kms/retry.rs
FEW = 4
# long enough for a busy machine to reach the call that fails
DEADLINE = 8
# the extra time that a busy machine may need
SLACK = 20
ZEROS = bytes(1 << 20)


def fake(name, *args):
    """Starts a fake endpoint and returns its port."""
    port = f"/run/{name}.port"
    subprocess.Popen([FAKE, "--port-file", port, *args], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not os.path.exists(port):
        assert time.monotonic() < end, "fake-aws did not start"
        time.sleep(0.05)
    return int(open(port).read())


def nowhere():
    """Returns a port that nobody listens on, and a port that never accepts a connection, because its queue is full."""
    closed, deaf, waiting = socket.socket(), socket.socket(), []
    closed.bind(("127.0.0.1", 0))
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)
    while True:
        waiting.append(socket.socket())
        waiting[-1].settimeout(0.5)
        try:
            waiting[-1].connect(deaf.getsockname())
        except TimeoutError:
            return closed.getsockname()[1], deaf.getsockname()[1], (closed, deaf, waiting)


json.dump(TABLE["key"], open("/run/keys.json", "w"))
TLS = ["--tls-listen", "127.0.0.1:0", "--tls-name", "127.0.0.1"]
HTTPS = fake("https", *TLS, "--tls-ca-out", "/run/ca.pem")
EXPIRED = fake("expired", *TLS, "--tls-expired", "--tls-ca-out", "/run/expired.pem")
CLOSED, DEAF, KEEP_OPEN = nowhere()


class Wrong(Exception):
    pass


def expect(holds, what):
    if not holds:
        raise Wrong(what)


class Lane:
    """One endpoint, disk and state directory."""

    def __init__(self, disk):
        self.disk, self.home = "/dev/" + disk, "/etc/luks-agent/" + disk
        os.makedirs(self.home)
        self.port = fake(disk, "--listen", "127.0.0.1:0", "--keys", "/run/keys.json")
        self.url = f"http://127.0.0.1:{self.port}"

    def control(self, method, path, value=None):
        body = None if method == "GET" else json.dumps(value).encode()
        request = urllib.request.Request(f"{self.url}/_fake/{path}", body, method=method)
        return json.load(urllib.request.urlopen(request))

    def set_up(self, row):
        on, effect = row.get("on"), row.get("effect")
        faults = list(row.get("also", []))
        if effect:
            faults += [{"on": on, "effect": effect}] if on else [{"on": c, "effect": effect, "times": 1} for c in CALLS]
        self.control("POST", f"keys/{FIRST_KEY}/state", {"state": "Enabled"})
        self.control("POST", "allow", row.get("allow"))
        self.control("POST", "faults", faults)
        self.control("DELETE", "requests")
        key = row.get("key", FIRST_KEY)
        self.key = key if key.startswith("alias/") else "arn:aws:kms:us-east-1:111122223333:key/" + key
        with open(self.home + "/config.toml", "w") as config:
            config.write(f"""[kms]
key_id = "{self.key}"
deadline = "{DEADLINE}s"
allow_http = {"true" if row.get("endpoint") == "unresolvable" else "false"}
[state]
dir = "{self.home}/state"
[filesystem]
type = "none"
[[volumes.match]]
path = "{self.disk}"
role = "ebs"
""")

    def environment(self, row):
        env = {name: os.environ[name] for name in ["PATH", "HOME", "DM_DISABLE_UDEV"]}
        env |= {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url, "SSL_CERT_FILE": "/run/ca.pem"}
        match row.get("credentials", "environment"):
            case "environment":
                env |= {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret"}
            case "none":
                env["AWS_EC2_METADATA_DISABLED"] = "true"
            case "imds":
                pass
        place = row.get("endpoint", "fake")
        env["AWS_ENDPOINT_URL_KMS"] = {
            "fake": self.url,
            "closed": f"http://127.0.0.1:{CLOSED}",
            "deaf": f"http://127.0.0.1:{DEAF}",
            "unresolvable": "http://kms.invalid",
            "in-clear": "http://192.0.2.1",
            "https-untrusted": f"https://127.0.0.1:{HTTPS}",
            "https-other-host": f"https://localhost:{HTTPS}",
            "https-expired": f"https://127.0.0.1:{EXPIRED}",
            "https-to-http": f"https://127.0.0.1:{self.port}",
            "proxy": f"https://127.0.0.1:{HTTPS}",
        }[place]
        # each of the two endpoints has its own CA
        if place in ["https-untrusted", "https-expired"]:
            env["SSL_CERT_FILE"] = "/run/expired.pem"
        if place == "proxy":
            env["HTTPS_PROXY"] = f"http://127.0.0.1:{CLOSED}"
        return env

    def agent(self, row, *args):
        command = [AGENT, "--config", self.home + "/config.toml", *args]
        return subprocess.run(command, env=self.environment(row), stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def is_blank(self):
        with open(self.disk, "rb", buffering=0) as disk:
            return all(chunk == ZEROS[: len(chunk)] for chunk in iter(lambda: disk.read(len(ZEROS)), b""))

    def left(self):
        """Returns what the run left, in the words of the table."""
        try:
            state = json.load(open(self.home + "/state/state.json"))
        except FileNotFoundError:
            expect(not os.path.exists(self.home + "/state"), "a state directory without a state file was left")
            return "nothing"
        keys, phases = len(state["keys"]), [volume["phase"] for volume in state["volumes"]]
        return {(1, ()): "key", (0, ()): "no key", (1, ("committed",)): "volumes"}.get((keys, tuple(phases)), f"{keys} keys, {phases}")

    def expect_counts(self, row, counts):
        at = CALLS.index(row["on"]) if row.get("on") in CALLS else None
        # the time limit of one attempt is longer than the deadline
        unanswered = row.get("effect") in ["hang", "stall_mid_body"] or "drip" in row.get("effect", "")
        # the first wait can be longer than the deadline too
        seldom = unanswered or row.get("class") == "KeyNotReady"
        for index, call in enumerate(CALLS):
            rest = 1 if row["exit"] == 0 else 0
            if row["tried"] == "again":
                least = most = 2
            elif at is None or index > at:
                least = most = rest
            elif index < at or row["tried"] == "once":
                least = most = 1
            else:
                least = 1 if seldom else 2
                most = FEW if row["tried"] == "few" else 1000
            if row.get("class") == "KeyState" and row.get("on") == "Decrypt" and call == "DescribeKey":
                # the agent asks once more for the state of the key
                least = most = 2
            if row["name"] == "throttled once" and call == "DescribeKey":
                # a first boot goes on without it
                least = most = 1
            expect(least <= counts[call] <= most, f"{counts[call]} times {call}, expected {least} to {most}")

    def run(self, row):
        """Runs a row and returns its line of the printed table."""
        self.set_up(row)
        began = time.monotonic()
        done = self.agent(row, "provision", "--json")
        took = time.monotonic() - began
        try:
            report = json.loads(done.stdout)
        except ValueError:
            raise Wrong(f"no report, status {done.returncode}: {done.stderr}")
        error = report["error"] or ""
        requests = self.control("GET", "requests")
        counts = {call: sum(r["operation"] == call for r in requests) for call in CALLS}
        told = re.search(r"(\d+) attempts in ", error)
        tries = counts.get(row.get("on"), int(told[1]) if told else 1)
        left = self.left()
        line = f"{row['name']:<52} {tries:>5} {took:>5.1f} {done.returncode:>4} {left:<8} {error}"

        expect(done.returncode == row["exit"] == report["exit_code"], f"exit code {done.returncode}, expected {row['exit']}: {error}")
        expect(left == row.get("leaves", "nothing"), f"left {left}")
        expect(self.is_blank() == (left != "volumes"), "the disk was written to, or not as it should be")
        expect(took < DEADLINE + SLACK, f"took {took:.1f} s")
        self.expect_counts(row, counts)
        if row["exit"]:
            expect(len(re.findall("^luks-agent: ", done.stderr, re.M)) == 1, f"error messages: {done.stderr}")
            for part in row["says"]:
                expect(part in error and part in done.stderr, f"does not say {part!r}: {error}")
            expect(self.key in error or "127.0.0.1" in error, "names neither key nor endpoint")
            expect(len(error.rpartition("; ")[2]) >= 10, "does not say what to do")
        return line.rstrip()

    def clean(self):
        """Restores what the next row expects: a blank disk, and a node that was never provisioned."""
        if not self.is_blank():
            closed = self.agent({}, "close")
            expect(closed.returncode == 0, f"close: {closed.stderr}")
            with open(self.disk, "r+b", buffering=0) as disk:
                size = disk.seek(0, os.SEEK_END)
                disk.seek(0)
                for done in range(0, size, len(ZEROS)):
                    disk.write(ZEROS[: size - done])
                os.fsync(disk.fileno())
        shutil.rmtree(self.home + "/state", ignore_errors=True)


def work(lane, rows, lines, wrong):
    while rows:
        index, row = rows.pop()
        try:
            lines[index] = lane.run(row)
        except Exception as error:
            wrong[index] = f"{row['name']}: {type(error).__name__}: {error}"
        lane.clean()


began = time.monotonic()
# omits most faults that pass: only the client matters for them, and formatting takes long
chosen = [row for row in TABLE["fault"] if row["exit"] or row.get("node")]
rows, lines, wrong = list(enumerate(chosen))[::-1], {}, {}
threads = [threading.Thread(target=work, args=(Lane(disk), rows, lines, wrong)) for disk in DISKS]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"{'fault':<52} tries     s exit left     message")
for _, line in sorted(lines.items()):
    print(line)
stay = sum(row["exit"] != 0 for row in chosen)
print(f"{stay} faults that stay, {len(chosen) - stay} that pass, in {time.monotonic() - began:.0f} s")
if wrong or len(lines) != len(chosen):
    sys.exit("\n".join(f"FAILED: {text}" for _, text in sorted(wrong.items())) or "FAILED: rows are missing")
