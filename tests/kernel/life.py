"""The events of one boot in the life of a node, and a judge who knows nothing of the agent's plan.

    life.py EVENT:NUMBER...

The number decides what an event leaves open: which disk, which way. An event for which there is no occasion does nothing, so that a
life stays a life when events are taken out of it. The world, which is what a person would know of the node, is kept on the boot volume
from one boot to the next. Disks are SCSI disks that the kernel's own target makes of the backing disks ubdb to ubdg, so that they can
be attached, pulled and grown; a record of udev's, written here, says their serial numbers.
"""

import glob
import hashlib
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

LIFE = Path("/var/lib/life")
STATE = Path("/etc/luks-agent/state")
CONFIG = Path("/etc/luks-agent/config.toml")
UNITS = Path(__file__).parents[2] / "systemd"
TARGET = Path("/sys/kernel/config/target")
LOOPBACK = TARGET / "loopback/naa.5000000000000001/tpgt_1"
# the boot volume as it is below everything that is mounted on it
UNDER = Path("/run/under")
SLOTS = "bcdefg"
MIB = 1 << 20
# put together here, so that no file but the writer's has it in one piece
MARKER = "plain" + "text-marker-"
# enough for whatever waits for a lock or for KMS; longer is stuck
PATIENCE = 240


class Bad(Exception):
    """The agent broke a promise."""


def say(text):
    print(f"life: {text}", flush=True)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr}")
    return done


