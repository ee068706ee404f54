//! Reloads under load, half of them of what must not go live: no request fails, each is decided by one generation of
//! the policy as a whole, and what is live stays so.
//!
//! A generation writes its number into a header for the upstream, which sends it back, and into a header of the
//! answer; and whether it is even decides who may ask for `/turn`, and which of two paths exists.

mod disk;
mod traffic;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis::token::algorithm::Algorithm;
use portcullis::token::mint::Minter;
use serde_json::{Value, json};

use crate::gate::{Gate, Site};
use crate::run::Run;
use disk::{Disk, HOSTILE, Hostile};
use traffic::{Client, ask};

const SECRET: &str = "a-secret-of-more-than-thirty-two-bytes-for-this-figure";

fn policy(upstream: SocketAddr, number: u64) -> String {
    let (own, other) = if number.is_multiple_of(2) { ("even", "odd") } else { ("odd", "even") };
    let told = format!("response_headers: {{ X-Policy: '\"{number}\"' }}");
    format!(
        "version: 1
app: items
upstream: http://{upstream}
identity: {{ local: {{ preset: local, secret: env:SECRET_KEY }} }}
scopes: {{ even: In even generations, odd: In odd generations }}
defaults: {{ headers: {{ X-Generation: '\"{number}\"' }} }}
routes:
  GET /both: {{ access: authenticated, {told} }}
  GET /turn: {{ scope: {own}, {told} }}
  GET /only-{own}: {{ access: authenticated, {told} }}
  GET /slow: {{ access: authenticated, {told} }}
  GET /events: authenticated
  GET /ws: {{ access: authenticated, websocket: true }}
identities: {{ someone: {{ id: u1, scopes: [{own}] }}, another: {{ id: u2, scopes: [{other}] }} }}
tests:
  turns:
    GET /both: {{ anonymous: 401, someone: allow }}
    GET /turn: {{ someone: allow, another: 403 }}
    GET /only-{own}: {{ someone: allow }}
"
    )
}

/// A policy with this many routes.
fn large(upstream: SocketAddr, number: u64, routes: usize) -> String {
    use std::fmt::Write as _;
    let mut text = policy(upstream, number);
    let mut more = String::new();
    for route in 0..routes {
        let _ = writeln!(more, "  GET /api/v{}/things-{route}/{{id}}: {{ scope: even }}", route % 7);
    }
    let at = text.find("identities:").unwrap();
    text.insert_str(at, &more);
    text
}

/// What is known of the generations while clients ask.
#[derive(Debug, Default)]
struct Known {
    /// The newest that has been seen live: from then on no older one may decide.
    live: AtomicU64,
    /// The newest that has been written: none above it may decide.
    written: AtomicU64,
}

/// What clients saw.
#[derive(Debug, Default)]
struct Saw {
    requests: u64,
    wrong: Vec<String>,
    times: Vec<Duration>,
}

