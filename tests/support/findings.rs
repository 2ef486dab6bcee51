//! Checks of audit reports, and of what is made of them, against what the owners of the formats publish: `tests/fixtures/audit/README.md`
//! says where that is from.

use std::fs;
use std::process::Command;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::localstack::LocalStack;

/// A file of the checkout.
pub fn read(path: &str) -> String {
    let path = super::project_dir().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn fixture(name: &str) -> Value {
    serde_json::from_str(&read(&format!("tests/fixtures/audit/{name}.json"))).unwrap()
}

static ASFF: LazyLock<Value> = LazyLock::new(|| fixture("asff"));
static OCSF: LazyLock<Value> = LazyLock::new(|| fixture("ocsf"));

/// Checks a value against a shape of botocore.
fn check_shape(model: &Value, shape: &str, limit: Option<u64>, value: &Value, at: &str) {
    let rules = &model["shapes"][shape];
    let within = |count: usize, what: &str| {
        let count = count as u64;
        let max = rules["max"].as_u64().into_iter().chain(limit).min().unwrap_or(u64::MAX);
        assert!(count <= max, "{at}: {count} {what}, at most {max}");
        assert!(count >= rules["min"].as_u64().unwrap_or(0), "{at}: {count} {what}");
    };
    match rules["type"].as_str().unwrap_or_else(|| panic!("{at}: no shape {shape}")) {
        "structure" => {
            let object = value.as_object().unwrap_or_else(|| panic!("{at}: no object: {value}"));
            for required in rules["required"].as_array().into_iter().flatten() {
                assert!(object.contains_key(required.as_str().unwrap()), "{at}: without {required}");
            }
            for (name, value) in object {
                let member = &rules["members"][name];
                let shape_of = member["shape"].as_str().unwrap_or_else(|| panic!("{at}: {shape} has no {name}"));
                let limit = model["lengths"][format!("{shape}.{name}")].as_u64();
                check_shape(model, shape_of, limit, value, &format!("{at}/{name}"));
            }
        }
        "list" => {
            let items = value.as_array().unwrap_or_else(|| panic!("{at}: no list: {value}"));
            within(items.len(), "items");
            for (index, item) in items.iter().enumerate() {
                check_shape(model, rules["member"]["shape"].as_str().unwrap(), None, item, &format!("{at}/{index}"));
            }
        }
        "map" => {
            let object = value.as_object().unwrap_or_else(|| panic!("{at}: no map: {value}"));
            for (name, value) in object {
                check_shape(model, rules["key"]["shape"].as_str().unwrap(), None, &json!(name), at);
                check_shape(model, rules["value"]["shape"].as_str().unwrap(), None, value, &format!("{at}/{name}"));
            }
        }
        "string" => {
            let text = value.as_str().unwrap_or_else(|| panic!("{at}: no string: {value}"));
            within(text.chars().count(), "characters");
            if let Some(words) = rules["enum"].as_array() {
                assert!(words.contains(value), "{at}: {text} is none of {words:?}");
            }
            if let Some(pattern) = rules["pattern"].as_str() {
                assert_eq!(pattern, r".*\S.*", "a pattern that this test does not know");
                assert!(text.lines().any(|line| !line.trim().is_empty()), "{at}: blank");
            }
        }
        "integer" => assert!(value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()), "{at}: {value}"),
        "double" => assert!(value.is_number(), "{at}: {value}"),
        "boolean" => assert!(value.is_boolean(), "{at}: {value}"),
        other => panic!("{at}: a type that this test does not know: {other}"),
    }
}

/// Checks a finding against the API's model and the limits that are in its guide only.
pub fn check_asff(finding: &Value) {
    check_shape(&ASFF, "BatchImportFindingsRequest", None, &json!({"Findings": [finding]}), "");
    // as `aws` sends it: Python escapes everything that is not ASCII
    let sent: usize = finding.to_string().chars().map(|c| if c.is_ascii() { 1 } else { 6 * c.len_utf16() }).sum();
    assert!(sent <= 240_000, "a finding of {sent} bytes");
    let fields = finding["ProductFields"].as_object().unwrap();
    assert!(fields.len() <= 50);
    for (name, value) in fields {
        assert!(name.len() <= 128 && value.as_str().unwrap().len() <= 2048, "{name}");
    }
    for resource in finding["Resources"].as_array().unwrap() {
        assert!(resource["Id"].as_str().unwrap().len() <= 512);
        for (name, value) in resource["Details"]["Other"].as_object().unwrap() {
            assert!(name.len() <= 128 && value.as_str().unwrap().len() <= 2048, "{name}");
        }
    }
    for time in ["CreatedAt", "UpdatedAt", "LastObservedAt"] {
        finding[time].as_str().unwrap().parse::<Timestamp>().unwrap();
    }
}

