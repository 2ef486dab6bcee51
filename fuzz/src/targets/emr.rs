//! EMR security configurations: the file that somebody hands to `emr check` and `emr import`.

use std::path::Path;

use luks_agent::config::{Config, Policy};
use luks_agent::emr::{
    CONTROLS, Checked, CheckedFile, Demands, DiskEncryption, Document, Import, Judgement, ProblemKind, sarif,
};
use serde_json::Value;

pub(crate) fn run(data: &[u8]) -> String {
    let documents = match Document::read_all(data) {
        Ok(documents) => documents,
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 4_000, "a long error: {said}");
            return said;
        }
    };
    assert!(!documents.is_empty(), "neither a document nor an error");
    let mut said = String::new();
    for document in &documents {
        let judgement = Judgement::of(document);
        assert_eq!(judgement.controls.len(), CONTROLS.len());
        assert!(judgement.problems.len() <= 101, "{} problems", judgement.problems.len());
        import(document, &judgement);
        said =
            format!("{} {:?}", judgement.local_disks.encryption, judgement.problems.first().map(|problem| problem.id));
    }
    let text = String::from_utf8(data.to_vec()).expect("it was read as UTF-8");
    let lines = text.lines().count().max(1);
    let demands = Demands { required: vec!["EMR.3".to_owned()], local_disks_by_agent: data.len().is_multiple_of(2) };
    let checked = Checked::new(vec![CheckedFile::new("file.json".to_owned(), text, documents)], Vec::new(), demands);
    let table = checked.to_string();
    assert!(table.chars().all(|c| c == '\n' || !c.is_control()), "a control character in the table");
    assert_eq!(checked.exit_code() == 0, checked.complaints().is_empty());
    for result in sarif(&checked)["runs"][0]["results"].as_array().expect("results") {
        let line = result["locations"][0]["physicalLocation"]["region"]["startLine"].as_u64().expect("a line");
        assert!((1..=lines).contains(&usize::try_from(line).expect("a number")), "line {line} of {lines}");
    }
    said
}

/// Whatever is taken over is valid configuration that says what the document says, and nothing else.
fn import(document: &Document, judgement: &Judgement) {
    let Ok(import) = Import::of(document, "file.json") else { return };
    assert!(judgement.problems.iter().all(|problem| problem.kind == ProblemKind::Doubtful));
    let drop_in = import.to_string();
    let config = Config::from_text(Path::new("60-emr.toml"), &drop_in).unwrap_or_else(|e| panic!("{e}:\n{drop_in}"));
    let ebs = if judgement.local_disks.encryption == DiskEncryption::Luks { Policy::Encrypt } else { Policy::Ignore };
    assert!(judgement.local_disks.encryption != DiskEncryption::CustomProvider);
    assert_eq!((config.volumes.instance_store, config.volumes.ebs), (Policy::Encrypt, ebs));
    assert_eq!(config.kms.key_id, judgement.local_disks.key);
    assert!(config.exec.is_none() && config.volumes.rules.is_empty(), "{drop_in}");
    let values: Value = serde_json::to_value(&import).expect("JSON");
    let entries = values["not_done"].as_array().expect("a list").iter().flat_map(|part| part["entries"].as_array());
    let listed = drop_in.lines().filter(|line| line.starts_with("#     /")).count();
    assert_eq!(listed, entries.map(Vec::len).sum::<usize>(), "{drop_in}");
}
