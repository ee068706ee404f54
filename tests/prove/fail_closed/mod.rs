//! Each cell of the fail-closed matrix, executed: what people get while something that the gateway needs is away,
//! stalls, is slow or lies, and how soon all is well again.
//!
//! In every cell two kinds of requests are sent: good ones, which may get only what the matrix allows, and ones that
//! must not pass (no token, forged, logged out, a wrong password), which must pass nowhere.

mod cells;
mod clock;
mod records;
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::run::Run;
use cells::{Cell, Row};
use world::{COLUMNS, Got, World};

/// How long what is known of revocations may be used, and a little.
const KNOWN: Duration = Duration::from_millis(6500);
/// No answer may take longer.
const SLOWEST: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Tally {
    cells: u64,
    requests: u64,
    /// Requests that must not pass and did.
    open: u64,
    /// Good requests that nothing stood in the way of, and how many of them did not pass.
    unaffected: u64,
    hindered: u64,
    slowest_recovery: Duration,
}

pub fn run(run: &mut Run) {
    let mut tally = Tally::default();
    match World::start() {
        Ok(mut world) => {
            let cells = cells::all(run.is_full());
            let count = cells.len() as u64;
            for (done, cell) in cells.into_iter().enumerate() {
                run.progress("cells", done as u64, count);
                one(run, &mut world, &cell, &mut tally);
            }
            broken_policy(run, &mut world, &mut tally);
        }
        Err(missing) => run.skip(missing),
    }
    records::disk_full(run, &mut tally);
    records::blocked(run, &mut tally);
    let day = clock::run(run, &mut tally);
    run.count("cells", tally.cells);
    run.count("requests", tally.requests);
    run.count("passed though they must not", tally.open);
    run.count("good requests that the outage does not concern", tally.unaffected);
    run.count("of them hindered", tally.hindered);
    run.count("requests with a token in a simulated day without the issuer, all answered", day);
    let recovery = tally.slowest_recovery.as_secs_f64();
    run.measure("slowest recovery, s", (recovery * 100.0).round() / 100.0);
    run.judge(recovery <= 2.0, || format!("one recovery took {recovery:.1} s"));
    run.result(format!(
        "{} cells, {} passed that must not; {} of {} requests that an outage does not concern answered; well again after \
         {recovery:.1} s at most; {day} of {day} requests answered in a simulated day without the issuer",
        tally.cells,
        tally.open,
        tally.unaffected - tally.hindered,
        tally.unaffected,
    ));
}

/// One outage, and the end of it.
fn one(run: &mut Run, world: &mut World, cell: &Cell, tally: &mut Tally) {
    let name = cell.name();
    world.prepare();
    world.away(cell);
    let began = Instant::now();
    let mut seen: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    // At first what is known of revocations and sessions may still be used; then not.
    round(run, world, cell, false, &mut seen, tally);
    if cell.is_about_stores() {
        while began.elapsed() < KNOWN {
            unaffected(run, world, cell, tally);
            std::thread::sleep(Duration::from_millis(100));
        }
        round(run, world, cell, true, &mut seen, tally);
    }
    world.back(cell);
    let recovery = recovered(run, world, &name);
    tally.slowest_recovery = tally.slowest_recovery.max(recovery);
    note(run, &name, &seen, Some(recovery), tally);
}

/// All requests at once: each column gets what it may get, and what must not pass does not.
fn round(
    run: &mut Run,
    world: &World,
    cell: &Cell,
    is_late: bool,
    seen: &mut BTreeMap<&'static str, Vec<String>>,
    tally: &mut Tally,
) {
    let name = cell.name();
    for (column, got) in world.good() {
        tally.requests += 1;
        let text = got.text();
        let allowed = cell.allows(column, is_late);
        run.check(allowed.contains(&got.status), || {
            format!("{name}: {column} got {text}, not one of {allowed:?}: {}", got.body)
        });
        polite(run, &name, column, &got);
        let texts = seen.entry(column).or_default();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    closed(run, world, &name, tally);
}

/// What must not pass.
fn closed(run: &mut Run, world: &World, name: &str, tally: &mut Tally) {
    for (what, got) in world.bad() {
        tally.requests += 1;
        if (200..300).contains(&got.status) {
            tally.open += 1;
        }
        // Never 502 or 504: nobody asks the app for them. 303 leads to the page to sign in.
        let fine = [303, 400, 401, 403, 503].contains(&got.status);
        run.check(fine, || format!("{name}: {what} got {}: {}", got.text(), got.body));
        polite(run, name, what, &got);
    }
}

/// What each answer has.
fn polite(run: &mut Run, name: &str, what: &str, got: &Got) {
    run.check(got.status != 503 || got.says_when, || format!("{name}: {what}: 503 without Retry-After"));
    run.check(got.took < SLOWEST, || format!("{name}: {what}: {:.1} s", got.took.as_secs_f64()));
    let leaks =
        got.status >= 400 && ["127.0.0.1", "sqlx", "postgres", "panicked"].iter().any(|word| got.body.contains(word));
    run.check(!leaks, || format!("{name}: {what} says too much: {}", got.body));
}

/// Good requests that this outage does not concern.
fn unaffected(run: &mut Run, world: &World, cell: &Cell, tally: &mut Tally) {
    for column in COLUMNS.into_iter().filter(|column| cell.allows(column, false) == [200]) {
        if column == "login" || column == "refresh" {
            continue; // each costs a password hash or a token
        }
        tally.requests += 1;
        tally.unaffected += 1;
        let got = world.ask(column);
        if got.status != 200 {
            tally.hindered += 1;
            run.fail(format!("{}: {column}, which it does not concern, got {}", cell.name(), got.text()));
        }
    }
}

/// How long until everybody gets again what they should.
fn recovered(run: &mut Run, world: &World, name: &str) -> Duration {
    let began = Instant::now();
    loop {
        let left: Vec<String> = world
            .good()
            .into_iter()
            .filter(|(column, got)| got.status != if *column == "login at the issuer" { 303 } else { 200 })
            .map(|(column, got)| format!("{column} {}", got.text()))
            .collect();
        if left.is_empty() && world.signs_out() {
            return began.elapsed();
        }
        if began.elapsed() > Duration::from_secs(30) {
            run.fail(format!("{name}: not well again after 30 s: {}", left.join(", ")));
            return began.elapsed();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes a cell down, as the page shows it.
fn note(run: &mut Run, name: &str, seen: &BTreeMap<&str, Vec<String>>, recovery: Option<Duration>, tally: &mut Tally) {
    tally.cells += COLUMNS.len() as u64;
    let columns = COLUMNS.iter().filter_map(|column| Some(format!("{column} {}", seen.get(column)?.join(" then "))));
    let mut text = columns.collect::<Vec<_>>().join(" · ");
    if let Some(recovery) = recovery {
        text.push_str(&format!(" · well again after {:.2} s", recovery.as_secs_f64()));
    }
    run.measure(name, text);
}

/// A policy that does not load changes nothing for anybody.
fn broken_policy(run: &mut Run, world: &mut World, tally: &mut Tally) {
    let name = "policy / broken";
    world.prepare();
    world.break_policies();
    let cell = Cell { row: Row::Policy, how: cells::How::Stopped };
    let mut seen = BTreeMap::new();
    round(run, world, &cell, true, &mut seen, tally);
    world.mend_policies();
    let recovery = recovered(run, world, name);
    tally.slowest_recovery = tally.slowest_recovery.max(recovery);
    note(run, name, &seen, Some(recovery), tally);
}
