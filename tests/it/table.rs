//! Rows of the attack tables, run against the two policies of the threat model.
//!
//! P0 denies by default; P1 is the worst case, all open but one tree. A row passes only under both.

use crate::client::{Answer, Client, PATIENCE};
use crate::harness::{Harness, IDENTITY, Token};
use crate::upstream::Recorded;

pub const P0: &str = "  GET /public/**: public
  GET /api/items: { scope: items:read }
  POST /api/items: { scope: items:write }
  /api/admin/**: { role: admin }
";
pub const P1: &str = "  /**: public
  /admin/**: { role: admin }
";

/// A whole policy around routes.
pub fn policy(routes: &str) -> String {
    format!("version: 1\nupstream: http://UPSTREAM\n{IDENTITY}roles: {{ admin: {{ can: \"*\" }} }}\nroutes:\n{routes}")
}

pub async fn p0() -> Harness {
    Harness::start(&policy(P0)).await
}

pub async fn p1() -> Harness {
    Harness::start(&policy(P1)).await
}

/// The header line of an admin's token.
pub fn admin() -> String {
    Token::of("root").with("roles", vec!["admin"]).line()
}

/// What must become of a request.
#[derive(Clone, Debug)]
pub enum Expect {
    /// One of these statuses, and the upstream saw nothing.
    Refused(&'static [u16]),
    /// 200, and the upstream saw exactly this target, once.
    Forwarded(String),
}

pub use Expect::{Forwarded, Refused};

/// 400, and the upstream saw nothing.
pub const BAD: Expect = Refused(&[400]);

/// The upstream saw `target`.
pub fn canon(target: &str) -> Expect {
    Forwarded(target.to_owned())
}

/// Collects what went wrong, so that a run shows all of it.
#[derive(Default)]
pub struct Report {
    failures: Vec<String>,
    rows: usize,
}

impl Report {
    /// Sends raw bytes and judges what became of them.
    pub async fn raw(&mut self, gateway: &Harness, id: &str, request: impl AsRef<[u8]>, expect: &Expect) {
        let request = request.as_ref();
        gateway.upstream.take();
        let answer = gateway.raw(request).await;
        let shown = request.escape_ascii().to_string();
        let shown = shown.get(..300).unwrap_or(&shown);
        self.judge(id, shown, answer.map(|answer| answer.status), &gateway.upstream.take(), expect);
    }

    /// Sends a GET of this target.
    pub async fn get(&mut self, gateway: &Harness, id: &str, target: &str, lines: &str, expect: &Expect) {
        self.raw(gateway, id, crate::harness::get(target, lines), expect).await;
    }

    pub fn judge(&mut self, id: &str, shown: &str, status: Option<u16>, upstream: &[Recorded], expect: &Expect) {
        let fine = match expect {
            Refused(statuses) => status.is_some_and(|status| statuses.contains(&status)) && upstream.is_empty(),
            Forwarded(target) => status == Some(200) && matches!(upstream, [only] if only.target() == target),
        };
        self.note(id, fine, || format!("{shown}\n    expected {expect:?}, got {status:?}, upstream saw {upstream:?}"));
    }

    /// Counts a row that was judged elsewhere.
    pub fn note(&mut self, id: &str, fine: bool, what: impl FnOnce() -> String) {
        self.rows += 1;
        if !fine {
            self.failures.push(format!("{id}: {}", what()));
        }
    }

    #[track_caller]
    pub fn finish(self) {
        assert!(self.rows > 0);
        assert!(
            self.failures.is_empty(),
            "{} of {} rows failed:\n{}",
            self.failures.len(),
            self.rows,
            self.failures.join("\n")
        );
    }
}

/// Sends bytes on one connection and reads answers until it ends or `most` came.
pub async fn conversation(gateway: &Harness, bytes: impl AsRef<[u8]>, most: usize) -> Vec<Answer> {
    let mut client = Client::connect(gateway.address).await;
    client.send(bytes).await;
    let mut answers = Vec::new();
    while answers.len() < most {
        match tokio::time::timeout(PATIENCE, client.answer()).await.expect("an answer or the end") {
            Some(answer) => answers.push(answer),
            None => break,
        }
    }
    answers
}
