//! Five outcomes of a failed login that nobody can tell apart.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::node::{POLICY, Site, client, post};

const ROUNDS: usize = 40;

/// J01, R15: unknown, wrong, disabled, locked and without a password are one answer, byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn five_outcomes_of_a_failed_login_are_one_answer() {
    let _alone = super::ALONE.lock().await;
    let policy = POLICY.replace("lockout: none", "lockout: { after: 1, within: 1h, for: 1h }");
    let site = Site::new(&policy, &[]);
    for name in ["ada", "disabled", "locked"] {
        site.user(name);
    }
    let done = site.command(&["user", "disable", "disabled"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done = site.command(&["user", "add", "passwordless", "--no-password"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let node = site.node();
    let client = client();
    let url = node.url("/token");
    let right = super::node::PASSWORD;
    let wrong = "not the right password, not at all";
    let _ = post(&client, &url, &[("username", "locked"), ("password", wrong)]).await.unwrap();

    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let mut answers = Vec::new();
    for round in 0..ROUNDS {
        let (unknown, wrong) = (format!("nobody-{round}"), format!("{wrong} {round}"));
        let outcomes = [
            ("unknown", unknown.as_str(), right),
            ("wrong", "ada", wrong.as_str()),
            ("disabled", "disabled", right),
            ("locked", "locked", right),
            ("without a password", "passwordless", right),
        ];
        for (outcome, user, password) in outcomes {
            let began = Instant::now();
            let response = client
                .post(&url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(format!(
                    "grant_type=password&username={user}&password={}",
                    password.replace(' ', "+").replace(',', "%2C")
                ))
                .send()
                .await
                .unwrap();
            let status = response.status().as_u16();
            let mut headers: Vec<String> = response
                .headers()
                .iter()
                .filter(|(name, _)| *name != "date" && *name != "x-portcullis-decision")
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            headers.sort();
            let answer = (status, headers, response.text().await.unwrap());
            times.entry(outcome).or_default().push(began.elapsed());
            answers.push((outcome, answer));
        }
    }
    let (_, first) = &answers[0];
    assert_eq!((first.0, first.2.contains("invalid_grant")), (400, true), "{first:?}");
    for (outcome, answer) in &answers {
        assert_eq!(answer, first, "{outcome}");
    }
    for (outcome, times) in &mut times {
        times.sort_unstable();
        println!(
            "{outcome:>20}: median {:>6} µs, p90 {:>6} µs",
            times[ROUNDS / 2].as_micros(),
            times[ROUNDS * 9 / 10].as_micros()
        );
    }
}
