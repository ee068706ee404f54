//! R12. HTTP/2 abuse, frame by frame; and the rules of RFC 9113 that a server must hold a client to.

mod rules;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, Said, Server, block, frame, get, indexed, kept, post, pseudo, settings, window,
};
use crate::gate::Site;
use crate::good::{self, Good};
use crate::run::Run;

const POLICY: &str = "version: 1
upstream: http://UPSTREAM
routes:
  /**: public
";

/// Streams that a client may have at once, as the gateway says.
const STREAMS: u32 = 100;

/// Frames that a client sends as fast as it can.
struct Flood {
    name: &'static str,
    /// Where it was seen.
    seen: &'static str,
    /// Sent once.
    first: fn() -> Vec<u8>,
    /// Sent again and again, by its number from 0.
    next: fn(u32) -> Vec<u8>,
    /// How many of them one connection may send; `None` where what it asks for is served.
    most: Option<u32>,
}

/// Streams of a client have odd numbers.
fn stream(number: u32) -> u32 {
    number * 2 + 1
}

fn nothing() -> Vec<u8> {
    Vec::new()
}

fn open_post() -> Vec<u8> {
    post(1, "/items")
}

/// One request header block, and what is wrong with its stream.
fn bad(number: u32, fields: &[u8], flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream(number), fields)
}

fn floods() -> Vec<Flood> {
    let flood = |name, seen, first, next, most| Flood { name, seen, first, next, most };
    // The gateway bears a thousand resets and ten thousand frames that ask for nothing; what is already on its way, in
    // both kernels' buffers, when it ends a connection counts here, too.
    let (resets, idle, errors) = (Some(50_000), Some(50_000), Some(50_000));
    vec![
        flood(
            "streams opened and reset",
            "CVE-2023-44487",
            nothing,
            |n| [get(stream(n), "/items"), frame(RST_STREAM, 0, stream(n), &8u32.to_be_bytes())].concat(),
            resets,
        ),
        flood(
            "resets by WINDOW_UPDATE of 0",
            "CVE-2025-8671",
            nothing,
            |n| [get(stream(n), "/items"), window(stream(n), 0)].concat(),
            errors,
        ),
        flood(
            "resets by overflowing windows",
            "CVE-2025-8671",
            nothing,
            |n| [get(stream(n), "/items"), window(stream(n), 0x7fff_ffff)].concat(),
            errors,
        ),
        flood(
            "resets by PRIORITY of a wrong size",
            "CVE-2025-8671",
            nothing,
            |n| [get(stream(n), "/items"), frame(PRIORITY, 0, stream(n), &[0; 4])].concat(),
            errors,
        ),
        flood(
            "resets by a stream that depends on itself",
            "CVE-2025-8671",
            nothing,
            |n| {
                [
                    get(stream(n), "/items"),
                    frame(PRIORITY, 0, stream(n), &[&stream(n).to_be_bytes()[..], &[1]].concat()),
                ]
                .concat()
            },
            errors,
        ),
        flood(
            "resets by DATA after the end",
            "CVE-2025-8671",
            nothing,
            |n| [get(stream(n), "/items"), frame(DATA, 0, stream(n), b"x")].concat(),
            errors,
        ),
        flood(
            "CONTINUATION without end",
            "CVE-2024-27316",
            || frame(HEADERS, 0, 1, &pseudo("GET", "/items")),
            |_| frame(CONTINUATION, 0, 1, &block(&[("a", &"b".repeat(8000))])),
            Some(1_000),
        ),
        flood(
            "CONTINUATION of a byte",
            "CVE-2024-28182",
            || frame(HEADERS, 0, 1, &pseudo("GET", "/items")),
            |_| frame(CONTINUATION, 0, 1, &[0xbe]),
            idle,
        ),
        flood(
            "CONTINUATION of nothing",
            "VU#421644",
            || frame(HEADERS, 0, 1, &pseudo("GET", "/items")),
            |_| frame(CONTINUATION, 0, 1, &[]),
            idle,
        ),
        flood("empty DATA", "CVE-2019-9518", open_post, |_| frame(DATA, 0, 1, &[]), idle),
        flood(
            "DATA that is padding",
            "CVE-2019-9518",
            open_post,
            |_| frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat()),
            idle,
        ),
        flood("empty HEADERS", "CVE-2019-9518", nothing, |n| bad(n, &[], END_STREAM), errors),
        flood(
            "trailers that end nothing",
            "CVE-2019-9518",
            open_post,
            |_| frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")])),
            idle,
        ),
        flood("PING", "CVE-2019-9512", nothing, |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes()), idle),
        flood("SETTINGS", "CVE-2019-9515", nothing, |n| settings(&[(4, 65_535 + n % 2)]), idle),
        flood("the table's size up and down", "CVE-2019-9515", nothing, |n| settings(&[(1, n % 2 * 4096)]), idle),
        flood("acknowledgements of nothing", "CVE-2019-9515", nothing, |_| frame(SETTINGS, 1, 0, &[]), idle),
        flood("PRIORITY", "CVE-2019-9513", nothing, |n| frame(PRIORITY, 0, stream(n % 1000), &[0, 0, 0, 0, 16]), idle),
        flood("frames that nobody knows", "RFC 9113 §5.5", nothing, |_| frame(0xfa, 0xff, 0, &[0; 64]), idle),
        flood("WINDOW_UPDATE of 0", "RFC 9113 §6.9", nothing, |_| window(0, 0), errors),
        flood("WINDOW_UPDATE of 1", "CVE-2019-9511", nothing, |_| window(0, 1), idle),
        flood("the connection's window over its end", "RFC 9113 §6.9.1", nothing, |_| window(0, 0x7fff_ffff), errors),
        flood("GOAWAY", "RFC 9113 §6.8", nothing, |_| frame(GOAWAY, 0, 0, &[0; 8]), idle),
        flood(
            "PUSH_PROMISE of a client",
            "RFC 9113 §8.4",
            nothing,
            |n| frame(PUSH_PROMISE, END_HEADERS, 1, &[&stream(n).to_be_bytes()[..], &pseudo("GET", "/items")].concat()),
            errors,
        ),
        flood(
            "pseudo-header fields twice",
            "RFC 9113 §8.3",
            nothing,
            |n| bad(n, &[pseudo("GET", "/items"), pseudo("GET", "/admin")].concat(), END_STREAM),
            errors,
        ),
        flood(
            "more than Content-Length says",
            "RFC 9113 §8.1.1",
            nothing,
            |n| {
                [
                    bad(n, &[pseudo("POST", "/items"), block(&[("content-length", "1")])].concat(), 0),
                    frame(DATA, END_STREAM, stream(n), b"xyz"),
                ]
                .concat()
            },
            errors,
        ),
        flood(
            "header lists over 64 KiB",
            "CVE-2026-49975",
            || {
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    &[pseudo("GET", "/items"), kept("a", &"b".repeat(4000))].concat(),
                )
            },
            |n| bad(n + 1, &[pseudo("GET", "/items"), indexed(62).repeat(2000)].concat(), END_STREAM),
            None,
        ),
        flood(
            "more streams than agreed, never ended",
            "RFC 9113 §5.1.2",
            nothing,
            |n| post(stream(n), "/items"),
            errors,
        ),
    ]
}

pub fn run(run: &mut Run) {
    // The attackers have one core, the good client, its upstream and the figure another runtime.
    good::runtime().block_on(measure(run));
}

/// What a flood came to.
#[derive(Default)]
struct Tally {
    connections: AtomicU64,
    units: AtomicU64,
    /// The most that one connection sent before it was ended.
    most: AtomicU64,
}

async fn measure(run: &mut Run) {
    let upstream = crate::slow::upstream(tokio::sync::mpsc::unbounded_channel().0).await;
    let site = Site::new(&POLICY.replace("UPSTREAM", &upstream.to_string()));
    let certificate = site.tls();
    let gate = site.start();
    let server = Server::new(gate.tls.unwrap(), &certificate);
    let ask = || {
        let request = "GET /items HTTP/1.1\r\nHost: api.test\r\n\r\n".to_owned();
        Good::start(gate.address, request, 200, Duration::from_millis(5))
    };

    let (held, broken) = rules::check(&server).await;
    run.count("rules of RFC 9113 and 7541 checked", (held + broken.len()) as u64);
    for rule in broken {
        run.fail(rule);
    }
    for (rule, reason) in rules::EXCEPTIONS {
        run.measure(&format!("not held: {rule}"), reason);
    }

    // Beside attackers that use a core the good client has less of the machine, whatever the gateway does. So has this one.
    let busy = Arc::new(AtomicBool::new(true));
    let spinning = Arc::clone(&busy);
    let spinner = std::thread::spawn(move || while spinning.load(Ordering::Relaxed) {});
    let good = ask();
    tokio::time::sleep(Duration::from_millis(run.of(300, 10_000))).await;
    let quiet = good.stop().await;
    busy.store(false, Ordering::Relaxed);
    spinner.join().unwrap();

    let attackers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let start = gate.memory();
    let mut peak = start;
    let (mut beside, mut bad, mut asked) = (Vec::new(), Vec::new(), 0);
    let floods = floods();
    let (mut frames, mut connections) = (0, 0);
    for (number, flood) in floods.iter().enumerate() {
        run.progress("floods", number as u64, floods.len() as u64);
        let units = if number == 0 { run.of(3_000, 1_000_000) } else { run.of(2_000, 200_000) };
        let time = Duration::from_millis(run.of(150, if number == 0 { 60_000 } else { 4_000 }));
        let tally = Arc::new(Tally::default());
        let good = ask();
        let mut clients = JoinSet::new();
        let until = Instant::now() + time;
        for from in 0..run.of(1, 8) {
            let (server, tally) = (server.clone(), Arc::clone(&tally));
            let (first, next) = (flood.first, flood.next);
            clients.spawn_on(
                async move {
                    let from = Ipv4Addr::new(127, 0, 2, from + 1);
                    while Instant::now() < until && tally.units.load(Ordering::Relaxed) < units {
                        attack(&server, from, first(), next, until, units, &tally).await;
                    }
                },
                attackers.handle(),
            );
        }
        while tokio::time::timeout(Duration::from_millis(100), clients.join_next())
            .await
            .map_or(true, |one| one.is_some())
        {
            peak = peak.max(gate.memory());
        }
        let seen = good.stop().await;
        asked += seen.good;
        let (sent, most) = (tally.units.load(Ordering::Relaxed), tally.most.load(Ordering::Relaxed));
        frames += sent;
        connections += tally.connections.load(Ordering::Relaxed);
        run.measure(
            &format!("{} ({})", flood.name, flood.seen),
            format!(
                "{sent} sent on {} connections, at most {most} on one; good client's p99 {:.1} ms",
                tally.connections.load(Ordering::Relaxed),
                seen.percentile(0.99)
            ),
        );
        run.check(flood.most.is_none_or(|bound| most <= bound.into()), || {
            format!("{}: one connection sent {most}", flood.name)
        });
        beside.extend(seen.times);
        bad.extend(seen.bad.into_iter().map(|bad| format!("{}: {bad}", flood.name)));
    }

    let good = ask();
    let mut holding = Box::pin(hold(run.is_full(), &server, &attackers));
    let stuck = loop {
        tokio::select! {
            stuck = &mut holding => break stuck,
            () = tokio::time::sleep(Duration::from_millis(100)) => peak = peak.max(gate.memory()),
        }
    };
    drop(holding);
    let seen = good.stop().await;
    asked += seen.good;
    beside.extend(seen.times);
    bad.extend(seen.bad.into_iter().map(|bad| format!("held: {bad}")));
    for one in stuck {
        run.fail(one);
    }

    attackers.shutdown_background();
    beside.sort_unstable();
    let (before, during) =
        (quiet.percentile(0.99), good::Seen { times: beside, ..good::Seen::default() }.percentile(0.99));
    let grown = peak.saturating_sub(start) as f64 / 1024.0;
    run.count("kinds of abuse", floods.len() as u64 + 4);
    run.count("abusive frames or streams", frames);
    run.count("connections of attackers", connections);
    run.count("requests of the good client", asked);
    run.measure("good client beside a busy core, p99 ms", (before * 100.0).round() / 100.0);
    run.measure("good client beside attackers, p99 ms", (during * 100.0).round() / 100.0);
    run.measure("memory added, MiB", grown.round());
    run.check(bad.is_empty(), || format!("the good client failed {} times: {}", bad.len(), bad[0]));
    run.judge(during <= before * 2.0, || format!("the good client's p99 went from {before:.2} to {during:.2} ms"));
    run.judge(grown <= 64.0, || format!("{grown:.0} MiB more"));
    run.result(format!(
        "{} kinds of abuse, {frames} frames: attackers ended or refused, good client's p99 {during:.1} ms (beside a busy core {before:.1} ms), {} failures; {grown:.0} MiB more; {held} protocol rules held",
        floods.len() + 4,
        bad.len()
    ));
}

/// One connection that floods, until it is ended.
async fn attack(
    server: &Server,
    from: Ipv4Addr,
    first: Vec<u8>,
    next: fn(u32) -> Vec<u8>,
    until: Instant,
    units: u64,
    tally: &Tally,
) {
    let Ok(mut connection) = server.connect(from).await else {
        tokio::time::sleep(Duration::from_millis(1)).await;
        return;
    };
    tally.connections.fetch_add(1, Ordering::Relaxed);
    if !connection.send(&[PREFACE, &settings(&[]), &first].concat()).await {
        return;
    }
    let (mut read, mut write) = (connection.read, connection.write);
    let ended = async {
        while !matches!(read.said(Duration::from_secs(30)).await, Said::Closed | Said::GoAway(_) | Said::Silent) {}
    };
    let mut sent = 0u32;
    let sending = async {
        while Instant::now() < until && tally.units.load(Ordering::Relaxed) < units && sent < 0x3fff_0000 {
            let mut batch = Vec::new();
            for _ in 0..16 {
                batch.extend(next(sent));
                sent += 1;
            }
            tally.units.fetch_add(16, Ordering::Relaxed);
            if write.write_all(&batch).await.is_err() || write.flush().await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = ended => {}
        () = sending => {}
    }
    tally.most.fetch_max(sent.into(), Ordering::Relaxed);
}

/// Clients that hold what they have: the bomb of 2026 with closed windows, answers that are taken byte by byte, header
/// blocks that drip, and bodies that never come. What was not ended.
async fn hold(full: bool, server: &Server, attackers: &tokio::runtime::Runtime) -> Vec<String> {
    let mut clients = JoinSet::new();
    for number in 0..if full { 5u8 } else { 1 } {
        for kind in 0..4 {
            let server = server.clone();
            clients.spawn_on(
                async move { (kind, held(&server, kind, Ipv4Addr::new(127, 0, 3, number * 4 + kind + 1), full).await) },
                attackers.handle(),
            );
        }
    }
    let mut stuck = Vec::new();
    while let Some(one) = clients.join_next().await {
        let (kind, ended) = one.unwrap();
        let name = [
            "the bomb with closed windows",
            "answers byte by byte",
            "a header block that drips",
            "bodies that never come",
        ][usize::from(kind)];
        if let Err(error) = ended {
            stuck.push(format!("{name}: {error}"));
        }
    }
    stuck
}

async fn held(server: &Server, kind: u8, from: Ipv4Addr, full: bool) -> Result<(), String> {
    let mut connection = server.connect(from).await.map_err(|error| error.to_string())?;
    let closed = settings(&[(4, 0)]);
    let mut begin = [PREFACE, &closed].concat();
    match kind {
        0 => {
            // One field of 33 octets by name, one byte on the wire: as often as the list's limit admits.
            begin.extend(frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[pseudo("GET", "/items"), kept("a", "")].concat(),
            ));
            for number in 1..STREAMS {
                let fields = [pseudo("GET", "/items"), indexed(62).repeat(1900)].concat();
                begin.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &fields));
            }
        }
        1 => (0..STREAMS).for_each(|number| begin.extend(get(stream(number), "/large"))),
        2 => begin.extend(frame(HEADERS, 0, 1, &pseudo("GET", "/items"))),
        _ => (0..STREAMS).for_each(|number| begin.extend(post(stream(number), "/items"))),
    }
    connection.send(&begin).await;
    let began = Instant::now();
    // An answer has 30 s for each of its writes, a head 10 s, a request that its upstream waits for the route's 60 s.
    let patience = Duration::from_secs(if full { [40, 40, 12, 70][usize::from(kind)] } else { 1 });
    // The first of the bomb's streams is an ordinary request.
    let mut streams = [STREAMS - 1, STREAMS, 1, STREAMS][usize::from(kind)];
    let mut drips = 0;
    while began.elapsed() < patience {
        match connection.said(Duration::from_millis(500)).await {
            Said::Closed | Said::GoAway(_) => return Ok(()),
            Said::Reset(_) => streams -= 1,
            // Or it was answered: 504.
            Said::Answer(_) if kind == 3 => streams -= 1,
            _ => {}
        }
        if streams == 0 {
            return Ok(());
        }
        if began.elapsed().as_secs() > drips {
            drips += 1;
            let drip = match kind {
                0 | 1 => (0..STREAMS).flat_map(|number| window(stream(number), 1)).collect(),
                2 => frame(CONTINUATION, 0, 1, &[]),
                _ => Vec::new(),
            };
            connection.send(&drip).await;
        }
    }
    if full { Err(format!("{streams} streams are open after {patience:?}")) } else { Ok(()) }
}
