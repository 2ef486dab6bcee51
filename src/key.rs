//! Key material and its wrapped form.
//!
//! The plaintext types zeroize on drop, cannot be cloned or serialized, and do not print their bytes. The bytes are on
//! the heap, because a move would leave a copy on the stack.

use std::fmt;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Length of a data key in bytes: `AES_256` of `GenerateDataKey`.
pub const DATA_KEY_BYTES: usize = 32;
/// Length of the passphrase in bytes: standard base64 of 32 bytes, with padding.
pub const PASSPHRASE_BYTES: usize = 44;
/// Length of a recovery key in bytes, as it is shown: 64 letters in groups of 8, with a dash between groups.
pub const RECOVERY_KEY_BYTES: usize = 71;
/// The letters of a recovery key, for the values 0 to 15: they are in the same place on most keyboards (modhex, as
/// systemd-cryptenroll prints it).
const MODHEX: &[u8; 16] = b"cbdefghijklnrtuv";
/// Maximum length of a `CiphertextBlob` for KMS `Decrypt` (KMS API reference).
pub const WRAPPED_KEY_MAX_BYTES: usize = 6144;

/// Invalid key material or an invalid wrapped key; contains none of the bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// A data key of the wrong length.
    #[error("the data key has {0} bytes, expected {DATA_KEY_BYTES}")]
    DataKeyLength(usize),
    /// A passphrase of the wrong length or with other characters.
    #[error("the passphrase is neither {PASSPHRASE_BYTES} characters of base64 nor a recovery key")]
    Passphrase,
    /// What was typed is not a recovery key.
    #[error(
        "this is not a recovery key; it has 8 groups of 8 letters out of cbdefghijklnrtuv, case and dashes do not matter"
    )]
    RecoveryKey,
    /// A wrapped key that is empty or too long.
    #[error("the wrapped key has {0} bytes, expected 1 to {WRAPPED_KEY_MAX_BYTES}")]
    WrappedKeyLength(usize),
    /// A wrapped key that is not base64.
    #[error("the wrapped key is not base64")]
    WrappedKeyText,
}

/// The plaintext data key of `GenerateDataKey` or `Decrypt`: 32 bytes.
pub struct DataKey(Box<Zeroizing<[u8; DATA_KEY_BYTES]>>);

impl DataKey {
    /// Copies the bytes of a data key. The caller must wipe its own copy.
    ///
    /// # Errors
    /// [`KeyError::DataKeyLength`] unless there are exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut key = Box::new(Zeroizing::new([0; DATA_KEY_BYTES]));
        if bytes.len() != DATA_KEY_BYTES {
            return Err(KeyError::DataKeyLength(bytes.len()));
        }
        key.copy_from_slice(bytes);
        Ok(Self(key))
    }

    /// Returns the LUKS passphrase of this data key: its standard base64 text, without a newline.
    pub fn passphrase(&self) -> Passphrase {
        let mut text = Zeroizing::new(vec![0; PASSPHRASE_BYTES].into_boxed_slice());
        STANDARD.encode_slice(self.0.as_slice(), &mut text).expect("base64 of 32 bytes has 44 characters");
        Passphrase(text)
    }

    /// Returns whether these bytes contain the key, as it is or as its passphrase.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let contains = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        contains(self.0.as_slice()) || contains(self.passphrase().expose())
    }

    /// Returns whether both keys are equal, in constant time.
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0.iter()).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// A LUKS passphrase: 44 characters of base64, or a recovery key.
pub struct Passphrase(Zeroizing<Box<[u8]>>);

