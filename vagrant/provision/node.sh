#!/bin/bash
# On a node, as root: what EC2 gives a node, then luks-agent from its package. Nothing is started: the next boot is the node's
# first with luks-agent.
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
# all of the lab's, as a volume can be detached from one node and attached to another; only those that are there are used
printf '%s\n' "$@" >/etc/ec2-volumes
udevadm control --reload
systemctl daemon-reload
systemctl --quiet enable --now ec2-volumes.service imds.service

# all that a node needs to be told; the region and credentials come from the instance metadata
mkdir -p /etc/luks-agent/config.d
cat >/etc/luks-agent/config.d/lab.toml <<END
[kms]
key_id = "$key_arn"
endpoint_url = "$endpoint"
# the lab's LocalStack, on a network of its own
allow_http = true
END

# what it depends on is in the box of box.sh; another box has a network
[[ -d /opt/localstack ]] || apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install /tmp/luks-agent.deb </dev/null
systemctl is-enabled luks-agent.target luks-agent.service
