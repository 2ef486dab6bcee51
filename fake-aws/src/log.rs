//! The request log. It records requests and the outcome, never response bodies or key material.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::header::{AUTHORIZATION, HeaderMap, USER_AGENT};
use hyper::http::request::Parts;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::imds;

const KMS_TARGET: &str = "TrentService.";

/// One request. The log has it before the answer is sent, so that a client with an answer finds its request there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// When it arrived.
    pub time: Timestamp,
    /// The operation, for example `Decrypt`, `imds:token` or `sts:GetCallerIdentity`; `unknown` if the request is for none of the services.
    pub operation: String,
    /// Method and path.
    pub request: String,
    /// Address and port of the client.
    pub source: String,
    /// Whether the connection used TLS.
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
    /// The parameters whose names end in `EncryptionContext`, by name, including empty ones; `None` if the request had none.
    pub encryption_context: Option<Value>,
    /// The `DryRun` parameter.
    pub dry_run: bool,
    /// The HTTP status of the answer; `None` if a fault suppressed the answer.
    pub status: Option<u16>,
    /// The error code of the answer.
    pub error: Option<String>,
    /// The effect of the fault that was applied.
    pub fault: Option<String>,
}

impl Request {
    /// Describes a request that has no answer yet. `body` has the parameters of a KMS operation.
    pub(crate) fn new(parts: &Parts, body: &Value, source: SocketAddr, tls: bool) -> Self {
        let path = parts.uri.path();
        let target = header(&parts.headers, "x-amz-target");
        let operation = if path.starts_with("/latest/") {
            imds::operation(path).to_owned()
        } else {
            let name = target.as_deref().and_then(|target| target.strip_prefix(KMS_TARGET));
            name.unwrap_or("unknown").to_owned()
        };
        let authorization = header(&parts.headers, AUTHORIZATION.as_str()).unwrap_or_default();
        // AWS4-HMAC-SHA256 Credential=ID/DATE/REGION/kms/aws4_request, SignedHeaders=...
        let credential = authorization.split_once("Credential=").map_or("", |(_, rest)| rest);
        let scope = |at: usize| credential.split([',', '/']).nth(at).filter(|part| !part.is_empty()).map(str::to_owned);
        let text = |field: &str| body.get(field).and_then(Value::as_str).map(str::to_owned);
        let contexts = body.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("EncryptionContext"));
        let contexts: Map<_, _> = contexts.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self {
            time: Timestamp::now(),
            operation,
            request: format!("{} {path}", parts.method),
            source: source.to_string(),
            tls,
            user_agent: header(&parts.headers, USER_AGENT.as_str()),
            access_key_id: scope(0),
            signed_region: scope(2),
            key_id: text("KeyId").or_else(|| text("TargetKeyId")),
            source_key_id: text("SourceKeyId"),
            destination_key_id: text("DestinationKeyId"),
            key_spec: text("KeySpec"),
            number_of_bytes: body.get("NumberOfBytes").and_then(Value::as_u64),
            encryption_context: (!contexts.is_empty()).then(|| contexts.into()),
            dry_run: body.get("DryRun").and_then(Value::as_bool) == Some(true),
            status: None,
            error: None,
            fault: None,
        }
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The requests in memory, and optionally in a file of JSON lines.
#[derive(Debug)]
pub(crate) struct Log {
    requests: Mutex<Vec<Request>>,
    file: Option<File>,
}

impl Log {
    /// Opens the log. New lines are appended to `file`.
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
        // written under the lock, so that list and file have the same order
        let mut requests = self.requests();
        requests.push(request);
        self.file.as_ref().map_or(Ok(()), |mut file| file.write_all(line.as_bytes()))
    }
}
