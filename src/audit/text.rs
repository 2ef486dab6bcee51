//! Texts of a report within the limits of another format.

/// Returns a text of at most so many bytes (4 or more), cut between two characters. It is never blank and has no control characters.
pub(super) fn cut(text: &str, max: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.trim();
    if text.is_empty() {
        return "-".to_owned();
    }
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max.saturating_sub(3)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_between_characters_and_never_to_nothing() {
        assert_eq!(cut("abc", 4), "abc");
        assert_eq!(cut("abcdefgh", 6), "abc...");
        assert_eq!(cut("ää\u{1f600}x", 7), "ää...");
        assert_eq!(cut("\u{1f600}\u{1f600}", 5), "...");
        assert_eq!(cut(" \n\t", 4), "-");
        assert_eq!(cut("a\u{0}b\n", 9), "a b");
    }
}
