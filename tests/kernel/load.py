"""A write load that can be verified.

load.py run FILE LOG     writes blocks of FILE at random until it is killed; LOG gets the generation of each that is durable
load.py verify FILE LOG  fails unless each block is whole, and not older than LOG says

A block has its number, its generation and noise, and ends with their checksum. Blocks are 4096 bytes, which are written as one.
"""

import hashlib
import os
import random
import struct
import sys

BLOCK = 4096
BLOCKS = 1024
BATCH = 16


def block(number, generation):
    body = struct.pack("<QQ", number, generation) + os.urandom(BLOCK - 48)
    return body + hashlib.sha256(body).digest()


def check(data, number, least):
    found, generation = struct.unpack("<QQ", data[:16])
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        sys.exit(f"block {number} is damaged")
    if found != number or generation < least:
        sys.exit(f"block {number}: found block {found}, generation {generation}, expected at least {least}")


def durable(log):
    generations = [0] * BLOCKS
    with open(log) as lines:
        for line in lines:
            fields = line.split()
            # the last line may be torn
            if len(fields) == BATCH + 2 and fields[-1] == ".":
                for number in fields[1:-1]:
                    generations[int(number)] = int(fields[0])
    return generations


def run(path, log):
    fresh = not os.path.exists(path)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if fresh:
        for number in range(BLOCKS):
            os.pwrite(file, block(number, 0), number * BLOCK)
        os.fsync(file)
        os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
        os.sync()
    least = durable(log)
    generation = max(least) + 1
    with open(log, "a") as lines:
        lines.write("\n")
        print("load is running", flush=True)
        while True:
            numbers = random.sample(range(BLOCKS), BATCH)
            for number in numbers:
                check(os.pread(file, BLOCK, number * BLOCK), number, least[number])
                os.pwrite(file, block(number, generation), number * BLOCK)
            os.fsync(file)
            lines.write(f"{generation} {' '.join(map(str, numbers))} .\n")
            lines.flush()
            os.fsync(lines.fileno())
            # what is read back comes from the disk, not from memory
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            for number in numbers:
                least[number] = generation
            generation += 1


def verify(path, log):
    with open(path, "rb") as file:
        for number, least in enumerate(durable(log)):
            check(file.read(BLOCK), number, least)
    print(f"load is verified: {max(durable(log))} batches")


{"run": run, "verify": verify}[sys.argv[1]](*sys.argv[2:])
