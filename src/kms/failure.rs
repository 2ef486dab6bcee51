//! A failed attempt of a request to the key service: what it means, and how to fix it.

use std::error::Error;
use std::time::Duration;
use std::{fmt, io};

use aws_config::imds::client::error::ImdsError;
use aws_config::meta::ProviderChainError;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use http_body_util::LengthLimitError;
use rustls::CertificateError;

use super::class::{Class, classify, is_throttling};
use super::denial::Denial;
use super::error::{KmsError, Operation};
use super::imds;

/// The request that failed: the part of the message that the failure itself does not know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) operation: Operation,
    /// Key ID, alias or ARN as sent.
    pub(super) key: &'a str,
    /// URL of the endpoint if one is configured, else the KMS of the Region.
    pub(super) place: &'a str,
}

/// Number and duration of the attempts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tries {
    pub(super) count: u32,
    pub(super) time: Duration,
}

impl Tries {
    /// One attempt; how long it took does not matter.
    pub(super) const ONE: Self = Self { count: 1, time: Duration::ZERO };
}

/// A failed attempt; `Display` says what happened.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) class: Class,
    what: String,
    remedy: Option<String>,
    pub(super) code: Option<Box<str>>,
    request_id: Option<Box<str>>,
    denial: Option<Box<Denial>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Failure {
    pub(super) fn new(class: Class, what: impl Into<String>) -> Self {
        Self { class, what: what.into(), remedy: None, code: None, request_id: None, denial: None }
    }

    pub(super) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(super) fn with_cause(mut self, cause: &(dyn Error + 'static)) -> Self {
        self.what = format!("{}: {}", self.what, texts(cause));
        self
    }

    /// Replaces the text by what else is known about the key.
    pub(super) fn explained_by(mut self, other: Self) -> Self {
        self.class = other.class;
        self.what = other.what;
        self.remedy = other.remedy;
        self
    }

    /// Whether the request was one too many.
    pub(super) fn is_throttling(&self) -> bool {
        self.code.as_deref().is_some_and(is_throttling)
    }

    /// Classifies an error of the SDK.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>, context: Context<'_>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let place = context.place;
        let mut failure = match error {
            SdkError::ServiceError(_) => Self::answered(error, context),
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) => {
                if let Some(credentials) = find::<CredentialsError>(error) {
                    Self::of_credentials(credentials)
                } else if let Some(tls) = find::<rustls::Error>(error) {
                    Self::of_tls(tls, place)
                } else if matches!(error, SdkError::ConstructionFailure(_)) {
                    Self::new(Class::Configuration, format!("cannot build a request for {place}")).with_cause(error)
                } else if matches!(error, SdkError::TimeoutError(_)) {
                    Self::new(Class::Transient, format!("timed out waiting for {place}"))
                } else {
                    Self::new(Class::Transient, format!("cannot reach {place}")).with_cause(error)
                }
            }
            SdkError::ResponseError(_) if find::<LengthLimitError>(error).is_some() => Self::garbled(place),
            // the error value contains the response, which may contain the data key, so nothing of it is kept
            SdkError::ResponseError(_) => Self::new(Class::Transient, format!("the response from {place} was cut off")),
            _ => Self::new(Class::Unexpected, "unknown error of the AWS SDK"),
        };
        failure.request_id = error.request_id().map(Box::from);
        failure
    }

    /// Nothing of the error value is kept: it contains the response, which may contain the data key.
    fn garbled(place: &str) -> Self {
        Self::new(Class::Garbled, format!("invalid response from {place}"))
    }

    fn answered<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>, context: Context<'_>) -> Self {
        let status = error.raw_response().map_or(0, |r| r.status().as_u16());
        // the SDK reports a success response that it cannot parse as a service error
        if status < 300 {
            return Self::garbled(context.place);
        }
        let code = error.code().unwrap_or_default();
        let message = error.message().unwrap_or_default();
        // the ARN is of the key that encrypted, so the configuration is not at fault
        let gone = code == "NotFoundException" && context.operation == Operation::Decrypt;
        let class = if gone { Class::KeyState } else { classify(code, status) };
        let denial = (class == Class::Denied).then(|| Box::new(Denial::parse(message)));
        let what = match (class, code) {
            (Class::Denied, _) => denial.iter().map(|denial| denied(denial, context)).collect(),
            (Class::Configuration, "NotFoundException") => format!("no such KMS key in {}: {message}", context.place),
            (Class::KeyState, "NotFoundException") => format!("the KMS key no longer exists: {message}"),
            (Class::KeyState, "DisabledException") => "the KMS key is disabled".to_owned(),
            (Class::KeyState, _) => format!("the KMS key cannot be used in its current state: {message}"),
            (Class::WrappedKey, "IncorrectKeyException") => {
                "the wrapped key was encrypted under a different KMS key".to_owned()
            }
            (Class::WrappedKey, _) => {
                "the wrapped key is damaged, or was encrypted with an encryption context".to_owned()
            }
            (Class::BadCredentials, _) => format!("AWS rejected the credentials: {message}"),
            (Class::Clock, _) => format!("AWS rejected the signature or its timestamp: {message}"),
            (_, "") => format!("{} returned HTTP status {status} without an error code", context.place),
            (_, _) => format!("KMS returned {code}: {message}"),
        };
        let what = what.trim_end_matches([':', '.', ' ']);
        let mut failure = Self::new(class, what);
        failure.code = error.code().map(Box::from);
        failure.denial = denial;
        failure
    }

    pub(super) fn of_credentials(error: &CredentialsError) -> Self {
        let what = "no AWS credentials in environment, profile, web identity, container or instance role";
        let class = match error {
            CredentialsError::CredentialsNotLoaded(_) if imds::is_disabled() => Class::NoCredentialSource,
            // an invalid file or trust policy
            CredentialsError::InvalidConfiguration(_) => Class::BadCredentials,
            CredentialsError::CredentialsNotLoaded(_)
            | CredentialsError::ProviderTimedOut(_)
            | CredentialsError::ProviderError(_)
            | CredentialsError::Unhandled(_)
            | _ => Class::NoCredentials,
        };
        // only the last provider, IMDS, is worth reporting: the others are just not set up
        let last = find::<ProviderChainError<CredentialsError>>(error).and_then(|chain| chain.attempts().last());
        let cause = last.map_or(error, |attempt| attempt.error());
        let failure = Self::new(class, what).with_cause(cause);
        match find::<ImdsError>(cause) {
            // IMDS responds, but without a session token
            Some(ImdsError::FailedToLoadToken(token)) if !token.is_dispatch_failure() => failure.with_remedy(
                "enable IMDS: `aws ec2 modify-instance-metadata-options --http-endpoint enabled`, or set \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ),
            _ => failure,
        }
    }

    fn of_tls(error: &rustls::Error, place: &str) -> Self {
        use CertificateError as E;
        let failure = if let rustls::Error::InvalidCertificate(reason) = error {
            if matches!(reason, E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. }) {
                Self::new(Class::Clock, format!("the certificate of {place} is expired or not yet valid")).with_remedy(
                    "set this node's clock (`chronyc tracking`, `timedatectl`); if it is right, renew the certificate",
                )
            } else if matches!(reason, E::NotValidForName | E::NotValidForNameContext { .. }) {
                Self::new(Class::Certificate, format!("the certificate of {place} is for another host"))
                    .with_remedy("correct kms.endpoint_url, or find out which service answers there")
            } else {
                Self::new(Class::Certificate, format!("the certificate of {place} is not trusted by the system"))
            }
        } else {
            Self::new(Class::Certificate, format!("cannot establish a TLS connection to {place}"))
                .with_remedy("check that kms.endpoint_url is an https endpoint, and which service answers there")
        };
        failure.with_cause(error)
    }

    /// Makes the error of AWS KMS for the caller.
    pub(super) fn into_error(self, context: Context<'_>, tries: Tries) -> KmsError {
        let Context { operation, key, .. } = context;
        let remedy = remedy(self.class, self.code.as_deref(), context);
        self.into_error_about(operation, &format!("{operation} with KMS key {key}"), remedy, tries)
    }

    /// Makes the error for the caller. `subject` says what failed; `remedy` counts if the failure has none of its own.
    pub(super) fn into_error_about(
        self,
        operation: Operation,
        subject: &str,
        remedy: String,
        tries: Tries,
    ) -> KmsError {
        let remedy = self.remedy.unwrap_or(remedy);
        let mut details = Vec::new();
        details.extend(self.code.as_deref().map(str::to_owned));
        details.extend(self.request_id.as_ref().map(|id| format!("request {id}")));
        if tries.count > 1 {
            details.push(format!("{} attempts in {:.0} s", tries.count, tries.time.as_secs_f64()));
        }
        let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
        KmsError {
            call: Some(subject.to_owned()),
            what: format!("{}{details}", self.what),
            remedy: Some(remedy),
            operation: Some(operation),
            class: self.class,
            code: self.code,
            request_id: self.request_id,
            denial: self.denial,
        }
    }
}

