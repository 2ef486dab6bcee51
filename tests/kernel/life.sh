# One part of a node's life: the program in life/ carries out and judges the events of one boot. Every boot starts the same fake KMS.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake
export KEY_ARN
for module in target_core_mod target_core_iblock tcm_loop sd_mod; do modprobe "$module"; done
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
exec python3 -B "$(dirname "$0")/life" "$@"
