//! The state that all connections share. It knows neither the listeners nor HTTP.

use std::io;

use crate::fault::Faults;
use crate::imds::Imds;
use crate::key::Root;
use crate::kms::Kms;
use crate::log::Log;
use crate::options::Options;

/// What all connections of one endpoint share.
pub(crate) struct Shared {
    pub(crate) kms: Kms,
    pub(crate) log: Log,
    pub(crate) faults: Faults,
    pub(crate) imds: Imds,
    /// The ARN of the caller.
    pub(crate) principal: String,
    pub(crate) account: String,
}

impl Shared {
    pub(crate) fn new(options: Options) -> io::Result<Self> {
        let principal = match &options.role {
            Some(role) => format!("arn:aws:sts::{}:assumed-role/{role}/{}", options.account, options.instance_id),
            None => format!("arn:aws:iam::{}:user/nobody", options.account),
        };
        let root =
            Root::new(options.seed.as_deref()).map_err(|_| io::Error::other("no random bytes for the key material"))?;
        let faults = Faults::default();
        faults.replace(options.faults.clone());
        Ok(Self {
            kms: Kms::new(
                &options.region,
                &options.account,
                principal.clone(),
                root,
                options.keys.clone(),
                options.allow.clone(),
            ),
            log: Log::open(options.log_file.as_deref())?,
            faults,
            principal,
            account: options.account.clone(),
            imds: Imds::new(options),
        })
    }
}