def durable(path, text):
    """Writes a file that a power cut leaves old or new."""
    new = path.with_name(path.name + ".new")
    with open(new, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
    sync_dir(path.parent)


def sync_dir(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


# Disks


class Disk:
    """A disk: what it is, what it holds, and what a person knows of that."""

    def __init__(self, **fields):
        self.slot = fields["slot"]
        self.serial = fields["serial"]
        self.role = fields["role"]
        self.mib = fields["mib"]
        self.attached = fields.get("attached", True)
        # the sum of what others wrote on it
        self.foreign = fields.get("foreign")
        # the LUKS UUID of its volume, once that was mounted; from then on it must not go away
        self.uuid = fields.get("uuid")
        # its volume was used here last: of a volume and its copies, this is the one
        self.current = fields.get("current", False)
        # which file is on it, and which may be, as the power was cut meanwhile; 0 is none
        self.written = fields.get("written", 0)
        self.maybe = fields.get("maybe", 0)
        # somebody closed it
        self.closed = fields.get("closed", False)

    def __str__(self):
        return f"{self.serial} ({self.role}, {self.mib} MiB, ubd{self.slot})"

    @property
    def blank(self):
        """Whether it holds nothing, or work that was never finished."""
        return self.foreign is None and self.uuid is None

    @property
    def raw(self):
        return f"/dev/ubd{self.slot}"

    @property
    def lun(self):
        return SLOTS.index(self.slot)

    @property
    def name(self):
        """What the kernel calls it now."""
        found = glob.glob(f"/sys/bus/scsi/devices/*:0:1:{self.lun}/block/sd*")
        return os.path.basename(found[0]) if found else None

    def table(self):
        return f"0 {self.mib * MIB // 512} linear {self.raw} 0"

    def attach(self):
        run("dmsetup", "create", f"back-{self.slot}", "--table", self.table())
        core = TARGET / "core/iblock_0" / self.slot
        core.mkdir(parents=True)
        (core / "control").write_text(f"udev_path=/dev/mapper/back-{self.slot}\n")
        (core / "enable").write_text("1\n")
        (core / "wwn/vpd_unit_serial").write_text(f"{self.serial}\n")
        lun = LOOPBACK / f"lun/lun_{self.lun}"
        lun.mkdir()
        (lun / "disk").symlink_to(core)
        wait_for(self.is_ready, f"{self} to appear")
        number = Path("/sys/block", self.name, "dev").read_text().strip()
        record = Path(f"/run/udev/data/b{number}")
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(f"E:ID_SERIAL_SHORT={self.serial}\n")
        self.attached, self.closed = True, False

    def is_ready(self):
        return self.name and Path("/sys/block", self.name, "dev").exists() and Path("/dev", self.name).exists()

    def detach(self):
        """Whatever uses it: a pull."""
        lun = LOOPBACK / f"lun/lun_{self.lun}"
        core = TARGET / "core/iblock_0" / self.slot
        (lun / "disk").unlink()
        lun.rmdir()
        core.rmdir()
        wait_for(lambda: not self.name, f"{self} to go")
        run("dmsetup", "remove", "--retry", f"back-{self.slot}")
        self.attached = False

    def grow(self, mib):
        self.mib += mib
        run("dmsetup", "reload", f"back-{self.slot}", "--table", self.table())
        run("dmsetup", "resume", f"back-{self.slot}")
        Path("/sys/block", self.name, "device/rescan").write_text("1\n")

    def header(self):
        """The LUKS UUID in the first header on the disk, past every cache."""
        fd = os.open(self.raw, os.O_RDONLY | os.O_DIRECT)
        page = mmap.mmap(-1, 4096)
        os.preadv(fd, [page], 0)
        os.close(fd)
        return page[168:208].rstrip(b"\0").decode() if page[:6] == b"LUKS\xba\xbe" else None

    def sum(self):
        raw = subprocess.run(
            ["dd", f"if={self.raw}", "bs=1M", f"count={self.mib}", "iflag=direct", "status=none"], check=True, capture_output=True
        )
        return hashlib.sha256(raw.stdout).hexdigest()

    def wipe(self):
        run("blkdiscard", "--force", "--zeroout", self.raw)


def wait_for(ready, what):
    end = time.monotonic() + 30
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"waited in vain for {what}")
        time.sleep(0.02)


# The world


class World:
    """What a person would know of the node."""

    FILE = LIFE / "world.json"

    def __init__(self):
        LIFE.mkdir(parents=True, exist_ok=True)
        kept = json.loads(self.FILE.read_text()) if self.FILE.exists() else {}
        self.disks = [Disk(**fields) for fields in kept.get("disks", [])]
        self.count = kept.get("count", 0)
        # the key service's trouble
        self.kms = kept.get("kms", "ok")
        # "ok", "lost" or "old"
        self.state = kept.get("state", "ok")
        # copies of the state directory, with the volumes that each knows
        self.copies = kept.get("copies", [])
        # volumes that the state file cannot know
        self.unknown = kept.get("unknown", [])
        # how much instance store there was, and whether the configuration says that so many are enough
        self.stores = kept.get("stores", 0)
        self.stores_said = kept.get("stores_said", False)
        # files that somebody left below mount points
        self.strays = kept.get("strays", [])
        # what the stop that ended the last boot does to the instance store
        self.stop = kept.get("stop")
        self.holders = []
        self.lock = None
        # the node still runs the program of an earlier commit
        self.earlier = kept.get("earlier", False)
        self.first = not kept

    def save(self):
        kept = {name: value for name, value in vars(self).items() if name not in ("disks", "holders", "lock", "first")}
        kept["disks"] = [vars(disk) for disk in self.disks]
        durable(self.FILE, json.dumps(kept))

    def new_disk(self, role, number, mib):
        """A blank disk in a free slot. Serial numbers come in any order."""
        free = [slot for slot in SLOTS if all(disk.slot != slot for disk in self.disks)]
        if not free:
            return None
        self.count += 1
        prefix = "vol" if role == "ebs" else "AWS"
        disk = Disk(slot=free[0], serial=f"{prefix}{number % 1000:03}{self.count:03}", role=role, mib=mib, attached=False)
        disk.wipe()
        self.disks.append(disk)
        return disk

    def attached(self):
        return [disk for disk in self.disks if disk.attached]

    def volumes(self):
        """The disks that the node should have its volumes on."""
        return [disk for disk in self.disks if disk.uuid and disk.current]

    def copies_of(self, disk):
        return [other for other in self.disks if other.uuid == disk.uuid and other is not disk]


WORLD = World()


def pick(things, number):
    return things[number % len(things)] if things else None


def mounted():
    """Where the volumes are mounted, from outside: LUKS UUID to mount point and disk; a disk that is gone is none."""
    by_name = {disk.name: disk for disk in WORLD.attached()}
    seen = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        block = Path("/sys/dev/block", fields[2])
        if fields[4].startswith("/data") and (block / "dm/name").exists():
            name = (block / "dm/name").read_text().strip()
            under = [by_name.get(slave.name) for slave in (block / "slaves").iterdir()]
            if name.startswith("luks-") and under and under[0]:
                seen[name.removeprefix("luks-")] = (fields[4], under[0])
    return seen


# The agent


def program():
    """The agent, as it is now or as an earlier commit had it."""
    return os.environ["LUKS_AGENT_EARLIER" if WORLD.earlier else "LUKS_AGENT"]


def agent(*words):
    """A command as somebody types it."""
    return judged(words, [program(), *words])


def unit(name, key="ExecStart"):
    """The command of a unit, with what the unit lets it have. CAP_MKNOD is udev's, of which there is none here."""
    text = (UNITS / name).read_text()
    [allowed] = re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.M)
    [words] = re.findall(rf"^{key}=/usr/sbin/luks-agent (.*)$", text, re.M)
    bounds = ",".join(["-all", "+mknod", *("+" + name.removeprefix("CAP_").lower() for name in allowed.split())])
    limits = ["setpriv", "--bounding-set", bounds, "--inh-caps", "-all", "--no-new-privs"]
    return judged(words.split(), [*limits, program(), *words.split()])


