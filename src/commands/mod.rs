//! The commands: each is a stretch of the one way from configuration to report, and has a file of its own.
//!
//! May import: `apply`, `config`, `discover`, `disk`, `error`, `job`, `key`, `kms`, `luks2`, `plan`, `report`, `state`, `storage`.
//! Never: a device, `worker`, `daemon`.

mod ciphers;
mod health;
mod lazy_kms;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::Duration;

use ciphers::Ciphers;
use futures_util::future::join_all;
use lazy_kms::{LazyKms, likely_opened};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::apply::Apply;
use crate::config::{Config, ConfigError, Policy};
use crate::discover::{DiscoverError, Roots, discover, orphans};
use crate::disk::{Content, DeviceFacts, DiskKind, Holder, Inventory, Role, classify, is_shown};
use crate::error::chain;
use crate::job::{Answer, Extent, Host, HostError, Job, Target, Workers};
use crate::kms::imds::Imds;
use crate::plan::{
    Action, Change, Mode, Plan, Shortfall, Step, Subject, name_it, needed_ciphers, plan, record_of, unknown_volume,
    wants_header, wants_probe,
};
use crate::report::{ExitCode, Report, Row, Verdict, WOULD_NOT_SURVIVE, planned};
use crate::state::closed::{self, Closed};
use crate::state::{self, Phase, State, StateDir, StateError, VolumeRecord};
use crate::storage::{FilesystemKind, MountSpec, ToolError, check_growing_tools, check_tools};

pub use health::health;
use status::is_known;
pub use status::{Picture, local_status, picture, status};

/// Between two attempts to lock the state directory.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// How long commands that format nothing ask IMDS what Xen disks are. To those that may format it is worth `kms.deadline`: the
/// network of a booting node comes up after the agent.
const BRIEFLY: Duration = Duration::from_secs(5);

/// How long `close` waits for another run at the most: at a shutdown it has a minute and a half in all.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);

/// How often a boot looks for disks that it waits for, and how often it says so.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const PROGRESS: Duration = Duration::from_secs(15);

/// A command that could not begin; nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// The disks cannot be listed.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// A tool is missing.
    #[error(transparent)]
    Tools(#[from] ToolError),
    /// Not root.
    #[error("'luks-agent {0}' works on block devices and needs root; run it with sudo")]
    NotRoot(&'static str),
    /// No device-mapper.
    #[error(
        "device-mapper is not available: cannot open /dev/mapper/control; load the modules with 'modprobe dm-crypt', or boot a kernel that has them"
    )]
    NoDeviceMapper(#[source] io::Error),
    /// `close` or `grow` of something that is not an open volume.
    #[error(
        "no open volume is called '{name}'; expected the device, mapper name, mount point, serial number or LUKS UUID of one of: {open}"
    )]
    NoSuchVolume {
        /// What was asked for.
        name: String,
        /// What there is.
        open: String,
    },
}

impl CommandError {
    /// What a command says that could not begin. To `health` it is a finding: the next boot could not begin either.
    pub fn told_by(self, command: &str) -> String {
        let fails_boot = match &self {
            // a node that was never configured has nothing to lose
            Self::Config(e) => !matches!(e, ConfigError::Missing { .. }),
            Self::State(_) => true,
            Self::Discover(_)
            | Self::Tools(_)
            | Self::NotRoot(_)
            | Self::NoDeviceMapper(_)
            | Self::NoSuchVolume { .. } => false,
        };
        let prefix = if command == "health" && fails_boot { WOULD_NOT_SURVIVE } else { "" };
        format!("{prefix}{}", chain(self))
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::NoSuchVolume { .. } | Self::State(StateError::InMemory { .. }) => {
                ExitCode::Configuration
            }
            Self::State(_) | Self::Discover(_) | Self::Tools(_) | Self::NotRoot(_) | Self::NoDeviceMapper(_) => {
                ExitCode::Failed
            }
        }
    }
}

