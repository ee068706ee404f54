//! Refreshing: once for all who ask, whatever happens meanwhile (K01, K03, I10, R10).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::client::{Answer, once};
use crate::gateway::{Browser, SUPABASE, World};
use crate::provider::{LIFE, Mood};
use crate::servers::{self, Postgres};

fn page(cookie: &str) -> String {
    format!("GET /page/a HTTP/1.1\r\nHost: app.test\r\nCookie: __Host-session={cookie}\r\n\r\n")
}

/// Sends many requests at once, at these gateways in turn; every `gone`th goes away before it is answered.
async fn parallel(addresses: &[SocketAddr], cookie: &str, count: usize, gone: usize) -> Vec<Answer> {
    let start = Arc::new(tokio::sync::Barrier::new(count));
    let mut tasks = Vec::new();
    for number in 0..count {
        let (start, request, address) = (Arc::clone(&start), page(cookie), addresses[number % addresses.len()]);
        tasks.push(tokio::spawn(async move {
            if gone > 0 && number % gone == 0 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                start.wait().await;
                stream.write_all(request.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(number as u64 % 7)).await;
                return None;
            }
            start.wait().await;
            Some(once(address, request).await.unwrap())
        }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.extend(task.await.unwrap());
    }
    answers
}

/// K01: 200 parallel requests with an expired session are one refresh and 200 answers, with no cookie set.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_requests_of_an_expired_session_are_one_refresh() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let cookie = Browser::new(&gateway).sign_in("ada@a.example").await;
    world.provider.slow(Duration::from_millis(200));
    for round in 1..=3 {
        world.advance(LIFE);
        let answers = parallel(&[gateway.address], &cookie, 200, 0).await;
        assert_eq!(world.provider.refreshes(), round);
        assert_eq!(answers.len(), 200);
        for answer in &answers {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.values("set-cookie").is_empty(), "{}", answer.head);
        }
        // The app gets the new access token, and never the cookie.
        let bearers: Vec<String> = world
            .upstream
            .take()
            .iter()
            .map(|request| {
                assert!(!request.head.contains("__Host-session"), "{}", request.head);
                request.value("authorization").unwrap().to_owned()
            })
            .collect();
        assert!(bearers.len() == 200 && bearers.iter().all(|bearer| *bearer == bearers[0]));
    }
    assert_eq!(world.provider.reused(), 0);
}

/// R10, I10: with browsers that go away and a provider that fails, no session is lost, and none is asked for twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn disconnects_and_errors_of_the_provider_lose_no_session() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let cookie = Browser::new(&gateway).sign_in("ada@a.example").await;
    for (round, moods) in [
        &[Mood::Status(500)][..],
        &[Mood::Status(429)],
        &[Mood::Cut],
        &[Mood::Status(409), Mood::Status(503)],
        &[Mood::Status(429), Mood::Status(429), Mood::Status(429), Mood::Status(429), Mood::Status(429)],
        &[Mood::Status(403)],
        &[Mood::Cut, Mood::Cut, Mood::Status(500)],
        &[],
    ]
    .into_iter()
    .enumerate()
    {
        world.advance(LIFE + 60);
        world.provider.moods(moods);
        let answers = parallel(&[gateway.address], &cookie, 60, 3).await;
        for answer in &answers {
            assert!(matches!(answer.status, 200 | 503), "{moods:?}: {}", answer.text());
        }
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert!(statuses.iter().all(|status| *status == statuses[0]), "round {round}: {statuses:?}");
        // Whatever it was, it is over after the pause.
        world.provider.moods(&[]);
        world.advance(61);
        let after = once(gateway.address, page(&cookie)).await.unwrap();
        assert_eq!(after.status, 200, "{moods:?}: {}", after.text());
        assert_eq!(world.provider.reused(), 0, "{moods:?}");
    }
}

/// All those who ask go away, and the tokens that come are kept all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refresh_runs_on_when_everybody_has_gone() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let cookie = Browser::new(&gateway).sign_in("ada@a.example").await;
    world.provider.slow(Duration::from_millis(400));
    for round in 1..=3 {
        world.advance(LIFE);
        assert!(parallel(&[gateway.address], &cookie, 20, 1).await.is_empty());
        let began = Instant::now();
        while world.stores().await.browser.live(None, portcullis::clock::Timestamp::from_seconds(0), 1).await.unwrap()
            [0]
        .version
            < round
        {
            assert!(began.elapsed() < Duration::from_secs(10), "nothing was kept");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let after = once(gateway.address, page(&cookie)).await.unwrap();
        assert_eq!((after.status, world.provider.refreshes()), (200, usize::try_from(round).unwrap()));
    }
    assert_eq!(world.provider.reused(), 0);
}

