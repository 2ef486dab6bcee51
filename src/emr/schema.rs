//! The schema of a security configuration, as the EMR Management Guide documents it.

/// What a value may be.
#[derive(Debug)]
pub(super) enum Kind {
    /// A boolean, or a string with one.
    Flag,
    /// A text.
    Text,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A whole number in this range.
    Number(u64, u64),
    /// An object with these properties, none of which it must have.
    Object(&'static [Field]),
    /// A list.
    List(&'static Self),
}

/// A property.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind }
}

const fn text(name: &'static str) -> Field {
    field(name, Kind::Text)
}

const fn flag(name: &'static str) -> Field {
    field(name, Kind::Flag)
}

const fn object(name: &'static str, fields: &'static [Field]) -> Field {
    field(name, Kind::Object(fields))
}

/// The parts of a document.
pub(super) static DOCUMENT: [Field; 5] = [
    object("EncryptionConfiguration", &ENCRYPTION_FIELDS),
    object("AuthenticationConfiguration", &AUTHENTICATION),
    object("AuthorizationConfiguration", &AUTHORIZATION),
    object(
        "LakeFormationConfiguration",
        &[text("IdpMetadataS3Path"), text("EmrRoleForUsersARN"), text("LakeFormationRoleForSAMLPrincipalARN")],
    ),
    object(
        "InstanceMetadataServiceConfiguration",
        &[
            field("MinimumInstanceMetadataServiceVersion", Kind::Number(1, 2)),
            field("HttpPutResponseHopLimit", Kind::Number(1, 64)),
        ],
    ),
];

/// The parts of `EncryptionConfiguration`.
pub(super) static ENCRYPTION_FIELDS: [Field; 5] = [
    flag("EnableInTransitEncryption"),
    flag("EnableAtRestEncryption"),
    object("InTransitEncryptionConfiguration", &[object("TLSCertificateConfiguration", &TLS_FIELDS)]),
    object(
        "AtRestEncryptionConfiguration",
        &[
            object("S3EncryptionConfiguration", &S3_FIELDS),
            object("LocalDiskEncryptionConfiguration", &LOCAL_DISK_FIELDS),
        ],
    ),
    object("EMRWALEncryptionConfiguration", &[text("AwsKmsKey")]),
];

static TLS_FIELDS: [Field; 8] = [
    field("CertificateProviderType", Kind::Choice(&["PEM", "Custom", "EMR"])),
    text("S3Object"),
    text("CertificateProviderClass"),
    text("AwsKmsKey"),
    field("SecretTags", Kind::List(&Kind::Object(&TAG_FIELDS))),
    field("ValidityInDays", Kind::Number(1, u64::MAX)),
    text("WildcardDnsSuffix"),
    // describe-security-configuration adds it
    text("CACertificateSecretARN"),
];

static TAG_FIELDS: [Field; 2] = [text("Key"), text("Value")];

/// How EMRFS encrypts.
pub(super) const S3_MODES: [&str; 4] = ["SSE-S3", "SSE-KMS", "CSE-KMS", "CSE-Custom"];

static S3_FIELDS: [Field; 5] = [
    field("EncryptionMode", Kind::Choice(&S3_MODES)),
    text("AwsKmsKey"),
    text("S3Object"),
    text("EncryptionKeyProviderClass"),
    field("Overrides", Kind::List(&Kind::Object(&OVERRIDE_FIELDS))),
];

static OVERRIDE_FIELDS: [Field; 5] = [
    text("BucketName"),
    field("EncryptionMode", Kind::Choice(&S3_MODES)),
    text("AwsKmsKey"),
    text("S3Object"),
    text("EncryptionKeyProviderClass"),
];

static LOCAL_DISK_FIELDS: [Field; 5] = [
    flag("EnableEbsEncryption"),
    field("EncryptionKeyProviderType", Kind::Choice(&["AwsKms", "Custom"])),
    text("AwsKmsKey"),
    text("S3Object"),
    text("EncryptionKeyProviderClass"),
];

static AUTHENTICATION: [Field; 2] = [
    object(
        "KerberosConfiguration",
        &[
            field("Provider", Kind::Choice(&["ClusterDedicatedKdc", "ExternalKdc"])),
            object("ClusterDedicatedKdcConfiguration", &DEDICATED_KDC),
            object("ExternalKdcConfiguration", &EXTERNAL_KDC),
        ],
    ),
    object(
        "IdentityCenterConfiguration",
        &[
            flag("EnableIdentityCenter"),
            text("IdentityCenterInstanceARN"),
            // EMR spells it so
            flag("IdentityCenterApplicationAssigmentRequired"),
            flag("EnableUserBackgroundSession"),
            text("IAMRoleForEMRIdentityCenterApplicationARN"),
        ],
    ),
];

static DEDICATED_KDC: [Field; 2] = [
    field("TicketLifetimeInHours", Kind::Number(1, u64::MAX)),
    object("CrossRealmTrustConfiguration", &[text("Realm"), text("Domain"), text("AdminServer"), text("KdcServer")]),
];

static EXTERNAL_KDC: [Field; 5] = [
    field("TicketLifetimeInHours", Kind::Number(1, u64::MAX)),
    field("KdcServerType", Kind::Choice(&["Single"])),
    text("AdminServer"),
    text("KdcServer"),
    object("AdIntegrationConfiguration", &[text("AdRealm"), text("AdDomain"), text("AdServer")]),
];

static AUTHORIZATION: [Field; 4] = [
    object("EmrFsConfiguration", &[field("RoleMappings", Kind::List(&Kind::Object(&ROLE_MAPPING)))]),
    object(
        "IAMConfiguration",
        &[
            flag("EnableApplicationScopedIAMRole"),
            object("ApplicationScopedIAMRoleConfiguration", &[flag("PropagateSourceIdentity")]),
        ],
    ),
    object("LakeFormationConfiguration", &[text("AuthorizedSessionTagValue")]),
    object("RangerConfiguration", &RANGER),
];

static ROLE_MAPPING: [Field; 3] = [
    text("Role"),
    field("IdentifierType", Kind::Choice(&["User", "Prefix", "Group"])),
    field("Identifiers", Kind::List(&Kind::Text)),
];

static RANGER: [Field; 6] = [
    text("AdminServerURL"),
    text("RoleForRangerPluginsARN"),
    text("RoleForOtherAWSServicesARN"),
    text("AdminServerSecretARN"),
    field(
        "RangerPluginConfigurations",
        Kind::List(&Kind::Object(&[text("App"), text("ClientSecretARN"), text("PolicyRepositoryName")])),
    ),
    object(
        "AuditConfiguration",
        &[object("Destinations", &[object("AmazonCloudWatchLogs", &[text("CloudWatchLogGroup")])])],
    ),
];

/// Returns the name that is most similar to an unknown one, if one is similar.
pub(super) fn nearest(unknown: &str, known: &[&'static str]) -> Option<&'static str> {
    // comparing costs the product of the lengths
    if unknown.len() > 100 {
        return None;
    }
    // a name that was cut short is further away than a typing error
    let unknown_lower = unknown.to_ascii_lowercase();
    let is_cut = |name: &&&str| unknown.len() >= 6 && name.to_ascii_lowercase().starts_with(&unknown_lower);
    if let Some(whole) = known.iter().find(is_cut) {
        return Some(whole);
    }
    let distance = |name: &str| strsim::damerau_levenshtein(&unknown_lower, &name.to_ascii_lowercase());
    let near = known.iter().map(|name| (distance(name), *name)).min()?;
    (near.0 <= near.1.len() / 2).then_some(near.1)
}
