//! The progress of one worker: a line on a terminal, log entries elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// How long the slowest disk spent in each stage.
pub(super) type Stages = RefCell<BTreeMap<String, Duration>>;

/// How far a worker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// The current stage.
    pub stage: String,
    /// How much of it is done, in percent.
    pub percent: Option<u64>,
    /// How fast it goes, and how long it will take.
    pub pace: Option<String>,
}

/// The progress of one worker: a line on a terminal, log entries elsewhere.
pub(super) struct Progress<'a> {
    /// The name of its disk.
    pub(super) device: String,
    /// When the worker last sent something.
    heard: &'a Cell<Instant>,
    /// The current stage and its start; `None` before the first.
    stage: Option<(String, Instant)>,
    stages: &'a Stages,
    /// How many tenths of the stage were logged.
    tenth: u64,
    bar: Option<ProgressBar>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(
        device: &str,
        bars: Option<&MultiProgress>,
        stages: &'a Stages,
        heard: &'a Cell<Instant>,
    ) -> Self {
        let bar = bars.map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:10} {msg} [{elapsed}]") {
                bar.set_style(style);
            }
            bar.set_prefix(device.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { device: device.to_owned(), heard, stage: None, stages, tenth: 0, bar }
    }

    /// Returns the current stage.
    pub(super) fn stage(&self) -> &str {
        self.stage.as_ref().map_or("starting", |(stage, _)| stage)
    }

    /// Ends the current stage and notes how long it took.
    fn end_stage(&mut self) {
        if let Some((stage, since)) = self.stage.take() {
            let mut stages = self.stages.borrow_mut();
            let longest = stages.entry(stage).or_default();
            *longest = since.elapsed().max(*longest);
        }
    }

    /// Shows what the worker reported. Of a stage that takes hours, each tenth is logged.
    pub(super) fn show(&mut self, Course { stage, percent, pace }: Course) {
        self.heard.set(Instant::now());
        let percent_text = percent.map(|percent| format!(", {percent} %")).unwrap_or_default();
        let pace_text = pace.as_ref().map(|pace| format!(", {pace}")).unwrap_or_default();
        let is_new = stage != self.stage();
        if is_new {
            self.tenth = 0;
        }
        let tenth = percent.filter(|_| pace.is_some()).unwrap_or_default() / 10;
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{stage}{percent_text}{pace_text}"));
        } else if is_new {
            tracing::info!(device = self.device, "{stage}");
        } else if tenth > self.tenth {
            self.tenth = tenth;
            tracing::info!(device = self.device, "{stage}{percent_text}{pace_text}");
        }
        if is_new {
            self.end_stage();
            self.stage = Some((stage, Instant::now()));
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.end_stage();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress({}: {})", self.device, self.stage())
    }
}
