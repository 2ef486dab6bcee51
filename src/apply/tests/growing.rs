//! Growing: what the key is asked for, what is recorded when, and every place where it can be cut.

use super::*;

const GROWN: u64 = 2 << 30;

/// Two volumes whose disks have grown while they were open, and one that has not.
async fn grown() -> World {
    let world = World::new(&["ebs1", "ebs2", "ebs3"]);
    world.provision().await;
    grow_disks(&world);
    world.calls();
    world
}

fn grow_disks(world: &World) {
    for name in ["ebs1", "ebs2"] {
        world.sizes.borrow_mut().insert(name.to_owned(), Sizes { disk: GROWN, ..Sizes::whole(1 << 30) });
    }
}

fn recorded(world: &World) -> Vec<(String, u64)> {
    let mut sizes: Vec<_> = world.state().volumes.iter().map(|v| (v.device.clone(), v.size >> 30)).collect();
    sizes.sort();
    sizes
}

fn check_grown(world: &World, what: &str) {
    for name in ["ebs1", "ebs2"] {
        assert_eq!(world.sizes(name), Sizes::whole(GROWN), "{what}: {name}");
    }
    let expected = [("ebs1", 2), ("ebs2", 2), ("ebs3", 1)].map(|(name, size)| (name.to_owned(), size));
    assert_eq!(recorded(world), expected, "{what}");
    assert_eq!(world.mounted().len(), 3, "{what}");
}

#[tokio::test]
async fn one_decrypt_for_all_and_none_where_no_mapping_grows() {
    let world = grown().await;
    let outcome = world.run(Mode::Grow).await.unwrap();
    assert_eq!(outcome.results, [StepResult::Grown, StepResult::Grown, StepResult::Unchanged]);
    assert_eq!(world.calls(), ["unwrap 1", "grow ebs1", "grow ebs2", "grow ebs3"]);
    check_grown(&world, "grown");

    let before = std::fs::metadata(state::file(&world.state_dir())).unwrap().modified().unwrap();
    let outcome = world.run(Mode::Grow).await.unwrap();
    assert_eq!(outcome.results, [StepResult::Unchanged, StepResult::Unchanged, StepResult::Unchanged]);
    assert_eq!(world.calls(), ["grow ebs1", "grow ebs2", "grow ebs3"], "nobody is asked for a key");
    let after = std::fs::metadata(state::file(&world.state_dir())).unwrap().modified().unwrap();
    assert_eq!(before, after, "the state file is not written for nothing");
}

#[tokio::test]
async fn a_volume_that_was_opened_after_its_disk_grew_needs_no_key() {
    let world = grown().await;
    world.reboot();
    world.run(Mode::Unlock).await.unwrap();
    assert_eq!(recorded(&world)[0].1, 1, "unlock writes no state file");
    world.calls();
    let outcome = world.run(Mode::Grow).await.unwrap();
    assert_eq!(outcome.results[0], StepResult::Grown);
    assert_eq!(world.calls(), ["grow ebs1", "grow ebs2", "grow ebs3"]);
    check_grown(&world, "grown");
}

#[tokio::test]
async fn without_a_key_nothing_grows_that_needs_it() {
    let world = grown().await;
    world.kms_fault.set(Some(Class::Denied));
    let outcome = world.run(Mode::Grow).await.unwrap();
    assert_eq!(outcome.results, [StepResult::NoKey, StepResult::NoKey, StepResult::Unchanged]);
    assert!(outcome.key_error.is_some());
    assert_eq!(recorded(&world)[0].1, 1);
}

#[tokio::test]
async fn the_size_of_a_volume_that_failed_is_not_recorded() {
    let world = grown().await.with_fault("ebs1", Fault::Fails).with_fault("ebs2", Fault::Hangs);
    let outcome = world.run(Mode::Grow).await.unwrap();
    assert!(matches!(outcome.results[0], StepResult::Failed { .. }), "{:?}", outcome.results);
    assert!(matches!(outcome.results[1], StepResult::Hung { .. }), "{:?}", outcome.results);
    assert_eq!((recorded(&world)[0].1, recorded(&world)[1].1), (1, 1));
}

#[tokio::test]
async fn a_size_that_cannot_be_recorded_is_told() {
    let mut world = grown().await;
    world.lose_state_dir_at = Some("grow ebs1");
    let store = StateDir::create(&world.state_dir()).unwrap();
    let state = store.load().unwrap();
    let plan = plan(Mode::Grow, &world.config, &state, &world.inventory());
    let apply = Apply { config: &world.config, store: Some(&store), keys: &world, host: &world, instance_id: None };
    let results = apply.run(&plan, state).await.results;
    let StepResult::Failed { message } = &results[0] else { panic!("{results:?}") };
    assert!(message.starts_with("grown, but its size was not recorded: "), "{message}");
}

/// Wherever a run is cut, by a kill or with the power, `provision` as the daemon starts it ends what was begun.
#[tokio::test]
async fn growing_can_be_cut_anywhere() {
    let by_itself = "[kms]\nkey_id = \"alias/nodes\"\n[volumes]\ngrow = true";
    for mode in [Mode::Grow, Mode::Provision] {
        let prepare = async || {
            let mut world = grown().await;
            world.config = Config::from_text(Path::new("c.toml"), by_itself).unwrap();
            world
        };
        let whole = prepare().await;
        whole.run(mode).await.unwrap();
        check_grown(&whole, "not cut");
        let length = whole.calls().len();
        assert!(length >= 3, "{length}");
        for at in 1..=length {
            for cut in [Cut::Before, Cut::Half, Cut::After] {
                for power_cut in [true, false] {
                    let what = format!("{mode:?} cut {cut:?} {at}, power cut {power_cut}");
                    let world = prepare().await;
                    world.cut.set(Some((at, cut)));
                    assert!(world.run(mode).await.is_none(), "{what}");
                    world.cut.set(None);
                    if power_cut {
                        world.reboot();
                        world.run(Mode::Unlock).await.unwrap();
                    }
                    world.provision().await;
                    check_grown(&world, &what);
                    world.calls();
                    world.provision().await;
                    assert_eq!(world.calls(), Vec::<String>::new(), "{what}: nothing is left to do");
                }
            }
        }
    }
}
