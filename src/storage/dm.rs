//! Reads mappings with `dmsetup`, and removes them.
//!
//! Checks of open volumes must not change anything. libcryptsetup would read the header to describe a mapping, and would repair it if
//! one copy is damaged.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::tool::{ToolError, run};
use crate::disk::{DevNo, MissingCipher, luks_uuid_in};
use crate::fips::{self, FIPS_ENABLED};
use crate::luks2::{Cipher, DATA_OFFSET, Encryption, Flags, HeaderPolicy, Layout};

/// Keeps dmsetup from waiting for udev, which is busy at boot and ignores devices that never get an active table.
const NO_WAIT: &str = "--noudevsync";

/// A mapping that differs from its record, or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DmError {
    /// `dmsetup` failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The mapping differs from its record.
    #[error("mapping {mapper} is not what luks-agent created: {difference}; close the volume and unlock it again")]
    Differs {
        /// Mapper name.
        mapper: String,
        /// The difference.
        difference: Difference,
    },
    /// `dmsetup` printed no number where the open count should be.
    #[error("'dmsetup info' printed the invalid open count '{count}' for mapping {mapper}")]
    OpenCount {
        /// Mapper name.
        mapper: String,
        /// What it printed.
        count: String,
    },
}

/// How a mapping differs from its record.
#[derive(Debug, PartialEq, Eq)]
pub enum Difference {
    /// Its table is not a single target `crypt`.
    Table(String),
    /// One of its parameters has another value.
    Value {
        /// The parameter, up to the verb.
        what: &'static str,
        /// Its value.
        found: String,
        /// The recorded value.
        expected: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(table) => write!(f, "its table is not a single crypt target: {table}"),
            Self::Value { what, found, expected } => write!(f, "{what} {found}, expected {expected}"),
        }
    }
}

fn differs(what: &'static str, found: impl ToString, expected: impl ToString) -> Result<(), Difference> {
    Err(Difference::Value { what, found: found.to_string(), expected: expected.to_string() })
}

/// How the kernel encrypts, by the table of a mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crypt {
    /// Cipher and mode, such as `aes-xts-plain64`.
    pub cipher: String,
    /// Volume key size in bits.
    pub key_size: u32,
    /// Encryption sector size in bytes.
    pub sector_size: u32,
}

impl fmt::Display for Crypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cipher, key_size, sector_size } = self;
        write!(f, "{cipher}, {key_size} bits, sectors of {sector_size} bytes")
    }
}

/// Returns how a mapping encrypts; `None` if its table is not a single target `crypt`.
///
/// # Errors
/// If `dmsetup` fails.
pub fn crypt(mapper: &str) -> Result<Option<Crypt>, DmError> {
    Ok(read_crypt(&dmsetup(&["table", "--", mapper])?))
}

fn read_crypt(table: &str) -> Option<Crypt> {
    let fields: Vec<&str> = table.split_whitespace().collect();
    let [_start, _length, "crypt", cipher, key, _iv_offset, _below, _offset, options @ ..] = fields.as_slice() else {
        return None;
    };
    // a second line is a second target
    if table.trim().contains('\n') {
        return None;
    }
    Some(Crypt {
        cipher: (*cipher).to_owned(),
        key_size: key_bytes(key)?.checked_mul(8)?,
        sector_size: sector_size(options).parse().ok()?,
    })
}

/// Returns the size of a key: `:BYTES:TYPE:DESCRIPTION` if it is in the keyring, else hexadecimal.
fn key_bytes(key: &str) -> Option<u32> {
    match key.strip_prefix(':') {
        Some(in_keyring) => in_keyring.split(':').next().and_then(|bytes| bytes.parse().ok()),
        None => u32::try_from(key.len() / 2).ok(),
    }
}

fn sector_size<'a>(options: &[&'a str]) -> &'a str {
    options.iter().find_map(|option| option.strip_prefix("sector_size:")).unwrap_or("512")
}

