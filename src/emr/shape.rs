//! Compares a document with the schema: unknown properties, wrong types, unknown modes.

use serde_json::{Map, Value};

use super::pointer::Pointer;
use super::problem::{Problem, ProblemKind, Problems};
use super::schema::{DOCUMENT, Field, Kind, nearest};
use super::view::{View, as_boolean, is_intrinsic, shown, type_of};

/// Returns what in a document the schema does not know.
pub(super) fn problems(document: View<'_>) -> Problems {
    let mut shape = Shape { has_functions: document.has_functions, found: Problems::default() };
    let at = Pointer::default();
    match document.value.as_object() {
        Some(object) if object.is_empty() => shape.found.add(ProblemKind::Invalid, || {
            Problem::invalid(
                "empty-document",
                at,
                "the document is empty, so EMR would encrypt nothing; expected at least EncryptionConfiguration",
            )
        }),
        Some(object) => shape.object(object, &DOCUMENT, &at),
        None => shape.found.add(ProblemKind::Invalid, || wrong_type(document.value, "an object", at)),
    }
    shape.found
}

/// A walk through a document.
#[derive(Debug)]
struct Shape {
    has_functions: bool,
    found: Problems,
}

impl Shape {
    fn object(&mut self, object: &Map<String, Value>, fields: &'static [Field], at: &Pointer) {
        for (key, value) in object {
            let place = at.child(key);
            match fields.iter().find(|field| field.name == key) {
                Some(field) => self.value(value, field, &field.kind, &place),
                None => self.found.add(ProblemKind::Rejected, || unknown_property(key, fields, place)),
            }
        }
    }

    fn value(&mut self, value: &Value, field: &Field, kind: &'static Kind, at: &Pointer) {
        let found = &mut self.found;
        if is_intrinsic(value) {
            match (self.has_functions, kind) {
                (false, _) => found.add(ProblemKind::Invalid, || wrong_type(value, expected(kind), at.clone())),
                (true, Kind::Text) => {
                    found.add(ProblemKind::Doubtful, || unresolved(value, ProblemKind::Doubtful, at.clone()));
                }
                (true, Kind::Flag | Kind::Choice(_) | Kind::Number(..) | Kind::Object(_) | Kind::List(_)) => {
                    found.add(ProblemKind::Invalid, || unresolved(value, ProblemKind::Invalid, at.clone()));
                }
            }
            return;
        }
        match (kind, value) {
            (Kind::Flag, Value::Bool(_)) | (Kind::Text, Value::String(_)) => {}
            (Kind::Flag, Value::String(text)) if as_boolean(value).is_some() => {
                found.add(ProblemKind::Doubtful, || string_boolean(text, at.clone()));
            }
            (Kind::Choice(choices), Value::String(text)) => {
                if !choices.contains(&text.as_str()) {
                    found.add(ProblemKind::Invalid, || unknown_choice(text, field, choices, at.clone()));
                }
            }
            (Kind::Number(least, most), Value::Number(number)) => match number.as_u64() {
                Some(number) if (*least..=*most).contains(&number) => {}
                _ => found.add(ProblemKind::Invalid, || {
                    let message =
                        format!("{} is {number}, expected a whole number {}", field.name, range(*least, *most));
                    Problem::invalid("out-of-range", at.clone(), message)
                }),
            },
            (Kind::Object(fields), Value::Object(object)) => self.object(object, fields, at),
            (Kind::List(kind), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(item, field, kind, &at.item(index));
                }
            }
            (kind, other) => found.add(ProblemKind::Invalid, || wrong_type(other, expected(kind), at.clone())),
        }
    }
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::Flag => "true or false",
        Kind::Text | Kind::Choice(_) => "a string",
        Kind::Number(..) => "a whole number",
        Kind::Object(_) => "an object",
        Kind::List(_) => "a list",
    }
}

fn string_boolean(text: &str, at: Pointer) -> Problem {
    let message = format!(
        "the string \"{text}\" in place of a boolean: EMR takes it, but checkers that expect a boolean fail or pass for the wrong reason; write {}",
        text.to_ascii_lowercase()
    );
    Problem::doubtful("string-boolean", at, message)
}

fn range(least: u64, most: u64) -> String {
    match most {
        u64::MAX => format!("of at least {least}"),
        most => format!("from {least} to {most}"),
    }
}

fn wrong_type(value: &Value, expected: &str, at: Pointer) -> Problem {
    let found = if is_intrinsic(value) { "a function of CloudFormation outside of a template" } else { type_of(value) };
    Problem::invalid("wrong-type", at, format!("expected {expected}, found {found}: {}", shown(value)))
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
