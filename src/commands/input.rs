//! The files that a command without a node reads. `-` is standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Reads each file with `read`, and returns what came of those that could be read and what is to be said of the others.
pub(super) fn read_each<T>(files: &[PathBuf], read: impl Fn(&Path) -> Result<T, String>) -> (Vec<T>, Vec<String>) {
    let (mut inputs, mut complaints) = (Vec::new(), Vec::new());
    for file in files {
        match read(file) {
            Ok(input) => inputs.push(input),
            Err(complaint) => complaints.push(complaint),
        }
    }
    (inputs, complaints)
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
