"""Events of disks and of the data on them. Each event gets a number that decides its choices, and returns a short text about what it did.
If the event is not possible, it does nothing and returns None."""

import os
from pathlib import Path

from disks import MIB, run
from judge import judge_data
from trouble import let_go
from world import WORLD, content, durable, mounted, pick


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
    # if the state file is lost, the agent can notice that only from the attached volumes
    disk = pick([disk for disk in WORLD.attached() if disk.role == "ebs" and WORLD.state != "lost"], number)
    if not disk:
        return None
    in_use = disk.uuid in mounted()
    disk.detach()
    # a disk that an interrupted run may have formatted can come back later
    if disk.blank and not disk.header():
        WORLD.disks.remove(disk)
    return f"{disk}{', mounted' if in_use else ''}"


def attach_again(number):
    disk = pick([disk for disk in WORLD.disks if not disk.attached], number)
    if disk:
        disk.attach()
    return disk and str(disk)


def snapshot(number):
    """Attaches a volume from a snapshot, beside its original or in its place."""
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
