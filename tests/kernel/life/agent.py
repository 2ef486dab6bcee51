"""Runs the agent's commands, as somebody types them and as the units run them, and judges the result of each."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from disks import PATIENCE, run, say
from judge import Bad, judge_boot_volume, judge_disks, judge_formatting, judge_growth, judge_volumes
from world import LIFE, STATE, WORLD, mounted

UNITS = Path(__file__).parents[3] / "systemd"


def program():
    """Returns the path of the agent: the current one, or the one of an earlier commit."""
    return os.environ["LUKS_AGENT_EARLIER" if WORLD.earlier else "LUKS_AGENT"]


def agent(*words):
    """Runs a command as somebody types it."""
    return judged(words, [program(), *words])


def unit(name, key="ExecStart"):
    """Runs the command of a unit with the unit's capabilities, and with CAP_MKNOD, because there is no udev here to make device nodes."""
    text = (UNITS / name).read_text()
    [allowed] = re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.M)
    [words] = re.findall(rf"^{key}=/usr/sbin/luks-agent (.*)$", text, re.M)
    bounds = ",".join(["-all", "+mknod", *("+" + name.removeprefix("CAP_").lower() for name in allowed.split())])
    limits = ["setpriv", "--bounding-set", bounds, "--inh-caps", "-all", "--no-new-privs"]
    return judged(words.split(), [*limits, program(), *words.split()])


def judged(words, command):
    """Runs a command of the agent and judges the result."""
    could_format = words[0] in ("boot", "provision")
    closed = [disk for disk in WORLD.attached() if disk.closed] if "--leave-closed" in words else []
    headers = {disk.serial: disk.header() for disk in WORLD.attached() if disk.blank}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired as e:
        raise Bad(f"stuck: luks-agent {' '.join(words)} did not finish within {PATIENCE} s: {e.stderr} {e.stdout}") from e
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
    """Records which disks became volumes, and which copy of a volume is in use. `headers` has the earlier headers of the other disks."""
    for uuid, (_, disk) in mounted().items():
        if disk.uuid is None:
            if disk.foreign or not could_format and headers[disk.serial] != uuid:
                raise Bad(f"formatted: {disk} held something else")
            disk.uuid, disk.written = uuid, 0
        if disk.uuid != uuid:
            raise Bad(f"formatted: {disk} held volume {disk.uuid} and now holds {uuid}")
        if not disk.current:
            rivals = [other for other in WORLD.copies_of(disk) if other.current]
            if any(other.attached for other in rivals):
                raise Bad(f"lost: the copy {disk} is mounted, but {rivals[0]} was used last")
            for other in rivals:
                other.current = False
            disk.current = True
    stores = sum(1 for disk in WORLD.volumes() if disk.role == "store")
    if not WORLD.stores_said:
        WORLD.stores = max(WORLD.stores, stores)


def keep_state():
    """Makes a backup of the state directory, as an administrator may do."""
    known = sorted(disk.uuid for disk in WORLD.volumes() if disk.uuid not in WORLD.unknown)
    text = (STATE / "state.json").read_bytes()
    if WORLD.copies and (Path(WORLD.copies[-1]["dir"]) / "state.json").read_bytes() == text:
        return
    to = LIFE / f"state-{len(WORLD.copies)}"
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(STATE, to)
    run("sync", "-f", str(to))
    WORLD.copies.append({"dir": str(to), "known": known})
