//! Kills one process of a command at one of its system calls, which is then not carried out.
//!
//! strace can do that too, but it counts each kind of system call and each thread by itself, and cannot tell a worker from
//! the agent that started it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Who is to be killed, and when.
pub(crate) struct Victim {
    /// agent, worker.N (the Nth process that it starts) or tool.N (the Nth that workers start).
    pub(crate) process: String,
    /// At which of its system calls, from 1; those that are harmless do not count.
    pub(crate) at: usize,
}

/// What became of a traced command.
pub(crate) struct Seen {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// The system call at which the victim was killed, if it came that far.
    pub(crate) killed: Option<String>,
    /// A line for each process: its label, how many system calls it made, how many of them count, and which.
    pub(crate) text: String,
}

/// What one process did.
struct Process {
    /// As in [`Victim`].
    label: String,
    /// All system calls.
    calls: usize,
    /// Those that count, by name.
    counted: Vec<String>,
}

struct Thread {
    process: Pid,
    /// Between entry and exit of a system call.
    inside: bool,
}

struct Tracer {
    /// `None` only lists, and stops for every system call.
    victim: Option<Victim>,
    on_rename: Option<String>,
    agent: Pid,
    processes: BTreeMap<Pid, Process>,
    threads: BTreeMap<Pid, Thread>,
    workers: usize,
    tools: usize,
    killed: Option<String>,
}

/// Runs a command to its end, and lists what its processes did. `on_rename` is a shell command to run after each rename by
/// the agent, which stands still meanwhile.
pub(crate) fn list(command: &[String], on_rename: Option<String>, output: &Path) -> Seen {
    let (sender, seen) = mpsc::channel();
    trace(command, None, on_rename, output, &sender);
    seen.recv().unwrap()
}

/// Runs a command and kills the victim. Whoever outlives the command runs on.
pub(crate) fn kill_at(command: &[String], victim: Victim, output: &Path) -> Seen {
    let (sender, seen) = mpsc::channel();
    let (command, output) = (command.to_owned(), output.to_owned());
    // a thread of its own, which stays with those that are left: what they may not do by themselves would fail without it
    thread::spawn(move || trace(&command, Some(victim), None, &output, &sender));
    seen.recv().unwrap()
}

/// Tells what it saw when the command ends, and ends itself with the last of its processes.
#[expect(clippy::zombie_processes, reason = "waited for by the tracer")]
fn trace(
    command: &[String],
    victim: Option<Victim>,
    on_rename: Option<String>,
    output: &Path,
    sender: &mpsc::Sender<Seen>,
) {
    let output = fs::File::create(output).unwrap();
    // waits for a byte, so that it can be seized before it begins
    let mut child = Command::new("/usr/bin/perl")
        .args(["-e", BEGIN, &if victim.is_some() { filter() } else { String::new() }])
        .args(command)
        .stdin(Stdio::piped())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let agent = Pid::from_raw(child.id().cast_signed());
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACESECCOMP;
    ptrace::seize(agent, options).unwrap();
    let mut tracer = Tracer {
        victim,
        on_rename,
        agent,
        processes: BTreeMap::new(),
        threads: BTreeMap::new(),
        workers: 0,
        tools: 0,
        killed: None,
    };
    ptrace::interrupt(agent).unwrap();
    let mut stdin = child.stdin.take();
    tracer.run(sender, || drop(stdin.take().map(|mut stdin| stdin.write_all(b"\n"))));
}

/// Takes the filter, in hexadecimal, as its first argument: no program of the distribution's has seccomp with a filter of
/// one's own, nor has safe Rust. 157 is prctl, 22 `PR_SET_SECCOMP`, 2 `SECCOMP_MODE_FILTER`; then a `struct sock_fprog`.
const BEGIN: &str = r#"
sysread(STDIN, my $byte, 1);
open(STDIN, "<", "/dev/null");
if (length(my $filter = pack("H*", shift))) {
    my $program = pack("S x6 P", length($filter) / 8, $filter);
    syscall(157, 22, 2, $program) == 0 or die "seccomp: $!";
}
exec(@ARGV);
"#;

