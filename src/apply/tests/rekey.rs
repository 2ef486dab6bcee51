//! Changes of keys, cut anywhere: the key in the record opens every volume, and the next run finishes.

use std::collections::BTreeSet;

use super::*;

/// What a change of keys is to bring.
#[derive(Debug, Clone, Copy)]
enum Change {
    Rotate,
    Rewrap,
}

impl World {
    /// What `rotate` and `rewrap` do. `None` when it was cut.
    async fn change_keys(&self, change: Change) -> Option<Outcome> {
        let store = StateDir::create(&self.state_dir()).unwrap();
        let mut state = store.load().unwrap();
        let planned = |state: &State| plan(Mode::Rekey, &self.config, state, &self.inventory());
        let instance_id = Some(self.instance_id.borrow().clone());
        let apply = Apply { config: &self.config, store: Some(&store), keys: self, host: self, instance_id };
        let work = async {
            if planned(&state).steps.is_empty() {
                match change {
                    Change::Rotate => apply.rotate(&mut state).await.unwrap(),
                    Change::Rewrap => apply.rewrap(&mut state, OTHER_ARN).await.unwrap(),
                }
            }
            apply.run(&planned(&state), state.clone()).await
        };
        let crashed = self.crashed.notified();
        tokio::select! {
            biased;
            () = crashed => None,
            outcome = work => Some(outcome),
        }
    }

    /// The key in each record, and no forgotten one, opens its volume.
    fn assert_every_volume_opens(&self, what: &str) {
        let state = self.state();
        for record in &state.volumes {
            let disks = self.disks.borrow();
            let Some((_, On::Luks { passphrase, added, .. })) = disks.get(&record.identity()) else { continue };
            let opens = |id: u32| {
                let wrapped = state.key_to_unwrap(id).expect("its key").wrapped_key.clone();
                let key = Self::data_key(wrapped.as_bytes()[0]).passphrase().expose().to_vec();
                key == *passphrase || Some(&key) == added.as_ref()
            };
            assert!(opens(record.key), "{what}: {} does not open with key {}", record.identity(), record.key);
        }
    }

    fn keys_in_use(&self) -> BTreeSet<u32> {
        self.state().volumes.iter().map(|volume| volume.key).collect()
    }
}

async fn provisioned() -> World {
    let world = World::new(&["ebs1", "ebs2", "store3"]);
    world.provision().await;
    world.calls();
    world
}

#[tokio::test]
async fn the_new_key_is_proven_and_recorded_before_any_volume_gets_it() {
    let world = provisioned().await;
    let outcome = world.change_keys(Change::Rotate).await.unwrap();
    assert!(outcome.results.iter().all(StepResult::is_rekeyed), "{outcome:?}");
    let calls = world.calls.take();
    let what: Vec<&str> = calls.iter().map(|call| call.what.as_str()).collect();
    assert_eq!(what[..2], ["generate", "unwrap 2"]);
    for call in &calls {
        let state = call.state.as_ref().unwrap();
        let volume = |name: &str| state.volumes.iter().find(|v| v.identity() == name).unwrap();
        if let Some(disk) = call.what.strip_prefix("add key to ") {
            assert!(state.keys.iter().any(|key| key.id == 2), "{}", call.what);
            assert!(volume(disk).key_change.is_some(), "{}", call.what);
            assert_eq!(volume(disk).key, 1, "{}", call.what);
        }
        if let Some(disk) = call.what.strip_prefix("remove key from ") {
            assert_eq!(volume(disk).key, 2, "{}", call.what);
        }
    }
    let state = world.state();
    assert_eq!(state.keys.iter().map(|key| key.id).collect::<Vec<_>>(), [2], "the former key is gone");
    assert!(state.volumes.iter().all(|v| v.key == 2 && v.key_change.is_none()));
    world.reboot();
    world.run(Mode::Unlock).await.unwrap();
    assert_eq!(world.mounted().len(), 3);
}

