//! Finds security configurations in what tools hand out.

use serde_json::{Map, Value, json};

use super::document::{Document, Form, MAX_BYTES, MAX_DOCUMENTS};
use super::error::ReadError;
use super::json;
use super::pointer::Pointer;
use super::schema::{DOCUMENT, ENCRYPTION_FIELDS, nearest};
use super::text::{self, BYTE_ORDER_MARK};
use super::view::{is_intrinsic, shown, type_of};

const RESOURCE: &str = "AWS::EMR::SecurityConfiguration";
const RESOURCE_ON_EKS: &str = "AWS::EMRContainers::SecurityConfiguration";
const TERRAFORM_RESOURCE: &str = "aws_emr_security_configuration";

/// Keys that have a security configuration somewhere below them.
const HOLDERS: [&str; 6] =
    ["SecurityConfiguration", "Resources", "Properties", "planned_values", "values", "configuration"];

/// Keys that only another product has.
const ON_EKS: [&str; 4] = [
    "securityConfigurationData",
    "encryptionConfiguration",
    "authorizationConfiguration",
    "atRestEncryptionConfiguration",
];
const SERVERLESS: [&str; 3] = ["diskEncryptionConfiguration", "identityCenterConfiguration", "applicationId"];

impl Document {
    /// Reads all security configurations of a file.
    ///
    /// # Errors
    /// If it is not JSON, or there is something else in it.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, ReadError> {
        if bytes.len() > MAX_BYTES {
            return Err(ReadError::TooLarge);
        }
        unwrap(text::parse(text::decode(bytes)?)?)
    }
}

