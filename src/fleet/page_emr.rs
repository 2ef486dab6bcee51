//! A section of the page: security configurations, and what is so.

use super::configured::{Agreement, Configured, PlaceRow};
use super::markup::{Heading, cell, maybe, number, row, table};
use super::summary::Fleet;
use crate::audit::Html;

/// Adds what security configurations say, against what is so.
pub(super) fn configurations(page: &mut Html, fleet: &Fleet) {
    page.raw("<section>\n<h2 id=\"configuration\">Configuration and reality</h2>\n");
    if fleet.configurations.is_empty() {
        page.raw("<p>Not compared: no EMR security configuration was given.</p>\n");
    } else {
        let heading = Heading {
            label: "Configuration and reality",
            caption: "What EMR would encrypt by each security configuration, and the disks of the nodes that have it",
            columns: &[
                "Security configuration",
                "Nodes",
                "Where",
                "EMR would",
                "Disks: LUKS",
                "EC2 encrypts",
                "In clear",
                "Unknown",
                "Result",
                "Why EMR would",
            ],
            menu: Some("Result"),
            is_sortable: true,
        };
        table(page, &heading, |page| {
            for configured in &fleet.configurations {
                configured.places.iter().for_each(|place| place_row(page, configured, place));
            }
        });
        page.element("<p>Nodes without one of these security configurations: ", fleet.without_configuration, ".</p>\n");
        for configured in fleet.configurations.iter().filter(|c| !c.provisioned_with_another.is_empty()) {
            page.element(
                "<p>The clusters of these nodes have ",
                &configured.name,
                ", and their agent was provisioned with another ",
            );
            page.element("document: ", configured.provisioned_with_another.join(", "), "</p>\n");
        }
    }
    clusters(page, fleet);
    page.raw("</section>\n");
}

fn place_row(page: &mut Html, configured: &Configured, place: &PlaceRow) {
    row(page, &configured.name);
    number(page, configured.nodes);
    cell(page, place.place);
    cell(page, format_args!("{} ({})", place.configured, place.by));
    number(page, place.luks);
    number(page, place.ebs);
    number(page, place.in_clear);
    number(page, place.unknown);
    page.raw(match place.agreement {
        Agreement::NoDisks => "<td>",
        Agreement::Agrees | Agreement::Stronger => "<td class=\"encrypted\">",
        Agreement::NotShown => "<td class=\"unknown\">",
        Agreement::Contradicted => "<td class=\"not-encrypted\">",
    });
    page.element("", place.agreement, "</td>");
    cell(page, &place.reason);
    page.raw("</tr>\n");
}

fn clusters(page: &mut Html, fleet: &Fleet) {
    if fleet.clusters.is_empty() {
        return;
    }
    let heading = Heading {
        label: "Clusters",
        caption: "EMR clusters, and their nodes that have a report",
        columns: &["Cluster", "Name", "Security configuration", "Nodes"],
        menu: None,
        is_sortable: true,
    };
    table(page, &heading, |page| {
        for cluster in &fleet.clusters {
            row(page, &cluster.id);
            cell(page, &cluster.name);
            maybe(page, cluster.security_configuration.as_deref());
            number(page, cluster.nodes);
            page.raw("</tr>\n");
        }
    });
}
