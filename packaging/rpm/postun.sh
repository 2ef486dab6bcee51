# shellcheck shell=sh
# Runs after a removal (0), or after an upgrade has removed the old version's files (1). Restarts only the daemon, if it runs, which
# touches no volume.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    udevadm control --reload >/dev/null 2>&1 || :
    if [ "$1" -ge 1 ]; then
        systemctl try-restart luks-agent.service >/dev/null 2>&1 || :
    fi
fi
# cargo-generate-rpm cannot put directories into a package, so rpm leaves them. That of the configuration goes if nothing is left in it.
if [ "$1" -eq 0 ]; then
    doc=/usr/share/doc/luks-agent
    for dir in "$doc/docs/schema" "$doc/docs" "$doc/examples" "$doc" /usr/share/licenses/luks-agent /etc/luks-agent; do
        rmdir "$dir" 2>/dev/null || :
    done
fi
