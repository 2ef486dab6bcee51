# A reader hangs in uninterruptible sleep on a suspended device, but the scenario and the node's power-off continue.
source "$(dirname "$0")/lib.sh"

sectors=$(blockdev --getsz /dev/ubdb)
dmsetup create stuck --table "0 $sectors linear /dev/ubdb 0"
dmsetup suspend stuck
dd if=/dev/mapper/stuck of=/dev/null bs=4096 count=1 iflag=direct &
reader=$!
wait_for 10 grep -q '^State:.*D' "/proc/$reader/status"
say "the reader hangs: $(grep ^State: "/proc/$reader/status")"
# sync would wait for this write too
dd if=/dev/zero of=/dev/mapper/stuck bs=4096 count=1 &
