//! R3: every parser of network or policy bytes, with what must hold of it whatever the bytes are.
//!
//! The targets are those of `fuzz/src/lib.rs`. Each replays its corpus, seeds that are found on this machine (examples,
//! policies of the tests, `../shared/vectors` in place) and seeded mutations of all of them. At full size libFuzzer then
//! has each for a while, where `tests/setup-fuzz.sh` could install it, and the executions that it counts are recorded.

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;

use crate::fuzz_targets::{Named, TARGETS, good_tokens};
use crate::run::Run;

/// One input may take so long.
const MOST_TIME: Duration = Duration::from_millis(100);
/// What costs more than a few microseconds: these have a smaller number of mutations.
const HEAVY: &[&str] =
    &["pem", "jwks", "user_import", "settings", "openapi", "policy", "header_edits", "password_hash"];
/// So long libFuzzer has each target: all of them, two at a time, take under ten minutes.
const SECONDS: u64 = 44;
/// Larger files are no seeds.
const MOST_SEED: u64 = 8 * 1024;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

pub fn run(run: &mut Run) {
    run.measure("seed", SEED);
    run.measure("corpus_sha256", corpus_hash());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let (mut total, mut broken) = (0, 0_u64);
    let mut slowest = (Duration::ZERO, "");
    let seeds: BTreeMap<&str, Vec<Vec<u8>>> = TARGETS.iter().map(|(name, _)| (*name, seeds(name))).collect();
    for (number, target) in TARGETS.iter().enumerate() {
        run.progress("replayed targets", number as u64, TARGETS.len() as u64);
        let (executed, took, found) = replay(run, target, &seeds[target.0]);
        total += executed;
        broken += found;
        slowest = slowest.max((took, target.0));
        run.count(&format!("{} in process", target.0), executed);
    }
    std::panic::set_hook(hook);
    run.count("executions in process", total);
    run.measure("slowest_input_ms", slowest.0.as_secs_f64() * 1e3);
    run.measure("slowest_input_of", slowest.1);
    run.judge(slowest.0 <= MOST_TIME, || format!("an input of {} took {:?}", slowest.1, slowest.0));
    if run.is_full() {
        let (executed, found) = with_libfuzzer(run, &seeds);
        total += executed;
        broken += found;
    }
    run.count("targets", TARGETS.len() as u64);
    run.count("executions", total);
    let shown = match total {
        0..10_000_000 => format!("{} thousand", total / 1_000),
        _ => format!("{} million", total / 1_000_000),
    };
    let ms = slowest.0.as_secs_f64() * 1e3;
    run.result(format!("{} parsers, {shown} inputs, {broken} broke anything; slowest {ms:.0} ms", TARGETS.len()));
}

/// The corpus and its mutations in this process: how many inputs, how long the slowest took, and how many broke it.
fn replay(run: &mut Run, (name, target): &Named, seeds: &[Vec<u8>]) -> (u64, Duration, u64) {
    let mutations = match (run.is_full(), HEAVY.contains(name)) {
        (false, false) => 10_000,
        (false, true) => 1_000,
        (true, false) => 200_000,
        (true, true) => 5_000,
    };
    let mut found = 0;
    let (mut random, mut executed, mut slowest) = (Random(SEED), 0_u64, Duration::ZERO);
    // On a slow machine fewer are tried, and fewer are counted.
    let until = Instant::now() + run.of(Duration::from_millis(400), Duration::from_secs(10));
    let mut one = |run: &mut Run, input: &[u8]| {
        let began = Instant::now();
        let result = catch_unwind(|| target(input));
        slowest = slowest.max(began.elapsed());
        executed += 1;
        if let Err(panic) = result {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            found += 1;
            let place = keep(name, input);
            run.fail(format!("{name}: {text}: {} (kept as {})", input.escape_ascii(), place.display()));
        }
    };
    for seed in seeds {
        one(run, seed);
    }
    for _ in 0..mutations {
        if Instant::now() > until {
            break;
        }
        let input = random.mutated(seeds);
        one(run, &input);
    }
    (executed, slowest, found)
}

/// An input that broke something, for `cargo fuzz` and the corpus.
fn keep(name: &str, input: &[u8]) -> PathBuf {
    let hash = digest::digest(&digest::SHA256, input);
    let short: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let path = Path::new("target/fuzz/found").join(format!("{name}-{short}"));
    fs::create_dir_all("target/fuzz/found").unwrap();
    fs::write(&path, input).unwrap();
    path
}

// === Seeds ===

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    let mut from = |folder: &str, suffixes: &[&str]| {
        for path in files(Path::new(folder)) {
            if suffixes.iter().any(|suffix| path.to_string_lossy().ends_with(suffix)) {
                seeds.push(fs::read(&path).unwrap());
            }
        }
    };
    from(&format!("fuzz/corpus/{name}"), &[""]);
    match name {
        "policy" => {
            from("examples", &[".yaml"]);
            from("tests/policies", &[".yaml"]);
            from("../shared/vectors/yaml-test-suite", &[".yaml"]);
        }
        "settings" => from("examples", &["portcullis.yaml"]),
        "jwks" => from("../shared/vectors/jose-cookbook", &[".json"]),
        "token" => seeds.extend(good_tokens().iter().map(|token| token.clone().into_bytes())),
        _ => {}
    }
    seeds
}