/// Returns the security configurations in a value, which is the whole file.
fn unwrap(value: Value) -> Result<Vec<Document>, ReadError> {
    let at = Pointer::default();
    match value {
        // a document that was made a string twice
        Value::String(text) => of_value(parse_text(&at, &text)?, at, true),
        Value::Array(items) if items.is_empty() => Err(ReadError::NoObject { at, found: "an empty list" }),
        Value::Array(items) => {
            let mut found = Vec::new();
            for (index, item) in items.into_iter().enumerate() {
                add(&mut found, of_value(item, at.item(index), false)?)?;
            }
            Ok(found)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => of_value(value, at, false),
    }
}

/// Adds documents to those of the same file.
fn add(found: &mut Vec<Document>, more: Vec<Document>) -> Result<(), ReadError> {
    found.extend(more);
    match found.get(MAX_DOCUMENTS) {
        Some(document) => Err(ReadError::TooMany { at: document.at.clone() }),
        None => Ok(()),
    }
}

fn parse_text(at: &Pointer, text: &str) -> Result<Value, ReadError> {
    if text.starts_with(BYTE_ORDER_MARK) {
        return Err(ReadError::MarkInText { at: at.clone() });
    }
    json::parse(text).map_err(|e| ReadError::JsonInText { text_at: at.clone(), at: e.at, message: e.message })
}

fn of_value(value: Value, at: Pointer, is_text: bool) -> Result<Vec<Document>, ReadError> {
    match value {
        Value::Object(object) => of_object(object, at, is_text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(ReadError::NoObject { at, found: type_of(&value) })
        }
    }
}

fn of_object(object: Map<String, Value>, at: Pointer, is_text: bool) -> Result<Vec<Document>, ReadError> {
    let has = |key: &str| object.contains_key(key);
    let is = |key: &str, text: &str| object.get(key).and_then(Value::as_str) == Some(text);
    if has("SecurityConfigurations") {
        return Err(ReadError::OnlyNames { at: at.child("SecurityConfigurations") });
    }
    if let Some(key) = ON_EKS.into_iter().find(|key| has(key)) {
        return Err(ReadError::OtherProduct { at: at.child(key), product: "EMR on EKS" });
    }
    if let Some(key) = SERVERLESS.into_iter().find(|key| has(key)) {
        return Err(ReadError::OtherProduct { at: at.child(key), product: "EMR Serverless" });
    }
    refuse_two(&object, &at)?;
    if has("Resources") {
        return of_template(&object, &at);
    }
    if is("Type", RESOURCE) || is("Type", RESOURCE_ON_EKS) {
        return of_resource(&object, &at, None).map(|found| vec![found]);
    }
    for key in ["planned_values", "values"] {
        if let Some(root) = object.get(key).and_then(|values| values.get("root_module")) {
            return of_plan(root, &at.child(key).child("root_module"));
        }
    }
    if is("resourceType", RESOURCE)
        || object.get("configuration").is_some_and(|c| c.get("SecurityConfiguration").is_some())
    {
        return of_config_item(&object, &at).map(|found| vec![found]);
    }
    if let Some(inner) = object.get("SecurityConfiguration") {
        let form = if has("CreationDateTime") { Form::DescribeAnswer } else { Form::CreateInput };
        let name = object.get("Name").and_then(Value::as_str).map(str::to_owned);
        return of_property(inner, at.child("SecurityConfiguration"), form, name).map(|found| vec![found]);
    }
    let document =
        |form, value| vec![Document { form, name: None, at: at.clone(), is_text, unchecked: Vec::new(), value }];
    if object.is_empty() || DOCUMENT.iter().any(|field| has(field.name)) {
        return Ok(document(Form::Document, Value::Object(object)));
    }
    if ENCRYPTION_FIELDS.iter().any(|field| has(field.name)) {
        return Ok(document(Form::EncryptionConfiguration, json!({ "EncryptionConfiguration": object })));
    }
    Err(unknown(&object, at))
}

/// Refuses an object with two security configurations, or a part of one beside what holds one: only one of them would be read.
fn refuse_two(object: &Map<String, Value>, at: &Pointer) -> Result<(), ReadError> {
    let has = |key: &&str| object.contains_key(*key);
    let mut holders = HOLDERS.into_iter().filter(has);
    let Some(holder) = holders.next() else { return Ok(()) };
    let part = DOCUMENT.iter().chain(&ENCRYPTION_FIELDS).map(|field| field.name).find(has);
    // a plan has the source text as configuration
    let second = holders.find(|second| (holder, *second) != ("planned_values", "configuration"));
    match part.or(second) {
        Some(other) => Err(ReadError::Two { at: at.child(other), holder }),
        None => Ok(()),
    }
}

/// The value of a property that has a document, as an object or as a text.
fn of_property(value: &Value, at: Pointer, form: Form, name: Option<String>) -> Result<Document, ReadError> {
    let (inner, is_text) = match value.as_str() {
        Some(text) => (parse_text(&at, text)?, true),
        None => (value.clone(), false),
    };
    if is_intrinsic(&inner) {
        return Err(ReadError::Unresolved { at, what: shown(&inner) });
    }
    match inner {
        Value::Object(object) => {
            // nothing but the document itself may be in there
            let mut found = of_object(object, at.clone(), is_text)?;
            match found.pop() {
                Some(document) if found.is_empty() && document.form == Form::Document => {
                    Ok(Document { form, name, at, ..document })
                }
                _ => Err(ReadError::Without { at, expected: "EncryptionConfiguration or another part of a document" }),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(ReadError::NoObject { at, found: type_of(&inner) })
        }
    }
}

fn of_template(template: &Map<String, Value>, at: &Pointer) -> Result<Vec<Document>, ReadError> {
    let at = at.child("Resources");
    let resources = template.get("Resources").and_then(Value::as_object);
    let resources = resources.ok_or_else(|| ReadError::NoObject { at: at.clone(), found: "something else" })?;
    let mut found = Vec::new();
    let mut on_eks = Vec::new();
    for (name, resource) in resources {
        let kind = resource.get("Type").and_then(Value::as_str);
        match (kind, resource.as_object()) {
            (Some(RESOURCE), Some(resource)) => {
                add(&mut found, vec![of_resource(resource, &at.child(name), Some(name))?])?;
            }
            (Some(RESOURCE_ON_EKS), _) => on_eks.push(at.child(name)),
            _ => {}
        }
    }
    match (found.first_mut(), on_eks.first()) {
        (Some(first), _) => {
            first.unchecked = on_eks;
            Ok(found)
        }
        (None, Some(at)) => Err(ReadError::OtherProduct { at: at.clone(), product: "EMR on EKS" }),
        (None, None) => Err(ReadError::Without { at, expected: "resource of type AWS::EMR::SecurityConfiguration" }),
    }
}

fn of_resource(resource: &Map<String, Value>, at: &Pointer, logical_id: Option<&str>) -> Result<Document, ReadError> {
    if resource.get("Type").and_then(Value::as_str) == Some(RESOURCE_ON_EKS) {
        return Err(ReadError::OtherProduct { at: at.clone(), product: "EMR on EKS" });
    }
    refuse_two(resource, at)?;
    let properties = resource.get("Properties");
    if let Some(properties) = properties.and_then(Value::as_object) {
        refuse_two(properties, &at.child("Properties"))?;
    }
    let name = properties.and_then(|properties| properties.get("Name")).and_then(Value::as_str);
    let name = logical_id.or(name).map(str::to_owned);
    let at = at.child("Properties").child("SecurityConfiguration");
    match properties.and_then(|properties| properties.get("SecurityConfiguration")) {
        Some(value) => of_property(value, at, Form::CloudFormation, name),
        None => Err(ReadError::Without { at, expected: "property SecurityConfiguration" }),
    }
}

fn of_config_item(item: &Map<String, Value>, at: &Pointer) -> Result<Document, ReadError> {
    let name = item.get("resourceName").or_else(|| item.get("resourceId")).and_then(Value::as_str).map(str::to_owned);
    let at = at.child("configuration");
    let configuration = match item.get("configuration") {
        Some(Value::String(text)) => parse_text(&at, text)?,
        Some(other) => other.clone(),
        None => Value::Null,
    };
    let is_text = item.get("configuration").is_some_and(Value::is_string);
    if let Some(configuration) = configuration.as_object() {
        refuse_two(configuration, &at)?;
    }
    match configuration.get("SecurityConfiguration") {
        Some(value) if is_text => {
            let found = of_property(value, at.clone(), Form::ConfigItem, name)?;
            Ok(Document { at, is_text, ..found })
        }
        Some(value) => of_property(value, at.child("SecurityConfiguration"), Form::ConfigItem, name),
        None => Err(ReadError::Without { at, expected: "SecurityConfiguration" }),
    }
}

fn of_plan(module: &Value, at: &Pointer) -> Result<Vec<Document>, ReadError> {
    let found = of_module(module, at)?;
    match found.is_empty() {
        true => Err(ReadError::Without { at: at.clone(), expected: "resource of type aws_emr_security_configuration" }),
        false => Ok(found),
    }
}

fn of_module(module: &Value, at: &Pointer) -> Result<Vec<Document>, ReadError> {
    let list = |key: &str| module.get(key).and_then(Value::as_array).into_iter().flatten().enumerate();
    let mut found = Vec::new();
    for (index, resource) in list("resources") {
        if resource.get("type").and_then(Value::as_str) != Some(TERRAFORM_RESOURCE) {
            continue;
        }
        let at = at.child("resources").item(index).child("values").child("configuration");
        let name = resource.get("address").and_then(Value::as_str).map(str::to_owned);
        let document = match resource.pointer("/values/configuration") {
            Some(value @ Value::String(_)) => of_property(value, at, Form::Terraform, name)?,
            Some(Value::Null) | None => {
                return Err(ReadError::Unresolved { at, what: "known only after apply".to_owned() });
            }
            Some(other) => return Err(ReadError::NoObject { at, found: type_of(other) }),
        };
        add(&mut found, vec![document])?;
    }
    for (index, child) in list("child_modules") {
        add(&mut found, of_module(child, &at.child("child_modules").item(index))?)?;
    }
    Ok(found)
}

fn unknown(object: &Map<String, Value>, at: Pointer) -> ReadError {
    let names: Vec<&str> = DOCUMENT.iter().map(|field| field.name).collect();
    let quoted = |name: &str| shown(&Value::from(name)).replace('"', "'");
    let found: Vec<String> = object.keys().take(3).map(|key| quoted(key)).collect();
    let near = object.keys().find_map(|key| nearest(key, &names));
    ReadError::Unknown {
        at,
        unknown: found.join(", "),
        nearest: near.map_or_else(String::new, |near| format!(", did you mean '{near}'?")),
        expected: names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Document>, String> {
        Document::read_all(text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn reads_every_form() {
        let inner = r#"{"EncryptionConfiguration": {"EnableAtRestEncryption": true}}"#;
        let text = Value::from(inner).to_string();
        for (file, form, at) in [
            (inner.to_owned(), Form::Document, ""),
            (format!("\u{feff}{inner}"), Form::Document, ""),
            (text.clone(), Form::Document, ""),
            (format!("[{inner}]"), Form::Document, "/0"),
            (format!(r#"{{"SecurityConfiguration": {text}}}"#), Form::CreateInput, "/SecurityConfiguration"),
            (
                format!(r#"{{"Type": "AWS::EMR::SecurityConfiguration", "Properties": {{"SecurityConfiguration": {text}}}}}"#),
                Form::CloudFormation,
                "/Properties/SecurityConfiguration",
            ),
            (
                format!(r#"{{"configuration": {{"SecurityConfiguration": {inner}}}}}"#),
                Form::ConfigItem,
                "/configuration/SecurityConfiguration",
            ),
            (
                json!({"resourceType": RESOURCE, "resourceName": "n", "configuration": json!({"SecurityConfiguration": inner}).to_string()})
                    .to_string(),
                Form::ConfigItem,
                "/configuration",
            ),
            (
                json!({"values": {"root_module": {"child_modules": [{"resources": [
                    {"type": TERRAFORM_RESOURCE, "address": "a.b", "values": {"configuration": inner}}]}]}}})
                .to_string(),
                Form::Terraform,
                "/values/root_module/child_modules/0/resources/0/values/configuration",
            ),
        ] {
            let [found] = read(&file).unwrap_or_else(|e| panic!("{file}: {e}")).try_into().unwrap();
            assert_eq!((found.form, found.at.as_str()), (form, at), "{file}");
            assert_eq!(found.value, serde_json::from_str::<Value>(inner).unwrap(), "{file}");
        }
    }

    #[test]
    fn refuses_what_is_something_else_and_says_what() {
        for (file, said) in [
            ("", "EOF while parsing a value at line 1 column 0 (at the top level); expected one JSON document"),
            ("Resources:\n", "expected value at line 1 column 1 (at the top level)"),
            ("[]", "expected an object at the top level, found an empty list"),
            ("[7]", "expected an object at /0, found a number"),
            (
                "\"a: b\"",
                "the text at the top level is not a JSON document: expected value at line 1 column 1 of that text",
            ),
            (r#"{"Cluster": {}}"#, "found 'Cluster' at the top level; expected one of EncryptionConfiguration,"),
            (r#"{"EncryptionConfig": {}}"#, "did you mean 'EncryptionConfiguration'?"),
            (r#"{"encryptionConfiguration": {}}"#, "at /encryptionConfiguration is a configuration of EMR on EKS"),
            (r#"{"applicationId": "x"}"#, "EMR Serverless"),
            (r#"{"SecurityConfigurations": []}"#, "run 'aws emr describe-security-configuration --name NAME'"),
            (
                r#"{"SecurityConfiguration": {"Ref": "X"}}"#,
                "at /SecurityConfiguration is not known yet: {\"Ref\":\"X\"}",
            ),
            (r#"{"SecurityConfiguration": "nodes"}"#, "the text at /SecurityConfiguration is not a JSON document"),
            (r#"{"SecurityConfiguration": {"SecurityConfiguration": {}}}"#, "no security configuration found"),
            (
                r#"{"Resources": {"A": {"Type": "AWS::EMR::Cluster"}}}"#,
                "no resource of type AWS::EMR::SecurityConfiguration",
            ),
            (r#"{"Resources": {"A": {"Type": "AWS::EMRContainers::SecurityConfiguration"}}}"#, "at /Resources/A"),
            (r#"{"planned_values": {"root_module": {}}}"#, "no resource of type aws_emr_security_configuration"),
        ] {
            let error = read(file).unwrap_err();
            assert!(error.contains(said), "{file}: {error}");
        }
        assert_eq!(
            Document::read_all(b"{\"a\": \xff}").unwrap_err().to_string(),
            "not UTF-8 at byte 6; expected JSON in UTF-8"
        );
        let large = vec![b' '; MAX_BYTES + 1];
        assert!(Document::read_all(&large).unwrap_err().to_string().starts_with("larger than 16 MiB"));
    }

    #[test]
    fn refuses_a_document_beside_what_holds_one() {
        let type_ = r#""Type": "AWS::EMR::SecurityConfiguration""#;
        let resource = format!(r#"{type_}, "Properties": {{"SecurityConfiguration": {{}}}}"#);
        for (file, at) in [
            (
                r#"{"SecurityConfiguration": "{}", "EncryptionConfiguration": {}}"#.to_owned(),
                "/EncryptionConfiguration",
            ),
            (r#"{"Resources": {}, "AuthenticationConfiguration": {}}"#.to_owned(), "/AuthenticationConfiguration"),
            (
                r#"{"planned_values": {"root_module": {}}, "EnableAtRestEncryption": true}"#.to_owned(),
                "/EnableAtRestEncryption",
            ),
            (r#"[{"values": {}, "EncryptionConfiguration": {}}]"#.to_owned(), "/0/EncryptionConfiguration"),
            (r#"{"configuration": {}, "EncryptionConfiguration": {}}"#.to_owned(), "/EncryptionConfiguration"),
            (r#"{"SecurityConfiguration": "{}", "Resources": {}}"#.to_owned(), "/Resources"),
            (
                format!(r#"{{"Resources": {{"A": {{{resource}, "EncryptionConfiguration": {{}}}}}}}}"#),
                "/Resources/A/Enc",
            ),
            (
                format!(
                    r#"{{{type_}, "Properties": {{"SecurityConfiguration": {{}}, "EncryptionConfiguration": {{}}}}}}"#
                ),
                "/Properties/EncryptionConfiguration",
            ),
            (
                r#"{"configuration": {"SecurityConfiguration": {}, "EncryptionConfiguration": {}}}"#.to_owned(),
                "/configuration/EncryptionConfiguration",
            ),
        ] {
            let error = read(&file).unwrap_err();
            assert!(error.starts_with(&format!("found {at}")) && error.contains(" beside "), "{file}: {error}");
        }
        let plan = json!({"configuration": {"root_module": {}}, "planned_values": {"root_module": {"resources": [
            {"type": TERRAFORM_RESOURCE, "values": {"configuration": "{}"}}]}}});
        assert_eq!(read(&plan.to_string()).unwrap().len(), 1);
    }

    #[test]
    fn tells_a_configuration_of_emr_on_eks_beside_one_of_emr() {
        let template = json!({"Resources": {
            "A": {"Type": RESOURCE, "Properties": {"SecurityConfiguration": {"EncryptionConfiguration": {}}}},
            "B": {"Type": RESOURCE_ON_EKS}, "C": {"Type": RESOURCE_ON_EKS}}});
        let [document] = read(&template.to_string()).unwrap().try_into().unwrap();
        let told = super::super::judgement::problems(&document);
        let told = told.iter().find(|problem| problem.id == "other-product").unwrap();
        assert!(told.message.starts_with("/Resources/B and 1 more beside it is"), "{told}");
    }

    #[test]
    fn refuses_too_many_documents() {
        let list = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
        assert_eq!(read(&list(MAX_DOCUMENTS)).unwrap().len(), MAX_DOCUMENTS);
        let error = read(&list(MAX_DOCUMENTS + 5)).unwrap_err();
        assert!(error.starts_with("more than 10000 security configurations: one more at /10000"), "{error}");
        let resource = json!({"Type": RESOURCE, "Properties": {"SecurityConfiguration": {}}});
        let resources: Map<String, Value> = (0..=MAX_DOCUMENTS).map(|n| (n.to_string(), resource.clone())).collect();
        assert!(read(&json!({ "Resources": resources }).to_string()).unwrap_err().starts_with("more than 10000"));
    }

    #[test]
    fn a_key_twice_in_the_text_names_both_places() {
        let error =
            read(r#"{"Name": "x", "SecurityConfiguration": "{\"EncryptionConfiguration\": {\"A\": 1, \"A\": 1}}"}"#);
        let error = error.unwrap_err();
        assert!(error.contains("the text at /SecurityConfiguration"), "{error}");
        assert!(
            error.contains("duplicate key at line 1 column 40 of that text (at /EncryptionConfiguration/A)"),
            "{error}"
        );
    }
}
