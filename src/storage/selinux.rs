//! SELinux labels of what the agent makes: mount points, and the roots of new file systems.
//!
//! A new file system has no labels, so its root is `unlabeled_t`, which no confined service may use. `restorecon` gives it the label that
//! the policy has for the path.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::tool::{FoundTool, Tool, ToolError, require, run};
use crate::error::chain;

const RESTORECON: Tool = Tool { name: "restorecon", package: "policycoreutils" };

const SELINUXFS: &str = "/sys/fs/selinux";

/// The type of a file without a label, or with one that the policy does not know.
const UNLABELED: &str = "unlabeled_t";

/// A label that could not be set.
#[derive(Debug, thiserror::Error)]
enum LabelError {
    /// `restorecon` failed or is not installed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// `restorecon` has left it without a label.
    #[error(
        "the policy has no label for this path; set one with 'semanage fcontext', or mount with the option context="
    )]
    NotInPolicy,
}

/// Returns whether SELinux is on, enforcing or permissive.
fn is_on() -> bool {
    at("enforce").exists()
}

/// Returns where `restorecon` is; `None` if SELinux is off and nothing needs it.
pub fn find_restorecon() -> Option<FoundTool> {
    is_on().then(|| RESTORECON.into())
}

/// Returns the domain of this process if the policy denies its semaphores to udev's `dmsetup`: libdevmapper would wait for udev until the
/// agent gives up. Returns `None` also if that cannot be found out.
pub fn find_domain_denied_to_udev() -> Option<String> {
    let own = fs::read_to_string("/proc/self/attr/current").ok()?;
    let own = own.trim_end_matches(['\0', '\n']);
    let class = fs::read_to_string(at("class/sem/index")).ok()?;
    let permission: u32 = fs::read_to_string(at("class/sem/perms/associate")).ok()?.trim().parse().ok()?;
    let mut access = OpenOptions::new().read(true).write(true).open(at("access")).ok()?;
    access.write_all(format!("{} {own} {}", label_of_dmsetup(own), class.trim()).as_bytes()).ok()?;
    let mut answer = [0; 256];
    let length = access.read(&mut answer).ok()?;
    let is_allowed = is_allowed(std::str::from_utf8(&answer[..length]).ok()?, permission)?;
    if is_allowed { None } else { own.split(':').nth(2).map(str::to_owned) }
}

fn at(name: &str) -> PathBuf {
    Path::new(SELINUXFS).join(name)
}

/// Returns the label of what udev runs, in a policy with levels if this process has one.
fn label_of_dmsetup(own: &str) -> &'static str {
    if own.split(':').count() > 3 { "system_u:system_r:lvm_t:s0" } else { "system_u:system_r:lvm_t" }
}

/// Reads the kernel's answer: hexadecimal numbers, of which the first has a bit for each permission, which are numbered from 1.
fn is_allowed(answer: &str, permission: u32) -> Option<bool> {
    let allowed = u32::from_str_radix(answer.split_whitespace().next()?, 16).ok()?;
    Some(allowed & 1_u32.checked_shl(permission.checked_sub(1)?)? != 0)
}

/// Gives a directory that the agent has just made the label that the policy has for its path, if SELinux is on.
///
/// Returns a warning if that fails: a volume without labels is better than no volume.
pub(super) fn label_new_directory(path: &Path) -> Option<String> {
    if is_on() { warning(path, restore(&[path.to_owned()])) } else { None }
}

/// Gives the root of a mounted file system the label that the policy has for its path, if SELinux is on and the root has none. Also
/// labels the only other thing that a new file system has: `lost+found` of ext4.
///
/// A label that somebody has set stays. With the mount option `context=`, the root has that label. What was interrupted before this, or
/// made without SELinux, gets its label at its next mount.
///
/// Returns a warning if that fails.
pub(super) fn label_root(path: &Path) -> Option<String> {
    if !is_on() || !needs_label(&label(path)) {
        return None;
    }
    let labeled = restore(&with_lost_found(path)).and_then(|()| {
        // restorecon succeeds without doing anything if the policy says <<none>>
        if needs_label(&label(path)) { Err(LabelError::NotInPolicy) } else { Ok(()) }
    });
    warning(path, labeled)
}