impl Saw {
    fn p99(&mut self) -> f64 {
        self.times.sort_unstable();
        self.times.get(self.times.len() * 99 / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// Clients that ask at a steady rate, each on a kept connection, and check each answer.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<Saw>>,
}

const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(8);

impl Load {
    fn start(gateway: SocketAddr, token: &str, known: &Arc<Known>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (stop, known, token) = (Arc::clone(&stop), Arc::clone(known), token.to_owned());
            std::thread::spawn(move || {
                let (mut saw, mut client) = (Saw::default(), Client::new(gateway, &token));
                while !stop.load(Ordering::SeqCst) {
                    for path in ["/both", "/turn", "/both", "/only-even", "/both", "/only-odd"] {
                        let began = Instant::now();
                        saw.requests += 1;
                        if let Err(wrong) = right(&mut client, path, &known) {
                            saw.wrong.push(format!("{path}: {wrong}"));
                            client = Client::new(gateway, &token);
                        }
                        saw.times.push(began.elapsed());
                        std::thread::sleep(PAUSE.saturating_sub(began.elapsed()));
                    }
                }
                saw
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, clients }
    }

    fn stop(self) -> Saw {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Saw::default();
        for client in self.clients {
            let saw = client.join().unwrap();
            all.requests += saw.requests;
            all.wrong.extend(saw.wrong);
            all.times.extend(saw.times);
        }
        all
    }
}

/// One request; it must have been decided by one generation that may be live.
fn right(client: &mut Client, path: &str, known: &Known) -> Result<(), String> {
    let from = known.live.load(Ordering::SeqCst);
    let answer = client.get(path)?;
    let to = known.written.load(Ordering::SeqCst);
    // Whoever has the scope `even` passes `/turn` in an even generation; each path of `/only-…` is in one kind.
    let parity = match (path, answer.status) {
        ("/both", 200) => None,
        ("/turn" | "/only-even", 200) | ("/only-odd", 404) => Some(0),
        ("/only-odd", 200) | ("/turn", 403) | ("/only-even", 404) => Some(1),
        (_, status) => return Err(format!("status {status}: {}", answer.body)),
    };
    let possible = |number: u64| (from..=to).contains(&number) && parity.is_none_or(|parity| number % 2 == parity);
    if answer.status == 200 {
        let number: u64 = answer.policy.as_deref().and_then(|number| number.parse().ok()).ok_or("no generation")?;
        if answer.body != number.to_string() {
            return Err(format!("answered by generation {number}, forwarded by {}", answer.body));
        }
        if !possible(number) {
            return Err(format!("decided by generation {number}, not by one of {from} to {to} with these rules"));
        }
    } else if !(from..=to).any(possible) {
        return Err(format!("status {} is of no generation of {from} to {to}", answer.status));
    }
    Ok(())
}

/// The gateway and what is around it.
struct World {
    site: Site,
    gate: Gate,
    admin: SocketAddr,
    upstream: SocketAddr,
    token: String,
    known: Arc<Known>,
    disk: Disk,
}

impl World {
    fn start(bound_by_modes: bool) -> Self {
        let upstream = traffic::upstream();
        let mut site =
            Site::new(&policy(upstream, 0)).env("SECRET_KEY", SECRET).env("PORTCULLIS_LOG__DECISIONS", "none");
        if bound_by_modes {
            site = site.through(&["/usr/bin/setpriv", "--bounding-set=-dac_override,-dac_read_search"]);
        }
        let gate = site.start();
        let claims =
            json!({ "sub": "u1", "iss": "portcullis", "aud": "items", "scope": "even", "exp": 4_102_444_800_u64 });
        let minter = Minter::from_secret(SECRET.as_bytes(), Algorithm::HS256).unwrap();
        let token = minter.mint(claims.as_object().unwrap(), None, None).unwrap();
        let disk = Disk::new(site.path());
        let admin = gate.admin.unwrap();
        Self { site, gate, admin, upstream, token, known: Arc::default(), disk }
    }

    fn status(&self) -> Value {
        let (_, body) = ask(self.admin, "GET", "/-/status");
        serde_json::from_str::<Value>(&body).unwrap()["policy"].clone()
    }

    /// A number of the metrics.
    fn metric(&self, name: &str) -> u64 {
        let (_, body) = ask(self.admin, "GET", "/metrics");
        let line = body.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        line.trim().parse::<f64>().unwrap() as u64
    }

    /// Waits until a generation decides; how long it took since `began`.
    fn live(&self, client: &mut Client, number: u64, began: Instant) -> Result<Duration, String> {
        loop {
            let answer = client.get("/both")?;
            if answer.policy.as_deref() == Some(number.to_string().as_str()) {
                self.known.live.fetch_max(number, Ordering::SeqCst);
                return Ok(began.elapsed());
            }
            if began.elapsed() > Duration::from_secs(15) {
                return Err(format!("generation {number} is not live after 15 s: {}", self.status()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until what is on disk is known to be rejected.
    fn rejected(&self, began: Instant) -> Result<Duration, String> {
        self.says(began, |status| status["stale"] == true && status["error"]["summary"].is_string())
    }

    /// Waits until disk and memory are known to agree.
    fn settled(&self) -> Result<Duration, String> {
        self.says(Instant::now(), |status| status["stale"] == false)
    }

    fn says(&self, began: Instant, what: impl Fn(&Value) -> bool) -> Result<Duration, String> {
        loop {
            let status = self.status();
            if what(&status) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > Duration::from_secs(15) {
                return Err(format!("after 15 s the status is {status}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub fn run(run: &mut Run) {
    let bound_by_modes = disk::is_root() && std::path::Path::new("/usr/bin/setpriv").exists();
    let without_modes = disk::is_root() && !bound_by_modes;
    if without_modes {
        run.skip("a policy with mode 000: this user reads it nevertheless");
    }
    let hostile: Vec<Hostile> = HOSTILE.into_iter().filter(|kind| !without_modes || *kind != Hostile::Mode).collect();
    let mut world = World::start(bound_by_modes);
    let reloads: u64 = run.of(34, 1000);

    // The same load in peace, before.
    let load = Load::start(world.gate.address, &world.token, &world.known);
    std::thread::sleep(Duration::from_millis(run.of(500, 30_000)));
    let mut quiet = load.stop();

    let load = Load::start(world.gate.address, &world.token, &world.known);
    let lasting = traffic::Lasting::start(world.gate.address, &world.token);
    let mut client = Client::new(world.gate.address, &world.token);
    let (mut lives, mut rejections, mut number) = (Vec::new(), Vec::new(), 0);
    let (mut memory, mut files) = (0, 0);
    let running = |world: &World| world.status()["running"].clone();
    for turn in 0..reloads {
        run.progress("reloads", turn, reloads);
        if turn % 2 == 0 {
            number += 1;
            let text = policy(world.upstream, number);
            world.known.written.store(number, Ordering::SeqCst);
            let how = world.disk.good(number, &text);
            match world.live(&mut client, number, Instant::now()) {
                Ok(took) => lives.push(took),
                Err(error) => {
                    run.fail(format!("reload {turn} ({how}): {error}"));
                    break;
                }
            }
            // Rejections may be counted while files are written; afterwards disk and memory agree.
            if let Err(error) = world.settled() {
                run.fail(format!("reload {turn} ({how}): {error}"));
            }
        } else {
            let kind = hostile[turn as usize / 2 % hostile.len()];
            let (before, count) =
                (running(&world), world.metric("portcullis_policy_reloads_total{result=\"rejected\"}"));
            let next = policy(world.upstream, number + 1);
            let began = Instant::now();
            world.disk.hostile(kind, &next);
            match world.rejected(began) {
                Ok(took) => rejections.push(took),
                Err(error) => run.fail(format!("reload {turn}, {kind:?}: {error}")),
            }
            run.check(running(&world) == before, || format!("reload {turn}: {kind:?} changed what runs"));
            let after = world.metric("portcullis_policy_reloads_total{result=\"rejected\"}");
            run.check(after > count, || format!("reload {turn}: {kind:?} is not counted as rejected"));
            let success = world.metric("portcullis_policy_last_reload_success");
            run.check(success == 0, || format!("reload {turn}: {kind:?} counts as a success"));
            let answer = client.get("/both").unwrap();
            let is = answer.policy.as_deref() == Some(number.to_string().as_str());
            run.check(is, || format!("reload {turn}: {kind:?}: {answer:?} instead of generation {number}"));
        }
        if turn == reloads / 5 {
            (memory, files) = (world.gate.memory(), open_files(&world.gate));
        }
    }
    let (memory_after, files_after) = (world.gate.memory(), open_files(&world.gate));
    let mut saw = load.stop();
    for wrong in saw.wrong.iter().take(10) {
        run.fail(wrong.clone());
    }
    let lasted = lasting.stop();
    for what in &lasted.wrong {
        run.fail(what.clone());
    }
    let log = world.gate.log();
    let rejected_in_log = log.matches("REJECTED").count();
    run.check(rejected_in_log >= rejections.len(), || format!("{rejected_in_log} rejections in the log"));

    let routes = run.of(500, 10_000);
    let ten = ten_thousand(run, &mut world, &mut client, number, routes);

    lives.sort_unstable();
    rejections.sort_unstable();
    let millis = |times: &[Duration], part: f64| {
        let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
        times.get(at).map_or(f64::NAN, |time| (time.as_secs_f64() * 1e4).round() / 10.0)
    };
    let slowest = millis(&lives, 1.0);
    let ratio = saw.p99() / quiet.p99();
    let drift = (memory_after as f64 / memory as f64 - 1.0) * 100.0;
    run.count("reloads that went live", lives.len() as u64);
    run.count("hostile reloads, all rejected", rejections.len() as u64);
    run.count("kinds of hostile reloads", hostile.len() as u64);
    run.count("requests beside them", saw.requests);
    run.count("failed or mixed requests", saw.wrong.len() as u64);
    run.count("events of one stream through all of them", lasted.events);
    run.count("messages of one WebSocket through all of them", lasted.messages);
    run.count("slow answers across them", lasted.slow);
    run.measure("live after, ms, median", millis(&lives, 0.5));
    run.measure("live after, ms, slowest", slowest);
    run.measure("rejected after, ms, median", millis(&rejections, 0.5));
    run.measure("rejected after, ms, slowest", millis(&rejections, 1.0));
    run.measure("p99 without reloads, ms", round(quiet.p99()));
    run.measure("p99 beside reloads, ms", round(saw.p99()));
    run.measure("memory after a fifth, MiB", round(memory as f64 / 1024.0));
    run.measure("memory at the end, MiB", round(memory_after as f64 / 1024.0));
    run.measure("open files after a fifth", files);
    run.measure("open files at the end", files_after);
    run.measure("reload of the large policy, ms, slowest", round(ten.slowest));
    run.measure("p99 with the large policy, ms", round(ten.quiet));
    run.measure("p99 beside reloads of the large policy, ms", round(ten.beside));
    run.check(files_after <= files + 8, || format!("{files} open files became {files_after}"));
    run.judge(slowest < 1000.0, || format!("live only after {slowest} ms"));
    run.judge(ratio <= 1.5, || format!("p99 is {ratio:.2} times that without reloads"));
    run.judge(drift < 5.0, || format!("memory grew by {drift:.1} %"));
    run.judge(ten.slowest < 1000.0, || format!("{routes} routes take {:.0} ms", ten.slowest));
    run.judge(ten.beside <= 1.5 * ten.quiet, || {
        format!("{:.1} ms p99 beside reloads of {routes} routes, {:.1} ms without", ten.beside, ten.quiet)
    });
    run.result(format!(
        "{reloads} reloads, {} hostile and rejected; {} requests beside them, {} failed or mixed; live after {slowest:.0} ms \
         at most; p99 {ratio:.2} × without; memory {drift:+.1} %; {routes} routes in {:.0} ms",
        rejections.len(),
        saw.requests,
        saw.wrong.len(),
        ten.slowest
    ));
}

struct Large {
    slowest: f64,
    quiet: f64,
    beside: f64,
}

/// Reloads of a large policy, asked for one after the other, and what others notice of them.
fn ten_thousand(run: &mut Run, world: &mut World, client: &mut Client, from: u64, routes: usize) -> Large {
    let mut number = from + 1;
    world.known.written.store(number, Ordering::SeqCst);
    world.disk.good(0, &large(world.upstream, number, routes)); // 0: in one step
    if let Err(error) = world.live(client, number, Instant::now()) {
        run.fail(format!("{routes} routes: {error}"));
        return Large { slowest: f64::NAN, quiet: f64::NAN, beside: f64::NAN };
    }
    let load = Load::start(world.gate.address, &world.token, &world.known);
    std::thread::sleep(Duration::from_millis(run.of(200, 15_000)));
    let mut quiet = load.stop();
    let load = Load::start(world.gate.address, &world.token, &world.known);
    let mut slowest = Duration::ZERO;
    for _ in 0..run.of(2, 15) {
        number += 1;
        let text = large(world.upstream, number, routes);
        world.known.written.store(number, Ordering::SeqCst);
        world.site.write("policies/policy.yaml", text);
        let began = Instant::now();
        let (status, body) = ask(world.admin, "POST", "/-/reload");
        slowest = slowest.max(began.elapsed());
        run.check(status == 200, || format!("reload of {routes} routes: {status} {body}"));
        if let Err(error) = world.live(client, number, began) {
            run.fail(error);
        }
        std::thread::sleep(Duration::from_millis(run.of(0, 700)));
    }
    let mut beside = load.stop();
    for wrong in quiet.wrong.iter().chain(&beside.wrong).take(10) {
        run.fail(format!("{routes} routes: {wrong}"));
    }
    Large { slowest: slowest.as_secs_f64() * 1e3, quiet: quiet.p99(), beside: beside.p99() }
}

fn open_files(gate: &Gate) -> u64 {
    std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count() as u64
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Shared with the threads of a stream that lasts.
type Words = Arc<Mutex<Vec<String>>>;
