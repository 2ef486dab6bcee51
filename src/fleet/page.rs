//! The summary as a page: for people who look at a fleet, on a screen or on paper, without a network and without scripts.

use super::markup::{Heading, bytes, number, row, table};
use super::page_ec2::{sides, silent};
use super::page_emr::configurations;
use super::page_nodes::{exceptions, keys, nodes};
use super::summary::Fleet;
use crate::audit::{Html, begin_page, end_page, verdict};

/// Sorts and filters tables. Without it, the page says the same.
const SCRIPT: &str = include_str!("script.js");
/// What the page cannot show.
const LIMITS: &str = "<p>This page shows what luks-agent found on nodes when they made their reports, and what AWS said of them. Somebody with \
     root on a node could have made another report. A node that neither reported nor is in an answer of EC2 is not in this page.</p>\n";

impl Fleet {
    /// Returns the summary as one HTML page that needs nothing else.
    pub fn to_html(&self) -> String {
        let mut page = begin_page("Disk encryption of the fleet", Some(SCRIPT));
        self.header(&mut page);
        page.raw("<main>\n");
        self.coverage(&mut page);
        keys(&mut page, self);
        silent(&mut page, self);
        sides(&mut page, self);
        configurations(&mut page, self);
        exceptions(&mut page, self);
        nodes(&mut page, self);
        page.raw("</main>\n<footer>\n").raw(LIMITS).raw("</footer>\n");
        end_page(page, Some(SCRIPT))
    }

    fn header(&self, page: &mut Html) {
        page.raw("<header>\n<h1>Disk encryption of the fleet</h1>\n<p>Verdict: ");
        verdict(page, self.verdict);
        page.element(": ", self.sentence(), "</p>\n");
        if !self.reasons.is_empty() {
            page.raw("<ul>\n");
            for reason in &self.reasons {
                page.element("<li>", reason, "</li>\n");
            }
            page.raw("</ul>\n");
        }
        let reports = &self.reports;
        page.element("<p>Made ", self.made, "").element(" by luks-agent ", self.agent_version, "");
        page.element(" from the newest report of each node. Nodes with a report: ", reports.counted, "");
        if let (Some(oldest), Some(newest)) = (reports.oldest, reports.newest) {
            page.element(", made from ", oldest, "").element(" to ", newest, "");
        }
        page.raw(".");
        if reports.older > 0 {
            page.element(" Older reports, which do not count: ", reports.older, ".");
        }
        if reports.without_instance_id > 0 {
            page.element(
                " Reports without an instance ID, of which EC2 says nothing: ",
                reports.without_instance_id,
                ".",
            );
        }
        page.raw("</p>\n<nav aria-label=\"Sections\"><ul>\n");
        page.raw("<li><a href=\"#coverage\">Coverage</a></li>\n<li><a href=\"#keys\">Keys</a></li>\n");
        page.raw("<li><a href=\"#silent\">Silent nodes</a></li>\n<li><a href=\"#ec2\">EC2 and LUKS</a></li>\n");
        page.raw("<li><a href=\"#configuration\">Configuration and reality</a></li>\n");
        page.raw("<li><a href=\"#exceptions\">Exceptions</a></li>\n<li><a href=\"#nodes\">Nodes</a></li>\n</ul></nav>\n</header>\n");
    }

    fn coverage(&self, page: &mut Html) {
        let heading = Heading {
            label: "Coverage",
            caption: "Nodes with a report and their attached disks, boot volumes included, by verdict",
            columns: &["Unit", "Encrypted", "Excepted", "Unknown", "Not encrypted", "Total"],
            menu: None,
            is_sortable: false,
        };
        page.raw("<section>\n<h2 id=\"coverage\">Coverage</h2>\n");
        table(page, &heading, |page| {
            for (name, tally) in [("Nodes", self.coverage.nodes), ("Volumes", self.coverage.volumes)] {
                row(page, name);
                tally.columns().into_iter().for_each(|count| number(page, count));
                page.raw("</tr>\n");
            }
            row(page, "Bytes");
            self.coverage.bytes.columns().into_iter().for_each(|count| bytes(page, count));
            page.raw("</tr>\n");
        });
        if self.coverage.detached > 0 {
            page.element(
                "<p>Volumes that are not attached and not in these counts: ",
                self.coverage.detached,
                "</p>\n",
            );
        }
        self.proofs(page);
        page.raw("</section>\n");
    }

