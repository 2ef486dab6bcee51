#!/bin/bash
# Runs on the machine kms as root. Sets up LocalStack's KMS as a service.
#
#   kms.sh KEY_ID
set -euo pipefail

key_id=$1
files=/tmp/provision

# the box of box.sh has LocalStack; with another box, the machine has a network
if [[ ! -x /opt/localstack/bin/python ]]; then
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends python3 python3-venv
    python3 -m venv /opt/localstack
    /opt/localstack/bin/pip install -qq --no-input --requirement /tmp/localstack-requirements.txt
fi

# LocalStack loses its keys at a restart, but can create a key with a given id and key material. The material is made here once, and stays
# on this machine.
install -d -m 700 /var/lib/localstack-key
[[ -e /var/lib/localstack-key/material ]] || (umask 077 && head -c 32 /dev/urandom | base64 -w 0 >/var/lib/localstack-key/material)
echo "LOCALSTACK_KEY_ID=$key_id" >/etc/default/localstack-key

# the AWS CLI of the virtual environment
install -m 755 "$files/aws" /usr/local/bin/aws
install -m 755 "$files/localstack-key" /usr/local/sbin/localstack-key
install -m 644 "$files"/*.service /etc/systemd/system/
systemctl daemon-reload
systemctl --quiet enable localstack.service localstack-key.service
systemctl restart localstack.service
systemctl start localstack-key.service
aws kms describe-key --key-id alias/luks-agent --query 'KeyMetadata.[Arn,KeyState]' --output text
