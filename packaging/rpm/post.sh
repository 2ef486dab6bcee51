# shellcheck shell=sh
# After installation (1) or upgrade (2). Nothing is started at the first installation: disks are encrypted at the next boot, or when
# somebody says so. At an upgrade the daemon is restarted by the old package's postun.sh, when the old files are gone.
if [ "$1" -eq 1 ]; then
    systemctl --no-reload preset luks-agent.target luks-agent.service luks-agent-metrics.socket >/dev/null 2>&1 || :
fi
if [ -d /run/systemd/system ]; then
    systemd-tmpfiles --create /usr/lib/tmpfiles.d/luks-agent.conf || :
    udevadm control --reload >/dev/null 2>&1 || :
    systemctl daemon-reload >/dev/null 2>&1 || :
fi
