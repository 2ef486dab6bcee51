# Runs provision with the default configuration on a node with the disks ubdb to ubdo, which are EBS and instance store volumes in turn.
# ubdp is blank and shows that this node does format.
#
#   corpus.sh EBS INSTANCE_STORE [EBS INSTANCE_STORE]      the last letters of the disks of each role; one run for each pair
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake
while (($#)); do
    ext4_volumes "/dev/ubd[p$1]" ebs "/dev/ubd[$2]" instance-store
    status=0
    agent provision --json >/run/report 2>/run/stderr || status=$?
    cat /run/stderr
    say "exit status $status"
    printf 'report %s %s\n' "$1" "$(python3 -c 'import json; print(json.dumps(json.load(open("/run/report"))))')"
    shift 2
done
