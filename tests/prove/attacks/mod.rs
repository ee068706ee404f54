//! The attack corpus (`tests/attacks`), sent to a gateway with a recording upstream behind it.
//!
//! [`run_against`] sends every case to a [`Target`] and counts what it refused, what it forwarded without harm, and
//! where it was bypassed: where the upstream got a path that a common reader, which the corpus names, takes for one
//! that the policy closes to this client; a second request that the gateway did not see; or a header by which the
//! client is somebody else, although the gateway is set up to say that itself. For Portcullis each case is judged a
//! second time, by the exact status and target that the corpus says.
//!
//! By hand, for a gateway that somebody has set up, with `PORT` as its upstream on the same machine:
//!
//! ```text
//! cargo test --test prove -- attacks --against=127.0.0.1:8080 --upstream=9000 [--tls=127.0.0.1:8443] [--policy=p1]
//!     [--guards=x-auth-*,x-forwarded-for] [--keys=FOLDER]
//! ```
//!
//! `-- attacks --peers` attacks HAProxy, nginx and Envoy alone and writes by what each is bypassed into `target/proof`;
//! the full run does so too.
//!
//! Its policy must be that of `tests/attacks/README.md`. With `--keys` the public key of the corpus' tokens is written
//! there (`key.pem`, `jwks.json`) before anything is sent, and the run begins when somebody presses enter.

mod corpus;
mod framing;
mod judge;
mod keys;
mod peers;
mod readers;
mod send;
mod upstream;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corpus::{Case, Ordinary, Wire};
pub use corpus::{Corpus, Policy};
use send::{Back, Over};
use tokio::runtime::Runtime;
pub use upstream::Upstream;

use crate::gate::{Gate, Site};
use crate::run::{Figure, Run, Size};

/// A gateway that is attacked.
pub struct Target {
    pub name: String,
    /// What it was told.
    pub policy: Policy,
    /// The same gateway once or several times: cases are spread over them, one at a time each.
    pub lanes: Vec<Lane>,
    /// Headers that it sets itself or was told to remove, in lower case; `x-auth-*` is a family. What a client says
    /// there is a bypass if it arrives; a case about other headers is not applicable.
    pub guards: Vec<String>,
    /// Whether it verifies tokens of `Corpus::keys`.
    pub tokens: bool,
    /// Whether it must do exactly what the corpus says.
    pub exact: bool,
    /// Which forms are sent: what has several is sent in the first one alone, unless `every_form`.
    pub over: Vec<Over>,
    pub every_form: bool,
}

/// One instance, and the recording upstream behind it.
pub struct Lane {
    pub plain: SocketAddr,
    /// With any certificate; the name that is asked for is `api.test`.
    pub tls: Option<SocketAddr>,
    pub upstream: Arc<Upstream>,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests sent.
    pub requests: u64,
    /// Distinct cases that apply to this gateway.
    pub cases: u64,
    pub refused: u64,
    pub forwarded_harmless: u64,
    /// Each with how.
    pub bypassed: Vec<(String, String)>,
    pub not_applicable: u64,
    /// Neither answered nor ended.
    pub unsettled: u64,
    /// Where it did not do what the corpus says, if it must.
    pub different: Vec<String>,
}

impl Tally {
    /// Adds what came out of another run of the same gateway, under another policy: a case counts once.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.cases = self.cases.max(other.cases);
        self.refused += other.refused;
        self.forwarded_harmless += other.forwarded_harmless;
        for (id, how) in other.bypassed {
            if !self.bypassed.iter().any(|(known, _)| *known == id) {
                self.bypassed.push((id, how));
            }
        }
        self.not_applicable = self.not_applicable.max(other.not_applicable);
        self.unsettled += other.unsettled;
        self.different.extend(other.different);
    }
}

