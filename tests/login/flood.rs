//! More logins than the machine can hash.

use std::time::{Duration, Instant};

use super::node::{POLICY, Site, client, get, login, post};

fn percentile(times: &mut [Duration], of: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * of / 100).min(times.len() - 1)]
}

/// J04, R14: hashing is bounded, what is over it is refused quickly, and other requests go on.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_parallel_logins_leave_memory_bounded_and_other_requests_answered() {
    let site = Site::new(POLICY, &[]);
    site.user("ada");
    let node = site.node();
    let client = client();
    let access = login(&client, &node, "ada").await.text("access_token");
    let quiet = node.memory();
    let ask = |count: usize| {
        let (client, url, access) = (client.clone(), node.url("/items"), access.clone());
        async move {
            let mut times = Vec::new();
            for _ in 0..count {
                let began = Instant::now();
                assert_eq!(get(&client, &url, &access).await.unwrap(), 200);
                times.push(began.elapsed());
            }
            times
        }
    };
    let mut before = ask(300).await;

    let began = Instant::now();
    let logins: Vec<_> = (0..500)
        .map(|_| {
            let (client, url) = (client.clone(), node.url("/token"));
            tokio::spawn(async move {
                let began = Instant::now();
                let form = [("username", "ada"), ("password", super::node::PASSWORD)];
                let answer = post(&client, &url, &form).await.unwrap();
                (answer.status, began.elapsed())
            })
        })
        .collect();
    let mut during = ask(100).await;
    let peak = node.memory();
    let (mut passed, mut shed) = (0, Vec::new());
    for login in logins {
        match login.await.unwrap() {
            (200, _) => passed += 1,
            (503, time) => shed.push(time),
            (status, _) => panic!("a login was answered {status}"),
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let bound = quiet + cores as u64 * 19 * 1024 + 64 * 1024;
    println!(
        "500 parallel logins in {} ms: {passed} passed, {} shed ({} ms median); memory {} → {} MiB; \
         p99 of other requests {} → {} µs ({:.1}×)",
        began.elapsed().as_millis(),
        shed.len(),
        if shed.is_empty() { 0 } else { percentile(&mut shed, 50).as_millis() },
        quiet / 1024,
        peak / 1024,
        percentile(&mut before, 99).as_micros(),
        percentile(&mut during, 99).as_micros(),
        percentile(&mut during, 99).as_secs_f64() / percentile(&mut before, 99).as_secs_f64(),
    );
    assert!(passed > 0 && !shed.is_empty(), "{passed} passed, {} shed", shed.len());
    assert!(peak < bound, "{peak} KiB of at most {bound}");
}
