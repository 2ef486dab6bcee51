//! Checks whether another user could have written what the agent reads.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Returns what is wrong with the owner or mode of a file or directory; `None` if only root and the user ID `reader`
/// can write to it.
pub fn objection(metadata: &Metadata, reader: u32) -> Option<String> {
    of(metadata.uid(), metadata.mode(), reader)
}

fn of(uid: u32, mode: u32, reader: u32) -> Option<String> {
    if uid != reader && uid != 0 {
        Some(format!("belongs to user {uid}"))
    } else if mode & 0o022 != 0 {
        Some(format!("has mode {:04o}", mode & 0o7777))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        for (uid, mode, reader, expected) in [
            (0, 0o100_600, 0, None),
            (0, 0o100_644, 0, None),
            (7, 0o100_600, 7, None),
            (0, 0o100_600, 7, None),
            (7, 0o100_600, 0, Some("belongs to user 7")),
            (8, 0o100_600, 7, Some("belongs to user 8")),
            (0, 0o100_620, 0, Some("has mode 0620")),
            (0, 0o100_602, 0, Some("has mode 0602")),
        ] {
            assert_eq!(of(uid, mode, reader).as_deref(), expected, "{uid} {mode:o} {reader}");
        }
    }
}