#[tokio::test]
async fn a_change_of_keys_can_be_cut_anywhere() {
    for change in [Change::Rotate, Change::Rewrap] {
        let whole = provisioned().await;
        whole.change_keys(change).await.unwrap();
        let length = whole.calls().len();
        assert!(length > 8, "there is something to cut");
        for at in 1..=length {
            for cut in [Cut::Before, Cut::Half, Cut::After] {
                // how it goes on: the same command again, or a boot and the daemon's provision
                for boots in [false, true] {
                    let what = format!("{change:?} cut {cut:?} {at}, boots {boots}");
                    let world = provisioned().await;
                    world.cut.set(Some((at, cut)));
                    assert!(world.change_keys(change).await.is_none(), "{what}");
                    world.cut.set(None);
                    world.assert_every_volume_opens(&what);
                    if boots {
                        world.reboot();
                        world.run(Mode::Unlock).await.unwrap();
                        assert_eq!(world.mounted().len(), 3, "{what}");
                        world.provision().await;
                    }
                    world.calls();
                    world.change_keys(change).await.unwrap();
                    world.assert_every_volume_opens(&what);
                    let state = world.state();
                    assert!(!state.volumes.iter().any(|volume| state.is_behind(volume)), "{what}: {state:?}");
                    assert_eq!((world.keys_in_use().len(), state.keys.len()), (1, 1), "{what}: {state:?}");
                    assert!(state.keys[0].id > 1, "{what}");
                    for (_, on) in world.disks.borrow().values() {
                        assert!(matches!(on, On::Luks { added: None, .. }), "{what}: a former key is left");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_volume_that_is_away_is_caught_up_when_it_comes_back() {
    for change in [Change::Rotate, Change::Rewrap] {
        let world = provisioned().await;
        let away = world.disks.borrow_mut().remove("ebs2").unwrap();
        world.change_keys(change).await.unwrap();
        let state = world.state();
        assert_eq!(state.keys.len(), 2, "its key stays recorded");
        let behind: Vec<_> = state.volumes.iter().filter(|v| state.is_behind(v)).map(|v| v.identity()).collect();
        assert_eq!(behind, ["ebs2"]);
        // another change meanwhile
        world.change_keys(Change::Rotate).await.unwrap();
        assert_eq!(world.state().keys.len(), 2);
        world.disks.borrow_mut().insert("ebs2".to_owned(), away);
        world.reboot();
        world.run(Mode::Unlock).await.unwrap();
        assert_eq!(world.mounted().len(), 3, "it opens with the key that it has");
        world.calls();
        world.provision().await;
        assert!(world.calls().contains(&"add key to ebs2".to_owned()));
        assert_eq!((world.keys_in_use().len(), world.state().keys.len()), (1, 1));
    }
}

#[tokio::test]
async fn after_a_rewrap_a_volume_that_was_away_needs_the_former_kms_key_no_more() {
    let world = provisioned().await;
    let away = world.disks.borrow_mut().remove("ebs2").unwrap();
    world.change_keys(Change::Rewrap).await.unwrap();
    world.disks.borrow_mut().insert("ebs2".to_owned(), away);
    world.reboot();
    world.calls();
    world.run(Mode::Unlock).await.unwrap();
    let state = world.state();
    let back = state.volumes.iter().find(|v| v.identity() == "ebs2").unwrap();
    assert_eq!(state.key(back.key).unwrap().key_arn, ARN);
    assert_eq!(state.key_to_unwrap(back.key).unwrap().key_arn, OTHER_ARN);
    assert_eq!(world.mounted().len(), 3);
}

#[tokio::test]
async fn a_key_service_that_lies_or_refuses_changes_nothing() {
    for lies in [true, false] {
        let world = provisioned().await;
        let before = world.state();
        world.kms_lies.set(lies);
        world.kms_fault.set((!lies).then_some(Class::Denied));
        let store = StateDir::create(&world.state_dir()).unwrap();
        let apply = Apply { config: &world.config, store: Some(&store), keys: &world, host: &world, instance_id: None };
        for change in [Change::Rotate, Change::Rewrap] {
            let mut state = before.clone();
            let made = match change {
                Change::Rotate => apply.rotate(&mut state).await,
                Change::Rewrap => apply.rewrap(&mut state, OTHER_ARN).await,
            };
            assert!(made.is_err(), "{change:?} {lies}");
            assert_eq!((&state, world.state()), (&before, before.clone()), "{change:?} {lies}");
        }
    }
}
