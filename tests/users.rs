//! `user`, `session`, `token inspect` and `token revoke` as processes, on SQLite in a folder of their own: what they
//! print, return, store, and never show.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use portcullis::clock::{Clock as _, Timestamp};
use portcullis::config::{Database, StoreUrl};
use portcullis::identity::account::AccountName;
use portcullis::password::{PasswordHash, Verdict};
use portcullis::server::SystemClock;
use portcullis::store::revoked::RevokedList;
use portcullis::store::{Session, Stores, TokenHash, User};
use serde_json::Value;

const POLICY: &str = "
version: 1
app: items
upstream: http://127.0.0.1:8000
identity:
  local: { preset: local, secret: env:SECRET_KEY }
roles:
  viewer: { grants: [items:read] }
  editor: { grants: [items:write] }
  admin: { can: '*' }
routes:
  GET /items: { scope: items:read }
  POST /items: { scope: items:write }
  /admin/**: { role: admin }
identities:
  ann: { id: u1, roles: editor }
";

const PASSWORD: &str = "green lantern on the pier";
const OTHER: &str = "another lantern in the fog";
/// Of `secret`, cost 4.
const BCRYPT: &str = "$2b$04$f7opLDtqpGfJ0C523e2s/.wv5YfLomEMEv8hVlLUvY8/0vI8KHixG";

struct Place {
    dir: tempfile::TempDir,
}

struct Output {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("policies")).unwrap();
        fs::write(dir.path().join("policies/items.yaml"), POLICY).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(arguments).current_dir(self.dir.path()).env_clear();
        command.env("SECRET_KEY", "5e1f0c7a9b3d8e2f4a6c1b0d9e8f7a6b5c4d3e2f1a0b9c8d");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command. Whatever it is, it shows no password and no hash.
    fn run(&self, arguments: &[&str], stdin: &str) -> Output {
        let output = self.run_showing_hashes(arguments, stdin);
        for secret in [PASSWORD, OTHER, "$argon2id$v", "$2b$"] {
            assert!(!output.out.contains(secret) && !output.err.contains(secret), "{arguments:?} shows {secret}");
        }
        output
    }

    fn run_showing_hashes(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut process = self.command(arguments).spawn().unwrap();
        // A command that reads nothing closes its end.
        let _ = process.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = process.wait_with_output().unwrap();
        Output {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn add(&self, name: &str, more: &[&str]) {
        let arguments = [&["user", "add", name, "--password-stdin"], more].concat();
        let output = self.run(&arguments, &format!("{PASSWORD}\n"));
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{}", output.out);
    }

    /// Asks the store itself.
    fn store<T>(&self, ask: impl AsyncFnOnce(Stores) -> T) -> T {
        let store = StoreUrl { database: Database::Sqlite(self.path("portcullis.db")), setting: "store" };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { ask(Stores::open(&store, None).await.unwrap()).await })
    }

    fn user(&self, name: &str) -> User {
        let account = AccountName::parse(name).unwrap();
        self.store(async |stores| stores.users.by_account(&account).await.unwrap()).expect(name)
    }

    fn opens(&self, name: &str, password: &str) -> bool {
        let hash = self.user(name).hash.expect("there is a hash");
        PasswordHash::parse(hash.expose()).unwrap().verify(password.as_bytes()).unwrap() != Verdict::NoMatch
    }

    fn log_in(&self, name: &str, session: &str) {
        let (user, now) = (self.user(name), SystemClock.now());
        let session = Session {
            id: session.to_owned(),
            user: user.id,
            issuer: "local".to_owned(),
            app: "items".to_owned(),
            scopes: vec!["items:read".to_owned()],
            started: now,
            expires: now.plus(Duration::from_secs(3600)),
            used: now,
            address: Some("203.0.113.9".parse().unwrap()),
            user_agent: "curl/8.14\u{1b}[31m".to_owned(),
            ended: None,
        };
        let hash = digest(&SHA256, refresh_token(&session.id).as_bytes());
        let hash = TokenHash(hash.as_ref().try_into().unwrap());
        self.store(async |stores| stores.sessions.start(&session, &hash).await.unwrap());
    }

    fn is_live(&self, session: &str) -> bool {
        let session = self.store(async |stores| stores.sessions.get(session).await.unwrap());
        session.is_some_and(|session| session.is_live(SystemClock.now()))
    }

    /// What a gateway on this store refuses.
    fn refuses(&self, sid: Option<&str>, sub: Option<&str>, issued: Timestamp) -> bool {
        let list = self.store(async |stores| {
            let list = RevokedList::new(stores.revocations.clone());
            list.load(SystemClock.now()).await.unwrap();
            list
        });
        list.is_revoked("local", None, sid, sub, Some(issued.as_seconds()))
    }
}

/// The refresh token of a session that a test began.
fn refresh_token(session: &str) -> String {
    format!("prt_{session:x<43}")
}

#[test]
fn a_user_is_added_changed_and_removed() {
    let place = Place::new();
    let output = place.run(
        &[
            "user",
            "add",
            "Ann",
            "--email",
            "ann@example.com",
            "--role",
            "editor",
            "--scope",
            "items:read",
            "--password-stdin",
        ],
        &format!("{PASSWORD}\n"),
    );
    assert_eq!((output.code, output.err.as_str()), (0, ""));
    let ann = place.user("ann");
    assert_eq!(output.out, format!("added Ann ({}) · role editor · scope items:read\n", ann.id));
    assert_eq!(ann.id.as_bytes()[14], b'7');
    assert!(place.opens("ANN", PASSWORD) && !place.opens("ann", OTHER));

    let list = place.run(&["user", "list"], "");
    assert_eq!(
        list.out.lines().next().unwrap(),
        "USER  STATE   ROLES   SCOPES      TENANT  EMAIL            ADDED (UTC)"
    );
    assert!(
        list.out.lines().nth(1).unwrap().starts_with("Ann   active  editor  items:read  –       ann@example.com  20")
    );
    let json: Value = serde_json::from_str(&place.run(&["user", "list", "--format", "json"], "").out).unwrap();
    assert_eq!((&json["username"], &json["password_format"]), (&"Ann".into(), &"argon2id".into()));

    let output = place.run(&["user", "set-password", "ann", "--password-stdin"], OTHER);
    assert_eq!((output.code, output.out.as_str(), output.err.as_str()), (0, "Ann has a new password\n", ""));
    assert!(place.opens("ann", OTHER) && !place.opens("ann", PASSWORD));

    for (arguments, expected) in [
        (&["user", "disable", "ann"][..], "Ann is disabled\n"),
        (&["user", "disable", "ann"], "Ann was disabled already\n"),
        (&["user", "enable", "ann"], "Ann is enabled\n"),
        (&["user", "enable", "ann"], "Ann was enabled already\n"),
        (
            &["user", "grant", "ann", "--role", "admin,viewer"],
            "Ann · roles editor, admin, viewer · scope items:read · from the next login or refresh on\n",
        ),
        (
            &["user", "grant", "ann", "--remove-role", "editor", "--remove-scope", "items:read"],
            "Ann · roles admin, viewer · no scopes · tokens given out before are refused\n",
        ),
        (&["user", "grant", "ann", "--role", "admin"], "Ann had all that already · roles admin, viewer · no scopes\n"),
        (&["user", "remove", "ann", "--yes"], "removed Ann\n"),
    ] {
        let output = place.run(arguments, "");
        assert_eq!((output.code, output.out.as_str(), output.err.as_str()), (0, expected, ""), "{arguments:?}");
    }
    assert_eq!(place.run(&["user", "show", "ann"], "").code, 1);
}

#[test]
fn mistakes_are_refused_with_words_that_lead_on() {
    let place = Place::new();
    let cases: &[(&[&str], &str, i32, &str)] = &[
        (&["user", "add", "bob", "--password-stdin"], "short", 1, "fewer than 8 characters"),
        (&["user", "add", "bob", "--password-stdin"], "password1\n", 1, "tried first"),
        (&["user", "add", "longbob@example.com", "--password-stdin"], "LongBob@example.com", 1, "name of the account"),
        (&["user", "add", "bob", "--password-stdin"], "two lines of text\nare one too many\n", 1, "it takes one line"),
        (
            &["user", "add", "bob", "--role", "editr", "--no-password"],
            "",
            1,
            "unknown role `editr`: did you mean `editor`?",
        ),
        (&["user", "add", "bob", "--scope", "items:raed", "--no-password"], "", 1, "did you mean `items:read`?"),
        (&["user", "add", "bob", "--role", "a b", "--no-password"], "", 2, "without blanks"),
        (&["user", "add", "bob", "--email", "bob", "--no-password"], "", 2, "like `ann@example.com`"),
        (&["user", "add", " \u{200b}", "--no-password"], "", 2, "the name is empty"),
        (&["user", "add", "bob"], "", 2, "--password-stdin"),
        (&["user", "add", "bob", "--password", "x"], "", 2, "unexpected argument"),
        (&["user", "show", "bob"], "", 1, "no user `bob`"),
        (&["user", "grant", "bob"], "", 2, "required"),
        (&["session", "revoke"], "", 2, "required"),
        (&["user", "export"], "", 1, "no users yet: sqlite:portcullis.db does not exist"),
    ];
    for (arguments, stdin, code, expected) in cases {
        let output = place.run(arguments, stdin);
        assert!(output.err.contains(expected), "{arguments:?}: {}", output.err);
        assert_eq!((output.code, output.out.as_str()), (*code, ""), "{arguments:?}");
    }
    place.add("Bob", &[]);
    let output = place.run(&["user", "add", "ＢＯＢ", "--password-stdin"], PASSWORD);
    assert_eq!(output.code, 1);
    assert!(
        output.err.contains("there is a user `ＢＯＢ` already (as `Bob`, which is the same name)"),
        "{}",
        output.err
    );
    let output = place.run(&["user", "remove", "bob"], "");
    assert_eq!(output.code, 2);
    assert!(output.err.contains("--yes"), "{}", output.err);
    let output = place.run(&["user", "grant", "bob", "--role", "later", "--yes"], "");
    assert_eq!(output.code, 0, "{}", output.err);
    assert!(output.err.contains("warning: unknown role `later`"), "{}", output.err);
    assert!(place.run(&["user", "show", "bob"], "").out.contains("later (not in the policy)"));
}

#[test]
fn looking_makes_no_store() {
    let place = Place::new();
    place.write("users.csv", "username\nann\n");
    for (arguments, expected) in [
        (&["user", "list"][..], "no users yet: sqlite:portcullis.db does not exist"),
        (&["session", "list"], "no sessions yet"),
        (&["key", "list"], "no keys yet"),
        (&["user", "import", "users.csv", "--dry-run"], ""),
    ] {
        let output = place.run(arguments, "");
        assert_eq!(output.code, 0, "{}", output.err);
        assert!(output.err.contains(expected), "{arguments:?}: {}", output.err);
        assert!(!place.path("portcullis.db").exists(), "{arguments:?}");
    }
}

#[test]
fn the_store_is_for_its_owner_only_and_one_that_is_down_is_named() {
    let place = Place::new();
    place.add("ann", &[]);
    for file in fs::read_dir(place.dir.path()).unwrap().map(Result::unwrap) {
        if file.file_name().to_string_lossy().starts_with("portcullis.db") {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.file_name());
        }
    }
    let mut command = place.command(&["user", "list"]);
    let output = command.env("DATABASE_URL", "postgres://ann:hidden@127.0.0.1:1/x").output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("DATABASE_URL") && !err.contains("hidden"), "{err}");
}

#[test]
fn who_is_disabled_removed_or_gets_a_new_password_is_logged_out_everywhere() {
    let place = Place::new();
    for (name, arguments, stdin) in [
        ("ann", &["user", "disable", "ann"][..], ""),
        ("bob", &["user", "remove", "bob", "--yes"], ""),
        ("cid", &["user", "set-password", "cid", "--password-stdin"], OTHER),
        ("dan", &["session", "revoke", "--user", "dan"], ""),
    ] {
        place.add(name, &[]);
        let (one, two) = (format!("{name}-1"), format!("{name}-2"));
        place.log_in(name, &one);
        place.log_in(name, &two);
        let user = place.user(name);
        let before = SystemClock.now().minus(Duration::from_secs(2));
        let output = place.run(arguments, stdin);
        assert_eq!(output.code, 0, "{}", output.err);
        assert!(output.out.contains("2 sessions"), "{}", output.out);
        for session in [&one, &two] {
            assert!(!place.is_live(session), "{session}");
            assert!(place.refuses(Some(session), None, before), "{session}");
        }
        assert!(place.refuses(None, Some(&user.id), before), "{name}");
        assert!(!place.refuses(None, Some(&user.id), SystemClock.now().plus(Duration::from_secs(2))), "{name}");
    }
}

#[test]
fn sessions_are_listed_and_ended() {
    let place = Place::new();
    place.add("ann", &[]);
    place.add("bob", &[]);
    for (name, session) in [("ann", "s-1"), ("ann", "s-2"), ("bob", "s-3")] {
        place.log_in(name, session);
    }
    let list = place.run(&["session", "list", "ann"], "").out;
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.contains("203.0.113.9  curl/8.14?[31m"), "{list}");
    let output = place.run(&["session", "revoke", "s-1"], "");
    assert_eq!((output.code, output.out.as_str()), (0, "session s-1 ended\n"));
    let output = place.run(&["session", "revoke", "s-1"], "");
    assert_eq!((output.code, output.out.as_str()), (0, "session s-1 had ended already; its tokens are refused\n"));
    assert_eq!(place.run(&["session", "revoke", "s-9"], "").code, 1);
    assert_eq!(place.run(&["session", "revoke", "--all"], "").code, 2);
    let output = place.run(&["session", "revoke", "--all", "--yes"], "");
    assert_eq!((output.code, output.out.as_str()), (0, "2 sessions ended\n"));
    let output = place.run(&["session", "list"], "");
    assert_eq!((output.code, output.out.as_str(), output.err.as_str()), (0, "", "nobody is logged in\n"));
}

#[test]
fn a_token_is_looked_into_and_revoked_and_never_shown() {
    let place = Place::new();
    let token = place.run(&["token", "mint", "--as", "ann"], "").out.trim().to_owned();
    let run = |arguments: &[&str], stdin: &str| {
        let output = place.run(arguments, stdin);
        assert!(!output.out.contains(&token) && !output.err.contains(&token), "{arguments:?}");
        output
    };
    let output = run(&["token", "inspect", "-"], &format!("Bearer {token}\n"));
    assert_eq!(output.code, 0, "{}{}", output.out, output.err);
    for expected in [
        "✓ signature  HS256",
        "✓ audience   items",
        "✓ issuer     local · iss portcullis",
        "✓ revoked    no",
        "accepted as u1",
    ] {
        assert!(output.out.contains(expected), "{expected} in {}", output.out);
    }
    let (signed, _) = token.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", "A".repeat(43));
    let output = run(&["token", "inspect", &forged], "");
    assert_eq!(output.code, 1);
    assert!(output.out.contains("✗ signature  HS256 · the signature does not match"), "{}", output.out);
    assert!(output.out.contains("refused: ") && output.out.contains("token_bad_signature"), "{}", output.out);
    assert_eq!(run(&["token", "inspect", "no token"], "").code, 1);

    assert_eq!(run(&["token", "revoke", &forged], "").code, 1);
    place.write("token", &token);
    let output = run(&["token", "revoke", "@token"], "");
    assert_eq!(output.code, 0, "{}", output.err);
    assert!(output.out.starts_with("revoked token ") && output.out.contains("issuer local"), "{}", output.out);
    let output = run(&["token", "inspect", "@token"], "");
    assert_eq!(output.code, 1);
    assert!(output.out.contains("✗ revoked    yes: this token"), "{}", output.out);

    place.add("bob", &[]);
    place.log_in("bob", "s-1");
    let output = run(&["token", "revoke", "--sid", "s-1"], "");
    assert_eq!(output.code, 0, "{}", output.err);
    assert!(!place.is_live("s-1") && place.refuses(Some("s-1"), None, SystemClock.now()));
    let before = SystemClock.now();
    assert_eq!(run(&["token", "revoke", "--sub", "u1"], "").code, 0);
    assert!(place.refuses(None, Some("u1"), before) && !place.refuses(None, Some("u1"), SystemClock.now()));
    assert_eq!(run(&["token", "revoke", "--jti", "x", "--issuer", "locl"], "").code, 1);
}

/// (file, text, user, password)
fn exports() -> Vec<(&'static str, String, &'static str, &'static str)> {
    let rows: Vec<Vec<&str>> = include_str!("../src/password/foreign.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" | ").collect())
        .filter(|row: &Vec<&str>| row.len() == 3 && row[1] != "LONG")
        .collect();
    let of = |beginning: &str| {
        let row = rows.iter().find(|row| row[2].starts_with(beginning)).expect(beginning);
        (row[2], row[1])
    };
    let (bcrypt, of_bcrypt) = of("$2b$");
    let (django, of_django) = of("pbkdf2_sha256$");
    vec![
        ("a.csv", format!("username,password_hash\nann,{bcrypt}\n"), "ann", of_bcrypt),
        ("a.json", format!("[{{\"username\":\"ann\",\"password\":\"{bcrypt}\"}}]"), "ann", of_bcrypt),
        ("a.jsonl", format!("{{\"email\":\"ann@example.com\",\"hash\":\"{bcrypt}\"}}\n"), "ann@example.com", of_bcrypt),
        (
            "fastapi.json",
            format!("{{\"johndoe\":\n{{\"hashed_password\":\"{bcrypt}\",\"disabled\":false}}}}"),
            "johndoe",
            of_bcrypt,
        ),
        (
            "django.json",
            format!(
                "[{{\"model\":\"auth.user\",\"pk\":1,\"fields\":{{\"username\":\"ann\",\"password\":\"{django}\",\"is_active\":true,\"groups\":[]}}}}]"
            ),
            "ann",
            of_django,
        ),
        (
            "supabase.csv",
            format!(
                "id,aud,role,email,encrypted_password\n0193530c-0000-7000-8000-000000000001,authenticated,authenticated,ann@example.com,{bcrypt}\n"
            ),
            "ann@example.com",
            of_bcrypt,
        ),
        (
            "auth0.json",
            format!(
                "{{\"email\":\"ann@example.com\",\"email_verified\":true,\"custom_password_hash\":{{\"algorithm\":\"bcrypt\",\"hash\":{{\"value\":\"{bcrypt}\"}}}}}}"
            ),
            "ann@example.com",
            of_bcrypt,
        ),
        ("plain.csv", format!("username,password\nann,{PASSWORD}\n"), "ann", PASSWORD),
    ]
}

#[test]
fn users_of_other_systems_log_in_with_their_passwords_after_an_import_and_survive_a_round_trip() {
    for (file, text, user, password) in exports() {
        let place = Place::new();
        place.write(file, &text);
        let output = place.run(&["user", "import", file], "");
        assert_eq!(output.code, 0, "{file}: {}", output.err);
        assert!(output.out.starts_with("added 1 user · read as "), "{file}: {}", output.out);
        assert!(place.opens(user, password), "{file}");

        let output = place.run(&["user", "export", "--with-hashes", "--output", "all.jsonl"], "");
        assert_eq!(output.code, 0, "{file}: {}", output.err);
        let again = Place::new();
        fs::copy(place.path("all.jsonl"), again.path("all.jsonl")).unwrap();
        let output = again.run(&["user", "import", "all.jsonl"], "");
        assert_eq!(output.code, 0, "{file}: {}", output.err);
        assert!(again.opens(user, password), "{file}");
        assert_eq!(again.user(user).id, place.user(user).id, "{file}");
    }
}

#[test]
fn every_format_that_is_verified_can_be_imported() {
    let place = Place::new();
    let hashes: Vec<&str> = include_str!("../src/password/foreign.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(" | ").nth(2))
        .collect();
    let row = |(number, hash): (usize, &&str)| format!("u{number},\"{hash}\"\n");
    for column in ["password", "hashed_password"] {
        let rows: String = hashes.iter().enumerate().map(row).collect();
        place.write("users.csv", &format!("username,{column}\n{rows}"));
        let output = place.run(&["user", "import", "users.csv", "--update"], "");
        assert_eq!((output.code, output.err.as_str()), (0, ""));
        assert!(!output.out.contains("hashed here"), "{}", output.out);
    }
    let stored = place.store(async |stores| stores.users.list(None, 1000).await.unwrap());
    assert_eq!(stored.len(), hashes.len());
    for user in stored {
        let number: usize = user.name.trim_start_matches('u').parse().unwrap();
        assert_eq!(user.hash.unwrap().expose(), hashes[number]);
    }
}

#[test]
fn an_export_is_for_its_owner_and_has_no_hashes_unless_they_are_asked_for() {
    let place = Place::new();
    place.add("ann", &["--tenant", "acme"]);
    let output = place.run(&["user", "export"], "");
    assert_eq!(output.code, 0);
    let user: Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!((&user["tenant"], &user["password_hash"]), (&"acme".into(), &Value::Null));
    assert_eq!(place.run(&["user", "export", "--with-hashes", "-o", "a.jsonl"], "").code, 0);
    assert_eq!(fs::metadata(place.path("a.jsonl")).unwrap().permissions().mode() & 0o777, 0o600);
    let output = place.run(&["user", "export", "-o", "a.jsonl"], "");
    assert_eq!((output.code, output.err.as_str()), (1, "error: a.jsonl exists already\n"));
    let mut command = place.command(&["user", "export", "--with-hashes"]);
    let open = fs::File::create(place.path("b.jsonl")).unwrap();
    let output = command.stdout(open).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("others may read them"));
}

#[test]
fn an_import_reports_every_bad_row_and_is_all_or_nothing() {
    let place = Place::new();
    place.add("taken", &[]);
    place.write(
        "users.csv",
        &format!(
            "username,password_hash,password,roles,disabled\n\
             ann,{BCRYPT},,editor,\n\
             bob,$1$abc$hiddenpart,,,\n\
             Ann,,,,\n\
             TAKEN,,,,\n\
             cid,,short,,\n\
             dan,hiddenpart,,,\n\
             eve,,,,perhaps\n\
             fay,x\n\
             gus,,{PASSWORD},viewer,no\n"
        ),
    );
    let output = place.run(&["user", "import", "users.csv"], "");
    assert_eq!((output.code, output.out.as_str()), (1, ""));
    assert!(!output.err.contains("hiddenpart"), "{}", output.err);
    let lines: Vec<&str> = output.err.lines().collect();
    for (line, expected) in lines.iter().zip([
        "error: users.csv:3: `bob`: ",
        "error: users.csv:4: `Ann`: the same name as line 2",
        "error: users.csv:5: `TAKEN`: there is a user of this name already, as `taken` (--update changes users)",
        "error: users.csv:6: `cid`: the password has fewer than 8 characters",
        "error: users.csv:7: `dan`: not a password hash of a known format",
        "error: users.csv:8: `eve`: `disabled` is neither true nor false",
        "error: users.csv:9: 2 values for 5 columns",
        "",
        "7 bad rows of 9 rows; nothing was stored",
    ]) {
        assert!(line.starts_with(expected), "{line} · {expected}");
    }
    assert!(lines[0].contains("$1$"), "{}", lines[0]);
    assert_eq!(place.run(&["user", "list", "--format", "json"], "").out.lines().count(), 1);

    let output = place.run(&["user", "import", "users.csv", "--skip-bad", "--dry-run"], "");
    assert_eq!(output.code, 0);
    assert_eq!(output.out, "would add 2 users, skipped 7 bad rows · read as csv · 1 bcrypt, 1 hashed here\n");
    assert_eq!(place.run(&["user", "list", "--format", "json"], "").out.lines().count(), 1);
    let output = place.run(&["user", "import", "users.csv", "--skip-bad"], "");
    assert_eq!(output.code, 0);
    assert!(place.opens("gus", PASSWORD));
    assert_eq!(place.user("ann").roles, ["editor"]);
}

#[test]
fn an_update_changes_what_the_file_states_and_ends_what_it_takes_away() {
    let place = Place::new();
    place.add("ann", &["--role", "editor,viewer", "--email", "ann@example.com"]);
    place.add("bob", &[]);
    place.log_in("ann", "s-1");
    place.log_in("bob", "s-2");
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    place.write("users.csv", "username,roles,disabled\nann,viewer,\nbob,,true\n");
    let before = SystemClock.now();
    let output = place.run(&["user", "import", "users.csv", "--update"], "");
    assert_eq!((output.code, output.err.as_str()), (0, ""));
    assert_eq!(output.out, "added 0 users, changed 2 · read as csv · 2 without a password\n");
    let (after, hash) = (place.user("ann"), |user: &User| user.hash.as_ref().unwrap().expose().clone());
    assert_eq!((after.roles, after.email), (vec!["viewer".to_owned()], ann.email.clone()));
    assert_eq!(hash(&place.user("ann")), hash(&ann));
    assert!(place.is_live("s-1") && place.refuses(None, Some(&ann.id), before));
    assert!(
        place.user("bob").disabled
            && !place.is_live("s-2")
            && place.refuses(None, Some(&bob.id), before.minus(Duration::from_secs(1)))
    );
}

#[test]
fn unknown_roles_of_a_file_are_counted() {
    let place = Place::new();
    place.write("users.csv", "username,roles\nann,editr\nbob,editr viewer\n");
    let output = place.run(&["user", "import", "users.csv"], "");
    assert_eq!((output.code, output.out.as_str()), (1, ""));
    assert!(output.err.contains("error: unknown role `editr`: did you mean `editor`? (2 users)"), "{}", output.err);
    assert_eq!(place.run(&["user", "import", "users.csv", "--yes"], "").code, 0);
    fs::write(place.path("policies/items.yaml"), "version: 1\nroutes: {").unwrap();
    place.write("more.csv", "username,roles\ncid,editor\n");
    assert_eq!(place.run(&["user", "import", "more.csv"], "").code, 3);
    let output = place.run(&["user", "disable", "ann"], "");
    assert_eq!(output.code, 0, "{}", output.err);
    assert!(output.err.contains("only the tokens of known sessions are revoked"), "{}", output.err);
}

/// A terminal of Python's: the two questions, with a mistake in between.
const TYPIST: &str = r#"
import os, pty, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], [sys.argv[1], "user", "add", "ann"])
seen = b""
def wait(text):
    global seen
    while text not in seen:
        seen += os.read(terminal, 1024)
    seen = seen[seen.index(text) + len(text):]
everything = b""
for question, answer in [(b"ann: ", b"short"), (b"ann: ", sys.argv[2].encode()), (b"again: ", b"something else"),
                         (b"ann: ", sys.argv[2].encode()), (b"again: ", sys.argv[2].encode())]:
    wait(question)
    time.sleep(0.1)
    os.write(terminal, answer + b"\n")
try:
    while chunk := os.read(terminal, 1024):
        everything += chunk
except OSError:
    pass
assert sys.argv[2].encode() not in everything, "the password is echoed"
sys.stdout.write(everything.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn a_password_is_asked_for_twice_without_echo() {
    let place = Place::new();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if Command::new("python3").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no python3");
    }
    let mut python = Command::new("python3");
    python.args(["-c", TYPIST, env!("CARGO_BIN_EXE_portcullis"), PASSWORD]).current_dir(place.dir.path());
    let output = python.env_clear().env("PATH", path).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("added ann ("), "{out}");
    assert!(place.opens("ann", PASSWORD));
}

#[test]
fn a_token_without_a_subject_is_not_made() {
    let place = Place::new();
    let output = place.run(&["token", "mint"], "");
    assert_eq!((output.code, output.out.as_str()), (1, ""));
    assert!(output.err.contains("--as NAME takes a test identity (one of ann), --sub ID anybody"), "{}", output.err);
    let output = place.run(&["token", "mint", "--sub", "u7"], "");
    assert_eq!(output.code, 0);
    assert!(output.err.contains("sub u7"), "{}", output.err);
    assert!(Path::new(&place.path("policies")).exists());
}

#[test]
fn keys_are_listed_and_rotated_and_sign_tokens_for_a_try() {
    let place = Place::new();
    assert!(place.run(&["key", "rotate"], "").err.contains("`signing_key: managed`"));
    place.write("policies/items.yaml", &POLICY.replace("secret: env:SECRET_KEY", "signing_key: managed"));
    let output = place.run(&["token", "mint", "--as", "ann"], "");
    assert_eq!(output.code, 1);
    assert!(output.err.contains("its key is made when the gateway starts"), "{}", output.err);

    let output = place.run(&["key", "rotate"], "");
    assert_eq!(output.code, 0, "{}", output.err);
    let kid = output.out.split(' ').nth(3).unwrap().to_owned();
    assert!(output.out.starts_with("local: new key ") && output.out.contains(" signs from "), "{}", output.out);
    let token = place.run(&["token", "mint", "--as", "ann"], "").out;
    let inspected = place.run(&["token", "inspect", "-"], &token);
    assert_eq!(inspected.code, 0, "{}", inspected.out);
    assert!(inspected.out.contains(&format!("✓ signature  ES256 by key {kid}")), "{}", inspected.out);

    let next = place.run(&["key", "rotate", "--purpose", "local"], "").out;
    assert!(next.starts_with("local: new key "), "{next}");
    let again = place.run(&["key", "rotate"], "").out;
    assert!(again.starts_with("local: a new key is on its way already: "), "{again}");
    let list = place.run(&["key", "list"], "").out;
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(lines[1].starts_with(&kid) && lines[1].ends_with("  signs"), "{list}");
    assert!(lines[2].contains("  signs from 20"), "{list}");
    let json = place.run(&["key", "list", "--format", "json"], "").out;
    assert!(!list.contains("PRIVATE") && !json.contains("PRIVATE") && json.lines().count() == 2);
    assert_eq!(place.run(&["key", "rotate", "--purpose", "lcoal"], "").code, 1);
}

#[test]
fn a_refresh_token_is_looked_up_and_ends_its_session() {
    let place = Place::new();
    place.add("ann", &[]);
    place.log_in("ann", "s-1");
    let token = refresh_token("s-1");
    let run = |command: &str, stdin: &str| {
        let output = place.run(&["token", command, "-"], stdin);
        assert!(!output.out.contains(&token) && !output.err.contains(&token), "{command}");
        output
    };
    let output = run("inspect", &token);
    assert_eq!(output.code, 0, "{}", output.err);
    assert!(output.out.contains("✓ session s-1 of user ") && output.out.contains(": live until "), "{}", output.out);
    assert_eq!(run("revoke", &token).code, 0);
    assert!(!place.is_live("s-1") && place.refuses(Some("s-1"), None, SystemClock.now()));
    let output = run("inspect", &token);
    assert_eq!(output.code, 1);
    assert!(output.out.contains("✗ session s-1") && output.out.contains(": ended 20"), "{}", output.out);
    assert_eq!(run("inspect", &refresh_token("s-2")).code, 1);
    assert_eq!(run("revoke", &refresh_token("s-2")).code, 1);
}

/// A process that ends with its test.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A request without a body to keep, and the status and body of the answer.
fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
}

#[test]
fn a_running_gateway_takes_new_users_and_refuses_disabled_ones_within_a_second() {
    let place = Place::new();
    // Nothing listens at the upstream: who gets that far sees 502.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let policy = POLICY
        .replace("127.0.0.1:8000", &nobody.to_string())
        .replace("identity:", "login: { path: /token, via: local }\nidentity:");
    place.write("policies/items.yaml", &policy);
    let mut gateway = Gateway(
        place
            .command(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut log = BufReader::new(gateway.0.stderr.take().unwrap()).lines();
    let address = log
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| {
            let line: Value = serde_json::from_str(&line).ok()?;
            line["listen"].as_str()?.strip_prefix("http://")?.parse::<SocketAddr>().ok()
        })
        .unwrap();
    std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));

    place.add("ann", &["--role", "viewer"]);
    let form = format!("grant_type=password&username=Ann&password={}", PASSWORD.replace(' ', "+"));
    let log_in = || {
        let head =
            "POST /token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded";
        ask(address, &format!("{head}\r\nContent-Length: {}\r\n\r\n{form}", form.len()))
    };
    let (status, body) = log_in();
    assert_eq!(status, 200, "{body}");
    let tokens: Value = serde_json::from_str(&body).unwrap();
    let token = tokens["access_token"].as_str().unwrap();
    let get = || {
        ask(
            address,
            &format!("GET /items HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"),
        )
        .0
    };
    assert_eq!(get(), 502);
    assert!(place.run(&["session", "list", "ann"], "").out.lines().count() == 2);
    assert_eq!(place.run(&["token", "inspect", "-"], token).code, 0);

    let output = place.run(&["user", "disable", "ann"], "");
    assert_eq!((output.code, output.out.as_str()), (0, "ann is disabled · 1 session ended\n"));
    let since = Instant::now();
    while get() != 401 {
        assert!(since.elapsed() < Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(log_in().0, 400);
    assert_eq!(place.run(&["token", "inspect", "-"], token).code, 1);
}
