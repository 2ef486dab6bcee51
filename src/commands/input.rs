//! The files that a command without a node reads. `-` is standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Reads each file with `read`, and returns what came of those that could be read and what is to be said of the others.
pub(super) fn read_each<T>(
    files: &[PathBuf],
    mut read: impl FnMut(&Path) -> Result<T, String>,
) -> (Vec<T>, Vec<String>) {
    let (mut inputs, mut complaints) = (Vec::new(), Vec::new());
    for file in files {
        match read(file) {
            Ok(input) => inputs.push(input),
            Err(complaint) => complaints.push(complaint),
        }
    }
    (inputs, complaints)
}

/// Returns the files, and for each directory the files in and below it whose names end in `.json`.
///
/// A directory without any is an error, and so is a link to a directory: passed over in silence, its files would not be missed.
pub(super) fn json_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Vec<String>> {
    let (files, complaints) = read_each(paths, |path| match path.is_dir() {
        true => json_files_below(path),
        false => Ok(vec![path.to_owned()]),
    });
    if complaints.is_empty() { Ok(files.into_iter().flatten().collect()) } else { Err(complaints) }
}

fn json_files_below(top: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut files, mut dirs) = (Vec::new(), vec![top.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let cannot = |e: io::Error| format!("cannot read {}: {e}", dir.display());
        for entry in dir.read_dir().map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let path = entry.path();
            if entry.file_type().map_err(cannot)?.is_dir() {
                dirs.push(path);
            } else if path.is_dir() {
                return Err(format!("{} is a link to a directory; give that directory itself", path.display()));
            } else if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
        }
    }
    if files.is_empty() {
        return Err(format!("{} has no file whose name ends in .json", top.display()));
    }
    files.sort();
    Ok(files)
}

/// Says it if standard input is among the files more than once.
pub(super) fn standard_input_twice<'f>(files: impl Iterator<Item = &'f PathBuf>) -> Option<String> {
    let is_twice = files.filter(|file| is_stdin(file)).count() > 1;
    is_twice.then(|| "'-' is given twice, and standard input can be read once; give each file once".to_owned())
}

/// Returns what messages call a file.
pub(super) fn name_of(file: &Path) -> String {
    if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() }
}

/// Reads a file into `bytes`, but no more than one byte over the limit.
pub(super) fn read_bytes(file: &Path, limit: usize, bytes: &mut Vec<u8>) -> Result<(), String> {
    let cannot = |e: io::Error| format!("cannot read {}: {e}", name_of(file));
    let source: Box<dyn Read> =
        if is_stdin(file) { Box::new(io::stdin()) } else { Box::new(File::open(file).map_err(cannot)?) };
    source.take(limit as u64 + 1).read_to_end(bytes).map(|_| ()).map_err(cannot)
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_stands_for_the_json_files_in_and_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        fs::create_dir_all(top.join("b/c")).unwrap();
        for file in ["b/c/2.json", "1.json", "note.txt"] {
            fs::write(top.join(file), "").unwrap();
        }
        symlink(top.join("1.json"), top.join("b/3.json")).unwrap();
        let files = json_files(&[top.to_owned(), "-".into(), "none".into()]).unwrap();
        let expected = ["1.json", "b/3.json", "b/c/2.json"].map(|file| top.join(file));
        assert_eq!(files, [&expected[..], &["-".into(), "none".into()]].concat());
        symlink(top.join("b"), top.join("link")).unwrap();
        let refused = json_files(&[top.to_owned()]).unwrap_err();
        assert!(refused[0].contains("link is a link to a directory"), "{refused:?}");
        fs::create_dir(top.join("empty")).unwrap();
        let refused = json_files(&[top.join("empty")]).unwrap_err();
        assert!(refused[0].ends_with("empty has no file whose name ends in .json"), "{refused:?}");
    }
}
