//! The recording upstream: keeps the bytes of each connection as they came, and answers politely to whatever is
//! complete in them, also to two requests behind one another.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::framing::{self, Framing};

/// The bytes of one connection since they were last taken.
type Connection = Arc<Mutex<Vec<u8>>>;

#[derive(Debug)]
pub struct Upstream {
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Connection>>>,
}

impl Upstream {
    /// On this port of the loopback, 0 for any.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<Connection>>> = Arc::default();
        let all = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let seen = Connection::default();
                all.lock().unwrap().push(Arc::clone(&seen));
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let mut pending = Vec::new();
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        seen.lock().unwrap().extend_from_slice(&buffer[..read]);
                        pending.extend_from_slice(&buffer[..read]);
                        while let Some(request) = framing::first(Framing::Strict, &pending).filter(|it| it.complete) {
                            let head = request.method == b"HEAD";
                            pending.drain(..request.length);
                            let answer = if head {
                                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
                            } else {
                                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"
                            };
                            if stream.write_all(answer.as_bytes()).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self { address, connections }
    }

    /// What came since the last call, for each connection on which anything came.
    pub fn take(&self) -> Vec<Vec<u8>> {
        let mut connections = self.connections.lock().unwrap();
        let taken: Vec<Vec<u8>> = connections.iter().map(|seen| std::mem::take(&mut *seen.lock().unwrap())).collect();
        connections.retain(|seen| Arc::strong_count(seen) > 1);
        taken.into_iter().filter(|bytes| !bytes.is_empty()).collect()
    }
}
