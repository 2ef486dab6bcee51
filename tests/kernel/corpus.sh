# A provision with the default configuration of a node whose disks are ubdb to ubdo: first as EBS volumes, then as instance store
# volumes. ubdp is blank, so that it is seen that this node does format.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake
for role in ebs instance-store; do
    config "$KEY_ARN" <<TOML
[filesystem]
type = "ext4"
mount_base = "/data"
[[volumes.match]]
path = "/dev/ubdp"
role = "ebs"
[[volumes.match]]
path = "/dev/ubd[b-o]"
role = "$role"
TOML
    status=0
    agent provision --json >/run/report 2>/run/stderr || status=$?
    cat /run/stderr
    say "$role: exit status $status"
    printf 'report %s %s\n' "$role" "$(python3 -c 'import json; print(json.dumps(json.load(open("/run/report"))))')"
done
