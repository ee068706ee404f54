//! R11. Slow clients: heads, handshakes and bodies that drip or stop, answers that nobody reads. Each ends at its
//! deadline, and a good client beside them does not notice.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

use crate::gate::{Gate, Site};
use crate::good::{self, Good};
use crate::run::Run;

/// What a slow client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A byte of the head every few seconds.
    Head,
    /// One header line after another, without end.
    Lines,
    /// Nothing at all.
    Silent,
    /// A TLS handshake that stops after its first bytes.
    Handshake,
    /// Nothing after one request.
    Idle,
    /// A whole request and a part of the next one.
    Pipeline,
    /// A byte of a body every few seconds.
    Body,
    /// A body that stops.
    Stopped,
    /// A chunk's size line, byte by byte.
    Chunk,
    /// An answer of some MiB that is not read.
    Unread,
    /// The same, read by single bytes.
    Sipped,
}

/// Kind, of a hundred slow clients (readers: of ten), and its deadline in seconds. The last two are readers.
const KINDS: [(Kind, usize, u64); 11] = [
    (Kind::Head, 30, 10),
    (Kind::Lines, 10, 10),
    (Kind::Silent, 10, 10),
    (Kind::Handshake, 10, 10),
    (Kind::Idle, 10, 60),
    (Kind::Pipeline, 5, 0),
    (Kind::Body, 10, 30),
    (Kind::Stopped, 5, 30),
    (Kind::Chunk, 10, 30),
    (Kind::Unread, 5, READ),
    (Kind::Sipped, 5, READ),
];

