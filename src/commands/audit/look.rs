//! A look at the disks of a node.

use super::super::node::Node;
use super::mounts::MountTable;
use crate::job::Workers;
use crate::report::proofs::Proofs;

/// A look at the disks of a node: what is known before a disk is examined.
pub(super) struct Look<'a> {
    pub(super) node: Node<'a>,
    pub(super) mounts: MountTable,
    pub(super) proofs: Proofs,
    /// How many blocks to compare on each open volume.
    pub(super) blocks: u32,
    pub(super) host: &'a Workers,
}
