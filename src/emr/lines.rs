//! The lines of the values in a JSON text.

use std::collections::HashMap;

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
        let root = Scanner { text: text.as_bytes(), at: 0 }.value(MAX_DEPTH);
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

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Passes over blanks and returns the next byte.
    fn next(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        self.peek()
    }

    /// Reads a value with at most so many levels.
    fn value(&mut self, levels: usize) -> Node {
        let first = self.next();
        let start = self.at;
        let below = match first {
            Some(b'{') if levels > 0 => self.object(levels - 1),
            Some(b'[') if levels > 0 => self.list(levels - 1),
            Some(b'"') => {
                self.string();
                Below::Nothing
            }
            _ => {
                while !matches!(self.peek(), None | Some(b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t')) {
                    self.at += 1;
                }
                Below::Nothing
            }
        };
        Node { start, below }
    }

    fn list(&mut self, levels: usize) -> Below {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            match self.next() {
                Some(b',') => self.at += 1,
                None | Some(b']' | b'}') => break,
                Some(_) => items.push(self.value(levels)),
            }
        }
        self.at += 1;
        Below::List(items)
    }

    fn object(&mut self, levels: usize) -> Below {
        let mut fields = HashMap::new();
        self.at += 1;
        loop {
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b'"') => {
                    let key = self.string();
                    if self.next() == Some(b':') {
                        self.at += 1;
                    }
                    fields.insert(key, self.value(levels));
                }
                _ => break,
            }
        }
        self.at += 1;
        Below::Object(fields)
    }

    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_slice(quoted).unwrap_or_default()
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
