//! Bundles of certificates: the zip file that somebody hands to `emr check --certificates`.

use jiff::Timestamp;
use luks_agent::certificates::{Bundle, CheckedBundle, KeyState, Region};
use luks_agent::emr::{Checked, Demands, sarif};

pub(crate) fn run(data: &[u8]) -> String {
    let bundle = match Bundle::read(data) {
        Ok(bundle) => bundle,
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 4_000, "a long error: {said}");
            return said;
        }
    };
    let regions: Vec<Region> = "eu-central-1".parse().into_iter().collect();
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let checked = CheckedBundle::new("certs.zip".to_owned(), &bundle, &regions, now);
    assert_eq!(checked.private_key == KeyState::Missing, format!("{bundle:?}").contains("key: None"));
    assert!(checked.findings.len() < 1_000, "{} findings", checked.findings.len());
    let said = format!("{} {:?}", checked.private_key, checked.findings.first().map(|finding| finding.id));
    let fails = checked.fails();
    let all = Checked::new(Vec::new(), vec![checked], Demands::default());
    assert_eq!((all.exit_code() == 1, all.complaints().is_empty()), (fails, !fails));
    let table = all.to_string();
    assert!(table.chars().all(|c| c == '\n' || !c.is_control()), "a control character in the table");
    let results = &sarif(&all)["runs"][0]["results"];
    assert_eq!(results.as_array().expect("results").iter().any(|result| result["level"] == "error"), fails);
    said
}