/// The files below a folder that can be seeds, sorted; none where there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => found.extend(files(&path)),
            Ok(meta) if meta.len() <= MOST_SEED => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

fn corpus_hash() -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    for path in files(Path::new("fuzz/corpus")) {
        hash.update(path.to_string_lossy().as_bytes());
        hash.update(&fs::read(&path).unwrap());
    }
    hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

// === Mutations ===

struct Random(u64);

/// What hostile input is made of.
const WORDS: &[&[u8]] = &[
    b"%2e",
    b"%2f",
    b"%5c",
    b"%00",
    b"%25",
    b"..",
    b"//",
    b"\\",
    b";",
    b"\r\n",
    b"\0",
    b"\t",
    b"\"",
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"=",
    b"&",
    b"?",
    b"#",
    b"@",
    b"-",
    b"|",
    b">",
    b"&a",
    b"*a",
    b"<<: ",
    b"!!",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b"\xcc\x8a",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 1\r\n",
    b"X-Auth-User: root\n",
    b"x_auth_user: root\n",
    b"$",
    b"//a",
    b"\\u0000",
    b"\\ud800",
    b"==",
    b".",
    b"*",
    b"**",
    b"127.0.0.1",
    b"::1",
    b"xn--",
    b"http://",
    b"https://",
    b" ",
    b"\n",
];

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(SEED);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let (at, byte) = (self.below(input.len() + 1), self.next() as u8);
            match self.below(8) {
                0 if at < input.len() => input[at] ^= 1 << (byte % 8),
                1 if at < input.len() => input[at] = byte,
                2 => input.insert(at, byte),
                3 => {
                    let end = (at + self.below(8)).min(input.len());
                    drop(input.drain(at..end));
                }
                4 => {
                    let end = (at + self.below(32)).min(input.len());
                    let again = input[at..end].to_vec();
                    drop(input.splice(at..at, again));
                }
                5 => {
                    let other = &seeds[self.below(seeds.len())];
                    let start = self.below(other.len() + 1);
                    let end = (start + self.below(48)).min(other.len());
                    drop(input.splice(at..at, other[start..end].iter().copied()));
                }
                6 => input.truncate(at),
                _ => {
                    let word = WORDS[self.below(WORDS.len())];
                    drop(input.splice(at..at, word.iter().copied()));
                }
            }
        }
        input.truncate(MOST_SEED as usize);
        input
    }
}

// === libFuzzer ===

/// Gives each target to libFuzzer for a while, two at a time, and returns how many inputs were executed and how many broke
/// something.
fn with_libfuzzer(run: &mut Run, seeds: &BTreeMap<&str, Vec<Vec<u8>>>) -> (u64, u64) {
    let build = Command::new("target/tools/bin/cargo-fuzz").args(["fuzz", "build", "--sanitizer", "none"]).output();
    match build {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let printed = String::from_utf8_lossy(&output.stderr);
            run.skip(format!("libFuzzer: {}", printed.lines().last().unwrap_or("")));
            return (0, 0);
        }
        Err(error) => {
            run.skip(format!("libFuzzer: no cargo-fuzz, which tests/setup-fuzz.sh installs ({error})"));
            return (0, 0);
        }
    }
    run.measure("libfuzzer_seconds_each", SECONDS);
    let waiting = Mutex::new(TARGETS.iter().map(|(name, _)| *name).rev().collect::<Vec<_>>());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(name) = waiting.lock().unwrap().pop() else { return };
                    println!("    libFuzzer: {name}");
                    let result = libfuzzer(name, &seeds[name]);
                    results.lock().unwrap().push((name, result));
                }
            });
        }
    });
    let (mut total, mut broken) = (0, 0);
    for (name, result) in results.into_inner().unwrap() {
        match result {
            Ok(executed) => {
                total += executed;
                run.count(&format!("{name} by libFuzzer"), executed);
            }
            Err(text) => {
                broken += 1;
                run.fail(format!("{name}: {text}"));
            }
        }
    }
    run.count("executions by libFuzzer", total);
    (total, broken)
}

/// One target: how many inputs were executed, or what was found.
fn libfuzzer(name: &str, seeds: &[Vec<u8>]) -> Result<u64, String> {
    let work = Path::new("target/fuzz/work").join(name);
    let (grown, given) = (work.join("corpus"), work.join("seeds"));
    for folder in [&grown, &given] {
        fs::create_dir_all(folder).unwrap();
    }
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(given.join(format!("{number}")), seed).unwrap();
    }
    let target = format!("fuzz/target/{}-unknown-linux-gnu/release/{name}", std::env::consts::ARCH);
    let output = Command::new(target)
        .args([&grown, &given])
        .args([&format!("-max_total_time={SECONDS}"), "-timeout=1", "-print_final_stats=1", "-max_len=4096"])
        .args([&format!("-artifact_prefix={}/found-", work.display()), "-rss_limit_mb=2048", "-verbosity=0"])
        .output()
        .map_err(|error| error.to_string())?;
    let printed = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let panic = printed.lines().skip_while(|line| !line.contains("panicked")).take(3).collect::<Vec<_>>().join(" ");
        return Err(format!("libFuzzer found something (kept in {}): {panic}", work.display()));
    }
    let stat = printed.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    stat.and_then(|count| count.trim().parse().ok()).ok_or_else(|| "no statistics".to_owned())
}
