//! `adopt`: takes over volumes that another node made, or this one before it lost its state file.

use std::path::{Component, Path, PathBuf};

use uuid::Uuid;

use super::error::CommandError;
use super::instance::Instance;
use super::lazy_kms::LazyKms;
use super::named_disks::{look_closer, named_disks};
use super::orphans::remove_orphans;
use super::preflight::{lock, patience_with_another_run, preflight};
use super::survey::{Disks, disks_with_headers};
use crate::apply::{AdoptOutcome, Apply};
use crate::config::Config;
use crate::discover::{Roots, mounted_at};
use crate::disk::{DeviceFacts, Inventory, classify};
use crate::job::Workers;
use crate::plan::{AdoptAs, Adoptable, Adoption, Finding, Mode, Plan, Severity, Subject, adoptable, plan};
use crate::report::{Report, Row, Verdict};
use crate::state::{State, StateDir, VolumeRecord};
use crate::storage::FilesystemKind;

/// What to adopt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopt {
    /// Names of disks; all disks if there are none.
    pub names: Vec<String>,
    /// Where to mount the volume, if there is one name.
    pub mount_point: Option<PathBuf>,
    /// Whether the volumes get the key of this node instead of theirs.
    pub rekey: bool,
}

/// What is to be done, and the rows of disks on which nothing is.
#[derive(Debug, Default)]
struct Wanted {
    adoptions: Vec<Adoption>,
    /// Kernel names of disks whose volumes the state file lists already.
    known: Vec<String>,
    /// Those of them that are closed and stay so.
    closed: Vec<String>,
    rows: Vec<Row>,
}

/// `adopt`: takes over volumes, and mounts them.
///
/// # Errors
/// When it cannot begin, or no disk has one of the names.
pub async fn adopt(config: &Config, wanted: &Adopt) -> Result<Report, CommandError> {
    preflight("adopt", FilesystemKind::None)?;
    let at = wanted.mount_point.as_deref().map(mount_point).transpose()?;
    let store = lock(config, patience_with_another_run(config), StateDir::create).await?;
    let state = store.load()?;
    let host = Workers::new(config.volumes.deadline);
    remove_orphans(config, &state, &host).await?;
    let mut inventory = disks_with_headers(config, &host).await?;
    inventory
        .devices
        .sort_by(|a, b| (a.serial.is_none(), &a.serial, &a.name).cmp(&(b.serial.is_none(), &b.serial, &b.name)));
    let names = named_disks(&inventory, &state, &wanted.names)?;
    if at.is_some() && names.len() != 1 {
        return Err(CommandError::OneMountPoint(names.len()));
    }
    look_closer(config, &mut inventory, &names, &host).await;
    let how = AdoptAs { mount_point: at.as_deref(), rekey: wanted.rekey };
    let Wanted { adoptions, known, closed, rows } = choose(config, &state, &inventory, &names, how)?;
    if !adoptions.is_empty() {
        inventory.instance_id = Instance::new(config).id().await;
    }
    let keys = LazyKms::new(config);
    let apply = Apply { config, store: Some(&store), keys: &keys, host: &host, instance_id: None };
    let adopted = apply.adopt(&adoptions, &inventory, state, how).await;
    let plan = plan_for(Mode::Unlock, config, &adopted, &inventory, &known).await?;
    let mounted = apply.run(&plan, adopted.state.clone()).await;
    let mut report = Report::of_adoption(&adoptions, &adopted, &plan, &mounted, rows);
    if wanted.rekey && adopted.refusal.is_none() {
        // mounting may have changed the state file
        let adopted = AdoptOutcome { state: store.load()?, ..adopted };
        // an interrupted run may have recorded them and not changed their keys
        let known: Vec<String> = known.into_iter().chain(closed).collect();
        let plan = plan_for(Mode::Rekey, config, &adopted, &inventory, &known).await?;
        let rekeyed = apply.run(&plan, adopted.state.clone()).await;
        report = report.with_rekeyed(&plan, &rekeyed);
    }
    Ok(report.measured(keys.usage(), host.stages()))
}

/// Checks a mount point from the command line.
fn mount_point(at: &Path) -> Result<PathBuf, CommandError> {
    let is_fine = at.is_absolute() && at.file_name().is_some() && !at.components().any(|c| c == Component::ParentDir);
    if is_fine { Ok(at.components().collect()) } else { Err(CommandError::NoMountPoint(at.display().to_string())) }
}

