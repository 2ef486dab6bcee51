//! `luks-agent`: arguments, logging, exit code.

use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use luks_agent::cli::{AuditAction, Cli, Command, EmrAction, HeaderAction, RecoveryKeyAction, Verb};
use luks_agent::commands::{
    self, Closing, CommandError, EmrFiles, EmrFormat, FleetFiles, FleetOutputs, Occasion, Printed, Recovery, Restoring,
    Rotation,
};
use luks_agent::config::Config;
use luks_agent::emr::Demands;
use luks_agent::error::chain;
use luks_agent::job::PARENT;
use luks_agent::plan::Allowed;
use luks_agent::report::{Report, last, proofs};
use luks_agent::text::escape_controls;
use luks_agent::worker::{self, confine};
use luks_agent::{daemon, logging};
use nix::libc::MCL_ONFAULT;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::getppid;
use tracing::level_filters::LevelFilter;

/// How long systemd waits for the next request for more time.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    // parsing the command line would take longer than some jobs, and each disk has two jobs
    if std::env::args_os().skip(1).eq(["worker"]) {
        // the worker does not log: it sends its failures to the agent as answers
        return match work() {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                complain(&chain(e));
                ExitCode::FAILURE
            }
        };
    }
    let cli = Cli::parse();
    // on a terminal, progress lines show what the log would say
    let default = if io::stderr().is_terminal() { LevelFilter::WARN } else { LevelFilter::INFO };
    if let Err(e) = logging::start(cli.log_level.map_or(default, LevelFilter::from)) {
        complain(&format!("cannot start logging: {e}"));
    }
    match run(&cli) {
        Ok(code) => code,
        Err(e) => {
            complain(&chain(&*e));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Box<dyn Error>> {
    match &cli.command {
        Command::Verb(verb) => say(verb, on_this_node(perform(verb, &cli.config))?),
        Command::Audit { action: None, record: true, blocks, .. } => record(&cli.config, *blocks),
        Command::Audit { action: None, json, output, blocks, .. } => {
            audit(&cli.config, *json, output.as_deref(), *blocks)
        }
        Command::Daemon => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let ended = runtime.block_on(daemon::run(&cli.config));
            // do not wait for a look that hangs in the kernel
            runtime.shutdown_background();
            match ended {
                Ok(()) => Ok(ExitCode::SUCCESS),
                Err(e) => Ok(fail(e.exit_code(), e)),
            }
        }
        Command::Emr { action } => {
            let said = match action {
                EmrAction::Check { files, certificates, region, require, local_disks_by_agent, json, sarif } => {
                    if !certificates.is_empty() {
                        // they come with a private key
                        guard_memory();
                    }
                    let demands = Demands { required: require.clone(), local_disks_by_agent: *local_disks_by_agent };
                    let format = match (json, sarif) {
                        (true, _) => EmrFormat::Json,
                        (false, true) => EmrFormat::Sarif,
                        (false, false) => EmrFormat::Table,
                    };
                    let files = EmrFiles { documents: files, certificates, regions: region };
                    commands::emr_check(&files, demands, format)
                }
                EmrAction::Import { file, name, json } => commands::emr_import(file, name.as_deref(), *json),
            };
            say_printed(&said)
        }
        Command::Audit { action: Some(action), .. } => say_printed(&about_reports(action)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "luks-agent", &mut script);
            print(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ManPages { dir } => {
            write_man_pages(dir)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Worker => Ok(work().map(|()| ExitCode::SUCCESS)?),
        Command::Unwrap => unwrap(&cli.config),
        Command::CrypttabKey => crypttab_key(&cli.config),
    }
}

/// Runs a command that works on the disks of this node or with a key, and returns how it ended.
fn on_this_node<T, E>(command: impl Future<Output = Result<T, E>>) -> io::Result<Result<T, E>> {
    guard_memory();
    umask(Mode::from_bits_truncate(0o077));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(patiently(command));
    // do not wait for a worker that hangs in the kernel
    runtime.shutdown_background();
    Ok(ended)
}

/// Audits the node, prints the report and, if asked, writes it to a file.
fn audit(config: &Path, json: bool, output: Option<&Path>, blocks: u32) -> Result<ExitCode, Box<dyn Error>> {
    let ended = on_this_node(async {
        output.map_or(Ok(()), commands::check_output)?;
        let config = Config::load(config)?;
        let report = commands::audit(&config, blocks).await?;
        // a table is not signed, so it needs no key service
        let needs_text = json || output.is_some();
        let text = if needs_text { commands::audit_text(&config, &report).await } else { Ok(String::new()) };
        Ok((report, text))
    })?;
    let (report, text) = match ended {
        Ok(ended) => ended,
        Err(e) => return no_audit(e, json),
    };
    if !json {
        // also if it cannot be signed or written
        print(report.to_string().as_bytes())?;
    }
    let written = text.and_then(|text| {
        output.map_or(Ok(()), |output| commands::write_report(output, &text))?;
        Ok(text)
    });
    match written {
        Ok(text) if json => print(text.as_bytes())?,
        Ok(_) => {}
        Err(e) => return no_audit(e, json),
    }
    Ok(ExitCode::from(report.verdict.exit_code()))
}

/// Audits the node for the record. The exit code says whether there is a report, and not what is in it: that is in the metrics.
fn record(config: &Path, blocks: u32) -> Result<ExitCode, Box<dyn Error>> {
    let ended = on_this_node(async { commands::record_audit(&Config::load(config)?, blocks).await })?;
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) => no_audit(e, false),
    }
}

/// Runs a command that works on audit reports, and returns what it prints.
fn about_reports(action: &AuditAction) -> Printed {
    match action {
        AuditAction::Convert { reports, format, all, output_dir } => {
            commands::audit_convert(reports, *format, *all, output_dir.as_deref())
        }
        AuditAction::Fleet { reports, html, json, volumes, instances, clusters, security_configurations } => {
            let files = FleetFiles { reports, volumes, instances, clusters, security_configurations };
            let outputs = FleetOutputs { html: html.as_deref(), json: json.as_deref() };
            commands::audit_fleet(&files, outputs)
        }
        AuditAction::Verify { public_key, envelope } => commands::audit_verify(public_key, envelope),
    }
}

/// Says why there is no audit report, in JSON as every other command does.
fn no_audit(error: CommandError, json: bool) -> Result<ExitCode, Box<dyn Error>> {
    let failed = Report::of_failure("audit", error.exit_code(), error.message_for("audit"));
    if json {
        print(format!("{}\n", serde_json::to_string_pretty(&failed)?).as_bytes())?;
    }
    complain(failed.error().unwrap_or_default());
    Ok(ExitCode::from(failed.exit_code()))
}

async fn perform(verb: &Verb, config: &Path) -> Result<Report, CommandError> {
    let config = Config::load(config)?;
    match verb {
        Verb::Plan { .. } => commands::show_plan(&config).await,
        Verb::Provision { leave_closed, .. } => {
            let occasion = if *leave_closed { Occasion::Daemon } else { Occasion::Typed };
            commands::provision(&config, occasion).await
        }
        Verb::Unlock { recovery_key: true, .. } => commands::unlock_with_recovery_key(&config).await,
        Verb::Unlock { .. } => commands::unlock(&config).await,
        Verb::Boot { .. } => commands::provision(&config, Occasion::Boot).await,
        Verb::Grow { volumes, .. } => commands::grow(&config, &volumes.names).await,
        Verb::Close { volumes, for_shutdown, .. } => {
            let closing = if *for_shutdown { Closing::ForShutdown } else { Closing::AllOrNothing };
            commands::close(&config, &volumes.names, closing).await
        }
        Verb::Rotate { volume_key, max_speed, .. } => {
            let rotation = if *volume_key { Rotation::VolumeKeys { speed: *max_speed } } else { Rotation::DataKey };
            commands::rotate(&config, rotation).await
        }
        Verb::Rewrap { to, .. } => commands::rewrap(&config, to).await,
        Verb::Status { .. } => commands::status(&config).await,
        Verb::Doctor { .. } => Ok(commands::doctor(&config).await),
        Verb::Health { .. } => commands::health(&config).await,
        Verb::Adopt { names, mount_point, rekey, .. } => {
            let wanted = commands::Adopt { names: names.clone(), mount_point: mount_point.clone(), rekey: *rekey };
            commands::adopt(&config, &wanted).await
        }
        Verb::Erase { names, unknown, yes, .. } => {
            let wanted = commands::Erase { names: names.clone(), unknown: *unknown, yes: *yes };
            commands::erase(&config, &wanted).await
        }
        Verb::Forget { names, even_if_attached, .. } => commands::forget(&config, names, *even_if_attached).await,
        Verb::Verify { .. } => commands::verify(&config).await,
        Verb::Header { action } => header(action, &config).await,
        Verb::RecoveryKey { action: RecoveryKeyAction::Enroll { volumes, .. } } => {
            commands::recovery_key(&config, &volumes.names, Recovery::Enroll).await
        }
        Verb::RecoveryKey { action: RecoveryKeyAction::Remove { volumes, .. } } => {
            commands::recovery_key(&config, &volumes.names, Recovery::Remove).await
        }
    }
}

async fn header(action: &HeaderAction, config: &Config) -> Result<Report, CommandError> {
    match action {
        HeaderAction::Show { volumes, .. } => commands::header_show(config, &volumes.names).await,
        HeaderAction::Backup { volume, file, .. } => commands::header_backup(config, volume, file).await,
        HeaderAction::Restore { volume, file, replace_keyslots, replace_volume_key, other_disk, dry_run, .. } => {
            let allowed = Allowed {
                other_keyslots: *replace_keyslots,
                other_volume_key: *replace_volume_key,
                other_disk: *other_disk,
            };
            let restoring = Restoring { allowed, dry_run: *dry_run };
            commands::header_restore(config, volume, file, restoring).await
        }
    }
}

/// Does work, and keeps asking systemd for more time meanwhile.
///
/// The work has deadlines of its own, for KMS and for each volume. Only a process that hangs stops asking.
async fn patiently<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut tick = tokio::time::interval(PATIENCE / 4);
    let more = u32::try_from(PATIENCE.as_micros()).unwrap_or(u32::MAX);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = tick.tick() => {
                // fails without systemd, which does not matter
                let _ = sd_notify::notify(&[sd_notify::NotifyState::ExtendTimeoutUsec(more)]);
            }
        }
    }
}

