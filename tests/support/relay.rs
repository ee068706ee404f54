//! A relay before a server that a gateway depends on: it can be away, stall, be slow, or lie.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure here is a failed test")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How the server behaves, seen through the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// As it does.
    Fine,
    /// Nobody listens, and connections end.
    Stopped,
    /// Connections are accepted, and nothing comes.
    Stalled,
    /// Whatever is sent arrives this much later.
    Slow(Duration),
    /// Whatever is asked, these bytes come, and the end.
    Lying(Vec<u8>),
    /// Whatever is asked, the first bytes come, and then the others without end.
    Endless(Vec<u8>, Vec<u8>),
    /// Answers end after this many bytes.
    Cut(usize),
}

/// A relay. Its threads end with the process.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    open: Mutex<Vec<TcpStream>>,
}

const TICK: Duration = Duration::from_millis(5);

impl Relay {
    /// Before this server.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared { state: Mutex::new(State::Fine), open: Mutex::default() });
        let relay = Self { address: listener.local_addr().unwrap(), shared };
        let serving = relay.clone();
        std::thread::spawn(move || serving.listen(listener, server));
        relay
    }

    /// Behaves like this from now on. Returns when new connections notice.
    pub fn set(&self, state: State) {
        let stops = state == State::Stopped;
        *self.shared.state.lock().unwrap() = state;
        if stops {
            for stream in self.shared.open.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        let began = Instant::now();
        while TcpStream::connect(self.address).is_ok() == stops && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(TICK);
        }
    }

    fn state(&self) -> State {
        self.shared.state.lock().unwrap().clone()
    }

    fn listen(&self, first: TcpListener, server: SocketAddr) {
        let mut listener = Some(first);
        loop {
            if self.state() == State::Stopped {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind(self.address).ok();
            }
            let accepted = listener.as_ref().and_then(|listener| {
                listener.set_nonblocking(true).unwrap();
                listener.accept().ok()
            });
            let Some((near, _)) = accepted else {
                std::thread::sleep(TICK);
                continue;
            };
            near.set_nonblocking(false).unwrap();
            let Ok(far) = TcpStream::connect(server) else { continue };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let mut open = self.shared.open.lock().unwrap();
            open.retain(|stream| stream.peer_addr().is_ok());
            open.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
            drop(open);
            let (to_far, to_near) = (self.clone(), self.clone());
            let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || to_far.forth(near, far));
            std::thread::spawn(move || to_near.back(far_too, near_too));
        }
    }

    /// Holds what came while the state says so; the state in which it goes on.
    fn hold(&self) -> State {
        let began = Instant::now();
        loop {
            match self.state() {
                State::Stalled => std::thread::sleep(TICK),
                State::Slow(delay) if began.elapsed() < delay => std::thread::sleep(TICK),
                state => return state,
            }
        }
    }

    /// From the client to the server.
    fn forth(&self, mut near: TcpStream, mut far: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = near.read(&mut buffer) {
            let state = self.hold();
            match &state {
                State::Lying(lie) => {
                    let _ = near.write_all(lie);
                    break;
                }
                State::Endless(first, more) => {
                    let mut sent = near.write_all(first);
                    while sent.is_ok() && self.state() == state {
                        sent = near.write_all(more);
                        std::thread::sleep(TICK);
                    }
                    break;
                }
                State::Stopped => break,
                _ if far.write_all(buffer.get(..length).unwrap_or_default()).is_err() => break,
                _ => {}
            }
        }
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
    }

    /// From the server to the client.
    fn back(&self, mut far: TcpStream, mut near: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = far.read(&mut buffer) {
            let (length, ends) = match self.hold() {
                State::Cut(at) => (length.min(at), true),
                State::Stopped => (0, true),
                State::Lying(_) | State::Endless(..) => continue,
                _ => (length, false),
            };
            if near.write_all(buffer.get(..length).unwrap_or_default()).is_err() || ends {
                break;
            }
        }
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
    }
}