def judged(words, command):
    """Runs a command of the agent, and judges what it left."""
    could_format = words[0] in ("boot", "provision")
    closed = [disk for disk in WORLD.attached() if disk.closed] if "--leave-closed" in words else []
    headers = {disk.serial: disk.header() for disk in WORLD.attached() if disk.blank}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired as e:
        raise Bad(f"stuck: luks-agent {' '.join(words)} did not end within {PATIENCE} s: {e.stderr} {e.stdout}") from e
    say(f"luks-agent {' '.join(words)}: exit {done.returncode}")
    print(done.stderr + done.stdout, end="", flush=True)
    if words[0] in ("boot", "provision", "unlock") and not closed:
        for disk in WORLD.attached():
            disk.closed = False
    judge_formatting(headers)
    follow(headers, could_format)
    judge_disks()
    judge_boot_volume()
    if done.returncode == 0 and words[0] in ("boot", "provision", "unlock"):
        judge_volumes("ready", leave=closed, blank_too=could_format)
    if done.returncode == 0 and words[0] == "health":
        judge_volumes("healthy", leave=[], blank_too=False)
    if done.returncode == 0 and words[0] == "grow":
        judge_growth()
    if WORLD.state == "ok" and (STATE / "state.json").exists():
        keep_state()
    WORLD.save()
    return done.returncode


def follow(headers, could_format):
    """Learns which disks became volumes and which copy of one is used. `headers` are those that disks without a volume had."""
    for uuid, (_, disk) in mounted().items():
        if disk.uuid is None:
            if disk.foreign or not could_format and headers[disk.serial] != uuid:
                raise Bad(f"formatted: {disk} held something else")
            disk.uuid, disk.written = uuid, 0
        if disk.uuid != uuid:
            raise Bad(f"formatted: {disk} held volume {disk.uuid}, and now {uuid}")
        if not disk.current:
            rivals = [other for other in WORLD.copies_of(disk) if other.current]
            if any(other.attached for other in rivals):
                raise Bad(f"lost: {disk} is mounted, a copy, and {rivals[0]} was used last")
            for other in rivals:
                other.current = False
            disk.current = True
    stores = sum(1 for disk in WORLD.volumes() if disk.role == "store")
    if not WORLD.stores_said:
        WORLD.stores = max(WORLD.stores, stores)


def keep_state():
    """A backup of the state directory, as somebody may have made one."""
    known = sorted(disk.uuid for disk in WORLD.volumes() if disk.uuid not in WORLD.unknown)
    text = (STATE / "state.json").read_bytes()
    if WORLD.copies and (Path(WORLD.copies[-1]["dir"]) / "state.json").read_bytes() == text:
        return
    to = LIFE / f"state-{len(WORLD.copies)}"
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(STATE, to)
    run("sync", "-f", str(to))
    WORLD.copies.append({"dir": str(to), "known": known})


# The judge


def judge_volumes(word, leave, blank_too):
    """All that the node should have is mounted from its mapping and holds what was last written."""
    seen = mounted()
    for disk in WORLD.volumes():
        if disk in leave or disk.uuid in WORLD.unknown and not disk.attached:
            continue
        if disk.uuid not in seen:
            raise Bad(f"false {word}: the volume of {disk} is not mounted")
        at, on = seen[disk.uuid]
        if on is not disk:
            raise Bad(f"lost: the volume of {disk} is mounted from {on}")
    for disk in WORLD.attached():
        if blank_too and disk.blank:
            raise Bad(f"false {word}: {disk} is blank, and not encrypted")
    stores = sum(1 for disk in WORLD.volumes() if disk.role == "store")
    if stores < WORLD.stores:
        raise Bad(f"false {word}: {stores} of {WORLD.stores} instance store volumes")
    judge_data()