/// `plan`: what provision would do.
///
/// # Errors
/// When there is nothing to plan with.
pub async fn show_plan(config: &Config) -> Result<Report, CommandError> {
    need_root("plan")?;
    let state = state::read(&config.state.dir)?.unwrap_or_default();
    let host = workers(config);
    let plan = make_plan(Mode::Provision, config, &state, &Ciphers::new(&host), &Instance::new(config), None).await?;
    Ok(Report::of_plan(&plan))
}

/// `provision`: unlocks what is known, formats what is new and blank. With `leave_closed` it leaves alone what somebody closed.
///
/// # Errors
/// When it cannot begin.
pub async fn provision(config: &Config, leave_closed: bool) -> Result<Report, CommandError> {
    provision_as(if leave_closed { Occasion::Daemon } else { Occasion::Typed }, config).await
}

/// `boot`: what the boot service runs. It is `provision`, planned in the same mode, save for two things: it waits for the volumes
/// that `[volumes.expect]` asks for; and once the node has volumes, a disk that is none of them is named and keeps nobody
/// waiting, as with `unlock`.
///
/// # Errors
/// When it cannot begin.
pub async fn boot(config: &Config) -> Result<Report, CommandError> {
    provision_as(Occasion::Boot, config).await
}

/// Who has the node provisioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    Typed,
    /// The daemon, which leaves alone what somebody closed.
    Daemon,
    Boot,
}

impl Occasion {
    fn command(self) -> &'static str {
        match self {
            Self::Typed | Self::Daemon => "provision",
            Self::Boot => "boot",
        }
    }
}

async fn provision_as(occasion: Occasion, config: &Config) -> Result<Report, CommandError> {
    preflight(occasion.command(), config.filesystem.kind)?;
    let store = lock(config, of_another_run(config), StateDir::create).await?;
    let state = store.load()?;
    // nothing is open yet at boot that could grow, so it must not fail for want of what grows it
    if config.volumes.grow && occasion != Occasion::Boot {
        check_growing_tools(state.volumes.iter().map(|volume| volume.filesystem))?;
    }
    let host = workers(config);
    let closed = if occasion == Occasion::Daemon { closed::still() } else { closed::forget() };
    let seen = remove_orphans(config, &state, &host).await?;
    let instance = Instance::new(config);
    let keys = LazyKms::new(&config.kms);
    let ciphers = Ciphers::new(&host);
    let likely = ciphers.usable(likely_opened(&state, seen.as_ref(), &closed)).await;
    let plan = async {
        match occasion {
            Occasion::Typed => make_plan(Mode::Provision, config, &state, &ciphers, &instance, seen).await,
            Occasion::Daemon => {
                let mut plan = make_plan(Mode::Provision, config, &state, &ciphers, &instance, seen).await?;
                if has_volumes(&state) {
                    plan.leave_strangers();
                }
                Ok(plan)
            }
            Occasion::Boot => plan_boot(config, &state, &ciphers, &instance, seen).await,
        }
    };
    let mut plan = keys.meanwhile(&state, &likely, plan).await?;
    let left = leave(&mut plan, &closed);
    let formats = plan.steps.iter().any(|step| matches!(step.action, Action::Format { .. }));
    let instance_id = if formats { instance.id().await } else { None };
    let apply = Apply { config, store: Some(&store), keys: &keys, host: &host, instance_id };
    let outcome = apply.run(&plan, state).await;
    let report = Report::of_outcome(occasion.command(), &plan, &outcome).with_rows(left);
    Ok(report.measured(keys.usage(), host.stages()))
}