/// Runs as a worker: does its jobs, then exits.
fn work() -> io::Result<()> {
    guard_memory();
    // the umask of the agent keeps its state file private, but mount points are for all users
    umask(Mode::from_bits_truncate(0o022));
    // without the agent nobody reads the answers, and the next run continues where this one stopped
    set_pdeathsig(Signal::SIGKILL)?;
    // the agent may have exited before that
    if let Some(parent) = std::env::var_os(PARENT)
        && parent != getppid().to_string().as_str()
    {
        return Err(io::Error::other("the agent that started this worker has exited"));
    }
    confine::no_network().map_err(|e| io::Error::other(format!("cannot drop access to the network: {e}")))?;
    // not `Stdin`, whose buffer would keep a copy of the passphrase
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    worker::serve(input, &mut io::stdout().lock())
}

/// Unwraps the key of a token for the plug-in of cryptsetup.
fn unwrap(config: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    // not `Stdout`, whose buffer would keep a copy of the passphrase
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    match on_this_node(commands::unwrap(config, input, output))? {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) => Ok(fail(e.exit_code(), e)),
    }
}

/// Gives systemd-cryptsetup the key of a volume.
fn crypttab_key(config: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    match on_this_node(commands::crypttab_key(config, socket))? {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) => Ok(fail(e.exit_code(), e)),
    }
}

