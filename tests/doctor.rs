//! `portcullis doctor` finds what is planted, each fault alone in a folder that is otherwise healthy, and nothing else.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends at the first surprise")]

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use portcullis::clock::Timestamp;
use portcullis::config::{Database, StoreUrl};
use portcullis::identity::account::AccountName;
use portcullis::store::{Added, Stores, User};
use serde_json::Value;

const SECRET: &str = "7d1f0c7a9b3d8e2f4a6c1b0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f";
const NOW: &str = "now";
/// The key of RFC 7517, appendix A.1, for signatures.
const PUBLISHED: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"1","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

/// What a server answers to a path: status, `Date` (or [`NOW`] for none), body.
type Answers = fn(&str, SocketAddr) -> (u16, &'static str, String);

fn serve(address: &str, answers: Answers) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let own = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            std::thread::spawn(move || {
                let mut head = [0; 8192];
                let read = stream.read(&mut head).unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let Some(path) = head.split(' ').nth(1) else { return };
                let (status, date, body) = answers(path, own);
                let date = if date == NOW { String::new() } else { format!("date: {date}\r\n") };
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\n{date}content-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            });
        }
    });
    own
}

fn healthy_app(_: &str, _: SocketAddr) -> (u16, &'static str, String) {
    (200, NOW, "ok".to_owned())
}

