"""Events that cause trouble with the state file, KMS, IMDS, the lock, and files and processes in the way."""

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

from disks import run
from world import STATE, WORLD, configure, mounted, pick


def state_lost(_):
    attached = WORLD.attached()
    if WORLD.state != "ok" or not WORLD.copies or not any(disk.uuid for disk in attached):
        return None
    # no copy of the state file has the volumes of an interrupted run
    if any(disk.blank and disk.header() for disk in attached):
        return None
    shutil.rmtree(STATE)
    run("sync", "-f", str(STATE.parent))
    WORLD.state = "lost"
    return "lost"


def state_old(number):
    # only the old copy would record the volumes of blank disks, and only the newer one knows which copy of a volume was used last
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
    """Starts or ends a fault of KMS or IMDS."""
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
    """Another process takes the lock and releases it later."""
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
    """Somebody unmounts a volume without the agent, and may also close it."""
    uuid = pick(sorted(mounted()), number)
    if not uuid or WORLD.holders:
        return None
    at, disk = mounted()[uuid]
    run("umount", at)
    if number // 5 % 2:
        run("cryptsetup", "close", f"luks-{uuid}")
    return str(disk)
