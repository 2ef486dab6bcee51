//! The file that a report is written to.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::super::error::CommandError;

/// Checks that a report can replace what is at a path: nothing, or a regular file.
///
/// # Errors
/// [`CommandError::NotAFile`] if anything else is there: it would be replaced, too, and be it `/dev/stdout`.
pub fn check_output(path: &Path) -> Result<(), CommandError> {
    let not_a_file = |is| Err(CommandError::NotAFile { path: path.to_owned(), is });
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(metadata) if metadata.is_dir() => not_a_file("a directory"),
        Ok(metadata) if metadata.is_symlink() => not_a_file("a symbolic link"),
        Ok(_) => not_a_file("a device, a pipe or a socket"),
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.file_name().is_some() => Ok(()),
        Err(source) => Err(CommandError::Output { path: path.to_owned(), source }),
    }
}

/// Writes a report to a file, as a whole or not at all. Only its owner may read it.
///
/// # Errors
/// As [`check_output`], or if the file cannot be written.
pub fn write_report(path: &Path, text: &str) -> Result<(), CommandError> {
    check_output(path)?;
    let dir = path.parent().filter(|dir| *dir != Path::new("")).map_or_else(|| PathBuf::from("."), Path::to_owned);
    let write = || {
        let mut temporary = NamedTempFile::new_in(&dir)?;
        temporary.write_all(text.as_bytes())?;
        temporary.as_file().sync_all()?;
        temporary.persist(path)?;
        File::open(&dir)?.sync_all()
    };
    write().map_err(|source| CommandError::Output { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_report_replaces_a_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report.json");
        for text in ["one", "two"] {
            write_report(&file, text).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left there");
        let link = dir.path().join("link");
        symlink(&file, &link).unwrap();
        for (path, said) in
            [(dir.path(), "a directory"), (&link, "a symbolic link"), (Path::new("/dev/null"), "a device")]
        {
            let refused = write_report(path, "three").unwrap_err();
            assert!(
                matches!(refused, CommandError::NotAFile { .. }) && refused.to_string().contains(said),
                "{refused}"
            );
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        let nowhere = write_report(&dir.path().join("none/report.json"), "three").unwrap_err();
        assert!(matches!(nowhere, CommandError::Output { .. }), "{nowhere}");
    }
}
