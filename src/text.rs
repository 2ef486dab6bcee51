//! Makes text from elsewhere fit for a terminal. The token plug-in of cryptsetup has this file, too, so it uses the standard library alone.

use std::borrow::Cow;

/// Escapes control characters, and those that change the writing direction.
///
/// A disk, a token, a file name or a response may contain them, and must not control the terminal or the journal.
pub fn escape_controls(text: &str) -> Cow<'_, str> {
    let moves = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(moves) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if moves(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Returns the first `max` characters of a text, and dots if it has more.
pub(crate) fn shortened(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        for (text, shown) in [
            ("plain, ä and 漢", "plain, ä and 漢"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("one\ntwo\r\t\u{9b}", "one\\ntwo\\r\\t\\u{9b}"),
            ("\u{202e}txt.exe", "\\u{202e}txt.exe"),
            ("1\u{61c}2\u{200f}3", "1\\u{61c}2\\u{200f}3"),
        ] {
            assert_eq!(escape_controls(text), shown);
        }
    }
}
