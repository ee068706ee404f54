//! An upstream that says which generation it heard of, and clients that ask it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Words;

const PATIENCE: Duration = Duration::from_secs(20);
const BEAT: Duration = Duration::from_millis(100);

/// Answers with the generation it is told, slowly at `/slow`, without end at `/events`; what comes to `/ws` goes back.
pub fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let head = head(&mut reader)?;
        let generation = field(&head, "x-generation").unwrap_or_default();
        let path = head.first()?.split(' ').nth(1)?.to_owned();
        match path.as_str() {
            "/events" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).ok()?;
                loop {
                    stream.write_all(b"9\r\ndata: e\n\n\r\n").ok()?;
                    std::thread::sleep(BEAT);
                }
            }
            "/ws" => {
                let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                stream.write_all(head.as_bytes()).ok()?;
                let mut buffer = [0; 256];
                while let Ok(length @ 1..) = reader.read(&mut buffer) {
                    stream.write_all(&buffer[..length]).ok()?;
                }
                return None;
            }
            "/slow" => std::thread::sleep(Duration::from_millis(700)),
            _ => {}
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{generation}", generation.len()).ok()?;
    }
}

/// The lines of a message's head; none at the end of the connection.
fn head(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            return Some(lines);
        }
        lines.push(line.trim_end().to_owned());
    }
}

fn field(head: &[String], name: &str) -> Option<String> {
    let mut fields = head.iter().filter_map(|line| line.split_once(": "));
    fields.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The generation that wrote the answer's header.
    pub policy: Option<String>,
    pub body: String,
}

/// A client with a kept connection.
pub struct Client {
    address: SocketAddr,
    token: String,
    connection: Option<(TcpStream, BufReader<TcpStream>)>,
}

impl Client {
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.to_owned(), connection: None }
    }

    fn send(&mut self, path: &str, lines: &str) -> Result<Vec<String>, String> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(self.address).map_err(|error| format!("connect: {error}"))?;
            stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_nodelay(true)).unwrap();
            let reader = BufReader::new(stream.try_clone().unwrap());
            self.connection = Some((stream, reader));
        }
        let (stream, reader) = self.connection.as_mut().ok_or("no connection")?;
        let token = &self.token;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x.example\r\nAuthorization: Bearer {token}\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).map_err(|error| format!("write: {error}"))?;
        head(reader).ok_or_else(|| "the connection ended without an answer".to_owned())
    }

    /// A whole answer.
    pub fn get(&mut self, path: &str) -> Result<Answer, String> {
        let head = self.send(path, "")?;
        let status = head.first().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or("no status")?;
        let length = field(&head, "content-length").and_then(|length| length.parse().ok()).ok_or("no length")?;
        let mut body = vec![0; length];
        let (_, reader) = self.connection.as_mut().ok_or("no connection")?;
        reader.read_exact(&mut body).map_err(|error| format!("read: {error}"))?;
        if field(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.connection = None;
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status, policy: field(&head, "x-policy"), body })
    }
}

/// Asks on a connection of its own; status and body.
pub fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What lasts longer than a generation: a stream of events, a WebSocket, answers that are slow.
pub struct Lasting {
    stop: Arc<AtomicBool>,
    wrong: Words,
    threads: [std::thread::JoinHandle<u64>; 3],
}

/// How much of it there was.
pub struct Lasted {
    pub events: u64,
    pub messages: u64,
    pub slow: u64,
    pub wrong: Vec<String>,
}

impl Lasting {
    pub fn start(address: SocketAddr, token: &str) -> Self {
        let (stop, wrong) = (Arc::new(AtomicBool::new(false)), Words::default());
        let threads = ["/events", "/ws", "/slow"].map(|path| {
            let (stop, wrong, mut client) = (Arc::clone(&stop), Arc::clone(&wrong), Client::new(address, token));
            std::thread::spawn(move || {
                let mut count = 0;
                let lasting = match path {
                    "/events" => events(&mut client, &stop, &mut count),
                    "/ws" => messages(&mut client, &stop, &mut count),
                    _ => slow(&mut client, &stop, &mut count),
                };
                if let Err(error) = lasting {
                    wrong.lock().unwrap().push(format!("{path}, after {count}: {error}"));
                }
                count
            })
        });
        Self { stop, wrong, threads }
    }

    pub fn stop(self) -> Lasted {
        self.stop.store(true, Ordering::SeqCst);
        let [events, messages, slow] = self.threads.map(|thread| thread.join().unwrap());
        let wrong = self.wrong.lock().unwrap().clone();
        Lasted { events, messages, slow, wrong }
    }
}

fn events(client: &mut Client, stop: &AtomicBool, count: &mut u64) -> Result<(), String> {
    let head = client.send("/events", "")?;
    if head.first().is_none_or(|line| !line.contains(" 200 ")) {
        return Err(format!("{head:?}"));
    }
    let (_, reader) = client.connection.as_mut().ok_or("no connection")?;
    while !stop.load(Ordering::SeqCst) {
        let mut line = String::new();
        if reader.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
            return Err("the stream ended".to_owned());
        }
        *count += u64::from(line == "data: e\n");
    }
    Ok(())
}

fn messages(client: &mut Client, stop: &AtomicBool, count: &mut u64) -> Result<(), String> {
    let lines = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let head = client.send("/ws", lines)?;
    if head.first().is_none_or(|line| !line.contains(" 101 ")) {
        return Err(format!("{head:?}"));
    }
    let (stream, reader) = client.connection.as_mut().ok_or("no connection")?;
    while !stop.load(Ordering::SeqCst) {
        let frame = [0x81, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g'];
        stream.write_all(&frame).map_err(|error| error.to_string())?;
        let mut back = [0; 10];
        reader.read_exact(&mut back).map_err(|error| error.to_string())?;
        if back != frame {
            return Err(format!("{back:?} came back"));
        }
        *count += 1;
        std::thread::sleep(BEAT);
    }
    Ok(())
}

fn slow(client: &mut Client, stop: &AtomicBool, count: &mut u64) -> Result<(), String> {
    while !stop.load(Ordering::SeqCst) {
        let answer = client.get("/slow")?;
        if answer.status != 200 || answer.policy.as_deref() != Some(answer.body.as_str()) {
            return Err(format!("{answer:?}"));
        }
        *count += 1;
    }
    Ok(())
}