/// Plans as `provision` does, as often as other disks come while volumes are expected that are not there.
async fn plan_boot(
    config: &Config,
    state: &State,
    ciphers: &Ciphers<'_, impl Host>,
    instance: &Instance<'_>,
    mut seen: Option<Inventory>,
) -> Result<Plan, CommandError> {
    let until = Instant::now() + config.volumes.expect.within;
    loop {
        let found = match seen.take() {
            Some(found) => found,
            None => discover(&Roots::host(), &config.state.dir, None)?,
        };
        // the last look is after the wait
        let is_last = Instant::now() >= until;
        let mut plan = make_plan(Mode::Provision, config, state, ciphers, instance, Some(found.clone())).await?;
        if plan.shortfalls.is_empty() || is_last {
            // a first boot has to answer for every disk, a later one for the volumes that the node has
            if has_volumes(state) {
                plan.leave_strangers();
            }
            return Ok(plan);
        }
        let missing = plan.shortfalls.iter().map(Shortfall::evidence).collect::<Vec<_>>().join(", ");
        let left = until.saturating_duration_since(Instant::now());
        tracing::warn!("{missing}; waiting for more, {} s at most", left.as_secs());
        seen = other_disks(config, &found, left.min(PROGRESS)).await?;
    }
}

/// Whether the node has volumes, so that the boot is not its first.
fn has_volumes(state: &State) -> bool {
    state.volumes.iter().any(|volume| volume.phase == Phase::Committed)
}

/// Waits until there are other disks than those that were `found`; `None` when there are none in time. Those that are there may be
/// readable then that were not.
async fn other_disks(
    config: &Config,
    found: &Inventory,
    patience: Duration,
) -> Result<Option<Inventory>, CommandError> {
    let disks = |inventory: &Inventory| -> BTreeSet<_> {
        inventory.devices.iter().map(|facts| (facts.name.clone(), facts.devno, facts.diskseq, facts.size)).collect()
    };
    let until = Instant::now() + patience;
    while Instant::now() < until {
        sleep(LOOK_AGAIN.min(until.saturating_duration_since(Instant::now()))).await;
        let now = discover(&Roots::host(), &config.state.dir, None)?;
        if disks(&now) != disks(found) {
            return Ok(Some(now));
        }
    }
    Ok(None)
}

/// Takes the opening of volumes that somebody closed out of a plan, and gives back their rows.
fn leave(plan: &mut Plan, closed: &[Closed]) -> Vec<Row> {
    let is_closed = |step: &mut Step| {
        let Action::Unlock { luks_uuid, open: false, .. } = step.action else { return false };
        closed.iter().any(|closed| closed.is(luks_uuid, &step.device))
    };
    let left: Vec<Step> = plan.steps.extract_if(.., is_closed).collect();
    let is_left = |change: &Change| {
        let Change::Moved { luks_uuid: moved, .. } = change else { return false };
        left.iter().any(|step| matches!(&step.action, Action::Unlock { luks_uuid, .. } if luks_uuid == moved))
    };
    plan.changes.retain(|change| !is_left(change));
    let row = |step: Step| Row {
        result: Verdict::Closed,
        ..planned(&step).because("closed with 'luks-agent close'; 'luks-agent unlock' opens it")
    };
    left.into_iter().map(row).collect()
}

/// `unlock`: opens and mounts what is known.
///
/// # Errors
/// When it cannot begin.
pub async fn unlock(config: &Config) -> Result<Report, CommandError> {
    preflight("unlock", FilesystemKind::None)?;
    let store = lock(config, of_another_run(config), StateDir::open).await?;
    let state = store.load()?;
    let host = workers(config);
    let closed = closed::forget();
    let seen = remove_orphans(config, &state, &host).await?;
    let (keys, instance) = (LazyKms::new(&config.kms), Instance::new(config));
    let ciphers = Ciphers::new(&host);
    let likely = ciphers.usable(likely_opened(&state, seen.as_ref(), &closed)).await;
    let plan = make_plan(Mode::Unlock, config, &state, &ciphers, &instance, seen);
    let plan = keys.meanwhile(&state, &likely, plan).await?;
    let apply = Apply { config, store: Some(&store), keys: &keys, host: &host, instance_id: None };
    let outcome = apply.run(&plan, state).await;
    Ok(Report::of_outcome("unlock", &plan, &outcome).measured(keys.usage(), host.stages()))
}

