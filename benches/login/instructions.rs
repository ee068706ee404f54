//! The second witness: how many instructions each outcome takes, as callgrind counts them. This program is run once per
//! outcome with one login and once with three; half of the difference is one login.

use std::process::Command;

use super::failures::OUTCOMES;

/// What a run under callgrind is asked for: an outcome, and how often.
pub fn asked() -> Option<(&'static str, usize)> {
    let argument = |name: &str| std::env::args().find_map(|argument| Some(argument.strip_prefix(name)?.to_owned()));
    let outcome = argument("outcome=")?;
    let outcome = OUTCOMES.into_iter().find(|known| *known == outcome).expect("an outcome");
    Some((outcome, argument("logins=")?.parse().expect("a number")))
}

pub fn compare() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions of the five outcomes: skipped, there is no valgrind");
        return;
    }
    let counts: Vec<(&str, f64)> = OUTCOMES
        .into_iter()
        .map(|outcome| (outcome, count(outcome, 3).saturating_sub(count(outcome, 1)) as f64 / 2.0))
        .collect();
    let (least, most) =
        counts.iter().fold((f64::MAX, 0_f64), |(least, most), (_, count)| (least.min(*count), most.max(*count)));
    println!("instructions of one failed login, as callgrind counts them:");
    for (outcome, count) in &counts {
        println!("  {outcome:<13} {count:>12.0}   {:+.0} of the least", count - least);
    }
    println!("  spread {:.4} %", (most / least - 1.0) * 100.0);
}

fn count(outcome: &str, logins: usize) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program"))
        .args([format!("outcome={outcome}"), format!("logins={logins}")])
        .output()
        .expect("valgrind runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    // ==1234== Collected : 123456789
    let (_, count) = printed.split_once("Collected :").expect("a count");
    count.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a number")
}
