# Key material exists only where and while it is used; hygiene.py checks that.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# with TLS, as KMS uses it
port_file=/run/fake-tls.port
credentials
"${FAKE_AWS:?}" --seed hygiene --tls-listen 127.0.0.1:0 --tls-ca-out /run/ca.pem --port-file "$port_file" >/run/fake-aws.out 2>&1 &
export FAKE_AWS_PID=$!
wait_for 30 test -s "$port_file"
export AWS_ENDPOINT_URL=https://127.0.0.1:$(<"$port_file") SSL_CERT_FILE=/run/ca.pem AWS_EC2_METADATA_DISABLED=true
KEY_ARN=arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab
# slow enough to stop a process while it reads or writes
modprobe dm-delay
dmsetup create slow --table "0 $(blockdev --getsz /dev/ubdb) delay /dev/ubdb 0 20 /dev/ubdb 0 40"
ext4_volumes /dev/mapper/slow ebs

say "tools that wait for a signal of the test"
mkdir -p /run/hold
for tool in mkfs.ext4 mount umount; do
    real=$(command -v "$tool")
    cat >"/usr/local/sbin/$tool" <<END
#!/bin/bash
touch /run/hold/at-$tool
until [[ -e /run/hold/go-$tool ]]; do sleep 0.05; done
exec $real "\$@"
END
    chmod +x "/usr/local/sbin/$tool"
done

PATH=/usr/sbin:/usr/bin:/sbin:/bin python3 "$(dirname "$0")/hygiene.py" "$KEY_ARN"
