//! With shell scripts in place of the agent.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard};

use super::*;

const TOKEN: &[u8] = br#"{"type":"luks-agent-awskms","key_arn":"arn"}"#;

/// One test changes how this process treats SIGCHLD, and each has a child.
static CHILDREN: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    CHILDREN.lock().unwrap_or_else(|e| e.into_inner())
}

fn shell(script: &str) -> Agent {
    Agent {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        deadline: Duration::from_secs(60),
    }
}

fn unwrap(script: &str) -> Result<Vec<u8>, Failure> {
    let _alone = alone();
    shell(script).unwrap(TOKEN).map(|secret| secret.bytes().to_vec())
}

/// Returns a line of the `/proc/PID/status` of a program that is started as the agent is. Not by way of a shell, which empties its signal
/// mask and treats SIGCHLD as it likes.
fn status_of_agent(name: &str) -> String {
    let arguments = [name, "/proc/self/status"].map(OsString::from).into();
    let said = Agent { program: "/bin/grep".into(), arguments, ..shell("") }.unwrap(TOKEN).unwrap();
    String::from_utf8(said.bytes().to_vec()).unwrap()
}

fn unavailable(line: &str) -> Result<Vec<u8>, Failure> {
    Err(Failure::Unavailable(vec![line.to_owned()]))
}

#[test]
fn the_token_goes_in_and_the_passphrase_comes_out() {
    assert_eq!(unwrap("cat").unwrap(), TOKEN);
    assert_eq!(unwrap("printf one; sleep 0.1; printf two; echo noise >&2").unwrap(), b"onetwo");
}

#[test]
fn the_exit_code_decides_whether_another_token_can_help() {
    let [why, bell] = ["luks-agent: why", "luks-agent: why\\u{7}"];
    assert_eq!(unwrap("echo luks-agent: why >&2; exit 1"), Err(Failure::Token(vec![why.to_owned()])));
    assert_eq!(unwrap("echo luks-agent: why >&2; exit 2"), unavailable(why));
    assert_eq!(unwrap("printf 'luks-agent: why\\007\\n' >&2; exit 4"), unavailable(bell));
    assert_eq!(unwrap("printf part; exit 4"), unavailable("luks-agent: /bin/sh ended with exit status: 4"));
    assert_eq!(unwrap("exit 0"), unavailable("luks-agent: /bin/sh ended with exit status: 0"));
    let killed = unwrap("kill -9 $$");
    assert_eq!(killed, unavailable("luks-agent: /bin/sh ended with signal: 9 (SIGKILL)"));
    let errno = |failure: Failure| failure.errno();
    assert_eq!(errno(Failure::token("")), -libc::EINVAL);
    assert_eq!(errno(Failure::unavailable("")), -libc::EAGAIN);
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    let _alone = alone();
    let agent = Agent { program: "/nonexistent/luks-agent".into(), ..shell("") };
    let said = "luks-agent: cannot start /nonexistent/luks-agent: No such file or directory (os error 2)";
    assert_eq!(agent.unwrap(TOKEN).unwrap_err(), Failure::Unavailable(vec![said.to_owned()]));
}

#[test]
fn starts_nothing_for_a_token_that_is_too_long_or_not_ours() {
    let agent = Agent { program: "/nonexistent/luks-agent".into(), ..shell("") };
    let long = format!(r#"{{"type":"luks-agent-awskms","x":"{}"}}"#, "a".repeat(MOST_JSON));
    for json in [long.as_bytes(), br#"{"type":"systemd-tpm2"}"#, b"", b"\0"] {
        assert!(matches!(agent.unwrap(json), Err(Failure::Token(_))));
    }
}

#[test]
fn an_agent_that_never_ends_is_killed_and_waited_for() {
    let _alone = alone();
    // both pipes closed, one open, both open
    for script in [
        "exec >&- 2>&-; echo $$ >PID; exec sleep 600",
        "exec 2>&-; echo $$ >PID; exec sleep 600",
        "echo $$ >PID; exec sleep 600",
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = script.replace("PID", file.path().to_str().unwrap());
        let agent = Agent { deadline: Duration::from_secs(1), ..shell(&script) };
        let failure = agent.unwrap(TOKEN).unwrap_err();
        assert_eq!(failure.errno(), -libc::EAGAIN, "{script}");
        let pid = fs::read_to_string(file.path()).unwrap();
        assert!(!pid.is_empty() && !fs::exists(format!("/proc/{}", pid.trim())).unwrap(), "{script}");
    }
}

#[test]
fn reads_no_more_than_a_passphrase_can_have() {
    let failure = unwrap("exec cat /dev/zero").unwrap_err();
    assert!(failure.lines().any(|line| line.contains("more than 512 bytes")), "{failure:?}");
    // the messages are cut, and nobody waits for somebody to read them
    let failure = unwrap("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 4").unwrap_err();
    assert_eq!(failure.lines().map(str::len).collect::<Vec<_>>(), [4096]);
}

#[test]
fn the_agent_gets_no_file_of_the_program_and_no_blocked_signal() {
    let file = tempfile::tempfile().unwrap();
    // SAFETY: system calls on a descriptor of this test.
    let inherited = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 100) };
    assert!(inherited >= 100);
    // the last is that of `ls` itself
    let open = String::from_utf8(unwrap("ls /proc/self/fd").unwrap()).unwrap();
    assert_eq!(open.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    // SAFETY: as above.
    unsafe { libc::close(inherited) };
    let _alone = alone();
    // what a program may block while it loads the plug-in; the children of a thread inherit it
    // SAFETY: `sigset_t` is made of integers.
    let mut blocked = unsafe { std::mem::zeroed() };
    for signal in [libc::SIGTERM, libc::SIGCHLD] {
        // SAFETY: `blocked` can be written to.
        unsafe { libc::sigaddset(&raw mut blocked, signal) };
    }
    // SAFETY: changes the mask of this thread, which ends with the test.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut()) };
    assert_eq!(status_of_agent("SigBlk"), "SigBlk:\t0000000000000000\n");
    // and the program has its own mask again
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(status.contains("SigBlk:\t0000000000014000\n"), "{status}");
}

#[test]
fn the_environment_is_the_one_that_was_chosen() {
    let said = String::from_utf8(unwrap("exec env").unwrap()).unwrap();
    let names: Vec<&str> = said.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(
        names.iter().filter(|name| !["PATH", "PWD", "_", "SHLVL", "OLDPWD"].contains(name)).count(),
        0,
        "{said}"
    );
}

#[test]
fn a_program_that_ignores_its_children_gets_the_passphrase() {
    let _alone = alone();
    // SAFETY: the other tests wait for this one.
    let before = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let said = status_of_agent("SigIgn");
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGCHLD, before) };
    // the agent does not ignore its own
    let ignored = said.trim().rsplit('\t').next().and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap();
    assert_eq!(ignored & (1 << (libc::SIGCHLD - 1)), 0, "{said}");
}
