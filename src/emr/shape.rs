//! Compares a document with the schema: unknown properties, wrong types, unknown modes.

use serde_json::{Map, Value};

use super::pointer::Pointer;
use super::problem::{Problem, ProblemKind, Problems};
use super::schema::{DOCUMENT, Field, Kind, nearest};
use super::view::{as_boolean, is_intrinsic, shown, type_of};

/// Returns what in a document the schema does not know.
pub(super) fn problems(document: &Value) -> Problems {
    let mut found = Problems::default();
    let at = Pointer::default();
    match document.as_object() {
        Some(object) if object.is_empty() => found.add(ProblemKind::Invalid, || {
            Problem::invalid(
                "empty-document",
                at,
                "the document is empty, so EMR would encrypt nothing; expected at least EncryptionConfiguration",
            )
        }),
        Some(object) => walk_object(object, &DOCUMENT, &at, &mut found),
        None => found.add(ProblemKind::Invalid, || wrong_type(document, "an object", at)),
    }
    found
}

fn walk_object(object: &Map<String, Value>, fields: &'static [Field], at: &Pointer, found: &mut Problems) {
    for (key, value) in object {
        let place = at.child(key);
        match fields.iter().find(|field| field.name == key) {
            Some(field) => walk(value, field, &field.kind, &place, found),
            None => found.add(ProblemKind::Rejected, || unknown_property(key, fields, place)),
        }
    }
}

fn walk(value: &Value, field: &Field, kind: &'static Kind, at: &Pointer, found: &mut Problems) {
    if is_intrinsic(value) {
        let how_bad = if matches!(kind, Kind::Text) { ProblemKind::Doubtful } else { ProblemKind::Invalid };
        found.add(how_bad, || unresolved(value, how_bad, at.clone()));
        return;
    }
    match (kind, value) {
        (Kind::Flag, Value::Bool(_)) | (Kind::Text, Value::String(_)) => {}
        (Kind::Flag, Value::String(text)) if as_boolean(value).is_some() => found.add(ProblemKind::Doubtful, || Problem::doubtful(
            "string-boolean",
            at.clone(),
            format!(
                "the string \"{text}\" in place of a boolean: EMR takes it, but checkers that expect a boolean fail or pass for the wrong reason; write {}",
                text.to_ascii_lowercase()
            ),
        )),
        (Kind::Choice(choices), Value::String(text)) => {
            if !choices.contains(&text.as_str()) {
                found.add(ProblemKind::Invalid, || unknown_choice(text, field, choices, at.clone()));
            }
        }
        (Kind::Number(least, most), Value::Number(number)) => match number.as_u64() {
            Some(number) if (*least..=*most).contains(&number) => {}
            _ => found.add(ProblemKind::Invalid, || Problem::invalid(
                "out-of-range",
                at.clone(),
                format!("{} is {number}, expected a whole number {}", field.name, range(*least, *most)),
            )),
        },
        (Kind::Object(fields), Value::Object(object)) => walk_object(object, fields, at, found),
        (Kind::List(kind), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, field, kind, &at.item(index), found);
            }
        }
        (Kind::Flag, other) => found.add(ProblemKind::Invalid, || wrong_type(other, "true or false", at.clone())),
        (Kind::Text | Kind::Choice(_), other) => found.add(ProblemKind::Invalid, || wrong_type(other, "a string", at.clone())),
        (Kind::Number(..), other) => found.add(ProblemKind::Invalid, || wrong_type(other, "a whole number", at.clone())),
        (Kind::Object(_), other) => found.add(ProblemKind::Invalid, || wrong_type(other, "an object", at.clone())),
        (Kind::List(_), other) => found.add(ProblemKind::Invalid, || wrong_type(other, "a list", at.clone())),
    }
}

fn range(least: u64, most: u64) -> String {
    match most {
        u64::MAX => format!("of at least {least}"),
        most => format!("from {least} to {most}"),
    }
}

fn wrong_type(value: &Value, expected: &str, at: Pointer) -> Problem {
    Problem::invalid("wrong-type", at, format!("expected {expected}, found {}: {}", type_of(value), shown(value)))
}

fn unknown_property(key: &str, fields: &[Field], at: Pointer) -> Problem {
    let names: Vec<&'static str> = fields.iter().map(|field| field.name).collect();
    let what_else = match nearest(key, &names) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("expected one of {}", names.join(", ")),
    };
    let key = shown(&Value::from(key)).replace('"', "'");
    let message = format!("unknown property {key}: EMR refuses it as 'object has invalid properties'; {what_else}");
    Problem::rejected("unknown-property", at, message)
}

fn unknown_choice(text: &str, field: &Field, choices: &[&'static str], at: Pointer) -> Problem {
    let text_shown = shown(&Value::from(text)).replace('"', "'");
    let near = nearest(text, choices).map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
    let expected = choices.join(", ");
    Problem::invalid(
        "unknown-mode",
        at,
        format!("unknown {} {text_shown}, expected one of {expected}{near}", field.name),
    )
}

fn unresolved(value: &Value, kind: ProblemKind, at: Pointer) -> Problem {
    let what_to_do = match kind {
        ProblemKind::Doubtful => ", so it is not judged here",
        ProblemKind::Invalid | ProblemKind::Rejected => {
            "; check the answer of 'aws emr describe-security-configuration'"
        }
    };
    let message = format!("{} is known only after the deployment{what_to_do}", shown(value));
    Problem { kind, id: "unresolved", at, message }
}
