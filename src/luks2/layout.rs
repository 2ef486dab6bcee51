//! The layout and encryption of a volume.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The offset of the data segment in bytes: libcryptsetup's default, set explicitly.
pub const DATA_OFFSET: u64 = 16 << 20;
/// The largest possible encryption sector in bytes.
const LARGEST_SECTOR: u64 = 4096;

/// Returns the mapper name of a volume.
pub fn mapper_name(luks_uuid: Uuid) -> String {
    format!("luks-{luks_uuid}")
}

/// Returns the size in bytes to which a mapping grows on a disk of `disk` bytes.
///
/// That is everything behind the header, rounded down to the largest encryption sector; 0 if the disk has no room for one.
pub fn grown_size(disk: u64) -> u64 {
    let data = disk.saturating_sub(DATA_OFFSET);
    data - data % LARGEST_SECTOR
}

/// The ciphers the agent formats with and accepts in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub enum Cipher {
    /// AES in XTS mode.
    #[serde(rename = "aes-xts-plain64")]
    AesXtsPlain64,
    /// Serpent in XTS mode.
    #[serde(rename = "serpent-xts-plain64")]
    SerpentXtsPlain64,
    /// Twofish in XTS mode.
    #[serde(rename = "twofish-xts-plain64")]
    TwofishXtsPlain64,
}

impl Cipher {
    /// Returns cipher and mode separately, as libcryptsetup takes them.
    pub fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::AesXtsPlain64 => ("aes", "xts-plain64"),
            Self::SerpentXtsPlain64 => ("serpent", "xts-plain64"),
            Self::TwofishXtsPlain64 => ("twofish", "xts-plain64"),
        }
    }
}

/// The dm-crypt flags. They are stored in the header, so that every program that opens the volume uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flags {
    /// Pass discards to the disk.
    pub discards: bool,
    /// Decrypt in the context of the reader.
    pub no_read_workqueue: bool,
    /// Encrypt in the context of the writer.
    pub no_write_workqueue: bool,
}

impl Flags {
    /// Returns each flag with its name in the header (LUKS2 on-disk format, section 3.6).
    pub(super) fn named(self) -> [(&'static str, bool); 3] {
        [
            ("allow-discards", self.discards),
            ("no-read-workqueue", self.no_read_workqueue),
            ("no-write-workqueue", self.no_write_workqueue),
        ]
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<&str> = self.named().iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
        if set.is_empty() { f.write_str("none") } else { f.write_str(&set.join(" ")) }
    }
}

/// The cipher and key size of a volume. The kernel must support them to open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Encryption {
    /// Cipher and mode.
    pub cipher: Cipher,
    /// Volume key size in bits.
    pub key_size: u32,
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, mode) = self.cipher.parts();
        write!(f, "{name}-{mode} and keys of {} bits", self.key_size)
    }
}

/// The encryption of a volume's sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Cipher and mode.
    pub cipher: Cipher,
    /// Volume key size in bits.
    pub key_size: u32,
    /// Encryption sector size in bytes.
    pub sector_size: u32,
    /// Flags stored in the header.
    pub flags: Flags,
}

impl Layout {
    /// Reads the layout from the metadata of a header. Returns `None` if the agent cannot make such a volume.
    ///
    /// It looks no further than that: the header must pass the policy with the layout that was found.
    pub fn from_header(metadata: &Value) -> Option<Self> {
        let segment = metadata.pointer("/segments/0")?;
        let keyslot = metadata.get("keyslots")?.as_object()?.values().next()?;
        let bits = keyslot.get("key_size")?.as_u64()?.checked_mul(8)?;
        let list = metadata.pointer("/config/flags").and_then(Value::as_array);
        let has = |name: &str| list.is_some_and(|list| list.iter().any(|flag| flag.as_str() == Some(name)));
        Some(Self {
            cipher: Cipher::deserialize(segment.get("encryption")?).ok()?,
            key_size: bits.try_into().ok()?,
            sector_size: segment.get("sector_size")?.as_u64()?.try_into().ok()?,
            flags: Flags {
                discards: has("allow-discards"),
                no_read_workqueue: has("no-read-workqueue"),
                no_write_workqueue: has("no-write-workqueue"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encryption_is_called_as_in_the_header() {
        let encryption = Encryption { cipher: Cipher::SerpentXtsPlain64, key_size: 256 };
        assert_eq!(encryption.to_string(), "serpent-xts-plain64 and keys of 256 bits");
    }

    #[test]
    fn the_layout_is_read_from_the_header_and_only_one_that_the_agent_makes() {
        let header = |cipher: &str, key: u64, sector: u64, flags: Value| {
            serde_json::json!({
                "segments": {"0": {"encryption": cipher, "sector_size": sector}},
                "keyslots": {"3": {"key_size": key}},
                "config": {"flags": flags},
            })
        };
        let flags = serde_json::json!(["allow-discards", "no-write-workqueue"]);
        let found = Layout::from_header(&header("serpent-xts-plain64", 32, 512, flags)).unwrap();
        let flags = Flags { discards: true, no_read_workqueue: false, no_write_workqueue: true };
        assert_eq!(found, Layout { cipher: Cipher::SerpentXtsPlain64, key_size: 256, sector_size: 512, flags });
        let plain = Layout::from_header(&header("aes-xts-plain64", 64, 4096, Value::Null)).unwrap();
        assert_eq!((plain.key_size, plain.sector_size, plain.flags), (512, 4096, Flags::default()));
        for (cipher, key) in [("cipher_null-ecb", 32), ("aes-cbc-essiv:sha256", 32), ("aes-xts-plain64", u64::MAX)] {
            assert_eq!(Layout::from_header(&header(cipher, key, 512, Value::Null)), None, "{cipher} {key}");
        }
        assert_eq!(Layout::from_header(&Value::Null), None);
    }

    #[test]
    fn a_mapping_grows_to_whole_sectors_behind_the_header() {
        for (disk, expected) in [
            (0, 0),
            (DATA_OFFSET, 0),
            (DATA_OFFSET + 4095, 0),
            (DATA_OFFSET + 4096, 4096),
            (1 << 30, (1 << 30) - DATA_OFFSET),
            ((1 << 30) + 512, (1 << 30) - DATA_OFFSET),
            (u64::MAX, u64::MAX - DATA_OFFSET - 4095),
        ] {
            assert_eq!(grown_size(disk), expected, "{disk}");
        }
    }
}