/// Checks that a mapping is on this disk and encrypts as recorded.
///
/// # Errors
/// [`DmError::Differs`] names the difference.
pub fn check(mapper: &str, disk: DevNo, policy: HeaderPolicy) -> Result<(), DmError> {
    // without --showkeys, dmsetup prints zeros for a key that is not in the kernel's keyring
    let table = run("dmsetup", &["table".as_ref(), "--".as_ref(), mapper.as_ref()])?;
    check_table(&table, disk, policy).map_err(|difference| DmError::Differs { mapper: mapper.to_owned(), difference })
}

/// Whether a mapping does nothing but pass on: libcryptsetup puts it on top of others while it re-encrypts a volume.
///
/// # Errors
/// If `dmsetup` fails.
pub fn is_linear(mapper: &str) -> Result<bool, DmError> {
    let table = dmsetup(&["table", "--", mapper])?;
    Ok(table.split_whitespace().nth(2) == Some("linear"))
}

/// Returns the LUKS UUID of the volume that a mapping is; `None` if it is no open LUKS2 volume.
///
/// # Errors
/// If `dmsetup` fails.
pub fn luks_uuid(mapper: &str) -> Result<Option<Uuid>, ToolError> {
    let dm_uuid = dmsetup(&["info", "--columns", "--noheadings", "-o", "uuid", "--", mapper])?;
    Ok(luks_uuid_in(dm_uuid.trim()))
}

/// Returns how often a mapping is open: once for its file system and once for each other user.
///
/// # Errors
/// If `dmsetup` fails.
pub fn open_count(mapper: &str) -> Result<u32, DmError> {
    let count = dmsetup(&["info", "--columns", "--noheadings", "-o", "open", "--", mapper])?;
    let count = count.trim();
    count.parse().map_err(|_| DmError::OpenCount { mapper: mapper.to_owned(), count: count.to_owned() })
}

/// Returns what this kernel lacks for an encryption, or `None` if it lacks nothing. Modules that it can load do not count as missing.
///
/// It loads a table into dm-crypt, for a device that is not a disk, and never uses it. `/proc/crypto` and `AF_ALG` show neither all
/// ciphers that could be loaded nor what dm-crypt needs.
///
/// # Errors
/// If no table can be tried.
pub fn missing_cipher(encryption: Encryption) -> Result<Option<MissingCipher>, ToolError> {
    if fips::is_on() && !is_approved(encryption.cipher) {
        let reason = format!("FIPS does not approve the cipher, and {FIPS_ENABLED} is 1");
        return Ok(Some(MissingCipher { encryption, reason, modules: Vec::new() }));
    }
    let [below, above] = ["below", "above"].map(|which| format!("luks-agent-try-{}-{which}", std::process::id()));
    let tried = try_table(encryption, &below, &above);
    // a device that cannot be removed is harmless: it maps nothing
    if dmsetup(&["remove", NO_WAIT, "--", &above, &below]).is_err() {
        // one of them does not exist or is busy, and dmsetup stops at the first failure
        let _ = [&above, &below].map(|name| dmsetup(&["remove", NO_WAIT, "--retry", "--", name]));
    }
    let Err(refused) = tried? else { return Ok(None) };
    let name = encryption.cipher.parts().0;
    let has_target = crypt_target()?.is_some();
    // ENOENT: no such cipher
    let has_none = matches!(&refused, ToolError::Failed { output, .. } if output.contains("No such file or directory"));
    let (reason, modules) = match (has_target, has_none) {
        (false, _) => ("device-mapper has no target 'crypt'", vec!["dm-crypt"]),
        (true, true) => ("dm-crypt does not find the cipher", vec!["xts", name]),
        (true, false) => return Err(refused),
    };
    let modules = modules.into_iter().map(str::to_owned).collect();
    Ok(Some(MissingCipher { encryption, reason: reason.to_owned(), modules }))
}

/// Whether a kernel in FIPS mode may have a cipher.
fn is_approved(cipher: Cipher) -> bool {
    match cipher {
        Cipher::AesXtsPlain64 => true,
        Cipher::SerpentXtsPlain64 | Cipher::TwofishXtsPlain64 => false,
    }
}

