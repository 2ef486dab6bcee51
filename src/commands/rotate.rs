//! `rotate`: gives all volumes a new data key and, if asked, new volume keys.

use super::error::CommandError;
use super::new_keys::{Replacement, replace_keys};
use super::preflight::need_root;
use super::volume_keys::VolumeKeys;
use crate::config::Config;
use crate::report::Report;
use crate::storage::cryptsetup::library;

/// The oldest release of cryptsetup whose re-encryption the header policy knows. An earlier one describes it in another way.
const OLDEST: (u32, u32) = (2, 4);

/// What `rotate` replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The data key.
    DataKey,
    /// The data key, then the volume key of each volume.
    VolumeKeys {
        /// How fast the data is re-encrypted at most, in bytes a second.
        speed: Option<u64>,
    },
}

/// `rotate`: makes a new data key, adds it to every volume, and removes the former one. Then re-encrypts the volumes, if asked.
///
/// If an earlier re-encryption was interrupted, it is continued, and the data key stays. If a volume cannot be re-encrypted, nothing is changed.
///
/// # Errors
/// When it cannot begin.
pub async fn rotate(config: &Config, rotation: Rotation) -> Result<Report, CommandError> {
    let Rotation::VolumeKeys { speed } = rotation else {
        return replace_keys(config, Replacement::NewDataKey).await;
    };
    let volume_keys = VolumeKeys { config, speed };
    need_root("rotate")?;
    if let Some(library) = library().filter(|library| library.release < OLDEST) {
        return Err(CommandError::OldLibcryptsetup(library.release));
    }
    if volume_keys.are_left().await? {
        tracing::warn!("continuing a re-encryption that was interrupted");
    } else if let Some(refused) = volume_keys.refusals().await? {
        return Ok(refused);
    } else {
        let report = replace_keys(config, Replacement::NewDataKey).await?;
        if report.exit_code() != 0 {
            return Ok(report);
        }
        volume_keys.plan().await?;
    }
    volume_keys.change().await
}
