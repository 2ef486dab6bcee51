//! A run is cut before, in the middle of and after every single call; the next run has to get everywhere all the same.

use std::collections::BTreeSet;

use super::*;

/// Cuts the run at every call. `prepare` makes the machine, provisioned or not.
async fn sweep(prepare: impl AsyncFn() -> World, disks: usize) {
    let whole = prepare().await;
    whole.calls();
    whole.provision().await;
    let length = whole.calls().len();
    assert!(length > disks, "there is something to cut");
    for at in 1..=length {
        for cut in [Cut::Before, Cut::Half, Cut::After] {
            for power_cut in [true, false] {
                let world = prepare().await;
                world.calls();
                world.cut.set(Some((at, cut)));
                assert!(world.run(Mode::Provision).await.is_none(), "cut {cut:?} {at}");
                world.cut.set(None);
                if power_cut {
                    world.reboot();
                }
                recover(&world, disks, &format!("cut {cut:?} {at}, power cut {power_cut}")).await;
            }
        }
    }
}

async fn recover(world: &World, disks: usize, what: &str) {
    // a reboot runs unlock first; it must not format
    world.calls();
    world.run(Mode::Unlock).await.unwrap();
    assert!(!world.calls().iter().any(|call| call.starts_with("format") || call == "generate"), "{what}");
    let outcome = world.provision().await;
    assert!(outcome.key_error.is_none(), "{what}");
    for result in &outcome.results {
        let good = matches!(result, StepResult::Formatted { .. } | StepResult::Unlocked { .. });
        assert!(good, "{what}: {result:?}");
    }
    check_all_mounted(world, disks, what);
    world.calls();
    world.provision().await;
    assert_eq!(world.calls(), Vec::<String>::new(), "{what}: nothing is left to do");
    world.reboot();
    world.run(Mode::Unlock).await.unwrap();
    check_all_mounted(world, disks, what);
}

fn check_all_mounted(world: &World, disks: usize, what: &str) {
    let mounted = world.mounted();
    let points: BTreeSet<_> = mounted.iter().map(|(_, at)| at).collect();
    assert_eq!((mounted.len(), points.len()), (disks, disks), "{what}: {mounted:?}");
    let state = world.state();
    assert!(state.volumes.iter().all(|v| v.phase == Phase::Committed), "{what}: {state:?}");
    assert_eq!(state.volumes.len(), disks, "{what}");
    let keys: BTreeSet<_> = state.volumes.iter().map(|v| v.key).collect();
    assert_eq!(keys.len(), 1, "{what}: one key opens all");
}

#[tokio::test]
async fn a_first_provision_can_be_cut_anywhere() {
    sweep(async || World::new(&["ebs1", "ebs2", "store3"]), 3).await;
}

#[tokio::test]
async fn a_later_provision_can_be_cut_anywhere() {
    // one known and closed, one known and lost with the instance store, one new
    let prepare = async || {
        let world = World::new(&["ebs1", "store2"]);
        world.provision().await;
        world.reboot();
        world.attach("store2");
        world.attach("ebs3");
        world
    };
    sweep(prepare, 3).await;
}
