#!/bin/bash
# On the host, started by QEMU for each connection of the guest to a forwarded address: stdin and stdout are the
# guest's side, HOST PORT the other. bash alone, so that nothing needs to be installed for it.
# (QEMU gives the guest's side as stderr, too: no message may get into the stream)
exec 2>/dev/null 3<>"/dev/tcp/$1/$2" || exit 1
cat <&3 &
cat >&3 <&0 &
# whoever closes first ends it: HTTP clients do not half-close
wait -n
kill %1 %2
