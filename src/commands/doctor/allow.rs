//! What to allow if permissions are missing: statements that are ready to paste.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The actions that the agent needs on its KMS key.
pub(super) const ACTIONS: [&str; 3] = ["kms:DescribeKey", "kms:GenerateDataKey", "kms:Decrypt"];

/// A permission that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// The action, with its prefix.
    pub(super) action: &'static str,
    /// ARN of the key; `None` if nobody said it.
    pub(super) key_arn: Option<String>,
    /// Which kind of policy denies the call, as AWS says it.
    pub(super) why: Option<String>,
}

/// Who makes the calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// A role. Its ARN is not known if only the instance named it.
    Role { name: String, arn: Option<String> },
    /// A user.
    User { name: String, arn: String },
    /// Nobody said it.
    Unknown,
}

impl Identity {
    /// Reads the ARN of a caller, as STS and denials give it.
    pub(super) fn of_arn(arn: &str) -> Self {
        let fields: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", partition, service, _, account, resource] = fields[..] else { return Self::Unknown };
        match (service, resource.split('/').collect::<Vec<_>>().as_slice()) {
            ("sts", ["assumed-role", name, ..]) => Self::Role {
                name: (*name).to_owned(),
                arn: Some(format!("arn:{partition}:iam::{account}:role/{name}")),
            },
            ("iam", ["user", .., name]) => Self::User { name: (*name).to_owned(), arn: arn.to_owned() },
            _ => Self::Unknown,
        }
    }

    fn arn(&self) -> Option<&str> {
        match self {
            Self::Role { arn, .. } => arn.as_deref(),
            Self::User { arn, .. } => Some(arn),
            Self::Unknown => None,
        }
    }
}

/// Returns the policy that allows what is missing, for the role of the nodes.
pub(super) fn policy(missing: &[Missing]) -> Value {
    let mut of_key: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Missing { action, key_arn, .. } in missing {
        of_key.entry(key_arn.as_deref().unwrap_or("KEY_ARN")).or_default().push(action);
    }
    let many = of_key.len() > 1;
    let statements = of_key.into_iter().enumerate().map(|(number, (key_arn, actions))| {
        let sid = if many { format!("LuksAgentNode{}", number + 1) } else { "LuksAgentNode".to_owned() };
        json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": key_arn })
    });
    json!({ "Version": "2012-10-17", "Statement": statements.collect::<Vec<_>>() })
}

/// Returns what to do about missing permissions.
pub(super) fn remedy(missing: &[Missing], identity: &Identity) -> String {
    let says = |text: &str| missing.iter().find_map(|m| m.why.as_deref().filter(|why| why.contains(text)));
    if let Some(why) = says("explicit deny") {
        return format!("no further permission helps, remove the denial: {why}");
    }
    let mut remedy = match says("no resource-based policy") {
        Some(_) => format!("add to the key policy: {}", key_statement(missing, identity)),
        None => in_policy_of(missing, identity),
    };
    if missing.iter().any(|missing| missing.key_arn.is_none()) {
        remedy.push_str(" (replace KEY_ARN by the ARN of the KMS key)");
    }
    remedy
}

/// Returns the command that gives the role or user a policy of its own, which replaces no other.
fn in_policy_of(missing: &[Missing], identity: &Identity) -> String {
    let policy = policy(missing);
    let mut names: Vec<&str> = missing.iter().map(|m| m.action.trim_start_matches("kms:")).collect();
    names.dedup();
    let name = format!("luks-agent-{}", names.join("-"));
    match identity {
        Identity::Role { name: role, .. } => {
            format!("aws iam put-role-policy --role-name {role} --policy-name {name} --policy-document '{policy}'")
        }
        Identity::User { name: user, .. } => {
            format!("aws iam put-user-policy --user-name {user} --policy-name {name} --policy-document '{policy}'")
        }
        Identity::Unknown => format!("give the node's role this policy: {policy}"),
    }
}

