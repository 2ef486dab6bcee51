//! JSON pointers.

use std::fmt;

use serde::Serialize;

use crate::text::shortened;

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

    /// Returns the names and numbers that lead there.
    pub(super) fn segments(&self) -> impl Iterator<Item = String> {
        self.0.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~"))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str() {
            "" => f.write_str("the top level"),
            pointer => f.write_str(&shortened(pointer, SHOWN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