impl Passphrase {
    /// Copies a passphrase from another process.
    ///
    /// # Errors
    /// [`KeyError::Passphrase`] unless it is 44 characters of base64 or a recovery key.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyError> {
        let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
        let is_data_key = bytes.len() == PASSPHRASE_BYTES && bytes.iter().all(base64);
        if !is_data_key && !is_recovery_key(bytes) {
            return Err(KeyError::Passphrase);
        }
        Ok(Self(Zeroizing::new(bytes.into())))
    }

    /// Makes a recovery key from 256 bits of the kernel's random number generator.
    ///
    /// # Errors
    /// If the kernel gives no random numbers.
    pub fn new_recovery_key() -> io::Result<Self> {
        let mut random = Zeroizing::new([0; DATA_KEY_BYTES]);
        let mut filled = 0;
        while filled < random.len() {
            filled += getrandom(&mut random[filled..], GetRandomFlags::empty())?;
        }
        Ok(Self::recovery_key_of(&random))
    }

    fn recovery_key_of(random: &[u8; DATA_KEY_BYTES]) -> Self {
        let mut text = Zeroizing::new(vec![b'-'; RECOVERY_KEY_BYTES].into_boxed_slice());
        for (group, bytes) in text.chunks_mut(9).zip(random.chunks(4)) {
            for (pair, byte) in group.chunks_mut(2).zip(bytes) {
                pair[0] = MODHEX[usize::from(byte >> 4)];
                pair[1] = MODHEX[usize::from(byte & 15)];
            }
        }
        Self(text)
    }

    /// Reads a recovery key as a person types it: case, dashes and spaces do not matter.
    ///
    /// # Errors
    /// [`KeyError::RecoveryKey`] if it is none.
    pub fn from_typed(typed: &[u8]) -> Result<Self, KeyError> {
        let mut text = Zeroizing::new(vec![b'-'; RECOVERY_KEY_BYTES].into_boxed_slice());
        let mut places = text.iter_mut().enumerate().filter(|(at, _)| at % 9 != 8).map(|(_, place)| place);
        for byte in typed.iter().filter(|byte| !b"- \t".contains(byte)) {
            *places.next().ok_or(KeyError::RecoveryKey)? = byte.to_ascii_lowercase();
        }
        drop(places);
        // places that nothing was typed for still have their dash
        if is_recovery_key(&text) { Ok(Self(text)) } else { Err(KeyError::RecoveryKey) }
    }

    /// Whether it is a recovery key, not the passphrase of a data key.
    pub fn is_recovery_key(&self) -> bool {
        self.0.len() == RECOVERY_KEY_BYTES
    }

    /// Returns the bytes for LUKS.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Whether these are the bytes of a recovery key, as it is shown.
fn is_recovery_key(bytes: &[u8]) -> bool {
    let fits = |(at, byte): (usize, &u8)| if at % 9 == 8 { *byte == b'-' } else { MODHEX.contains(byte) };
    bytes.len() == RECOVERY_KEY_BYTES && bytes.iter().enumerate().all(fits)
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// The service that wraps and unwraps data keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// AWS KMS.
    #[default]
    AwsKms,
    /// A program of the customer's, which talks to their own key service.
    Exec,
}

impl Provider {
    /// Returns its name, as files have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AwsKms => "aws-kms",
            Self::Exec => "exec",
        }
    }

    /// Whether it is the default, which files of earlier releases do not name.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A data key as encrypted by KMS (`CiphertextBlob`); opaque, and not secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WrappedKey(Vec<u8>);

impl WrappedKey {
    /// Wraps a `CiphertextBlob`.
    ///
    /// # Errors
    /// [`KeyError::WrappedKeyLength`] when it is empty or longer than KMS accepts.
    pub fn new(blob: Vec<u8>) -> Result<Self, KeyError> {
        if blob.is_empty() || blob.len() > WRAPPED_KEY_MAX_BYTES {
            return Err(KeyError::WrappedKeyLength(blob.len()));
        }
        Ok(Self(blob))
    }

    /// Returns the blob for KMS.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for WrappedKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::new(STANDARD.decode(text).map_err(|_| KeyError::WrappedKeyText)?)
    }
}

impl From<WrappedKey> for String {
    fn from(key: WrappedKey) -> Self {
        STANDARD.encode(key.0)
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey({} bytes)", self.0.len())
    }
}

/// A wrapped data key, and who unwraps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySource {
    /// The key service.
    pub provider: Provider,
    /// The data key, wrapped.
    pub wrapped_key: WrappedKey,
    /// The key that unwraps it: the ARN of a KMS key, or the name that another provider gave.
    pub key_arn: String,
}

