//! Who the agent is to AWS: where its credentials come from, and whose they are.

use aws_credential_types::Credentials;
use aws_credential_types::attributes::AccountId;
use aws_credential_types::credential_feature::AwsCredentialFeature as Source;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_credential_types::provider::error::CredentialsError;

use super::client::AwsKms;
use super::error::{KmsError, Operation};
use super::failure::{Context, Failure};
use super::setup::from_environment;

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialSource {
    /// The source, in words.
    pub name: &'static str,
    /// Whether it is the role of the instance.
    pub is_instance_role: bool,
    /// The account that they are of, if the source says so.
    pub account: Option<String>,
}

impl CredentialSource {
    fn of(credentials: &Credentials) -> Self {
        let sources = credentials.get_property::<Vec<Source>>().map(Vec::as_slice).unwrap_or_default();
        let source = sources.iter().rev().find_map(name_of);
        Self {
            name: source.unwrap_or("the default chain"),
            is_instance_role: sources.contains(&Source::CredentialsImds),
            account: credentials.account_id().map(AccountId::as_str).map(str::to_owned),
        }
    }
}

/// The sources that have a name of their own.
const SOURCES: [(Source, &str); 13] = [
    (Source::CredentialsImds, "the instance role (IMDS)"),
    (Source::CredentialsEnvVars, "the environment (AWS_ACCESS_KEY_ID)"),
    (Source::CredentialsHttp, "the container's credentials endpoint"),
    (Source::CredentialsEnvVarsStsWebIdToken, "a web identity token"),
    (Source::CredentialsProfileStsWebIdToken, "a web identity token"),
    (Source::CredentialsStsAssumeRoleWebId, "a web identity token"),
    (Source::CredentialsProfileProcess, "the credential_process of a profile"),
    (Source::CredentialsProcess, "the credential_process of a profile"),
    (Source::CredentialsStsAssumeRole, "a role that a profile assumes"),
    (Source::CredentialsProfile, "a profile"),
    (Source::CredentialsProfileSourceProfile, "a profile"),
    (Source::CredentialsProfileNamedProvider, "a profile"),
    (Source::CredentialsSso, "a session of IAM Identity Center"),
];

/// Names a source. `None` for features that are not sources.
fn name_of(source: &Source) -> Option<&'static str> {
    SOURCES.iter().find(|(known, _)| known == source).map(|(_, name)| *name)
}

impl AwsKms {
    /// Gets credentials, and returns where they come from.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class.
    pub async fn credentials(&self) -> Result<CredentialSource, KmsError> {
        let asking = &self.asking(Operation::GetCredentials, &self.key_id);
        self.retry(asking, || async {
            let found = match self.sdk.credentials_provider() {
                Some(provider) => provider.provide_credentials().await,
                None => Err(CredentialsError::not_loaded_no_source()),
            };
            found.map(|credentials| CredentialSource::of(&credentials)).map_err(|e| Failure::of_credentials(&e))
        })
        .await
    }

    /// Returns the ARN of the caller, which STS tells everybody who has credentials.
    ///
    /// # Errors
    /// Why STS does not tell, in words. Nothing of the agent's work depends on STS, so a node need not reach it.
    pub async fn caller(&self) -> Result<String, String> {
        let mut sdk = self.sdk.to_builder();
        if self.config.endpoint_url.is_some() {
            // it is of KMS
            sdk.set_endpoint_url(
                from_environment("AWS_ENDPOINT_URL_STS").or_else(|| from_environment("AWS_ENDPOINT_URL")),
            );
        }
        let client = aws_sdk_sts::Client::new(&sdk.build());
        match client.get_caller_identity().send().await {
            Ok(answer) => answer.arn().map(str::to_owned).ok_or_else(|| "STS named no ARN".to_owned()),
            Err(error) => {
                let (operation, key) = (Operation::GetCredentials, self.key_id.as_str());
                Err(Failure::of(&error, Context { operation, key, place: "STS" }).to_string())
            }
        }
    }
}
