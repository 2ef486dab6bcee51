//! The lines of the values in a JSON text.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::json::MAX_DEPTH;
use super::pointer::Pointer;

/// Where each value of a JSON text is.
#[derive(Debug)]
pub(super) struct Lines {
    root: Node,
    /// The places of all line feeds.
    feeds: Vec<usize>,
}

/// A value.
#[derive(Debug)]
struct Node {
    start: usize,
    below: Below,
}

/// The values in a value.
#[derive(Debug)]
enum Below {
    Nothing,
    List(Vec<Node>),
    Object(HashMap<String, Node>),
}

impl Lines {
    /// Reads a text, which has been parsed as JSON before. Finds less in one that is none.
    pub(super) fn of(text: &str) -> Self {
        let root = serde_json::from_str(text)
            .map_or(Node { start: 0, below: Below::Nothing }, |raw: &RawValue| Node::of(raw, text, MAX_DEPTH));
        Self { root, feeds: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    /// Returns the line of a value, counted from 1, or of the nearest one around it that exists.
    pub(super) fn line(&self, pointer: &Pointer) -> usize {
        let mut here = &self.root;
        for segment in pointer.segments() {
            let next = match &here.below {
                Below::Nothing => None,
                Below::List(items) => segment.parse::<usize>().ok().and_then(|index| items.get(index)),
                Below::Object(fields) => fields.get(&segment),
            };
            let Some(next) = next else { break };
            here = next;
        }
        self.feeds.partition_point(|feed| *feed < here.start) + 1
    }
}

impl Node {
    /// Finds a value, and the values in it down to so many levels, in the text that it was read from.
    fn of(raw: &RawValue, text: &str, levels: usize) -> Self {
        let value = raw.get();
        // a part of the text, so its address says where
        let start = value.as_ptr().addr() - text.as_ptr().addr();
        let node = |raw: &RawValue| Self::of(raw, text, levels - 1);
        let below = match value.as_bytes() {
            [b'{', ..] if levels > 0 => serde_json::from_str(value).map(|fields: HashMap<String, &RawValue>| {
                Below::Object(fields.into_iter().map(|(key, raw)| (key, node(raw))).collect())
            }),
            [b'[', ..] if levels > 0 => serde_json::from_str(value)
                .map(|items: Vec<&RawValue>| Below::List(items.into_iter().map(node).collect())),
            _ => Ok(Below::Nothing),
        };
        Self { start, below: below.unwrap_or(Below::Nothing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_line_of_a_value_or_of_what_is_around_it() {
        let lines =
            Lines::of("{\n \"a/b\": [\n  1,\n  {\"c\": 2}\n ],\n\"\\\"\\u0064\":\n{ } ,\"e\"\n: -1.5e3,\n\"f\":[]}");
        for (pointer, line) in [
            ("/a~1b/1/c", 4),
            ("/a~1b/0", 3),
            ("/a~1b/9/c", 2),
            ("/\"d", 7),
            ("/e", 8),
            ("/f/0", 9),
            ("/none", 1),
            ("", 1),
        ] {
            assert_eq!(lines.line(&Pointer::new(pointer)), line, "{pointer}");
        }
    }

    #[test]
    fn a_text_that_is_no_json_has_lines_too() {
        for text in ["", "\"", "\"\\", "[", "{\"a\"", "{\"a\":}", "]", "[}", "{]", "[:", &"[".repeat(10_000)] {
            assert_eq!(Lines::of(text).line(&Pointer::new("/0/a")), 1, "{text}");
        }
    }
}
