# Helpers for the scenarios that run the agent. Sourced after lib.sh.
# shellcheck shell=bash

CONFIG=/etc/luks-agent/config.toml
STATE=/etc/luks-agent/state/state.json

# agent ARGS...: the agent under test.
agent() { "${LUKS_AGENT:?}" "$@"; }

# configure KEY_ARN: the four data disks of the node, which no EC2 rule recognises, as two volumes of each role.
configure() {
    mkdir -p "${CONFIG%/*}"
    cat >"$CONFIG" <<END
[kms]
key_id = "$1"
deadline = "${KMS_DEADLINE:-30s}"

[volumes]
deadline = "${VOLUME_DEADLINE:-2m}"

# not /mnt, which is the build machine's here, and may not be empty there
[filesystem]
mount_base = "/data"

[[volumes.match]]
path = "/dev/ubd[bc]"
role = "instance-store"

[[volumes.match]]
path = "/dev/ubd[de]"
role = "ebs"
END
}

# credentials: what the fake endpoint and LocalStack take from anybody.
credentials() {
    export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
}

# report FILTER: a value of the JSON report in /run/report, by a Python expression on `report` and `rows`.
report() {
    python3 -c 'import json, sys
report = json.load(open("/run/report"))
rows = {row["device"]: row for row in report.get("rows", [])}
print(eval(sys.argv[1]))' "$1"
}

# requests LOG FILTER: how many requests in the log of the fake endpoint satisfy a Python expression on `r`.
requests() {
    python3 -c 'import json, sys
print(sum(1 for r in map(json.loads, open(sys.argv[1])) if eval(sys.argv[2])))' "$1" "$2"
}
