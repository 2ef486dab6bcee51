#!/bin/bash
# Runs on a node as root. Sets up what EC2 gives a node, then installs the luks-agent package. Starts no unit of luks-agent: the next boot
# is the node's first boot with luks-agent.
#
#   node.sh INSTANCE_ID KEY_ARN ENDPOINT SERIAL...
set -euo pipefail

instance_id=$1 key_arn=$2 endpoint=$3
shift 3
files=/tmp/provision

# EC2: NVMe disks and instance metadata
install -m 755 /tmp/ec2-nvme.sh /usr/local/sbin/ec2-nvme.sh
install -m 755 "$files/ec2-volume" /usr/local/sbin/ec2-volume
install -m 755 /tmp/fake-aws /usr/local/sbin/fake-aws
install -m 644 "$files/61-ec2-nvme-backing.rules" /etc/udev/rules.d/
install -m 644 "$files"/*.service /etc/systemd/system/
echo "INSTANCE_ID=$instance_id" >/etc/default/imds
# Lists all volumes of the lab, because a volume can move from one node to another. ec2-volume uses only those that are present.
printf '%s\n' "$@" >/etc/ec2-volumes
udevadm control --reload
systemctl daemon-reload
systemctl --quiet enable --now ec2-volumes.service imds.service

# the only settings that a node needs; the region and the credentials come from instance metadata
mkdir -p /etc/luks-agent/config.d
cat >/etc/luks-agent/config.d/lab.toml <<END
[kms]
key_id = "$key_arn"
endpoint_url = "$endpoint"
# LocalStack of the lab, on an isolated network
allow_http = true
END

# the box of box.sh has the dependencies; with another box, the machine has a network
[[ -d /opt/localstack ]] || apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install /tmp/luks-agent.deb </dev/null
systemctl is-enabled luks-agent.target luks-agent.service