/// A folder in which nothing is wrong.
struct Scene {
    dir: tempfile::TempDir,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    /// The app's port; nobody listens on the other two.
    app: u16,
    listen: u16,
    admin: u16,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A port that nobody listens on, below those that the system gives out: no other listener gets it a moment later.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + (std::process::id().wrapping_mul(61).wrapping_add(next)) % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Scene {
    fn new(app: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scene = Self {
            dir,
            environment: Vec::new(),
            arguments: Vec::new(),
            app: app.port(),
            listen: free_port(),
            admin: free_port(),
        };
        fs::create_dir(scene.path("policies")).unwrap();
        scene.policy("");
        scene.write(".env", &format!("SECRET_KEY={SECRET}\n"));
        scene.mode(".env", 0o600);
        scene.write(".gitignore", ".env\n");
        scene.settings("");
        scene
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    /// Another secret, in the environment only.
    fn secret(&mut self, secret: &str) {
        fs::remove_file(self.path(".env")).unwrap();
        self.env("SECRET_KEY", secret);
    }

    fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The settings, `more` among them.
    fn settings(&self, more: &str) {
        let (listen, admin) = (self.listen, self.admin);
        let listen = if more.contains("listen: \"0") { String::new() } else { format!("listen: 127.0.0.1:{listen}\n") };
        let admin =
            if more.contains("admin:") { String::new() } else { format!("admin: {{ listen: 127.0.0.1:{admin} }}\n") };
        self.write("portcullis.yaml", &format!("{listen}{admin}{more}"));
    }

    /// The policy, with another identity block and more routes.
    fn policy_with(&self, identity: &str, more: &str) {
        let app = self.app;
        self.write(
            "policies/app.yaml",
            &format!(
                "version: 1\napp: api\nupstream: http://127.0.0.1:{app}\ncase: insensitive\n{identity}\n\
                 roles: {{ admin: {{ can: \"*\" }} }}\nroutes:\n  GET /health: public\n  /admin/**: {{ role: admin }}\n{more}\
                 identities:\n  boss: {{ id: u9, roles: admin }}\n\
                 tests:\n  all:\n    GET /health: {{ anonymous: allow }}\n    GET /admin/x: {{ anonymous: 401, boss: allow }}\n"
            ),
        );
    }

    fn policy(&self, more: &str) {
        self.policy_with("identity: { local: { preset: local, secret: env:SECRET_KEY } }", more);
    }

    /// A policy with users, and one of them.
    fn login(&self) {
        self.policy_with("login: local\nidentity: { local: { preset: local, secret: env:SECRET_KEY } }", "");
        let now = Timestamp::from_seconds(1_790_000_000);
        let user = User {
            id: "01934f6c-0000-7000-8000-000000000001".to_owned(),
            name: "ada".to_owned(),
            account: AccountName::parse("ada").unwrap(),
            email: None,
            hash: Some(portcullis::password::hash(b"correct horse battery", [7; 16]).unwrap()),
            roles: vec!["admin".to_owned()],
            scopes: Vec::new(),
            tenant: None,
            disabled: false,
            created: now,
            updated: now,
        };
        let place = StoreUrl { database: Database::Sqlite(self.path("portcullis.db")), setting: "store" };
        runtime().block_on(async {
            let stores = Stores::open(&place, None).await.unwrap();
            assert_eq!(stores.users.add(&[user]).await.unwrap(), Added::All);
        });
    }

    /// The same, and what became of that user.
    fn login_with(&self, change: &'static str) {
        self.login();
        sqlx::any::install_default_drivers();
        let url = format!("sqlite:{}", self.path("portcullis.db").display());
        runtime().block_on(async {
            let pool = sqlx::AnyPool::connect(&url).await.unwrap();
            assert_eq!(sqlx::query(change).execute(&pool).await.unwrap().rows_affected(), 1);
            pool.close().await;
        });
    }

    /// A policy for an OpenID provider at this address.
    fn provider(&self, address: SocketAddr) {
        self.policy_with(
            &format!("identity: {{ company: {{ preset: jwt, jwks_url: \"http://{address}/jwks\", issuer: company, audience: api, algorithms: [ES256] }} }}"),
            "",
        );
        let _ = fs::remove_file(self.path(".env"));
    }

    fn supabase(&mut self, address: SocketAddr) {
        self.policy_with("identity: { supabase: { preset: supabase, url: env:SUPABASE_URL } }", "");
        let text = fs::read_to_string(self.path("policies/app.yaml")).unwrap();
        self.write("policies/app.yaml", &text.replace("id: u9", "id: 6d8a2a3c-2a53-4ac6-8d29-5d9c3f0f6a11"));
        let _ = fs::remove_file(self.path(".env"));
        self.env("SUPABASE_URL", &format!("http://{address}"));
    }

    fn doctor(&self) -> (Option<i32>, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.current_dir(self.dir.path()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.dir.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(["doctor", "--format", "json"]).args(&self.arguments).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let report = serde_json::from_str(&text).unwrap_or_else(|_| {
            panic!("not JSON: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        });
        assert!(!text.contains(SECRET), "a secret is shown: {text}");
        (output.status.code(), report)
    }
}

/// Level, code and message of everything that is not as it should be.
fn found(report: &Value) -> Vec<(String, String, String)> {
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or("").to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| matches!(finding["level"].as_str(), Some("warning" | "problem")))
        // What this version cannot do yet is no fault of the folder.
        .filter(|finding| !finding["message"].as_str().unwrap().contains("does not act on: keys over the network"))
        .map(|finding| {
            let message = format!("{}: {}", text(finding, "subject"), text(finding, "message"));
            (text(finding, "level"), text(finding, "code"), message)
        })
        .collect()
}

type Fault = (&'static str, fn(&mut Scene), &'static str, &'static str, &'static str);

/// What is planted, how, and what is found: its level, its code, and words of the message.
const FAULTS: &[Fault] = &[
    (
        "no secret",
        |scene| scene.write(".env", "# nothing\n"),
        "problem",
        "not_set",
        "SECRET_KEY: not set (policies/app.yaml:5)",
    ),
    (
        "an empty secret",
        |scene| scene.write(".env", "SECRET_KEY=\n"),
        "problem",
        "empty",
        "SECRET_KEY: empty, from .env",
    ),
    (
        "a short secret",
        |scene| scene.secret("k2Jx0vQ9-7fYt1Lr8ZcWm4Ns6HbDp3E"),
        "problem",
        "short_secret",
        "the secret has 31 bytes, HS256 needs at least 32, from the environment",
    ),
    (
        "the secret of a tutorial",
        |scene| scene.secret("09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"),
        "problem",
        "well_known_secret",
        "the secret stands in public documentation",
    ),
    (
        "a secret that repeats itself",
        |scene| scene.secret(&"changeme".repeat(8)),
        "problem",
        "guessable_secret",
        "repeats a few characters",
    ),
    (
        "a public key as a secret",
        |scene| scene.secret("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQY="),
        "problem",
        "pem_as_secret",
        "PEM",
    ),
    (
        "no algorithm",
        |scene| scene.env("ALGORITHM", "none"),
        "problem",
        "algorithm",
        "ALGORITHM: not an algorithm that tokens are signed with",
    ),
    (
        "an algorithm of key pairs",
        |scene| scene.env("ALGORITHM", "RS256"),
        "problem",
        "algorithm",
        "RS256 signs with a key pair, and SECRET_KEY is a secret",
    ),
    (
        "tokens that are valid for long",
        |scene| scene.env("ACCESS_TOKEN_EXPIRE_MINUTES", "43200"),
        "warning",
        "token_lifetime",
        "good for 30 days",
    ),
    (
        "tokens that are valid for ever",
        |scene| scene.env("ACCESS_TOKEN_EXPIRE_MINUTES", "forever"),
        "problem",
        "token_lifetime",
        "not a number of minutes",
    ),
    (
        ".env for everybody",
        |scene| scene.mode(".env", 0o644),
        "problem",
        "env_file_mode",
        "others can read it (mode 0644)",
    ),
    (".env for the group", |scene| scene.mode(".env", 0o640), "warning", "env_file_mode", "(mode 0640)"),
    (
        ".env that is not ignored",
        |scene| scene.write(".gitignore", "target\n"),
        "warning",
        "env_file_not_ignored",
        "no line `.env` in .gitignore",
    ),
    (
        "a line of .env that is none",
        |scene| scene.write(".env", &format!("SECRET_KEY={SECRET}\nhunter2\n")),
        "warning",
        "env_file_line",
        "line 2 is not NAME=VALUE",
    ),
    (
        "another secret in the environment",
        |scene| scene.env("SECRET_KEY", &SECRET.replace('7', "8")),
        "warning",
        "set_twice",
        "the environment wins",
    ),
    (
        "a secret file for everybody",
        |scene| {
            scene.policy_with("identity: { local: { preset: local, secret: \"file:../key\" } }", "");
            scene.write("key", SECRET);
            scene.mode("key", 0o644);
        },
        "problem",
        "secret_file_mode",
        "file `../key` can be read by every user",
    ),
    (
        "a secret file that is missing",
        |scene| scene.policy_with("identity: { local: { preset: local, secret: \"file:../key\" } }", ""),
        "problem",
        "file_unreadable",
        "file `../key` cannot be read",
    ),
    (
        "policies that everybody can change",
        |scene| scene.mode("policies/app.yaml", 0o666),
        "problem",
        "writable_by_all",
        "policies/app.yaml: every user of this machine can change it",
    ),
    (
        "a certificate that is missing",
        |scene| {
            let listen = scene.listen;
            let tls = "tls: { cert: \"file:no.pem\", key: \"env:NO_KEY\" }";
            scene.settings("");
            let admin = scene.admin;
            scene.write(
                "portcullis.yaml",
                &format!(
                    "listen: [{{ address: \"127.0.0.1:{listen}\", {tls} }}]\nadmin: {{ listen: 127.0.0.1:{admin} }}\n"
                ),
            );
            scene.env("NO_KEY", "x");
        },
        "problem",
        "file_unreadable",
        "no.pem: `listen.tls.cert`",
    ),
    (
        "an app that does not run",
        |scene| {
            scene.app = free_port();
            scene.policy("");
        },
        "problem",
        "unreachable",
        "connection refused",
    ),
    (
        "an app that is not well",
        |scene| {
            scene.app = serve("127.0.0.1:0", |_, _| (500, NOW, String::new())).port();
            scene.policy("");
        },
        "warning",
        "unhealthy",
        "GET /health 500",
    ),
    (
        "an app that does not speak HTTP",
        |scene| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            scene.app = listener.local_addr().unwrap().port();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let _ = { stream }.write_all(b"SSH-2.0-OpenSSH\r\n");
                }
            });
            scene.policy("");
        },
        "problem",
        "no_answer",
        "no proper answer",
    ),
    (
        "the gateway as its own app",
        |scene| {
            scene.app = scene.listen;
            scene.policy("");
        },
        "problem",
        "loop",
        "is the gateway itself",
    ),
    (
        "an app that others can reach",
        |scene| {
            scene.app = serve("0.0.0.0:0", healthy_app).port();
            scene.policy("");
        },
        "warning",
        "upstream_exposed",
        "also answers directly on 0.0.0.0:",
    ),
    (
        "an app in another time",
        |scene| {
            scene.app = serve("127.0.0.1:0", |_, _| (200, "Tue, 24 Nov 2020 13:47:01 GMT", String::new())).port();
            scene.policy("");
        },
        "warning",
        "clock",
        "days ahead of",
    ),
    (
        "an issuer in another time",
        |scene| {
            let body = |_: &str, _| (200, "Tue, 24 Nov 2020 13:47:01 GMT", PUBLISHED.to_owned());
            scene.provider(serve("127.0.0.1:0", body));
        },
        "problem",
        "clock",
        "days ahead of company",
    ),
    (
        "keys that are not there",
        |scene| scene.provider(serve("127.0.0.1:0", |_, _| (404, NOW, String::new()))),
        "problem",
        "unreachable",
        "/jwks  answers 404",
    ),
    (
        "an issuer that does not run",
        |scene| scene.provider(SocketAddr::from(([127, 0, 0, 1], free_port()))),
        "problem",
        "unreachable",
        "/jwks  connection refused",
    ),
    (
        "keys that are none",
        |scene| scene.provider(serve("127.0.0.1:0", |_, _| (200, NOW, "<html>".to_owned()))),
        "problem",
        "jwks",
        "neither a JSON Web Key nor a set of them",
    ),
    (
        "no keys",
        |scene| scene.provider(serve("127.0.0.1:0", |_, _| (200, NOW, "{\"keys\":[]}".to_owned()))),
        "problem",
        "no_keys",
        "holds no keys",
    ),
    (
        "a published secret",
        |scene| {
            scene.provider(serve("127.0.0.1:0", |_, _| {
                (200, NOW, PUBLISHED.replace("[{", "[{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ\"},{"))
            }));
        },
        "warning",
        "key_left_out",
        "a secret stands in a published set of keys",
    ),
    (
        "keys over plain HTTP",
        |scene| {
            scene.supabase(SocketAddr::from(([127, 0, 0, 1], 1)));
            scene.env("SUPABASE_URL", "http://project.invalid");
        },
        "problem",
        "plain_http",
        "whoever is on the way can put in a key",
    ),
    (
        "a legacy secret beside published keys",
        |scene| {
            let project = serve("127.0.0.1:0", |_, _| (200, NOW, PUBLISHED.to_owned()));
            scene.supabase(project);
            scene.env("SUPABASE_JWT_SECRET", SECRET);
        },
        "warning",
        "legacy_secret",
        "a legacy HS256 secret is configured beside published keys",
    ),
    (
        "the secret key of a project",
        |scene| {
            let project = serve("127.0.0.1:0", |_, _| (200, NOW, PUBLISHED.to_owned()));
            scene.supabase(project);
            scene.env("SUPABASE_KEY", "sb_secret_0123456789abcdef");
        },
        "problem",
        "service_key",
        "passes every row-level rule",
    ),
    (
        "an admin listener for everybody",
        |scene| {
            let admin = scene.admin;
            scene.settings(&format!("admin: {{ listen: 0.0.0.0:{admin} }}\n"));
        },
        "problem",
        "admin_exposed",
        "there is no admin token",
    ),
    (
        "a weak admin token",
        |scene| {
            let admin = scene.admin;
            scene.settings(&format!("admin: {{ listen: 127.0.0.1:{admin}, token: \"env:ADMIN_TOKEN\" }}\n"));
            scene.env("ADMIN_TOKEN", "abcabcabcabcabcabcabc");
        },
        "warning",
        "admin_token",
        "could be guessed",
    ),
    (
        "an admin token that is too short",
        |scene| {
            let admin = scene.admin;
            scene.settings(&format!("admin: {{ listen: 127.0.0.1:{admin}, token: \"env:ADMIN_TOKEN\" }}\n"));
            scene.env("ADMIN_TOKEN", "abc");
        },
        "problem",
        "admin_token",
        "has 3 characters",
    ),
    (
        "a listener for everybody without TLS",
        |scene| {
            let listen = scene.listen;
            scene.settings(&format!("listen: \"0.0.0.0:{listen}\"\n"));
        },
        "warning",
        "no_tls",
        "in the clear",
    ),
    (
        "a public URL without TLS",
        |scene| scene.settings("public_url: http://api.example.com\n"),
        "warning",
        "public_url",
        "http://api.example.com is not https",
    ),
    (
        "a mistake in the policy",
        |scene| scene.policy("  GET /x: { scope: a, access: admni }\n"),
        "problem",
        "P102",
        "unknown access `admni` (policies/app.yaml:10)",
    ),
    (
        "a role from user_metadata",
        |scene| {
            scene.supabase(serve("127.0.0.1:0", |_, _| (200, NOW, PUBLISHED.to_owned())));
            let text = fs::read_to_string(scene.path("policies/app.yaml")).unwrap();
            scene.write(
                "policies/app.yaml",
                &text.replace("env:SUPABASE_URL }", "env:SUPABASE_URL, claims: { roles: user_metadata.role } }"),
            );
        },
        "problem",
        "P401",
        "user_metadata",
    ),
    (
        "a condition on user_metadata",
        |scene| {
            scene.supabase(serve("127.0.0.1:0", |_, _| (200, NOW, PUBLISHED.to_owned())));
            let text = fs::read_to_string(scene.path("policies/app.yaml")).unwrap();
            let route = "routes:\n  GET /plan: { where: token.user_metadata.plan == \"paid\" }\n";
            scene.write("policies/app.yaml", &text.replace("routes:\n", route));
        },
        "warning",
        "user_metadata",
        "which users change themselves (policies/app.yaml:8)",
    ),
    (
        "a test that fails",
        |scene| {
            let text = fs::read_to_string(scene.path("policies/app.yaml")).unwrap();
            scene.write("policies/app.yaml", &text.replace("boss: allow", "boss: 403"));
        },
        "problem",
        "P601",
        "policies/app.yaml",
    ),
    (
        "no tests",
        |scene| {
            let text = fs::read_to_string(scene.path("policies/app.yaml")).unwrap();
            scene.write("policies/app.yaml", text.split("identities:").next().unwrap());
        },
        "warning",
        "no_tests",
        "there are no tests",
    ),
    (
        "a superuser who is refused",
        |scene| {
            let text = fs::read_to_string(scene.path("policies/app.yaml")).unwrap();
            let text = text.replace("can: \"*\" }", "can: \"*\" }, editor: { can: [\"posts:edit\"] }");
            scene.write(
                "policies/app.yaml",
                &text.replace("  /admin/**", "  POST /posts: { role: editor }\n  /admin/**"),
            );
        },
        "warning",
        "P505",
        "`admin` can do everything, but fails this role check",
    ),
    (
        "a mistake in the settings",
        |scene| scene.settings("lisen: x\n"),
        "problem",
        "settings",
        "the settings have mistakes",
    ),
    (
        "a gateway that runs something else",
        |scene| {
            scene.admin = serve("127.0.0.1:0", |_, _| {
                (200, NOW, "{\"policy\":{\"running\":\"deadbeef\",\"error\":null}}".to_owned())
            })
            .port();
            scene.settings("");
        },
        "problem",
        "stale",
        "runs deadbeef, and on disk is ",
    ),
    (
        "a gateway that rejected what is on disk",
        |scene| {
            scene.admin = serve("127.0.0.1:0", |_, _| {
                let body =
                    "{\"policy\":{\"running\":\"deadbeef\",\"error\":{\"summary\":\"error[P102] unknown role\"}}}";
                (200, NOW, body.to_owned())
            })
            .port();
            scene.settings("");
        },
        "problem",
        "stale",
        "still runs deadbeef; what is on disk was rejected: error[P102] unknown role",
    ),
    (
        "something else on the admin address",
        |scene| {
            scene.admin = serve("127.0.0.1:0", healthy_app).port();
            scene.settings("");
        },
        "warning",
        "status",
        "belongs to something else",
    ),
    (
        "users that nobody has added",
        |scene| {
            scene.login();
            fs::remove_file(scene.path("portcullis.db")).unwrap();
        },
        "warning",
        "no_users",
        "sqlite:portcullis.db: not there yet: nobody can log in",
    ),
    (
        "users who are all disabled",
        |scene| scene.login_with("UPDATE portcullis_users SET disabled = 1"),
        "warning",
        "no_users",
        "1 user, all disabled or without a password",
    ),
    (
        "a store for everybody",
        |scene| {
            scene.login();
            scene.mode("portcullis.db", 0o644);
        },
        "problem",
        "store_mode",
        "portcullis.db: others can read password hashes and keys in it (mode 0644)",
    ),
    (
        "a store that is none",
        |scene| {
            scene.write("portcullis.db", &"no database at all ".repeat(100));
            scene.mode("portcullis.db", 0o600);
        },
        "problem",
        "store",
        "is not a database of SQLite",
    ),
    (
        "a store in a folder that is missing",
        |scene| scene.env("DATABASE_URL", "sqlite:nowhere/users.db"),
        "problem",
        "store",
        "the folder nowhere does not exist (set by `DATABASE_URL`)",
    ),
    (
        "a database that does not run",
        |scene| scene.env("DATABASE_URL", &format!("postgres://ada:{SECRET}@127.0.0.1:{}/users", free_port())),
        "problem",
        "store",
        "no connection to PostgreSQL",
    ),
    (
        "Redis that does not run",
        |scene| scene.env("REDIS_URL", &format!("redis://:{SECRET}@127.0.0.1:{}", free_port())),
        "problem",
        "redis",
        "(set by `REDIS_URL`)",
    ),
    (
        "a hash that nobody can read",
        |scene| scene.login_with("UPDATE portcullis_users SET hash_kind = 'unknown', hash = 'md5:hunter2'"),
        "problem",
        "hash_unknown",
        "1 user: a hash that cannot be read",
    ),
    (
        "a weak hash",
        |scene| scene.login_with("UPDATE portcullis_users SET hash_kind = '$2b$04'"),
        "warning",
        "hash_weak",
        "1 user: $2b$04, which is quickly guessed",
    ),
    (
        "a role that the policy does not know",
        |scene| scene.login_with("UPDATE portcullis_users SET roles = '[\"editr\"]'"),
        "warning",
        "role_unknown",
        "1 user with role `editr`",
    ),
    (
        "an app that does not check signatures",
        |scene| {
            fs::create_dir(scene.path("app")).unwrap();
            scene.write("app/requirements.txt", "fastapi==0.115\n");
            scene.write("app/main.py", "import jwt\nclaims = jwt.get(token, options={\"verify_signature\": False})\n");
            scene.write("app/.gitignore", ".env\n");
            scene.arguments = vec!["--project".to_owned(), "app".to_owned()];
        },
        "problem",
        "verify_off",
        "main.py:2: takes tokens whose signature nobody checked",
    ),
    (
        "an app with a secret in its code",
        |scene| {
            fs::create_dir(scene.path("app")).unwrap();
            scene.write("app/requirements.txt", "fastapi\n");
            scene.write("app/main.py", "SECRET_KEY = \"your-secret-key-here\"\n");
            scene.arguments = vec!["--project".to_owned(), "app".to_owned()];
        },
        "problem",
        "literal_secret",
        "main.py:1: a secret is written in the code",
    ),
    (
        "an app with the tutorial's users",
        |scene| {
            fs::create_dir(scene.path("app")).unwrap();
            scene.write("app/pyproject.toml", "[project]\ndependencies = [\"fastapi\"]\n");
            scene.write("app/main.py", "user = fake_users_db[name]\n");
            scene.arguments = vec!["--project".to_owned(), "app".to_owned()];
        },
        "warning",
        "fake_users",
        "main.py:1: still has the tutorial's users",
    ),
    (
        "an app that logs in by itself",
        |scene| {
            fs::create_dir(scene.path("app")).unwrap();
            scene.write("app/requirements.txt", "fastapi\n");
            scene.write(
                "app/auth.py",
                "from x import OAuth2PasswordBearer\nscheme = OAuth2PasswordBearer(tokenUrl=\"token\")\n",
            );
            scene.arguments = vec!["--project".to_owned(), "app".to_owned()];
        },
        "warning",
        "own_login",
        "auth.py:2: reads bearer tokens itself",
    ),
];

#[test]
fn each_fault_is_found_and_nothing_else() {
    let app = serve("127.0.0.1:0", healthy_app);
    let wrong = Arc::new(std::sync::Mutex::new(Vec::new()));
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (wrong, next) = (Arc::clone(&wrong), Arc::clone(&next));
            std::thread::spawn(move || {
                while let Some((what, plant, level, code, text)) = FAULTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut scene = Scene::new(app);
                    plant(&mut scene);
                    let (exit, report) = scene.doctor();
                    let found = found(&report);
                    let fits = matches!(&found[..], [(is, named, message)]
                        if is == level && named == code && message.contains(text));
                    if !fits || exit != Some(i32::from(*level == "problem")) {
                        wrong.lock().unwrap().push(format!("{what}: exit {exit:?}, {found:#?}"));
                    }
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let wrong = wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), FAULTS.len(), wrong.join("\n"));
    println!("{} planted faults found", FAULTS.len());
}

#[test]
fn a_healthy_folder_has_nothing_to_report() {
    let scene = Scene::new(serve("127.0.0.1:0", healthy_app));
    let (exit, report) = scene.doctor();
    assert_eq!((exit, found(&report)), (Some(0), Vec::new()), "{report:#}");
    for section in ["environment", "files", "keys", "upstreams", "exposure", "policy"] {
        let findings = report["findings"].as_array().unwrap();
        assert!(findings.iter().any(|finding| finding["section"] == section && finding["level"] == "ok"), "{section}");
    }
}

#[test]
fn a_healthy_folder_with_users_has_nothing_to_report() {
    let scene = Scene::new(serve("127.0.0.1:0", healthy_app));
    scene.login();
    let (exit, report) = scene.doctor();
    assert_eq!((exit, found(&report)), (Some(0), Vec::new()), "{report:#}");
    let text = report.to_string();
    assert!(text.contains("1 user, 0 disabled") && text.contains("$argon2id$v=19$m=19456,t=2,p=1"), "{text}");
}

#[test]
fn what_init_makes_is_healthy() {
    let mut scene = Scene::new(serve("127.0.0.1:0", healthy_app));
    let (upstream, listen, admin) = (
        format!("http://127.0.0.1:{}", scene.app),
        format!("127.0.0.1:{}", scene.listen),
        format!("127.0.0.1:{}", scene.admin),
    );
    scene.dir = tempfile::tempdir().unwrap();
    let mut init = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    init.current_dir(scene.dir.path()).env_clear().args(["init", "--login", "none", "--upstream", &upstream]);
    init.args(["--listen", &listen, "--admin-listen", &admin]).stdin(Stdio::null());
    assert!(init.output().unwrap().status.success());
    let (exit, report) = scene.doctor();
    assert_eq!((exit, found(&report)), (Some(0), Vec::new()), "{report:#}");
}

#[test]
fn a_secret_under_version_control_is_found() {
    let scene = Scene::new(serve("127.0.0.1:0", healthy_app));
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(scene.dir.path()).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        git.status().is_ok_and(|status| status.success())
    };
    if !git(&["init"]) {
        println!("skipped: git is not installed");
        return;
    }
    assert!(git(&["add", "-f", ".env"]));
    let (_, report) = scene.doctor();
    let found = found(&report);
    assert!(matches!(&found[..], [(level, code, _)] if level == "problem" && code == "env_file_tracked"), "{found:?}");
}