fn remedy(class: Class, code: Option<&str>, context: Context<'_>) -> String {
    let Context { operation, key, place } = context;
    match class {
        Class::Transient if operation == Operation::FindRegion => {
            "set kms.key_id to the ARN of the KMS key, or set kms.region".to_owned()
        }
        Class::Transient if code.is_none() => format!(
            "check whether this node can reach {place}: route, security group, VPC endpoint for KMS, DNS, proxy, \
             kms.endpoint_url"
        ),
        Class::Transient => "try again later, or check the AWS Health Dashboard for KMS".to_owned(),
        Class::KeyNotReady => format!("check `aws kms describe-key --key-id {key}` and the key's custom key store"),
        Class::Limit => "raise the quota of the AWS account, or try again later".to_owned(),
        Class::NoCredentials | Class::NoCredentialSource => {
            "attach an instance profile with a role that may use the key, or set AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY"
                .to_owned()
        }
        Class::BadCredentials => {
            "check the node's role and instance profile, or the credentials in the environment and ~/.aws".to_owned()
        }
        Class::Clock => {
            "set this node's clock (`chronyc tracking`, `timedatectl`); if it is right, the secret key is wrong"
                .to_owned()
        }
        Class::Denied => {
            let key = if operation == Operation::ReEncrypt { "both keys" } else { "this key" };
            format!("allow kms:{} on {key} in the key policy or in the policy of the node's role", operation.actions())
        }
        Class::KeyState if code == Some("DisabledException") => {
            format!("enable it: `aws kms enable-key --key-id {key}`")
        }
        Class::KeyState if code == Some("NotFoundException") => {
            "nothing can decrypt what it encrypted: restore the data from a backup, or, if the key exists in another \
             account or Region, check kms.endpoint_url and the node's role"
                .to_owned()
        }
        Class::KeyState => format!("check `aws kms describe-key --key-id {key}`"),
        Class::Certificate => {
            "install the CA certificate that signed it (Debian: /usr/local/share/ca-certificates and \
             update-ca-certificates; Amazon Linux: /etc/pki/ca-trust/source/anchors and update-ca-trust), or correct \
             kms.endpoint_url"
                .to_owned()
        }
        Class::Configuration => "correct kms.key_id, kms.region or kms.endpoint_url".to_owned(),
        Class::WrappedKey => {
            "restore the wrapped key from a backup of the state file or from the LUKS2 token of a volume".to_owned()
        }
        Class::Garbled | Class::Unexpected => format!("check which service answers at {place} in place of KMS"),
    }
}

