//! JSON without what would be passed over in silence: a key twice, or a depth that nobody meant.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::pointer::Pointer;

/// How deeply values may be nested. A template with a security configuration has about 12 levels.
pub(super) const MAX_DEPTH: usize = 64;

/// What is wrong with a text, and where.
#[derive(Debug)]
pub(super) struct JsonError {
    /// The place.
    pub(super) at: Pointer,
    /// What is wrong, with line and column.
    pub(super) message: String,
}

/// Parses a JSON text.
pub(super) fn parse(text: &str) -> Result<Value, JsonError> {
    let path = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = Strict { path: &path }.deserialize(&mut deserializer);
    let parsed = parsed.and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|e| {
        let at = path.take().iter().fold(Pointer::default(), |at, step| match step {
            Step::Key(key) => at.child(key),
            Step::Item(index) => at.item(*index),
        });
        JsonError { at, message: e.to_string() }
    })
}

/// One step on the way to a value.
enum Step {
    Key(String),
    Item(usize),
}

/// Reads a value. When it fails, the path leads to where it failed.
#[derive(Clone, Copy)]
struct Strict<'p> {
    path: &'p RefCell<Vec<Step>>,
}

impl Strict<'_> {
    fn enter<E: Error>(self, step: Step) -> Result<(), E> {
        let mut path = self.path.borrow_mut();
        path.push(step);
        match path.len() > MAX_DEPTH {
            true => Err(E::custom(format_args!("nested more than {MAX_DEPTH} levels deep"))),
            false => Ok(()),
        }
    }

    fn leave(self) {
        self.path.borrow_mut().pop();
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        loop {
            self.enter(Step::Item(values.len()))?;
            match list.next_element_seed(self)? {
                Some(value) => values.push(value),
                None => {
                    self.leave();
                    return Ok(values.into());
                }
            }
            self.leave();
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            self.enter(Step::Key(key.clone()))?;
            if values.contains_key(&key) {
                return Err(A::Error::custom("duplicate key"));
            }
            values.insert(key, object.next_value_seed(self)?);
            self.leave();
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> (String, String) {
        let JsonError { at, message } = parse(text).unwrap_err();
        (at.as_str().to_owned(), message)
    }

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#"{"a": [1, -2, 2.5, "x", null, true], "b": {}, "c": []}"#;
        assert_eq!(parse(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn refuses_a_key_twice_and_names_it() {
        let (at, message) = error("{\"a\": [0, {\"b\": 1,\n\"b\": 2}]}");
        assert_eq!(at, "/a/1/b");
        assert_eq!(message, "duplicate key at line 2 column 3");
    }

    #[test]
    fn refuses_deep_nesting() {
        let (at, message) = error(&"[".repeat(100_000));
        assert_eq!(at.matches("/0").count(), MAX_DEPTH + 1);
        assert!(message.contains("nested more than 64 levels deep"), "{message}");
        let deepest = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(parse(&deepest).is_ok());
    }

    #[test]
    fn names_the_place_of_a_mistake() {
        assert_eq!(error("{\"a\": {\"b\": tru}}").0, "/a/b");
        assert_eq!(error("{} x"), (String::new(), "trailing characters at line 1 column 4".to_owned()));
    }
}
