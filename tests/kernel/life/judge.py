"""A judge that does not know the agent's plan, and checks its results from outside."""

from pathlib import Path

from disks import MIB, run
from world import STATE, WORLD, content, mounted

# shows the boot volume without the file systems that are mounted on it
UNDER = Path("/run/under")


class Bad(Exception):
    """The agent broke a promise."""


def judge_volumes(word, leave, blank_too):
    """Checks that every volume of the node is mounted from its mapping and holds the last written data."""
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
            raise Bad(f"false {word}: {disk} is blank and not encrypted")
    stores = sum(1 for disk in WORLD.volumes() if disk.role == "store")
    if stores < WORLD.stores:
        raise Bad(f"false {word}: {stores} of {WORLD.stores} instance store volumes")
    judge_data()


def judge_data():
    """Checks that every mounted volume holds the last written data."""
    for uuid, (at, disk) in mounted().items():
        try:
            found = Path(at, "file").read_text()
        except FileNotFoundError:
            found = ""
        except OSError as e:
            raise Bad(f"lost: cannot read {at} on {disk}: {e}") from e
        wanted = {number: content(uuid, number) for number in (disk.written, disk.maybe)}
        match = [number for number, text in wanted.items() if text == found]
        if not match:
            raise Bad(f"lost: {disk} at {at} holds {found[:80]!r}, expected number {disk.written}")
        disk.written, disk.maybe = match[0], match[0]


def judge_disks():
    """Checks that no disk with data was formatted."""
    for disk in WORLD.disks:
        if disk.uuid and disk.header() != disk.uuid:
            raise Bad(f"formatted: {disk} held volume {disk.uuid} and now holds {disk.header()}")
        if disk.foreign and disk.sum() != disk.foreign:
            raise Bad(f"formatted: the foreign data on {disk} has changed")


def judge_formatting(headers):
    """Checks that no key was made and nothing formatted while the state file is lost and volumes of the node are attached."""
    if WORLD.state == "lost" and any(disk.uuid for disk in WORLD.attached()):
        if (STATE / "state.json").exists():
            raise Bad("formatted: the state file was lost, and the agent made a new one")
        for disk in WORLD.attached():
            if disk.blank and disk.header() != headers[disk.serial]:
                raise Bad(f"formatted: {disk}, while the state file is lost")


def judge_boot_volume():
    """Checks that below the mount points there are only the files that a test left there."""
    for at in UNDER.glob("data*"):
        for path in at.rglob("*"):
            if f"/{path.relative_to(UNDER)}" not in WORLD.strays:
                raise Bad(f"plaintext: {path.relative_to(UNDER)} is on the boot volume")


def judge_growth():
    """Checks that `grow` grew every mapping."""
    for uuid, (_, disk) in mounted().items():
        size = int(run("blockdev", "--getsize64", f"/dev/mapper/luks-{uuid}").stdout)
        if size != (disk.mib - 16) * MIB:
            raise Bad(f"false grown: the mapping of {disk} is {size} bytes")