/// How long a write of an answer may take, in seconds.
const READ: u64 = 30;
/// More than the kernel's buffers hold on the way.
const ANSWER: usize = 32 << 20;
const POLICY: &str = "version: 1
upstream: http://UPSTREAM
routes:
  /**: public
";

pub fn run(run: &mut Run) {
    let files = rustix::process::Resource::Nofile;
    let limit = rustix::process::getrlimit(files);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(files, raised).unwrap();
    // A client and a gateway's end of each connection, and its upstream's.
    let (slow, readers) = run.of((100, 10), (10_000, 1_000));
    if limit.maximum.is_some_and(|most| most < (slow + 3 * readers) as u64) {
        run.skip(format!("{slow} connections: the limit of open files is {:?}", limit.maximum));
        return;
    }
    good::runtime().block_on(measure(run, slow, readers));
}

async fn measure(run: &mut Run, slow: usize, readers: usize) {
    let (cut, mut cuts) = tokio::sync::mpsc::unbounded_channel();
    let upstream = upstream(cut).await;
    let site = Site::new(&POLICY.replace("UPSTREAM", &upstream.to_string()));
    site.tls();
    let gate = site.start();
    let ask = || {
        let request = "GET /items HTTP/1.1\r\nHost: api.test\r\n\r\n".to_owned();
        Good::start(gate.address, request, 200, Duration::from_millis(10))
    };
    ask_once(&gate).await;
    let start = open_files(&gate);
    let good = ask();
    tokio::time::sleep(Duration::from_secs(run.of(1, 10))).await;
    let quiet = good.stop().await;
    let memory = gate.memory();

    let good = ask();
    let mut clients = JoinSet::new();
    let mut begun = 0u32;
    for (kind, share, deadline) in KINDS {
        let of = if matches!(kind, Kind::Unread | Kind::Sipped) { readers / 10 } else { slow / 100 };
        for _ in 0..share * of {
            begun += 1;
            // 250 addresses: one of them may hold 10,000 connections only.
            let from = Ipv4Addr::new(127, 0, 1, u8::try_from(begun % 250).unwrap() + 1);
            let to = if kind == Kind::Handshake { gate.tls.unwrap() } else { gate.address };
            let wait = Duration::from_micros(u64::from(begun) * 1500);
            clients.spawn(async move {
                tokio::time::sleep(wait).await;
                (kind, deadline, client(kind, from, to).await)
            });
        }
    }
    let all = clients.len() as u64;
    let began = Instant::now();
    let mut peak = 0;
    let mut ended = 0;
    let mut early = 0;
    let mut times: BTreeMap<Kind, (u64, f64, f64)> = BTreeMap::new();
    let patience = Duration::from_secs(run.of(3, 90));
    while ended < all && began.elapsed() < patience {
        peak = peak.max(gate.memory());
        run.progress("slow clients that were ended", ended, all);
        let Ok(Some(one)) = tokio::time::timeout(Duration::from_millis(200), clients.join_next()).await else {
            continue;
        };
        let (kind, deadline, closed) = one.unwrap();
        ended += 1;
        match closed {
            Ok(after) if after.is_nan() => {} // a reader
            Ok(after) => {
                let of = times.entry(kind).or_insert((0, f64::MAX, 0.0));
                *of = (of.0 + 1, of.1.min(after), of.2.max(after));
                let due = deadline as f64;
                let in_time = after < due + 1.0 && (deadline == 0 || after > due - 1.0);
                early += u64::from(after < due - 1.0);
                run.judge(in_time, || format!("{kind:?}: ended after {after:.1} s, not {deadline}"));
            }
            Err(error) => run.fail(format!("{kind:?}: {error}")),
        }
    }
    let mut readers_ended: Vec<f64> = std::iter::from_fn(|| cuts.try_recv().ok()).collect();
    readers_ended.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (readers_ended.first(), readers_ended.last()) {
        run.measure("readers: ended, after s", format!("{}: {least:.1} to {most:.1}", readers_ended.len()));
        // What the gateway still takes from its upstream is a little later than the reader's last byte.
        let due = READ as f64;
        run.judge(*least > due - 4.0 && *most < due + 1.0, || {
            format!("readers were ended after {least:.1} to {most:.1} s")
        });
    }
    let count = readers_ended.len();
    run.judge(count == readers, || format!("{count} of {readers} readers were ended"));
    run.check(early == 0, || format!("{early} were ended before their deadline"));
    run.judge(ended == all, || format!("{} were never ended: {:?}", all - ended, times.keys()));
    let beside = good.stop().await;
    drop(clients);
    let left = settled(&gate, start).await;

    let grown = peak.saturating_sub(memory) as f64 / 1024.0;
    let (before, during) = (quiet.percentile(0.99), beside.percentile(0.99));
    run.count("slow clients", slow as u64);
    run.count("slow readers", readers as u64);
    run.count("ended", ended);
    run.count("requests of the good client", beside.good);
    for (kind, (count, least, most)) in &times {
        run.measure(&format!("{kind:?}: ended, after s"), format!("{count}: {least:.1} to {most:.1}"));
    }
    run.measure("good client alone, p99 ms", round(before));
    run.measure("good client beside them, p99 ms", round(during));
    run.measure("memory added, MiB", round(grown));
    run.measure("descriptors before and after", format!("{start}, {left}"));
    run.check(beside.bad.is_empty() && quiet.bad.is_empty(), || {
        format!("the good client failed {} times: {:?}", beside.bad.len(), beside.bad.first())
    });
    run.check(left <= start + 2, || format!("{left} descriptors are open, {start} were"));
    run.judge(during <= before * 2.0, || format!("the good client's p99 went from {before:.2} to {during:.2} ms"));
    run.judge(grown <= 256.0, || format!("{grown:.0} MiB more"));
    run.result(format!(
        "{slow} slow clients and {readers} slow readers: good client's p99 {during:.1} ms (alone {before:.1} ms), {} failures; {grown:.0} MiB more",
        beside.bad.len()
    ));
}

/// Until it is ended, in seconds from where its deadline counts.
async fn client(kind: Kind, from: Ipv4Addr, to: SocketAddr) -> Result<f64, String> {
    let socket = TcpSocket::new_v4().unwrap();
    if matches!(kind, Kind::Unread | Kind::Sipped) {
        socket.set_recv_buffer_size(64 << 10).unwrap();
    }
    socket.bind(SocketAddr::V4(SocketAddrV4::new(from, 0))).map_err(|error| format!("bind: {error}"))?;
    let mut stream = socket.connect(to).await.map_err(|error| format!("connect: {error}"))?;
    let mut began = Instant::now();
    let get = "GET /items HTTP/1.1\r\nHost: api.test\r\n\r\n";
    let post = "POST /items HTTP/1.1\r\nHost: api.test\r\n";
    let (first, drip) = match kind {
        Kind::Head => ("", get),
        Kind::Lines => ("GET /items HTTP/1.1\r\nHost: api.test\r\n", "X-More: yes\r\n"),
        Kind::Silent => ("", ""),
        Kind::Handshake => ("\u{16}\u{3}\u{1}\u{2}", ""),
        Kind::Idle => (get, ""),
        Kind::Pipeline => (&*format!("{get}GET /items HT"), ""),
        Kind::Body => (&*format!("{post}Content-Length: 100000\r\n\r\n"), "x"),
        Kind::Stopped => (&*format!("{post}Content-Length: 100000\r\n\r\nabc"), ""),
        Kind::Chunk => (&*format!("{post}Transfer-Encoding: chunked\r\n\r\n5;a="), "b"),
        Kind::Unread | Kind::Sipped => ("GET /large HTTP/1.1\r\nHost: api.test\r\n\r\n", ""),
    };
    stream.write_all(first.as_bytes()).await.map_err(|error| format!("write: {error}"))?;
    if matches!(kind, Kind::Idle | Kind::Pipeline) {
        let answered = answered(&mut stream).await?;
        began = Instant::now();
        if answered == 0 {
            return Err("not answered".to_owned());
        }
    }
    let mut sink = [0; 4096];
    if matches!(kind, Kind::Unread | Kind::Sipped) {
        // The end of a connection waits behind the bytes that nobody reads: it shows at the upstream.
        while began.elapsed() < Duration::from_secs(60) {
            if kind == Kind::Sipped && !matches!(stream.read(&mut sink[..1]).await, Ok(1..)) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        return Ok(f64::NAN);
    }
    let pieces: Vec<&str> =
        if kind == Kind::Lines { vec![drip] } else { drip.split("").filter(|one| !one.is_empty()).collect() };
    let mut pieces = pieces.iter().cycle();
    let every = Duration::from_secs(if kind == Kind::Head { 3 } else { 2 });
    let mut next = tokio::time::Instant::now() + every;
    loop {
        tokio::select! {
            read = stream.read(&mut sink) => match read {
                Ok(1..) => {} // 408
                Ok(0) | Err(_) => return Ok(began.elapsed().as_secs_f64()),
            },
            () = tokio::time::sleep_until(next) => {
                next += every;
                if let Some(piece) = pieces.next() && stream.write_all(piece.as_bytes()).await.is_err() {
                    return Ok(began.elapsed().as_secs_f64());
                }
            }
        }
    }
}

/// Reads one answer of [`upstream`]'s; its bytes.
async fn answered(stream: &mut TcpStream) -> Result<usize, String> {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n{}") {
        if stream.read_buf(&mut received).await.map_err(|error| format!("answer: {error}"))? == 0 {
            return Err(format!("closed before an answer: {}", String::from_utf8_lossy(&received)));
        }
    }
    Ok(received.len())
}

async fn ask_once(gate: &Gate) {
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(b"GET /items HTTP/1.1\r\nHost: api.test\r\n\r\n").await.unwrap();
    answered(&mut stream).await.unwrap();
}

/// Answers `/large` with [`ANSWER`] bytes, anything else with `{}`, once the request's body has come; of a POST to
/// `/items` it never comes. Says how many seconds after its last progress a large answer was cut.
pub async fn upstream(cut: UnboundedSender<f64>) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(64 << 10).unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let listener = socket.listen(4096).unwrap();
    let address = listener.local_addr().unwrap();
    let piece: Arc<[u8]> = vec![b'x'; 16 << 10].into();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (piece, cut) = (Arc::clone(&piece), cut.clone());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let mut received = Vec::new();
                loop {
                    let end = received.windows(4).position(|window| window == b"\r\n\r\n");
                    let Some(end) = end else {
                        if !matches!(stream.read_buf(&mut received).await, Ok(1..)) {
                            return;
                        }
                        continue;
                    };
                    if received.starts_with(b"POST /items") {
                        // These bodies never end.
                        let mut sink = [0; 1024];
                        while matches!(stream.read(&mut sink).await, Ok(1..)) {}
                        return;
                    }
                    if received.starts_with(b"POST") {
                        let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
                        let length =
                            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                        while length.map_or_else(
                            || !received.ends_with(b"0\r\n\r\n"),
                            |length| received.len() < end + 4 + length,
                        ) {
                            if !matches!(stream.read_buf(&mut received).await, Ok(1..)) {
                                return;
                            }
                        }
                        received.truncate(end + 4);
                    }
                    let large = received.starts_with(b"GET /large");
                    received.drain(..end + 4);
                    let length = if large { ANSWER } else { 2 };
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
                    );
                    if !large {
                        if stream.write_all(format!("{head}{{}}").as_bytes()).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    let mut began = Instant::now();
                    let mut sent = stream.write_all(head.as_bytes()).await;
                    for _ in 0..ANSWER / piece.len() {
                        began = if sent.is_ok() { Instant::now() } else { began };
                        sent = sent.and(stream.write_all(&piece).await);
                        if sent.is_err() {
                            let _ = cut.send(began.elapsed().as_secs_f64());
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn open_files(gate: &Gate) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count()
}

/// How many descriptors are left when nothing changes any more.
async fn settled(gate: &Gate, start: usize) -> usize {
    let began = Instant::now();
    loop {
        let now = open_files(gate);
        if now <= start + 2 || began.elapsed() > Duration::from_secs(10) {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
