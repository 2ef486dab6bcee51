"""Events that turn the node round: volumes are closed, all is put right, the program is upgraded, a boot ends."""

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
    say("earlier program")
    return "until it is upgraded"


def upgrade(_):
    """The package is upgraded: volumes stay open, and the daemon that starts anew has a look."""
    if not WORLD.earlier:
        return None
    WORLD.earlier = False
    say("upgraded")
    return f"exit {unit('luks-agent-provision.service')}"


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
