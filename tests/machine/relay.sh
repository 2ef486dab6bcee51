#!/bin/bash
# Runs on the host. QEMU starts it for each connection of the guest to a forwarded address: stdin and stdout are the guest's side, HOST PORT
# is the other side. It uses only bash, so nothing needs to be installed.
# (QEMU also connects stderr to the guest, so no message may get into the stream.)
exec 2>/dev/null 3<>"/dev/tcp/$1/$2" || exit 1
cat <&3 &
cat >&3 <&0 &
# the first side that closes ends the relay, because HTTP clients do not half-close
wait -n
kill %1 %2
