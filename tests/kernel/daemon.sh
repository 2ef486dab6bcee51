# The daemon retries until every volume is open and mounted, whatever prevented it. It leaves a volume closed that somebody closed. It
# starts the target once everything is open and mounted, whoever opened it. There is no udev and no systemd here: no event helps the daemon,
# and a script stands in for systemctl.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

units=$(realpath "$(dirname "$0")/../../systemd")
cat >/usr/local/sbin/systemctl <<END
#!/bin/bash
case "\$*" in
"start luks-agent-provision.service" | "start luks-agent-health.service")
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

start_fake
ext4_volumes '/dev/ubd[bc]' ebs
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

say "the daemon does nothing else"
kill -0 "$daemon"
cat /run/started /run/daemon.log
[[ ! -e /run/unexpected ]] || fail "unexpected calls of systemctl: $(</run/unexpected)"
kill "$daemon"
wait "$daemon"
