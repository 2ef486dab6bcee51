//! The instance metadata service, version 2 only.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE as BASE64};
use hyper::header::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::options::Options;

pub(crate) const TOKEN: &str = "x-aws-ec2-metadata-token";
pub(crate) const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// An answer of IMDS.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// The value of the token TTL header, in seconds.
    pub(crate) ttl: Option<u64>,
}

impl Answer {
    fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), ttl: None }
    }
}

/// Returns the operation name of a path, as faults and the log use it.
pub(crate) fn operation(path: &str) -> &'static str {
    match path.strip_prefix("/latest/").unwrap_or(path).trim_end_matches('/') {
        "api/token" => "imds:token",
        "meta-data/iam/security-credentials" => "imds:role",
        path if path.starts_with("meta-data/iam/security-credentials/") => "imds:credentials",
        path if path.starts_with("meta-data/block-device-mapping") => "imds:block-device-mapping",
        "meta-data/placement/region" => "imds:region",
        "meta-data/placement/availability-zone" => "imds:availability-zone",
        "meta-data/instance-id" => "imds:instance-id",
        "meta-data/instance-type" => "imds:instance-type",
        "dynamic/instance-identity/document" => "imds:identity-document",
        "dynamic/instance-identity/rsa2048" => "imds:identity-signature",
        _ => "imds:other",
    }
}

/// The metadata of one instance, and the session tokens that it has issued.
pub(crate) struct Imds {
    options: Options,
    tokens: Mutex<HashMap<String, Instant>>,
}

impl Imds {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, tokens: Mutex::default() }
    }

    pub(crate) fn call(&self, method: &str, path: &str, headers: &HeaderMap) -> Answer {
        match (method, path) {
            ("PUT", "/latest/api/token") => return self.token(headers),
            ("GET", "/latest/api/token") => return Answer::new(405, ""),
            ("GET", _) => {}
            _ => return Answer::new(405, ""),
        }
        let token = headers.get(TOKEN).and_then(|value| value.to_str().ok());
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match token.and_then(|token| tokens.get(token)) {
            Some(expiry) if *expiry > Instant::now() => {}
            Some(_) | None => return Answer::new(401, ""),
        }
        match self.get(path.strip_prefix("/latest/").unwrap_or(path).trim_end_matches('/')) {
            Some(body) => Answer::new(200, body),
            None => Answer::new(404, "404 - Not Found"),
        }
    }

    fn token(&self, headers: &HeaderMap) -> Answer {
        if headers.contains_key("x-forwarded-for") {
            return Answer::new(403, "");
        }
        let ttl = headers.get(TOKEN_TTL).and_then(|value| value.to_str().ok()?.parse().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=21600).contains(ttl)) else {
            return Answer::new(400, "400 - Bad Request");
        };
        let mut bytes = [0; 40];
        if rand::fill(&mut bytes).is_err() {
            return Answer::new(500, "");
        }
        let token = BASE64.encode(bytes);
        let now = Instant::now();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, expiry| *expiry > now);
        tokens.insert(token.clone(), now + Duration::from_secs(ttl));
        Answer { status: 200, body: token, ttl: Some(ttl) }
    }

    fn get(&self, path: &str) -> Option<String> {
        let options = &self.options;
        let zone = format!("{}a", options.region);
        let names = |names: &[&str]| Some(names.join("\n"));
        match path {
            "meta-data" => {
                let all = ["block-device-mapping/", "iam/", "instance-id", "instance-type", "placement/"];
                let all = all.into_iter().filter(|name| *name != "iam/" || options.role.is_some());
                names(&all.collect::<Vec<_>>())
            }
            "meta-data/instance-id" => Some(options.instance_id.clone()),
            "meta-data/instance-type" => Some(options.instance_type.clone()),
            "meta-data/placement" => names(&["availability-zone", "region"]),
            "meta-data/placement/region" => Some(options.region.clone()),
            "meta-data/placement/availability-zone" => Some(zone),
            "meta-data/block-device-mapping" => {
                names(&options.block_device_mapping.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
            }
            "meta-data/iam" => options.role.as_ref().and_then(|_| names(&["info", "security-credentials/"])),
            "meta-data/iam/info" => options.role.as_ref().map(|role| {
                json!({
                    "Code": "Success",
                    "LastUpdated": now_plus(0),
                    "InstanceProfileArn": format!("arn:aws:iam::{}:instance-profile/{role}", options.account),
                    "InstanceProfileId": "AIPAFAKEFAKEFAKEFAKE0",
                })
                .to_string()
            }),
            "meta-data/iam/security-credentials" => options.role.clone(),
            "dynamic/instance-identity/document" => Some(
                json!({
                    "accountId": options.account,
                    "architecture": "x86_64",
                    "availabilityZone": zone,
                    "imageId": "ami-1234567890abcdef0",
                    "instanceId": options.instance_id,
                    "instanceType": options.instance_type,
                    "pendingTime": now_plus(0),
                    "privateIp": "10.0.0.10",
                    "region": options.region,
                    "version": "2017-09-30",
                })
                .to_string(),
            ),
            "dynamic/instance-identity/rsa2048" => Some(not_a_signature()),
            _ => self.entry(path),
        }
    }

    fn entry(&self, path: &str) -> Option<String> {
        let options = &self.options;
        if let Some(name) = path.strip_prefix("meta-data/block-device-mapping/") {
            let found = options.block_device_mapping.iter().find(|(key, _)| key == name);
            return found.map(|(_, device)| device.clone());
        }
        let role = path.strip_prefix("meta-data/iam/security-credentials/")?;
        (Some(role) == options.role.as_deref()).then(|| {
            json!({
                "Code": "Success",
                "LastUpdated": now_plus(0),
                "Type": "AWS-HMAC",
                "AccessKeyId": Options::ACCESS_KEY_ID,
                "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "Token": "fake-session-token",
                "Expiration": now_plus(options.credentials_seconds),
            })
            .to_string()
        })
    }
}

/// Returns text in the form of a signature of the identity document: base64 in lines. It signs nothing, because AWS alone has the key for
/// that, and no test verifies it.
fn not_a_signature() -> String {
    let text = STANDARD.encode(b"fake-aws has no key of AWS, so this is not the signature of the document");
    let lines: Vec<String> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    lines.join("\n")
}

fn now_plus(seconds: i64) -> String {
    (Timestamp::now() + SignedDuration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
