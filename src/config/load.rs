//! Reads the configuration file and its drop-ins.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::fragment::Fragment;
use super::security_configuration::take_over;
use super::values::Config;
use crate::emr::MAX_BYTES;
use crate::permissions::objection;

/// Default of `--config`; drop-ins are in `config.d` in the same directory.
pub const DEFAULT_PATH: &str = "/etc/luks-agent/config.toml";

impl Config {
    /// Reads `path` and the `*.toml` files in `config.d` in the same directory, sorted by name.
    ///
    /// Neither the files nor their directories may be writable by other users, who could then choose the key, the
    /// disks and the mount points.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file and, for a mistake in it, the line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let drop_in_dir = path.with_file_name("config.d");
        let mut files = Vec::new();
        if path.try_exists().map_err(|source| ConfigError::Read { path: path.to_owned(), source })? {
            files.push(path.to_owned());
        }
        files.extend(drop_ins(&drop_in_dir)?);
        if files.is_empty() {
            return Err(ConfigError::Missing { path: path.to_owned() });
        }
        for dir in [path.parent(), Some(drop_in_dir.as_path())].into_iter().flatten() {
            check_dir(if dir == Path::new("") { Path::new(".") } else { dir })?;
        }
        let mut merged = Fragment::default();
        for file in files {
            merged.merge(parse(&file, &read(&file)?)?);
        }
        let emr = match merged.security_configuration() {
            Some(file) => {
                let bytes = read_security_configuration(&file)?;
                Some(take_over(&mut merged, file, &bytes)?)
            }
            None => None,
        };
        Ok(Self { emr, ..merged.validate(path)? })
    }

    /// Parses a text as [`Config::load`] parses a file; `path` appears in errors. It does not read the file of `[emr]`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        parse(path, text)?.validate(path)
    }
}

/// Reads a file that no other user can write to.
fn read(path: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Ok(text)
}

/// Opens a file that no other user can write to.
fn open(path: &Path) -> Result<File, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    check(path, &file.metadata().map_err(read)?)?;
    Ok(file)
}

/// Reads a file as [`read`] does, but no more of it than a security configuration may have.
fn read_security_configuration(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    // opening a pipe would wait for a writer
    if !fs::metadata(path).map_err(read)?.is_file() {
        return Err(read(std::io::Error::other("not a regular file")));
    }
    path.parent().map_or(Ok(()), check_dir)?;
    let mut bytes = Vec::new();
    open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(read)?;
    Ok(bytes)
}

/// Checks a directory, unless it is sticky.
///
/// In a sticky directory such as `/tmp`, other users can create files but not replace those of root, and each file is
/// checked by itself.
fn check_dir(dir: &Path) -> Result<(), ConfigError> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.mode() & 0o1000 != 0 => Ok(()),
        Ok(metadata) => check(dir, &metadata),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ConfigError::Read { path: dir.to_owned(), source }),
    }
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), ConfigError> {
    let owner = nix::unistd::geteuid().as_raw();
    match objection(metadata, owner) {
        Some(reason) => Err(ConfigError::Permissions { path: path.to_owned(), reason, owner }),
        None => Ok(()),
    }
}

fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let read = |source| ConfigError::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(read(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(read)?.path();
        if file.extension().is_some_and(|e| e == "toml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn parse(path: &Path, text: &str) -> Result<Fragment, ConfigError> {
    toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start.min(text.len()));
        let mut message = e.message().trim().to_owned();
        if let Some(near) = nearest_known_key(&message) {
            message = format!("{message}; did you mean `{near}`?");
        }
        let line = text[..at].matches('\n').count();
        if let Some((key, _)) = text.lines().nth(line).and_then(|l| l.split_once('=')) {
            message = format!("{}: {message}", key.trim());
        }
        ConfigError::Invalid { path: path.to_owned(), line: line + 1, message }
    })
}

/// Returns the known key that is most similar to the unknown one in an error of serde, which quotes the unknown key
/// first and the known ones after it, all in backticks.
fn nearest_known_key(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    names
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(2))
        .map(|(_, known)| known.to_owned())
}

#[cfg(test)]
mod tests;
