//! Where and of what something was measured: the day, the commit, the machine.

use serde_json::{Value, json};

/// Today, in UTC.
pub fn date() -> String {
    let today = said_by("date", &["-u", "+%F"]);
    today.as_str().unwrap_or("undated").to_owned()
}

/// The commit, and whether something was changed since.
pub fn commit() -> Value {
    said_by("git", &["describe", "--always", "--dirty"])
}

/// Cores, memory, processor, kernel.
pub fn describe() -> Value {
    let kib = field("/proc/meminfo", "MemTotal").and_then(|kib| kib.split(' ').next()?.parse::<u64>().ok());
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_mib": kib.map(|kib| kib / 1024),
        "processor": field("/proc/cpuinfo", "model name"),
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
    })
}

fn said_by(program: &str, arguments: &[&str]) -> Value {
    let output = std::process::Command::new(program).args(arguments).output().ok().filter(|out| out.status.success());
    output.map_or(Value::Null, |output| String::from_utf8_lossy(&output.stdout).trim().into())
}

/// The first value of a field in a file of the kernel's.
fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
