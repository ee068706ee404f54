//! A browser whose token has expired asks for 200 things at once: the provider is asked for new tokens once.
//!
//! The gateway runs in this process, because an hour has to pass between rounds; sockets, store and provider are real.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;

use crate::browser::{Browser, Gateway, SUPABASE, World};
use crate::client::Client;
use crate::good;
use crate::provider::{LIFE, Mood};
use crate::run::Run;

/// How many ask at once.
const PARALLEL: usize = 200;
/// Rounds of one session, which does not last for ever.
const OF_A_SESSION: u64 = 12;

pub fn run(run: &mut Run) -> String {
    good::runtime().block_on(rounds(run))
}

/// What goes wrong in a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Every third browser goes away before it is answered.
    Gone,
    /// The provider answers this.
    Provider(Mood),
}

fn trouble(run: &Run, round: u64) -> Trouble {
    match round % 20 {
        3 => Trouble::Gone,
        7 => Trouble::Provider(Mood::Status(500)),
        11 => Trouble::Provider(Mood::Cut),
        15 => Trouble::Provider(Mood::Status(429)),
        // It takes until the gateway gives up waiting.
        19 if run.is_full() && round % 200 == 19 => Trouble::Provider(Mood::Silent),
        _ => Trouble::None,
    }
}

async fn rounds(run: &mut Run) -> String {
    let rounds = run.of(12, 1000);
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let mut crowd = Crowd::new(&gateway).await;
    world.provider.slow(Duration::from_millis(30));
    let (mut clean, mut troubled, mut passed, mut lost) = (0, 0, 0, 0);
    let mut cookie = String::new();
    for round in 0..rounds {
        run.progress("rounds of 200 requests", round, rounds);
        if round % OF_A_SESSION == 0 {
            cookie = Browser::new(&gateway).sign_in(&format!("ada{round}@a.example")).await;
        }
        let trouble = trouble(run, round);
        world.advance(LIFE);
        let before = world.provider.refreshes();
        if let Trouble::Provider(mood) = trouble {
            world.provider.moods(&[mood]);
        }
        let statuses = crowd.ask(&cookie, trouble == Trouble::Gone).await;
        let asked = world.provider.refreshes() - before;
        world.upstream.take();
        world.provider.server.take();
        let good = statuses.iter().filter(|status| **status == 200).count();
        match trouble {
            Trouble::None => {
                clean += 1;
                passed += good;
                run.check(asked == 1 && good == PARALLEL, || {
                    format!("round {round}: {asked} refreshes, {good} of {PARALLEL} answers 200")
                });
            }
            Trouble::Gone | Trouble::Provider(_) => {
                troubled += 1;
                let known = statuses.iter().all(|status| matches!(status, 200 | 503));
                run.check(known && asked >= 1, || format!("round {round}: {asked} refreshes, {statuses:?}"));
                // Whatever it was, it is over after the pause, and the session is not.
                world.provider.moods(&[]);
                world.advance(61);
                let after = crowd.ask(&cookie, false).await;
                let good = after.iter().filter(|status| **status == 200).count();
                lost += u64::from(good < PARALLEL);
                run.check(good == PARALLEL, || format!("after round {round} a session is lost: {good} of {PARALLEL}"));
            }
        }
    }
    let reused = world.provider.reused();
    run.check(reused == 0, || format!("{reused} refresh tokens were presented a second time"));
    run.count("rounds of 200 parallel requests with an expired session", rounds);
    run.count("of them with disconnects, errors or silence of the provider", troubled);
    run.count("answers 200 in the other rounds", passed as u64);
    run.count("sessions lost", lost);
    format!(
        "{clean} rounds of 200 requests with an expired session: 1 refresh each, {passed} answers 200; {lost} sessions lost in {troubled} rounds with failures"
    )
}

/// Connections that ask at once.
struct Crowd {
    gateway: std::net::SocketAddr,
    connections: Vec<Client>,
}

impl Crowd {
    async fn new(gateway: &Gateway) -> Self {
        Self { gateway: gateway.address, connections: Vec::new() }
    }

    /// All ask once; the statuses of those who stay. With `leave`, every third goes away before it is answered.
    async fn ask(&mut self, cookie: &str, leave: bool) -> Vec<u16> {
        while self.connections.len() < PARALLEL {
            self.connections.push(Client::connect(self.gateway).await);
        }
        let start = Arc::new(Barrier::new(PARALLEL));
        let request: Arc<str> =
            format!("GET /page/a HTTP/1.1\r\nHost: app.test\r\nCookie: __Host-session={cookie}\r\n\r\n").into();
        let mut asking = Vec::new();
        for (number, mut connection) in self.connections.drain(..).enumerate() {
            let (start, request) = (Arc::clone(&start), Arc::clone(&request));
            asking.push(tokio::spawn(async move {
                start.wait().await;
                connection.send(request.as_bytes()).await;
                if leave && number % 3 == 0 {
                    tokio::time::sleep(Duration::from_millis(number as u64 % 7)).await;
                    return None;
                }
                let answer = connection.answer().await;
                let keeps = answer.as_ref().is_some_and(|answer| answer.value("connection") != Some("close"));
                Some((answer.map_or(0, |answer| answer.status), keeps.then_some(connection)))
            }));
        }
        let mut statuses = Vec::new();
        for asked in asking {
            let Some((status, connection)) = asked.await.unwrap() else { continue };
            statuses.push(status);
            self.connections.extend(connection);
        }
        statuses
    }
}
