//! Real PostgreSQL and Redis servers for tests: each on a free port of the loopback, in a folder of its own, with
//! nothing left behind. The system's own services are not touched.
//!
//! Include it as `#[path = "support/servers.rs"] mod servers;`. A server ends when its value is dropped, and also when
//! the test process ends in any other way: a small shell process waits for the end of a pipe that only the test holds,
//! then stops the server and removes the folder.
#![expect(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests: each test binary uses a part, and a failure here is a failed test"
)]

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Says that something did not run, past the capture of the test runner; `tests/skipped.sh` collects it.
pub fn skipped(what: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {what}").ok();
}

/// A folder and the server in it, both gone at the end.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    janitor: Child,
}

impl Place {
    /// A new folder, for `owner` where somebody else runs the server. Ending, the server gets `signal`.
    ///
    /// In memory where there is room: what a process has written survives its `kill -9` there as on a disk, and a server
    /// that syncs all it has when it starts again does not wait for whatever else is written.
    pub fn new(signal: &str, owner: Option<(u32, u32)>) -> Self {
        let mut folder = tempfile::Builder::new();
        let folder = folder.prefix("portcullis-test-");
        let memory = Path::new("/dev/shm");
        let made = if free_mib(memory) > 4096 { folder.tempdir_in(memory) } else { folder.tempdir() };
        let folder = made.unwrap().keep();
        if let Some((user, group)) = owner {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let script = r#"
            trap '' INT TERM HUP
            cat >/dev/null
            pid=$(cat "$1/pid" 2>/dev/null)
            if [ -n "$pid" ]; then
                kill -CONT "$pid" 2>/dev/null
                kill "-$2" "$pid" 2>/dev/null
                tries=0
                while kill -0 "$pid" 2>/dev/null && [ $tries -lt 50 ]; do
                    [ "$(cut -d' ' -f3 "/proc/$pid/stat" 2>/dev/null)" = Z ] && break
                    sleep 0.05; tries=$((tries + 1))
                done
                kill -KILL "$pid" 2>/dev/null
            fi
            rm -rf "$1"
        "#;
        let janitor = Command::new("sh")
            .args(["-c", script, "janitor"])
            .arg(&folder)
            .arg(signal)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { folder, janitor }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The server, once it runs.
    pub fn note(&self, process: &Child) {
        fs::write(self.folder.join("pid"), process.id().to_string()).unwrap();
    }
}

/// What is free in a file system, 0 where that cannot be said.
fn free_mib(path: &Path) -> u64 {
    let said = Command::new("df").args(["-m", "--output=avail"]).arg(path).output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    said.lines().last().and_then(|free| free.trim().parse().ok()).unwrap_or(0)
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        self.janitor.wait().ok();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn program(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders
        .iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// A signal to many processes at once, by the program `kill`.
fn signal(signal: &str, processes: &[u32]) {
    let processes = processes.iter().map(ToString::to_string);
    Command::new("kill").arg(format!("-{signal}")).args(processes).stderr(Stdio::null()).status().unwrap();
}

/// A process and its children.
pub fn family(process: u32) -> Vec<u32> {
    let mut family = vec![process];
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // pid (name) state parent …
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        if parent == Some(process) {
            family.push(pid);
        }
    }
    family
}

fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < deadline, "{what} did not happen within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// === PostgreSQL ===

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Child>,
    port: u16,
    programs: PathBuf,
    owner: Option<(u32, u32)>,
    durable: bool,
    databases: AtomicUsize,
    place: Place, // last: the janitor stops the server
}

/// Which user runs PostgreSQL: it refuses to run as root.
fn owner() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    ["postgres", "nobody"].iter().find_map(|name| {
        let fields: Vec<&str> = users.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').collect();
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    })
}

/// The folder of PostgreSQL's programs, the newest version first.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    folders.sort_by_key(|folder| std::cmp::Reverse(folder.parent().map(Path::to_owned)));
    let initdb = fs::canonicalize(program("initdb", &folders)?).ok()?;
    initdb.parent().filter(|folder| folder.join("postgres").is_file()).map(Path::to_owned)
}

impl Postgres {
    /// Starts a server that forgets when the machine stops: quick. `Err` says why there is none.
    pub fn start() -> Result<Self, String> {
        Self::new(false)
    }

    /// Starts a server that keeps what it acknowledged, for tests that kill it.
    pub fn start_durable() -> Result<Self, String> {
        Self::new(true)
    }

