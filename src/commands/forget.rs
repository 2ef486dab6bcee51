//! `forget`: removes volumes that are gone for good from the state file, and keeps their records aside.

use jiff::Timestamp;

use super::error::CommandError;
use super::preflight::{lock, need_root, patience_with_another_run};
use super::recorded::{Recorded, recorded};
use super::survey::disks_with_headers;
use crate::config::Config;
use crate::discover::{Roots, orphans};
use crate::disk::{DeviceFacts, Holder, Inventory, classify};
use crate::job::Workers;
use crate::plan::{Finding, Subject, attached_disk, objection_to_forgetting};
use crate::report::{Report, Row, Verdict};
use crate::state::{FormerVolume, State, StateDir, VolumeEnd, VolumeRecord};

/// `forget`: removes the volumes called `names` from the state file. `even_if_attached` allows it although their disks are there.
///
/// # Errors
/// When it cannot begin, no volume has one of the names, or the state file cannot be written.
pub async fn forget(config: &Config, names: &[String], even_if_attached: bool) -> Result<Report, CommandError> {
    need_root("forget")?;
    let store = lock(config, patience_with_another_run(config), StateDir::open).await?;
    let state = store.load()?;
    let host = Workers::new(config.volumes.deadline);
    let inventory = disks_with_headers(config, &host).await?;
    let orphans = orphans(&Roots::host())?;
    let mut next = state.clone();
    let mut rows = Vec::new();
    for name in names {
        rows.push(match recorded(&state, &inventory, name)? {
            Recorded::Former(former) => former_row(former),
            Recorded::Known(volume) => {
                let finding = objection_to_forgetting(&state, &inventory, volume, even_if_attached);
                match finding.or_else(|| orphaned(&orphans, volume)) {
                    Some(Finding { evidence, remedy, .. }) => {
                        row(config, &state, &inventory, volume, Verdict::Refused).because(evidence).with_remedy(remedy)
                    }
                    None => {
                        next.part_with(volume.luks_uuid, VolumeEnd::Forgotten, Timestamp::now());
                        forgotten(config, &state, &inventory, volume)
                    }
                }
            }
        });
    }
    if next != state {
        store.save(&next)?;
    }
    let count = |what: Verdict| rows.iter().filter(|row| row.result == what).count();
    let refused = match count(Verdict::Refused) {
        0 => String::new(),
        refused => format!(", {refused} refused"),
    };
    let summary = format!("{} forgotten{refused}", count(Verdict::Forgotten));
    Ok(Report::new("forget", rows, summary))
}

fn row(config: &Config, state: &State, inventory: &Inventory, volume: &VolumeRecord, result: Verdict) -> Row {
    let subject = match attached_disk(state, inventory, volume) {
        Some(disk) => Subject::of(disk, &classify(disk, &config.volumes.rules)),
        None => Subject::absent(volume),
    };
    Row::new(&subject, result).volume(Some(volume.luks_uuid), volume.mount_point.clone())
}

/// Returns why a volume without a disk must not be forgotten yet: its mapping is left.
fn orphaned(orphans: &[Holder], volume: &VolumeRecord) -> Option<Finding> {
    let luks_uuid = volume.luks_uuid;
    let is_open = orphans.iter().any(|mapping| mapping.luks_uuid() == Some(luks_uuid));
    is_open.then(|| {
        let evidence = format!("LUKS UUID {luks_uuid} is open, although its disk is gone");
        Finding::refused(evidence, "run 'luks-agent unlock', which closes it, then try again")
    })
}

fn forgotten(config: &Config, state: &State, inventory: &Inventory, volume: &VolumeRecord) -> Row {
    let what_follows = match attached_disk(state, inventory, volume) {
        Some(DeviceFacts { name, .. }) => format!(
            "no run opens it any more, and 'luks-agent provision' refuses it while it is attached: add a [[volumes.match]] rule with role = \"ignore\", or detach it; 'luks-agent adopt {name}' takes it back"
        ),
        None => {
            "no run expects it any more; if its disk is attached again, 'luks-agent adopt' takes it back".to_owned()
        }
    };
    row(config, state, inventory, volume, Verdict::Forgotten)
        .because(
            "no longer one of this node's volumes; its record and its key are kept in the state file, under 'former'",
        )
        .with_remedy(what_follows)
}

fn former_row(former: &FormerVolume) -> Row {
    let (result, how) = match former.end {
        VolumeEnd::Forgotten => (Verdict::Forgotten, "forgotten"),
        VolumeEnd::Erased => (Verdict::Erased, "erased"),
    };
    Row::new(&Subject::absent(&former.volume), result)
        .volume(Some(former.volume.luks_uuid), former.volume.mount_point.clone())
        .because(format!("already {how}, at {:.0}; nothing changed", former.ended))
}
