//! How long the kernel waits for an EBS volume before it gives up on a request.

use std::fs;
use std::path::Path;

use crate::disk::{DeviceFacts, MODEL_EBS};
use crate::report::Check;

/// EC2 advises the longest timeout that the driver accepts, which was 255 seconds before Linux 4.15. The kernel's default is 30 seconds.
/// Source: "Amazon EBS volumes and NVMe", I/O operation timeout.
const ADVISED_MS: u64 = 255_000;

/// Compares the timeouts of EBS volumes with what EC2 advises; `None` if there is no EBS volume on NVMe. `sys_block` is `/sys/block`.
pub(super) fn check(disks: &[DeviceFacts], sys_block: &Path) -> Option<Check> {
    const NAME: &str = "io-timeout";
    let ebs = disks.iter().filter(|facts| facts.model.as_deref() == Some(MODEL_EBS));
    let (ms, name) = ebs.filter_map(|facts| Some((timeout_ms(sys_block, &facts.name)?, &facts.name))).min()?;
    if ms >= ADVISED_MS {
        return Some(Check::ok(NAME, format!("{} s or more for every EBS volume", ms / 1000)));
    }
    let said = format!(
        "the kernel waits {} s for a request to {name}: a longer outage of EBS makes the file system fail",
        ms / 1000
    );
    Some(Check::warning(NAME, said).with_remedy(
        "boot with nvme_core.io_timeout=4294967295, as EC2 advises; the file systems then wait until EBS is back",
    ))
}

/// Returns the timeout of a disk in milliseconds. With NVMe multipath only the hidden paths of a disk have one: `nvme1c2n1` of `nvme1n1`.
fn timeout_ms(sys_block: &Path, name: &str) -> Option<u64> {
    let read = |name: &str| {
        let text = fs::read_to_string(sys_block.join(name).join("queue/io_timeout")).ok()?;
        text.trim().parse().ok()
    };
    let of_paths = || {
        let (controller, namespace) = name.split_at(name.rfind('n')?);
        let names = fs::read_dir(sys_block).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let is_path = |path: &String| {
            let middle = path.strip_prefix(controller).and_then(|rest| rest.strip_suffix(namespace));
            middle.is_some_and(|middle| middle.starts_with('c'))
        };
        names.filter(is_path).filter_map(|path| read(&path)).min()
    };
    read(name).or_else(of_paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MODEL_INSTANCE_STORE;

    #[test]
    fn the_shortest_timeout_of_an_ebs_volume_counts() {
        let sys = tempfile::tempdir().unwrap();
        let disk = |name: &str, model: &str, ms: &str| {
            let dir = sys.path().join(name).join("queue");
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("io_timeout"), format!("{ms}\n")).unwrap();
            DeviceFacts { model: Some(model.to_owned()), ..DeviceFacts::sample(name, 1) }
        };
        let store = disk("nvme0n1", MODEL_INSTANCE_STORE, "30000");
        let longest = disk("nvme1n1", MODEL_EBS, "4294967295");
        let default = disk("nvme2n1", MODEL_EBS, "30000");
        let xen = DeviceFacts { model: None, ..DeviceFacts::sample("xvdf", 1) };
        let gone = DeviceFacts::sample("nvme9n1", 9);
        // a head of NVMe multipath, and the path of another disk
        let head = DeviceFacts { model: Some(MODEL_EBS.to_owned()), ..DeviceFacts::sample("nvme3n1", 3) };
        disk("nvme3c7n1", MODEL_EBS, "31000");
        disk("nvme33c3n1", MODEL_EBS, "1000");
        disk("nvme3c1n11", MODEL_EBS, "1000");
        let text = |disks: &[DeviceFacts]| check(disks, sys.path()).map(|check| format!("{check:?}"));

        assert_eq!(text(&[store.clone(), xen.clone(), gone.clone()]), None);
        let good = text(&[store.clone(), longest.clone(), xen]).unwrap();
        assert!(good.contains("4294967 s or more"), "{good}");
        let bad = text(&[longest, default, gone, store]).unwrap();
        let of_path = text(&[head]).unwrap();
        assert!(of_path.contains("waits 31 s for a request to nvme3n1"), "{of_path}");
        assert!(bad.contains("waits 30 s for a request to nvme2n1") && bad.contains("nvme_core.io_timeout="), "{bad}");
    }
}