/// Returns a statement for the key policy, in which `*` means the key itself.
fn key_statement(missing: &[Missing], identity: &Identity) -> Value {
    let actions: Vec<&str> = missing.iter().map(|missing| missing.action).collect();
    let principal = identity.arn().unwrap_or("ROLE_ARN");
    json!({ "Sid": "LuksAgentNodes", "Effect": "Allow", "Principal": { "AWS": principal }, "Action": actions, "Resource": "*" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn missing(action: &'static str, why: Option<&str>) -> Missing {
        Missing { action, key_arn: Some(KEY.to_owned()), why: why.map(str::to_owned) }
    }

    #[test]
    fn if_everything_is_missing_the_policy_is_the_one_in_the_documentation() {
        let all: Vec<Missing> = ACTIONS.iter().map(|action| missing(action, None)).collect();
        let documented: Value = serde_json::from_str(include_str!("../../../packaging/iam/node-policy.json")).unwrap();
        assert_eq!(policy(&all), documented);
    }

    #[test]
    fn the_remedy_allows_what_is_missing_and_no_more() {
        let node = Identity::of_arn("arn:aws:sts::111122223333:assumed-role/EMR_EC2_DefaultRole/i-0123");
        let identity = "no identity-based policy allows the kms:Decrypt action";
        let said = remedy(&[missing("kms:Decrypt", Some(identity))], &node);
        let command = "aws iam put-role-policy --role-name EMR_EC2_DefaultRole --policy-name luks-agent-Decrypt --policy-document '";
        let document = said.strip_prefix(command).and_then(|rest| rest.strip_suffix('\'')).expect(&said);
        let document: Value = serde_json::from_str(document).unwrap();
        let [statement] = document["Statement"].as_array().unwrap().as_slice() else { panic!("{document}") };
        assert_eq!((&statement["Action"], &statement["Resource"]), (&json!(["kms:Decrypt"]), &json!(KEY)));
        let said = remedy(&[missing("kms:Decrypt", None)], &Identity::Unknown);
        assert!(said.starts_with("give the node's role this policy: {"), "{said}");
    }

    #[test]
    fn a_key_policy_gets_a_statement_with_the_principal_and_a_denial_gets_none() {
        let node = Identity::of_arn("arn:aws-cn:sts::111122223333:assumed-role/Node/i-0123");
        let resource = "no resource-based policy allows the kms:Decrypt action";
        let said = remedy(&[missing("kms:Decrypt", Some(resource))], &node);
        assert!(said.starts_with("add to the key policy: {"), "{said}");
        assert!(said.contains(r#""Principal":{"AWS":"arn:aws-cn:iam::111122223333:role/Node"}"#), "{said}");
        let deny = "with an explicit deny in a service control policy";
        let said = remedy(&[missing("kms:Decrypt", Some(deny))], &node);
        assert!(said.contains(deny) && !said.contains('{'), "{said}");
    }

    #[test]
    fn keys_have_statements_of_their_own_and_an_unknown_one_is_told() {
        let other = Missing { key_arn: Some("arn:other".to_owned()), ..missing("kms:Decrypt", None) };
        let two = policy(&[missing("kms:Decrypt", None), other]);
        let resources = two["Statement"].as_array().unwrap().iter().map(|s| &s["Resource"]).collect::<Vec<_>>();
        assert_eq!(resources, [KEY, "arn:other"]);
        let unknown = Missing { key_arn: None, ..missing("kms:Decrypt", None) };
        let said = remedy(&[unknown], &Identity::Unknown);
        assert!(said.ends_with("(replace KEY_ARN by the ARN of the KMS key)"), "{said}");
    }

    #[test]
    fn callers_are_read_from_their_arns() {
        let role = |name: &str, arn: &str| Identity::Role { name: name.to_owned(), arn: Some(arn.to_owned()) };
        let user = "arn:aws:iam::111122223333:user/team/eve";
        for (arn, expected) in [
            ("arn:aws:sts::111122223333:assumed-role/A_b/i-1", role("A_b", "arn:aws:iam::111122223333:role/A_b")),
            (user, Identity::User { name: "eve".to_owned(), arn: user.to_owned() }),
            ("arn:aws:iam::111122223333:root", Identity::Unknown),
            ("nonsense", Identity::Unknown),
        ] {
            assert_eq!(Identity::of_arn(arn), expected, "{arn}");
        }
    }
}
