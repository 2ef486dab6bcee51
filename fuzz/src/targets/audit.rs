//! Audit reports: the files that somebody hands to `audit convert` and `audit fleet`.

use luks_agent::audit::{AuditReport, asff, ocsf};

pub(crate) fn run(data: &[u8]) -> String {
    let report = match AuditReport::read(data) {
        Ok(report) => report,
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 4_000, "a long error: {said}");
            return said;
        }
    };
    assert_eq!(report.inconsistency(), None);
    let written = serde_json::to_vec(&report).expect("JSON");
    assert_eq!(AuditReport::read(&written).expect("what was written can be read"), report);
    let page = report.to_html();
    assert!(page.ends_with("</html>\n") && !page.contains("<script") && !page.contains("<img"), "{page}");
    assert_eq!(ocsf(&report)["class_uid"], 2003);
    for batch in asff([&report].into_iter()).iter().flatten() {
        let finding = &batch.findings[0];
        assert!(finding.to_string().len() <= 240_000);
        assert!(finding["Resources"].as_array().is_some_and(|resources| (1..=32).contains(&resources.len())));
    }
    format!("{:?} {:?}", report.verdict, report.disks.iter().map(|disk| disk.verdict).max())
}
