//! What a request carries from phase to phase.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::decision::{Denial, Permit};
use crate::login::upstream::Forwarded;
use crate::pipeline::{About, Forward, Verdict};
use crate::telemetry::metrics::Metrics;

/// One request.
#[derive(Debug)]
pub struct Context {
    pub(super) state: State,
    /// Why a permitted request is answered by us all the same.
    pub(super) failure: Option<Denial>,
    /// A login that the app was asked to check.
    pub(super) login: Option<Forwarded>,
    _in_flight: InFlight,
}

/// How far a request has come.
#[derive(Debug)]
pub(super) enum State {
    /// Nothing was decided.
    New,
    /// It was answered from its head alone.
    Answered(Box<About>),
    /// It goes upstream.
    Permitted(Box<Passing>),
}

/// A permitted request on its way.
#[derive(Debug)]
pub(super) struct Passing {
    // INVARIANT: its verdict is `Permitted`; `new` establishes it.
    about: About,
    pub(super) forward: Forward,
    pub(super) started: Instant,
    /// Bytes of the request's body so far.
    pub(super) received: u64,
    /// How many addresses were tried.
    pub(super) attempts: usize,
    /// How many addresses the upstream has.
    pub(super) addresses: usize,
    /// Whether the upgrade to a WebSocket is asked for and declared.
    pub(super) websocket: bool,
    /// When the WebSocket is closed.
    pub(super) closes: Option<Instant>,
}

impl Context {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.request_begins();
        Self { state: State::New, failure: None, login: None, _in_flight: InFlight(metrics) }
    }

    pub(super) fn about(&self) -> Option<&About> {
        match &self.state {
            State::New => None,
            State::Answered(about) => Some(about),
            State::Permitted(passing) => Some(&passing.about),
        }
    }

    pub(super) fn passing(&self) -> Option<&Passing> {
        match &self.state {
            State::Permitted(passing) => Some(passing),
            State::New | State::Answered(_) => None,
        }
    }

    pub(super) fn passing_mut(&mut self) -> Option<&mut Passing> {
        match &mut self.state {
            State::Permitted(passing) => Some(passing),
            State::New | State::Answered(_) => None,
        }
    }
}

impl Passing {
    /// `None` if the request was not permitted.
    pub(super) fn new(about: About, forward: Forward, websocket: bool, life: Option<Duration>) -> Option<Self> {
        let Verdict::Permitted(_) = &about.verdict else { return None };
        let started = Instant::now();
        let closes = life.filter(|_| websocket).map(|life| started + life);
        Some(Self { about, forward, started, received: 0, attempts: 0, addresses: 0, websocket, closes })
    }

    /// The decision's id.
    pub(super) fn id(&self) -> &str {
        self.about.id.as_str()
    }

    /// Why the request may go upstream.
    pub(super) fn permit(&self) -> Option<&Permit> {
        match &self.about.verdict {
            Verdict::Permitted(permit) => Some(permit),
            Verdict::Refused(_) | Verdict::Preflight => None,
        }
    }
}

#[derive(Debug)]
struct InFlight(Arc<Metrics>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_ends();
    }
}
