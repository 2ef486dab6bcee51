//! Takes over an EMR security configuration, as `emr import` would.

use std::path::PathBuf;

use super::error::ConfigError;
use super::fragment::Fragment;
use super::values::Emr;
use crate::emr::{Document, Import};

/// Takes over the security configuration in `file`, whose content is `bytes`.
pub(super) fn take_over(merged: &mut Fragment, file: PathBuf, bytes: &[u8]) -> Result<Emr, ConfigError> {
    let digest = import(merged, &file.display().to_string(), bytes);
    match digest {
        Ok(digest) => Ok(Emr { security_configuration: file, digest }),
        Err(message) => Err(ConfigError::SecurityConfiguration { path: file, message }),
    }
}

fn import(merged: &mut Fragment, file: &str, bytes: &[u8]) -> Result<String, String> {
    let documents = Document::read_all(bytes).map_err(|e| e.to_string())?;
    let [document] = documents.as_slice() else {
        return Err(format!("has {} security configurations, expected one", documents.len()));
    };
    let import = Import::of(document, file).map_err(|e| e.to_string())?;
    merged.take_over(&import)?;
    Ok(document.digest())
}
