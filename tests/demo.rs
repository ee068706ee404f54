//! What `portcullis demo` prints is true: each line gives the status beside it, and Ctrl-C ends it at once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure here is a failed test")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A line as a shell would split it, with the users' variables filled in.
fn words(line: &str, variables: &HashMap<String, String>) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if c == open => quote = None,
            (None, ' ') => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            _ => word.push(c),
        }
    }
    words.push(word);
    for word in &mut words {
        for (name, value) in variables {
            *word = word.replace(&format!("${name}"), value);
        }
    }
    words
}

/// Does what `curl … | sed …` does with a login; the access token.
fn log_in(command: &str) -> String {
    let curl = command.split_once(" | sed").unwrap().0;
    let answer = answer(&words(&curl.replace(" -s", ""), &HashMap::new()));
    answer
        .split_once(r#""access_token":""#)
        .unwrap_or_else(|| panic!("{answer}"))
        .1
        .split_once('"')
        .unwrap()
        .0
        .to_owned()
}

/// Does what curl does with these arguments; the status.
fn request(words: &[String]) -> u16 {
    answer(words).split(' ').nth(1).unwrap().parse().unwrap()
}

fn answer(words: &[String]) -> String {
    let (mut method, mut headers, mut body, mut url) = ("GET", String::new(), String::new(), "");
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "curl" | "-i" | "--path-as-is" => {}
            "-X" => method = rest.next().unwrap(),
            "-H" => headers.push_str(&format!("{}\r\n", rest.next().unwrap())),
            "-d" => {
                method = "POST";
                body = if body.is_empty() { rest.next().unwrap().clone() } else { body + "&" + rest.next().unwrap() };
            }
            other => url = other,
        }
    }
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    if !body.is_empty() && !body.starts_with('{') {
        headers.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
    }
    let length = body.len();
    write!(stream, "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn each_printed_line_gives_the_printed_status_and_ctrl_c_ends_it() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = Vec::new();
    for line in BufReader::new(demo.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let ends = line.starts_with("Ctrl-C");
        printed.push(line);
        if ends {
            break;
        }
    }
    let variables: HashMap<String, String> = printed
        .iter()
        .filter_map(|line| line.trim().split_once("=$("))
        .map(|(name, command)| (name.to_owned(), log_in(command)))
        .collect();
    assert_eq!(variables.len(), 3, "{printed:#?}");

    let lines: Vec<&str> = printed.iter().map(|line| line.trim()).filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.len() > 10, "{printed:#?}");
    for line in &lines {
        let (command, remark) = line.rsplit_once("  # ").unwrap();
        let expected: u16 = remark.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(request(&words(command.trim(), &variables)), expected, "{line}");
    }

    let folder =
        printed.iter().find_map(|line| line.split_once("The policy is ")).unwrap().1.split_once(": ").unwrap().0;
    assert!(std::path::Path::new(folder).exists(), "{folder}");
    let start = Instant::now();
    assert!(Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap().success());
    let status = demo.wait().unwrap();
    assert!(status.success() && start.elapsed() < Duration::from_secs(2), "{status} after {:?}", start.elapsed());
    assert!(!std::path::Path::new(folder).exists(), "{folder} is left behind");
}