/// `close`: unmounts and closes the volumes that are asked for, or all; each of them whole or not at all, unless it is for a
/// shutdown.
///
/// # Errors
/// When it cannot begin, or one of them is not an open volume.
pub async fn close(config: &Config, names: &[String], for_shutdown: bool) -> Result<Report, CommandError> {
    preflight("close", FilesystemKind::None)?;
    let store = lock(config, of_another_run(config).min(CLOSE_PATIENCE), StateDir::open).await?;
    let state = store.load()?;
    let inventory = Disks::briefly(config).inventory().await?;
    let wanted = open_volumes(&state, &inventory, names)?;
    let host = workers(config);
    let rows = wanted.iter().map(async |(facts, luks_uuid)| {
        let mounts = facts.mapping_of(*luks_uuid).map(|holder| holder.mounts.clone()).unwrap_or_default();
        let subject = Subject::of(facts, &classify(facts, &config.volumes.rules));
        let row = |result| Row::new(&subject, result).volume(Some(*luks_uuid), mounts.last().cloned());
        let extent = match for_shutdown {
            true => Extent::AsFarAsPossible,
            false => Extent::Whole { mount: own_mount(config, &state, *luks_uuid) },
        };
        let job = Job::Close { mapper: facts.mapper_of(*luks_uuid), extent };
        match host.run(&facts.name, job, None).await {
            Ok(Answer::Failed { message }) => row(Verdict::Failed).because(message),
            Ok(_) => row(Verdict::Closed),
            Err(e @ HostError::Hung { .. }) => row(Verdict::Hung).because(chain(e)),
            Err(e) => row(Verdict::Failed).because(chain(e)),
        }
    });
    let rows = join_all(rows).await;
    let closed = wanted.iter().zip(&rows).filter(|(_, row)| row.result == Verdict::Closed);
    closed::add(closed.map(|((facts, luks_uuid), _)| Closed::new(*luks_uuid, facts)).collect());
    let summary = match rows.iter().filter(|row| row.result == Verdict::Closed).count() {
        0 if rows.is_empty() => "no volume is open, nothing changed".to_owned(),
        closed => format!("{closed} of {} closed", rows.len()),
    };
    Ok(Report::new("close", rows, summary))
}

/// How the agent mounts a known volume.
fn own_mount(config: &Config, state: &State, luks_uuid: Uuid) -> Option<MountSpec> {
    let VolumeRecord { mount_point, filesystem, .. } = state.volume(luks_uuid)?;
    let options = config.filesystem.options.clone();
    Some(MountSpec { at: mount_point.clone()?, filesystem: *filesystem, options })
}

/// `grow`: grows open volumes to the size of their disks.
///
/// # Errors
/// When it cannot begin, or one of those that are asked for is not an open volume.
pub async fn grow(config: &Config, names: &[String]) -> Result<Report, CommandError> {
    preflight("grow", FilesystemKind::None)?;
    let store = lock(config, of_another_run(config), StateDir::open).await?;
    let state = store.load()?;
    check_growing_tools(state.volumes.iter().map(|volume| volume.filesystem))?;
    let inventory = Disks::briefly(config).inventory().await?;
    let mut plan = plan(Mode::Grow, config, &state, &inventory);
    if !names.is_empty() {
        let wanted = open_volumes(&state, &inventory, names)?;
        let wanted = |name: &str| wanted.iter().any(|(facts, _)| facts.name == name);
        plan.steps.retain(|step| wanted(&step.device.name));
        plan.refusals.retain(|refusal| refusal.subject.device.as_deref().is_some_and(wanted));
        plan.left.retain(|left| left.subject.device.as_deref().is_some_and(wanted));
    }
    let (keys, host) = (LazyKms::new(&config.kms), workers(config));
    let apply = Apply { config, store: Some(&store), keys: &keys, host: &host, instance_id: None };
    let outcome = apply.run(&plan, state).await;
    Ok(Report::of_outcome("grow", &plan, &outcome).measured(keys.usage(), host.stages()))
}

/// How long a run can take that waits for KMS and for a disk.
fn of_another_run(config: &Config) -> Duration {
    config.kms.deadline.saturating_add(config.volumes.deadline)
}