def judge_data():
    """What was written last is on every volume that is mounted."""
    for uuid, (at, disk) in mounted().items():
        try:
            found = Path(at, "file").read_text()
        except FileNotFoundError:
            found = ""
        except OSError as e:
            raise Bad(f"lost: {at} cannot be read, {disk}: {e}") from e
        wanted = {number: content(uuid, number) for number in (disk.written, disk.maybe)}
        match = [number for number, text in wanted.items() if text == found]
        if not match:
            raise Bad(f"lost: {disk} at {at} holds {found[:80]!r}, expected number {disk.written}")
        disk.written, disk.maybe = match[0], match[0]


def judge_disks():
    """No disk that held data was formatted."""
    for disk in WORLD.disks:
        if disk.uuid and disk.header() != disk.uuid:
            raise Bad(f"formatted: {disk} held volume {disk.uuid}, and now {disk.header()}")
        if disk.foreign and disk.sum() != disk.foreign:
            raise Bad(f"formatted: what others wrote on {disk} is gone")


def judge_formatting(headers):
    """No key is made and nothing is formatted while the state file is lost and the node's volumes are there."""
    if WORLD.state == "lost" and any(disk.uuid for disk in WORLD.attached()):
        if (STATE / "state.json").exists():
            raise Bad("formatted: the state file is lost, and there is a new one")
        for disk in WORLD.attached():
            if disk.blank and disk.header() != headers[disk.serial]:
                raise Bad(f"formatted: {disk}, while the state file is lost")


def judge_boot_volume():
    """Nothing but what was left there on purpose is below the mount points."""
    for at in UNDER.glob("data*"):
        for path in at.rglob("*"):
            if f"/{path.relative_to(UNDER)}" not in WORLD.strays:
                raise Bad(f"plaintext: {path.relative_to(UNDER)} is on the boot volume")


def judge_growth():
    """`grow` did what it says."""
    for uuid, (_, disk) in mounted().items():
        size = int(run("blockdev", "--getsize64", f"/dev/mapper/luks-{uuid}").stdout)
        if size != (disk.mib - 16) * MIB:
            raise Bad(f"false grown: the mapping of {disk} has {size} bytes")


# Events. Each gets a number for what it leaves open, and says in a word what it did.


def content(uuid, number):
    return "" if number == 0 else f"{MARKER}{uuid}-{number}\n" * 500


def write(_):
    """A service writes, durably, to every volume."""
    judge_data()
    WORLD.count += 1
    seen = {uuid: there for uuid, there in mounted().items() if there[1].uuid == uuid}
    for _, disk in seen.values():
        disk.maybe = WORLD.count
    WORLD.save()
    for uuid, (at, disk) in seen.items():
        durable(Path(at, "file"), content(uuid, WORLD.count))
        disk.written = WORLD.count
    return f"{len(seen)} volumes"


def attach(number):
    if WORLD.state == "old" or WORLD.state == "lost" and not any(disk.uuid for disk in WORLD.attached()):
        return None
    disk = WORLD.new_disk("ebs", number, 40)
    if disk:
        disk.attach()
    return disk and f"blank {disk}"


def attach_foreign(number):
    disk = WORLD.new_disk("ebs", number, 40)
    if not disk:
        return None
    if number % 2:
        run("mkfs.ext4", "-q", "-F", disk.raw, f"{disk.mib}M")
    else:
        with open(disk.raw, "r+b") as raw:
            raw.seek((number % disk.mib) * MIB)
            raw.write(os.urandom(4096))
    run("blockdev", "--flushbufs", disk.raw)
    disk.foreign = disk.sum()
    disk.attach()
    return str(disk)


def pull(number):
    # where the state file is lost, the volumes that are there are all that tells of it
    disk = pick([disk for disk in WORLD.attached() if disk.role == "ebs" and WORLD.state != "lost"], number)
    if not disk:
        return None
    in_use = disk.uuid in mounted()
    disk.detach()
    # one that a run which was cut may have made a volume of comes back
    if disk.blank and not disk.header():
        WORLD.disks.remove(disk)
    return f"{disk}{', mounted' if in_use else ''}"


