//! Starts the agent from inside another program, whose signals and files are not ours.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::mem::zeroed;
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::agent::Agent;

/// Up to which descriptor files are kept from the agent on kernels before 5.11.
const MANY_FILES: libc::c_int = 4096;

impl Agent {
    /// Starts the agent with the token on its standard input.
    pub(crate) fn spawn(&self, json: &[u8]) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(in_memory(json)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: `prepare` makes system calls only, which is all that a child of a process with threads may do.
        unsafe { command.pre_exec(prepare) };
        // no handler of the program runs in the child before `prepare`
        let before = set_mask(&signals(libc::sigfillset));
        let child = command.spawn();
        set_mask(&before);
        child
    }
}

/// Returns the set of signals that `fill` makes.
fn signals(fill: unsafe extern "C" fn(*mut libc::sigset_t) -> libc::c_int) -> libc::sigset_t {
    // SAFETY: `sigset_t` is made of integers.
    let mut set = unsafe { zeroed() };
    // SAFETY: `set` can be written to.
    unsafe { fill(&raw mut set) };
    set
}

/// Sets which signals this thread blocks. Returns which it blocked before.
fn set_mask(mask: &libc::sigset_t) -> libc::sigset_t {
    let mut before = signals(libc::sigemptyset);
    // SAFETY: both are valid sets. It fails only for an invalid first argument.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, &raw mut before) };
    before
}

/// Returns a file in memory. A pipe could fill up, or end this process with SIGPIPE if the agent exits early.
fn in_memory(json: &[u8]) -> io::Result<File> {
    let mut file = create_in_memory(libc::MFD_NOEXEC_SEAL)?;
    file.write_all(json)?;
    file.rewind()?;
    Ok(file)
}

/// Creates a file in memory that can never be executed. Linux 6.3 to 6.5 refuse to create any other if vm.memfd_noexec is 2.
///
/// Earlier kernels do not know the flag, and create the file without it.
fn create_in_memory(not_executable: libc::c_uint) -> io::Result<File> {
    let create = |flags| {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"luks-agent-token".as_ptr(), flags | libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nothing else has it.
        Ok(unsafe { File::from_raw_fd(fd) })
    };
    match create(not_executable) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => create(0),
        made => made,
    }
}

/// Runs in the child before the agent does.
fn prepare() -> io::Result<()> {
    // Handlers do not survive exec, but signals that the program ignores or blocks stay so: without SIGCHLD the agent would not see its own
    // children end.
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: a system call. It fails for SIGKILL and SIGSTOP, which cannot be ignored either.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    set_mask(&signals(libc::sigemptyset));
    close_on_exec();
    Ok(())
}

/// Keeps the files of the program from the agent. It may have opened them without O_CLOEXEC, the disk among them.
fn close_on_exec() {
    let first: libc::c_uint = 3;
    // SAFETY: a system call that changes flags of descriptors of this child.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked == 0 {
        return;
    }
    for fd in 3..MANY_FILES {
        // SAFETY: a system call, which fails for descriptors that are not open.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd_create")]
    fn the_token_is_in_memory_that_cannot_be_executed_if_the_kernel_knows_that() {
        let mode = create_in_memory(libc::MFD_NOEXEC_SEAL).unwrap().metadata().unwrap().permissions().mode();
        let is_known = fs::exists("/proc/sys/vm/memfd_noexec").unwrap();
        assert_eq!(mode & 0o111 == 0, is_known, "{mode:o}");
        // a flag of no kernel stands for one that this kernel does not know
        create_in_memory(1 << 20).unwrap();
    }
}
