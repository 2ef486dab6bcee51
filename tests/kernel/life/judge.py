"""A judge who knows nothing of the agent's plan, and looks from outside at what it left."""

from pathlib import Path

from disks import MIB, run
from world import STATE, WORLD, content, mounted

# the boot volume as it is below everything that is mounted on it
UNDER = Path("/run/under")


class Bad(Exception):
    """The agent broke a promise."""


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
