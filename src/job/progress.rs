//! The progress of one worker: a line on a terminal, log entries elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// How long the slowest disk spent in each stage.
pub(super) type Stages = RefCell<BTreeMap<String, Duration>>;

/// The progress of one worker: a line on a terminal, log entries elsewhere.
pub(super) struct Progress<'a> {
    /// The name of its disk.
    pub(super) device: String,
    /// When the worker last sent something.
    heard: &'a Cell<Instant>,
    /// The current stage and its start; `None` before the first.
    stage: Option<(String, Instant)>,
    stages: &'a Stages,
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
        Self { device: device.to_owned(), heard, stage: None, stages, bar }
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

    /// Shows the stage that the worker reported, and how many percent of it are done.
    pub(super) fn show(&mut self, stage: String, percent: Option<u64>) {
        self.heard.set(Instant::now());
        if let Some(bar) = &self.bar {
            bar.set_message(match percent {
                Some(percent) => format!("{stage}, {percent} %"),
                None => stage.clone(),
            });
        } else if stage != self.stage() {
            tracing::info!(device = self.device, "{stage}");
        }
        if stage != self.stage() {
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
