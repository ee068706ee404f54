//! What `kill -9` costs sessions (R8, K06), and how soon a logout holds everywhere (R9, K05).
//!
//! Two gateways share a PostgreSQL that syncs each commit and a Redis that syncs each write. Clients refresh, replay, log
//! out and log in again all the time, at either gateway; meanwhile a gateway, Redis and PostgreSQL are killed in turn. What
//! was acknowledged is written down, and must be true ever after: a logout is final, the holder of the newest refresh token
//! goes on, and one refresh token has one successor.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis::random::{Random as _, SeededRandom};

use crate::good;
use crate::node::{Answer, Node, PASSWORD, POLICY, Site, client, get, login, post, refresh};
use crate::run::Run;
use crate::servers::{Postgres, Redis};

const SEED: u64 = 7;

/// How long nobody may be without an answer; refresh tokens may be presented again for ten seconds.
const PATIENCE: Duration = Duration::from_secs(9);

/// How soon a logout holds on other gateways.
const ELSEWHERE: Duration = Duration::from_secs(1);

pub fn run(run: &mut Run) {
    let (postgres, redis) = match (Postgres::start_durable(), Redis::start_durable()) {
        (Ok(postgres), Ok(redis)) => (postgres, redis),
        (postgres, redis) => {
            for missing in [postgres.err(), redis.err()].into_iter().flatten() {
                run.skip(missing);
            }
            return run.result("skipped: PostgreSQL and Redis are needed");
        }
    };
    run.measure("seed", SEED);
    let runtime = good::runtime();
    let killed = runtime.block_on(kills(run, postgres, redis));
    let revoked = runtime.block_on(revocations(run));
    run.result(format!("{killed}; {revoked}"));
}

/// A number below `most` that looks random.
fn below(random: &SeededRandom, most: u64) -> u64 {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    u64::from_le_bytes(bytes) % most
}

/// What all clients share.
struct World {
    client: reqwest::Client,
    urls: Mutex<[String; 2]>,
    random: SeededRandom,
    stop: AtomicBool,
    /// Access and refresh token of sessions whose logout was acknowledged, and when.
    ended: Mutex<Vec<(String, String, Instant)>>,
    /// What each refresh token was replaced by, as somebody was told.
    successors: Mutex<HashMap<String, String>>,
    broken: Mutex<Vec<String>>,
    rotations: AtomicU64,
    replays: AtomicU64,
    /// How often each client was answered as it should be.
    steps: Vec<AtomicU64>,
}

