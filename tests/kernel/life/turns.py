"""Events that change the whole node: close, repair of everything, upgrade, reboot, stop, power cut."""

import subprocess
import time
from pathlib import Path

from agent import agent, program, unit
from disks import run, say
from judge import UNDER, Bad, judge_volumes
from trouble import key_service, let_go, put_state
from world import WORLD, configure, content, durable, mounted, pick


def close(_):
    code = agent("close")
    still = mounted()
    if code == 0 and still:
        raise Bad(f"false closed: {sorted(still)}")
    for disk in WORLD.volumes():
        disk.closed = disk.attached and disk.uuid not in still
    return f"exit {code}"


def health(_):
    """Runs `health`, and if it succeeds, reboots to verify that all volumes come back."""
    code = agent("health")
    if code == 0:
        restart()
        unit("luks-agent-boot.service")
        judge_volumes("healthy", leave=[], blank_too=False)
    return f"exit {code}"


def restart():
    """Does what a reboot does, as far as possible without one."""
    let_go()
    unit("luks-agent-boot.service", "ExecStop")
    # mounts and mappings that the agent does not know, or could not close, end with the kernel
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
    """Ends all trouble. The daemon's runs must repair the rest, and nobody types a command."""
    let_go()
    key_service("ok")
    for path in WORLD.strays:
        # the file is below the mount
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
        raise Bad(f"stuck: {e}, although all trouble is over") from e
    code = agent("health")
    if code:
        raise Bad(f"stuck: 'health' exits with {code}, although all trouble is over")
    return f"exit {codes}"


def earlier(_):
    """The node starts with the agent of an earlier commit."""
    if WORLD.copies:
        return None
    WORLD.earlier = True
    say("earlier program")
    return "until it is upgraded"


def upgrade(_):
    """The package is upgraded: volumes stay open, and the restarted daemon checks them."""
    if not WORLD.earlier:
        return None
    WORLD.earlier = False
    say("upgraded")
    return f"exit {unit('luks-agent-provision.service')}"


def reboot(_):
    restart()
    return "with a clean shutdown"


def stop(number):
    """The instance is stopped. At the next start the instance store is on other, blank disks, perhaps fewer or larger ones."""
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
    """Loses power in the middle of a command, while a service writes. The test cuts the power some time after the line 'power cut'."""
    # after a cut, only the agent would know which copy of a volume was used last
    if any(disk.uuid and not disk.current for disk in WORLD.attached()):
        return reboot(number)
    words = pick([["boot"], ["provision"], ["unlock"], ["close"], ["grow"], ["provision", "--leave-closed"]], number)
    WORLD.count += 1
    # a service that is ordered after the volumes stops before they are closed
    seen = {} if words == ["close"] else {uuid: there for uuid, there in mounted().items() if there[1].uuid == uuid}
    for _, disk in seen.values():
        disk.maybe = WORLD.count
    WORLD.save()
    say(f"power cut: {' '.join(words)}")
    with subprocess.Popen([program(), *words]):
        for uuid, (at, _) in seen.items():
            durable(Path(at, "file"), content(uuid, WORLD.count))
    time.sleep(1000)
