//! Sections of the page: keys, exceptions, nodes.

use std::cmp::Reverse;

use super::markup::{Heading, bytes, cell, maybe, names, number, row, table, time};
use super::node::NodeRow;
use super::summary::Fleet;
use crate::audit::{Html, verdict};

/// Adds the keys, and what depends on each.
pub(super) fn keys(page: &mut Html, fleet: &Fleet) {
    let heading = Heading {
        label: "Keys",
        caption: "What does not open any more once a key is disabled. What is open stays open until it is closed or its node reboots",
        columns: &["Key", "Provider", "State", "Last look", "Nodes that cannot use it", "Nodes", "Volumes", "Bytes"],
        menu: None,
        is_sortable: true,
    };
    page.raw("<section>\n<h2 id=\"keys\">Keys</h2>\n");
    table(page, &heading, |page| {
        for key in &fleet.keys {
            row(page, &key.key_arn);
            maybe(page, key.provider.as_deref());
            cell(page, key.state.as_deref().unwrap_or("not looked at since boot"));
            time(page, key.looked);
            names(page, &key.failing_nodes);
            names(page, &key.nodes);
            number(page, key.volumes);
            bytes(page, key.bytes);
            page.raw("</tr>\n");
        }
    });
    page.raw("</section>\n");
}

/// Adds what is excepted, and why.
pub(super) fn exceptions(page: &mut Html, fleet: &Fleet) {
    let heading = Heading {
        label: "Exceptions",
        caption: "Disks that luks-agent is not to encrypt. Data can be in clear on them",
        columns: &["Reason", "Role", "Nodes", "Disks", "Bytes"],
        menu: None,
        is_sortable: true,
    };
    page.raw("<section>\n<h2 id=\"exceptions\">Exceptions</h2>\n");
    table(page, &heading, |page| {
        for exception in &fleet.exceptions {
            row(page, &exception.reason);
            cell(page, &exception.role);
            names(page, &exception.nodes);
            number(page, exception.volumes);
            bytes(page, exception.bytes);
            page.raw("</tr>\n");
        }
    });
    page.raw("</section>\n");
}

/// Adds the nodes.
pub(super) fn nodes(page: &mut Html, fleet: &Fleet) {
    let heading = Heading {
        label: "Nodes",
        caption: "The newest report of each node",
        columns: &[
            "Node",
            "Verdict",
            "Why",
            "Where",
            "Cluster",
            "Disks",
            "Encrypted",
            "Bytes",
            "Keys",
            "Oldest proof",
            "Report made",
        ],
        menu: Some("Verdict"),
        is_sortable: true,
    };
    page.raw("<section>\n<h2 id=\"nodes\">Nodes</h2>\n");
    let mut nodes: Vec<&NodeRow> = fleet.nodes.iter().collect();
    // the worst first, and by name among equals
    nodes.sort_by_key(|node| Reverse(node.verdict));
    table(page, &heading, |page| nodes.into_iter().for_each(|node| node_row(page, node)));
    page.raw("</section>\n");
}

fn node_row(page: &mut Html, node: &NodeRow) {
    page.element("<tr><th scope=\"row\">", &node.node, "");
    if node.host_name != node.node {
        page.element("<br>", &node.host_name, "");
    }
    // the worst first when it is sorted
    page.raw("</th><td data-sort=\"").text(u8::MAX - node.verdict as u8).raw("\">");
    verdict(page, node.verdict);
    page.element("</td><td>", node.reasons.join("; "), "</td><td>").text(node.account.as_deref().unwrap_or("-"));
    page.element("<br>", node.region.as_deref().unwrap_or("-"), "</td><td>");
    page.text(node.cluster_id.as_deref().unwrap_or("-"));
    if let Some(name) = &node.security_configuration {
        page.element("<br>", name, "");
    }
    page.raw("</td>");
    let [encrypted, .., total] = node.coverage.volumes.columns();
    number(page, total);
    number(page, encrypted);
    bytes(page, node.coverage.bytes.columns()[4]);
    page.element("<td class=\"keys\">", node.keys.join(", "), "</td>");
    match (&node.proofs.oldest, node.proofs.unproven) {
        (Some(oldest), 0) => time(page, Some(oldest.at)),
        (Some(oldest), unproven) => cell(page, format_args!("{}, {unproven} volumes without", oldest.at)),
        (None, 0) => cell(page, "no volume"),
        (None, _) => cell(page, "none since boot"),
    }
    time(page, Some(node.made));
    page.raw("</tr>\n");
}
