//! `kill -9` at random points of a rotation, of the gateway and of its database.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::node::{Node, POLICY, Site, client, get, login, refresh};
use super::servers::Postgres;

/// One client that refreshes whatever happens, and keeps what it was last given.
struct Holder {
    token: String,
    /// How often it was given a new one; others look at it meanwhile.
    rotations: Arc<AtomicU64>,
}

/// Times that look random and are the same in every run.
struct Dice(AtomicU64);

impl Dice {
    fn below(&self, most: u64) -> u64 {
        let mut bytes = [0; 8];
        let seed = self.0.fetch_add(1, Ordering::Relaxed);
        portcullis::random::Random::fill(&portcullis::random::SeededRandom::new(seed), &mut bytes);
        u64::from_le_bytes(bytes) % most
    }
}

/// The history that must hold: whoever holds a refresh token goes on, whatever dies in between.
async fn hold(
    client: reqwest::Client,
    url: Arc<Mutex<String>>,
    holder: Arc<tokio::sync::Mutex<Holder>>,
    stop: tokio::sync::watch::Receiver<bool>,
) {
    let mut failing_since: Option<Instant> = None;
    while !*stop.borrow() {
        let url = url.lock().unwrap().clone();
        let mut holder = holder.lock().await;
        match refresh(&client, &format!("{url}/token"), &holder.token).await {
            Ok(answer) if answer.status == 200 => {
                holder.token = answer.text("refresh_token");
                holder.rotations.fetch_add(1, Ordering::SeqCst);
                failing_since = None;
            }
            Ok(answer) if answer.status == 503 => {
                failing_since.get_or_insert_with(Instant::now);
            }
            Ok(answer) => panic!("locked out after {:?} rotations: {answer:?}", holder.rotations),
            Err(_) => {
                failing_since.get_or_insert_with(Instant::now);
            }
        }
        assert!(failing_since.is_none_or(|since| since.elapsed() < Duration::from_secs(9)), "no answer for 9 s");
        drop(holder);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Load {
    holders: Vec<Arc<tokio::sync::Mutex<Holder>>>,
    rotations: Vec<Arc<AtomicU64>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    url: Arc<Mutex<String>>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Load {
    async fn start(client: &reqwest::Client, node: &Node, clients: usize) -> Self {
        let url = Arc::new(Mutex::new(format!("http://{}", node.address)));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (mut holders, mut tasks, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..clients {
            let tokens = login(client, node, "ada").await;
            let rotations = Arc::new(AtomicU64::new(0));
            counts.push(Arc::clone(&rotations));
            let holder = Holder { token: tokens.text("refresh_token"), rotations };
            let holder = Arc::new(tokio::sync::Mutex::new(holder));
            tasks.push(tokio::spawn(hold(client.clone(), Arc::clone(&url), Arc::clone(&holder), stopped.clone())));
            holders.push(holder);
        }
        Self { holders, rotations: counts, tasks, url, stop }
    }

    /// Waits until everybody has gone on, which nobody could before the last thing that was killed is back.
    async fn goes_on(&self) {
        let counts = || self.rotations.iter().map(|count| count.load(Ordering::SeqCst)).collect::<Vec<_>>();
        let before = counts();
        super::node::until("everybody goes on", || async {
            assert!(!self.tasks.iter().any(tokio::task::JoinHandle::is_finished), "a client gave up");
            counts().iter().zip(&before).all(|(now, before)| now > before)
        })
        .await;
    }

    async fn end(self) -> Vec<Arc<tokio::sync::Mutex<Holder>>> {
        let _ = self.stop.send(true);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.holders
    }
}

async fn one_head_each(postgres: &Postgres, database: &str, holders: &[Arc<tokio::sync::Mutex<Holder>>]) {
    let heads = postgres.sql(database, "SELECT count(*) FROM portcullis_refresh_tokens WHERE used IS NULL");
    let twice = postgres.sql(
        database,
        "SELECT count(*) FROM (SELECT session_id FROM portcullis_refresh_tokens WHERE used IS NULL \
         GROUP BY session_id HAVING count(*) > 1) AS twice",
    );
    assert_eq!(twice.trim(), "0", "a session has two heads");
    assert!(heads.trim().parse::<usize>().unwrap() >= holders.len(), "{heads}");
}

/// Of each.
const KILLS: u64 = 100;

/// K06, R8: 200 kills under load, of the gateway, then of PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn killing_the_gateway_or_postgresql_loses_no_session_and_no_revocation() {
    let _alone = super::ALONE.lock().await;
    let Some(mut postgres) = super::server(Postgres::start_durable()) else { return };
    let database = postgres.database();
    let site = Site::new(POLICY, &[("DATABASE_URL", database.clone())]);
    site.user("ada");
    let client = client();
    let dice = Dice(AtomicU64::new(7));
    let mut node = Some(site.node());
    let load = Load::start(&client, node.as_ref().unwrap(), 8).await;
    let mut revoked = Vec::new();
    let began = Instant::now();
    for round in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(dice.below(60))).await;
        // An acknowledged logout survives whatever comes next.
        if round % 10 == 0 {
            let tokens = login(&client, node.as_ref().unwrap(), "ada").await;
            let access = tokens.text("access_token");
            let url = node.as_ref().unwrap().url("/logout");
            assert!(client.post(url).bearer_auth(&access).send().await.unwrap().status().is_success());
            revoked.push((access, tokens.text("refresh_token")));
        }
        node.take().unwrap().kill();
        let next = site.node();
        *load.url.lock().unwrap() = format!("http://{}", next.address);
        node = Some(next);
        load.goes_on().await;
    }
    println!("{KILLS} kills of the gateway: {} s", began.elapsed().as_secs());
    let (began, mut kills) = (Instant::now(), 0);
    // On a machine that is busy otherwise it takes long to come back: fewer will do there.
    while kills < KILLS && began.elapsed() < Duration::from_secs(150) {
        kills += 1;
        tokio::time::sleep(Duration::from_millis(dice.below(60))).await;
        postgres.kill();
        postgres.restart();
        load.goes_on().await;
    }
    println!("{kills} kills of PostgreSQL: {} s", began.elapsed().as_secs());
    let node = node.unwrap();
    super::node::until("the gateway is back", || async {
        get(&client, &node.url("/public"), "").await.is_ok_and(|status| status == 200)
    })
    .await;
    let holders = load.end().await;
    let mut rotations = 0;
    for holder in &holders {
        let holder = holder.lock().await;
        super::node::until("everybody can go on", || {
            let (client, url, token) = (client.clone(), node.url("/token"), holder.token.clone());
            async move { refresh(&client, &url, &token).await.is_ok_and(|answer| answer.status == 200) }
        })
        .await;
        rotations += holder.rotations.load(Ordering::SeqCst);
    }
    for (access, token) in &revoked {
        assert_eq!(get(&client, &node.url("/items"), access).await.unwrap(), 401, "a revocation was lost");
        assert_eq!(refresh(&client, &node.url("/token"), token).await.unwrap().status, 400, "a logout was lost");
    }
    one_head_each(&postgres, database.rsplit('/').next().unwrap(), &holders).await;
    println!("{rotations} rotations of {} clients, {} logouts, none lost", holders.len(), revoked.len());
    assert!(rotations > KILLS + kills && kills >= 20, "there was load: {kills} kills");
}
