//! Sections of the page: what EC2 says, beside what reports show.

use super::markup::{Heading, bytes, cell, maybe, number, row, table};
use super::side_by_side::{Shown, Unencrypted};
use super::summary::Fleet;
use crate::audit::Html;

const NO_ANSWER: &str = "<p>Not known: no answer of EC2 was given.</p>\n</section>\n";

/// Adds the silent nodes, and those that EC2 does not know.
pub(super) fn silent(page: &mut Html, fleet: &Fleet) {
    let heading = Heading {
        label: "Silent nodes",
        caption: "Instances that EC2 lists and that have no report",
        columns: &["Instance", "Cluster", "State", "EBS volumes", "Bytes", "Unencrypted for EC2"],
        menu: None,
        is_sortable: true,
    };
    page.raw("<section>\n<h2 id=\"silent\">Silent nodes</h2>\n");
    let (Some(silent), Some(unlisted)) = (&fleet.silent, &fleet.unlisted) else {
        page.raw(NO_ANSWER);
        return;
    };
    if silent.is_empty() {
        page.raw("<p>None: every instance in the answers of EC2 has a report.</p>\n");
    } else {
        table(page, &heading, |page| {
            for node in silent {
                row(page, &node.instance_id);
                maybe(page, node.cluster_id.as_deref());
                maybe(page, node.state.as_deref());
                number(page, node.volumes);
                bytes(page, node.bytes);
                number(page, node.unencrypted);
                page.raw("</tr>\n");
            }
        });
    }
    if !unlisted.is_empty() {
        page.element("<p>With a report, and not in the answers of EC2 or terminated: ", unlisted.join(", "), "</p>\n");
    }
    page.raw("</section>\n");
}

/// Adds the volumes that EC2 calls unencrypted, and what reports show of them.
pub(super) fn sides(page: &mut Html, fleet: &Fleet) {
    page.raw("<section>\n<h2 id=\"ec2\">EC2 and LUKS</h2>\n");
    let Some(sides) = &fleet.volumes else {
        page.raw(NO_ANSWER);
        return;
    };
    page.raw("<p>EC2 knows nothing of LUKS: a volume that luks-agent encrypts can be unencrypted for EC2. ");
    page.element("Volumes that EC2 calls encrypted: ", sides.encrypted_by_ec2, "");
    page.element("; of these, LUKS encrypts too: ", sides.encrypted_by_both, ". ");
    page.element("Volumes that EC2 calls unencrypted and that LUKS encrypts: ", sides.resolved, ". ");
    page.raw("Volumes that EC2 calls unencrypted and no report shows to be encrypted: ");
    page.text(sides.open).raw(".</p>\n");
    let heading = Heading {
        label: "Volumes that EC2 calls unencrypted",
        caption: "Volumes that EC2 calls unencrypted, and what the report of their instance shows",
        columns: &["Volume", "Instance", "Size", "EC2", "Report", "Result", "LUKS UUID", "Key"],
        menu: Some("Report"),
        is_sortable: true,
    };
    if !sides.unencrypted_by_ec2.is_empty() {
        table(page, &heading, |page| sides.unencrypted_by_ec2.iter().for_each(|volume| side(page, volume)));
    }
    page.raw("</section>\n");
}

fn side(page: &mut Html, volume: &Unencrypted) {
    row(page, &volume.volume_id);
    maybe(page, volume.instance_id.as_deref());
    bytes(page, volume.bytes);
    page.raw("<td>unencrypted</td>");
    cell(page, volume.shown);
    page.raw(match volume.shown {
        Shown::Encrypted => "<td class=\"encrypted\">encrypted by LUKS</td>",
        Shown::NotEncrypted
        | Shown::NoReport
        | Shown::NotInReport
        | Shown::Unknown
        | Shown::Excepted
        | Shown::NotAttached => "<td class=\"not-encrypted\">open</td>",
    });
    maybe(page, volume.luks_uuid.as_deref());
    maybe(page, volume.key_arn.as_deref());
    page.raw("</tr>\n");
}
