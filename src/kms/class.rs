//! Classifies failed calls by their error *code*: the HTTP status of a code differs between the model of KMS, its
//! documentation and emulators.

/// The class of a failure, which decides how it is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Throttling, a fault inside KMS, a network failure: retried until the deadline.
    Transient,
    /// The KMS key is being created or changed, or its key store does not respond: retried until the deadline, with
    /// longer waits.
    KeyNotReady,
    /// A quota of the account is used up: retried a few times.
    Limit,
    /// No credentials (no role yet, IMDS not up): retried until the deadline.
    NoCredentials,
    /// No credentials, and no reason to wait: `AWS_EC2_METADATA_DISABLED` forbids asking IMDS.
    NoCredentialSource,
    /// AWS rejected the credentials: retried for a short time, because IMDS may be about to renew them.
    BadCredentials,
    /// AWS rejected the time of the signature: retried a few times, because the clock may be about to be set.
    Clock,
    /// A policy denies the call: retried for a short time, because IAM is eventually consistent and the role may be
    /// new.
    Denied,
    /// The KMS key is disabled, scheduled for deletion, or has no key material.
    KeyState,
    /// The certificate of the endpoint is not trusted.
    Certificate,
    /// The configuration names a key, Region or endpoint that cannot work.
    Configuration,
    /// The wrapped key is damaged or belongs to another KMS key.
    WrappedKey,
    /// An invalid response: retried a few times.
    Garbled,
    /// A response that no version of KMS should send.
    Unexpected,
}

impl Class {
    /// Returns its name in metrics and journal fields.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::KeyNotReady => "key-not-ready",
            Self::Limit => "limit",
            Self::NoCredentials => "no-credentials",
            Self::NoCredentialSource => "no-credential-source",
            Self::BadCredentials => "bad-credentials",
            Self::Clock => "clock",
            Self::Denied => "denied",
            Self::KeyState => "key-state",
            Self::Certificate => "certificate",
            Self::Configuration => "configuration",
            Self::WrappedKey => "wrapped-key",
            Self::Garbled => "garbled",
            Self::Unexpected => "unexpected",
        }
    }
}

/// Returns the class of an error code of KMS, of AWS request signing or of the front ends of AWS.
///
/// `status` decides for unknown codes. An empty code stands for a response without one.
pub fn classify(code: &str, status: u16) -> Class {
    match code {
        // KMS itself
        "KMSInternalException" | "DependencyTimeoutException" => Class::Transient,
        "KeyUnavailableException" => Class::KeyNotReady,
        "LimitExceededException" => Class::Limit,
        "DisabledException" | "KMSInvalidStateException" => Class::KeyState,
        "NotFoundException"
        | "InvalidArnException"
        | "InvalidKeyUsageException"
        | "InvalidGrantTokenException"
        | "InvalidAliasNameException"
        | "UnsupportedOperationException"
        | "ValidationException"
        | "ValidationError" => Class::Configuration,
        "IncorrectKeyException" | "InvalidCiphertextException" => Class::WrappedKey,
        // the response to a successful dry run, which only `health` asks for and expects
        "DryRunOperationException" => Class::Unexpected,

        // policies
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "OptInRequired" => Class::Denied,

        // credentials and signatures
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredTokenException"
        | "ExpiredToken" => Class::BadCredentials,
        "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "RequestExpired"
        | "RequestInTheFuture"
        | "RequestTimeTooSkewed" => Class::Clock,

        // throttling and faults of the front ends
        _ if is_throttling(code) => Class::Transient,
        "InternalFailure"
        | "InternalError"
        | "InternalServerError"
        | "InternalServiceException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException" => Class::Transient,

        _ if status >= 500 || status == 408 || status == 429 => Class::Transient,
        _ => Class::Unexpected,
    }
}

/// Returns whether an error code says that there are too many requests.
pub(super) fn is_throttling(code: &str) -> bool {
    const CODES: [&str; 8] = [
        "ThrottlingException",
        "Throttling",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "SlowDown",
    ];
    CODES.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_documented() {
        let all = [
            Class::Transient,
            Class::KeyNotReady,
            Class::Limit,
            Class::NoCredentials,
            Class::NoCredentialSource,
            Class::BadCredentials,
            Class::Clock,
            Class::Denied,
            Class::KeyState,
            Class::Certificate,
            Class::Configuration,
            Class::WrappedKey,
            Class::Garbled,
            Class::Unexpected,
        ];
        for class in all {
            assert!(include_str!("../../docs/kms.md").contains(&format!("`{}`", class.name())), "{class:?}");
        }
    }

    #[test]
    fn codes_decide_whatever_the_status() {
        let table = [
            ("ThrottlingException", Class::Transient),
            ("KMSInternalException", Class::Transient),
            ("DependencyTimeoutException", Class::Transient),
            ("KeyUnavailableException", Class::KeyNotReady),
            ("LimitExceededException", Class::Limit),
            ("KMSInvalidStateException", Class::KeyState),
            ("DisabledException", Class::KeyState),
            ("NotFoundException", Class::Configuration),
            ("IncorrectKeyException", Class::WrappedKey),
            ("InvalidCiphertextException", Class::WrappedKey),
            ("InvalidKeyUsageException", Class::Configuration),
            ("InvalidGrantTokenException", Class::Configuration),
            ("InvalidArnException", Class::Configuration),
            ("ValidationException", Class::Configuration),
            ("DryRunOperationException", Class::Unexpected),
            ("AccessDeniedException", Class::Denied),
            ("UnrecognizedClientException", Class::BadCredentials),
            ("IncompleteSignature", Class::BadCredentials),
            ("MissingAuthenticationToken", Class::BadCredentials),
            ("ExpiredTokenException", Class::BadCredentials),
            ("InvalidSignatureException", Class::Clock),
            ("SignatureDoesNotMatch", Class::Clock),
            ("RequestExpired", Class::Clock),
            ("ServiceUnavailable", Class::Transient),
            ("RequestTimeout", Class::Transient),
        ];
        for (code, expected) in table {
            for status in [400, 403, 404, 409, 412, 500, 503] {
                assert_eq!(classify(code, status), expected, "{code} with {status}");
            }
        }
    }

    #[test]
    fn the_status_decides_for_unknown_codes() {
        for code in ["", "NewException"] {
            assert_eq!(classify(code, 500), Class::Transient);
            assert_eq!(classify(code, 503), Class::Transient);
            assert_eq!(classify(code, 429), Class::Transient);
            assert_eq!(classify(code, 400), Class::Unexpected);
            assert_eq!(classify(code, 403), Class::Unexpected);
        }
    }
}
