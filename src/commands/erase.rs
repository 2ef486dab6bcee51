//! `erase`: overwrites the headers of volumes, so that no key opens them any more.

use std::io::{self, IsTerminal as _, Write as _};
use std::{env, fs};

use jiff::Timestamp;
use nix::unistd::{Uid, User, getuid};
use uuid::Uuid;

use super::error::CommandError;
use super::lazy_kms::LazyKms;
use super::named_disks::named_disks;
use super::preflight::{lock, patience_with_another_run, preflight};
use super::survey::disks_with_headers;
use crate::apply::Apply;
use crate::config::Config;
use crate::disk::{Bytes, DeviceFacts, classify};
use crate::job::{Host, Workers};
use crate::plan::{Erasure, Finding, Subject, erasable, may_hold_ours};
use crate::report::{Operator, Report, Row, Verdict};
use crate::state::{self, FormerVolume, State, StateDir, VolumeEnd};
use crate::storage::FilesystemKind;

/// What to erase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erase {
    /// Names of disks.
    pub names: Vec<String>,
    /// Whether to erase volumes of luks-agent that the state file does not list, too.
    pub unknown: bool,
    /// Whether not to ask.
    pub yes: bool,
}

/// What is to be erased, and the rows of the other disks.
#[derive(Debug, Default)]
struct Wanted {
    erasures: Vec<Erasure>,
    others: Vec<Row>,
}

/// `erase`: erases volumes, after a confirmation that names each.
///
/// It asks before it locks the state directory, so that no other run waits for the answer, and decides again afterwards.
///
/// # Errors
/// When it cannot begin, no disk has one of the names, or nobody confirms it.
pub async fn erase(config: &Config, wanted: &Erase) -> Result<Report, CommandError> {
    preflight("erase", FilesystemKind::None)?;
    let host = Workers::new(config.volumes.deadline);
    let mut confirmed = None;
    if !wanted.yes {
        if !io::stdin().is_terminal() {
            return Err(CommandError::NotConfirmed);
        }
        let state = state::read(&config.state.dir)?.unwrap_or_default();
        let first = choose(config, &state, wanted, &host).await?;
        if let Err(row) = confirm(&first.erasures) {
            let rows = first.others.into_iter().chain([*row]).collect();
            return Ok(Report::new("erase", rows, "not confirmed, nothing was erased".to_owned()));
        }
        confirmed = Some(first.erasures.iter().map(identity).collect::<Vec<_>>());
    }
    let store = lock(config, patience_with_another_run(config), StateDir::create).await?;
    let state = store.load()?;
    let Wanted { mut erasures, mut others } = choose(config, &state, wanted, &host).await?;
    if let Some(confirmed) = confirmed {
        let changed = erasures.extract_if(.., |erasure| !confirmed.contains(&identity(erasure)));
        others.extend(changed.map(|erasure| Row::not_erased(&erasure, "it has changed since it was confirmed")));
    }
    let keys = LazyKms::new(config);
    let apply = Apply { config, store: Some(&store), keys: &keys, host: &host, instance_id: None };
    let results = apply.erase(&erasures, state).await;
    let report = Report::of_erasure(&erasures, &results, &operator(), others);
    Ok(report.measured(None, host.stages()))
}

/// Returns what a confirmation is for: this volume on this disk.
fn identity(erasure: &Erasure) -> (Uuid, String, Option<u64>) {
    let Erasure { record, device, .. } = erasure;
    (record.luks_uuid, device.devno.to_string(), device.diskseq)
}

async fn choose(config: &Config, state: &State, wanted: &Erase, host: &impl Host) -> Result<Wanted, CommandError> {
    let inventory = disks_with_headers(config, host).await?;
    let names = named_disks(&inventory, state, &wanted.names)?;
    let mut chosen = Wanted::default();
    // with the keys of volumes that it does not list, so that each gets an ID of its own
    let mut known = state.clone();
    for facts in inventory.devices.iter().filter(|facts| names.contains(&facts.name)) {
        let row = |result| Row::new(&Subject::of(facts, &classify(facts, &config.volumes.rules)), result);
        match erasable(config, &known, &inventory, facts, wanted.unknown, Timestamp::now()) {
            Ok(erasure) => {
                if known.key(erasure.key.id).is_none() {
                    known.keys.push(erasure.key.clone());
                }
                chosen.erasures.push(erasure);
            }
            Err(Finding { evidence, remedy, .. }) => chosen.others.push(match erased_before(config, state, facts) {
                Some(former) => row(Verdict::Erased).volume(Some(former.volume.luks_uuid), None).because(format!(
                    "already erased, at {:.0}; it has no LUKS2 header, and nothing changed",
                    former.ended
                )),
                None => row(Verdict::Refused).because(evidence).with_remedy(remedy),
            }),
        }
    }
    Ok(chosen)
}

/// Asks on the terminal for each volume. The first wrong answer is one for all.
fn confirm(erasures: &[Erasure]) -> Result<(), Box<Row>> {
    for erasure in erasures {
        let Erasure { device, record, .. } = erasure;
        let (uuid, serial) = (record.luks_uuid.to_string(), device.serial.as_deref());
        let or_serial = serial.map(|serial| format!(" or its serial number, {serial}")).unwrap_or_default();
        let mut out = io::stderr().lock();
        let asked = write!(
            out,
            "All data on {} ({}, LUKS UUID {uuid}) will be lost, and nothing brings it back.\nType its LUKS UUID{or_serial}: ",
            device.name,
            Bytes(device.size)
        );
        let mut answer = String::new();
        let answered = asked.and_then(|()| out.flush()).and_then(|()| io::stdin().read_line(&mut answer));
        let answer = answer.trim();
        if answered.is_err() || (answer != uuid && Some(answer) != serial) {
            return Err(Box::new(Row::not_erased(
                erasure,
                "the answer names neither its LUKS UUID nor its serial number",
            )));
        }
    }
    Ok(())
}

/// Returns the volume that was on a disk before this node erased it, if it is still without a header.
fn erased_before<'a>(config: &Config, state: &'a State, facts: &DeviceFacts) -> Option<&'a FormerVolume> {
    let FormerVolume { volume, end, .. } = state.former.iter().rev().find(|former| former.volume.is_for(facts))?;
    let is_without = may_hold_ours(config, facts) && facts.content.is_none() && facts.holders.is_empty();
    let is_it = *end == VolumeEnd::Erased && volume.size == facts.size && is_without;
    state.former_volume(volume.luks_uuid).filter(|_| is_it)
}

/// Returns who runs this command.
fn operator() -> Operator {
    let uid = getuid();
    // u32::MAX: nobody has logged in
    let login = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
    Operator {
        uid: uid.as_raw(),
        user: name_of(uid),
        login_uid: login.filter(|uid| *uid != u32::MAX),
        sudo_user: env::var("SUDO_USER").ok(),
    }
}

fn name_of(uid: Uid) -> Option<String> {
    User::from_uid(uid).ok().flatten().map(|user| user.name)
}
