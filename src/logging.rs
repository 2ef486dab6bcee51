//! Sends log lines to the journal, with fields, if stderr is connected to it, and to stderr otherwise.

use std::fmt;
use std::io::{self, IsTerminal};

use log::kv;
use nix::sys::stat::fstat;
use systemd_journal_logger::{JournalLog, connected_to_journal};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt as console};

use crate::text::escape_controls;

/// Highest log level of other crates: at debug level the HTTP client logs the responses, plaintext keys included.
const OTHERS: LevelFilter = LevelFilter::WARN;

/// Formats the fields of an entry for stderr.
fn write_field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => write!(to, "{}", escape_controls(&text)),
        name => write!(to, "{name}={}", escape_controls(&text)),
    }
}

/// Starts logging at `level`.
///
/// # Errors
/// If the journal cannot be reached although stderr is connected to it, or logging was started before.
pub fn start(level: LevelFilter) -> io::Result<()> {
    let filter = Targets::new().with_target("luks_agent", level).with_default(OTHERS.min(level));
    let registry = tracing_subscriber::registry().with(filter);
    let started = if connected_to_journal() {
        let journal = JournalLog::new()?.with_syslog_identifier("luks-agent".to_owned());
        registry.with(Journal(journal)).try_init()
    } else {
        let console = console::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .fmt_fields(debug_fn(write_field).delimited(" "))
            // without this, a closed stderr would cause a panic
            .log_internal_errors(false);
        registry.with(console).try_init()
    };
    started.map_err(io::Error::other)
}

/// Runs something whose log lines go to the journal alone, wherever all others go. Without a journal they go nowhere.
pub fn only_to_journal(log: impl FnOnce()) {
    let Ok(journal) = JournalLog::new() else { return };
    let journal = Journal(journal.with_syslog_identifier("luks-agent".to_owned()));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), log);
}

/// Returns whether log lines go to the journal.
pub fn to_journal() -> bool {
    connected_to_journal()
}

/// Returns whether stdout is connected to the journal (`JOURNAL_STREAM` in systemd.exec(5)).
pub fn stdout_to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stdout()).is_ok_and(|stdout| stream == format!("{}:{}", stdout.st_dev, stdout.st_ino))
}

/// Passes events to systemd-journal-logger, which is a backend of `log`.
///
/// The bridge from tracing to `log` would put the fields into the message.
struct Journal(JournalLog);

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let level = match *metadata.level() {
            tracing::Level::ERROR => log::Level::Error,
            tracing::Level::WARN => log::Level::Warn,
            tracing::Level::INFO => log::Level::Info,
            tracing::Level::DEBUG => log::Level::Debug,
            tracing::Level::TRACE => log::Level::Trace,
        };
        let source: Vec<(&str, &str)> = fields.others.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let source: &[(&str, &str)] = &source;
        // the agent goes on without a journal
        let _ = self.0.journal_send(
            &log::Record::builder()
                .level(level)
                .target(metadata.target())
                .key_values(&source as &dyn kv::Source)
                .args(format_args!("{}", fields.message))
                .build(),
        );
    }
}

/// The fields of one event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = escape_controls(value).into_owned(),
            name => self.others.push((name, escape_controls(value).into_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