    fn new(durable: bool) -> Result<Self, String> {
        let programs = programs().ok_or("PostgreSQL is not installed (tests/setup.sh does)")?;
        let owner = owner();
        let place = Place::new("QUIT", owner); // at once, without leaving shared memory
        let mut server =
            Self { process: None, port: 0, programs, owner, durable, databases: AtomicUsize::new(0), place };
        let mut initdb = server.command("initdb");
        initdb.args(["-D", "data", "-U", "portcullis", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]);
        let output = initdb.output().map_err(|error| format!("initdb: {error}"))?;
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        server.restart();
        Ok(server)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.place.folder).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Starts it again, on the same port, after [`kill`](Self::kill); returns when it answers.
    pub fn restart(&mut self) {
        let sync =
            if self.durable { ["fsync=on", "full_page_writes=on"] } else { ["fsync=off", "full_page_writes=off"] };
        for attempt in 0.. {
            if self.port == 0 {
                self.port = free_port();
            }
            let log = fs::File::options().create(true).append(true).open(self.place.folder.join("log")).unwrap();
            let mut postgres = self.command("postgres");
            postgres.args(["-D", "data", "-p", &self.port.to_string()]);
            for setting in [
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "max_connections=200",
                "shared_buffers=32MB",
                "synchronous_commit=on",
                "autovacuum=off",
                sync[0],
                sync[1],
            ] {
                postgres.args(["-c", setting]);
            }
            let process = postgres.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            self.place.note(&process);
            let process = self.process.insert(process);
            let began = Instant::now();
            // Another may have taken the port, or the one before may not have ended entirely.
            let ready = loop {
                if process.try_wait().unwrap().is_some() {
                    break false;
                }
                assert!(began.elapsed() < Duration::from_secs(30), "PostgreSQL does not start: {}", self.log());
                let mut asked = Command::new(self.programs.join("pg_isready"));
                let asked = asked.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]).status().unwrap();
                if asked.success() {
                    break true;
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            if ready {
                return;
            }
            assert!(attempt < 40, "PostgreSQL does not start: {}", self.log());
            if self.databases.load(Ordering::SeqCst) == 0 {
                self.port = 0; // nobody knows it yet
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.folder.join("log")).unwrap_or_default()
    }

    /// Its processes.
    fn processes(&self) -> Vec<u32> {
        self.process.as_ref().map(|process| family(process.id())).unwrap_or_default()
    }

    /// `kill -9` for the server and all its processes.
    pub fn kill(&mut self) {
        // Stopped first, so that it starts no process that is not seen here: one would keep the shared memory in use.
        signal("STOP", &self.process.as_ref().map(std::process::Child::id).into_iter().collect::<Vec<_>>());
        signal("KILL", &self.processes());
        if let Some(mut process) = self.process.take() {
            process.wait().unwrap();
        }
    }

    /// Stops all its processes: connections stay and nothing answers.
    pub fn pause(&self) {
        signal("STOP", &self.processes());
    }

    /// Lets them go on.
    pub fn resume(&self) {
        signal("CONT", &self.processes());
    }

    /// A new, empty database; its URL. Users who share a database get the same URL.
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::SeqCst));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://portcullis@127.0.0.1:{}/{name}", self.port)
    }

    /// Runs SQL with psql.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let port = self.port.to_string();
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port]);
        let output = psql.args(["-U", "portcullis", "-d", database, "-c", sql]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Reaps it while the janitor waits for its end.
        if let Some(mut process) = self.process.take() {
            signal("CONT", &family(process.id()));
            signal("QUIT", &[process.id()]);
            process.wait().ok();
        }
    }
}

// === Redis ===

/// A Redis server.
#[derive(Debug)]
pub struct Redis {
    process: Option<Child>,
    port: u16,
    program: PathBuf,
    durable: bool,
    databases: AtomicUsize,
    place: Place,
}

impl Redis {
    /// Starts a server that forgets when it ends. `Err` says why there is none.
    pub fn start() -> Result<Self, String> {
        Self::new(false)
    }

    /// Starts a server that keeps what it acknowledged, for tests that kill it.
    pub fn start_durable() -> Result<Self, String> {
        Self::new(true)
    }

    fn new(durable: bool) -> Result<Self, String> {
        let program = program("redis-server", &["/usr/bin".into(), "/usr/local/bin".into()]);
        let program = program.ok_or("Redis is not installed (tests/setup.sh does)")?;
        let place = Place::new("KILL", None);
        let mut server = Self { process: None, port: 0, program, durable, databases: AtomicUsize::new(0), place };
        server.restart();
        Ok(server)
    }

    /// Starts it again, on the same port, after [`kill`](Self::kill); returns when it answers.
    pub fn restart(&mut self) {
        for attempt in 0.. {
            if self.port == 0 {
                self.port = free_port();
            }
            let log = fs::File::options().create(true).append(true).open(self.place.folder.join("log")).unwrap();
            let mut redis = Command::new(&self.program);
            redis.current_dir(&self.place.folder).args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
            let appends = if self.durable { "yes" } else { "no" };
            redis.args(["--save", "", "--appendonly", appends, "--appendfsync", "always", "--databases", "1000"]);
            let process = redis.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            self.place.note(&process);
            let process = self.process.insert(process);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
            let mut ended = false;
            wait_until("the start of Redis", || {
                ended = process.try_wait().unwrap().is_some();
                ended || answers(address)
            });
            if !ended {
                return;
            }
            let log = fs::read_to_string(self.place.folder.join("log")).unwrap_or_default();
            assert!(attempt < 40, "Redis does not start: {log}");
            if self.databases.load(Ordering::SeqCst) == 0 {
                self.port = 0; // nobody knows it yet
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops it: connections stay and nothing answers.
    pub fn pause(&self) {
        signal("STOP", &self.process.iter().map(Child::id).collect::<Vec<_>>());
    }

    /// Lets it go on.
    pub fn resume(&self) {
        signal("CONT", &self.process.iter().map(Child::id).collect::<Vec<_>>());
    }

    /// The URL of an empty database of the server. Channels are shared by all databases.
    pub fn database(&self) -> String {
        format!("redis://127.0.0.1:{}/{}", self.port, self.databases.fetch_add(1, Ordering::SeqCst))
    }

    /// Its version.
    pub fn version(&self) -> String {
        let said = Command::new(&self.program).arg("--version").output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.split_once("v=").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default().to_owned()
    }

    /// Forgets everything, in all databases.
    pub fn flush(&self) {
        assert!(
            ask((Ipv4Addr::LOCALHOST, self.port).into(), "FLUSHALL\r\n").is_some_and(|said| said.starts_with("+OK"))
        );
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.resume();
        self.kill();
    }
}

fn ask(address: SocketAddr, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(command.as_bytes()).ok()?;
    let mut answer = [0; 64];
    let length = std::io::Read::read(&mut stream, &mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn answers(address: SocketAddr) -> bool {
    ask(address, "PING\r\n").is_some_and(|said| said.starts_with("+PONG"))
}