fn warning(path: &Path, labeled: Result<(), LabelError>) -> Option<String> {
    let remedy = |e| {
        let path = path.display();
        format!(
            "cannot set the SELinux label of {path}, so confined services may not be able to use it: {}; solve that, then run 'restorecon -F {path}'",
            chain(e)
        )
    };
    labeled.err().map(remedy)
}

fn with_lost_found(root: &Path) -> Vec<PathBuf> {
    let lost_found = root.join("lost+found");
    let exists = lost_found.exists();
    [root.to_owned()].into_iter().chain(exists.then_some(lost_found)).collect()
}

/// Sets whole labels, with user and role, not only the type.
fn restore(paths: &[PathBuf]) -> Result<(), LabelError> {
    require([RESTORECON])?;
    let args: Vec<&OsStr> = ["-F".as_ref()].into_iter().chain(paths.iter().map(|path| path.as_os_str())).collect();
    run(RESTORECON.name, &args)?;
    Ok(())
}

/// Returns the label of a file, as the kernel applies it.
fn label(path: &Path) -> Result<String, Errno> {
    let mut label = [0; 4096];
    let length = rustix::fs::lgetxattr(path, "security.selinux", &mut label)?;
    Ok(String::from_utf8_lossy(&label[..length]).trim_end_matches('\0').to_owned())
}

/// Returns whether a root has no label. A label is `user:role:type`, and a level after it if the policy has levels.
fn needs_label(label: &Result<String, Errno>) -> bool {
    match label {
        Ok(label) => label.split(':').nth(2) == Some(UNLABELED),
        // other errors: the file system has no labels
        Err(e) => *e == Errno::NODATA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_root_without_a_label_needs_one() {
        for (label, needs) in [
            (Ok("system_u:object_r:unlabeled_t:s0"), true),
            (Ok("system_u:object_r:unlabeled_t"), true),
            (Err(Errno::NODATA), true),
            (Ok("system_u:object_r:mnt_t:s0"), false),
            // an administrator's choice
            (Ok("unconfined_u:object_r:mysqld_db_t:s0:c1,c2"), false),
            (Ok("unlabeled_t:object_r:default_t:s0"), false),
            (Ok(""), false),
            (Err(Errno::NOTSUP), false),
            (Err(Errno::ACCESS), false),
        ] {
            assert_eq!(needs_label(&label.map(str::to_owned)), needs, "{label:?}");
        }
    }

    #[test]
    fn the_kernels_answer_has_a_bit_for_each_permission() {
        for (answer, permission, expected) in [
            ("1ff ffffffff 0 ffffffff 7 0", 9, Some(true)),
            ("ff ffffffff 0 ffffffff 7 0", 9, Some(false)),
            ("0 ffffffff 0 ffffffff 7 0", 1, Some(false)),
            ("1 ffffffff 0 ffffffff 7 0", 0, None),
            ("1 ffffffff 0 ffffffff 7 0", 33, None),
            ("", 1, None),
            ("denied", 1, None),
        ] {
            assert_eq!(is_allowed(answer, permission), expected, "{answer:?} {permission}");
        }
    }

    #[test]
    fn udev_has_a_level_where_the_policy_has_levels() {
        assert_eq!(label_of_dmsetup("u:r:t:s0-s0:c0.c1023"), "system_u:system_r:lvm_t:s0");
        assert_eq!(label_of_dmsetup("u:r:t"), "system_u:system_r:lvm_t");
    }

    #[test]
    fn lost_found_is_labeled_with_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(with_lost_found(root), [root]);
        fs::create_dir(root.join("lost+found")).unwrap();
        assert_eq!(with_lost_found(root), [root.to_owned(), root.join("lost+found")]);
    }

    #[test]
    fn a_failure_is_a_warning_with_its_remedy() {
        let at = Path::new("/var/lib/x");
        assert_eq!(warning(at, Ok(())), None);
        let missing = ToolError::NotInstalled { tool: RESTORECON.name, package: RESTORECON.package };
        let text = warning(at, Err(missing.into())).unwrap();
        assert!(text.starts_with("cannot set the SELinux label of /var/lib/x, "), "{text}");
        assert!(text.contains("'restorecon' is not installed: install package policycoreutils"), "{text}");
        assert!(text.ends_with("; solve that, then run 'restorecon -F /var/lib/x'"), "{text}");
        assert!(warning(at, Err(LabelError::NotInPolicy)).unwrap().contains("context="));
    }
}