/// A seccomp filter that has the tracer asked at every system call but the harmless ones: to stop for those takes longer
/// than all else.
fn filter() -> String {
    // struct sock_filter: code (16 bits), where to jump if true and if false (8 bits each), operand (32 bits)
    let mut program = Vec::new();
    let mut push = |code: u16, yes: u8, no: u8, operand: u32| {
        program.extend(code.to_ne_bytes());
        program.extend([yes, no]);
        program.extend(operand.to_ne_bytes());
    };
    // BPF_LD | BPF_W | BPF_ABS: the number of the system call, the first field of struct seccomp_data
    push(0x20, 0, 0, 0);
    for number in HARMLESS {
        // BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
        push(0x15, 0, 1, u32::try_from(*number).unwrap());
        push(0x06, 0, 0, libc::SECCOMP_RET_ALLOW);
    }
    push(0x06, 0, 0, libc::SECCOMP_RET_TRACE);
    program.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

impl Tracer {
    fn run(&mut self, sender: &mpsc::Sender<Seen>, mut begin: impl FnMut()) {
        loop {
            // only what this thread has started: others of this program are not its business
            let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Err(Errno::EINTR) => continue,
                Err(Errno::ECHILD) => return,
                other => other.unwrap(),
            };
            let (thread, signal) = match status {
                WaitStatus::PtraceSyscall(thread) => {
                    self.system_call(thread);
                    (thread, None)
                }
                // PTRACE_EVENT_STOP among them: a new thread, or the first one at the beginning
                WaitStatus::PtraceEvent(thread, _, event) => {
                    self.event(thread, event);
                    (thread, None)
                }
                WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
                WaitStatus::Exited(thread, code) if thread == self.agent => {
                    self.tell(sender, ExitStatus::from_raw(code << 8));
                    continue;
                }
                WaitStatus::Signaled(thread, signal, _) if thread == self.agent => {
                    self.tell(sender, ExitStatus::from_raw(signal as i32));
                    continue;
                }
                WaitStatus::Exited(..)
                | WaitStatus::Signaled(..)
                | WaitStatus::Continued(_)
                | WaitStatus::StillAlive => continue,
            };
            self.thread(thread);
            // whoever was killed meanwhile cannot be told anything any more
            let _ = match self.victim {
                None => ptrace::syscall(thread, signal),
                Some(_) => ptrace::cont(thread, signal),
            };
            begin();
        }
    }

    fn tell(&self, sender: &mpsc::Sender<Seen>, status: ExitStatus) {
        sender.send(Seen { status, text: self.seen(), killed: self.killed.clone() }).unwrap();
    }

    fn event(&mut self, thread: Pid, event: libc::c_int) {
        if event == libc::PTRACE_EVENT_EXEC
            && thread == self.agent
            && let Some(own) = self.processes.get_mut(&thread)
        {
            // perl has become the agent: what came before is of no interest
            own.calls = 0;
            own.counted.clear();
        }
        if event == libc::PTRACE_EVENT_SECCOMP
            && let Some(process) = self.thread(thread).map(|thread| thread.process)
            && let Ok(regs) = ptrace::getregs(thread)
        {
            self.entry(process, &regs);
        }
    }

    /// Registers a thread when it is first seen.
    fn thread(&mut self, thread: Pid) -> Option<&mut Thread> {
        if !self.threads.contains_key(&thread) {
            let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
            let field = |name: &str| {
                let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                Pid::from_raw(value.trim().parse().unwrap())
            };
            let (process, parent) = (field("Tgid:"), field("PPid:"));
            if !self.processes.contains_key(&process) {
                let label = if process == self.agent {
                    "agent".to_owned()
                } else if parent == self.agent {
                    self.workers += 1;
                    format!("worker.{}", self.workers)
                } else {
                    self.tools += 1;
                    format!("tool.{}", self.tools)
                };
                self.processes.insert(process, Process { label, calls: 0, counted: Vec::new() });
            }
            self.threads.insert(thread, Thread { process, inside: false });
        }
        self.threads.get_mut(&thread)
    }

    fn system_call(&mut self, id: Pid) {
        let Some(thread) = self.thread(id) else { return };
        let (process, entry) = (thread.process, !thread.inside);
        // gone, if it was killed
        let Ok(regs) = ptrace::getregs(id) else { return };
        let number = regs.orig_rax.cast_signed();
        let pending = regs.rax.cast_signed() == -i64::from(libc::ENOSYS);
        if entry && !pending {
            // the end of the one that the first stop interrupted
            return;
        }
        thread.inside = entry;
        if !entry {
            let rename = [libc::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2].contains(&number);
            if let Some(hook) = self.on_rename.as_ref().filter(|_| rename && process == self.agent) {
                assert!(Command::new("/bin/bash").args(["-c", hook]).status().unwrap().success(), "{hook}");
            }
            return;
        }
        self.entry(process, &regs);
    }

    fn entry(&mut self, process: Pid, regs: &libc::user_regs_struct) {
        let number = regs.orig_rax.cast_signed();
        let own = self.processes.get_mut(&process).unwrap();
        own.calls += 1;
        if is_harmless(number, regs) {
            return;
        }
        own.counted.push(name(number));
        let dies = |victim: &Victim| victim.process == own.label && victim.at == own.counted.len();
        if self.killed.is_none() && self.victim.as_ref().is_some_and(dies) {
            self.killed = Some(name(number));
            kill(process, Signal::SIGKILL).unwrap();
        }
    }

    fn seen(&self) -> String {
        let mut text = String::new();
        for process in self.processes.values() {
            let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
            process.counted.iter().for_each(|name| *kinds.entry(name).or_default() += 1);
            let kinds: Vec<String> = kinds.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let (calls, counted) = (process.calls, process.counted.len());
            writeln!(text, "process {} {calls} {counted} {}", process.label, kinds.join(", ")).unwrap();
        }
        text
    }
}