    fn proofs(&self, page: &mut Html) {
        let proofs = &self.proofs;
        match &proofs.oldest {
            Some(oldest) => {
                page.element("<p>Oldest proof that a volume opens: ", oldest.at, ", ");
                page.element("", &oldest.device, " of ").text(&oldest.node).raw(". ");
            }
            None if proofs.unproven == 0 => {
                page.raw("<p>There is no volume to open. ");
            }
            None => {
                page.raw("<p>There is no proof that a volume opens. ");
            }
        }
        page.element("Volumes with a proof since their node booted: ", proofs.proven, "; without: ");
        page.text(proofs.unproven).raw(".</p>\n");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::answers::{Cluster, Ec2};
    use super::super::configured::NamedDocument;
    use super::super::summary::Surroundings;
    use super::*;
    use crate::audit::example::example;
    use crate::audit::{AuditReport, Newest, Standing};
    use crate::digest::sha256_base64;
    use crate::emr::Document;

    /// A fleet of two nodes with reports and a silent one, with `text` in place of every text that has no form.
    fn fleet(text: Option<&str>) -> Fleet {
        let mut newest = Newest::default();
        for id in ["i-1234567890abcdef0", "i-2"] {
            let mut report = json!(example());
            report["node"]["instance_id"] = json!(id);
            if let Some(text) = text {
                poison(&mut report, text);
            }
            // so that EC2 knows the node and both are not one
            report["node"]["instance_id"] = json!(format!("{id}{}", text.unwrap_or_default()));
            newest.add(serde_json::from_value::<AuditReport>(report).unwrap());
        }
        let text = text.unwrap_or_default();
        let name = |name: &str| json!(format!("{name}{text}"));
        let volume = |id: &str, instance: &str, encrypted: bool| {
            let attachments = json!([{"InstanceId": name(instance), "State": "attached"}]);
            json!({"VolumeId": name(id), "Size": 8, "Encrypted": encrypted, "Attachments": attachments})
        };
        let volumes = json!({"Volumes": [
            volume("vol-0123456789abcdef1", "i-1234567890abcdef0", false),
            volume("vol-0123456789abcdef2", "i-2", false),
            volume("vol-later", "i-2", false),
            volume("vol-silent", "i-silent", true),
        ]});
        let tags = json!([{"Key": "aws:elasticmapreduce:job-flow-id", "Value": name("j-1")}]);
        let instance = |id| json!({"InstanceId": name(id), "State": {"Name": name("running")}, "Tags": tags});
        let instances = ["i-1234567890abcdef0", "i-silent"].map(instance);
        let mut ec2 = Ec2::default();
        ec2.add_volumes(volumes.to_string().as_bytes()).unwrap();
        ec2.add_instances(json!({"Reservations": [{"Instances": instances}]}).to_string().as_bytes()).unwrap();
        let cluster = json!({"Id": name("j-1"), "Name": name("cluster"), "SecurityConfiguration": name("none")});
        let clusters = vec![Cluster::read(json!({"Cluster": cluster}).to_string().as_bytes()).unwrap()];
        let encryption = json!({"EnableInTransitEncryption": false, "EnableAtRestEncryption": false});
        let answer = json!({
            "Name": name("none"), "CreationDateTime": 1,
            "SecurityConfiguration": json!({"EncryptionConfiguration": encryption}).to_string(),
        });
        let documents = Document::read_all(answer.to_string().as_bytes()).unwrap();
        let documents = documents.into_iter().map(|document| NamedDocument { file: "none.json".to_owned(), document });
        let around = Surroundings { ec2, clusters, documents: documents.collect() };
        Fleet::of(&newest, &around, "2026-01-04T00:00:00Z".parse().unwrap())
    }

    fn poison(value: &mut Value, text: &str) {
        const FORMS: [&str; 10] =
            ["made", "wrapped", "looked", "formatted", "opened", "at", "by", "read", "verdict", "schema"];
        match value {
            Value::String(old) => old.push_str(text),
            Value::Array(items) => items.iter_mut().for_each(|item| poison(item, text)),
            Value::Object(fields) => {
                let texts = fields.iter_mut().filter(|(name, _)| !FORMS.contains(&name.as_str()));
                texts.for_each(|(_, value)| poison(value, text));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    #[test]
    fn the_page_says_what_the_summary_says() {
        let fleet = fleet(None);
        assert_eq!(fleet.verdict, Standing::NotEncrypted);
        let page = fleet.to_html();
        for text in [
            "<span class=\"verdict not-encrypted\">not encrypted</span>: this fleet is not encrypted",
            "<li>nodes with a disk that is not encrypted: 2</li>",
            "<li>instances in EC2 without a report: 1</li>",
            "<li>volumes that EC2 calls unencrypted and the report of their node does not have: 1</li>",
            "<tr><th scope=\"row\">Bytes</th><td class=\"number\" data-sort=\"137438953472\">128 GiB</td>",
            "<details><summary>2</summary>i-1234567890abcdef0, i-2</details>",
            "<tr><th scope=\"row\">i-silent</th><td>j-1</td><td>running</td>",
            "that LUKS encrypts: 1. Volumes that EC2 calls unencrypted and no report shows to be encrypted: 2.",
            "<td>in clear (-)</td>",
            "<th scope=\"row\">the boot volume is not encrypted by the agent</th>",
        ] {
            assert!(page.contains(text), "{text} is not in:\n{page}");
        }
    }

    #[test]
    fn nothing_in_an_input_becomes_markup() {
        let hostile = "</td><script>alert(1)</script><img src=x onerror='alert(1)' \"&\u{202e}";
        let (page, harmless) = (fleet(Some(hostile)).to_html(), fleet(Some("x")).to_html());
        assert!(page.matches("&lt;script&gt;").count() > 40, "{page}");
        for mark in ["<", ">", "\"", "<script"] {
            assert_eq!(page.matches(mark).count(), harmless.matches(mark).count(), "{mark}");
        }
        assert!(!page.contains('\u{202e}'));
    }

    #[test]
    fn the_page_runs_its_own_script_and_loads_nothing() {
        let page = fleet(None).to_html();
        let (_, rest) = page.split_once("<script>").unwrap();
        let (script, rest) = rest.split_once("</script>").unwrap();
        assert!(!rest.contains("<script"));
        let (_, rest) = page.split_once("<style>").unwrap();
        let (style, _) = rest.split_once("</style>").unwrap();
        let policy = format!(
            "content=\"default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'\"",
            sha256_base64(style),
            sha256_base64(script)
        );
        assert!(page.contains(&policy), "{policy}");
        for mark in [" onclick", " style=", " src=", "http:", "https:", "@import", "url("] {
            assert!(!page.contains(mark), "{mark}");
        }
    }

    #[test]
    fn without_answers_the_page_says_that_nothing_is_known() {
        let mut newest = Newest::default();
        newest.add(example());
        let page = Fleet::of(&newest, &Surroundings::default(), "2026-01-04T00:00:00Z".parse().unwrap()).to_html();
        assert_eq!(page.matches("Not known: no answer of EC2 was given").count(), 2);
        assert!(page.contains("Not compared: no EMR security configuration was given"));
    }
}
