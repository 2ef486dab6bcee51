//! Whether the data of a volume may be re-encrypted with a new volume key.

use super::finding::Finding;
use super::restore::described;
use crate::luks2::{HeaderFacts, KeyslotFacts, RECOVERY_TOKEN_TYPE, TokenFacts};
use crate::state::VolumeRecord;

/// Returns why a volume cannot get a new volume key: keyslots that its data key does not open would be lost.
///
/// The worker checks that once more with the data key itself. This check is for before the data key is replaced.
pub fn objection_to_reencryption(volume: &VolumeRecord, header: &HeaderFacts) -> Option<Finding> {
    let has_token = |keyslot: &KeyslotFacts, is_wanted: fn(&TokenFacts) -> bool| {
        header.tokens.iter().any(|token| keyslot.tokens.contains(&token.number) && is_wanted(token))
    };
    let recorded = volume.keyslot.as_ref().map(|keyslot| keyslot.number);
    // a change of keys that was interrupted may have left a keyslot that no token is linked with yet
    let may_be_ours = |keyslot: &KeyslotFacts| volume.key_change.is_some() && keyslot.tokens.is_empty();
    let is_ours = |keyslot: &KeyslotFacts| {
        recorded == Some(keyslot.number) || has_token(keyslot, |token| token.provider.is_some()) || may_be_ours(keyslot)
    };
    let others: Vec<&KeyslotFacts> = header.keyslots.iter().filter(|keyslot| !is_ours(keyslot)).collect();
    if others.is_empty() || header.luks_uuid != volume.luks_uuid {
        return None;
    }
    let names: Vec<String> = others.iter().map(|keyslot| described(header, keyslot)).collect();
    let evidence = format!(
        "keyslot {} would be lost, because a new volume key can only be given to keyslots whose passphrase is known",
        names.join(" and ")
    );
    let remedy = if others.iter().all(|keyslot| has_token(keyslot, |token| token.kind == RECOVERY_TOKEN_TYPE)) {
        "run 'luks-agent recovery-key remove' first, and 'luks-agent recovery-key enroll' afterwards".to_owned()
    } else {
        let numbers: Vec<String> = others.iter().map(|keyslot| keyslot.number.to_string()).collect();
        format!(
            "remove keyslot {} first, a recovery key with 'luks-agent recovery-key remove', others with 'cryptsetup luksKillSlot'; add them again afterwards",
            numbers.join(" and ")
        )
    };
    Some(Finding::refused(evidence, remedy))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::state::{KeyChange, State};

    /// A header with keyslots, each with the types of its tokens.
    fn header(keyslots: &[(u32, &[&str])]) -> HeaderFacts {
        let mut tokens = Vec::new();
        let mut add = |keyslot: u32, kind: &&str| {
            let number = u32::try_from(tokens.len()).unwrap();
            let provider = kind.starts_with("luks-agent-awskms").then(|| "aws-kms".to_owned());
            let keyslots = vec![keyslot.to_string()];
            tokens.push(TokenFacts {
                number,
                kind: (*kind).into(),
                keyslots,
                provider,
                key_arn: None,
                instance_id: None,
            });
            number
        };
        let keyslots = keyslots.iter().map(|(number, kinds)| KeyslotFacts {
            number: *number,
            kdf: "pbkdf2".into(),
            preferred: false,
            tokens: kinds.iter().map(|kind| add(*number, kind)).collect(),
            made: number.to_string(),
            sha256: None,
        });
        let keyslots = keyslots.collect();
        HeaderFacts { keyslots, tokens, ..HeaderFacts::sample() }
    }

    #[test]
    fn refuses_a_volume_with_keyslots_that_the_data_key_does_not_open() {
        let volume = State::sample().volumes.remove(0);
        let objection = |keyslots: &[(u32, &[&str])]| objection_to_reencryption(&volume, &header(keyslots));
        let (ours, recovery) = ("luks-agent-awskms", "luks-agent-recovery");
        assert_eq!(objection(&[(0, &[ours])]), None);
        // the recorded keyslot, whatever became of its token, and one that a rewrap or a rotation has added
        assert_eq!(objection(&[(0, &[]), (1, &[ours])]), None);
        let found = objection(&[(0, &[ours]), (2, &[recovery])]).unwrap();
        assert!(found.evidence.starts_with("keyslot 2 (pbkdf2, of luks-agent-recovery) would be lost"), "{found:?}");
        assert!(found.remedy.starts_with("run 'luks-agent recovery-key remove' first"), "{found:?}");
        let found = objection(&[(0, &[ours]), (1, &[]), (2, &[recovery])]).unwrap();
        assert!(found.evidence.starts_with("keyslot 1 (pbkdf2, of no token) and 2 (pbkdf2, of luks-agent-recovery)"));
        assert!(found.remedy.starts_with("remove keyslot 1 and 2 first"), "{found:?}");
        // another volume is on the disk, and a change of keys was interrupted
        let other = VolumeRecord { luks_uuid: Uuid::from_u128(8), ..volume.clone() };
        assert_eq!(objection_to_reencryption(&other, &header(&[(1, &[])])), None);
        let changing = VolumeRecord { key_change: Some(KeyChange::Adding { key: 2 }), ..volume.clone() };
        assert_eq!(objection_to_reencryption(&changing, &header(&[(0, &[ours]), (1, &[])])), None);
        assert!(objection_to_reencryption(&changing, &header(&[(0, &[ours]), (1, &[recovery])])).is_some());
    }
}
