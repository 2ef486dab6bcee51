//! The agent's units on a machine, installed as docs/service.md says.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::qemu::Machine;

/// The files of `systemd/`.
pub fn files() -> Vec<PathBuf> {
    let files = fs::read_dir(super::project_dir().join("systemd")).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

/// Types the commands of docs/service.md, and enables what the package's preset says. The machine has [`files`] for tools.
pub fn install(vm: &mut Machine) {
    let documented = fs::read_to_string(super::project_dir().join("docs/service.md")).unwrap();
    let (_, commands) = documented.split_once("<!-- install -->\n```sh\n").unwrap();
    let (commands, _) = commands.split_once("```\n<!-- end of install -->").unwrap();
    vm.ok(&commands.replace("target/release/", "/opt/test/").replace(" systemd/", " /opt/test/"));
    vm.ok("install -m 644 /opt/test/luks-agent.preset /usr/lib/systemd/system-preset/80-luks-agent.preset
         systemctl --quiet preset luks-agent.target luks-agent.service luks-agent-metrics.socket");
}

/// Waits in the guest: a question from outside takes long.
pub fn wait(vm: &mut Machine, what: &str, condition: &str) {
    let limit = Duration::from_secs(600);
    let command = format!(
        "end=$((SECONDS + {})); until {{ {condition}; }} >/dev/null 2>&1; do ((SECONDS < end)) || exit 1; sleep 0.2; done",
        limit.as_secs()
    );
    let waited = vm.run_with(&command, b"", limit + Duration::from_secs(30));
    if waited.status != 0 {
        let about =
            vm.run("systemctl --no-pager status 'luks-agent*' consumer.service; journalctl -b --no-pager -n 80 -t luks-agent -t systemd -t kernel");
        panic!("{what}: not within {limit:?}: {condition}\n{}{}", about.stdout, about.stderr);
    }
}

/// No work of the daemon is under way, or about to begin.
pub fn idle(vm: &mut Machine) {
    let none = "! systemctl list-jobs --no-legend | grep -q luks-agent && \
                ! systemctl is-active luks-agent-{provision,health,audit}.service | grep -q activating";
    wait(vm, "the daemon to have nothing to do", &format!("{none} && udevadm settle && sleep 2 && {none}"));
}
