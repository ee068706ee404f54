//! Records of decisions that cannot be written: a full disk, and a pipe that nobody reads.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Tally;
use super::world::{Got, app, bearer, get, login, send, user};
use crate::gate::{Gate, Site};
use crate::run::Run;

const POLICY: &str = "version: 1
app: items
upstream: http://UPSTREAM
login: { via: local, limit: none, lockout: none }
scopes: { items: Everything on items }
identity: { local: { preset: local } }
routes:
  GET /public: public
  GET /items: { scope: items }
";
const PASSWORD: &str = "a long walk in the rain";

fn site(upstream: SocketAddr) -> Site {
    Site::new(&POLICY.replace("UPSTREAM", &upstream.to_string()))
        .env("SECRET_KEY", "5e1f0c7a9b3d8e2f4a6c1b0d9e8f7a6b5c4d3e2f1a0b9c8d5e1f0c7a9b3d8e2f")
}

/// What is asked of a gateway that cannot write.
fn columns(gate: &Gate, access: &str) -> Vec<(&'static str, Got)> {
    [
        ("public", get("/public", "")),
        ("JWT", get("/items", &bearer(access))),
        ("nobody", get("/items", "")),
        ("login", login(PASSWORD)),
    ]
    .into_iter()
    .map(|(column, request)| (column, send(gate.address, &request)))
    .collect()
}

fn access(gate: &Gate) -> String {
    let got = send(gate.address, &login(PASSWORD));
    let value: serde_json::Value = serde_json::from_str(&got.body).unwrap_or_default();
    value["access_token"].as_str().unwrap_or_else(|| panic!("{got:?}")).to_owned()
}

/// A small file system of its own, unmounted at the end; none where this may not be mounted.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: &std::path::Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(at).stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

pub fn disk_full(run: &mut Run, tally: &mut Tally) {
    let upstream = app();
    for required in [false, true] {
        let site = site(upstream).env("PORTCULLIS_LOG__AUDIT", if required { "required" } else { "best_effort" });
        let small = Small::mount(&site.path().join("records"));
        let kind = if small.is_some() { "a tmpfs of 64 KiB" } else { "/dev/full" };
        let site = site.env("PORTCULLIS_LOG__DECISIONS", "file:records/decisions");
        user(&site);
        let gate = site.start();
        let token = access(&gate);
        let gate = if small.is_some() {
            gate
        } else {
            drop(gate);
            std::fs::remove_file(site.path().join("records/decisions")).unwrap();
            std::os::unix::fs::symlink("/dev/full", site.path().join("records/decisions")).unwrap();
            site.start()
        };
        let began = Instant::now();
        while !gate.log().contains("decision log cannot be written") {
            send(gate.address, &get("/public", ""));
            if began.elapsed() > Duration::from_secs(30) {
                run.fail("disk full: nothing says that records cannot be written");
                break;
            }
        }
        let name = if required { "records required" } else { "records not required" };
        let name = format!("disk full ({kind}) / {name}");
        let mut texts = Vec::new();
        for (column, got) in columns(&gate, &token) {
            tally.requests += 1;
            let expected = match (required, column) {
                (true, _) => 503,
                (false, "nobody") => 401,
                (false, _) => 200,
            };
            run.check(got.status == expected, || format!("{name}: {column} got {}, not {expected}", got.text()));
            run.check(got.status != 503 || got.says_when, || format!("{name}: {column}: 503 without Retry-After"));
            tally.open += u64::from(got.status == 200 && expected != 200);
            texts.push(format!("{column} {}", got.text()));
        }
        tally.cells += 4;
        run.measure(&name, texts.join(" · "));
    }
}

/// Nobody reads what the gateway writes: decisions to standard output, and what it has to say to standard error.
pub fn blocked(run: &mut Run, tally: &mut Tally) {
    let name = "log pipe / blocked";
    let site = site(app()).unread().env("PORTCULLIS_LOG__DECISIONS", "stdout");
    user(&site);
    let gate = site.start();
    let token = access(&gate);
    gate.hold_log(true);
    let requests = run.of(1_000, 5_000);
    let mut wrong = 0;
    for number in 0..requests {
        let (path, lines, expected) = match number % 3 {
            0 => ("/public", String::new(), 200),
            1 => ("/items", bearer(&token), 200),
            _ => ("/items", String::new(), 401),
        };
        let got = send(gate.address, &get(path, &lines));
        tally.requests += 1;
        tally.unaffected += u64::from(expected == 200);
        tally.open += u64::from(got.status == 200 && expected != 200);
        if got.status != expected || got.took > Duration::from_secs(5) {
            wrong += 1;
            tally.hindered += u64::from(expected == 200);
            run.fail(format!("{name}: request {number} for {path} got {} in {:?}", got.text(), got.took));
            if wrong > 3 {
                break;
            }
        }
    }
    // Records of long requests, until there is no place for more.
    let long = format!("/nothing/{}", "x".repeat(4000));
    for _ in 0..run.of(0, 12_000) {
        tally.requests += 1;
        let got = send(gate.address, &get(&long, ""));
        if !run.check(got.status == 404, || format!("{name}: a long request got {}", got.text())) {
            break;
        }
    }
    let memory = gate.memory();
    gate.hold_log(false);
    let admin = gate.admin.unwrap();
    let status = send(admin, &format!("GET /-/status HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"));
    let status: serde_json::Value = serde_json::from_str(&status.body).unwrap_or_default();
    let dropped = status["decision_log"]["dropped"].as_u64().unwrap_or(0);
    run.check(memory < 256 * 1024, || format!("{name}: {memory} KiB"));
    run.judge(dropped > 0, || format!("{name}: records that were dropped are not counted"));
    tally.cells += 3;
    run.measure(
        name,
        format!("public 200 · JWT 200 · nobody 401, {requests} requests, {wrong} otherwise, {dropped} records dropped, {} MiB", memory / 1024),
    );
}