def attach_again(number):
    disk = pick([disk for disk in WORLD.disks if not disk.attached], number)
    if disk:
        disk.attach()
    return disk and str(disk)


def snapshot(number):
    """A volume from a snapshot, beside its original or in its place."""
    seen = mounted()
    sources = [disk for disk in WORLD.volumes() if disk.attached and disk.role == "ebs" and disk.uuid in seen]
    source = pick(sources, number)
    if not source or WORLD.state != "ok":
        return None
    copy = WORLD.new_disk("ebs", number, source.mib)
    if not copy:
        return None
    at = seen[source.uuid][0]
    run("fsfreeze", "--freeze", at)
    run("dd", f"if={source.raw}", f"of={copy.raw}", "bs=1M", f"count={source.mib}", "iflag=direct", "oflag=direct", "status=none")
    run("fsfreeze", "--unfreeze", at)
    copy.uuid, copy.written, copy.maybe = source.uuid, source.written, source.maybe
    if number // 7 % 2:
        let_go()
        run("umount", at)
        run("cryptsetup", "close", f"luks-{source.uuid}")
        source.detach()
    copy.attach()
    return f"{copy} of {source}{'' if source.attached else ', which was detached'}"


def grow_disk(number):
    disk = pick([disk for disk in WORLD.attached() if disk.role == "ebs" and disk.mib <= 56 and not disk.foreign], number)
    if disk:
        disk.grow(8)
    return disk and str(disk)


def state_lost(_):
    attached = WORLD.attached()
    if WORLD.state != "ok" or not WORLD.copies or not any(disk.uuid for disk in attached):
        return None
    # no copy of the state file knows what a run that was cut has made
    if any(disk.blank and disk.header() for disk in attached):
        return None
    shutil.rmtree(STATE)
    run("sync", "-f", str(STATE.parent))
    WORLD.state = "lost"
    return "lost"


def state_old(number):
    # what is blank would be recorded in the old copy alone; which of a volume and its copies was used last, only in the newer
    if WORLD.state != "ok" or any(disk.blank or disk.uuid and not disk.current for disk in WORLD.disks):
        return None
    copy = pick(WORLD.copies[:-1], number)
    if not copy:
        return None
    put_state(copy["dir"])
    WORLD.state = "old"
    WORLD.unknown = [disk.uuid for disk in WORLD.volumes() if disk.uuid not in copy["known"]]
    return f"{copy['dir']}, which does not know {len(WORLD.unknown)} volumes"


def put_state(copy):
    shutil.rmtree(STATE, ignore_errors=True)
    shutil.copytree(copy, STATE)
    run("sync", "-f", str(STATE))


def fake(path, value):
    request = urllib.request.Request(f"{os.environ['AWS_ENDPOINT_URL']}/_fake/{path}", json.dumps(value).encode(), method="POST")
    urllib.request.urlopen(request).close()


def key_service(trouble):
    """Puts the key service into trouble, or out of it."""
    error = lambda code, **more: [{"on": on, "effect": {"error": {"code": code}}, **more} for on in ("Decrypt", "GenerateDataKey")]
    faults = {
        "late": error("KMSInternalException", times=2),
        "denied": error("AccessDeniedException"),
        "away": [{"on": "kms:*", "effect": "close"}],
        "no imds": [{"on": "imds:*", "effect": "close"}],
    }
    fake("faults", faults.get(trouble, []))
    fake(f"keys/{os.environ['KEY_ARN'].rsplit('/', 1)[1]}/state", {"state": "Disabled" if trouble == "disabled" else "Enabled"})
    WORLD.kms = trouble
    configure()
    return trouble


def kms(number):
    return key_service(pick(["late", "denied", "disabled", "away", "no imds", "ok", "ok"], number))


def lock(number):
    """Another process holds the lock, and lets go of it."""
    if not STATE.exists() or WORLD.lock:
        return None
    WORLD.lock = subprocess.Popen(["flock", "--no-fork", str(STATE), "sleep", str(1 + number % 3)])
    return f"for {1 + number % 3} s"


def stray(number):
    at = "/data" + pick(["", "1", "2", "3", "4", "5"], number)
    if at in [there for there, _ in mounted().values()] or os.path.ismount(at):
        return None
    path = Path(at, "stray")
    path.parent.mkdir(exist_ok=True)
    path.touch()
    WORLD.strays.append(str(path))
    return str(path)


