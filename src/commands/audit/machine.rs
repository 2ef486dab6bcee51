//! The node, as an audit report has it.

use std::fs;

use crate::audit::{IdentityDocument, Node};
use crate::kms::{Identity, InstanceIdentity};

/// Returns the node, with what the identity document of the instance says.
pub(super) fn machine(document: Option<InstanceIdentity>) -> Node {
    let kernel = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        text.trim().to_owned()
    };
    let node = Node { host_name: kernel("hostname"), kernel: kernel("osrelease"), ..Node::default() };
    let Some(InstanceIdentity { document, rsa2048, identity }) = document else { return node };
    let Identity { instance_id, instance_type, region, availability_zone, image_id, account_id } = identity;
    Node {
        instance_id: Some(instance_id),
        instance_type: Some(instance_type),
        account: Some(account_id),
        region: Some(region),
        availability_zone: Some(availability_zone),
        ami: Some(image_id),
        identity_document: Some(IdentityDocument { document, rsa2048 }),
        ..node
    }
}
