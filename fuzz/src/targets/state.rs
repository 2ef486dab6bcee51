//! The state file.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use luks_agent::state::{self, State, StateDir, StateError};
use serde_json::Value;
use tempfile::TempDir;

/// How many bytes of an accepted file are changed, one at a time.
const CHANGES: usize = 8;

thread_local! {
    static DIR: LazyCell<TempDir> = LazyCell::new(|| tempfile::tempdir().expect("a temporary directory"));
}

pub(crate) fn run(data: &[u8]) -> String {
    DIR.with(|dir| {
        let said = check(dir.path(), data);
        // with a checksum hardly any change would be read any further
        if let Ok(Value::Object(mut fields)) = serde_json::from_slice(data)
            && fields.remove("sha256").is_some()
        {
            return said + &check(dir.path(), Value::Object(fields).to_string().as_bytes());
        }
        said
    })
}

fn check(dir: &Path, data: &[u8]) -> String {
    let state = match read(dir, data) {
        Ok(state) => state,
        Err(said) => return said,
    };
    consistent(&state);
    let store = StateDir::open(dir).expect("the lock");
    assert_eq!(store.load().expect("what was just read"), state);
    store.save(&state).expect("what was read can be written");
    assert_eq!(store.load().expect("what was written can be read"), state);

    // written by this release, it has a checksum
    let sealed = fs::read(dir.join("state.json")).expect("the file");
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    let mut rng = fastrand::Rng::with_seed(hasher.finish());
    for _ in 0..CHANGES {
        let mut changed = sealed.clone();
        let at = rng.usize(..changed.len());
        changed[at] = rng.u8(..);
        let found = read(dir, &changed);
        assert!(
            found.is_err() || found.is_ok_and(|found| found == state),
            "byte {at} is now {:#x}, which means another",
            changed[at]
        );
    }
    format!("good {:?} {:?}", state.volumes.len(), state.volumes.last())
}

fn read(dir: &Path, data: &[u8]) -> Result<State, String> {
    fs::write(dir.join("state.json"), data).expect("the file");
    match state::read(dir) {
        Ok(state) => Ok(state.expect("there is a file")),
        Err(StateError::Damaged { path, reason }) => {
            assert!(path.ends_with("state.json") && !reason.is_empty());
            Err(reason)
        }
        Err(StateError::Later { reason, .. }) => {
            assert!(!reason.is_empty());
            Err(reason)
        }
        Err(StateError::Newer { version, .. }) => {
            assert!(version > u64::from(state::VERSION));
            Err("newer".to_owned())
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn consistent(state: &State) {
    assert_eq!(state.version, state::VERSION);
    let keys: BTreeSet<u32> = state.keys.iter().map(|key| key.id).collect();
    assert_eq!(keys.len(), state.keys.len(), "a key twice");
    let volumes: BTreeSet<_> = state.volumes.iter().map(|volume| volume.luks_uuid).collect();
    assert_eq!(volumes.len(), state.volumes.len(), "a volume twice");
    for volume in &state.volumes {
        let expected = state.expected(volume.luks_uuid).expect("its key");
        assert_eq!(Some(&expected.key), state.key(volume.key).map(|key| key.source()).as_ref());
        assert!(!expected.key.wrapped_key.as_bytes().is_empty());
        assert_eq!(expected.other.is_some(), volume.key_change.is_some());
    }
}
