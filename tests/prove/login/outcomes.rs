//! Unknown, wrong, disabled, locked and without a password: one answer, in the same time.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use super::round;
use crate::failures::{self, LOGIN, OUTCOMES, RIGHT};
use crate::node::{POLICY, Site};
use crate::run::Run;

/// How long the full size may take; then it ends with what it has.
const TIME: Duration = Duration::from_secs(285);

pub fn run(run: &mut Run) -> String {
    let rounds = run.of(4, 5000);
    let site = Site::new(&POLICY.replace("{ via: local, limit: none, lockout: none }", LOGIN), &[]);
    std::fs::write(
        site.folder.path().join("portcullis.yaml"),
        "listen: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\ntrusted_proxies: [127.0.0.0/8]\nlog: { decisions: 'file:decisions.log' }\n",
    )
    .unwrap();
    let done = |mut command: Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for outcome in OUTCOMES {
        let name = failures::name(outcome);
        match outcome {
            "unknown" => {}
            "passwordless" => done(site.command(&["user", "add", &name, "--no-password"])),
            _ => site.user_with(&name, RIGHT),
        }
    }
    done(site.command(&["user", "disable", &failures::name("disabled")]));
    let node = site.node();
    let began = Instant::now();
    let mut stream = None;
    let compared = failures::compare(
        rounds,
        |done| {
            run.progress("rounds of five outcomes", done as u64, rounds as u64);
            began.elapsed() < TIME
        },
        |attempt| {
            let request = format!(
                "POST /token HTTP/1.1\r\nHost: api.test\r\nUser-Agent: proof/1\r\nX-Forwarded-For: {}\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{}",
                attempt.client,
                attempt.form.len(),
                attempt.form
            );
            let stream = stream.get_or_insert_with(|| {
                let stream = TcpStream::connect(node.address).unwrap();
                stream.set_nodelay(true).unwrap();
                stream
            });
            stream.write_all(request.as_bytes()).unwrap();
            answer(stream)
        },
    );
    run.count("failed logins compared, of each of five outcomes", compared.rounds as u64);
    run.count("bytes of an answer", compared.bytes as u64);
    run.count("answers that differ in a byte", compared.others as u64);
    for (outcome, median) in OUTCOMES.iter().zip(compared.medians) {
        run.measure(&format!("failed login, {outcome}, median, ms"), round(median / 1e3));
    }
    let apart = round(compared.apart * 100.0);
    let (p, a, b) = compared.pairs[0];
    // Ten pairs are compared, so the smallest of ten is expected to be small (Holm 1979).
    let corrected = (p * compared.pairs.len() as f64).min(1.0);
    run.measure("medians of failed logins within, %", apart);
    run.measure("Kolmogorov-Smirnov, smallest p of ten pairs", p);
    run.measure("the same, corrected for ten pairs", corrected);
    run.check(compared.others == 0, || format!("{} of {} answers differ", compared.others, compared.answers));
    run.judge(compared.apart < 0.02, || format!("medians within {apart} %"));
    run.judge(corrected > 0.01, || {
        format!("`{a}` and `{b}` can be told apart by time: p {p:.5}, corrected {corrected:.4}")
    });
    format!(
        "five kinds of failed login, {} each: the same bytes, medians within {apart} %, smallest corrected p {corrected:.2}",
        compared.rounds
    )
}

/// One answer, without what is its own: the date and the id of the decision.
fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let own = |line: &&str| {
            let line = line.to_ascii_lowercase();
            !line.starts_with("date:") && !line.starts_with("x-portcullis-decision:")
        };
        return text.split_inclusive("\r\n").filter(own).collect::<String>().into_bytes();
    }
}