impl World {
    fn url(&self, path: &str) -> String {
        let urls = self.urls.lock().unwrap();
        format!("{}{path}", urls[below(&self.random, 2) as usize])
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn broken(&self, what: String) {
        self.broken.lock().unwrap().push(what);
    }

    /// Asks until there is an answer; `None` at the end of the run.
    async fn insist<F>(&self, what: &str, mut ask: impl FnMut() -> F) -> Option<Answer>
    where
        F: Future<Output = Result<Answer, reqwest::Error>>,
    {
        let began = Instant::now();
        while !self.stopped() {
            match ask().await {
                Ok(answer) if answer.status != 503 => return Some(answer),
                _ if began.elapsed() > PATIENCE => {
                    self.broken(format!("{what}: no answer for {PATIENCE:?}"));
                    return None;
                }
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        None
    }

    async fn rotate(&self, presented: &str) -> Option<Answer> {
        let answer =
            self.insist("a refresh", || async { refresh(&self.client, &self.url("/token"), presented).await }).await?;
        if answer.status != 200 {
            self.broken(format!("locked out: {answer:?}"));
            return None;
        }
        let next = answer.text("refresh_token");
        let mut successors = self.successors.lock().unwrap();
        let known = successors.entry(presented.to_owned()).or_insert_with(|| next.clone());
        if *known != next {
            self.broken.lock().unwrap().push("one refresh token has two successors".to_owned());
        }
        Some(answer)
    }

    /// One client, until the end.
    async fn live(&self, number: usize) {
        let stepped = || self.steps[number].fetch_add(1, Ordering::SeqCst);
        while !self.stopped() {
            let form = [("username", "ada"), ("password", PASSWORD)];
            let enter = || async { post(&self.client, &self.url("/token"), &form).await };
            let entered = self.insist("a login", enter).await;
            let Some(mut tokens) = entered else { return };
            if tokens.status != 200 {
                return self.broken(format!("a login was answered {tokens:?}"));
            }
            stepped();
            loop {
                let held = tokens.text("refresh_token");
                match below(&self.random, 60) {
                    0 => {
                        self.log_out(&tokens).await;
                        break;
                    }
                    roll => {
                        // Some present it twice, at once or afterwards, as apps do that lose answers.
                        let (one, other) = match roll {
                            1..=6 => tokio::join!(self.rotate(&held), self.rotate(&held)),
                            7..=12 => (self.rotate(&held).await, self.rotate(&held).await),
                            _ => (self.rotate(&held).await, None),
                        };
                        self.replays.fetch_add(u64::from(other.is_some()), Ordering::Relaxed);
                        let Some(next) = one.or(other) else { return };
                        tokens = next;
                        self.rotations.fetch_add(1, Ordering::Relaxed);
                    }
                }
                stepped();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    async fn log_out(&self, tokens: &Answer) {
        let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
        let ended = self.insist("a logout", || async {
            let response = self.client.post(self.url("/logout")).bearer_auth(&access).send().await?;
            Ok(Answer { status: response.status().as_u16(), json: serde_json::Value::Null })
        });
        match ended.await.map(|answer| answer.status) {
            Some(200..=299) => self.ended.lock().unwrap().push((access, refresh, Instant::now())),
            // The one before did it, though its answer was lost.
            Some(401) | None => {}
            Some(status) => self.broken(format!("a logout was answered {status}")),
        }
    }

    /// Looks whether what was ended stays ended, at a gateway; whoever cannot say at the moment does not let it pass.
    async fn stays_ended(&self, base: &str, (access, token, since): &(String, String, Instant)) {
        let since = since.elapsed();
        if get(&self.client, &format!("{base}/items"), access).await.is_ok_and(|status| status == 200) {
            self.broken(format!("an acknowledged logout was lost: its access token is taken after {since:?}"));
        }
        if refresh(&self.client, &format!("{base}/token"), token).await.is_ok_and(|answer| answer.status == 200) {
            self.broken(format!("an acknowledged logout was lost: its refresh token is taken after {since:?}"));
        }
    }

    /// The newest sessions that were ended before.
    fn ended_before(&self, then: Instant) -> Vec<(String, String, Instant)> {
        let ended = self.ended.lock().unwrap();
        ended.iter().rev().filter(|(_, _, at)| *at < then).take(3).cloned().collect()
    }

    /// Waits until everybody has gone on, which nobody can before what was killed is back.
    async fn goes_on(&self) -> bool {
        let counts = || self.steps.iter().map(|count| count.load(Ordering::SeqCst)).collect::<Vec<_>>();
        let (before, began) = (counts(), Instant::now());
        while !counts().iter().zip(&before).all(|(now, before)| now > before) {
            if !self.broken.lock().unwrap().is_empty() {
                return false;
            }
            if began.elapsed() > Duration::from_secs(20) {
                self.broken("somebody does not go on after 20 s".to_owned());
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}

async fn kills(run: &mut Run, mut postgres: Postgres, mut redis: Redis) -> String {
    let (kills, clients) = (run.of(8, 1000), run.of(10, 50));
    let database = postgres.database();
    let site = Site::new(POLICY, &[("DATABASE_URL", database.clone()), ("REDIS_URL", redis.database())]);
    site.user("ada");
    let mut nodes = [site.node(), site.node()];
    let url = |node: &Node| format!("http://{}", node.address);
    let world = Arc::new(World {
        client: client(),
        urls: Mutex::new([url(&nodes[0]), url(&nodes[1])]),
        random: SeededRandom::new(SEED),
        stop: AtomicBool::new(false),
        ended: Mutex::default(),
        successors: Mutex::default(),
        broken: Mutex::default(),
        rotations: AtomicU64::new(0),
        replays: AtomicU64::new(0),
        steps: (0..clients).map(|_| AtomicU64::new(0)).collect(),
    });
    let tasks: Vec<_> = (0..clients)
        .map(|number| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.live(number).await })
        })
        .collect();
    let mut went_on = world.goes_on().await;
    let (mut done, mut spent) = ([0_u64; 3], [Duration::ZERO; 3]);
    // Two at a time: a gateway, and one of the stores that it shares with the other gateway.
    for round in 0..kills as usize / 2 {
        if !went_on {
            break;
        }
        run.progress("kills", round as u64 * 2, kills);
        tokio::time::sleep(Duration::from_millis(below(&world.random, 40))).await;
        let (began, which, store) = (Instant::now(), round % 2, 1 + round / 2 % 2);
        let killed = tokio::task::block_in_place(|| {
            nodes[which].kill();
            std::thread::sleep(Duration::from_millis(below(&world.random, 20)));
            if store == 1 {
                redis.kill();
                redis.restart();
            } else {
                postgres.kill();
                postgres.restart();
            }
            let killed = Instant::now();
            nodes[which] = site.node();
            killed
        });
        let base = url(&nodes[which]);
        world.urls.lock().unwrap()[which].clone_from(&base);
        // Who has just started knows all that was ended before.
        for ended in world.ended_before(killed) {
            world.stays_ended(&base, &ended).await;
        }
        went_on = world.goes_on().await;
        done[0] += 1;
        done[store] += 1;
        spent[store] += began.elapsed();
        for ended in world.ended_before(Instant::now() - ELSEWHERE) {
            world.stays_ended(&url(&nodes[1 - which]), &ended).await;
        }
    }
    // The history is at its end: everybody goes on once more, and nothing that was ended is taken.
    world.goes_on().await;
    world.stop.store(true, Ordering::SeqCst);
    for task in tasks {
        if let Err(panic) = task.await {
            run.fail(format!("a client: {panic}"));
        }
    }
    tokio::time::sleep(ELSEWHERE).await;
    let ended = world.ended.lock().unwrap().clone();
    for ended in &ended {
        for node in &nodes {
            world.stays_ended(&url(node), ended).await;
        }
    }
    let twice = "SELECT count(*) FROM (SELECT session_id FROM portcullis_refresh_tokens WHERE used IS NULL \
                 GROUP BY session_id HAVING count(*) > 1) AS twice";
    let database = database.rsplit('/').next().unwrap_or_default();
    let heads: u64 = postgres.sql(database, twice).trim().parse().unwrap();
    run.check(heads == 0, || format!("{heads} sessions have two live refresh tokens"));
    for broken in world.broken.lock().unwrap().iter() {
        run.fail(broken.clone());
    }
    let all: u64 = done.iter().sum();
    run.check(all == kills, || format!("{all} of {kills} kills"));
    let (rotations, ended) = (world.rotations.load(Ordering::Relaxed), ended.len() as u64);
    run.check(rotations > all, || format!("{rotations} refreshes beside {all} kills"));
    for (what, number) in ["kills of a gateway", "kills of Redis", "kills of PostgreSQL"].into_iter().zip(0..) {
        run.count(what, done[number]);
    }
    for (what, number) in [("Redis", 1), ("PostgreSQL", 2)] {
        let mean = spent[number].as_millis() as u64 / done[number].max(1);
        run.measure(&format!("a gateway and {what} killed: ms until all clients went on, mean"), mean);
    }
    run.count("clients", clients as u64);
    run.count("refreshes acknowledged", rotations);
    run.count("refresh tokens presented twice", world.replays.load(Ordering::Relaxed));
    run.count("logouts acknowledged", ended);
    run.count("sessions with two live refresh tokens", heads);
    let lost = world.broken.lock().unwrap().len();
    format!("{all} kills among {rotations} refreshes and {ended} logouts: {lost} sessions or logouts lost")
}

/// What a session needs, made in the database: as many logins as here would hash passwords for an hour.
const SESSIONS: &str = "
WITH one AS (SELECT * FROM portcullis_sessions LIMIT 1), made AS (
    INSERT INTO portcullis_sessions (id, user_id, issuer, app, scopes, started, expires, used, address, user_agent)
    SELECT '0198a6f0-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), user_id, issuer, app, scopes, started, expires, used,
           address, user_agent
    FROM one, generate_series(1, COUNT) AS n RETURNING id, started)
INSERT INTO portcullis_refresh_tokens (hash, session_id, issued)
SELECT sha256(convert_to('prt_' || lpad(n::text, 42, 'A') || 'A', 'UTF8')), '0198a6f0-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), started
FROM one, generate_series(1, COUNT) AS n";

/// The refresh token of one of them.
fn made(number: u64) -> String {
    format!("prt_{number:A>42}A")
}

async fn revocations(run: &mut Run) -> String {
    let (Ok(postgres), Ok(redis)) = (Postgres::start(), Redis::start()) else {
        run.skip("PostgreSQL or Redis");
        return String::new();
    };
    let (most, time) = run.of((60, Duration::from_secs(3)), (100_000, Duration::from_secs(120)));
    let database = postgres.database();
    let site = Site::new(POLICY, &[("DATABASE_URL", database.clone()), ("REDIS_URL", redis.database())]);
    site.user("ada");
    let nodes = Arc::new([site.node(), site.node()]);
    let client = client();
    login(&client, &nodes[0], "ada").await;
    let name = database.rsplit('/').next().unwrap_or_default().to_owned();
    // The sessions exist before their tokens: one statement checks references at its end.
    postgres.sql(&name, &SESSIONS.replace("COUNT", &most.to_string()));
    let (next, began) = (Arc::new(AtomicU64::new(1)), Instant::now());
    let mut workers = Vec::new();
    for worker in 0..16_usize {
        let (nodes, client, next) = (Arc::clone(&nodes), client.clone(), Arc::clone(&next));
        workers.push(tokio::spawn(async move {
            let (mut times, mut wrong) = (Vec::new(), Vec::new());
            let (here, there) = (&nodes[worker % 2], &nodes[(worker + 1) % 2]);
            while began.elapsed() < time {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number > most {
                    break;
                }
                let tokens = refresh(&client, &here.url("/token"), &made(number)).await.unwrap();
                if tokens.status != 200 {
                    wrong.push(format!("a session that was made: {tokens:?}"));
                    break;
                }
                let access = tokens.text("access_token");
                for node in [here, there] {
                    let status = get(&client, &node.url("/items"), &access).await.unwrap();
                    if status != 200 {
                        wrong.push(format!("before the logout: {status}"));
                    }
                }
                let ended = client.post(here.url("/logout")).bearer_auth(&access).send().await.unwrap();
                if !ended.status().is_success() {
                    wrong.push(format!("the logout: {}", ended.status()));
                    continue;
                }
                let ended = Instant::now();
                let status = get(&client, &here.url("/items"), &access).await.unwrap();
                if status != 401 {
                    wrong.push(format!("on the same gateway after its logout: {status}"));
                }
                loop {
                    let asked = ended.elapsed();
                    if get(&client, &there.url("/items"), &access).await.unwrap() == 401 {
                        times.push(asked);
                        break;
                    }
                    if asked > Duration::from_secs(5) {
                        wrong.push("still taken on the other gateway after 5 s".to_owned());
                        break;
                    }
                }
            }
            (times, wrong)
        }));
    }
    let mut times = Vec::new();
    for worker in workers {
        let (of_one, wrong) = worker.await.unwrap();
        times.extend(of_one);
        for wrong in wrong {
            run.fail(wrong);
        }
    }
    times.sort_unstable();
    let logouts = times.len() as u64;
    let at =
        |part: f64| times.get((times.len() as f64 * part) as usize).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    let slowest = times.last().copied().unwrap_or_default();
    run.count("logouts whose end was timed", logouts);
    run.measure("refused on the other gateway, ms, median", at(0.5).round());
    run.measure("refused on the other gateway, ms, p99", at(0.99).round());
    run.measure("refused on the other gateway, ms, slowest", slowest.as_millis() as u64);
    run.check(logouts > run.of(10, 5_000), || format!("only {logouts} logouts in {time:?}"));
    run.check(slowest < ELSEWHERE, || format!("taken on the other gateway for {slowest:?}"));
    format!(
        "{logouts} logouts refused at once on their gateway and after {} ms at most on the other",
        slowest.as_millis()
    )
}
