//! What a gateway answers while its stores are away: row "Redis/PostgreSQL" of the fail-closed matrix, for real.
//!
//! 503 means "we cannot decide"; 200, 400 and 401 are said only by a gateway that knows.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::node::{Node, PASSWORD, Site, client, login, refresh, until};
use super::relay::{Relay, State};
use super::server;
use super::servers::{Postgres, Redis};

const POLICY: &str = r"
version: 1
app: items
upstream: env:APP
login: { via: local, limit: none, introspect: authenticated, lockout: { after: 100, within: 10m, for: 10m } }
scopes: { items: Everything on items }
identity:
  local: { preset: local }
  partner: { preset: jwt, secret: env:PARTNER_KEY, issuer: https://partner.example, audience: items }
routes:
  GET /public: public
  GET /limited: { access: public, limit: 6/hour by ip }
  GET /items: { scope: items }
";
const PARTNER_KEY: &str = "9c41d6a07be35f82c1e90d47a6b8f352e0d9c8b7a6f5e4d3c2b1a09f8e7d6c5b";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Away {
    Killed,
    Paused,
    Slow,
}

/// The servers, and gateways before them.
struct World {
    postgres: Postgres,
    redis: Option<Redis>,
    relay: Relay,
    strict: Node,
    lenient: Node,
    partner: String,
    client: reqwest::Client,
    clients: AtomicU64,
    _sites: [Site; 2],
}

/// What a request got, and whether it says when to come back.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Got(u16, bool);

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}{}", self.0, if self.1 { "+RA" } else { "" });
        f.pad(&text)
    }
}

const OK: Got = Got(200, false);
const DOWN: Got = Got(503, true);

/// What the columns of the matrix got.
#[derive(Debug, PartialEq)]
struct Row {
    public: Got,
    partner: Got,
    local: Got,
    lenient: Got,
    login: Got,
    refresh: Got,
    logout: Got,
    introspect: Got,
    /// How many of eight passed a limit of six.
    limit: usize,
    ready: u16,
}

