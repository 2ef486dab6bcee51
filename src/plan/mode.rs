//! What a run may do.

/// What a run may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Unlock known volumes, format new, blank disks.
    Provision,
    /// Unlock known volumes; never format. The agent leaves other disks alone, whatever is on them.
    Unlock,
    /// Grow open volumes to the size of their disks, and nothing else. The agent examines no disk for it.
    Grow,
    /// Give volumes the keys that take the place of theirs, and nothing else, whether they are open or not.
    Rekey,
}