/// What a provider says in its discovery document: who it is, and where its keys are.
type Says = fn(&str) -> (String, String);

/// A scene with an OpenID provider that speaks TLS with a certificate good until the beginning of a year, and says that
/// it is an issuer.
fn with_provider(until: i32, says: Says) -> Scene {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
    let mut scene = Scene::new(serve("127.0.0.1:0", healthy_app));
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (config, own) = (Arc::new(config), base.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let mut head = [0; 4096];
            let Ok(read) = stream.read(&mut head) else { continue };
            let body = if String::from_utf8_lossy(&head[..read]).starts_with("GET /jwks") {
                PUBLISHED.to_owned()
            } else {
                let (issuer, keys) = says(&own);
                format!("{{\"issuer\":\"{issuer}\",\"jwks_uri\":\"{keys}\"}}")
            };
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    scene.policy_with(&format!("identity: {{ company: {{ preset: oidc, issuer: \"{base}\", audience: api }} }}"), "");
    fs::remove_file(scene.path(".env")).unwrap();
    scene.write("ca.pem", &root.pem());
    let ca = scene.path("ca.pem").display().to_string();
    scene.env("SSL_CERT_FILE", &ca);
    scene
}

#[test]
fn the_keys_of_an_openid_provider_are_looked_at() {
    let itself: Says = |own| (own.to_owned(), format!("{own}/jwks"));
    let (exit, report) = with_provider(2040, itself).doctor();
    assert_eq!((exit, found(&report)), (Some(0), Vec::new()), "{report:#}");
    for (until, says, code, words) in [
        (2021, itself, "certificate", ["TLS: the certificate expired", "days ago"]),
        (
            2040,
            |own| (format!("{own}/"), format!("{own}/jwks")),
            "issuer_mismatch",
            ["names the issuer \"https://", "not \"https://"],
        ),
        // What the gateway would not fetch is not fetched here either.
        (
            2040,
            |own| (own.to_owned(), "https://169.254.169.254/jwks".to_owned()),
            "discovery",
            ["/.well-known/openid-configuration", "state `jwks_url`"],
        ),
    ] {
        let (exit, report) = with_provider(until, says).doctor();
        let found = found(&report);
        let fits = matches!(&found[..], [(level, named, message)] if level == "problem" && named == code
            && words.iter().all(|words| message.contains(words)));
        assert!(fits && exit == Some(1), "{code}: {found:#?}");
    }
}

#[test]
fn offline_asks_nobody() {
    let mut scene = Scene::new(SocketAddr::from(([127, 0, 0, 1], free_port())));
    scene.arguments = vec!["--offline".to_owned()];
    let (exit, report) = scene.doctor();
    assert_eq!((exit, found(&report)), (Some(0), Vec::new()), "{report:#}");
}

#[test]
fn the_text_has_a_mark_for_each_finding_and_what_to_do() {
    let scene = Scene::new(SocketAddr::from(([127, 0, 0, 1], free_port())));
    let run = |locale: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.current_dir(scene.dir.path()).env_clear().env("LC_ALL", locale).arg("doctor");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let text = run("C.UTF-8");
    assert!(text.contains("\n  ✗ 127.0.0.1:") && text.contains("→ is the app running?"), "{text}");
    assert!(text.ends_with(" 1 problem\n"), "{text}");
    let text = run("C");
    assert!(text.is_ascii() && text.contains("\n  x 127.0.0.1:") && text.contains("-> is the app running?"), "{text}");
    assert!(Path::new(&scene.path(".env")).exists());
}
