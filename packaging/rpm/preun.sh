# shellcheck shell=sh
# Before removal (0), not before an upgrade (1). The volumes stay open and mounted: luks-agent-boot.service is not stopped, which would
# close them, and the state in /etc/luks-agent/state, which is no file of the package, stays too.
if [ "$1" -eq 0 ]; then
    systemctl --no-reload disable luks-agent.target luks-agent.service luks-agent-metrics.socket >/dev/null 2>&1 || :
    if [ -d /run/systemd/system ]; then
        systemctl stop luks-agent-metrics.socket luks-agent.service >/dev/null 2>&1 || :
    fi
fi
