# boot-pivot.sh ROOT PROGRAM ARGS...: runs the program in the mount namespace that boot-common.sh created for it. Its / is the file system
# that is mounted at ROOT, read-only. The old root is not visible; /etc and /usr are as before.
set -euo pipefail
root=$1 program=$2
shift 2
for dir in dev proc sys run usr etc; do mount --rbind "/$dir" "$root/$dir"; done
mount --bind "$program" "$root/agent"
cd "$root"
mkdir -p run/old-root
pivot_root . run/old-root
cd /
umount --lazy /run/old-root
exec /agent "$@"
