//! `luks-agent`: arguments, logging, exit code.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use nix::libc::MCL_ONFAULT;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use serde_json::json;
use tracing::level_filters::LevelFilter;

use luks_agent::cli::{Cli, Command};
use luks_agent::commands::{self, CommandError};
use luks_agent::config::Config;
use luks_agent::logging;
use luks_agent::report::{self, Report};
use luks_agent::worker::{self, chain};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // progress lines show on a terminal what the log would say
    let default = if io::stderr().is_terminal() { LevelFilter::WARN } else { LevelFilter::INFO };
    if let Err(e) = logging::start(cli.log_level.map_or(default, LevelFilter::from)) {
        complain(&format!("cannot log: {e}"));
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
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "luks-agent", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::ManPages { dir } => {
            write_man_pages(dir)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Worker => {
            guard_memory();
            worker::serve(&mut io::stdin().lock(), &mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Plan { .. }
        | Command::Provision { .. }
        | Command::Unlock { .. }
        | Command::Close { .. }
        | Command::Status { .. } => {
            guard_memory();
            umask(Mode::from_bits_truncate(0o077));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let ended = runtime.block_on(command(&cli.command, &cli.config));
            // a worker that hangs in the kernel must not be waited for
            runtime.shutdown_background();
            say(cli.command.json(), ended)
        }
    }
}

async fn command(command: &Command, config: &Path) -> Result<Report, CommandError> {
    let config = Config::load(config)?;
    match command {
        Command::Plan { .. } => commands::show_plan(&config).await,
        Command::Provision { .. } => commands::provision(&config).await,
        Command::Unlock { .. } => commands::unlock(&config).await,
        Command::Close { volumes, .. } => commands::close(&config, volumes).await,
        Command::Status { .. } | Command::Completions { .. } | Command::ManPages { .. } | Command::Worker => {
            commands::status(&config).await
        }
    }
}

/// Prints a report, or why there is none, and gives the exit code.
fn say(json: bool, ended: Result<Report, CommandError>) -> Result<ExitCode, Box<dyn Error>> {
    let mut out = io::stdout().lock();
    let code = match ended {
        Ok(report) => {
            if json {
                serde_json::to_writer_pretty(&mut out, &report)?;
                writeln!(out)?;
            } else {
                write!(out, "{report}")?;
            }
            out.flush()?;
            if let Some(error) = report.error() {
                complain(error);
            }
            report.exit_code()
        }
        Err(e) => {
            let code = e.exit_code() as u8;
            let message = chain(e);
            if json {
                let error = json!({
                    "schema": report::SCHEMA,
                    "schema_version": report::SCHEMA_VERSION,
                    "agent_version": env!("CARGO_PKG_VERSION"),
                    "exit_code": code,
                    "error": message,
                });
                serde_json::to_writer_pretty(&mut out, &error)?;
                writeln!(out)?;
            }
            complain(&message);
            code
        }
    };
    Ok(ExitCode::from(code))
}

#[expect(clippy::print_stderr, reason = "the one place where errors are printed")]
fn complain(message: &str) {
    eprintln!("luks-agent: {message}");
}

/// Keeps key material out of core dumps, of other processes' reach and of swap. Without privileges some of it fails, and
/// then there are no keys either.
fn guard_memory() {
    let lock = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | MlockAllFlags::from_bits_retain(MCL_ONFAULT);
    let guards = [
        ("core dumps", setrlimit(Resource::RLIMIT_CORE, 0, 0)),
        ("ptrace", set_dumpable(false)),
        ("swap", mlockall(lock)),
    ];
    for (what, result) in guards {
        if let Err(e) = result {
            tracing::debug!("memory is not guarded against {what}: {e}");
        }
    }
}

fn write_man_pages(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
