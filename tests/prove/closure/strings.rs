//! Every short string, through the canonicaliser.

use http::HeaderMap;
use portcullis::request::head::RequestHead;
use portcullis::request::target::{CanonicalPath, Target};

use crate::crowd;
use crate::run::Run;

/// What attacks are made of: the digits are those of `%2e`, `%2f`, `%5c`, `%25`, `%c2%85`.
const SYMBOLS: [u8; 12] = *b"/.%25efc;\\a?";

/// How many were read one way; the rest was refused.
#[derive(Default)]
struct Seen {
    strings: u64,
    accepted: u64,
    broken: Vec<String>,
}

pub fn run(run: &mut Run) -> (u64, u64) {
    let longest = run.of(5, 7);
    // A part for each beginning of two symbols, and one for all shorter strings.
    let parts = 1 + SYMBOLS.len().pow(2) as u64;
    let mut all = Seen::default();
    crowd::work(
        run,
        "short strings",
        parts,
        |part| strings(part, longest),
        |run, seen: Seen| {
            all.strings += seen.strings;
            all.accepted += seen.accepted;
            for broken in seen.broken {
                run.fail(broken);
            }
        },
    );
    let expected: u64 = (0..=longest as u32).map(|length| 12u64.pow(length)).sum();
    run.check(all.strings == expected, || format!("{} of {expected} short strings were tried", all.strings));
    run.count("short strings", all.strings);
    run.count("short strings read one way", all.accepted);
    (all.strings, longest as u64)
}

fn strings(part: u64, longest: usize) -> Seen {
    let mut seen = Seen::default();
    let headers = HeaderMap::new();
    if part == 0 {
        each(b"/", 1, &mut |target| judge(target, &headers, &mut seen));
        return seen;
    }
    let part = part as usize - 1;
    let beginning = [b'/', SYMBOLS[part / SYMBOLS.len()], SYMBOLS[part % SYMBOLS.len()]];
    each(&beginning, longest - 2, &mut |target| judge(target, &headers, &mut seen));
    seen
}

/// Every continuation of up to `more` symbols.
fn each(beginning: &[u8], more: usize, judge: &mut dyn FnMut(&[u8])) {
    let mut text = beginning.to_vec();
    let mut digits: Vec<usize> = Vec::new();
    loop {
        judge(&text);
        if digits.len() < more {
            digits.push(0);
            text.push(SYMBOLS[0]);
            continue;
        }
        loop {
            let Some(last) = digits.pop() else { return };
            text.pop();
            if last + 1 < SYMBOLS.len() {
                digits.push(last + 1);
                text.push(SYMBOLS[last + 1]);
                break;
            }
        }
    }
}

fn judge(text: &[u8], headers: &HeaderMap, seen: &mut Seen) {
    seen.strings += 1;
    let Ok(target) = Target::parse(&RequestHead::new("GET", text, headers)) else { return };
    seen.accepted += 1;
    if let Some(what) = broken(&target, headers)
        && seen.broken.len() < 3
    {
        seen.broken.push(format!("`{}`, forwarded as `{}`: {what}", text.escape_ascii(), target.forwarded()));
    }
}

fn broken(target: &Target, headers: &HeaderMap) -> Option<&'static str> {
    let again = Target::parse(&RequestHead::new("GET", target.forwarded().as_bytes(), headers)).ok();
    if again.as_ref() != Some(target) {
        return Some("the canonical form is not canonical");
    }
    let path = target.forwarded().split('?').next().unwrap_or_default();
    if CanonicalPath::parse(path).ok().as_ref() != Some(&target.canonical_path()) {
        return Some("a path is not read as it is in a target");
    }
    // What is matched, put together again, is what is forwarded.
    let mut rest = path;
    for segment in target.segments() {
        let Some(after) = rest.strip_prefix('/').and_then(|rest| rest.strip_prefix(segment.encoded())) else {
            return Some("other segments are matched than are forwarded");
        };
        rest = after;
        if matches!(segment.encoded(), "." | "..") {
            return Some("a dot segment");
        }
    }
    if !matches!(rest, "" | "/") {
        return Some("something is forwarded that is not matched");
    }
    let bad = |byte: u8| matches!(byte, 0..=0x20 | 0x7f.. | b'#' | b'"' | b'<' | b'>');
    if target.forwarded().bytes().any(bad) || path.contains('\\') || path.to_ascii_lowercase().contains("%5c") {
        return Some("a byte that has two readings");
    }
    None
}