/// Returns the version of the target `crypt`, such as `v1.28.0`; `None` if the kernel has not loaded it.
///
/// # Errors
/// If `dmsetup` fails.
pub fn crypt_target() -> Result<Option<String>, ToolError> {
    let targets = dmsetup(&["targets"])?;
    let version = targets.lines().find_map(|line| line.strip_prefix("crypt ")).map(|version| version.trim().to_owned());
    Ok(version)
}

/// Loads a table of target `crypt` for the device `above` onto the device `below`. That one gets a table first: since Linux 5.15 its block
/// device exists only then. The inner error says why the kernel refused the table of `crypt`.
fn try_table(encryption: Encryption, below: &str, above: &str) -> Result<Result<(), ToolError>, ToolError> {
    dmsetup(&["create", "--notable", "--", below])?;
    dmsetup(&["load", "--table", "0 8 error", "--", below])?;
    let device = dmsetup(&["info", "--columns", "--noheadings", "--separator", ":", "-o", "major,minor", "--", below])?;
    dmsetup(&["create", "--notable", "--", above])?;
    let (name, mode) = encryption.cipher.parts();
    // a key that protects nothing; its halves differ because XTS requires that
    let key: String = (0..encryption.key_size / 8).map(|byte| format!("{byte:02x}")).collect();
    let table = format!("0 8 crypt {name}-{mode} {key} 0 {} 0", device.trim());
    Ok(dmsetup(&["load", "--table", &table, "--", above]).map(drop))
}

/// Returns the node of a mapping, `/dev/mapper/NAME`, and makes it if it is missing.
///
/// Normally udev makes it, or libdevmapper if there is no udev. It is missing if a process was killed right after it had created the
/// mapping.
///
/// # Errors
/// If `dmsetup` fails.
pub fn node(name: &str) -> Result<PathBuf, ToolError> {
    let node = Path::new("/dev/mapper").join(name);
    if !node.exists() {
        run("dmsetup", &["mknodes".as_ref(), "--".as_ref(), name.as_ref()])?;
    }
    Ok(node)
}

/// Removes a mapping with or without a table, unless it is in use.
///
/// # Errors
/// If `dmsetup` fails.
pub fn remove(name: &str) -> Result<(), ToolError> {
    run("dmsetup", &["remove".as_ref(), "--".as_ref(), name.as_ref()]).map(drop)
}

fn dmsetup(args: &[&str]) -> Result<String, ToolError> {
    run("dmsetup", &args.iter().map(OsStr::new).collect::<Vec<_>>())
}

/// Checks the parameters of target `crypt`, see `Documentation/admin-guide/device-mapper/dm-crypt.rst` of Linux.
fn check_table(table: &str, disk: DevNo, policy: HeaderPolicy) -> Result<(), Difference> {
    let not_crypt = || Err(Difference::Table(table.trim().to_owned()));
    let fields: Vec<&str> = table.split_whitespace().collect();
    let [_start, _length, "crypt", cipher, key, iv_offset, below, offset, options @ ..] = fields.as_slice() else {
        return not_crypt();
    };
    // the number of options comes before the options
    let (count, options) = options.split_first().map_or((Some(0), options), |(count, rest)| (count.parse().ok(), rest));
    if count != Some(options.len()) {
        return not_crypt();
    }
    let (disk, data_offset) = (disk.to_string(), (DATA_OFFSET / 512).to_string());
    if *below != disk {
        return differs("it maps device", below, disk);
    }
    if *offset != data_offset {
        return differs("its data starts at sector", offset, data_offset);
    }
    if *iv_offset != "0" {
        return differs("its IV offset is", iv_offset, "0");
    }
    let HeaderPolicy::Recorded(layout) = policy else { return Ok(()) };
    let (name, mode) = layout.cipher.parts();
    let recorded = format!("{name}-{mode}");
    if *cipher != recorded {
        return differs("its cipher is", cipher, recorded);
    }
    let bytes = key_bytes(key);
    let recorded = layout.key_size / 8;
    if bytes != Some(recorded) {
        let found = bytes.map_or("an unknown number of".to_owned(), |bytes| bytes.to_string());
        return differs("its volume key is", format!("{found} bytes"), recorded);
    }
    check_options(options, layout)
}

