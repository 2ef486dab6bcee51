//! What is asked of whom, in which order, and what the state file says by then.

use super::*;
use crate::key::Provider;
use crate::luks2::HeaderPolicy;
use crate::state::{VolumeKeyChange, VolumeRecord};

fn formatted(outcome: &Outcome) -> usize {
    outcome.results.iter().filter(|result| matches!(result, StepResult::Formatted { .. })).count()
}

fn count(calls: &[String], what: &str) -> usize {
    calls.iter().filter(|call| call.starts_with(what)).count()
}

#[tokio::test]
async fn key_then_intents_then_disks_then_committed_then_mounted() {
    let world = World::new(&["ebs1", "ebs2", "store3"]);
    let outcome = world.provision().await;
    assert_eq!(formatted(&outcome), 3);
    let calls = world.calls.take();
    assert_eq!((calls[0].what.as_str(), &calls[0].state), ("generate", &None));
    // the key is durable before it is proven, and both before anything is written to a disk
    assert_eq!(calls[1].what, "unwrap 1");
    let state = calls[1].state.as_ref().unwrap();
    assert_eq!((state.keys.len(), state.volumes.len()), (1, 0));
    assert_eq!(state.keys[0].wrapped_key.as_bytes(), [1]);
    assert_eq!(state.keys[0].configured_key_id, "alias/nodes");
    for call in &calls[2..5] {
        assert!(call.what.starts_with("format"), "{}", call.what);
        assert_eq!(call.state.as_ref().unwrap().volumes.len(), 3, "every intent is durable before the first format");
    }
    for call in &calls[5..] {
        let disk = call.what.strip_prefix("mount ").expect("a mount");
        let volume = call.state.as_ref().unwrap().volumes.iter().find(|v| v.device == disk).unwrap();
        assert_eq!(volume.phase, Phase::Committed, "{disk}");
    }
    assert_eq!(calls.len(), 8);
}

#[tokio::test]
async fn one_decrypt_for_all_volumes_and_no_call_when_none_is_needed() {
    let world = World::new(&["ebs1", "ebs2", "store3", "store4"]);
    world.provision().await;
    let calls = world.calls();
    assert_eq!((count(&calls, "generate"), count(&calls, "unwrap")), (1, 1), "{calls:?}");
    let before = world.mounted();

    world.provision().await;
    assert_eq!(world.calls(), Vec::<String>::new());

    world.reboot();
    world.run(Mode::Unlock).await.unwrap();
    let calls = world.calls();
    assert_eq!((count(&calls, "generate"), count(&calls, "unwrap 1"), count(&calls, "unlock")), (0, 1, 4), "{calls:?}");
    assert_eq!(world.mounted(), before);

    // a volume that is open needs no key
    for (_, on) in world.disks.borrow_mut().values_mut() {
        if let On::Luks { mounts, .. } = on {
            mounts.clear();
        }
    }
    world.run(Mode::Unlock).await.unwrap();
    assert_eq!(world.calls(), ["mount ebs1", "mount ebs2", "mount store3", "mount store4"]);

    // a new one needs the node's key, and no new one
    world.attach("ebs5");
    world.provision().await;
    assert_eq!(world.calls(), ["unwrap 1", "format ebs5", "mount ebs5"]);

    // and with known ones to open there is still one call
    world.reboot();
    world.attach("ebs6");
    world.provision().await;
    assert_eq!(count(&world.calls(), "unwrap"), 1);
    assert_eq!(world.mounted().len(), 6);
}

#[tokio::test]
async fn without_a_key_nothing_is_touched() {
    let world = World::new(&["ebs1", "store2"]);
    world.kms_fault.set(Some(Class::Denied));
    let outcome = world.provision().await;
    assert_eq!(outcome.results, [StepResult::NoKey, StepResult::NoKey]);
    assert!(matches!(outcome.key_error, Some(KeyError::Service(e)) if e.class() == Class::Denied));
    assert_eq!(world.calls(), ["generate"]);
    assert!(!world.state_dir().exists());

    // known volumes and new ones: the service is asked once
    world.kms_fault.set(None);
    world.provision().await;
    let state = world.state();
    world.reboot();
    world.attach("ebs3");
    world.calls();
    world.kms_fault.set(Some(Class::Denied));
    let outcome = world.provision().await;
    assert_eq!(outcome.results, [StepResult::NoKey, StepResult::NoKey, StepResult::NoKey]);
    assert_eq!(world.calls(), ["unwrap 1"]);
    assert_eq!(world.state(), state);
}

