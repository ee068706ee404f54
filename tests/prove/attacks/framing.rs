//! How common servers cut the bytes of a connection into requests. Where two of these see different requests in what
//! a gateway sent, something was smuggled.

/// A way to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As RFC 9112 says: `Transfer-Encoding: chunked` wins, else `Content-Length`, else no body.
    Strict,
    /// `Content-Length` wins, the first of several (servers that do not know a transfer coding's spelling).
    FirstLength,
    /// The last of several wins.
    LastLength,
    /// Anything that has `chunked` in it is chunked, a bare LF ends a line, sizes are read as C's `strtol` does.
    Loose,
}

impl Framing {
    pub const ALL: [Self; 4] = [Self::Strict, Self::FirstLength, Self::LastLength, Self::Loose];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "RFC 9112",
            Self::FirstLength => "the first Content-Length",
            Self::LastLength => "the last Content-Length",
            Self::Loose => "anything chunked, bare LF",
        }
    }
}

/// One request as a reader sees it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    /// Names and values, as written.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    /// How many bytes it takes of the connection.
    pub length: usize,
    /// Whether all of it has come.
    pub complete: bool,
}

impl Request {
    /// The values of a field, in order; the name without case.
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        let of = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()));
        of.map(|(_, value)| &**value).collect()
    }
}

/// All requests that a reader sees on a connection, from its first byte.
pub fn all(framing: Framing, mut bytes: &[u8]) -> Vec<Request> {
    let mut requests = Vec::new();
    while let Some(request) = first(framing, bytes) {
        bytes = &bytes[request.length.min(bytes.len())..];
        let complete = request.complete;
        requests.push(request);
        if !complete {
            break;
        }
    }
    requests
}

/// The first one, once its head has come.
pub fn first(framing: Framing, bytes: &[u8]) -> Option<Request> {
    let loose = framing == Framing::Loose;
    let skipped = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let mut at = skipped;
    let mut lines = Vec::new();
    loop {
        let (line, next) = line(&bytes[at..], loose)?;
        at += next;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut words = lines.first()?.split(|byte| *byte == b' ');
    let (method, target) = (words.next()?.to_vec(), words.next().unwrap_or_default().to_vec());
    let fields: Vec<(Vec<u8>, Vec<u8>)> = lines[1..]
        .iter()
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
            let name = if loose { line[..colon].trim_ascii() } else { &line[..colon] };
            (name.to_vec(), value.to_vec())
        })
        .collect();
    let mut request = Request { method, target, fields, length: at, ..Request::default() };
    let codings = request.values("transfer-encoding");
    let chunked = match framing {
        Framing::Strict | Framing::FirstLength | Framing::LastLength => {
            codings.last().is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"))
        }
        Framing::Loose => codings.iter().any(|value| value.to_ascii_lowercase().windows(7).any(|it| it == b"chunked")),
    };
    let lengths: Vec<usize> = request.values("content-length").into_iter().filter_map(|it| number(it, 10)).collect();
    let length = match framing {
        Framing::FirstLength => lengths.first().copied(),
        Framing::LastLength => lengths.last().copied(),
        _ if chunked => None,
        _ => lengths.first().copied(),
    };
    match length {
        Some(length) => {
            let rest = &bytes[at..];
            request.complete = rest.len() >= length;
            request.body = rest[..length.min(rest.len())].to_vec();
            request.length = at.saturating_add(length);
        }
        None if chunked => {
            let (body, used, complete) = chunks(&bytes[at..], loose);
            (request.body, request.complete, request.length) = (body, complete, at + used);
        }
        None => request.complete = true,
    }
    Some(request)
}

fn chunks(bytes: &[u8], loose: bool) -> (Vec<u8>, usize, bool) {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some((size, next)) = line(&bytes[at..], loose) else { return (body, bytes.len(), false) };
        at += next;
        let size = size.split(|byte| *byte == b';').next().unwrap_or_default();
        let Some(size) = number(size, 16) else { return (body, bytes.len(), false) };
        if size == 0 {
            // Trailers, up to an empty line.
            loop {
                let Some((trailer, next)) = line(&bytes[at..], loose) else { return (body, bytes.len(), false) };
                at += next;
                if trailer.is_empty() {
                    return (body, at, true);
                }
            }
        }
        let Some(chunk) = at.checked_add(size).and_then(|end| bytes.get(at..end)) else {
            return (body, bytes.len(), false);
        };
        body.extend_from_slice(chunk);
        at += size;
        let Some((_, next)) = line(&bytes[at..], loose) else { return (body, bytes.len(), false) };
        at += next;
    }
}

/// A line without its end, and how many bytes it takes with it.
fn line(bytes: &[u8], loose: bool) -> Option<(&[u8], usize)> {
    if loose {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        return Some((bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]), end + 1));
    }
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

/// As C reads it: after spaces, as far as there are digits.
fn number(text: &[u8], radix: u32) -> Option<usize> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let text = text.strip_prefix('+').unwrap_or(text);
    let text = if radix == 16 { text.strip_prefix("0x").unwrap_or(text) } else { text };
    let end = text.find(|digit: char| !digit.is_digit(radix)).unwrap_or(text.len());
    usize::from_str_radix(&text[..end], radix).ok()
}