def busy(number):
    there = pick(sorted(mounted().values(), key=lambda there: there[0]), number)
    if not there:
        return None
    fd = os.open(there[0], os.O_RDONLY)
    WORLD.holders.append(subprocess.Popen(["sleep", "1000"], stdin=fd))
    os.close(fd)
    return there[0]


def let_go():
    for holder in WORLD.holders:
        holder.kill()
        holder.wait()
    WORLD.holders = []


def unmount(number):
    """Somebody unmounts a volume, and may close it, without the agent."""
    uuid = pick(sorted(mounted()), number)
    if not uuid or WORLD.holders:
        return None
    at, disk = mounted()[uuid]
    run("umount", at)
    if number // 5 % 2:
        run("cryptsetup", "close", f"luks-{uuid}")
    return str(disk)


def close(_):
    code = agent("close")
    still = mounted()
    if code == 0 and still:
        raise Bad(f"false closed: {sorted(still)}")
    for disk in WORLD.volumes():
        disk.closed = disk.attached and disk.uuid not in still
    return f"exit {code}"


def health(_):
    """What `health` says is tried: a reboot brings all back."""
    code = agent("health")
    if code == 0:
        restart()
        unit("luks-agent-boot.service")
        judge_volumes("healthy", leave=[], blank_too=False)
    return f"exit {code}"


def restart():
    """What a reboot does, as far as it can be had without one."""
    let_go()
    unit("luks-agent-boot.service", "ExecStop")
    # what the agent does not know, or could not close, ends with the kernel
    for at in [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]:
        if at.startswith("/data"):
            run("umount", at)
    for name in Path("/dev/mapper").glob("luks-*"):
        run("dmsetup", "remove", "--retry", name.name)
    for path in Path("/run/luks-agent").glob("*"):
        path.unlink()
    for disk in WORLD.disks:
        disk.closed = False


def clear(_):
    """Nothing is wrong any more; the daemon's runs put the rest right, and nobody types anything."""
    let_go()
    key_service("ok")
    for path in WORLD.strays:
        # below what is mounted there
        (UNDER / path.lstrip("/")).unlink(missing_ok=True)
    WORLD.strays = []
    if WORLD.state != "ok":
        put_state(WORLD.copies[-1]["dir"])
        WORLD.state, WORLD.unknown = "ok", []
    for disk in list(WORLD.disks):
        if disk.uuid and not disk.current:
            if disk.attached:
                disk.detach()
            WORLD.disks.remove(disk)
    for disk in WORLD.disks:
        if disk.attached and disk.closed:
            disk.detach()
        if not disk.attached:
            disk.attach()
    stores = sum(1 for disk in WORLD.disks if disk.role == "store")
    if stores < WORLD.stores:
        WORLD.stores, WORLD.stores_said = stores, True
        configure()
    WORLD.save()
    codes = [unit("luks-agent-provision.service") for _ in range(2)]
    try:
        judge_volumes("ready", leave=[], blank_too=True)
    except Bad as e:
        raise Bad(f"stuck: {e}, and nothing is wrong any more") from e
    code = agent("health")
    if code:
        raise Bad(f"stuck: 'health' exits with {code}, and nothing is wrong any more")
    return f"exit {codes}"


def earlier(_):
    """The node was made with the program of an earlier commit."""
    if WORLD.copies:
        return None
    WORLD.earlier = True
    return "until it is upgraded"


def upgrade(_):
    """The package is upgraded: volumes stay open, and the daemon that starts anew has a look."""
    if not WORLD.earlier:
        return None
    WORLD.earlier = False
    return f"exit {unit('luks-agent-provision.service')}"


# What ends a boot.


def reboot(_):
    restart()
    return "with a clean shutdown"


def stop(number):
    """The instance is stopped; at the next start the instance store is blank and other disks, perhaps fewer or larger."""
    if WORLD.state != "ok":
        return reboot(number)
    restart()
    WORLD.stop = number
    return pick(["as much", "as much", "fewer", "larger"], number)


