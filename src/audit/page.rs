//! A report as a page: for people who look at one node, on a screen or on paper, without a network.

use super::disk::{Disk, Proof};
use super::frame::{begin_page, end_page, verdict};
use super::html::Html;
use super::report::AuditReport;
use crate::disk::Bytes;

/// What the report cannot show.
const LIMITS: &str = "<p>This report shows what luks-agent found on the node when the report was made. Somebody with root on the node \
     could have made another one. The signature of the identity document is AWS&#39;s; this page does not check it, and it covers \
     nothing but the document itself.</p>\n";

impl AuditReport {
    /// Returns the report as one HTML page that needs nothing else.
    pub fn to_html(&self) -> String {
        let mut page = begin_page(format_args!("Disk encryption of {}", self.node.title()), None);
        page.raw("<header>\n").element("<h1>Disk encryption of ", self.node.title(), "</h1>\n");
        page.raw("<p>Verdict: ");
        verdict(&mut page, self.verdict);
        page.element("</p>\n<p>Made ", self.made, "").element(
            " by luks-agent ",
            &self.agent_version,
            "</p>\n</header>\n",
        );
        page.raw("<main>\n");
        reasons(&mut page, self);
        disks(&mut page, self);
        keys(&mut page, self);
        node(&mut page, self);
        page.raw("</main>\n<footer>\n").raw(LIMITS).raw("</footer>\n");
        end_page(page, None)
    }
}

fn reasons(page: &mut Html, report: &AuditReport) {
    if report.reasons.is_empty() {
        return;
    }
    page.raw("<section>\n<h2>Why</h2>\n<ul>\n");
    for reason in &report.reasons {
        page.element("<li>", reason, "</li>\n");
    }
    page.raw("</ul>\n</section>\n");
}

fn disks(page: &mut Html, report: &AuditReport) {
    page.raw("<section>\n<h2>Disks</h2>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Disks\">\n<table>\n");
    page.raw("<caption>Every disk of the node, and volumes that are not attached</caption>\n<thead><tr>");
    page.raw("<th scope=\"col\">Disk</th><th scope=\"col\">Verdict</th><th scope=\"col\">Why</th><th scope=\"col\">Role</th>");
    page.raw("<th scope=\"col\">Size</th><th scope=\"col\">Encryption</th><th scope=\"col\">Blocks that differ</th>");
    page.raw("<th scope=\"col\">Last proof</th><th scope=\"col\">Mounted at</th></tr></thead>\n<tbody>\n");
    for disk in &report.disks {
        row(page, disk);
    }
    page.raw("</tbody>\n</table>\n</div>\n");
    page.raw("<p>Blocks that differ: blocks at random places were read through the mapping and from the raw disk. Of an encrypted disk, \
         all differ. Blocks that were never written do not count.</p>\n</section>\n");
}

fn row(page: &mut Html, disk: &Disk) {
    page.element("<tr><th scope=\"row\">", disk.device.as_deref().unwrap_or("not attached"), "");
    if let Some(name) = disk.volume_id.as_ref().or(disk.serial.as_ref()) {
        page.element("<br>", name, "");
    }
    page.raw("</th><td>");
    verdict(page, disk.verdict);
    page.element("</td><td>", disk.reasons.join("; "), "</td><td>").text(&disk.role);
    if let Some(because) = &disk.role_because {
        page.element("<br>", because, "");
    }
    page.element("</td><td>", Bytes(disk.size), "</td><td>");
    match &disk.encryption {
        Some(encryption) => {
            page.text(format_args!("{}, key of {} bits", encryption.cipher, encryption.key_size));
            page.element("<br>LUKS UUID ", &encryption.luks_uuid, "");
            if let Some(key) = &disk.key_arn {
                page.element("<br>under ", key, "");
            }
            if let Some(violation) = &encryption.violation {
                page.element("<br>not as the agent made it: ", violation, "");
            }
        }
        None if disk.key_arn.is_some() => {
            page.element("not examined<br>", &disk.content, "");
        }
        None => {
            page.element("none by luks-agent<br>", &disk.content, "");
        }
    }
    page.raw("</td><td>");
    match &disk.evidence {
        Some(evidence) => page.text(format_args!("{} of {}, at {}", evidence.differ, evidence.blocks, evidence.read)),
        None => page.raw("not read"),
    };
    page.raw("</td><td>");
    match &disk.proven {
        Some(proven) => page.text(format_args!("{} by {}", proven.at, proof(proven.by))),
        None => page.raw("none since boot"),
    };
    page.element("</td><td>", disk.mount_points(", "), "</td></tr>\n");
}

fn proof(proof: Proof) -> &'static str {
    match proof {
        Proof::Opened => "opening it",
        Proof::Verify => "verify",
        Proof::Health => "health",
    }
}

