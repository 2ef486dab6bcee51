//! JSON pointers, and the lines that they lead to.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

/// How much of a pointer a message shows.
const SHOWN: usize = 200;

/// A place in a JSON document (RFC 6901).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Pointer(String);

impl Pointer {
    /// Takes a pointer that is written as one.
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the pointer of a property.
    pub(super) fn child(&self, key: &str) -> Self {
        Self(format!("{}/{}", self.0, key.replace('~', "~0").replace('/', "~1")))
    }

    /// Returns the pointer of an item of a list.
    pub(super) fn item(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0))
    }

    /// Returns the pointer that leads here first, and then along another one.
    pub(super) fn join(&self, below: &str) -> Self {
        Self(format!("{}{below}", self.0))
    }

    /// Returns whether it is the place that another pointer names, or below it.
    pub(super) fn is_within(&self, other: &str) -> bool {
        self.0.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn segments(&self) -> impl Iterator<Item = String> {
        self.0.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~"))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN) {
            _ if self.0.is_empty() => f.write_str("the top level"),
            Some((end, _)) => write!(f, "{}...", &self.0[..end]),
            None => f.write_str(&self.0),
        }
    }
}

/// Returns the line of a value in a JSON text, counted from 1, or of the nearest one around it that exists.
pub(super) fn line_of(text: &str, pointer: &Pointer) -> usize {
    let mut here = text;
    for segment in pointer.segments() {
        let Some(next) = child(here, &segment) else { break };
        here = next;
    }
    let before = here.as_ptr().addr() - text.as_ptr().addr();
    text[..before].matches('\n').count() + 1
}

/// Returns the part of a JSON text that is the value of a property or item.
fn child<'a>(text: &'a str, segment: &str) -> Option<&'a str> {
    if let Ok(object) = serde_json::from_str::<BTreeMap<String, &'a RawValue>>(text) {
        return object.get(segment).map(|value| value.get());
    }
    let list = serde_json::from_str::<Vec<&'a RawValue>>(text).ok()?;
    list.get(segment.parse::<usize>().ok()?).map(|value| value.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_line_of_a_value_or_of_what_is_around_it() {
        let text = "{\n \"a/b\": [\n  1,\n  {\"c\": 2}\n ]\n}";
        let line = |pointer: &str| line_of(text, &Pointer::new(pointer));
        assert_eq!(line("/a~1b/1/c"), 4);
        assert_eq!(line("/a~1b/0"), 3);
        assert_eq!(line("/a~1b/9/c"), 2);
        assert_eq!(line("/none"), 1);
        assert_eq!(line(""), 1);
    }

    #[test]
    fn escapes_names_and_cuts_what_is_too_long_to_read() {
        let pointer = Pointer::default().child("a/b~c").item(3);
        assert_eq!(pointer.as_str(), "/a~1b~0c/3");
        assert_eq!(pointer.segments().collect::<Vec<_>>(), ["a/b~c", "3"]);
        assert_eq!(Pointer::default().to_string(), "the top level");
        assert_eq!(Pointer::default().child(&"x".repeat(999)).to_string().len(), SHOWN + 3);
    }

    #[test]
    fn a_name_that_begins_like_another_is_not_below_it() {
        assert!(Pointer::new("/a/b").is_within("/a") && Pointer::new("/a").is_within("/a"));
        assert!(!Pointer::new("/ab").is_within("/a"));
    }
}
