//! Makes text from elsewhere fit for a terminal.

/// Escapes control characters: whoever writes to the disk writes the token, and whoever answers for KMS its messages.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => out.extend(c.escape_default()),
            // these reorder what is beside them
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.extend(c.escape_unicode())
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(printable("arn:aws:kms — fine"), "arn:aws:kms — fine");
        assert_eq!(printable("a\u{1b}[2Jb\0c\nd\u{9b}e\u{202e}"), "a\\u{1b}[2Jb\\u{0}c\\nd\\u{9b}e\\u{202e}");
    }
}
