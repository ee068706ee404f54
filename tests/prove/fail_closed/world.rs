//! Two gateways with everything that they need, each behind a relay: one gives out tokens of its own, one signs
//! browsers in at an issuer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis::clock::{Clock as _, ManualClock, Timestamp};
use portcullis::server::SystemClock;
use portcullis::token::algorithm::Algorithm;
use portcullis::token::mint::Minter;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::cells::{Cell, How, LATE, Row};
use crate::gate::{Gate, Site};
use crate::good::runtime;
use crate::provider::{PASSWORD as THEIRS, Provider, SECRET};
use crate::relay::{Relay, State};
use crate::servers::{Postgres, Redis};

const TOKENS: &str = "version: 1
app: items
upstream: http://UPSTREAM
login: { via: local, limit: none, lockout: none }
defaults: { timeout: 5s }
scopes: { items: Everything on items }
identity:
  local: { preset: local }
  partner: { preset: jwt, secret: env:PARTNER_KEY, issuer: https://partner.example, audience: items }
  company: { preset: jwt, jwks_url: 'http://ISSUER/oidc/jwks', issuer: https://company.example, audience: items, algorithms: [ES256] }
routes:
  GET /public: public
  GET /items: { scope: items }
";
const SESSIONS: &str = "version: 1
app: shop
upstream: http://UPSTREAM
login: { via: supabase, limit: none, lockout: none, return_to: /home }
defaults: { timeout: 5s }
identity:
  supabase: { preset: supabase, url: 'http://ISSUER', key: env:KEY, jwt_secret: env:SECRET }
routes:
  GET /public: public
  /page/**: authenticated
";
const PARTNER_KEY: &str = "9c41d6a07be35f82c1e90d47a6b8f352e0d9c8b7a6f5e4d3c2b1a09f8e7d6c5b";
const PASSWORD: &str = "a long walk in the rain";
const USER: &str = "ada@a.example";

/// The columns of the matrix: what good people ask for.
pub const COLUMNS: [&str; 8] =
    ["public", "JWT", "JWT by JWKS", "revocation", "cookie", "login", "refresh", "login at the issuer"];

/// What a request got.
#[derive(Clone, Debug)]
pub struct Got {
    /// 0: no answer that can be read.
    pub status: u16,
    pub says_when: bool,
    pub head: String,
    pub body: String,
    pub took: Duration,
}

impl Got {
    pub fn text(&self) -> String {
        if self.status == 0 { format!("no answer ({})", self.body) } else { self.status.to_string() }
    }

    fn json(&self, name: &str) -> String {
        let value: Value = serde_json::from_str(&self.body).unwrap_or_default();
        value[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {self:?}")).to_owned()
    }
}

/// Sends a request on a connection of its own.
pub fn send(address: SocketAddr, request: &str) -> Got {
    let began = Instant::now();
    let asked = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(25)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let bytes = asked();
    let took = began.elapsed();
    let none = |body: String| Got { status: 0, says_when: false, head: String::new(), body, took };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => return none(error.to_string()),
    };
    let text = String::from_utf8_lossy(&bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return none("no head".to_owned()) };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let says_when = head.to_ascii_lowercase().contains("\r\nretry-after: ");
    Got { status, says_when, head: head.to_owned(), body: body.to_owned(), took }
}

pub fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n{lines}Connection: close\r\n\r\n")
}

pub fn form(path: &str, lines: &str, fields: &[(&str, &str)]) -> String {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    format!(
        "POST {path} HTTP/1.1\r\nHost: app.test\r\n{lines}Content-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// An app that says `ok`.
pub fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    seen.extend_from_slice(&buffer[..length]);
                    while let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                        seen.drain(..end + 4);
                        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// A user of the gateway's own.
pub fn user(site: &Site) {
    let mut add = site.command(&["user", "add", "ada", "--scope", "items", "--password-stdin"]);
    let mut add = add.stdin(std::process::Stdio::piped()).spawn().unwrap();
    writeln!(add.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    let output = add.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub fn login(password: &str) -> String {
    form("/token", "", &[("grant_type", "password"), ("username", "ada"), ("password", password)])
}

/// What a round needs that is used up by it.
#[derive(Default)]
struct Prepared {
    access: String,
    refresh: String,
    cookie: String,
    /// Logged out.
    dead_access: String,
    dead_refresh: String,
    dead_cookie: String,
}

pub struct World {
    postgres: Postgres,
    redis: Redis,
    relays: [Relay; 4],
    tokens: Gate,
    sessions: Gate,
    sites: [Site; 2],
    texts: [String; 2],
    partner: String,
    company: String,
    forged: [String; 2],
    prepared: Mutex<Prepared>,
    _provider: Provider,
    _runtime: Runtime,
}

const ISSUER: usize = 0;
const UPSTREAM: usize = 1;
const POSTGRES: usize = 2;
const REDIS: usize = 3;

/// Host and port of a URL.
fn address_of(url: &str) -> SocketAddr {
    let rest = url.split_once("://").unwrap().1;
    let place = rest.split('/').next().unwrap();
    place.rsplit('@').next().unwrap().parse().unwrap()
}

impl World {
    pub fn start() -> Result<Self, String> {
        let missing = |error: String| format!("real stores: {error}");
        let (postgres, redis) = (Postgres::start_durable().map_err(missing)?, Redis::start_durable().map_err(missing)?);
        let runtime = runtime();
        let now = SystemClock.now().as_seconds();
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(now)));
        let provider = runtime.block_on(Provider::start(clock));
        let databases = [postgres.database(), postgres.database()];
        let caches = [redis.database(), redis.database()];
        let relays = [provider.server.address, app(), address_of(&databases[0]), address_of(&caches[0])].map(Relay::to);
        provider.known_as(relays[ISSUER].address);
        let site = |policy: &str, number: usize| {
            let text = policy
                .replace("UPSTREAM", &relays[UPSTREAM].address.to_string())
                .replace("ISSUER", &relays[ISSUER].address.to_string());
            let through =
                |url: &str, relay: usize| url.replace(&address_of(url).to_string(), &relays[relay].address.to_string());
            let site = Site::new(&text)
                .env("DATABASE_URL", through(&databases[number], POSTGRES))
                .env("REDIS_URL", through(&caches[number], REDIS))
                .env("PARTNER_KEY", PARTNER_KEY)
                .env("SECRET_KEY", "5e1f0c7a9b3d8e2f4a6c1b0d9e8f7a6b5c4d3e2f1a0b9c8d5e1f0c7a9b3d8e2f")
                .env("SECRET", SECRET)
                .env("KEY", "sb_publishable_key-of-the-figure");
            (site, text)
        };
        let (tokens_site, tokens_text) = site(TOKENS, 0);
        let (sessions_site, sessions_text) = site(SESSIONS, 1);
        user(&tokens_site);
        let (tokens, sessions) = (tokens_site.start(), sessions_site.start());
        let claims = |issuer: &str| json!({ "iss": issuer, "aud": "items", "sub": "p", "scope": "items", "iat": now, "exp": now + 7200 });
        let (partner_claims, company_claims) = (claims("https://partner.example"), claims("https://company.example"));
        let minter = |secret: &str| Minter::from_secret(secret.as_bytes(), Algorithm::HS256).unwrap();
        let mint = |secret: &str| minter(secret).mint(partner_claims.as_object().unwrap(), None, Some("JWT")).unwrap();
        let other = Minter::generate(Algorithm::ES256, &[9; 32]).unwrap().0;
        let forged = [
            mint(&PARTNER_KEY.replace('9', "8")),
            other.mint(company_claims.as_object().unwrap(), None, Some("JWT")).unwrap(),
        ];
        let (partner, company) = (mint(PARTNER_KEY), provider.token(&company_claims));
        let world = Self {
            postgres,
            redis,
            relays,
            tokens,
            sessions,
            sites: [tokens_site, sessions_site],
            texts: [tokens_text, sessions_text],
            partner,
            company,
            forged,
            prepared: Mutex::default(),
            _provider: provider,
            _runtime: runtime,
        };
        world.prepare();
        Ok(world)
    }

    /// Signs in, and signs others out, so that there is something to be asked about.
    pub fn prepare(&self) {
        let (live, dead) = (self.signed_in(), self.signed_in());
        let fields = [("refresh_token", dead.1.as_str())];
        let out = send(self.tokens.address, &form("/logout", &bearer(&dead.0), &fields));
        assert!(out.status < 300, "{out:?}");
        let (cookie, dead_cookie) = (self.browser(), self.browser());
        let lines = format!("Origin: http://app.test\r\nCookie: {dead_cookie}\r\n");
        let out = send(self.sessions.address, &form("/logout", &lines, &[]));
        assert!(out.status < 400, "{out:?}");
        *self.prepared.lock().unwrap() = Prepared {
            access: live.0,
            refresh: live.1,
            cookie,
            dead_access: dead.0,
            dead_refresh: dead.1,
            dead_cookie,
        };
    }

    /// Whether somebody who signs in can sign out: the one thing that needs both stores.
    pub fn signs_out(&self) -> bool {
        let got = send(self.tokens.address, &login(PASSWORD));
        got.status == 200
            && send(self.tokens.address, &form("/logout", &bearer(&got.json("access_token")), &[])).status < 300
    }

    fn signed_in(&self) -> (String, String) {
        let got = send(self.tokens.address, &login(PASSWORD));
        assert_eq!(got.status, 200, "{got:?}\n{}", self.tokens.log());
        (got.json("access_token"), got.json("refresh_token"))
    }

    fn page_login(&self, password: &str) -> Got {
        let fields = [("username", USER), ("password", password)];
        send(self.sessions.address, &form("/login", "Origin: http://app.test\r\n", &fields))
    }

    /// The cookies of a browser that signed in.
    fn browser(&self) -> String {
        let got = self.page_login(THEIRS);
        assert_eq!(got.status, 303, "{got:?}\n{}", self.sessions.log());
        let cookies = got.head.lines().filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("set-cookie").then(|| value.split(';').next().unwrap().to_owned())
        });
        cookies.collect::<Vec<_>>().join("; ")
    }

    /// What somebody gets who may ask for this.
    pub fn ask(&self, column: &str) -> Got {
        let (access, refresh, cookie) = {
            let prepared = self.prepared.lock().unwrap();
            (prepared.access.clone(), prepared.refresh.clone(), prepared.cookie.clone())
        };
        let tokens = |request: &str| send(self.tokens.address, request);
        match column {
            "public" => tokens(&get("/public", "")),
            "JWT" => tokens(&get("/items", &bearer(&self.partner))),
            "JWT by JWKS" => tokens(&get("/items", &bearer(&self.company))),
            "revocation" => tokens(&get("/items", &bearer(&access))),
            "cookie" => send(self.sessions.address, &get("/page/a", &format!("Cookie: {cookie}\r\n"))),
            "login" => tokens(&login(PASSWORD)),
            "refresh" => {
                let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
                let got = tokens(&form("/token", "", &fields));
                if got.status == 200 {
                    self.prepared.lock().unwrap().refresh = got.json("refresh_token");
                }
                got
            }
            _ => self.page_login(THEIRS),
        }
    }

    /// All columns at once.
    pub fn good(&self) -> Vec<(&'static str, Got)> {
        std::thread::scope(|scope| {
            let asking = COLUMNS.map(|column| (column, scope.spawn(move || self.ask(column))));
            asking.into_iter().map(|(column, asking)| (column, asking.join().unwrap())).collect()
        })
    }

    /// What must not pass, all at once.
    pub fn bad(&self) -> Vec<(&'static str, Got)> {
        let (tokens, sessions) = (self.tokens.address, self.sessions.address);
        let prepared = self.prepared.lock().unwrap();
        let cookie = format!("Cookie: {}\r\n", prepared.dead_cookie);
        let (own, other) = prepared.cookie.split_at(prepared.cookie.len() / 2);
        let flipped = format!("Cookie: {own}{}\r\n", other.chars().rev().collect::<String>());
        let dead = [("grant_type", "refresh_token"), ("refresh_token", prepared.dead_refresh.as_str())];
        let wrong = [("username", USER), ("password", "wrong")];
        let all = [
            ("nobody", tokens, get("/items", "")),
            ("a forged JWT", tokens, get("/items", &bearer(&self.forged[0]))),
            ("a forged JWT by JWKS", tokens, get("/items", &bearer(&self.forged[1]))),
            ("a token that was logged out", tokens, get("/items", &bearer(&prepared.dead_access))),
            ("a session that was logged out", sessions, get("/page/a", &cookie)),
            ("a session that never was", sessions, get("/page/a", &flipped)),
            ("a browser without a session", sessions, get("/page/a", "")),
            ("a wrong password", tokens, login("wrong")),
            ("a refresh token that was logged out", tokens, form("/token", "", &dead)),
            ("a wrong password at the issuer", sessions, form("/login", "Origin: http://app.test\r\n", &wrong)),
        ];
        drop(prepared);
        std::thread::scope(|scope| {
            let asking = all.map(|(what, address, request)| (what, scope.spawn(move || send(address, &request))));
            asking.into_iter().map(|(what, asking)| (what, asking.join().unwrap())).collect()
        })
    }

    pub fn away(&mut self, cell: &Cell) {
        let state = match &cell.how {
            How::Stopped | How::Paused if cell.is_about_stores() => {
                let pauses = cell.how == How::Paused;
                if cell.row != Row::Redis {
                    if pauses { self.postgres.pause() } else { self.postgres.kill() }
                }
                if cell.row != Row::Postgres {
                    if pauses { self.redis.pause() } else { self.redis.kill() }
                }
                return;
            }
            How::Stopped => State::Stopped,
            How::Paused | How::BlackHole => State::Stalled,
            How::Slow => State::Slow(LATE),
            How::Lying(_, state) => state.clone(),
        };
        self.set(cell.row, &state);
    }

    pub fn back(&mut self, cell: &Cell) {
        match cell.how {
            How::Stopped if cell.is_about_stores() => {
                if cell.row != Row::Redis {
                    self.postgres.restart();
                }
                if cell.row != Row::Postgres {
                    self.redis.restart();
                }
            }
            How::Paused if cell.is_about_stores() => {
                if cell.row != Row::Redis {
                    self.postgres.resume();
                }
                if cell.row != Row::Postgres {
                    self.redis.resume();
                }
            }
            _ => self.set(cell.row, &State::Fine),
        }
    }

    fn set(&self, row: Row, state: &State) {
        let relays: &[usize] = match row {
            Row::Issuer => &[ISSUER],
            Row::Upstream => &[UPSTREAM],
            Row::Postgres => &[POSTGRES],
            Row::Redis => &[REDIS],
            Row::Both => &[POSTGRES, REDIS],
            Row::Policy => &[],
        };
        for relay in relays {
            self.relays[*relay].set(state.clone());
        }
    }

    /// What does not load, and opens everything.
    pub fn break_policies(&self) {
        for site in &self.sites {
            site.write("policies/policy.yaml", "version: 1\nupstream: http://127.0.0.1:9\nroutes:\n  /**: publik\n");
        }
        self.until_stale(true);
    }

    pub fn mend_policies(&self) {
        for (site, text) in self.sites.iter().zip(&self.texts) {
            site.write("policies/policy.yaml", text);
        }
        self.until_stale(false);
    }

    fn until_stale(&self, stale: bool) {
        let began = Instant::now();
        for admin in [self.tokens.admin.unwrap(), self.sessions.admin.unwrap()] {
            let request = format!("GET /-/status HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
            loop {
                let status: Value = serde_json::from_str(&send(admin, &request).body).unwrap_or_default();
                if status["policy"]["stale"] == stale {
                    break;
                }
                assert!(began.elapsed() < Duration::from_secs(15), "the policy is not {stale}: {status}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
