//! When the gateway stops.
//!
//! SIGTERM is a request to finish: nothing more is accepted, idle connections end at once, and what is in
//! flight has ten seconds. SIGINT (Ctrl-C) is a person waiting: one second. A second signal cuts everything
//! off.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::proxy::Stop;

/// The time for what is in flight after SIGTERM.
const TERMINATE: Duration = Duration::from_secs(10);
/// The time for what is in flight after Ctrl-C.
const INTERRUPT: Duration = Duration::from_secs(1);

/// The signals that end the process.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on: the signals no longer end the process by themselves.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for a signal and tells everybody, for as long as it is polled.
    pub(crate) async fn forward(mut self, stop: &watch::Sender<Stop>) {
        let mut received = false;
        loop {
            let grace = tokio::select! {
                Some(()) = self.terminate.recv() => TERMINATE,
                Some(()) = self.interrupt.recv() => INTERRUPT,
                else => return,
            };
            let grace = if received { Duration::ZERO } else { grace };
            received = true;
            tracing::info!(grace_seconds = grace.as_secs(), "stopping");
            stop.send_replace(Stop::Within(grace));
        }
    }
}