impl KeySource {
    /// Returns a key that AWS KMS unwraps.
    pub fn aws_kms(wrapped_key: WrappedKey, key_arn: impl Into<String>) -> Self {
        Self { provider: Provider::AwsKms, wrapped_key, key_arn: key_arn.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_passphrase_is_standard_base64_without_a_newline() {
        let bytes: Vec<u8> = (0..32).map(|i| i * 8 + 3).collect();
        let passphrase = DataKey::from_slice(&bytes).unwrap().passphrase();
        assert_eq!(passphrase.expose(), STANDARD.encode(&bytes).as_bytes());
        assert_eq!(passphrase.expose().len(), PASSPHRASE_BYTES);
    }

    #[test]
    fn debug_shows_no_key_material() {
        let key = DataKey::from_slice(&[0x41; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "DataKey(..)");
        assert_eq!(format!("{:?}", key.passphrase()), "Passphrase(..)");
        assert_eq!(format!("{:?}", WrappedKey::new(vec![7; 9]).unwrap()), "WrappedKey(9 bytes)");
    }

    #[test]
    fn a_recovery_key_is_read_however_it_is_typed() {
        let bytes: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 8 + 3).unwrap());
        let key = Passphrase::recovery_key_of(&bytes);
        let shown = std::str::from_utf8(key.expose()).unwrap();
        assert!(shown.starts_with("cecnbebn-dedneeen-"), "{shown}");
        assert_eq!((shown.len(), shown.split('-').count()), (RECOVERY_KEY_BYTES, 8));
        assert!(key.is_recovery_key());
        let plain = shown.replace('-', "");
        for typed in [shown, &shown.to_uppercase(), &plain, &format!(" {} ", shown.replace('-', " - "))] {
            assert_eq!(Passphrase::from_typed(typed.as_bytes()).unwrap().expose(), key.expose(), "{typed}");
        }
        let (short, long) = (&plain[1..], format!("{plain}c"));
        for typed in ["", short, &long, &plain.replace('c', "a"), &format!("{short}a"), &"-".repeat(71)] {
            assert_eq!(Passphrase::from_typed(typed.as_bytes()).unwrap_err(), KeyError::RecoveryKey, "{typed}");
        }
        // as it comes to a worker
        assert_eq!(Passphrase::from_slice(key.expose()).unwrap().expose(), key.expose());
        assert!(Passphrase::from_slice(plain.as_bytes()).is_err());
        let [one, other] = [(); 2].map(|()| Passphrase::new_recovery_key().unwrap());
        assert!(one.expose() != other.expose() && one.is_recovery_key());
    }

    #[test]
    fn wrong_lengths_are_refused() {
        assert_eq!(DataKey::from_slice(&[0; 31]).unwrap_err(), KeyError::DataKeyLength(31));
        assert_eq!(DataKey::from_slice(&[0; 33]).unwrap_err(), KeyError::DataKeyLength(33));
        assert_eq!(WrappedKey::new(vec![]).unwrap_err(), KeyError::WrappedKeyLength(0));
        assert_eq!(WrappedKey::new(vec![0; 6145]).unwrap_err(), KeyError::WrappedKeyLength(6145));
        assert_eq!(Passphrase::from_slice(&[b'A'; 43]).unwrap_err(), KeyError::Passphrase);
        assert_eq!(Passphrase::from_slice(&[b'\n'; 44]).unwrap_err(), KeyError::Passphrase);
    }

    #[test]
    fn a_wrapped_key_survives_json() {
        let key = WrappedKey::new(vec![1, 2, 3]).unwrap();
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, "\"AQID\"");
        assert_eq!(serde_json::from_str::<WrappedKey>(&json).unwrap(), key);
        assert!(serde_json::from_str::<WrappedKey>("\"@\"").is_err());
    }

    #[test]
    fn keys_compare_by_content() {
        let key = |b| DataKey::from_slice(&[b; 32]).unwrap();
        assert!(key(1).same_as(&key(1)));
        assert!(!key(1).same_as(&key(2)));
    }
}
