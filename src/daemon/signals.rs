//! The signals that the daemon waits for everywhere.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) struct Signals {
    pub(super) end: End,
    pub(super) hang_up: Signal,
}

/// SIGTERM and SIGINT: the daemon is to end.
pub(super) struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// When a signal cannot be waited for.
    pub(super) fn new() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { end: End { terminate, interrupt }, hang_up: signal(SignalKind::hangup())? })
    }
}

impl End {
    /// Waits until the daemon is to end.
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