/// Sends every case of the target's policy.
pub fn run_against(runtime: &Runtime, target: &Target, corpus: &Corpus, progress: &mut dyn FnMut(u64, u64)) -> Tally {
    let of_policy = |case: &&Case| case.expect.iter().any(|(policy, _)| *policy == target.policy);
    let all: Vec<&Case> = corpus.cases.iter().filter(of_policy).collect();
    let (applicable, not): (Vec<&Case>, Vec<&Case>) = all.into_iter().partition(|case| applies(case, target));
    let mut jobs: Vec<(Case, Over)> = Vec::new();
    for case in &applicable {
        for over in &target.over {
            let has_form = match (&case.wire, over) {
                (Wire::Request(_), _) | (Wire::H2(_), Over::H2) | (Wire::Raw(_), Over::Plain | Over::Tls) => true,
                (Wire::H2(_), _) | (Wire::Raw(_), Over::H2) => false,
            };
            if has_form && (target.every_form || jobs.last().is_none_or(|(last, _)| last.id != case.id)) {
                jobs.push(((*case).clone(), *over));
            }
        }
    }
    let of = jobs.len() as u64;
    let jobs = Arc::new(jobs);
    let (next, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tally = Tally { not_applicable: not.len() as u64, ..Tally::default() };
    let lanes: Vec<_> = target
        .lanes
        .iter()
        .map(|lane| {
            let (jobs, next, done) = (Arc::clone(&jobs), Arc::clone(&next), Arc::clone(&done));
            let (policy, exact, guards) = (target.policy, target.exact, target.guards.clone());
            let (plain, tls, upstream) = (lane.plain, lane.tls, Arc::clone(&lane.upstream));
            runtime.spawn(async move {
                let mut tally = Tally::default();
                while let Some((case, over)) = jobs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let address = if *over == Over::Plain { Some(plain) } else { tls };
                    if let Some(address) = address {
                        one(&mut tally, policy, exact, &guards, address, &upstream, case, *over).await;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                tally
            })
        })
        .collect();
    runtime.block_on(async {
        while done.load(Ordering::Relaxed) < of && !lanes.iter().all(tokio::task::JoinHandle::is_finished) {
            progress(done.load(Ordering::Relaxed), of);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for lane in lanes {
            tally.add(lane.await.unwrap());
        }
    });
    tally.cases = applicable.len() as u64;
    tally.bypassed.sort();
    tally.different.sort();
    tally
}

fn applies(case: &Case, target: &Target) -> bool {
    let names: Vec<String> = match &case.wire {
        Wire::Request(request) => request.h2().fields,
        Wire::H2(stream) => stream.fields.iter().chain(&stream.trailers).cloned().collect(),
        Wire::Raw(_) => Vec::new(),
    }
    .into_iter()
    .filter(|(_, value)| value.windows(judge::HOSTILE.len()).any(|window| window == judge::HOSTILE))
    .map(|(name, _)| String::from_utf8_lossy(&name).into_owned())
    .collect();
    let is_sent = target.over.iter().any(|over| match &case.wire {
        Wire::Request(_) => true,
        Wire::Raw(_) => *over != Over::H2,
        Wire::H2(_) => *over == Over::H2 && target.lanes.iter().all(|lane| lane.tls.is_some()),
    });
    let is_guarded = names.is_empty() || names.iter().any(|name| judge::is_guarded(&target.guards, name));
    let is_of_tokens = case.id.starts_with('G') || case.id.starts_with('I');
    is_sent && (target.exact || (is_guarded && (target.tokens || !is_of_tokens)))
}

#[expect(clippy::too_many_arguments, reason = "one case on one lane")]
async fn one(
    tally: &mut Tally,
    policy: Policy,
    exact: bool,
    guards: &[String],
    address: SocketAddr,
    upstream: &Upstream,
    case: &Case,
    over: Over,
) {
    let mut answer = ask(address, upstream, case, over).await;
    let bypass = judge::bypass(policy, case, guards, &answer.1);
    let mut different = exact.then(|| judge::difference(policy, case, over, &answer.0, &answer.1)).flatten();
    if different.is_some() && bypass.is_none() {
        // Once more, alone: what is wrong is wrong twice.
        tokio::time::sleep(Duration::from_millis(300)).await;
        upstream.take();
        answer = ask(address, upstream, case, over).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer.1.extend(upstream.take());
        different = judge::difference(policy, case, over, &answer.0, &answer.1);
    }
    let (back, seen) = answer;
    tally.requests += 1;
    let shown = || format!("{} under {} over {over:?}", case.id, policy.name());
    if let Some(different) = different {
        tally.different.push(format!("{}: {}\n        {different}", shown(), sent(case)));
    }
    if let Some(how) = bypass {
        tally.bypassed.push((case.id.clone(), format!("{}: {how}\n        {}", shown(), sent(case))));
    } else if !seen.is_empty() {
        tally.forwarded_harmless += 1;
    } else if back.status.is_some() || back.ended {
        tally.refused += 1;
    } else {
        tally.unsettled += 1;
    }
}

async fn ask(address: SocketAddr, upstream: &Upstream, case: &Case, over: Over) -> (Back, Vec<Vec<u8>>) {
    upstream.take();
    let back = send::send(address, over, &case.wire, true).await.unwrap_or_default();
    (back, upstream.take())
}

/// What a case sends, for people.
fn sent(case: &Case) -> String {
    let text = match &case.wire {
        Wire::Request(request) => request.bytes().escape_ascii().to_string(),
        Wire::Raw(bytes) => bytes.escape_ascii().to_string(),
        Wire::H2(stream) => {
            let fields =
                stream.fields.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()));
            format!("h2 {} {:?}", fields.collect::<Vec<_>>().join(" "), stream.frames)
        }
    };
    text.chars().take(400).collect()
}

/// The policies of the threat model, for Portcullis.
fn policy_text(policy: Policy, upstream: SocketAddr) -> String {
    let identity = format!(
        "identity:\n  tests: {{ preset: jwt, jwks_file: file:jwks.json, issuer: {}, audience: {} }}\n  secret: {{ preset: jwt, secret: env:SECRET, issuer: https://secret.test, audience: api }}\n",
        keys::ISSUER,
        keys::AUDIENCE
    );
    let head = format!("version: 1\nupstream: http://{upstream}\n{identity}roles: {{ admin: {{ can: \"*\" }} }}\n");
    match policy {
        Policy::P0 => format!(
            "{head}routes:\n  GET /public/**: public\n  GET /api/items: {{ scope: items:read }}\n  POST /api/items: {{ scope: items:write }}\n  /api/admin/**: {{ role: admin }}\n"
        ),
        Policy::P1 => format!("{head}routes:\n  /**: public\n  /admin/**: {{ role: admin }}\n"),
        Policy::Options => include_str!("options.yaml")
            .replace("UPSTREAM", &upstream.to_string())
            .replace("IDENTITY\n", &identity.replacen(" }\n", ", from: [bearer, cookie token] }\n", 1)),
    }
}

/// A running Portcullis with this policy.
struct Own {
    site: Site,
    _gate: Gate,
    lane: Lane,
}

fn own(runtime: &Runtime, policy: Policy, corpus: &Corpus) -> Own {
    let upstream = Arc::new(runtime.block_on(Upstream::start(0)));
    let site = Site::new(&policy_text(policy, upstream.address)).env("SECRET", keys::SECRET);
    let made = rcgen::generate_simple_self_signed(vec![send::SNI.to_owned()]).unwrap();
    site.write("cert.pem", made.cert.pem());
    site.write("key.pem", made.signing_key.serialize_pem());
    site.write("policies/jwks.json", &corpus.keys.jwks);
    site.write(
        "portcullis.yaml",
        "listen:\n  - 127.0.0.1:0\n  - { address: 127.0.0.1:0, tls: { cert: file:cert.pem, key: file:key.pem } }\nadmin: { enabled: false }\nlog: { decisions: file:decisions.jsonl }\n",
    );
    let gate = site.start();
    let lane = Lane { plain: gate.address, tls: gate.tls, upstream };
    Own { site, _gate: gate, lane }
}

/// The figure.
pub fn run(run: &mut Run) {
    let corpus = Corpus::read();
    let runtime = crate::good::runtime();
    let distinct = shape_of(run, &corpus);
    let mut total = Tally::default();
    let mut refused_cases = 0;
    for policy in Policy::ALL {
        let owns: Vec<Own> = (0..2).map(|_| own(&runtime, policy, &corpus)).collect();
        let (lanes, sites): (Vec<Lane>, Vec<(Site, Gate)>) =
            owns.into_iter().map(|own| (own.lane, (own.site, own._gate))).unzip();
        let forms = match policy {
            Policy::Options => vec![Over::Plain], // each of its apps has a host of its own, the certificate one name
            _ => run.of(vec![Over::Plain, Over::H2], vec![Over::Plain, Over::Tls, Over::H2]),
        };
        let target = Target {
            name: "Portcullis".to_owned(),
            policy,
            lanes,
            guards: vec!["*".to_owned()],
            tokens: true,
            exact: true,
            over: forms,
            every_form: run.is_full(),
        };
        let tally = run_against(&runtime, &target, &corpus, &mut |done, of| run.progress(policy.name(), done, of));
        for (_, how) in &tally.bypassed {
            run.fail(format!("bypassed: {how}"));
        }
        for different in &tally.different {
            run.fail(different.clone());
        }
        run.check(tally.unsettled == 0, || format!("{} cases were not answered", tally.unsettled));
        refused_cases += tally.refused;
        if policy == Policy::P1 {
            untouched(run, &runtime, &target, &corpus.ordinary);
        }
        drop(target);
        for (site, gate) in sites {
            gate.signal("TERM"); // what was decided is written out
            if tally.requests > 0 {
                logged(run, site.path(), gate);
            }
        }
        total.add(tally);
    }
    run.count("distinct cases", distinct);
    run.count("requests sent", total.requests);
    run.count("requests refused", refused_cases);
    run.count("requests forwarded without harm", total.forwarded_harmless);
    run.count("bypasses", total.bypassed.len() as u64);
    run.count("ordinary requests passed untouched", corpus.ordinary.len() as u64);
    run.measure(
        "known exception",
        "headers that only CGI takes for framing (Transfer_Encoding, Content_Length) pass as any other header does",
    );
    let compared = if run.is_full() { peers::compare(run, &runtime, &corpus) } else { String::new() };
    run.result(format!(
        "{} cases in {} requests, {} bypasses{compared}; {} ordinary requests untouched",
        crate::table::thousands(distinct),
        crate::table::thousands(total.requests),
        total.bypassed.len(),
        corpus.ordinary.len()
    ));
}

/// Attacks the peers alone, and shows by what they are bypassed: `prove attacks --peers`.
pub fn against_peers() -> ExitCode {
    let alone = |run: &mut Run| {
        let compared = peers::compare(run, &crate::good::runtime(), &Corpus::read());
        run.result(format!("bypasses{compared}"));
    };
    let figure = Figure { id: "R1", name: "attacks", promise: "", run: alone };
    let holds = Run::of_figure(&figure, Size::Smoke).finish();
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every row of the threat model that a single request can show.
const ROWS: [(char, u8); 8] = [('A', 29), ('B', 12), ('C', 15), ('D', 12), ('E', 14), ('F', 6), ('G', 23), ('I', 10)];
/// Rows that no request alone shows, and where they are proved.
const ELSEWHERE: &[(&str, &str)] = &include!("elsewhere.rs");

/// The corpus covers the rows, says why each case is one, and has no case twice; how many there are.
fn shape_of(run: &mut Run, corpus: &Corpus) -> u64 {
    let mut ids = HashSet::new();
    let mut wires = HashSet::new();
    for case in &corpus.cases {
        run.check(ids.insert(&case.id), || format!("{} is there twice", case.id));
        wires.insert(format!(
            "{:?} {:?}",
            case.wire,
            case.expect.iter().map(|(policy, _)| policy.name()).collect::<Vec<_>>()
        ));
    }
    for (id, cites) in &corpus.cites {
        run.check(!cites.is_empty(), || format!("{id} cites nothing"));
    }
    for (section, rows) in ROWS {
        for row in 1..=rows {
            let id = format!("{section}{row:02}");
            let has = corpus.cites.iter().any(|(of, _)| *of == id);
            let elsewhere = ELSEWHERE.iter().any(|(of, _)| *of == id);
            run.check(has != elsewhere, || format!("{id}: a case {has}, proved elsewhere {elsewhere}"));
        }
    }
    let cited: HashSet<&str> = corpus
        .cites
        .iter()
        .flat_map(|(_, cites)| cites)
        .map(String::as_str)
        .filter(|cite| ["CVE-", "GHSA-", "RUSTSEC-"].iter().any(|kind| cite.contains(kind)))
        .collect();
    run.count("advisories cited", cited.len() as u64);
    let distinct = wires.len() as u64;
    run.check(distinct >= 2500, || format!("only {distinct} distinct cases"));
    run.check(corpus.ordinary.len() >= 100, || format!("only {} ordinary requests", corpus.ordinary.len()));
    let mut classes = BTreeMap::new();
    for case in &corpus.cases {
        *classes.entry(case.id.chars().next().unwrap()).or_insert(0u64) += 1;
    }
    for (class, number) in classes {
        run.measure(&format!("cases of section {class}"), number);
    }
    distinct
}

fn untouched(run: &mut Run, runtime: &Runtime, target: &Target, ordinary: &[Ordinary]) {
    for over in &target.over {
        let lane = &target.lanes[0];
        let address = if *over == Over::Plain { lane.plain } else { lane.tls.unwrap() };
        for it in ordinary {
            let (back, seen) = runtime.block_on(async {
                lane.upstream.take();
                let wire = Wire::Request(it.request.clone());
                let back = send::send(address, *over, &wire, true).await.unwrap_or_default();
                (back, lane.upstream.take())
            });
            if let Some(how) = judge::touched(&it.request, &back, &seen) {
                run.fail(format!("not untouched over {over:?}: {}: {how}", it.name));
            }
        }
    }
}

/// Every decision left a line, and no line has a character that a terminal or a parser would act on.
fn logged(run: &mut Run, folder: &Path, mut gate: Gate) {
    let deadline = std::time::Instant::now() + crate::gate::PATIENCE;
    while gate.runs() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = std::fs::read(folder.join("decisions.jsonl")).unwrap_or_default();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    run.check(lines.len() > 10, || format!("{} lines in the log of decisions", lines.len()));
    let acts = |it: char| matches!(it, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let good = |line: &&&[u8]| {
        serde_json::from_slice::<serde_json::Value>(line).is_ok()
            && std::str::from_utf8(line).is_ok_and(|text| !text.chars().any(|it| it.is_control() || acts(it)))
    };
    if let Some(bad) = lines.iter().find(|line| !good(line)) {
        run.fail(format!("a line of the log of decisions: {}", bad.escape_ascii()));
    }
}

/// For a gateway that somebody has set up: `--against=HOST:PORT --upstream=PORT`.
pub fn against(arguments: &[String]) -> ExitCode {
    let value = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(&format!("--{name}=")));
    let address = |name: &str| -> Option<SocketAddr> {
        Some(value(name)?.parse().unwrap_or_else(|_| panic!("--{name} is an address and a port")))
    };
    let (Some(plain), Some(port)) = (address("against"), value("upstream")) else {
        println!("prove attacks --against=HOST:PORT --upstream=PORT; see tests/attacks/README.md");
        return ExitCode::FAILURE;
    };
    let runtime = crate::good::runtime();
    let corpus = Corpus::read();
    let upstream = Arc::new(runtime.block_on(Upstream::start(port.parse().expect("--upstream is a port"))));
    if let Some(folder) = value("keys") {
        std::fs::write(Path::new(folder).join("key.pem"), &corpus.keys.pem).unwrap();
        std::fs::write(Path::new(folder).join("jwks.json"), &corpus.keys.jwks).unwrap();
        println!("the keys are written; start the gateway and press enter");
        let _ = std::io::stdin().read_line(&mut String::new());
    }
    let tls = address("tls");
    let mut over = vec![Over::Plain];
    over.extend(tls.map(|_| Over::H2));
    let guards = value("guards").unwrap_or("x-auth-*,x-forwarded-for").split(',').map(str::to_owned).collect();
    let target = Target {
        name: plain.to_string(),
        policy: if value("policy") == Some("p0") { Policy::P0 } else { Policy::P1 },
        lanes: vec![Lane { plain, tls, upstream }],
        guards,
        tokens: value("keys").is_some(),
        exact: false,
        over,
        every_form: true,
    };
    let mut said = 0;
    let tally = run_against(&runtime, &target, &corpus, &mut |done, of| {
        if done / 500 > said {
            said = done / 500;
            println!("    {done} of {of}");
        }
    });
    for (_, how) in &tally.bypassed {
        println!("bypassed: {how}");
    }
    println!(
        "{}: {} cases, {} refused, {} forwarded without harm, {} bypasses, {} not applicable, {} not answered",
        target.name,
        tally.cases,
        tally.refused,
        tally.forwarded_harmless,
        tally.bypassed.len(),
        tally.not_applicable,
        tally.unsettled
    );
    if tally.bypassed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
