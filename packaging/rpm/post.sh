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

# the agent refuses a configuration that others may write to, and the next boot would be the first to say so
dir=/etc/luks-agent
for path in "$dir" "$dir/config.toml" "$dir/config.d" "$dir"/config.d/*.toml; do
    if [ -n "$(find -L "$path" -prune ! -type l \( ! -user root -o -perm /022 \) ! \( -type d -perm -1000 \) 2>/dev/null)" ]; then
        echo "luks-agent: the next boot will fail, because others may write to $path; check who changed it, then run:" \
            "chown root '$path'; chmod go-w '$path'" >&2
    fi
done
