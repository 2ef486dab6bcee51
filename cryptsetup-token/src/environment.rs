//! The environment of the agent that the plug-in starts.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Programs that a profile names to get credentials (`credential_process`) are looked up here and nowhere else.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What the agent gets from the environment beside `AWS_*`: where the profiles are, the way to the network, and which certificates to
/// trust.
const PASSED: [&str; 11] = [
    "HOME",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Returns the environment of the agent.
///
/// On a node, credentials come from IMDS, and little is needed. On an operator's machine they are where every AWS tool has them:
/// `AWS_PROFILE`, `AWS_ACCESS_KEY_ID`, `AWS_ROLE_ARN`, ... name them or are them, and `AWS_ENDPOINT_URL` and others say how
/// to reach KMS, so all of `AWS_*` passes. Nothing else does: no `LD_PRELOAD`, nothing that changes how programs are found or how the
/// agent logs.
///
/// A process with more rights than its user has a user who chooses the environment and must not choose who is asked for the key, so
/// nothing of it passes there, as with `secure_getenv`.
pub(crate) fn environment() -> Vec<(OsString, OsString)> {
    // SAFETY: reads the auxiliary vector of this process.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    chosen(std::env::vars_os(), secure)
}

fn chosen(all: impl Iterator<Item = (OsString, OsString)>, secure: bool) -> Vec<(OsString, OsString)> {
    let passed = all.filter(|(name, _)| !secure && passes(name));
    passed.chain([("PATH".into(), PATH.into())]).collect()
}

fn passes(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"AWS_") || PASSED.iter().any(|passed| name == *passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(secure: bool) -> Vec<String> {
        let all = [
            "AWS_PROFILE",
            "HOME",
            "LD_PRELOAD",
            "PATH",
            "JOURNAL_STREAM",
            "MY_AWS_KEY",
            "https_proxy",
            "NOTIFY_SOCKET",
        ];
        let all = all.into_iter().map(|name| (name.into(), "/home/eve/bin".into()));
        chosen(all, secure).into_iter().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect()
    }

    #[test]
    fn credentials_pass_and_nothing_that_changes_programs() {
        let path = format!("PATH={PATH}");
        let passed = ["AWS_PROFILE=/home/eve/bin", "HOME=/home/eve/bin", "https_proxy=/home/eve/bin", &path];
        assert_eq!(names(false), passed);
    }

    #[test]
    fn nothing_passes_in_a_setuid_program() {
        assert_eq!(names(true), [format!("PATH={PATH}")]);
    }
}
