"""Disks that can be attached, pulled and grown: SCSI disks that the kernel's SCSI target makes from the backing disks ubdb to ubdg. Their
serial numbers come from udev records that are written here."""

import glob
import hashlib
import mmap
import os
import subprocess
import time
from pathlib import Path

TARGET = Path("/sys/kernel/config/target")
LOOPBACK = TARGET / "loopback/naa.5000000000000001/tpgt_1"
SLOTS = "bcdefg"
MIB = 1 << 20
# long enough for a command that waits for a lock or for KMS; a longer run counts as stuck
PATIENCE = 240


def say(text):
    print(f"life: {text}", flush=True)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr}")
    return done


class Disk:
    """A disk, its contents, and what an administrator would know of it."""

    def __init__(self, **fields):
        self.slot = fields["slot"]
        self.serial = fields["serial"]
        self.role = fields["role"]
        self.mib = fields["mib"]
        self.attached = fields.get("attached", True)
        # the checksum of foreign data on it
        self.foreign = fields.get("foreign")
        # the LUKS UUID of its volume, once it was mounted; from then on the volume must not disappear
        self.uuid = fields.get("uuid")
        # whether this is the disk where the volume was last used, among the copies of the volume
        self.current = fields.get("current", False)
        # the number of the file that is on it, and of the one that may be, because the power was cut; 0 means no file
        self.written = fields.get("written", 0)
        self.maybe = fields.get("maybe", 0)
        # whether somebody closed it
        self.closed = fields.get("closed", False)

    def __str__(self):
        return f"{self.serial} ({self.role}, {self.mib} MiB, ubd{self.slot})"

    @property
    def blank(self):
        """Whether it holds nothing, or an unfinished format."""
        return self.foreign is None and self.uuid is None

    @property
    def raw(self):
        return f"/dev/ubd{self.slot}"

    @property
    def lun(self):
        return SLOTS.index(self.slot)

    @property
    def name(self):
        """The kernel's current name of the disk."""
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
        """Detaches the disk even if it is in use, as a pull does."""
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
        """Returns the LUKS UUID in the first header on the disk, and bypasses all caches."""
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
            raise RuntimeError(f"timed out waiting for {what}")
        time.sleep(0.02)