fn denied(denial: &Denial, Context { operation, key, .. }: Context<'_>) -> String {
    // ReEncrypt needs two actions, and AWS says which is missing, on which key
    let lacks = denial.lacks().filter(|_| operation == Operation::ReEncrypt);
    denial.describe(lacks.unwrap_or((operation.actions(), key)))
}

/// Returns the first error of type `E` in the chain, including the payloads of [`io::Error`]s.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|e| e.downcast_ref::<E>())
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// Joins the texts of an error and its sources, without empty phrases and repetitions.
fn texts(error: &(dyn Error + 'static)) -> String {
    const NOTHING: [&str; 6] = [
        "dispatch failure",
        "io error",
        "other",
        "client error (Connect)",
        "failed to construct request",
        "the credential provider was not enabled",
    ];
    let mut texts: Vec<String> = Vec::new();
    for error in chain(error) {
        // its own text is the debug form of the whole response
        let text = match error.downcast_ref::<ImdsError>() {
            Some(ImdsError::ErrorResponse(answer)) => {
                format!("IMDS returned HTTP status {}", answer.response().status().as_u16())
            }
            Some(_) | None => error.to_string(),
        };
        if !NOTHING.contains(&text.as_str()) && !texts.iter().any(|t| t.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::Fault;

    const CONTEXT: Context<'_> = Context {
        operation: Operation::GenerateDataKey,
        key: "arn:aws:kms:us-east-1:111122223333:key/k",
        place: "KMS in us-east-1",
    };

    #[test]
    fn the_text_has_cause_details_and_remedy() {
        let mut failure = Failure::new(Class::Denied, "access denied");
        failure.code = Some("AccessDeniedException".into());
        failure.request_id = Some("r-1".into());
        let error = failure.into_error(CONTEXT, Tries { count: 3, time: Duration::from_secs(61) });
        assert_eq!(
            error.to_string(),
            "KMS GenerateDataKey with KMS key arn:aws:kms:us-east-1:111122223333:key/k: access denied \
             (AccessDeniedException, request r-1, 3 attempts in 61 s); allow kms:GenerateDataKey on this key in the key \
             policy or in the policy of the node's role"
        );
        assert_eq!(error.fault(), Fault::Unavailable);
    }

    #[test]
    fn certificates_are_told_apart() {
        let of = |e| Failure::of_tls(&rustls::Error::InvalidCertificate(e), "https://kms.test");
        let unknown = of(CertificateError::UnknownIssuer);
        assert_eq!(unknown.class, Class::Certificate);
        assert!(unknown.to_string().contains("https://kms.test is not trusted by the system"), "{unknown}");
        assert_eq!(of(CertificateError::Expired).class, Class::Clock);
        assert!(of(CertificateError::NotValidForName).to_string().contains("for another host"));
    }

    #[test]
    fn causes_do_not_repeat_themselves() {
        let inner = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        assert_eq!(texts(&io::Error::other(inner)), "connection refused");
    }
}