/// System calls that change nothing that outlives their process: to die before one of these is to die after it.
const HARMLESS: &[libc::c_long] = &[
    // reads
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_lseek,
    libc::SYS_stat,
    libc::SYS_fstat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_time,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getpriority,
    libc::SYS_sched_getaffinity,
    libc::SYS_capget,
    // memory, signals and threads of its own
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_mlockall,
    libc::SYS_munlockall,
    libc::SYS_arch_prctl,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_umask,
    libc::SYS_prlimit64,
    libc::SYS_setpriority,
    // waiting
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_pidfd_open,
    // its own table of files
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_setsockopt,
    libc::SYS_bind,
    libc::SYS_pipe2,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_fadvise64,
    // death closes everything
    libc::SYS_close,
];

fn is_harmless(number: libc::c_long, regs: &libc::user_regs_struct) -> bool {
    let writes = |flags: u64| {
        let write = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
        flags & u64::from(write.cast_unsigned()) != 0
    };
    match number {
        libc::SYS_open => !writes(regs.rsi),
        libc::SYS_openat => !writes(regs.rdx),
        _ => HARMLESS.contains(&number),
    }
}

fn name(number: libc::c_long) -> String {
    let name = match number {
        libc::SYS_write => "write",
        libc::SYS_writev => "writev",
        libc::SYS_pwrite64 => "pwrite64",
        libc::SYS_pwritev => "pwritev",
        libc::SYS_open => "open",
        libc::SYS_openat => "openat",
        libc::SYS_close_range => "close_range",
        libc::SYS_fsync => "fsync",
        libc::SYS_fdatasync => "fdatasync",
        libc::SYS_sync => "sync",
        libc::SYS_rename => "rename",
        libc::SYS_mkdir => "mkdir",
        libc::SYS_mkdirat => "mkdirat",
        libc::SYS_unlink => "unlink",
        libc::SYS_rmdir => "rmdir",
        libc::SYS_chmod => "chmod",
        libc::SYS_chown => "chown",
        libc::SYS_mknod => "mknod",
        libc::SYS_mknodat => "mknodat",
        libc::SYS_symlink => "symlink",
        libc::SYS_ftruncate => "ftruncate",
        libc::SYS_fallocate => "fallocate",
        libc::SYS_flock => "flock",
        libc::SYS_ioctl => "ioctl",
        libc::SYS_mount => "mount",
        libc::SYS_fsopen => "fsopen",
        libc::SYS_fsconfig => "fsconfig",
        libc::SYS_fsmount => "fsmount",
        libc::SYS_move_mount => "move_mount",
        libc::SYS_clone => "clone",
        libc::SYS_clone3 => "clone3",
        libc::SYS_fork => "fork",
        libc::SYS_vfork => "vfork",
        libc::SYS_execve => "execve",
        libc::SYS_exit => "exit",
        libc::SYS_exit_group => "exit_group",
        libc::SYS_kill => "kill",
        libc::SYS_tgkill => "tgkill",
        libc::SYS_prctl => "prctl",
        libc::SYS_setpgid => "setpgid",
        libc::SYS_setsid => "setsid",
        libc::SYS_connect => "connect",
        libc::SYS_accept4 => "accept4",
        libc::SYS_sendto => "sendto",
        libc::SYS_sendmsg => "sendmsg",
        libc::SYS_shutdown => "shutdown",
        libc::SYS_semget => "semget",
        libc::SYS_semop => "semop",
        libc::SYS_semctl => "semctl",
        libc::SYS_add_key => "add_key",
        libc::SYS_request_key => "request_key",
        libc::SYS_keyctl => "keyctl",
        libc::SYS_fchown => "fchown",
        libc::SYS_fchmod => "fchmod",
        other => return format!("call-{other}"),
    };
    name.to_owned()
}
