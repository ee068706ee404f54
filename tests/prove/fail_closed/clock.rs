//! Clocks that jump, and a day without the issuer: in this process, where the clock is moved by hand.

use std::time::Duration;

use portcullis::clock::Timestamp;
use serde_json::json;

use super::Tally;
use super::world::{Got, bearer, get, send};
use crate::browser::{Browser, Gateway, NOW, OIDC, SUPABASE, World};
use crate::good::runtime;
use crate::relay::{Relay, State};
use crate::run::Run;

const HOUR: i64 = 3600;
const YEARS: i64 = 10 * 365 * 24 * HOUR;

/// Returns how many requests were answered in the day.
pub fn run(run: &mut Run, tally: &mut Tally) -> u64 {
    let runtime = runtime();
    runtime.block_on(async {
        jumps(run, tally).await;
        day(run, tally).await
    })
}

/// A request, while the gateway runs in this process.
async fn ask(gateway: &Gateway, request: String) -> Got {
    let address = gateway.address;
    tokio::task::spawn_blocking(move || send(address, &request)).await.unwrap()
}

async fn jumps(run: &mut Run, tally: &mut Tally) {
    for (name, by) in [("+1 h", HOUR), ("-1 h", -HOUR), ("+10 years", YEARS), ("-10 years", -YEARS)] {
        let name = format!("clock / {name}");
        let world = World::new(SUPABASE).await;
        let gateway = world.gateway().await;
        let browser = Browser::new(&gateway);
        browser.sign_in("ada@a.example").await;
        let mut texts = Vec::new();
        for (when, now) in [("then", NOW + by), ("back", NOW)] {
            world.clock.set(Timestamp::from_seconds(now));
            for (column, lines) in [
                ("public", String::new()),
                ("cookie", browser.cookie_line()),
                ("nobody", String::new()),
                ("a forged JWT", bearer("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln")),
            ] {
                let path = if column == "public" { "/public" } else { "/page/a" };
                let got = ask(&gateway, get(path, &lines)).await;
                tally.requests += 1;
                let expected: &[u16] = match column {
                    "public" => &[200],
                    "cookie" => &[200, 303, 401, 503],
                    _ => &[303, 401],
                };
                run.check(expected.contains(&got.status), || format!("{name}: {column} got {} ({when})", got.text()));
                tally.open += u64::from(got.status == 200 && !expected.contains(&200));
                texts.push(format!("{column} {}{}", got.text(), if when == "back" { " (back)" } else { "" }));
            }
        }
        // Whoever signs in now is well again.
        let browser = Browser::new(&gateway);
        browser.sign_in("ada@a.example").await;
        let got = ask(&gateway, get("/page/a", &browser.cookie_line())).await;
        run.check(got.status == 200, || format!("{name}: a new session got {}", got.text()));
        tally.cells += 4;
        run.measure(&name, texts.join(" · "));
    }
}

/// A token whose issuer is away for a day, in each hour in another way.
async fn day(run: &mut Run, tally: &mut Tally) -> u64 {
    let mut world = World::new(OIDC).await;
    let relay = Relay::to(world.provider.server.address);
    world.provider.known_as(relay.address);
    let own = world.provider.server.address.to_string();
    world.change(&own, &relay.address.to_string());
    let gateway = world.gateway().await;
    let issuer = format!("http://{}/oidc", relay.address);
    let claims = json!({ "iss": issuer, "aud": "api", "sub": "ada", "iat": NOW, "exp": NOW + 100 * HOUR });
    let request = get("/page/a", &bearer(&world.provider.token(&claims)));
    let first = ask(&gateway, request.clone()).await;
    run.check(first.status == 200, || format!("before the day: {}: {}", first.text(), first.body));
    let http = |status: u16, body: &str| {
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        State::Lying(text.into_bytes())
    };
    let states = [
        State::Stopped,
        http(500, "oops"),
        http(200, "<html>"),
        http(200, "{\"keys\":[]}"),
        State::Cut(30),
        State::Stalled,
    ];
    let step = run.of(600, 60);
    let (mut since, mut answered) = (0, 0);
    while since < 24 * HOUR - step {
        if since % HOUR == 0 {
            relay.set(states[(since / HOUR) as usize % states.len()].clone());
        }
        world.clock.advance(Duration::from_secs(step.unsigned_abs()));
        since += step;
        let got = ask(&gateway, request.clone()).await;
        tally.requests += 1;
        if !run.check(got.status == 200, || format!("{since} s without the issuer: {}", got.text())) {
            break;
        }
        answered += 1;
    }
    relay.set(State::Stopped);
    world.advance(2 * HOUR);
    // The gateway looks at the age of keys once a second, of real time.
    let mut late = ask(&gateway, request.clone()).await;
    for _ in 0..60 {
        if late.status != 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        late = ask(&gateway, request.clone()).await;
    }
    run.check(late.status == 503 && late.says_when, || format!("after the day: {}", late.text()));
    relay.set(State::Fine);
    world.advance(120);
    let mut again = ask(&gateway, request.clone()).await;
    for _ in 0..200 {
        if again.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.advance(1);
        again = ask(&gateway, request.clone()).await;
    }
    run.check(again.status == 200, || format!("the issuer is back: {}", again.text()));
    answered
}
