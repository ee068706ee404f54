//! `portcullis init`: what it writes, what it keeps, and that its printed lines work as they are printed.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::string_slice, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// The program under the name that people call it by.
fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    let binary = Path::new(env!("CARGO_BIN_EXE_portcullis")).parent().unwrap();
    command.current_dir(folder).env_clear().env("PATH", format!("{}:/usr/bin:/bin", binary.display()));
    command.env("HOME", folder).env("TERM", "dumb");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn init(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command("portcullis", folder).arg("init").args(arguments).output().unwrap();
    (output.status.code(), text(&output))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// All files below a folder, with mode and content.
fn files(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                found.insert(name, (mode, fs::read(&path).unwrap()));
            }
        }
    }
    found
}

fn secret(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join(".env")).unwrap();
    let line = text.lines().find(|line| line.starts_with("SECRET_KEY=")).expect("a secret");
    line["SECRET_KEY=".len()..].to_owned()
}

#[test]
fn an_empty_folder_becomes_a_working_one_and_a_second_run_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (exit, said) = init(dir.path(), &[]);
    assert_eq!(exit, Some(0), "{said}");
    let first = files(dir.path());
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            ".env",
            ".env.example",
            ".github/workflows/policy.yml",
            ".gitignore",
            "docker-compose.yaml",
            "policies/app.test.yaml",
            "policies/app.yaml",
        ]
    );
    assert_eq!(first[".env"].0, 0o600);
    let secret = secret(dir.path());
    assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(!said.contains(&secret), "the secret is printed: {said}");
    for (name, (_, content)) in &first {
        assert!(name == ".env" || !String::from_utf8_lossy(content).contains(&secret), "the secret is in {name}");
    }
    assert!(said.contains("no problems in 2 files"), "{said}");
    let check = command("portcullis", dir.path()).args(["check", "--strict"]).output().unwrap();
    assert!(check.status.success(), "{}", text(&check));
    for name in ["docker-compose.yaml", ".github/workflows/policy.yml"] {
        let text = String::from_utf8(first[name].1.clone()).unwrap();
        let mut sources = portcullis::diagnostic::Sources::default();
        let mut found = Vec::new();
        let documents = portcullis::policy::yaml::parse(sources.add(name, &text), &text, &mut found);
        assert!(found.is_empty() && documents.len() == 1, "{name}: {found:?}");
    }

    let (exit, said) = init(dir.path(), &["--yes", "--app", "other", "--login", "upstream"]);
    assert_eq!(exit, Some(0), "{said}");
    assert!(!said.contains(" wrote ") && !said.contains(" added "), "{said}");
    assert!(files(dir.path()) == first, "{said}");
    // The policy is not the one of these answers: what it would answer is not known.
    assert!(said.contains("portcullis serve") && !said.contains("curl"), "{said}");
}

