//! Erasing: what is recorded when, and what stays of it if it does not succeed.

use super::*;
use crate::plan::erasable;
use crate::state::VolumeEnd;

/// One run that erases the volumes on these disks.
async fn erase(world: &World, disks: &[&str]) -> Vec<Erased> {
    let store = StateDir::create(&world.state_dir()).unwrap();
    let state = store.load().unwrap();
    let inventory = world.inventory();
    let wanted = inventory.devices.iter().filter(|facts| disks.contains(&facts.name.as_str()));
    let now = "2026-03-04T05:06:07Z".parse().unwrap();
    let erasures: Vec<_> =
        wanted.map(|facts| erasable(&world.config, &state, &inventory, facts, false, now).unwrap()).collect();
    let apply = Apply { config: &world.config, store: Some(&store), keys: world, host: world, instance_id: None };
    apply.erase(&erasures, state).await
}

fn phases(world: &World) -> Vec<Phase> {
    world.state().volumes.iter().map(|volume| volume.phase).collect()
}

#[tokio::test]
async fn a_volume_is_recorded_as_being_erased_before_its_first_byte_goes() {
    let world = World::new(&["ebs1", "ebs2"]);
    world.provision().await;
    world.reboot();
    world.calls();
    // the model refuses to erase before that is recorded
    assert!(matches!(erase(&world, &["ebs1"]).await.as_slice(), [Erased::Done { .. }]));
    assert_eq!(world.calls(), ["erase ebs1"]);
    assert_eq!(phases(&world), [Phase::Committed]);
    let state = world.state();
    let former = &state.former[0];
    assert_eq!((former.volume.serial.as_deref(), former.end), (Some("ebs1"), VolumeEnd::Erased));
    assert_eq!(state.keys.len(), 1, "the key of the node stays");
}

#[tokio::test]
async fn what_was_not_touched_goes_on_and_what_failed_does_not() {
    let world = World::new(&["ebs1", "ebs2"]);
    world.provision().await;
    world.reboot();
    let faults = [("ebs1", Fault::Overwritten), ("ebs2", Fault::Fails)];
    let world = World { faults: faults.map(|(disk, fault)| (disk.to_owned(), fault)).into(), ..world };
    let results = erase(&world, &["ebs1", "ebs2"]).await;
    assert!(matches!(results.as_slice(), [Erased::Untouched { .. }, Erased::Failed(_)]), "{results:?}");
    assert_eq!(phases(&world), [Phase::Committed, Phase::Erasing]);
}
