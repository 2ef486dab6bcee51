# A provision with the default configuration of a node whose disks are ubdb to ubdo, every other one an EBS volume and an instance
# store volume. ubdp is blank, so that it is seen that this node does format.
#
#   corpus.sh EBS INSTANCE_STORE [EBS INSTANCE_STORE]      which are which, as the letters that they end with; for each pair a run
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