#[test]
fn what_is_there_is_kept_byte_for_byte() {
    for (env, gitignore, after, ignored) in [
        ("SECRET_KEY=mine\nOTHER='a b' # c\n", ".env\nportcullis.db*\n", "", ""),
        ("export SECRET_KEY = \"mine\"", "target\n", "", ".env\nportcullis.db*\n"),
        ("OTHER=1", "/.env", "\n# signs tokens: `portcullis secret new` makes one\nSECRET_KEY=", "\nportcullis.db*\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".env"), env).unwrap();
        fs::set_permissions(dir.path().join(".env"), Permissions::from_mode(0o644)).unwrap();
        fs::write(dir.path().join(".gitignore"), gitignore).unwrap();
        fs::write(dir.path().join("docker-compose.yaml"), "mine").unwrap();
        fs::write(dir.path().join(".env.example"), "mine").unwrap();
        let (exit, said) = init(dir.path(), &["--no-ci"]);
        assert_eq!(exit, Some(0), "{said}");
        let now = files(dir.path());
        let content = |name: &str| String::from_utf8(now[name].1.clone()).unwrap();
        assert!(content(".env").starts_with(&format!("{env}{after}")), "{}", content(".env"));
        assert!(!after.is_empty() || content(".env") == env);
        assert_eq!(content(".gitignore"), format!("{gitignore}{ignored}"));
        assert_eq!((content("docker-compose.yaml").as_str(), content(".env.example").as_str()), ("mine", "mine"));
        assert!(!now.contains_key(".github/workflows/policy.yml"));
        for kept in ["kept   docker-compose.yaml", "kept   .env.example"] {
            assert!(said.contains(kept), "{said}");
        }
        // A file that holds a new secret is closed; one that was not touched is only spoken of.
        assert_eq!(now[".env"].0, if after.is_empty() { 0o644 } else { 0o600 });
        assert_eq!(said.contains("chmod 600 .env"), after.is_empty(), "{said}");
    }
}

#[test]
fn policies_that_are_there_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    let policy = "version: 1\nupstream: http://127.0.0.1:1\nroutes:\n  GET /: public\n";
    fs::write(dir.path().join("policies/mine.yaml"), policy).unwrap();
    let (exit, said) = init(dir.path(), &[]);
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("has policies already; none were added"), "{said}");
    assert_eq!(fs::read_dir(dir.path().join("policies")).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_written() {
    for arguments in [
        &["--upstream", "http://app/path"][..],
        &["--upstream", "app"],
        &["--app", "My App"],
        &["--login", "local", "--issuer", "oidc"],
        &["--login", "upstream", "--issuer", "local"],
        &["--issuer-url", "https://x y"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (exit, said) = init(dir.path(), arguments);
        assert_eq!((exit, files(dir.path()).len()), (Some(2), 0), "{arguments:?}: {said}");
    }
}

#[test]
fn secret_new_writes_once() {
    let dir = tempfile::tempdir().unwrap();
    let new = |arguments: &[&str]| {
        let output = command("portcullis", dir.path()).args(["secret", "new"]).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (exit, printed) = new(&[]);
    assert!(exit == Some(0) && printed.len() == 65 && printed.trim_end().bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(new(&["--write", ".env", "--name", "HOOK"]), (Some(0), String::new()));
    let once = files(dir.path());
    assert_eq!(once[".env"].0, 0o600);
    assert_eq!(new(&["--write", ".env", "--name", "HOOK"]), (Some(1), String::new()));
    assert!(files(dir.path()) == once);
    assert_eq!(new(&["--write", ".env"]), (Some(0), String::new()));
    assert_eq!(secret(dir.path()).len(), 64);
    assert!(files(dir.path())[".env"].1.starts_with(&once[".env"].1));
    assert_eq!(new(&["--write", ".env", "--name", "A=B"]).0, Some(2));
}

#[test]
fn the_environment_wins_over_env_files_and_values_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(init(dir.path(), &["--login", "none"]).0, Some(0));
    let mint = |secret: Option<&str>| {
        let mut mint = command("portcullis", dir.path());
        mint.args(["token", "mint", "--as", "ada"]).envs(secret.map(|secret| ("SECRET_KEY", secret)));
        mint.output().unwrap()
    };
    assert!(mint(None).status.success(), "{}", text(&mint(None)));
    let short = mint(Some("tooshort"));
    assert!(!short.status.success() && text(&short).contains("the secret has 8 bytes"), "{}", text(&short));
    fs::set_permissions(dir.path().join(".env"), Permissions::from_mode(0o644)).unwrap();
    let open = text(&mint(None));
    assert!(open.contains("warning: every user of this machine can read .env: chmod 600 .env"), "{open}");
    assert!(!open.contains(&secret(dir.path())));
}

// === The printed lines ===

/// The printed lines: those of the first terminal, and those of the second.
fn printed(said: &str) -> (Vec<String>, Vec<String>) {
    let (_, after) = said.split_once("\nNext:\n").expect("what is next");
    let (first, second) = after.split_once("in another terminal").expect("another terminal");
    let lines = |block: &str| block.lines().filter_map(|line| Some(line.strip_prefix("  ")?.to_owned())).collect();
    (lines(first), lines(second))
}

/// An app that answers 200 to everything.
fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                while stream.read(&mut [0; 8192]).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                }
            });
        }
    });
    address
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The shell and what it started.
        let _ = Command::new("kill").args(["-9", "--", &format!("-{}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}

/// Runs the printed lines as they are, and returns what the second terminal showed. `typed` is what is typed there.
fn follow(folder: &Path, said: &str, port: u16, password: &str) -> (Vec<String>, String) {
    let (first, second) = printed(said);
    let (serve, before) = first.split_last().unwrap();
    for line in before {
        // A terminal of its own: a password is asked for there, twice.
        let mut typing = command("script", folder);
        typing.args(["-qec", line, "/dev/null"]).stdin(Stdio::piped());
        let mut typing = typing.spawn().expect("script (bsdutils)");
        let mut keys = typing.stdin.take().unwrap();
        keys.write_all(format!("{password}\n{password}\n").as_bytes()).unwrap();
        let output = typing.wait_with_output().unwrap();
        drop(keys);
        assert!(output.status.success(), "{line}: {}", text(&output));
    }
    let log = fs::File::create(folder.join("serve.log")).unwrap();
    let mut gateway = command("bash", folder);
    gateway.args(["-c", serve]).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
    let _gateway = Running(gateway.spawn().unwrap());
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = fs::read_to_string(folder.join("serve.log")).unwrap();
        assert!(Instant::now() < deadline, "the gateway does not start: {log}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut shell = command("bash", folder);
    shell.args(["-c", &second.join("\necho ---\n")]).stdin(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    (second, text(&output))
}

/// Compares the status of each call with the one that is printed beside it.
fn compare(lines: &[String], shown: &str) {
    let answers: Vec<&str> = shown.split("---\n").collect();
    let mut calls = 0;
    for (line, answer) in lines.iter().zip(answers) {
        let Some((call, says)) = line.split_once("  # ") else { continue };
        if !call.starts_with("curl -i") {
            continue;
        }
        let expected = if says.starts_with("your app's answer") { "200" } else { &says[..3] };
        assert!(answer.contains(&format!("HTTP/1.1 {expected} ")), "{line}\n{answer}\nof all:\n{shown}");
        calls += 1;
    }
    assert!(calls >= 3, "{lines:#?}");
}

#[test]
fn with_tokens_of_its_own_the_printed_lines_work_as_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (port, admin, upstream) = (free_port(), free_port(), format!("http://{}", app()));
    let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
    let (exit, said) =
        init(dir.path(), &["--login", "none", "--upstream", &upstream, "--listen", &listen, "--admin-listen", &admin]);
    assert_eq!(exit, Some(0), "{said}");
    let (lines, shown) = follow(dir.path(), &said, port, "");
    compare(&lines, &shown);
}

#[test]
fn with_users_of_its_own_the_printed_lines_work_as_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (port, admin, upstream) = (free_port(), free_port(), format!("http://{}", app()));
    let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
    let (exit, said) = init(dir.path(), &["--upstream", &upstream, "--listen", &listen, "--admin-listen", &admin]);
    assert_eq!(exit, Some(0), "{said}");
    let (lines, shown) = follow(dir.path(), &said, port, "correct horse battery, staple & co");
    compare(&lines, &shown);
    assert!(lines.len() >= 5, "{lines:#?}");
}

#[test]
fn questions_are_asked_on_a_terminal_and_answered_with_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let mut asked = command("script", dir.path());
    asked.args(["-qec", "portcullis init shop", "/dev/null"]).stdin(Stdio::piped());
    let mut asked = asked.spawn().expect("script (bsdutils)");
    let mut keys = asked.stdin.take().unwrap();
    // Name, URL (once wrong), login, compose, workflow; empty lines are defaults.
    keys.write_all(b"shop\nnonsense\nhttp://127.0.0.1:9\n\nno\nyes\n").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    drop(keys);
    let output = asked.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("a URL such as") && said.contains("cd shop"), "{said}");
    let now = files(&dir.path().join("shop"));
    assert!(!now.contains_key("docker-compose.yaml") && now.contains_key(".github/workflows/policy.yml"), "{said}");
    let policy = String::from_utf8(now["policies/app.yaml"].1.clone()).unwrap();
    assert!(policy.contains("app: shop\nupstream: http://127.0.0.1:9 "), "{policy}");
}
