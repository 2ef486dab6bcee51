# shellcheck shell=sh
# Acts before a removal (0), not before an upgrade (1). Does not stop luks-agent-boot.service, which would close the volumes: they stay
# open and mounted. The state in /etc/luks-agent/state stays too, because it does not belong to the package.
if [ "$1" -eq 0 ]; then
    systemctl --no-reload disable luks-agent.target luks-agent.service luks-agent-metrics.socket luks-agent-key.socket >/dev/null 2>&1 || :
    if [ -d /run/systemd/system ]; then
        systemctl stop luks-agent-metrics.socket luks-agent-key.socket luks-agent.service >/dev/null 2>&1 || :
    fi
fi
