//! The machine: privileges, kernel, library and programs.

use std::fs::OpenOptions;
use std::time::Duration;

use super::super::error::unexpected;
use crate::config::Config;
use crate::error::chain;
use crate::job::{Answer, Host, Job, Workers};
use crate::luks2::Encryption;
use crate::report::{Check, ExitCode};
use crate::storage::cryptsetup::library;
use crate::storage::{FoundTool, dm, find_domain_denied_to_udev, find_restorecon, find_tools};

/// The oldest release of cryptsetup that the agent supports.
const OLDEST_CRYPTSETUP: (u32, u32) = (2, 3);

/// How long the kernel may take to load a cipher.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn checks(config: &Config) -> Vec<Check> {
    let encryption = Encryption { cipher: config.luks.cipher, key_size: config.luks.key_size };
    // opening it makes the kernel load the module, if it is not built in
    let control = OpenOptions::new().read(true).write(true).open("/dev/mapper/control");
    let (device_mapper, cipher) = match control {
        Ok(_) => {
            // first, because it makes the kernel load the target, whose version the other one tells
            let cipher = cipher(encryption).await;
            (crypt_target(), cipher)
        }
        Err(e) => (
            no_device_mapper(format!("cannot open /dev/mapper/control: {e}")),
            Check::not_made("cipher", "there is no device-mapper"),
        ),
    };
    let tools = tools(&find_tools(config.filesystem.kind));
    let selinux = find_restorecon().map(|restorecon| selinux(&restorecon, find_domain_denied_to_udev()));
    [root(), device_mapper, cipher, cryptsetup(), tools].into_iter().chain(selinux).collect()
}

fn root() -> Check {
    if nix::unistd::geteuid().is_root() {
        Check::ok("root", "runs as root")
    } else {
        Check::failure("root", ExitCode::Failed, "does not run as root; other checks fail for that reason")
            .with_remedy("sudo luks-agent doctor")
    }
}

fn no_device_mapper(evidence: String) -> Check {
    Check::failure("device-mapper", ExitCode::Failed, evidence)
        .with_remedy("modprobe dm-crypt; if that fails, install the kernel package that contains the module")
}

fn crypt_target() -> Check {
    match dm::crypt_target() {
        Ok(Some(version)) => Check::ok("device-mapper", format!("target crypt {version}")),
        Ok(None) => no_device_mapper("device-mapper has no target 'crypt'".to_owned()),
        Err(e) => no_device_mapper(chain(e)),
    }
}

/// Loads a table with the cipher, as `provision` does before it asks for a key.
async fn cipher(encryption: Encryption) -> Check {
    const NAME: &str = "cipher";
    let unknown = |why: String| Check::warning(NAME, format!("cannot check {encryption}: {why}"));
    match Workers::new(PATIENCE).run("kernel", Job::Cipher { encryption }, &[]).await {
        Ok(Answer::Cipher { missing: None }) => Check::ok(NAME, format!("the kernel has {encryption}")),
        Ok(Answer::Cipher { missing: Some(missing) }) => {
            let evidence = format!("this kernel cannot encrypt with {encryption}: {}", missing.reason);
            Check::failure(NAME, ExitCode::Failed, evidence).with_remedy(missing.remedy())
        }
        Ok(Answer::Failed { message }) => unknown(message),
        Ok(other) => unknown(unexpected(&other)),
        Err(e) => unknown(chain(e)),
    }
}

fn cryptsetup() -> Check {
    const NAME: &str = "libcryptsetup";
    match library() {
        Some(library) => {
            let (major, minor) = library.release;
            let evidence = format!("{}, of cryptsetup {major}.{minor}", library.file);
            if library.release < OLDEST_CRYPTSETUP {
                return Check::failure(NAME, ExitCode::Failed, evidence)
                    .with_remedy("install libcryptsetup of cryptsetup 2.3.4 or later");
            }
            Check::ok(NAME, evidence)
        }
        None => Check::warning(NAME, "cannot tell its version; the agent needs 2.3.4 or later"),
    }
}

fn tools(tools: &[FoundTool]) -> Check {
    const NAME: &str = "tools";
    let missing: Vec<&FoundTool> = tools.iter().filter(|tool| tool.path.is_none()).collect();
    let list = |texts: Vec<String>| texts.join(", ");
    if missing.is_empty() {
        return Check::ok(NAME, list(tools.iter().flat_map(|t| &t.path).map(|p| p.display().to_string()).collect()));
    }
    let names = list(missing.iter().map(|tool| tool.name.to_owned()).collect());
    let mut packages: Vec<String> = missing.iter().map(|tool| tool.package.to_owned()).collect();
    packages.dedup();
    Check::failure(NAME, ExitCode::Failed, format!("not installed: {names}"))
        .with_remedy(format!("install {}", list(packages)))
}

/// Judges whether the policy lets mappings become ready, and whether new file systems get their labels, on a node where SELinux is on.
fn selinux(restorecon: &FoundTool, denied_to_udev: Option<String>) -> Check {
    const NAME: &str = "selinux";
    if let Some(domain) = denied_to_udev {
        let evidence = format!(
            "the SELinux policy does not let udev's dmsetup (lvm_t) use the semaphores of {domain}: where it is enforcing, no volume is formatted or opened"
        );
        return Check::warning(NAME, evidence).with_remedy(
            "semodule -i /usr/share/selinux/packages/luks-agent.cil; docs/selinux.md says what it allows",
        );
    }
    match &restorecon.path {
        Some(path) => Check::ok(NAME, format!("SELinux is on, and {} sets the labels of new volumes", path.display())),
        None => Check::warning(
            NAME,
            "SELinux is on, but restorecon is not installed: new volumes have no label, and confined services cannot use them",
        )
        .with_remedy(format!("install {}", restorecon.package)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::CheckResult;

    #[test]
    fn volumes_need_semaphores_and_labels_need_a_tool() {
        let tool = |path: Option<&str>| FoundTool {
            name: "restorecon",
            package: "policycoreutils",
            path: path.map(Into::into),
        };
        assert_eq!(selinux(&tool(Some("/usr/sbin/restorecon")), None).result, CheckResult::Ok);
        let missing = selinux(&tool(None), None);
        assert_eq!(missing.result, CheckResult::Warning);
        assert_eq!(missing.remedy.as_deref(), Some("install policycoreutils"));
        let denied = selinux(&tool(None), Some("initrc_t".to_owned()));
        assert!(denied.evidence.contains("the semaphores of initrc_t"), "{}", denied.evidence);
        assert!(denied.remedy.unwrap().starts_with("semodule -i /usr/share/selinux/packages/luks-agent.cil"));
    }

    #[test]
    fn missing_tools_are_named_with_their_packages_once() {
        let tool = |name, package, path: Option<&str>| FoundTool { name, package, path: path.map(Into::into) };
        let found = tool("wipefs", "util-linux", Some("/usr/sbin/wipefs"));
        let check = tools(&[found.clone(), tool("mkfs.xfs", "xfsprogs", None), tool("xfs_growfs", "xfsprogs", None)]);
        assert_eq!(check.result, CheckResult::Failure);
        assert_eq!(check.evidence, "not installed: mkfs.xfs, xfs_growfs");
        assert_eq!(check.remedy.as_deref(), Some("install xfsprogs"));
        assert_eq!(tools(&[found]), Check::ok("tools", "/usr/sbin/wipefs"));
    }
}
