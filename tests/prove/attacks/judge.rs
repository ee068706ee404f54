//! What became of a case: whether the gateway was bypassed, which is the same for every gateway, and whether it did
//! exactly what the corpus says of Portcullis.

use super::corpus::{Case, Outcome, Policy, Wire};
use super::framing::{self, Framing};
use super::send::{Back, Over};

/// Names of headers by which a client would be somebody else, in the words of `Target::guards`.
pub fn is_guarded(guards: &[String], name: &str) -> bool {
    let name = folded(name.as_bytes());
    guards.iter().any(|guard| match guard.strip_suffix('*') {
        Some(family) => name.starts_with(family),
        None => name == *guard,
    })
}

/// As CGI programs see it: case is gone, and what is no letter or digit is one character (Apache, WSGI, PHP, Rack).
fn folded(name: &[u8]) -> String {
    name.iter()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte.to_ascii_lowercase()) } else { '-' })
        .collect()
}

/// What a client writes into a header that only the gateway may set.
pub const HOSTILE: &[u8] = b"hostile";

fn has(text: &[u8], part: &[u8]) -> bool {
    text.len() >= part.len() && text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// How the gateway was bypassed, by what the upstream saw.
pub fn bypass(policy: Policy, case: &Case, guards: &[String], seen: &[Vec<u8>]) -> Option<String> {
    seen.iter().find_map(|bytes| {
        closed_path(policy, case, bytes).or_else(|| smuggled(case, bytes)).or_else(|| forged(case, guards, bytes))
    })
}

fn closed_path(policy: Policy, case: &Case, bytes: &[u8]) -> Option<String> {
    framing::all(Framing::Strict, bytes).iter().find_map(|request| {
        let literal = request.target.split(|byte| *byte == b'?').next().unwrap_or_default();
        if policy.closes(literal, case.credential) && literal.starts_with(b"/") {
            return Some(format!("{} reached the upstream as it stands", request.target.escape_ascii()));
        }
        let reader =
            case.read_by.iter().find(|reader| policy.closes(&reader.path(&request.target), case.credential))?;
        let path = reader.path(&request.target);
        Some(format!("{} takes {} for {}", reader.name(), request.target.escape_ascii(), path.escape_ascii()))
    })
}

fn smuggled(case: &Case, bytes: &[u8]) -> Option<String> {
    if !matches!(case.wire, Wire::Raw(_) | Wire::H2(_)) {
        return None;
    }
    Framing::ALL.iter().find_map(|framing| {
        let requests = framing::all(*framing, bytes);
        let request = requests.iter().find(|request| has(&request.target, b"smuggled"))?;
        Some(format!("a reader of {} sees a second request, for {}", framing.name(), request.target.escape_ascii()))
    })
}

fn forged(case: &Case, guards: &[String], bytes: &[u8]) -> Option<String> {
    framing::all(Framing::Loose, bytes).iter().find_map(|request| {
        request.fields.iter().find_map(|(name, value)| {
            let line = [name, &b": "[..], value].concat();
            let is_forged = has(value, HOSTILE) && is_guarded(guards, &String::from_utf8_lossy(name));
            let is_absent = case.absent.iter().any(|text| has(&line, text.as_bytes()));
            (is_forged || is_absent).then(|| format!("the client's {} reached the upstream", line.escape_ascii()))
        })
    })
}

/// What differs from what the corpus expects of Portcullis.
pub fn difference(policy: Policy, case: &Case, over: Over, back: &Back, seen: &[Vec<u8>]) -> Option<String> {
    let (_, expected) = case.expect.iter().find(|(of, _)| *of == policy)?;
    let requests: Vec<framing::Request> = seen.iter().flat_map(|it| framing::all(Framing::Strict, it)).collect();
    // What no library of HTTP/2 lets through ends the stream before there is a status.
    let reset = |status: u16| over == Over::H2 && back.status.is_none() && back.ended && matches!(status, 400..=501);
    // Neither is there any form of a target there but one.
    let other_form = matches!(&case.wire, Wire::Request(request) if !request.target.starts_with(b"/"));
    if over == Over::H2 && other_form && requests.is_empty() && (back.ended || back.status == Some(400)) {
        return None;
    }
    let is = |outcome: &Outcome| match outcome {
        Outcome::Refused(status) => (back.status == Some(*status) || reset(*status)) && requests.is_empty(),
        Outcome::Cut => matches!(back.status, None | Some(400)) && requests.len() == 1,
        Outcome::Closed => back.status.is_none() && back.ended && requests.is_empty(),
        Outcome::Forwarded(status, target) => {
            back.status == Some(*status)
                && matches!(&*requests, [only] if target.as_ref().is_none_or(|target| only.target == *target))
        }
    };
    let show = || {
        let targets: Vec<String> =
            requests.iter().map(|it| format!("{} {}", it.method.escape_ascii(), it.target.escape_ascii())).collect();
        format!("expected {expected:?}, got {back:?}, the upstream saw {targets:?}")
    };
    if !expected.iter().any(is) {
        return Some(show());
    }
    if case.ends && over != Over::H2 && !(back.ended && back.answers <= 1) {
        return Some(format!("the connection goes on: {back:?}"));
    }
    let head = |request: &framing::Request| -> Vec<u8> {
        request.fields.iter().flat_map(|(name, value)| [name, &b": "[..], value, b"\n"].concat()).collect()
    };
    for request in &requests {
        if has(&head(request), HOSTILE) {
            return Some(format!("a header of the client's arrived:\n{}", head(request).escape_ascii()));
        }
        for line in &case.present {
            let (name, value) = line.split_once(": ").unwrap();
            if request.values(name) != [value.as_bytes()] {
                return Some(format!("not exactly one `{line}`:\n{}", head(request).escape_ascii()));
            }
        }
    }
    None
}

/// What differs in an ordinary request from what was sent.
pub fn touched(request: &super::corpus::Request, back: &Back, seen: &[Vec<u8>]) -> Option<String> {
    let requests: Vec<framing::Request> = seen.iter().flat_map(|it| framing::all(Framing::Strict, it)).collect();
    let [got] = &*requests else { return Some(format!("{back:?}, the upstream saw {} requests", requests.len())) };
    if back.status != Some(200) {
        return Some(format!("{back:?}"));
    }
    if got.method != request.method || got.target != request.target {
        return Some(format!("arrived as {} {}", got.method.escape_ascii(), got.target.escape_ascii()));
    }
    if got.body != request.body.clone().unwrap_or_default() {
        return Some(format!("its body arrived as {}", got.body.escape_ascii()));
    }
    let names: Vec<(&[u8], &[u8])> = request
        .lines
        .iter()
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap();
            (&line[..colon], line[colon + 1..].trim_ascii())
        })
        .collect();
    names.iter().find_map(|(name, _)| {
        let sent: Vec<&[u8]> =
            names.iter().filter(|it| it.0.eq_ignore_ascii_case(name)).map(|(_, value)| *value).collect();
        let name = String::from_utf8_lossy(name);
        let arrived = got.values(&name);
        (arrived != sent).then(|| {
            let arrived: Vec<String> = arrived.iter().map(|value| value.escape_ascii().to_string()).collect();
            format!("{name} arrived as {arrived:?}")
        })
    })
}