/// Locks the state directory. Another luks-agent that has it is waited for.
async fn lock(
    config: &Config,
    patience: Duration,
    take: impl Fn(&Path) -> Result<StateDir, StateError>,
) -> Result<StateDir, StateError> {
    let since = Instant::now();
    let mut told = None;
    loop {
        match take(&config.state.dir) {
            Err(StateError::Locked { path, holder, .. }) => {
                let waited = since.elapsed();
                if waited >= patience {
                    return Err(StateError::Locked { path, holder, waited });
                }
                if told.as_ref() != Some(&holder) {
                    tracing::warn!(
                        "waiting for another luks-agent ({holder}) to finish: it holds the lock on {}; giving up in {} s",
                        path.display(),
                        (patience - waited).as_secs()
                    );
                    told = Some(holder);
                }
                sleep(LOCK_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// The known volumes that are open, on their disks: those that are asked for, or all.
fn open_volumes<'a>(
    state: &State,
    inventory: &'a Inventory,
    names: &[String],
) -> Result<Vec<(&'a DeviceFacts, Uuid)>, CommandError> {
    let volumes = state.volumes.iter().map(|volume| volume.luks_uuid);
    let mut open: Vec<(&DeviceFacts, Uuid)> = inventory
        .devices
        .iter()
        .flat_map(|facts| volumes.clone().map(move |luks_uuid| (facts, luks_uuid)))
        .filter(|(facts, luks_uuid)| facts.mapping_of(*luks_uuid).is_some())
        .collect();
    for name in names {
        if !open.iter().any(|(facts, luks_uuid)| is_called(facts, *luks_uuid, name)) {
            let open = match open.as_slice() {
                [] => "none is open".to_owned(),
                open => open.iter().map(|(facts, _)| facts.name.as_str()).collect::<Vec<_>>().join(", "),
            };
            return Err(CommandError::NoSuchVolume { name: name.clone(), open });
        }
    }
    open.retain(|(facts, luks_uuid)| names.is_empty() || names.iter().any(|name| is_called(facts, *luks_uuid, name)));
    Ok(open)
}

fn is_called(facts: &DeviceFacts, luks_uuid: Uuid, name: &str) -> bool {
    let path = Path::new(name);
    let mapping = facts.mapping_of(luks_uuid);
    let mapper = mapping.and_then(|holder| holder.dm_name.as_deref());
    facts.name == name
        || facts.path == path
        || facts.links.iter().any(|link| link == path)
        || facts.serial.as_deref() == Some(name)
        || mapper == Some(name)
        || mapper.is_some_and(|mapper| path == Path::new("/dev/mapper").join(mapper))
        || mapping.is_some_and(|holder| holder.mounts.iter().any(|at| at == path))
        || luks_uuid.to_string() == name
}

/// Closes the mappings of known volumes that lead to no disk: the disk was pulled, or a worker was killed while it opened the
/// volume. Either would keep the volume from being opened again. Gives back what disks there are, if nothing was closed.
async fn remove_orphans(config: &Config, state: &State, host: &impl Host) -> Result<Option<Inventory>, CommandError> {
    let roots = Roots::host();
    let found = discover(&roots, &config.state.dir, None)?;
    let mut orphans = orphans(&roots)?;
    orphans.retain(|mapping| is_known(state, mapping));
    let unchanged = orphans.is_empty();
    let removals = orphans.into_iter().map(async |mapping| {
        let Holder { dm_name: Some(mapper), .. } = mapping else { return };
        // without a disk there is nothing that could be mounted again
        let job = Job::Close { mapper: mapper.clone(), extent: Extent::AsFarAsPossible };
        let why = match host.run(&mapper, job, None).await {
            Ok(Answer::Failed { message }) => message,
            Ok(_) => return tracing::warn!(mapper, "closed {mapper}, whose disk is gone"),
            Err(e) => chain(e),
        };
        tracing::error!(mapper, "{mapper} leads to no disk and cannot be closed: {why}");
    });
    join_all(removals).await;
    Ok(unchanged.then_some(found))
}

/// From sysfs to a plan: lists the disks, unless they were `seen` a moment ago, has workers look at those that may be targets,
/// decides; once more where the kernel lacks what that needs.
async fn make_plan(
    mode: Mode,
    config: &Config,
    state: &State,
    ciphers: &Ciphers<'_, impl Host>,
    instance: &Instance<'_>,
    seen: Option<Inventory>,
) -> Result<Plan, CommandError> {
    let (disks, host) = (Disks::new(config), ciphers.host());
    let before = match seen {
        Some(seen) => disks.candidates(seen).await?,
        None => disks.inventory().await?,
    };
    let scan = config.volumes.scan();
    let contents = before.devices.iter().map(async |facts| {
        if wants_header(config, state, facts) {
            return header_on(facts, host).await;
        }
        if !wants_probe(config, facts) {
            return None;
        }
        let unfinished = state.volumes.iter().rev().find(|v| v.phase == Phase::Intent && v.is_for(facts));
        let job = Job::Probe { target: Target::from(facts), intent: unfinished.map(|v| v.luks_uuid), scan };
        Some(match host.run(&facts.name, job, None).await {
            Ok(Answer::Content { content }) => content,
            Ok(Answer::Failed { message }) => Content::Unknown { reason: message },
            Ok(other) => {
                Content::Unknown { reason: format!("the worker process sent an unexpected answer: {other:?}") }
            }
            Err(e) => Content::Unknown { reason: chain(e) },
        })
    });
    let contents = join_all(contents).await;
    // looking took a while, and the worker of a killed agent may have ended its work meanwhile: what is true now counts
    let mut now = disks.inventory().await?;
    let same = |a: &DeviceFacts, b: &DeviceFacts| (a.devno, a.diskseq, a.size) == (b.devno, b.diskseq, b.size);
    now.devices.retain(|facts| before.devices.iter().any(|seen| same(seen, facts)));
    for facts in &mut now.devices {
        let seen = before.devices.iter().zip(&contents).find(|(seen, _)| same(seen, facts));
        // what was opened or closed meanwhile was looked at in another way
        let look = |facts: &DeviceFacts| (wants_probe(config, facts), wants_header(config, state, facts));
        let seen = seen.filter(|(seen, _)| look(seen) == look(facts));
        facts.content = seen.and_then(|(_, content)| content.clone());
    }
    let of_ours = |facts: &DeviceFacts| matches!(&facts.content, Some(Content::Luks2 { token: Some(_), .. }));
    if state.keys.is_empty() && now.devices.iter().any(of_ours) {
        now.instance_id = instance.id().await;
    }
    for facts in &now.devices {
        // where it does not fail the run it is a row among many
        if let Role::Unclear { because } = classify(facts, &config.volumes.rules)
            && config.volumes.ebs == Policy::Encrypt
            && record_of(state, facts).is_none()
            && unknown_volume(config, state, &now, facts).is_none()
        {
            tracing::warn!(disk = facts.name, "{} is not encrypted: {because}; {}", facts.name, name_it(facts));
        }
    }
    let planned = plan(mode, config, state, &now);
    now.missing_ciphers = ciphers.missing(needed_ciphers(config, state, &planned)).await;
    Ok(if now.missing_ciphers.is_empty() { planned } else { plan(mode, config, state, &now) })
}

/// Which LUKS2 volume is on a disk that may be in use, as its header says.
async fn header_on(facts: &DeviceFacts, host: &impl Host) -> Option<Content> {
    match host.run(&facts.name, Job::Header { target: Target::from(facts) }, None).await {
        Ok(Answer::Header { content }) => content,
        Ok(Answer::Failed { message }) => Some(Content::Unknown { reason: message }),
        Ok(other) => {
            Some(Content::Unknown { reason: format!("the worker process sent an unexpected answer: {other:?}") })
        }
        Err(e) => Some(Content::Unknown { reason: chain(e) }),
    }
}

/// The disks of this machine.
#[derive(Debug)]
struct Disks<'a> {
    config: &'a Config,
    /// How long IMDS is waited for.
    patience: Duration,
    /// The block device mapping of IMDS, by which alone Xen disks can be told apart; asked for once.
    mapping: OnceCell<Option<BTreeMap<String, String>>>,
}

impl<'a> Disks<'a> {
    fn new(config: &'a Config) -> Self {
        Self { config, patience: config.kms.deadline, mapping: OnceCell::new() }
    }

    /// For commands that format nothing.
    fn briefly(config: &'a Config) -> Self {
        Self { patience: config.kms.deadline.min(BRIEFLY), ..Self::new(config) }
    }

    async fn inventory(&self) -> Result<Inventory, CommandError> {
        self.candidates(discover(&Roots::host(), &self.config.state.dir, None)?).await
    }

    /// Of all that were found those that matter, Xen disks told apart.
    async fn candidates(&self, mut found: Inventory) -> Result<Inventory, CommandError> {
        if found.devices.iter().any(|facts| facts.kind == DiskKind::Xen)
            && let Some(mapping) = self.mapping.get_or_init(|| mapping(self.patience)).await
        {
            found = discover(&Roots::host(), &self.config.state.dir, Some(mapping))?;
        }
        found.devices.retain(|facts| {
            let holds_a_volume = facts.holders.iter().any(|holder| holder.luks_uuid().is_some());
            holds_a_volume || is_shown(facts.kind, &classify(facts, &self.config.volumes.rules))
        });
        Ok(found)
    }
}

async fn mapping(patience: Duration) -> Option<BTreeMap<String, String>> {
    match imds(patience).block_device_mapping().await {
        Ok(Some(mapping)) => Some(mapping),
        Ok(None) => {
            tracing::warn!("there are Xen disks, but no instance metadata service to tell what they are");
            None
        }
        Err(e) => {
            tracing::warn!("there are Xen disks, but the block device mapping cannot be read: {}", chain(e));
            None
        }
    }
}

/// This instance, of which IMDS is asked once, when its id is first needed.
#[derive(Debug)]
struct Instance<'a> {
    config: &'a Config,
    id: OnceCell<Option<String>>,
}

impl<'a> Instance<'a> {
    fn new(config: &'a Config) -> Self {
        Self { config, id: OnceCell::new() }
    }

    /// Not waited for longer than a minute: what it is good for, telling a clone from its original, is not worth the boot.
    async fn id(&self) -> Option<String> {
        let patience = self.config.kms.deadline.min(Duration::from_secs(60));
        let ask = || async {
            imds(patience).instance_id().await.unwrap_or_else(|e| {
                tracing::warn!("the instance id is not known: {}", chain(e));
                None
            })
        };
        self.id.get_or_init(ask).await.clone()
    }
}

/// Waited for on EC2, where it is there as soon as the network is; asked once elsewhere.
fn imds(patience: Duration) -> Imds {
    let vendor = std::fs::read_to_string("/sys/class/dmi/id/sys_vendor").unwrap_or_default();
    let xen = std::fs::read_to_string("/sys/hypervisor/uuid").unwrap_or_default();
    let ec2 = vendor.trim() == "Amazon EC2" || xen.starts_with("ec2");
    if ec2 { Imds::new().wait_until(Instant::now() + patience) } else { Imds::new() }
}

fn workers(config: &Config) -> Workers {
    Workers::new(config.volumes.deadline)
}

fn need_root(command: &'static str) -> Result<(), CommandError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(CommandError::NotRoot(command)) }
}

/// All that can be known to be missing before anything is done.
fn preflight(command: &'static str, filesystem: FilesystemKind) -> Result<(), CommandError> {
    need_root(command)?;
    check_tools(filesystem)?;
    // opening it makes the kernel load the module where it is one
    let control = OpenOptions::new().read(true).write(true).open("/dev/mapper/control");
    control.map(|_| ()).map_err(CommandError::NoDeviceMapper)
}
