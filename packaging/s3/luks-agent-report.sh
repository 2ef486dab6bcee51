#!/bin/bash
# Uploads the audit report of this node to S3: luks-agent-report BUCKET
#
#   luks-agent/reports/day=2026-01-02/NODE.json   as it is, for 'luks-agent audit fleet' and for evidence
#   luks-agent/rows/day=2026-01-02/NODE.json      a line for each disk, for Athena
#
# A later upload of the same day replaces the earlier one. Needs root and the AWS CLI.
set -euo pipefail

die() {
    echo "luks-agent-report: $*" >&2
    exit 1
}

[[ $# == 1 && $1 ]] || die "usage: luks-agent-report BUCKET"
command -v aws >/dev/null || die "the AWS CLI is not installed: no 'aws' in $PATH"
bucket=$1
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT

# its exit code says what is on the disks; it says itself why there is no report
luks-agent audit --output "$dir/reports.json" >/dev/null || true
[[ -s $dir/reports.json ]] || die "'luks-agent audit' made no report; nothing was uploaded"
# of a signed report, the rows are made of what is in the envelope: this node made it
payload=$(sed -n 's/^{"payload":"\([^"]*\)".*/\1/p' "$dir/reports.json")
if [[ $payload ]]; then base64 -d <<<"$payload"; else cat "$dir/reports.json"; fi |
    luks-agent audit convert --format rows - >"$dir/rows.json" || die "cannot convert the report; nothing was uploaded"

# a host name is not unique, and a machine ID is not if the image of the nodes had one
node=$(cat /var/lib/cloud/data/instance-id 2>/dev/null) || node=$(hostname)$(sed 's/^/-/' /etc/machine-id 2>/dev/null || true)
day=$(date -u +%F)
for kind in reports rows; do
    object=s3://$bucket/luks-agent/$kind/day=$day/$node.json
    said=$(aws s3 cp --only-show-errors "$dir/$kind.json" "$object" 2>&1) || {
        said=${said:-no reason given}
        die "cannot upload $object: ${said//$'\n'/ }"
    }
done