def restarted():
    number, WORLD.stop = WORLD.stop, None
    stores = [disk for disk in WORLD.disks if disk.role == "store"]
    for disk in stores:
        WORLD.disks.remove(disk)
    kind = pick(["as much", "as much", "fewer", "larger"], number)
    count = len(stores) - (kind == "fewer") + (kind == "larger" and len(stores) < 2)
    for n in range(count):
        WORLD.new_disk("store", number + n, 40 + 8 * (kind == "larger"))
    for disk in WORLD.disks:
        disk.attached = disk.attached or disk.role == "store"
    WORLD.save()


def cut(number):
    """The power is cut in the midst of a command, while a service writes. The test does it, at a time after this line."""
    # which of a volume and its copies was used last, only the agent would know
    if any(disk.uuid and not disk.current for disk in WORLD.attached()):
        return reboot(number)
    words = pick([["boot"], ["provision"], ["unlock"], ["close"], ["grow"], ["provision", "--leave-closed"]], number)
    WORLD.count += 1
    # a service that is ordered on the volumes has ended before they are closed
    seen = {} if words == ["close"] else {uuid: there for uuid, there in mounted().items() if there[1].uuid == uuid}
    for _, disk in seen.values():
        disk.maybe = WORLD.count
    WORLD.save()
    say(f"power cut: {' '.join(words)}")
    with subprocess.Popen([program(), *words]):
        for uuid, (at, _) in seen.items():
            durable(Path(at, "file"), content(uuid, WORLD.count))
    time.sleep(1000)


EVENTS = {
    "boot": lambda _: f"exit {unit('luks-agent-boot.service')}",
    "daemon": lambda _: f"exit {unit('luks-agent-provision.service')}",
    "provision": lambda _: f"exit {agent('provision')}",
    "unlock": lambda _: f"exit {agent('unlock')}",
    "grow": lambda _: f"exit {agent('grow')}",
    "status": lambda _: f"exit {agent('status')}",
    "close": close,
    "health": health,
    "write": write,
    "attach": attach,
    "attach-foreign": attach_foreign,
    "pull": pull,
    "attach-again": attach_again,
    "snapshot": snapshot,
    "grow-disk": grow_disk,
    "state-lost": state_lost,
    "state-old": state_old,
    "kms": kms,
    "lock": lock,
    "stray": stray,
    "busy": busy,
    "unmount": unmount,
    "clear": clear,
    "earlier": earlier,
    "upgrade": upgrade,
    "reboot": reboot,
    "stop": stop,
    "cut": cut,
}


def configure():
    """What the administrator wrote."""
    # long enough for a busy machine, and where no answer comes, not longer than a test has time
    deadline = "3s" if WORLD.kms in ("away", "no imds") else "30s"
    expect = f"[volumes.expect]\ninstance_store = {WORLD.stores}\n" if WORLD.stores_said else ""
    CONFIG.parent.mkdir(parents=True, exist_ok=True)
    durable(
        CONFIG,
        f'[kms]\nkey_id = "{os.environ["KEY_ARN"]}"\ndeadline = "{deadline}"\n[volumes]\ngrow = true\n{expect}'
        '[filesystem]\ntype = "ext4"\nmount_base = "/data"\n'
        '[[volumes.match]]\nserial = "vol*"\nrole = "ebs"\n'
        '[[volumes.match]]\nserial = "AWS*"\nrole = "instance-store"\n',
    )


def begin():
    """What is there when the node comes up."""
    UNDER.mkdir()
    run("mount", "--bind", "/", str(UNDER))
    LOOPBACK.mkdir(parents=True)
    (LOOPBACK / "nexus").write_text("naa.5000000000000002\n")
    if WORLD.first:
        for role in ("ebs", "ebs", "store"):
            WORLD.new_disk(role, len(WORLD.disks), 40).attached = True
        configure()
    if WORLD.stop is not None:
        restarted()
    for disk in WORLD.attached():
        disk.closed = False
        disk.attach()
    if WORLD.kms != "ok":
        key_service(WORLD.kms)
    WORLD.save()


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    begin()
    try:
        for word in sys.argv[1:]:
            event, number = word.split(":")
            if WORLD.lock and WORLD.lock.poll() is not None:
                WORLD.lock = None
            done = EVENTS[event](int(number))
            say(f"{word}: {done or 'no occasion'}")
            WORLD.save()
    except Bad as e:
        # what an earlier program does wrong is not what this is about
        say(f"{'OVER, by the earlier program' if WORLD.earlier else 'BAD'} {e}")
        sys.exit(0 if WORLD.earlier else 1)
    finally:
        let_go()


main()
