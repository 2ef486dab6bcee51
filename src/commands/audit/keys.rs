//! The keys on which volumes depend, with their state at the last look.

use crate::audit::Key;
use crate::report::last::{self, Last};
use crate::state::{KeyChange, State};

/// Returns the keys, each once. It asks nobody: what `health` and `verify` found last is kept until the reboot.
pub(super) fn keys(state: &State) -> Vec<Key> {
    let looks: Vec<Last> = ["health", "verify"].into_iter().filter_map(last::read).collect();
    keys_after(state, &looks)
}

fn keys_after(state: &State, looks: &[Last]) -> Vec<Key> {
    let used: Vec<u32> = state
        .volumes
        .iter()
        .flat_map(|volume| {
            let to_unwrap = state.key_to_unwrap(volume.key).map(|key| key.id);
            [Some(volume.key), volume.key_change.as_ref().map(KeyChange::key), to_unwrap]
        })
        .flatten()
        .collect();
    let mut keys: Vec<Key> = Vec::new();
    for key in state.keys.iter().filter(|key| used.contains(&key.id)) {
        let provider = key.provider.name().to_owned();
        // two data keys can have the same KMS key
        if let Some(known) = keys.iter_mut().find(|known| known.key_arn == key.key_arn && known.provider == provider) {
            known.wrapped = known.wrapped.max(key.created);
            continue;
        }
        let finding = |last: &Last| last.keys.iter().find(|found| found.key_arn == key.key_arn).cloned();
        let look = looks.iter().filter_map(|last| Some((last.ended, finding(last)?))).max_by_key(|(ended, _)| *ended);
        let (looked, found) = look.unzip();
        keys.push(Key {
            key_arn: key.key_arn.clone(),
            provider,
            wrapped: key.created,
            state: found.as_ref().and_then(|found| Some(found.state.as_ref()?.name.clone())),
            looked,
            error: found.and_then(|found| found.error),
        });
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::KeyState;
    use crate::report::{KeyFinding, Report};
    use crate::state::KeyRecord;

    #[test]
    fn each_key_that_is_used_is_there_once_with_the_last_look_at_it() {
        let mut state = State::sample();
        assert_eq!((keys_after(&state, &[]).len(), keys_after(&state, &[])[0].state.as_deref()), (1, None));
        let later = "2026-02-02T03:04:05Z".parse().unwrap();
        let unused = KeyRecord { id: 2, key_arn: "arn:unused".into(), ..state.keys[0].clone() };
        state.keys.extend([unused, KeyRecord { id: 3, created: later, ..state.keys[0].clone() }]);
        let second = crate::state::VolumeRecord { luks_uuid: uuid::Uuid::nil(), key: 3, ..state.volumes[0].clone() };
        state.volumes.push(second);
        let look = |name: &str, second: i64| {
            let key_state = KeyState { name: name.to_owned(), deletion: None };
            let key_arn = state.keys[0].key_arn.clone();
            let finding = KeyFinding { key_arn, state: Some(key_state), error: None };
            let last = Last::of(&Report::new("health", Vec::new(), String::new()).of_keys(vec![finding]), None);
            Last { ended: jiff::Timestamp::from_second(second).unwrap(), ..last }
        };
        let found = keys_after(&state, &[look("Disabled", 2), look("Enabled", 1)]);
        let [key] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((key.wrapped, key.state.as_deref(), key.provider.as_str()), (later, Some("Disabled"), "aws-kms"));
        assert_eq!(key.looked.map(|at| at.as_second()), Some(2));
    }
}
