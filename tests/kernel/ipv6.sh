# A node that has no IPv4 address at all, not even 127.0.0.1: IMDS is at its IPv6 address, KMS and STS at their dual-stack endpoints.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

ip address add fd00:ec2::254/128 dev lo nodad
ip address add fd00:ec2::100/128 dev lo nodad
ip -4 address flush dev lo
assert_eq "$(ip -4 address show)" "" "the IPv4 addresses"
if (exec 3<>/dev/tcp/127.0.0.1/1) 2>/dev/null; then fail "127.0.0.1 can be reached"; fi
echo "fd00:ec2::100 kms.us-east-1.api.aws sts.us-east-1.api.aws" >>/etc/hosts

"${FAKE_AWS:?}" --seed ipv6 --log /run/requests --listen '[fd00:ec2::254]:80' --tls-listen '[fd00:ec2::100]:443' --tls-ca-out /run/ca.pem \
    --tls-name kms.us-east-1.api.aws --tls-name sts.us-east-1.api.aws --port-file /run/ports >/run/fake-aws.out 2>&1 &
wait_for 30 test -s /run/ports
KEY_ARN=$(sed -n 's/.*KMS key \(arn:[^ ,]*\).*/\1/p' /run/fake-aws.out | head -n 1)
export SSL_CERT_FILE=/run/ca.pem
ext4_volumes '/dev/ubd[bc]' ebs
sed -i 's/^key_id/dual_stack = true\n&/' "$CONFIG"

say "IMDS over IPv4 cannot be reached"
export AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv4
expect_agent 4 doctor
assert_said "no answer from the instance metadata service" 'on a node without IPv4, set imds.endpoint_mode = "ipv6"' "no AWS credentials"
unset AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE

say "the variable that every AWS tool knows"
AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6 expect_agent 0 doctor
assert_said "instance i-1234567890abcdef0, role luks-agent-node"

say "the key in the configuration, which a unit has too"
printf '[imds]\nendpoint_mode = "ipv6"\n' >>"$CONFIG"
expect_agent 0 doctor
assert_said "instance i-1234567890abcdef0" "assumed-role/luks-agent-node/i-1234567890abcdef0" "$KEY_ARN: customer managed" "0 failed"
as_unit luks-agent-boot.service
assert_said "2 formatted"
echo kept >/data/file
as_unit luks-agent-boot.service ExecStop
findmnt /data && fail "/data is still mounted"
expect_agent 0 unlock
assert_eq "$(</data/file)" kept "the file on the volume"
as_unit luks-agent-health.service

assert_eq "$(requests /run/requests 'r["operation"] == "GenerateDataKey" and not r["dry_run"]')" 1 "GenerateDataKey requests"
assert_eq "$(requests /run/requests 'not r["tls"] and not r["operation"].startswith("imds:")')" 0 "requests other than to IMDS without TLS"
