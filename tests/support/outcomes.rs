//! The five outcomes of a failed login (J01, R15): who asks what, in random order, and how far the answers can be told
//! apart by their bytes and by their times.

use std::net::Ipv4Addr;
use std::time::Instant;

use portcullis::random::{Random as _, SeededRandom};

use crate::statistics;

pub const OUTCOMES: [&str; 5] = ["unknown", "wrong", "disabled", "locked", "passwordless"];

/// What the login of the policy is to be: one failure locks an account for the address it came from.
pub const LOGIN: &str = "{ via: local, limit: none, lockout: { after: 1, within: 1h, for: 1h } }";

/// The password of everybody who has one.
pub const RIGHT: &str = "a-long-walk-in-the-rain";

const LOCKED_OUT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Rounds that warm up and are not counted.
const WARMING: usize = 2;

/// The name of whoever meets an outcome. `unknown` has nobody.
pub fn name(outcome: &str) -> String {
    format!("{outcome:-<12}")
}

/// An attempt, which is the first of its account and address but where it is to meet a lock.
pub struct Attempt {
    pub outcome: usize,
    pub client: Ipv4Addr,
    pub form: String,
}

impl Attempt {
    pub fn new(outcome: usize, number: usize) -> Self {
        let number = number * OUTCOMES.len() + outcome;
        let [_, a, b, c] = (number as u32).to_be_bytes();
        let somewhere = Ipv4Addr::new(10, a, b, c);
        let (name, client, password) = match OUTCOMES.get(outcome).copied().unwrap_or_default() {
            "unknown" => (format!("nobody-{number:05}"), somewhere, RIGHT),
            "wrong" => (name("wrong"), somewhere, "a-long-walk-in-the-snow"),
            "locked" => (name("locked"), LOCKED_OUT, RIGHT),
            other => (name(other), somewhere, RIGHT),
        };
        Self { outcome, client, form: form(&name, password) }
    }

    /// The failure after which the account is locked.
    pub fn that_locks() -> Self {
        Self { client: LOCKED_OUT, form: form(&name("locked"), "a-long-walk-in-the-fog"), outcome: 3 }
    }
}

fn form(name: &str, password: &str) -> String {
    format!("grant_type=password&username={name}&password={password}")
}

/// What came out.
pub struct Compared {
    /// How often each outcome was measured.
    pub rounds: usize,
    /// Answers, and those of them that are not the same bytes as the others.
    pub answers: usize,
    pub others: usize,
    /// The length of an answer.
    pub bytes: usize,
    /// The median of each outcome, in microseconds, and how far the farthest is from that of all.
    pub medians: [f64; 5],
    pub apart: f64,
    /// For each pair of outcomes the probability of such a difference by chance, the smallest first.
    pub pairs: Vec<(f64, &'static str, &'static str)>,
}

/// Tries all outcomes so often, each round in another order, as long as `goes_on` says so after a number of rounds.
pub fn compare(rounds: usize, goes_on: impl Fn(usize) -> bool, mut ask: impl FnMut(Attempt) -> Vec<u8>) -> Compared {
    statistics::check_itself();
    let random = SeededRandom::new(15);
    let below = |most: usize| {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % most as u64) as usize
    };
    let expected = ask(Attempt::that_locks());
    let text = String::from_utf8_lossy(&expected);
    assert!(text.contains("400") && text.contains("invalid_grant"), "{text}");
    let mut times: [Vec<f64>; 5] = Default::default();
    let (mut others, mut answers) = (0, 0);
    for round in (0..rounds + WARMING).take_while(|round| goes_on(*round)) {
        let mut left: Vec<usize> = (0..OUTCOMES.len()).collect();
        while !left.is_empty() {
            let attempt = Attempt::new(left.swap_remove(below(left.len())), round);
            let outcome = attempt.outcome;
            let began = Instant::now();
            let answer = ask(attempt);
            let spent = began.elapsed().as_secs_f64() * 1e6;
            answers += 1;
            others += usize::from(answer != expected);
            if let Some(times) = times.get_mut(outcome).filter(|_| round >= WARMING) {
                times.push(spent);
            }
        }
    }
    let overall = statistics::median(&times.concat());
    let medians = times.each_ref().map(|times| statistics::median(times));
    let apart = medians.iter().map(|median| (median / overall - 1.0).abs()).fold(0.0, f64::max);
    let mut pairs = Vec::new();
    for (a, of_a) in OUTCOMES.iter().zip(&times) {
        for (b, of_b) in OUTCOMES.iter().zip(&times).skip_while(|(b, _)| *b != a).skip(1) {
            pairs.push((statistics::kolmogorov_smirnov(of_a, of_b), *a, *b));
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    Compared { rounds: times[0].len(), answers, others, bytes: expected.len(), medians, apart, pairs }
}
