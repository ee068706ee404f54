//! How common servers and frameworks take a path apart. A gateway was bypassed where one of these, which the corpus
//! names for the case, takes what it forwarded for a path that the policy keeps closed.

/// A reader of paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reader {
    /// RFC 3986 §6.2.2: unreserved characters decoded, dot segments removed.
    Rfc3986,
    /// nginx: everything decoded, slashes merged, dot segments removed. Apache, Ruby's and PHP's routers read alike.
    Nginx,
    /// Tomcat, Jetty, Spring: `;parameters` cut from each segment first, then decoded, merged, dot segments removed.
    Tomcat,
    /// IIS, ASP.NET and programs on Windows: decoded, `\` is `/`, dot segments removed.
    Iis,
    /// Go's `path.Clean` on the decoded path.
    Go,
    /// WSGI, Rack, PHP: decoded once, no more.
    Wsgi,
    /// A server behind another one that decodes: decoded twice, `\` is `/`, dot segments removed.
    DecodesTwice,
    /// Programs in C: decoded, and ended by a NUL.
    CString,
    /// Lenient UTF-8 decoders: overlong forms are the character they stand for.
    Overlong,
    /// A file system or framework that ignores case.
    IgnoresCase,
}

impl Reader {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rfc3986 => "RFC 3986 §6",
            Self::Nginx => "nginx",
            Self::Tomcat => "Tomcat",
            Self::Iis => "IIS",
            Self::Go => "Go path.Clean",
            Self::Wsgi => "WSGI",
            Self::DecodesTwice => "a server that decodes twice",
            Self::CString => "C strings",
            Self::Overlong => "lenient UTF-8",
            Self::IgnoresCase => "a router without case",
        }
    }

    /// The path it sees in a target.
    pub fn path(self, target: &[u8]) -> Vec<u8> {
        let target = match target.windows(3).position(|three| three == b"://") {
            Some(at) if !target.starts_with(b"/") => {
                let rest = &target[at + 3..];
                rest.iter().position(|byte| *byte == b'/').map_or(&b"/"[..], |slash| &rest[slash..])
            }
            _ => target,
        };
        let path = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
        let mut path = if path.starts_with(b"/") { path.to_vec() } else { [b"/", path].concat() };
        match self {
            Self::Rfc3986 => {
                path = decode(&path, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
                without_dots(&path, false)
            }
            Self::Nginx | Self::Go => without_dots(&decode(&path, |_| true), true),
            Self::Tomcat => {
                let segments = path.split(|byte| *byte == b'/');
                let cut: Vec<&[u8]> =
                    segments.map(|it| it.split(|byte| *byte == b';').next().unwrap_or_default()).collect();
                without_dots(&decode(&cut.join(&b'/'), |_| true), true)
            }
            Self::Iis => without_dots(&slashed(decode(&path, |_| true)), true),
            Self::Wsgi => decode(&path, |_| true),
            Self::DecodesTwice => {
                let once = decode(&path, |_| true);
                without_dots(&slashed(decode(&once, |_| true)), true)
            }
            Self::CString => {
                let decoded = decode(&path, |_| true);
                let ended = decoded.split(|byte| *byte == 0).next().unwrap_or_default();
                without_dots(ended, true)
            }
            Self::Overlong => without_dots(&slashed(shortened(&decode(&path, |_| true))), true),
            Self::IgnoresCase => without_dots(&decode(&path, |_| true), true).to_ascii_lowercase(),
        }
    }
}

fn slashed(mut path: Vec<u8>) -> Vec<u8> {
    path.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
    path
}

fn decode(path: &[u8], which: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let byte = (path[at] == b'%')
            .then(|| path.get(at + 1..at + 3))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
            .filter(|byte| which(*byte));
        decoded.push(byte.unwrap_or(path[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    decoded
}

/// Overlong sequences of two and three bytes as the ASCII that they stand for.
fn shortened(path: &[u8]) -> Vec<u8> {
    let mut short = Vec::new();
    let mut at = 0;
    while at < path.len() {
        match path[at..] {
            [first @ (0xc0 | 0xc1), second, ..] => {
                short.push((first & 3) << 6 | second & 0x3f);
                at += 2;
            }
            [0xe0, second @ 0x80..=0x9f, third, ..] => {
                short.push((second & 1) << 6 | third & 0x3f);
                at += 3;
            }
            _ => {
                short.push(path[at]);
                at += 1;
            }
        }
    }
    short
}

fn without_dots(path: &[u8], merging: bool) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_in_slash = false;
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        ends_in_slash = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"." => {}
            b".." => {
                kept.pop();
            }
            b"" if merging => {}
            segment => kept.push(segment),
        }
    }
    let mut clean = Vec::new();
    for segment in &kept {
        clean.push(b'/');
        clean.extend_from_slice(segment);
    }
    if clean.is_empty() || ends_in_slash {
        clean.push(b'/');
    }
    clean
}