/// Chooses the volumes to adopt: those on the disks called `names`, or all if there are none.
fn choose(
    config: &Config,
    state: &State,
    inventory: &Inventory,
    names: &[String],
    how: AdoptAs<'_>,
) -> Result<Wanted, CommandError> {
    let at = how.mount_point;
    let mut wanted = Wanted::default();
    for facts in inventory.devices.iter().filter(|facts| names.is_empty() || names.contains(&facts.name)) {
        let row = |result| Row::new(&Subject::of(facts, &classify(facts, &config.volumes.rules)), result);
        match adoptable(config, state, inventory, facts) {
            Adoptable::Yes(adoption) => wanted.adoptions.push(*adoption),
            Adoptable::Known(luks_uuid) => match known(state, facts, luks_uuid, names, how) {
                Known::Mounted => wanted.known.push(facts.name.clone()),
                Known::Closed => {
                    wanted.closed.push(facts.name.clone());
                    let row = row(Verdict::Left).volume(Some(luks_uuid), None);
                    wanted.rows.push(row.because("known and not open; 'luks-agent unlock' opens it"));
                }
                Known::Refused(Finding { evidence, remedy, .. }) => {
                    let row = row(Verdict::Refused).volume(Some(luks_uuid), None);
                    wanted.rows.push(row.because(evidence).with_remedy(remedy));
                }
            },
            Adoptable::No { finding: Finding { severity, evidence, remedy }, is_unknown } => {
                let result = if severity == Severity::Wrong { Verdict::Wrong } else { Verdict::Refused };
                let row = match names.is_empty() && !is_unknown {
                    true => row(Verdict::Left).because(evidence),
                    false => row(result).because(evidence).with_remedy(remedy),
                };
                wanted.rows.push(row);
            }
        }
    }
    // what is mounted there would keep the volume away from its mount point at every boot
    if let (Some(at), [adoption]) = (at, wanted.adoptions.as_slice())
        && let Some(source) = mounted_at(&Roots::host(), at).ok().and_then(|mut sources| sources.pop())
        && !is_mounted_at(&adoption.device, adoption, at)
    {
        let row = Row::new(&Subject::of(&adoption.device, &adoption.role), Verdict::Refused);
        let evidence = format!("mount point {} is taken: {} is mounted there", at.display(), source.display());
        wanted.rows.push(row.because(evidence).with_remedy("unmount it, or choose another --mount-point"));
        wanted.adoptions.clear();
    }
    Ok(wanted)
}

/// What this run does with a volume that the state file lists already.
enum Known {
    /// It mounts it, if that was not done.
    Mounted,
    /// It leaves it closed.
    Closed,
    /// It cannot do what was asked for.
    Refused(Finding),
}

/// Decides about a known volume.
///
/// An interrupted run may have left it open and not mounted. One that is not open was perhaps closed on purpose.
fn known(state: &State, facts: &DeviceFacts, luks_uuid: Uuid, names: &[String], how: AdoptAs<'_>) -> Known {
    let volume = state.volume(luks_uuid);
    let recorded = volume.and_then(|volume| volume.mount_point.as_deref());
    if how.mount_point.is_some_and(|at| Some(at) != recorded) {
        let recorded = recorded.map_or("no mount point".to_owned(), |at| format!("mount point {}", at.display()));
        let evidence = format!("the state file lists LUKS UUID {luks_uuid} already, with {recorded}");
        return Known::Refused(Finding::refused(evidence, "run it again without --mount-point"));
    }
    let own = state.node_key().map(|key| key.id);
    let keeps_its_key = |volume: &VolumeRecord| Some(volume.key) != own && !state.is_behind(volume);
    if how.rekey && !names.is_empty() && volume.is_some_and(keeps_its_key) {
        let evidence = format!(
            "the state file lists LUKS UUID {luks_uuid} already, with the key that it came with, and --rekey changes only the keys of volumes that it adopts"
        );
        return Known::Refused(Finding::refused(
            evidence,
            "'luks-agent rotate' gives all volumes a new key of this node",
        ));
    }
    if names.is_empty() && facts.mapping_of(luks_uuid).is_none() { Known::Closed } else { Known::Mounted }
}

fn is_mounted_at(facts: &DeviceFacts, adoption: &Adoption, at: &Path) -> bool {
    facts.mapping_of(adoption.luks_uuid).is_some_and(|mapping| mapping.mounts.iter().any(|point| point == at))
}

/// Plans the mounting, or the change of the keys, of the volumes that were adopted, and of those that were known and asked for.
async fn plan_for(
    mode: Mode,
    config: &Config,
    adopted: &AdoptOutcome,
    before: &Inventory,
    known: &[String],
) -> Result<Plan, CommandError> {
    let mut now = Disks::briefly(config).inventory().await?;
    for facts in &mut now.devices {
        let seen = before.devices.iter().find(|seen| seen.is_unchanged(facts));
        facts.content = seen.and_then(|seen| seen.content.clone());
    }
    let mut plan = plan(mode, config, &adopted.state, &now);
    let proven = adopted.results.iter().flatten().map(|proven| &proven.adoption.device.name);
    let wanted: Vec<&String> = proven.filter(|_| adopted.refusal.is_none()).chain(known).collect();
    let is_wanted = |name: Option<&String>| name.is_some_and(|name| wanted.contains(&name));
    plan.steps.retain(|step| is_wanted(Some(&step.device.name)));
    plan.refusals.retain(|refusal| is_wanted(refusal.subject.device.as_ref()));
    plan.left.retain(|left| is_wanted(left.subject.device.as_ref()));
    plan.changes.clear();
    plan.shortfalls.clear();
    Ok(plan)
}
