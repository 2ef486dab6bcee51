//! The JSON Schema of an audit report, which is published in `docs/schema` and made from the types.

use std::path::Path;
use std::{env, fs};

use schemars::schema_for;
use serde_json::{Value, json};

use super::report::{AuditReport, SCHEMA, SCHEMA_VERSION};

const FILE: &str = "docs/schema/audit-report.json";

/// Says of every object that all its fields are there, which is so in each report, and that more may come, which raise no version.
fn describe_objects(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
                let required: Vec<&String> = properties.keys().collect();
                let required = json!(required);
                fields.insert("required".to_owned(), required);
                fields.remove("additionalProperties");
            }
            fields.values_mut().for_each(describe_objects);
        }
        Value::Array(list) => list.iter_mut().for_each(describe_objects),
        // the comments are about the types of Rust
        Value::String(text) => *text = text.replace("`None`", "null"),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn generated() -> String {
    let mut schema = schema_for!(AuditReport).to_value();
    describe_objects(&mut schema);
    schema["title"] = json!("luks-agent audit report");
    schema["properties"]["schema"] = json!({"const": SCHEMA, "description": "Name of this schema."});
    let version = "Version of this schema. It grows when a field changes its meaning or is removed.";
    schema["properties"]["schema_version"] = json!({"const": SCHEMA_VERSION, "description": version});
    format!("{schema:#}\n")
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let generated = generated();
    if env::var_os("RENEW_SCHEMA").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &generated).unwrap();
    }
    let published = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        published == generated,
        "{FILE} is not the schema of AuditReport; renew it: run this test with RENEW_SCHEMA=1"
    );
}