impl World {
    fn start(with_redis: bool) -> Option<Self> {
        let postgres = server(Postgres::start_durable())?;
        let redis = if with_redis { Some(server(Redis::start_durable())?) } else { None };
        let url = postgres.database();
        let (port, name) = url.rsplit_once(':').unwrap().1.split_once('/').unwrap();
        let relay = Relay::to(SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())));
        let mut environment = vec![
            ("DATABASE_URL", format!("postgres://portcullis@{}/{name}", relay.address)),
            ("PARTNER_KEY", PARTNER_KEY.to_owned()),
            ("PORTCULLIS_TRUSTED_PROXIES", "127.0.0.1/32".to_owned()),
        ];
        environment.extend(redis.iter().map(|redis| ("REDIS_URL", redis.database())));
        let lenient = POLICY.replace("identity:", "defaults: { on_store_error: allow_until_exp }\nidentity:");
        let sites = [Site::new(POLICY, &environment), Site::new(&lenient, &environment)];
        sites[0].user("ada");
        let mut mint =
            sites[0].command(&["token", "mint", "--issuer", "partner", "--sub", "p", "--claim", "scope=items"]);
        let minted = mint.stdout(std::process::Stdio::piped()).output().unwrap();
        assert!(minted.status.success(), "{}", String::from_utf8_lossy(&minted.stderr));
        let partner = String::from_utf8(minted.stdout).unwrap().trim().to_owned();
        let (strict, lenient) = (sites[0].node(), sites[1].node());
        let (client, clients) = (client(), AtomicU64::new(0));
        Some(Self { postgres, redis, relay, strict, lenient, partner, client, clients, _sites: sites })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Got {
        let response = request.send().await.unwrap();
        let (status, again) = (response.status().as_u16(), response.headers().contains_key("retry-after"));
        let body = response.text().await.unwrap();
        assert!(!body.contains("127.0.0.1") && !body.contains("sql"), "the body says too much: {body}");
        Got(status, again)
    }

    fn get(&self, node: &Node, path: &str, token: &str) -> reqwest::RequestBuilder {
        let request = self.client.get(node.url(path));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    fn form(&self, path: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.client.post(self.strict.url(path));
        request.header("content-type", "application/x-www-form-urlencoded").body(body)
    }

    fn login(&self) -> reqwest::RequestBuilder {
        self.form("/token", &[("grant_type", "password"), ("username", "ada"), ("password", PASSWORD)])
    }

    async fn limit(&self) -> usize {
        let address = format!("203.0.113.{}", self.clients.fetch_add(1, Ordering::SeqCst));
        let mut passed = 0;
        for _ in 0..8 {
            let request = self.get(&self.strict, "/limited", "").header("x-forwarded-for", &address);
            match self.send(request).await {
                OK => passed += 1,
                got => assert_eq!(got, Got(429, true)),
            }
        }
        passed
    }

    async fn ready(&self) -> u16 {
        self.client.get(format!("http://{}/-/ready", self.strict.admin)).send().await.unwrap().status().as_u16()
    }

    fn away(&mut self, postgres: Option<Away>, redis: Option<Away>) {
        match postgres {
            Some(Away::Killed) => self.postgres.kill(),
            Some(Away::Paused) => self.postgres.pause(),
            Some(Away::Slow) => self.relay.set(State::Slow(Duration::from_secs(10))),
            None => {}
        }
        match (redis, &mut self.redis) {
            (Some(Away::Killed), Some(redis)) => redis.kill(),
            (Some(Away::Paused), Some(redis)) => redis.pause(),
            _ => {}
        }
    }

    fn back(&mut self, postgres: Option<Away>, redis: Option<Away>) {
        match postgres {
            Some(Away::Killed) => self.postgres.restart(),
            Some(Away::Paused) => self.postgres.resume(),
            Some(Away::Slow) => self.relay.set(State::Fine),
            None => {}
        }
        match (redis, &mut self.redis) {
            (Some(Away::Killed), Some(redis)) => redis.restart(),
            (Some(Away::Paused), Some(redis)) => redis.resume(),
            _ => {}
        }
    }

    /// One outage: what is answered in it, and that all is well soon after it.
    async fn outage(&mut self, postgres: Option<Away>, redis: Option<Away>) -> Row {
        let what = format!("postgres {postgres:?}, redis {redis:?}");
        let kept = login(&self.client, &self.strict, "ada").await;
        let left = login(&self.client, &self.strict, "ada").await;
        let (access, token) = (kept.text("access_token"), kept.text("refresh_token"));
        self.away(postgres, redis);
        let began = Instant::now();
        // What is known is known for five seconds.
        while began.elapsed() < Duration::from_millis(6500) {
            let got = self.send(self.get(&self.strict, "/items", &access)).await;
            assert!(got == OK || got == DOWN, "{what}: {got:?} after {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let leaving = left.text("access_token");
        let (public, partner, local, lenient, login_, refresh_, logout, introspect, limit, ready) = tokio::join!(
            self.send(self.get(&self.strict, "/public", "")),
            self.send(self.get(&self.strict, "/items", &self.partner)),
            self.send(self.get(&self.strict, "/items", &access)),
            self.send(self.get(&self.lenient, "/items", &access)),
            self.send(self.login()),
            self.send(self.form("/token", &[("grant_type", "refresh_token"), ("refresh_token", &token)])),
            self.send(self.form("/logout", &[]).bearer_auth(&leaving)),
            self.send(self.form("/introspect", &[("token", &access)]).bearer_auth(&self.partner)),
            self.limit(),
            self.ready(),
        );
        let row =
            Row { public, partner, local, lenient, login: login_, refresh: refresh_, logout, introspect, limit, ready };
        println!(
            "{what:<42} {public:>8} {partner:>8} {local:>8} {lenient:>8} {login_:>8} {refresh_:>8} {logout:>8} \
             {introspect:>8} {limit:>6} {ready:>6}"
        );
        self.back(postgres, redis);
        let began = Instant::now();
        let this = &*self;
        until("logins work again", || async { this.send(this.login()).await == OK }).await;
        until("tokens are accepted again", || async {
            this.send(this.get(&this.strict, "/items", &access)).await == OK
        })
        .await;
        until("it is ready again", || async { this.ready().await == 200 }).await;
        let recovery = began.elapsed();
        println!("{:<42} recovered after {} ms", "", recovery.as_millis());
        assert!(recovery < Duration::from_secs(2), "{what}: {recovery:?}");

        // Nothing was lost: who refreshed goes on, who logged out is out, or asks again.
        let again = refresh(&this.client, &this.strict.url("/token"), &token).await.unwrap();
        assert_eq!(again.status, 200, "{what}: {again:?}");
        if logout != OK {
            until("the logout is repeated", || async {
                // Also where it got half way: what one store has, the other gets now.
                let repeated = this.form("/logout", &[("refresh_token", &left.text("refresh_token"))]);
                this.send(repeated).await.0 < 300
            })
            .await;
        }
        assert_eq!(this.send(this.get(&this.strict, "/items", &leaving)).await.0, 401, "{what}: logged out");
        until("also elsewhere", || async { this.send(this.get(&this.lenient, "/items", &leaving)).await.0 == 401 })
            .await;
        let dead = refresh(&this.client, &this.strict.url("/token"), &left.text("refresh_token")).await.unwrap();
        assert_eq!(dead.status, 400, "{what}: {dead:?}");
        row
    }
}

fn header() {
    println!(
        "{:<42} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6}",
        "", "public", "partner", "local", "lenient", "login", "refresh", "logout", "introsp.", "limit", "ready"
    );
}

/// Q, R7: PostgreSQL is all there is.
#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_nothing_is_claimed_that_is_not_known() {
    let _alone = super::ALONE.lock().await;
    let Some(mut world) = World::start(false) else { return };
    header();
    for away in [Away::Killed, Away::Paused, Away::Slow] {
        let expected = Row {
            public: OK,
            partner: OK,
            local: DOWN,
            lenient: OK,
            login: DOWN,
            refresh: DOWN,
            logout: DOWN,
            introspect: DOWN,
            limit: 6,
            ready: 503,
        };
        assert_eq!(world.outage(Some(away), None).await, expected, "{away:?}");
    }
}

/// Q, R7: a revocation is acknowledged only when it is in both stores, so one of them is enough to know.
#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_or_redis_or_both_nothing_is_claimed_that_is_not_known() {
    let _alone = super::ALONE.lock().await;
    let Some(mut world) = World::start(true) else { return };
    header();
    let well = || Row {
        public: OK,
        partner: OK,
        local: OK,
        lenient: OK,
        login: OK,
        refresh: OK,
        logout: OK,
        introspect: OK,
        limit: 6,
        ready: 200,
    };
    for away in [Away::Killed, Away::Paused] {
        let without_postgres = Row { login: DOWN, refresh: DOWN, logout: DOWN, ..well() };
        assert_eq!(world.outage(Some(away), None).await, without_postgres, "PostgreSQL {away:?}");
        let without_redis = Row { logout: DOWN, limit: 3, ..well() };
        assert_eq!(world.outage(None, Some(away)).await, without_redis, "Redis {away:?}");
        let without = Row { local: DOWN, introspect: DOWN, limit: 3, ready: 503, ..without_postgres };
        assert_eq!(world.outage(Some(away), Some(away)).await, without, "both {away:?}");
    }
}