fn keys(page: &mut Html, report: &AuditReport) {
    page.raw(
        "<section>\n<h2>Keys</h2>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Keys\">\n<table>\n",
    );
    page.raw("<caption>Keys outside of the node. Without its key, a volume does not open again once it is closed</caption>\n<thead><tr>");
    page.raw("<th scope=\"col\">Key</th><th scope=\"col\">Provider</th><th scope=\"col\">State</th><th scope=\"col\">Volumes</th>");
    page.raw("</tr></thead>\n<tbody>\n");
    for key in &report.keys {
        page.element("<tr><th scope=\"row\">", &key.key_arn, "</th><td>").text(&key.provider).raw("</td><td>");
        match (&key.state, &key.error, &key.looked) {
            (_, Some(error), _) => page.text(error),
            (Some(state), None, Some(looked)) => page.text(format_args!("{state} at {looked}")),
            (Some(state), None, None) => page.text(state),
            (None, None, _) => page.raw("not looked at since boot"),
        };
        let volumes = report.disks.iter().filter(|disk| disk.key_arn.as_ref() == Some(&key.key_arn)).count();
        page.element("</td><td>", volumes, "</td></tr>\n");
    }
    page.raw("</tbody>\n</table>\n</div>\n</section>\n");
}

fn node(page: &mut Html, report: &AuditReport) {
    let node = &report.node;
    page.raw("<section>\n<h2>Node</h2>\n<table>\n<caption>The node and its configuration</caption>\n<tbody>\n");
    let identity = node.identity_document.as_ref();
    let fields = [
        ("Host name", Some(node.host_name.as_str())),
        ("Instance", node.instance_id.as_deref()),
        ("Instance type", node.instance_type.as_deref()),
        ("Account", node.account.as_deref()),
        ("Region", node.region.as_deref()),
        ("Availability Zone", node.availability_zone.as_deref()),
        ("AMI", node.ami.as_deref()),
        ("Kernel", Some(node.kernel.as_str())),
        ("SHA-256 of the configuration", Some(report.configuration.sha256.as_str())),
        ("SHA-256 of the EMR security configuration", report.configuration.security_configuration_sha256.as_deref()),
        ("Identity document", identity.map(|identity| identity.document.as_str())),
        ("Its RSA-2048 signature", identity.and_then(|identity| identity.rsa2048.as_deref())),
    ];
    for (name, value) in fields {
        // a document and its signature are verified byte for byte
        page.raw("<tr><th scope=\"row\">").raw(name).raw("</th><td class=\"verbatim\">");
        page.text(value.unwrap_or("none")).raw("</td></tr>\n");
    }
    page.raw("</tbody>\n</table>\n</section>\n");
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::audit::example::example;

    #[test]
    fn the_page_says_what_the_report_says() {
        let page = example().to_html();
        for text in [
            "<h1>Disk encryption of i-1234567890abcdef0</h1>",
            "<span class=\"verdict not-encrypted\">not encrypted</span>",
            "<li>nvme2n1 has an xfs file system in clear</li>",
            "nvme1n1<br>vol-0123456789abcdef1",
            "aes-xts-plain64, key of 512 bits",
            "64 of 64, at 2026-01-02T03:04:05Z",
            "<td>64 GiB</td>",
        ] {
            assert!(page.contains(text), "{text} is not in:\n{page}");
        }
    }

    #[test]
    fn nothing_in_a_report_becomes_markup() {
        let hostile = "</td><script>alert(1)</script><img src=x onerror='alert(1)' \"&\u{202e}";
        let text = serde_json::to_string(&example()).unwrap();
        // every text of the report, except those that have a form
        let mut report: Value = serde_json::from_str(&text).unwrap();
        poison(&mut report, hostile);
        let report: AuditReport = serde_json::from_value(report).unwrap();
        let page = report.to_html();
        assert!(page.matches("&lt;script&gt;").count() > 30, "{page}");
        let tags = |page: &str| page.matches('<').count();
        // as many tags as with harmless texts
        let mut harmless = serde_json::to_value(&report).unwrap();
        poison(&mut harmless, "x");
        let harmless: AuditReport = serde_json::from_value(harmless).unwrap();
        assert_eq!(tags(&page), tags(&harmless.to_html()));
        assert!(!page.contains('\u{202e}'));
    }

    fn poison(value: &mut Value, text: &str) {
        const FORMS: [&str; 10] =
            ["made", "wrapped", "looked", "formatted", "opened", "at", "by", "read", "verdict", "key_size"];
        match value {
            Value::String(old) => *old = text.to_owned(),
            Value::Array(items) => items.iter_mut().for_each(|item| poison(item, text)),
            Value::Object(fields) => {
                fields
                    .iter_mut()
                    .filter(|(name, _)| !FORMS.contains(&name.as_str()))
                    .for_each(|(_, v)| poison(v, text));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}