/// Checks an object of OCSF: the attributes that it has, and those that it must have.
fn check_object(schema: &Value, rules: &Value, profiles: &[Value], value: &Value, at: &str) {
    let object = value.as_object().unwrap_or_else(|| panic!("{at}: no object: {value}"));
    let attributes = rules["attributes"].as_object().unwrap();
    for (name, rule) in attributes {
        let applies = rule.get("profile").is_none_or(|profile| profiles.contains(profile));
        assert!(applies || !object.contains_key(name), "{at}: {name} without its profile");
        assert!(!applies || rule["requirement"] != "required" || object.contains_key(name), "{at}: without {name}");
    }
    if let Some(names) = rules["constraints"]["at_least_one"].as_array() {
        assert!(names.iter().any(|name| object.contains_key(name.as_str().unwrap())), "{at}: none of {names:?}");
    }
    for (name, value) in object {
        let rule = attributes.get(name).unwrap_or_else(|| panic!("{at}: {name} is not in the schema"));
        let at = format!("{at}/{name}");
        let values = match rule["is_array"].as_bool() {
            Some(true) => value.as_array().unwrap_or_else(|| panic!("{at}: no list")).iter().collect(),
            _ => vec![value],
        };
        for value in values {
            check_attribute(schema, rule, profiles, value, &at);
        }
    }
}

fn check_attribute(schema: &Value, rule: &Value, profiles: &[Value], value: &Value, at: &str) {
    let kind = rule["type"].as_str().unwrap();
    if let Some(words) = rule["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is none of {words:?}");
    }
    match schema["types"][kind].as_str().unwrap_or(kind) {
        "object_t" => {
            let name = rule["object_type"].as_str().unwrap();
            check_object(schema, &schema["objects"][name], profiles, value, at);
        }
        "string_t" => assert!(value.is_string(), "{at}: {value}"),
        "integer_t" | "long_t" => assert!(value.is_i64() || value.is_u64(), "{at}: {value}"),
        "boolean_t" => assert!(value.is_boolean(), "{at}: {value}"),
        "json_t" => {}
        other => panic!("{at}: a type that this test does not know: {other}"),
    }
}

/// Checks a finding against the published class of OCSF.
pub fn check_ocsf(finding: &Value) {
    let schema = &*OCSF;
    assert_eq!(finding["metadata"]["version"], schema["version"]);
    let profiles = finding["metadata"]["profiles"].as_array().unwrap();
    check_object(schema, &schema["class"], profiles, finding, "");
    let (class, activity) = (finding["class_uid"].as_u64().unwrap(), finding["activity_id"].as_u64().unwrap());
    assert_eq!(finding["type_uid"], class * 100 + activity);
}

/// Checks an item of inventory against the limits of `InventoryItem` in the API reference of Systems Manager, of which the SSM Agent makes it.
pub fn check_inventory(item: &Value) {
    assert!(item["TypeName"].as_str().unwrap().starts_with("Custom:"));
    assert_eq!(item["SchemaVersion"], "1.0");
    let attributes = item["Content"].as_object().unwrap();
    assert!(attributes.len() <= 50);
    for (name, value) in attributes {
        assert!((1..=64).contains(&name.len()), "{name}");
        let value = value.as_str().unwrap_or_else(|| panic!("{name} is no text: {value}"));
        assert!(!value.is_empty() && value.chars().count() <= 4096, "{name}");
    }
}

/// Checks a report against the published JSON Schema, with the validator that LocalStack brings along.
pub fn check_schema(report: &Value) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    fs::write(&file, report.to_string()).unwrap();
    let tests = super::project_dir();
    let checked = Command::new(format!("{}/bin/python", LocalStack::find().venv()))
        .arg(tests.join("tests/kernel/valid_report.py"))
        .args([tests.join("docs/schema/audit-report.json"), file])
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