/// A store that is down at the start is a clear error that names the setting, and no password.
#[test]
fn a_store_that_cannot_be_opened_at_the_start_is_named_with_its_setting() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let canary = "canary-of-a-password";
    for (settings, expected) in [
        (vec![("PORTCULLIS_STORE", "sqlite:nowhere/x.db".to_owned())], ["store", "nowhere"]),
        (vec![("DATABASE_URL", format!("postgres://u:{canary}@{closed}/x"))], ["DATABASE_URL", "PostgreSQL"]),
        (vec![("REDIS_URL", format!("redis://u:{canary}@{closed}/0"))], ["REDIS_URL", "Redis"]),
        (vec![("DATABASE_URL", format!("mysql://u:{canary}@{closed}/x"))], ["DATABASE_URL", "postgres"]),
        (vec![("REDIS_URL", format!("http://u:{canary}@{closed}/0"))], ["REDIS_URL", "Redis"]),
    ] {
        let site = Site::new(super::node::POLICY, &settings);
        let began = Instant::now();
        let output = site.command(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1..=3)), "{settings:?}: {:?} {text}", output.status);
        assert!(expected.iter().all(|word| text.contains(word)), "{settings:?}: {text}");
        assert!(!text.contains(canary), "{text}");
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
}

/// Q: with `log.audit: required` nothing is answered that cannot be recorded.
#[tokio::test(flavor = "multi_thread")]
async fn while_required_audit_records_cannot_be_written_nothing_is_answered() {
    let _alone = super::ALONE.lock().await;
    for (required, expected) in [("required", [DOWN; 3]), ("best_effort", [OK; 3])] {
        let site = Site::new(
            super::node::POLICY,
            &[
                ("PORTCULLIS_LOG__AUDIT", required.to_owned()),
                ("PORTCULLIS_LOG__DECISIONS", "file:decisions".to_owned()),
            ],
        );
        site.user("ada");
        let node = site.node();
        let client = client();
        let access = login(&client, &node, "ada").await.text("access_token");
        drop(node);
        std::fs::remove_file(site.folder.path().join("decisions")).unwrap();
        std::os::unix::fs::symlink("/dev/full", site.folder.path().join("decisions")).unwrap();
        let node = site.node();
        // The first is recorded, or so it seems.
        until("the log fails", || async {
            client.get(node.url("/public")).send().await.unwrap();
            node.log().contains("decision log cannot be written")
        })
        .await;
        let form = format!("grant_type=password&username=ada&password={}", PASSWORD.replace(' ', "+"));
        let mut got = Vec::new();
        for request in [
            client.get(node.url("/public")),
            client.get(node.url("/items")).bearer_auth(&access),
            client.post(node.url("/token")).header("content-type", "application/x-www-form-urlencoded").body(form),
        ] {
            let response = request.send().await.unwrap();
            got.push(Got(response.status().as_u16(), response.headers().contains_key("retry-after")));
        }
        assert_eq!(got, expected, "{required}");
        let ready = client.get(format!("http://{}/-/ready", node.admin)).send().await.unwrap().status().as_u16();
        assert_eq!(ready, expected[0].0, "{required}");
    }
}
