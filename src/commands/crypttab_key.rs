//! `crypttab-key`: the key of a volume for systemd-cryptsetup, on the socket that a line of `/etc/crypttab` names as key file. It is for
//! nodes where the token plug-in of cryptsetup is not installed.

use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use uuid::Uuid;

use super::lazy_kms::LazyKms;
use crate::apply::{KeyError, unwrap};
use crate::config::{Config, ConfigError};
use crate::luks2::mapper_name;
use crate::report::{ExitCode, key_exit_code};
use crate::state::{self, StateError};

/// Why `crypttab-key` has no key.
#[derive(Debug, thiserror::Error)]
pub enum CrypttabKeyError {
    /// Somebody typed it.
    #[error(
        "'luks-agent crypttab-key' answers systemd-cryptsetup on a socket, and standard input is not one; start luks-agent-key.socket, and name it in /etc/crypttab"
    )]
    NotASocket(#[source] io::Error),
    /// The other end is not systemd-cryptsetup, which has such an address.
    #[error(
        "the program at the other end of the socket is not systemd-cryptsetup: expected an abstract address that ends with '/cryptsetup/NAME'"
    )]
    OtherProgram,
    /// The name of the mapping says nothing about the volume.
    #[error(
        "/etc/crypttab has a line for the mapping {0:?}; expected the name 'luks-UUID', with the LUKS UUID of a volume of this node"
    )]
    OtherName(String),
    /// The UUID of another node's volume, or a typing error.
    #[error(
        "no volume of this node has the LUKS UUID {0}, which /etc/crypttab names; 'luks-agent status' lists the volumes"
    )]
    UnknownVolume(Uuid),
    /// systemd-cryptsetup has gone.
    #[error("cannot write the key to the socket")]
    Io(#[source] io::Error),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key service.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl CrypttabKeyError {
    /// Returns the exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotASocket(_)
            | Self::OtherProgram
            | Self::OtherName(_)
            | Self::UnknownVolume(_)
            | Self::Config(_) => ExitCode::Configuration,
            Self::Key(e) => key_exit_code(e),
            Self::Io(_) | Self::State(_) => ExitCode::Failed,
        }
    }
}

/// Answers one request for a key. systemd-cryptsetup binds its end to an abstract address that ends with the name of the mapping,
/// and takes all bytes up to the end of the stream as the passphrase (`crypttab(5)`, "AF_UNIX key files"). The address names the volume
/// and proves nothing: who may ask is who may connect to the socket.
///
/// The state file says which key the volume has. The header is not read: this needs no device, and systemd-cryptsetup opens the disk.
///
/// # Errors
/// [`CrypttabKeyError`]. Unless it is [`Io`](CrypttabKeyError::Io), nothing was written.
pub async fn crypttab_key(config: &Path, mut socket: UnixStream) -> Result<(), CrypttabKeyError> {
    let address = socket.peer_addr().map_err(CrypttabKeyError::NotASocket)?;
    let luks_uuid = luks_uuid_in(address.as_abstract_name().ok_or(CrypttabKeyError::OtherProgram)?)?;
    let config = Config::load(config)?;
    let state = state::read(&config.state.dir)?.unwrap_or_default();
    let record = state.volume(luks_uuid).ok_or(CrypttabKeyError::UnknownVolume(luks_uuid))?;
    let passphrase = unwrap(&LazyKms::new(&config), &state, record.key).await?;
    socket.write_all(passphrase.expose()).map_err(CrypttabKeyError::Io)?;
    tracing::info!("gave systemd-cryptsetup the key of volume {luks_uuid}");
    Ok(())
}

/// Returns the volume that an address of systemd-cryptsetup names: `RANDOM/cryptsetup/luks-UUID`.
fn luks_uuid_in(address: &[u8]) -> Result<Uuid, CrypttabKeyError> {
    let address = String::from_utf8_lossy(address);
    let (_, name) = address.split_once("/cryptsetup/").ok_or(CrypttabKeyError::OtherProgram)?;
    let luks_uuid = name.strip_prefix("luks-").and_then(|uuid| Uuid::try_parse(uuid).ok());
    // not another way to write it
    luks_uuid
        .filter(|&luks_uuid| mapper_name(luks_uuid) == name)
        .ok_or_else(|| CrypttabKeyError::OtherName(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "5d0f4ff1-9f5c-4a55-8f5d-2b9d8a1c7e10";

    #[test]
    fn the_address_names_the_volume() {
        let found = luks_uuid_in(format!("8c0b29aa91b4c0e3/cryptsetup/luks-{UUID}").as_bytes()).unwrap();
        assert_eq!(found.to_string(), UUID);
        for other in ["", UUID, "8c0b/cryptsetup-tpm2/luks-5d0f", "/systemd/x"] {
            assert!(matches!(luks_uuid_in(other.as_bytes()), Err(CrypttabKeyError::OtherProgram)), "{other}");
        }
        let upper = format!("luks-{}", UUID.to_uppercase());
        for name in ["", "data", "luks-", &UUID[1..], &upper, &format!("luks-{UUID}/x"), "luks-\u{1b}[2J"] {
            let error = luks_uuid_in(format!("8c0b/cryptsetup/{name}").as_bytes()).unwrap_err();
            assert!(matches!(error, CrypttabKeyError::OtherName(_)), "{name}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }

    #[tokio::test]
    async fn nothing_is_answered_without_the_address_of_systemd_cryptsetup() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let error = crypttab_key(Path::new("/nonexistent/c.toml"), ours).await.unwrap_err();
        assert!(matches!(error, CrypttabKeyError::OtherProgram) && error.exit_code() == ExitCode::Configuration);
        assert_eq!(io::Read::read(&mut theirs, &mut [0]).unwrap(), 0);
    }
}