fn check_options(options: &[&str], layout: Layout) -> Result<(), Difference> {
    let has = |option: &str| options.contains(&option);
    let flags = Flags {
        discards: has("allow_discards"),
        no_read_workqueue: has("no_read_workqueue"),
        no_write_workqueue: has("no_write_workqueue"),
    };
    if flags != layout.flags {
        return differs("its flags are", flags, layout.flags);
    }
    let sector = sector_size(options);
    if sector != layout.sector_size.to_string() {
        return differs("its sector size is", format!("{sector} bytes"), layout.sector_size);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::luks2::Cipher;

    const DISK: DevNo = DevNo { major: 259, minor: 3 };
    const TABLE: &str = "0 622592 crypt aes-xts-plain64 :64:logon:cryptsetup:5d0f4ff1-9f5c-4a55-8f5d-2b9d8a1c7e10-d0 0 259:3 32768 2 \
                         sector_size:4096 allow_discards\n";

    fn layout() -> Layout {
        Layout {
            cipher: Cipher::AesXtsPlain64,
            key_size: 512,
            sector_size: 4096,
            flags: Flags { discards: true, no_read_workqueue: false, no_write_workqueue: false },
        }
    }

    #[test]
    fn a_mapping_is_as_it_was_recorded_or_the_difference_is_named() {
        let check = |table: &str| check_table(table, DISK, HeaderPolicy::Recorded(layout()));
        assert_eq!(check(TABLE), Ok(()));
        let inline = TABLE.replace(":64:logon:cryptsetup:5d0f4ff1-9f5c-4a55-8f5d-2b9d8a1c7e10-d0", &"0".repeat(128));
        assert_eq!(check(&inline), Ok(()));
        for (from, to, named) in [
            ("crypt", "linear", "its table is not a single crypt target: "),
            ("259:3", "259:4", "it maps device 259:4, expected 259:3"),
            ("32768", "0", "its data starts at sector 0, expected 32768"),
            ("d0 0 ", "d0 8 ", "its IV offset is 8, expected 0"),
            ("aes-xts-plain64", "cipher_null-ecb", "its cipher is cipher_null-ecb, expected aes-xts-plain64"),
            (":64:", ":32:", "its volume key is 32 bytes, expected 64"),
            ("2 sector_size:4096 allow_discards", "1 sector_size:4096", "its flags are none, expected allow-discards"),
            ("allow_discards", "no_read_workqueue", "its flags are no-read-workqueue, expected allow-discards"),
            ("sector_size:4096", "same_cpu_crypt", "its sector size is 512 bytes, expected 4096"),
        ] {
            let said = check(&TABLE.replace(from, to)).unwrap_err().to_string();
            assert!(said.contains(named), "{said}");
        }
        assert!(check(&TABLE.repeat(2)).is_err() && check("").is_err());
        let crypt = Crypt { cipher: "aes-xts-plain64".to_owned(), key_size: 512, sector_size: 4096 };
        assert_eq!(read_crypt(TABLE), Some(crypt.clone()));
        assert_eq!(read_crypt(&inline), Some(crypt));
        for other in ["", "0 622592 linear 259:3 32768\n", &TABLE.repeat(2)] {
            assert_eq!(read_crypt(other), None, "{other}");
        }
        // only these checks are possible if the layout was not recorded
        let possible = |table: &str| check_table(table, DISK, HeaderPolicy::Possible);
        assert_eq!(possible(&TABLE.replace(":64:", ":32:")), Ok(()));
        assert!(possible(&TABLE.replace("259:3", "8:0")).is_err());
    }
}
