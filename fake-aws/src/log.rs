//! The log of every request: what was asked, never what was answered, and no key material.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One request. Written when its answer is decided and before that is sent, so who has an answer finds it in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// When it came.
    pub time: Timestamp,
    /// `Decrypt`, `imds:token`, ...; `unknown` if it is neither KMS nor IMDS.
    pub operation: String,
    /// Method and path.
    pub request: String,
    /// Address and port of the caller.
    pub source: String,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The access key id in the signature.
    pub access_key_id: Option<String>,
    /// The region in the signature.
    pub signed_region: Option<String>,
    /// The `KeyId` parameter as given.
    pub key_id: Option<String>,
    /// The `SourceKeyId` parameter of `ReEncrypt`.
    pub source_key_id: Option<String>,
    /// The `DestinationKeyId` parameter of `ReEncrypt`.
    pub destination_key_id: Option<String>,
    /// The `KeySpec` parameter.
    pub key_spec: Option<String>,
    /// The `NumberOfBytes` parameter.
    pub number_of_bytes: Option<u64>,
    /// The parameters whose names end in `EncryptionContext`, by name, even empty ones; none if there was none.
    pub encryption_context: Option<Value>,
    /// The `DryRun` parameter.
    pub dry_run: bool,
    /// The HTTP status answered; none if there was no answer.
    pub status: Option<u16>,
    /// The error code answered.
    pub error: Option<String>,
    /// The effect of the fault that was applied.
    pub fault: Option<String>,
}

/// The requests in memory and, if wanted, one line of JSON for each in a file.
#[derive(Debug)]
pub(crate) struct Log {
    requests: Mutex<Vec<Request>>,
    file: Option<File>,
}

impl Log {
    /// `file` is appended to.
    pub(crate) fn open(file: Option<&Path>) -> io::Result<Self> {
        let open = |path| File::options().create(true).append(true).open(path);
        Ok(Self { requests: Mutex::default(), file: file.map(open).transpose()? })
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Vec<Request> {
        self.requests().clone()
    }

    pub(crate) fn clear(&self) {
        self.requests().clear();
    }

    pub(crate) fn push(&self, request: Request) -> io::Result<()> {
        let line = serde_json::to_string(&request)? + "\n";
        // under the lock, so that both are in the same order
        let mut requests = self.requests();
        requests.push(request);
        self.file.as_ref().map_or(Ok(()), |mut file| file.write_all(line.as_bytes()))
    }
}