#[tokio::test]
async fn a_key_that_is_unwrapped_to_another_is_not_used() {
    let world = World::new(&["ebs1"]);
    world.kms_lies.set(true);
    let outcome = world.provision().await;
    assert_eq!(outcome.results, [StepResult::NoKey]);
    assert!(matches!(&outcome.key_error, Some(KeyError::NotProven { key_arn, .. }) if key_arn == ARN));
    assert_eq!(world.calls(), ["generate", "unwrap 1"]);
    assert_eq!(world.state().keys, [], "nor is it ever again");
    world.kms_lies.set(false);
    assert_eq!(formatted(&world.provision().await), 1);
    assert_eq!(world.calls()[..2], ["generate", "unwrap 2"]);
}

#[tokio::test]
async fn a_key_that_could_not_be_proven_yet_is_unwrapped_the_next_time() {
    let world = World::new(&["ebs1"]);
    world.cut.set(Some((2, Cut::Before)));
    assert!(world.run(Mode::Provision).await.is_none());
    world.cut.set(None);
    world.calls();
    assert_eq!(formatted(&world.provision().await), 1);
    assert_eq!(world.calls(), ["unwrap 1", "format ebs1", "mount ebs1"]);
}

#[tokio::test]
async fn a_key_that_never_worked_does_not_pin_the_node_to_its_kms_key() {
    let mut world = World::new(&["ebs1"]);
    world.cut.set(Some((2, Cut::Before)));
    assert!(world.run(Mode::Provision).await.is_none());
    world.cut.set(None);
    world.config.keys.key_id = "alias/other".to_owned();
    world.calls();
    assert_eq!(formatted(&world.provision().await), 1);
    assert_eq!(world.calls()[..1], ["generate"]);
    let keys: Vec<_> = world.state().keys.into_iter().map(|key| key.configured_key_id).collect();
    assert_eq!(keys, ["alias/other"]);

    // one that volumes were made with is kept
    world.config.keys.key_id = "alias/third".to_owned();
    world.attach("ebs2");
    world.calls();
    assert_eq!(formatted(&world.provision().await), 1);
    assert!(!world.calls().contains(&"generate".to_owned()));
}

#[tokio::test]
async fn the_provider_is_recorded_with_each_key_and_the_configuration_chooses_it_for_new_ones() {
    let mut world = World::new(&["ebs1"]);
    assert_eq!(formatted(&world.provision().await), 1);
    world.config.keys.provider = Provider::Exec;
    world.attach("ebs2");
    world.calls();
    assert_eq!(formatted(&world.provision().await), 1);
    assert!(!world.calls().contains(&"generate".to_owned()), "the node has a key");
    *world.instance_id.borrow_mut() = "i-2".to_owned();
    world.attach("ebs3");
    assert_eq!(formatted(&world.provision().await), 1);
    let providers: Vec<_> = world.state().keys.iter().map(|key| key.source().provider).collect();
    assert_eq!(providers, [Provider::AwsKms, Provider::Exec]);

    // one that never worked is not kept for a new provider
    let mut world = World::new(&["ebs1"]);
    world.cut.set(Some((2, Cut::Before)));
    assert!(world.run(Mode::Provision).await.is_none());
    world.cut.set(None);
    world.config.keys.provider = Provider::Exec;
    assert_eq!(formatted(&world.provision().await), 1);
    let providers: Vec<_> = world.state().keys.iter().map(|key| key.provider).collect();
    assert_eq!(providers, [Provider::Exec]);
}

#[tokio::test]
async fn what_a_format_was_to_replace_is_known_again_when_it_is_not_done() {
    let mut world = World::new(&["store1"]);
    world.provision().await;
    let before = world.state();
    world.reboot();
    let whole = world.disks.borrow().clone();
    world.disks.borrow_mut().get_mut("store1").unwrap().1 = On::Nothing;
    world.faults.insert("store1".to_owned(), Fault::Overwritten);
    let outcome = world.provision().await;
    assert!(matches!(outcome.results[..], [StepResult::Changed { .. }]), "{outcome:?}");
    assert_eq!(world.state(), before);
    world.faults.clear();
    world.disks.replace(whole);
    assert!(matches!(world.provision().await.results[..], [StepResult::Unlocked { .. }]));
}

