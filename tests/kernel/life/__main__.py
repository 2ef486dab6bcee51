"""Carries out the events of one boot in the life of a node.

    python3 life EVENT:NUMBER...

The number decides the choices of an event, such as the disk. An event that is not possible does nothing, so that a life stays valid when
events are removed from it.
"""

import signal
import sys

from agent import agent, unit
from disk_events import attach, attach_again, attach_foreign, grow_disk, pull, snapshot, write
from disks import LOOPBACK, run, say
from judge import UNDER, Bad
from trouble import busy, key_service, kms, let_go, lock, state_lost, state_old, stray, unmount
from turns import clear, close, cut, earlier, health, reboot, restarted, stop, upgrade
from world import WORLD, configure

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


def begin():
    """Prepares what exists when the node boots."""
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
            say(f"{word}: {done or 'not possible'}")
            WORLD.save()
    except Bad as e:
        say(f"BAD {e}")
        sys.exit(1)
    finally:
        let_go()


main()
