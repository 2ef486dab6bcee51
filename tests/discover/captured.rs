//! Trees taken from running kernels.

use std::fs;
use std::os::unix::fs::symlink;

use crate::tree::{Tree, device, roles};

/// Lays a capture out; its own first lines say what they mean.
fn captured(text: &str) -> Tree {
    let tree = Tree::new();
    let (mut mounts, mut swaps) = (String::new(), String::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (what, rest) = line.split_once(' ').unwrap();
        let (path, value) = rest.split_once(' ').unwrap_or((rest, ""));
        match what {
            "D" => fs::create_dir_all(tree.path(rest)).unwrap(),
            "L" => symlink(value, tree.path(path)).unwrap(),
            "F" => tree.write(path, &format!("{value}\n")),
            "E" => tree.write(rest, ""),
            "M" => mounts += &format!("{rest}\n"),
            "S" => swaps += &format!("{rest}\n"),
            _ => panic!("{line}"),
        }
    }
    tree.write("proc/self/mountinfo", &mounts);
    tree.write("proc/swaps", &swaps);
    tree
}

#[test]
fn user_mode_linux() {
    let tree = captured(include_str!("../fixtures/uml-overlay-dmcrypt.txt"));
    let inventory = tree.discover();
    insta::assert_snapshot!(roles(&inventory), @r"
        dm-0 boot: carries swap through loop0, /srv/a b/swap file
        loop0 boot: carries swap
        ubda boot: carries / and the state directory through overlay layer /run/uml/boot/upper
        ubdb boot: carries swap through loop0, /srv/a b/swap file, dm-0
        ubdc ignored: not an EC2 volume, and no [[volumes.match]] rule names it
        ubdd ignored: not an EC2 volume, and no [[volumes.match]] rule names it
    ");
    let holder = &device(&inventory, "ubdb").holders[0];
    assert_eq!((holder.name.as_str(), holder.dm_name.as_deref()), ("dm-0", Some("data")));
    assert!(holder.luks_uuid().is_some());
    assert_eq!(device(&inventory, "ubda").serial.as_deref(), None);
    tree.write("sys/block/ubda/serial", "boot-1\n");
    assert_eq!(device(&tree.discover(), "ubda").serial.as_deref(), Some("boot-1"));
}