#[tokio::test]
async fn a_format_is_ended_with_the_key_layout_and_file_system_it_was_begun_with() {
    let mut world = World::new(&["ebs1"]);
    world.cut.set(Some((3, Cut::After)));
    assert!(world.run(Mode::Provision).await.is_none());
    world.cut.set(None);
    world.reboot();
    // as in a clone, whose new volumes get another key
    *world.instance_id.borrow_mut() = "i-2".to_owned();
    world.config = Config::from_text(
        Path::new("c.toml"),
        "[kms]\nkey_id = \"alias/nodes\"\n[filesystem]\ntype = \"ext4\"\n[luks]\nkey_size = 256",
    )
    .unwrap();
    world.attach("ebs2");
    assert_eq!(formatted(&world.provision().await), 2);
    let key_size = |header| match header {
        HeaderPolicy::Recorded(layout) => layout.key_size,
        HeaderPolicy::Possible => 0,
    };
    let made: Vec<_> = world.state().volumes.iter().map(|v| (v.key, v.filesystem, key_size(v.header))).collect();
    assert_eq!(made, [(1, FilesystemKind::Xfs, 512), (2, FilesystemKind::Ext4, 256)]);
}

#[tokio::test]
async fn one_bad_disk_does_not_stop_the_others() {
    for fault in [Fault::Fails, Fault::Hangs, Fault::Overwritten] {
        let world = World::new(&["ebs1", "ebs2", "store3"]).with_fault("ebs2", fault);
        let outcome = world.provision().await;
        assert_eq!(formatted(&outcome), 2, "{fault:?}");
        match (&outcome.results[1], fault) {
            (StepResult::Failed { message }, Fault::Fails) => assert_eq!(message, "it is broken"),
            (StepResult::Hung { message }, Fault::Hangs) => assert!(message.contains("60 s")),
            (StepResult::Changed { .. }, Fault::Overwritten) => {}
            (other, _) => panic!("{fault:?}: {other:?}"),
        }
        assert_eq!(world.mounted().len(), 2);

        world.reboot();
        let unlocked = world.run(Mode::Unlock).await.unwrap().results;
        assert!(unlocked.iter().all(|result| matches!(result, StepResult::Unlocked { .. })), "{unlocked:?}");
        assert_eq!(world.mounted().len(), 2);
    }
}

