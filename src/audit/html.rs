//! HTML that nothing from a report can add markup to.

use std::fmt::{self, Display, Write as _};

/// What stands in for a character that is not shown as itself.
const REPLACED: char = '\u{fffd}';

/// A growing HTML text. Markup is known when the program is compiled; everything else is escaped.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// Adds markup.
    pub(crate) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds a text, escaped for elements and for quoted attributes.
    pub(crate) fn text(&mut self, text: impl Display) -> &mut Self {
        // writing to a string does not fail
        let _ = write!(Escaped(&mut self.0), "{text}");
        self
    }

    /// Adds an element with a text in it: its opening tag, the text, its closing tag.
    pub(crate) fn element(&mut self, open: &'static str, text: impl Display, close: &'static str) -> &mut Self {
        self.raw(open).text(text).raw(close)
    }

    /// Returns the text.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// Escapes what is written to it.
struct Escaped<'t>(&'t mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // these change the direction of the text around them, or are not shown
                '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => self.0.push(REPLACED),
                '\n' => self.0.push('\n'),
                c if c.is_control() => self.0.push(REPLACED),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_everything_that_is_not_markup() {
        let mut html = Html::default();
        html.element("<td title=\"\">", "<script>alert('\"&')</script>\u{202e}\0\n", "</td>");
        let text = "&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;\u{fffd}\u{fffd}\n";
        assert_eq!(html.into_string(), format!("<td title=\"\">{text}</td>"));
    }
}
