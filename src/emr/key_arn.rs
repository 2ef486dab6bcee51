//! Names of KMS keys.

/// What a text in the place of a key ARN is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyName<'a> {
    /// The ARN of a key, as EMR's text asks for.
    Key {
        /// Its Region.
        region: &'a str,
    },
    /// The ARN of an alias.
    Alias {
        /// Its Region.
        region: &'a str,
    },
    /// Something else.
    Other,
}

impl<'a> KeyName<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let is_plain = text.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '\\' && c != '\'');
        match parts.as_slice() {
            ["arn", partition, "kms", region, account, resource]
                if is_plain && !partition.is_empty() && !region.is_empty() && is_account(account) =>
            {
                match resource.split_once('/') {
                    Some(("key", id)) if !id.is_empty() => Self::Key { region },
                    Some(("alias", name)) if !name.is_empty() => Self::Alias { region },
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }

    pub(super) fn region(self) -> Option<&'a str> {
        match self {
            Self::Key { region } | Self::Alias { region } => Some(region),
            Self::Other => None,
        }
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_keys_from_aliases_and_from_the_rest() {
        let region = "us-east-1";
        assert_eq!(KeyName::of("arn:aws:kms:us-east-1:111122223333:key/1"), KeyName::Key { region });
        assert_eq!(KeyName::of("arn:aws-cn:kms:us-east-1:111122223333:alias/a/b"), KeyName::Alias { region });
        for other in [
            "",
            "alias/x",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:us-east-1:1:key/1",
            "arn:aws:kms::111122223333:key/1",
            "arn:aws:kms:us-east-1:111122223333:key/",
            "arn:aws:kms:us-east-1:111122223333:key/1\n[exec]",
            "arn:aws:kms:us-east-1:111122223333:key/\"",
        ] {
            assert_eq!(KeyName::of(other), KeyName::Other, "{other}");
        }
    }
}