/// A silent provider holds up nobody whose token is still good, and ends no session.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_silent_provider_holds_up_nobody_whose_token_is_good() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let cookie = Browser::new(&gateway).sign_in("ada@a.example").await;
    world.provider.always(Some(Mood::Silent));
    world.advance(LIFE - 60);
    let began = Instant::now();
    for answer in parallel(&[gateway.address], &cookie, 50, 0).await {
        assert_eq!(answer.status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    world.provider.always(None);
    tokio::time::sleep(Duration::from_secs(7)).await; // the flight gives up
    world.advance(120);
    let after = once(gateway.address, page(&cookie)).await.unwrap();
    assert_eq!((after.status, world.provider.reused()), (200, 0), "{}", after.text());
}

/// A provider that is asked at every request while it is down would be kept down: there is a pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_failure_the_provider_is_left_alone_for_a_while() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let cookie = Browser::new(&gateway).sign_in("ada@a.example").await;
    world.provider.always(Some(Mood::Status(403)));
    world.advance(LIFE);
    for _ in 0..20 {
        let answer = once(gateway.address, page(&cookie)).await.unwrap();
        assert_eq!(answer.status, 503, "it cannot be told whether the session goes on");
        assert!(answer.value("retry-after").is_some());
    }
    assert_eq!(world.provider.refreshes(), 3, "three attempts, and then none for five seconds");
    world.provider.always(None);
    world.advance(6);
    assert_eq!(once(gateway.address, page(&cookie)).await.unwrap().status, 200);
    assert_eq!(world.provider.refreshes(), 4);
}

/// K03: two gateways on one PostgreSQL ask once; the one that loses takes what the other stored, and ends nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_gateways_on_one_database_ask_once() {
    let postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(missing) => return servers::skipped(&format!("browser sessions on two gateways: {missing}")),
    };
    let world = World::over(SUPABASE, Some(&postgres.database())).await;
    let (a, b) = (world.gateway().await, world.gateway().await);
    let cookie = Browser::new(&a).sign_in("ada@a.example").await;
    let addresses = [a.address, b.address];
    world.provider.slow(Duration::from_millis(150));
    for round in 1..=5 {
        world.advance(LIFE);
        for answer in parallel(&addresses, &cookie, 200, 0).await {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.values("set-cookie").is_empty());
        }
        assert_eq!(world.provider.refreshes(), round);
    }
    world.provider.slow(Duration::ZERO);
    for moods in [&[Mood::Status(500)][..], &[Mood::Cut, Mood::Status(429)], &[Mood::Status(429)]] {
        world.advance(LIFE + 60);
        world.provider.moods(moods);
        for answer in parallel(&addresses, &cookie, 100, 4).await {
            assert!(matches!(answer.status, 200 | 503), "{moods:?}: {}", answer.text());
        }
        world.advance(61);
        assert_eq!(once(b.address, page(&cookie)).await.unwrap().status, 200, "{moods:?}");
    }
    assert_eq!(world.provider.reused(), 0);

    // K05: after the answer to a logout the other gateway does not know the session either.
    let browser = Browser::new(&a);
    browser.cookies.lock().unwrap().push(("__Host-session".to_owned(), cookie.clone()));
    assert_eq!(browser.post("/logout", &[]).await.status, 303);
    for address in addresses {
        assert_eq!(once(address, page(&cookie)).await.unwrap().status, 401);
    }
}

/// A session that ends while its tokens are on their way stays ended, and so do they.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_logout_during_a_refresh_wins() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    let cookie = browser.sign_in("ada@a.example").await;
    world.advance(LIFE);
    world.provider.slow(Duration::from_millis(500));
    let (address, request) = (gateway.address, page(&cookie));
    let asking = tokio::spawn(async move { once(address, request).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(browser.post("/logout", &[]).await.status, 303);
    assert_eq!(asking.await.unwrap().status, 401);
    assert_eq!(once(gateway.address, page(&cookie)).await.unwrap().status, 401);
    let began = Instant::now();
    while world.provider.logged_out().len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(5), "the new tokens live on at the provider");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The column of browser sessions in the fail-closed matrix (Q), and tokens that come while the store is away: nothing is
/// known then, so nobody gets in and nobody is signed out, and what the provider gave out is stored once there is a place.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_is_away_loses_no_session_and_lets_nobody_in() {
    let mut postgres = match Postgres::start_durable() {
        Ok(postgres) => postgres,
        Err(missing) => return servers::skipped(&format!("browser sessions without their database: {missing}")),
    };
    let world = World::over(SUPABASE, Some(&postgres.database())).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    let cookie = browser.sign_in("ada@a.example").await;
    assert_eq!(once(gateway.address, page(&cookie)).await.unwrap().status, 200);

    world.advance(LIFE);
    world.provider.slow(Duration::from_millis(800));
    let (address, request) = (gateway.address, page(&cookie));
    let asking = tokio::spawn(async move { once(address, request).await.unwrap() });
    while world.provider.refreshes() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    postgres.kill();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let answer = once(gateway.address, page(&cookie)).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.value("retry-after").is_some() && answer.values("set-cookie").is_empty());
    let public = once(gateway.address, "GET /public HTTP/1.1\r\nHost: app.test\r\n\r\n").await.unwrap();
    assert_eq!(public.status, 200);
    assert_eq!(browser.post("/logout", &[]).await.status, 503);
    assert_eq!(browser.cookie("__Host-session"), Some(cookie.clone()), "what has not ended is not forgotten");
    let form = [("username", "bob@a.example"), ("password", crate::provider::PASSWORD)];
    assert_eq!(Browser::new(&gateway).post("/login", &form).await.status, 503);

    postgres.restart();
    assert!(matches!(asking.await.unwrap().status, 200 | 503));
    let began = Instant::now();
    loop {
        let answer = once(gateway.address, page(&cookie)).await.unwrap();
        if answer.status == 200 {
            break;
        }
        assert!(answer.status == 503 && began.elapsed() < Duration::from_secs(20), "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((world.provider.refreshes(), world.provider.reused()), (1, 0));
}
