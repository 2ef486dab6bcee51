//! What AWS says when a policy denies a call.

/// The parts of the message "User: ARN is not authorized to perform: ACTION on resource: ARN because REASON".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Denial {
    /// ARN of the caller.
    pub principal: Option<String>,
    /// The action, without its prefix.
    pub action: Option<String>,
    /// ARN of the key, whatever the request called it.
    pub resource: Option<String>,
    /// Which kind of policy denied the call, or lacks an Allow.
    pub why: Option<String>,
}

impl Denial {
    /// Reads a message of AWS. The parts that it does not have are `None`.
    pub(super) fn parse(message: &str) -> Self {
        let (head, why) = message.split_once(" because ").map_or((message, None), |(head, why)| (head, Some(why)));
        let principal = head
            .split_once("User: ")
            .and_then(|(_, rest)| rest.split_once(" is not authorized"))
            .map(|(principal, _)| principal);
        let performs = head.split_once(" to perform: kms:").and_then(|(_, rest)| rest.split_once(" on resource: "));
        let (action, resource) = performs.unzip();
        let resource = resource.and_then(|resource| resource.split_whitespace().next());
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self { principal: owned(principal), action: owned(action), resource: owned(resource), why: owned(why) }
    }

    /// Returns the missing action and its key, where AWS says both.
    pub(super) fn lacks(&self) -> Option<(&str, &str)> {
        self.action.as_deref().zip(self.resource.as_deref())
    }

    /// Describes the denial of an action on a key.
    pub(super) fn describe(&self, (action, key): (&str, &str)) -> String {
        let who = self.principal.as_deref().unwrap_or("the caller");
        let why = self.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!("access denied: {who} lacks kms:{action} on {key}{why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_names_principal_action_key_and_reason() {
        let (node, key) =
            ("arn:aws:sts::111122223333:assumed-role/Node/i-1", "arn:aws:kms:us-east-1:111122223333:key/k");
        let why = "no identity-based policy allows the kms:GenerateDataKey action";
        let message =
            format!("User: {node} is not authorized to perform: kms:GenerateDataKey on resource: {key} because {why}");
        let denial = Denial::parse(&message);
        let owned = |text: &str| Some(text.to_owned());
        assert_eq!(
            denial,
            Denial { principal: owned(node), action: owned("GenerateDataKey"), resource: owned(key), why: owned(why) }
        );
        assert_eq!(
            denial.describe(denial.lacks().unwrap()),
            format!("access denied: {node} lacks kms:GenerateDataKey on {key} ({why})")
        );
        assert_eq!(Denial::parse("no"), Denial::default());
        assert!(
            Denial::default().describe(("Decrypt", key)).starts_with("access denied: the caller lacks kms:Decrypt")
        );
    }
}
