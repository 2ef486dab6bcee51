//! Where a node is in AWS.

use super::node::Node;

/// The account and the Region of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place<'n> {
    pub(super) account: &'n str,
    pub(super) region: &'n str,
}

impl<'n> Place<'n> {
    /// Returns where a node is, if its report says it in the form that AWS gives it.
    pub(super) fn of(node: &'n Node) -> Option<Self> {
        let (account, region) = (node.account.as_deref()?, node.region.as_deref()?);
        let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        let in_region = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        // no Region of AWS has more than 16 characters, and the Security Hub takes no more
        let is_region = (1..=16).contains(&region.len()) && region.bytes().all(in_region);
        (is_account && is_region).then_some(Self { account, region })
    }

    /// Returns the partition: what an ARN has after `arn:`.
    pub(super) fn partition(self) -> &'static str {
        let prefixes = [
            ("cn-", "aws-cn"),
            ("us-gov-", "aws-us-gov"),
            ("us-isob-", "aws-iso-b"),
            ("us-isof-", "aws-iso-f"),
            ("eu-isoe-", "aws-iso-e"),
            ("us-iso-", "aws-iso"),
            ("eusc-", "aws-eusc"),
        ];
        prefixes.iter().find(|(prefix, _)| self.region.starts_with(prefix)).map_or("aws", |(_, partition)| partition)
    }

    /// Returns the ARN of something in EC2, such as `volume` and its ID.
    pub(super) fn ec2_arn(self, kind: &str, id: &str) -> String {
        format!("arn:{}:ec2:{}:{}:{kind}/{id}", self.partition(), self.region, self.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_follows_from_the_region() {
        for (region, partition) in [
            ("us-east-1", "aws"),
            ("us-gov-west-1", "aws-us-gov"),
            ("cn-north-1", "aws-cn"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eusc-de-east-1", "aws-eusc"),
        ] {
            assert_eq!(Place { account: "111122223333", region }.partition(), partition, "{region}");
        }
    }

    #[test]
    fn what_cannot_be_an_account_or_a_region_is_none() {
        let place = |account: &str, region: &str| {
            let node = Node { account: Some(account.to_owned()), region: Some(region.to_owned()), ..Node::default() };
            Place::of(&node).is_some()
        };
        assert!(place("111122223333", "us-east-1"));
        assert!(!place("11112222333", "us-east-1") && !place("11112222333a", "us-east-1"));
        assert!(!place("111122223333", "") && !place("111122223333", "us east 1"));
        assert!(!place("111122223333", "a-region-that-is-none"));
    }
}