#[tokio::test]
async fn a_disk_that_never_answers_holds_up_no_other() {
    let world = World::new(&["ebs1", "ebs2", "store3"]);
    world.cut.set(Some((4, Cut::Before)));
    let others_done = async {
        while world.mounted().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    // the fourth call is the second disk's format: it waits for ever, and only it
    let store = StateDir::create(&world.state_dir()).unwrap();
    let plan = plan(Mode::Provision, &world.config, &State::default(), &world.inventory());
    let apply = Apply { config: &world.config, store: Some(&store), keys: &world, host: &world, instance_id: None };
    tokio::select! {
        _ = apply.run(&plan, State::default()) => panic!("one of them never answers"),
        () = others_done => {}
    }
    assert_eq!(world.mounted().len(), 2);
}

#[tokio::test]
async fn a_known_volume_that_does_not_open_does_not_stop_the_others() {
    let mut world = World::new(&["ebs1", "ebs2", "store3"]);
    world.provision().await;
    world.reboot();
    world.faults.insert("ebs1".to_owned(), Fault::Hangs);
    let outcome = world.run(Mode::Unlock).await.unwrap();
    assert!(matches!(outcome.results[0], StepResult::Hung { .. }));
    assert_eq!(world.mounted().len(), 2);
}

#[tokio::test]
async fn the_intent_is_forgotten_when_the_disk_is_no_longer_ours() {
    let world = World::new(&["ebs1"]).with_fault("ebs1", Fault::Overwritten);
    let outcome = world.provision().await;
    assert_eq!(outcome.results, [StepResult::Changed { content: Content::Unrecognised { offset: 0 } }]);
    assert_eq!(world.state().volumes, []);
    assert_eq!(world.state().keys.len(), 1);

    let blank = World::new(&["ebs1"]).with_fault("ebs1", Fault::Unreadable);
    blank.provision().await;
    assert_eq!(blank.state().volumes, [], "nothing was written to it yet");
}

#[tokio::test]
async fn a_half_formatted_disk_that_cannot_be_examined_now_is_taken_up_later() {
    let mut world = World::new(&["ebs1"]);
    world.cut.set(Some((3, Cut::Half)));
    assert!(world.run(Mode::Provision).await.is_none());
    world.cut.set(None);
    let begun = world.state().volumes;
    assert_eq!(begun.len(), 1);
    world.faults.insert("ebs1".to_owned(), Fault::Unreadable);
    let outcome = world.provision().await;
    assert!(matches!(outcome.results[..], [StepResult::Changed { content: Content::Unknown { .. } }]));
    assert_eq!(world.state().volumes, begun);
    world.faults.clear();
    assert_eq!(
        world.provision().await.results,
        [StepResult::Formatted { luks_uuid: begun[0].luks_uuid, warning: None }]
    );
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let failed = |result: &StepResult, start: &str| {
        let StepResult::Failed { message } = result else { panic!("{result:?}") };
        assert!(message.starts_with(start), "{message}");
    };
    // the key
    let world = World { lose_state_dir_at: Some("generate"), ..World::new(&["ebs1"]) };
    let outcome = world.provision().await;
    assert_eq!(outcome.results, [StepResult::NoKey]);
    assert!(matches!(outcome.key_error, Some(KeyError::State(_))), "{outcome:?}");
    assert_eq!(world.calls(), ["generate"]);
    // the intents
    let world = World::new(&["ebs1"]);
    world.provision().await;
    world.attach("ebs2");
    world.calls();
    let world = World { lose_state_dir_at: Some("unwrap 1"), ..world };
    failed(&world.provision().await.results[0], "not formatted: the state directory ");
    assert_eq!(world.calls(), ["unwrap 1"]);
    // that it is formatted
    let world = World { lose_state_dir_at: Some("format ebs1"), ..World::new(&["ebs1"]) };
    failed(&world.provision().await.results[0], "formatted, but not mounted: the state directory ");
    assert_eq!(world.calls(), ["generate", "unwrap 1", "format ebs1"]);
}

#[tokio::test]
async fn another_instance_gets_a_key_of_its_own_for_what_is_new() {
    let world = World::new(&["ebs1", "ebs2"]);
    world.provision().await;
    world.reboot();
    world.attach("ebs3");
    *world.instance_id.borrow_mut() = "i-2".to_owned();
    world.calls();
    let outcome = world.provision().await;
    assert_eq!((formatted(&outcome), outcome.results.len()), (1, 3));
    let calls = world.calls();
    assert_eq!(calls[..3], ["unwrap 1", "generate", "unwrap 2"]);
    let state = world.state();
    assert_eq!(state.instance_id.as_deref(), Some("i-2"));
    assert_eq!(state.volumes.iter().map(|v| v.key).collect::<Vec<_>>(), [1, 1, 2]);

    // after that both are known, and each is unwrapped once
    world.reboot();
    world.run(Mode::Unlock).await.unwrap();
    assert_eq!(world.calls()[..2], ["unwrap 1", "unwrap 2"]);
    assert_eq!(world.mounted().len(), 3);
    world.attach("ebs4");
    world.provision().await;
    assert_eq!(world.calls(), ["unwrap 2", "format ebs4", "mount ebs4"]);
}

#[tokio::test]
async fn an_instance_that_is_not_known_is_not_taken_for_the_one_that_the_key_is_of() {
    let provision = async |world: &World, instance_id: Option<&str>| {
        let store = StateDir::create(&world.state_dir()).unwrap();
        let state = store.load().unwrap();
        let plan = plan(Mode::Provision, &world.config, &state, &world.inventory());
        let instance_id = instance_id.map(str::to_owned);
        let apply = Apply { config: &world.config, store: Some(&store), keys: world, host: world, instance_id };
        assert_eq!(formatted(&apply.run(&plan, state).await), 1);
        let state = store.load().unwrap();
        (state.instance_id, state.volumes.last().unwrap().key)
    };
    let world = World::new(&["ebs1"]);
    assert_eq!(provision(&world, Some("i-1")).await, (Some("i-1".to_owned()), 1));
    // an image of it, where nobody answers for the instance
    world.attach("ebs2");
    assert_eq!(provision(&world, None).await, (None, 2));
    // its own key by now, also without instance metadata service
    world.attach("ebs3");
    assert_eq!(provision(&world, None).await, (None, 2));
    // perhaps an image of that
    world.attach("ebs4");
    assert_eq!(provision(&world, Some("i-2")).await, (Some("i-2".to_owned()), 3));
    world.attach("ebs5");
    assert_eq!(provision(&world, Some("i-2")).await, (Some("i-2".to_owned()), 3));
}

/// The volume is on another disk than recorded: one made from a snapshot, say.
#[tokio::test]
async fn the_record_follows_a_volume_to_the_disk_that_it_is_used_on_and_not_before() {
    let world = World::new(&["ebs1"]);
    world.provision().await;
    world.reboot();
    let original = world.disks.borrow_mut().remove("ebs1").unwrap();
    world.disks.borrow_mut().insert("ebs9".to_owned(), original);
    let device = || world.state().volumes[0].device.clone();
    world.kms_fault.set(Some(Class::Denied));
    assert_eq!((world.provision().await.results, device()), (vec![StepResult::NoKey], "ebs1".to_owned()));
    world.kms_fault.set(None);
    let outcome = world.provision().await;
    assert!(matches!(outcome.results[..], [StepResult::Unlocked { .. }]), "{outcome:?}");
    assert_eq!(device(), "ebs9");
}

/// Where the configuration lets instance store be wiped.
#[tokio::test]
async fn nothing_is_forgotten_of_instance_store_that_is_gone_before_another_takes_its_place() {
    let mut world = World::new(&["store2"]);
    world.provision().await;
    world.reboot();
    let wipe = "[kms]\nkey_id = \"alias/nodes\"\n[volumes]\nwhen_not_blank = \"wipe-instance-store\"";
    world.config = Config::from_text(Path::new("config.toml"), wipe).unwrap();
    world.disks.borrow_mut().remove("store2");
    world.disks.borrow_mut().insert("store7".to_owned(), (false, On::Foreign));
    let before = world.state().volumes;
    world.kms_fault.set(Some(Class::Denied));
    assert_eq!((world.provision().await.results, world.state().volumes), (vec![StepResult::NoKey], before.clone()));
}

#[tokio::test]
async fn a_service_that_was_waited_for_in_vain_is_not_waited_for_again() {
    for (class, asked) in
        [(Class::Transient, 1), (Class::KeyNotReady, 1), (Class::NoCredentials, 1), (Class::Denied, 2)]
    {
        let world = World::new(&["ebs1"]);
        world.provision().await;
        world.reboot();
        world.attach("ebs2");
        *world.instance_id.borrow_mut() = "i-2".to_owned();
        world.calls();
        world.kms_fault.set(Some(class));
        let outcome = world.provision().await;
        assert_eq!(outcome.results, [StepResult::NoKey, StepResult::NoKey]);
        assert_eq!(world.calls().len(), asked, "{class:?}");
    }
}

#[tokio::test]
async fn what_the_key_opens_is_recorded_with_the_volume_or_when_it_is_next_opened() {
    let world = World::new(&["ebs1", "ebs2"]);
    world.provision().await;
    let made = world.state();
    let recorded = |state: &State| {
        let is_recorded = |v: &VolumeRecord| {
            let Opened { keyslot, volume_key } = opened(v.luks_uuid);
            v.keyslot == Some(keyslot) && v.volume_key == volume_key
        };
        state.volumes.iter().all(is_recorded)
    };
    assert!(recorded(&made), "{made:?}");
    for change in [None, Some(ProvenKeyslot { number: 1, sha256: "of a keyslot that was changed".to_owned() })] {
        // as an earlier release has left it, or before somebody changed it
        let mut before = made.clone();
        before.volumes.iter_mut().for_each(|v| v.keyslot.clone_from(&change));
        before.volumes.iter_mut().filter(|_| change.is_none()).for_each(|v| v.volume_key = None);
        StateDir::create(&world.state_dir()).unwrap().save(&before).unwrap();
        world.provision().await;
        assert_eq!(world.state(), before, "what is open proves nothing");
        world.reboot();
        world.provision().await;
        assert_eq!(world.state(), made);
    }
    // re-encryption was finished, and that was not recorded
    let mut before = made.clone();
    for volume in &mut before.volumes {
        volume.volume_key = Some(VolumeKeyId("the former one".to_owned()));
        volume.volume_key_change = Some(VolumeKeyChange::Begun);
    }
    StateDir::create(&world.state_dir()).unwrap().save(&before).unwrap();
    world.reboot();
    world.provision().await;
    assert_eq!(world.state(), made);
}
