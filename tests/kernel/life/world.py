"""What an administrator would know of the node. It is stored on the boot volume between boots."""

import json
import os
from pathlib import Path

from disks import SLOTS, Disk

LIFE = Path("/var/lib/life")
STATE = Path("/etc/luks-agent/state")
CONFIG = Path("/etc/luks-agent/config.toml")
# assembled here, so that only files with written data contain it in one piece
MARKER = "plain" + "text-marker-"


class World:
    """What an administrator would know of the node."""

    FILE = LIFE / "world.json"

    def __init__(self):
        LIFE.mkdir(parents=True, exist_ok=True)
        kept = json.loads(self.FILE.read_text()) if self.FILE.exists() else {}
        self.disks = [Disk(**fields) for fields in kept.get("disks", [])]
        self.count = kept.get("count", 0)
        # the current fault of KMS or IMDS
        self.kms = kept.get("kms", "ok")
        # "ok", "lost" or "old"
        self.state = kept.get("state", "ok")
        # copies of the state directory, with the volumes that each knows
        self.copies = kept.get("copies", [])
        # volumes that the state file cannot know
        self.unknown = kept.get("unknown", [])
        # the number of instance store volumes, and whether the configuration expects that number
        self.stores = kept.get("stores", 0)
        self.stores_said = kept.get("stores_said", False)
        # files that somebody left below mount points
        self.strays = kept.get("strays", [])
        # the number of the stop that ended the last boot, which decides what happens to the instance store
        self.stop = kept.get("stop")
        self.holders = []
        self.lock = None
        # whether the node still runs the agent of an earlier commit
        self.earlier = kept.get("earlier", False)
        self.first = not kept

    def save(self):
        kept = {name: value for name, value in vars(self).items() if name not in ("disks", "holders", "lock", "first")}
        kept["disks"] = [vars(disk) for disk in self.disks]
        durable(self.FILE, json.dumps(kept))

    def new_disk(self, role, number, mib):
        """Creates a blank disk in a free slot. Serial numbers are in no particular order."""
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
        """Returns the disks that should hold the node's volumes."""
        return [disk for disk in self.disks if disk.uuid and disk.current]

    def copies_of(self, disk):
        return [other for other in self.disks if other.uuid == disk.uuid and other is not disk]


WORLD = World()


def durable(path, text):
    """Writes a file so that a power cut leaves the old or the new version."""
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


def pick(things, number):
    return things[number % len(things)] if things else None


def mounted():
    """Finds the mounted volumes from outside. Maps the LUKS UUID to mount point and disk; omits volumes whose disk is gone."""
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


def content(uuid, number):
    return "" if number == 0 else f"{MARKER}{uuid}-{number}\n" * 500


def configure():
    """Writes the configuration as an administrator would."""
    # long enough for a busy machine; if no answer can come, short enough for the test
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
