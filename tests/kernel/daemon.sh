# The daemon retries until every volume is open and mounted, whatever prevented it. It leaves a volume closed that somebody closed. It
# starts the target once everything is open and mounted, whoever opened it. It has each state of the node audited. There is no udev and no systemd here: no event helps the daemon,
# and a script stands in for systemctl.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

units=$(realpath "$(dirname "$0")/../../systemd")
cat >/usr/local/sbin/systemctl <<END
#!/bin/bash
case "\$*" in
"start luks-agent-provision.service" | "start luks-agent-health.service" | "start luks-agent-audit.service")
    echo "\$2" >>/run/started
    exec "$LUKS_AGENT" \$(sed -n 's,^ExecStart=/usr/sbin/luks-agent ,,p' "$units/\$2") >>"/run/\$2.log" 2>&1 ;;
"is-failed luks-agent-boot.service") grep -qx ActiveState=failed /run/boot ;;
"show --property=ActiveState --property=ExecMainStatus luks-agent-boot.service") cat /run/boot ;;
"start --no-block luks-agent.target" | "start luks-agent.target")
    status=0
    "$LUKS_AGENT" boot >/run/boot.log 2>&1 || status=\$?
    ((status)) && state=failed || state=active
    printf 'ActiveState=%s\nExecMainStatus=%s\n' \$state \$status >/run/boot ;;
*) echo "systemctl \$*" >>/run/unexpected ;;
esac
END
# while /run/busy exists, nothing can be mounted at /data1
cat >/usr/local/sbin/mount <<'END'
#!/bin/bash
[[ ! -e /run/busy || "$*" != */data1* ]] || { echo "busy for a moment" >&2; exit 32; }
exec /usr/bin/mount "$@"
END
chmod 755 /usr/local/sbin/systemctl /usr/local/sbin/mount

reached() { grep -qx ActiveState=active /run/boot; }
mounted() { findmnt -n "$1" >/dev/null; }

# recorded EXPRESSION: whether a Python expression on the volumes in the recorded report is true.
recorded() {
    python3 -c 'import json, sys
report = json.load(open("/run/luks-agent/audit.json"))
volumes = [disk for disk in report["disks"] if disk["role"] == "ebs"]
sys.exit(not eval(sys.argv[1]))' "$1"
}
metric() { grep -qx "luks_agent_$1" /run/metrics/luks-agent.prom; }

start_fake
ext4_volumes '/dev/ubd[bc]' ebs
ssm=/var/lib/amazon/ssm/i-1234567890abcdef0
mkdir -p "${CONFIG%/*}/config.d" /run/metrics "$ssm"
cat >"${CONFIG%/*}/config.d/audit.toml" <<END
[audit]
interval = "24h"
ssm_inventory = true
[metrics]
textfile = "/run/metrics/luks-agent.prom"
END
expect_agent 0 provision
agent status --json >/run/report
first=$(report 'next(row["device"] for row in rows.values() if row["mount_point"] == "/data")')
expect_agent 0 close
# as after a reboot
rm -f /run/luks-agent/*

say "the boot fails, and so does the daemon's first run"
touch /run/busy
systemctl start luks-agent.target
cat /run/boot.log
run_expect 1 reached
"$LUKS_AGENT" daemon >/run/daemon.log 2>&1 &
daemon=$!
wait_for 60 test -s /run/luks-agent/provision.json
expect_agent 0 close "$first"

say "the daemon retries without another event, and a closed volume stays closed"
rm /run/busy
wait_for 120 mounted /data1
wait_for 60 grep -q "closed with 'luks-agent close'" /run/luks-agent-provision.service.log
run_expect 1 mounted /data
run_expect 1 reached

say "somebody opens the rest, and the daemon starts the target"
expect_agent 0 unlock
mounted /data
wait_for 120 reached

say "the node was audited, and is audited again when a volume is closed"
wait_for 120 recorded 'sorted(disk["mounts"] for disk in volumes) == [["/data"], ["/data1"]]'
wait_for 60 metric "audit_compliant 1"
metric "audit_disks_in_clear 0"
grep -q '^luks_agent_audit_oldest_proof_timestamp_seconds 1' /run/metrics/luks-agent.prom
grep -q '^luks_agent_last_audit_timestamp_seconds 1' /run/metrics/luks-agent.prom
expect_agent 0 audit convert --format inventory /run/luks-agent/audit.json
cmp /run/report "$ssm/inventory/custom/luks-agent.json"
expect_agent 0 close "$first"
wait_for 120 recorded '[disk["mounts"] for disk in volumes if disk["evidence"] is None] == [[]]'

say "an audit without a report is told"
mkdir /run/nothing
printf '[audit]\nreport = "/run/nothing"\n' >"${CONFIG%/*}/config.d/nowhere.toml"
expect_agent 2 audit --record
assert_said "cannot write the report to /run/nothing: it is a directory"
rm "${CONFIG%/*}/config.d/nowhere.toml"

say "the daemon does nothing else"
kill -0 "$daemon"
cat /run/started /run/daemon.log /run/luks-agent-audit.service.log
[[ ! -e /run/unexpected ]] || fail "unexpected calls of systemctl: $(</run/unexpected)"
kill "$daemon"
wait "$daemon"
