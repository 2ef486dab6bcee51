//! What is taken over, as a drop-in for the agent's configuration.

use std::fmt;

use super::import::{Import, Setting};
use super::not_done::NotDone;
use crate::text::escape_controls;

/// How wide comments are.
const WIDTH: usize = 120;

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        comment(
            f,
            "",
            &format!("From the {}, by 'luks-agent emr import' {}.", self.source, env!("CARGO_PKG_VERSION")),
        )?;
        comment(f, "", "Put this file into /etc/luks-agent/config.d/, for example as 60-emr.toml.")?;
        let mut section = "";
        for setting in &self.settings {
            if setting.section != section {
                section = setting.section;
                writeln!(f, "\n[{section}]")?;
            }
            print_setting(f, setting)?;
        }
        writeln!(f, "\n# To know:")?;
        self.notes.iter().try_for_each(|note| comment(f, "- ", note))?;
        if self.not_done.is_empty() {
            return writeln!(f, "#\n# The document says nothing else.");
        }
        writeln!(f, "#\n# What the document says besides, which luks-agent does not do, and who does:")?;
        self.not_done.iter().try_for_each(|part| print_part(f, part))
    }
}

fn print_setting(f: &mut fmt::Formatter<'_>, setting: &Setting) -> fmt::Result {
    // the values are checked ARNs and words of this program, which need no escape
    let at = setting.at.iter().map(|at| escape_controls(at.as_str()).into_owned()).collect::<Vec<_>>().join(", ");
    writeln!(f, "{} = \"{}\" # {} ({at})", setting.key, setting.value, setting.reason)
}

fn print_part(f: &mut fmt::Formatter<'_>, part: &NotDone) -> fmt::Result {
    comment(f, "- ", &format!("{}: {}", part.part, part.who))?;
    for entry in &part.entries {
        writeln!(f, "#     {} = {}", escape_controls(entry.at.as_str()), entry.shown())?;
    }
    Ok(())
}

/// Writes a text as lines of comment. The first begins with `mark`, and the others are indented as far.
fn comment(f: &mut fmt::Formatter<'_>, mark: &str, text: &str) -> fmt::Result {
    let text = escape_controls(text);
    let mut line = String::new();
    let mut start = mark.to_owned();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() + start.len() + 2 > WIDTH {
            writeln!(f, "# {start}{line}")?;
            line.clear();
            start = " ".repeat(mark.len());
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(f, "# {start}{line}")
}