/// Prints the report of a command, and returns the exit code.
fn say(verb: &Verb, ended: Result<Report, CommandError>) -> Result<ExitCode, Box<dyn Error>> {
    let (report, began) = match ended {
        Ok(report) => (report, true),
        Err(e) => (Report::of_failure(verb.name(), e.exit_code(), e.message_for(verb.name())), false),
    };
    last::keep(&report);
    proofs::keep(&report);
    let logged = logging::to_journal();
    if logged {
        report.log();
    } else if matches!(verb, Verb::Adopt { .. } | Verb::Forget { .. } | Verb::Erase { .. }) {
        // people type these, and the node has other volumes afterwards
        logging::only_to_journal(|| report.log());
    }
    if verb.output().json {
        print(format!("{}\n", serde_json::to_string_pretty(&report)?).as_bytes())?;
    } else if began && !(logged && logging::stdout_to_journal()) {
        print(report.to_string().as_bytes())?;
    }
    if let Some(error) = report.error()
        && !logged
    {
        complain(error);
    }
    Ok(ExitCode::from(report.exit_code()))
}

/// Prints what a command without a report says, and returns the exit code.
fn say_printed(said: &Printed) -> Result<ExitCode, Box<dyn Error>> {
    print(said.stdout.as_bytes())?;
    said.complaints.iter().for_each(|line| complain(line));
    Ok(ExitCode::from(said.exit_code))
}

/// Prints on standard output. A reader that stops reading, such as `head`, is not an error: the work is done.
fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Says why a command failed, and returns its exit code.
fn fail(code: impl Into<ExitCode>, error: impl Error) -> ExitCode {
    complain(&chain(error));
    code.into()
}

/// Prints on standard error. Unlike `eprintln!`, it does not panic if that is closed.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "luks-agent: {}", escape_controls(message));
}

/// Keeps keys out of core dumps, swap and the reach of other processes.
///
/// Without root some of this fails. There are no keys then either, so that is only logged at debug level.
fn guard_memory() {
    let lock = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | MlockAllFlags::from_bits_retain(MCL_ONFAULT);
    let guards = [
        ("core dumps", setrlimit(Resource::RLIMIT_CORE, 0, 0)),
        ("ptrace", set_dumpable(false)),
        ("swap", mlockall(lock)),
    ];
    for (what, result) in guards {
        if let Err(e) = result {
            match nix::unistd::geteuid().is_root() {
                true => tracing::warn!("cannot protect keys in memory against {what}: {e}"),
                false => tracing::debug!("cannot protect memory against {what}: {e}"),
            }
        }
    }
}

fn write_man_pages(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
