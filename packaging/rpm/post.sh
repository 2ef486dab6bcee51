# shellcheck shell=sh
# Runs after an installation (1) or upgrade (2). The first installation starts nothing: the disks are encrypted at the next boot, or when
# somebody starts the units. At an upgrade, postun.sh of the old package restarts the daemon after the old files are removed.
if [ "$1" -eq 1 ]; then
    systemctl --no-reload preset luks-agent.target luks-agent.service luks-agent-metrics.socket luks-agent-key.socket >/dev/null 2>&1 || :
fi
if [ -d /run/systemd/system ]; then
    systemd-tmpfiles --create /usr/lib/tmpfiles.d/luks-agent.conf || :
    udevadm control --reload >/dev/null 2>&1 || :
    systemctl daemon-reload >/dev/null 2>&1 || :
fi

# The agent refuses a configuration that other users may write to. Without this check, the first error would come at the next boot.
dir=/etc/luks-agent
for path in "$dir" "$dir/config.toml" "$dir/config.d" "$dir"/config.d/*.toml; do
    if [ -n "$(find -L "$path" -prune ! -type l \( ! -user root -o -perm /022 \) ! \( -type d -perm -1000 \) 2>/dev/null)" ]; then
        echo "luks-agent: the next boot will fail, because others may write to $path; check who changed it, then run:" \
            "chown root '$path'; chmod go-w '$path'" >&2
    fi
done
