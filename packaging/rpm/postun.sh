# shellcheck shell=sh
# After removal (0), or when the old version's files are gone at an upgrade (1): only the daemon is restarted, and if it runs, which
# touches no volume.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    udevadm control --reload >/dev/null 2>&1 || :
    if [ "$1" -ge 1 ]; then
        systemctl try-restart luks-agent.service >/dev/null 2>&1 || :
    fi
fi
