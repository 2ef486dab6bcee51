# A part of a node's life: the events of one boot, carried out and judged by the program in life/. The key service is the same in every boot.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake
export KEY_ARN
for module in target_core_mod target_core_iblock tcm_loop sd_mod; do modprobe "$module"; done
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
exec python3 -B "$(dirname "$0")/life" "$@"
