//! The role of a disk: boot, EBS, instance store, unclear or ignored.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The role of a disk for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Role {
    /// Carries the running system. Never a target.
    Boot {
        /// What it carries.
        because: String,
    },
    /// An EBS volume.
    Ebs,
    /// An instance store volume.
    InstanceStore,
    /// May be an EBS volume, but nothing confirms it. Never a target, but always reported.
    Unclear {
        /// What is missing.
        because: String,
    },
    /// Left alone.
    Ignored {
        /// Why.
        because: String,
    },
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot { .. } => "boot",
            Self::Ebs => "ebs",
            Self::InstanceStore => "instance-store",
            Self::Unclear { .. } => "unclear",
            Self::Ignored { .. } => "ignored",
        })
    }
}

/// NVMe model of an EBS volume (amazon-ec2-utils, `70-ec2-nvme-devices.rules`).
pub const MODEL_EBS: &str = "Amazon Elastic Block Store";

/// NVMe model of an instance store volume (same source).
pub const MODEL_INSTANCE_STORE: &str = "Amazon EC2 NVMe Instance Storage";
