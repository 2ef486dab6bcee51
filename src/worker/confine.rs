//! Takes the network away from a worker and from the programs that it starts, whatever their code tries to do.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// The socket families that stay available: for udev, device-mapper, the journal and the kernel's ciphers. None of them reaches
/// another machine.
const FAMILIES: [libc::c_int; 3] = [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_ALG];

/// A seccomp filter that could not be made or applied.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum ConfineError {
    /// It could not be made.
    Filter(#[from] BackendError),
    /// The kernel did not accept it.
    Apply(#[from] seccompiler::Error),
}

/// Takes the network away from this process and its children for good.
///
/// # Errors
/// If the kernel has no seccomp filters or the service manager forbids them.
pub fn no_network() -> Result<(), ConfineError> {
    let is_not = |family: libc::c_int| {
        let family = u64::from(family.unsigned_abs());
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    };
    let others = SeccompRule::new(FAMILIES.into_iter().map(is_not).collect::<Result<_, _>>()?)?;
    let rules = BTreeMap::from([
        (libc::SYS_socket, vec![others]),
        // io_uring can create sockets without socket(2)
        (libc::SYS_io_uring_setup, Vec::new()),
    ]);
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}
