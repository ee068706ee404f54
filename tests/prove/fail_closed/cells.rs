//! The cells: what is away and how, and what the matrix allows then.

use std::time::Duration;

use crate::relay::State;

/// What is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    Issuer,
    Redis,
    Postgres,
    Both,
    Upstream,
    Policy,
}

/// In which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Killed; what listens in these tests itself stops listening.
    Stopped,
    /// All its processes are stopped (SIGSTOP).
    Paused,
    /// Before it, connections are accepted and nothing comes.
    BlackHole,
    /// Everything comes ten seconds late.
    Slow,
    /// It answers something else; the name of the lie.
    Lying(&'static str, State),
}

/// One outage.
#[derive(Clone, Debug)]
pub struct Cell {
    pub row: Row,
    pub how: How,
}

impl Cell {
    /// As the page calls it.
    pub fn name(&self) -> String {
        let row = match self.row {
            Row::Issuer => "issuer",
            Row::Redis => "Redis",
            Row::Postgres => "PostgreSQL",
            Row::Both => "Redis and PostgreSQL",
            Row::Upstream => "upstream",
            Row::Policy => "policy",
        };
        let how = match &self.how {
            How::Stopped => "stopped".to_owned(),
            How::Paused => "paused".to_owned(),
            How::BlackHole => "black hole".to_owned(),
            How::Slow => "10 s late".to_owned(),
            How::Lying(name, _) => format!("lying: {name}"),
        };
        format!("{row} / {how}")
    }

    pub const fn is_about_stores(&self) -> bool {
        matches!(self.row, Row::Redis | Row::Postgres | Row::Both)
    }

    /// The statuses that a good request of this column may get; `is_late`: when nothing that was known may be used.
    pub fn allows(&self, column: &str, is_late: bool) -> &'static [u16] {
        let is_slow = self.how == How::Slow;
        match (self.row, column) {
            (Row::Upstream, "login" | "refresh") => &[200],
            (Row::Upstream | Row::Policy | Row::Redis, "login at the issuer") if self.row != Row::Redis => &[303],
            (Row::Upstream, _) if is_slow => &[200, 502, 504],
            (Row::Upstream, _) => &[502, 504],
            (Row::Issuer, "login at the issuer") if is_slow => &[303, 503],
            (Row::Issuer, "login at the issuer") => &[503],
            (Row::Redis, "login at the issuer") => &[303, 503],
            (Row::Postgres | Row::Both, "login at the issuer") if is_slow => &[303, 503],
            (Row::Postgres | Row::Both, "login at the issuer") => &[503],
            (Row::Postgres | Row::Both, "login" | "refresh") if is_slow => &[200, 503],
            (Row::Postgres | Row::Both, "login" | "refresh") => &[503],
            (Row::Both, "revocation" | "cookie") if is_late && !is_slow => &[503],
            (Row::Postgres | Row::Both | Row::Redis, "revocation" | "cookie") => &[200, 503],
            (Row::Redis, "login" | "refresh") => &[200, 503],
            _ => &[200],
        }
    }
}

/// All of them, or the key ones.
pub fn all(is_full: bool) -> Vec<Cell> {
    use How::{BlackHole, Paused, Slow, Stopped};
    if !is_full {
        return vec![
            Cell { row: Row::Issuer, how: Stopped },
            Cell { row: Row::Upstream, how: Stopped },
            Cell { row: Row::Both, how: Stopped },
        ];
    }
    let mut cells = Vec::new();
    for row in [Row::Issuer, Row::Upstream, Row::Redis, Row::Postgres, Row::Both] {
        let mut hows = vec![Stopped, BlackHole, Slow];
        if !matches!(row, Row::Issuer | Row::Upstream) {
            hows.push(Paused); // the others are threads of this figure: paused, they are a black hole
        }
        hows.extend(lies(row).into_iter().map(|(name, state)| How::Lying(name, state)));
        cells.extend(hows.into_iter().map(|how| Cell { row, how }));
    }
    cells
}

fn lies(row: Row) -> Vec<(&'static str, State)> {
    let lie = |bytes: &[u8]| State::Lying(bytes.to_vec());
    let http = |status: u16, body: &str| {
        let length = body.len();
        State::Lying(
            format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
                .into_bytes(),
        )
    };
    let garbage = ("garbage", lie(&[0xff, 0x00, 0x80, 0x0d].repeat(64)));
    let endless = |first: &str| ("without end", State::Endless(first.as_bytes().to_vec(), vec![b'x'; 4096]));
    let web = ("another server's protocol", http(200, "{}"));
    let redis = ("another server's protocol", lie(b"-ERR unknown command 'GET'\r\n"));
    match row {
        Row::Issuer => vec![
            garbage,
            redis,
            (
                "wrong JSON",
                http(200, r#"{"keys":"none","access_token":7,"refresh_token":[],"user":null,"active":"true"}"#),
            ),
            ("an empty set of keys", http(200, r#"{"keys":[]}"#)),
            ("a page", http(200, "<html>maintenance</html>")),
            ("status 500", http(500, r#"{"error":"oops"}"#)),
            ("status 204", lie(b"HTTP/1.1 204 No Content\r\n\r\n")),
            ("a redirect", lie(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")),
            ("truncated", State::Cut(40)),
            endless(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n{\"x\": \"",
            ),
        ],
        // What an app answers is its own affair; what is not HTTP is not.
        Row::Upstream => vec![garbage, redis, ("truncated", State::Cut(12)), endless("HTTP/1.1 200 OK\r\nX: ")],
        Row::Redis => vec![
            garbage,
            web,
            ("OK to everything", lie(b"+OK\r\n")),
            ("a number to everything", lie(b":1\r\n")),
            ("an error to everything", lie(b"-LOADING Redis is loading the dataset in memory\r\n")),
            ("truncated", State::Cut(1)),
            endless("$1000000000\r\n"),
        ],
        Row::Postgres => vec![
            garbage,
            web,
            ("an error to everything", lie(b"E\x00\x00\x00\x1dSFATAL\x00C57P03\x00Mno\x00\x00\x00\x00\x00\x00\x00")),
            ("truncated", State::Cut(3)),
            endless("D\x7f\x7f\x7f\x7f"),
        ],
        Row::Both => vec![garbage, web],
        Row::Policy => vec![],
    }
}

/// How late a slow server is.
pub const LATE: Duration = Duration::from_secs(10);
