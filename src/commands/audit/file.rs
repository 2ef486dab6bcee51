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
    write_reports(&[(path, text)])
}

/// Writes a text to each file, and replaces no file before all texts are on the disk. Only its owner may read a file.
pub(in super::super) fn write_reports(texts: &[(&Path, impl AsRef<str>)]) -> Result<(), CommandError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CommandError::Output { path, source }
    };
    let mut written = Vec::new();
    for (path, text) in texts {
        check_output(path)?;
        written.push((*path, write_beside(path, text.as_ref()).map_err(failed(path))?));
    }
    for (path, temporary) in written {
        temporary.persist(path).map_err(|e| failed(path)(e.error))?;
        File::open(dir_of(path)).and_then(|dir| dir.sync_all()).map_err(failed(path))?;
    }
    Ok(())
}

/// Writes a text to a temporary file in the directory of a file.
fn write_beside(path: &Path, text: &str) -> io::Result<NamedTempFile> {
    let mut temporary = NamedTempFile::new_in(dir_of(path))?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

fn dir_of(path: &Path) -> PathBuf {
    path.parent().filter(|dir| *dir != Path::new("")).map_or_else(|| PathBuf::from("."), Path::to_owned)
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
