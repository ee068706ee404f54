//! The request target in one canonical form, which is matched and forwarded.

use std::borrow::Cow;
use std::fmt;
use std::ops::BitOr;

use percent_encoding::percent_decode_str;

use super::head::{Lookup, RequestHead, split_request_line};
use super::host::Host;

/// The longest target that is read.
pub const MAX_TARGET: usize = 8 * 1024;

refusals! {
    /// Why a request target is refused.
    TargetError {
        /// `*`, which asks the server and not a resource.
        Asterisk: BAD_REQUEST, "asterisk_form", "the request target is `*`, which is not forwarded";
        /// The authority of an absolute target is not the host of the request.
        AuthorityMismatch: BAD_REQUEST, "target_authority_mismatch", "the authority in the request target is not the host of the request";
        /// A raw or encoded backslash, which some servers read as a slash.
        Backslash: BAD_REQUEST, "backslash", "the path contains a backslash, raw or encoded";
        /// A `%` without two hex digits.
        BrokenEscape: BAD_REQUEST, "broken_escape", "the path contains `%` without two hex digits behind it";
        /// A control character, raw or encoded.
        Control: BAD_REQUEST, "control_character", "the target contains a control character";
        /// `.` or `..` as a segment, raw, encoded, or behind an encoded slash or before `;`.
        DotSegment: BAD_REQUEST, "dot_segment", "the path contains a `.` or `..` segment";
        /// `%25` and two hex digits, in an app that does not allow it.
        DoubleEncoding: BAD_REQUEST, "double_encoding", "the path is percent-encoded twice";
        /// `//`, in an app that does not allow it.
        DoubleSlash: BAD_REQUEST, "double_slash", "the path contains `//`";
        /// `%2F`, in an app that does not allow it.
        EncodedSlash: BAD_REQUEST, "encoded_slash", "the path contains an encoded slash";
        /// A `#`, which a client never sends.
        Fragment: BAD_REQUEST, "fragment", "the request target contains `#`";
        /// Escapes that are not UTF-8 when decoded.
        InvalidUtf8: BAD_REQUEST, "invalid_utf8", "the path is not UTF-8 when decoded";
        /// Bytes above 127 that are not encoded.
        NonAscii: BAD_REQUEST, "non_ascii", "the target contains bytes above 127 that are not percent-encoded";
        /// Neither a path nor an http(s) URL: `admin`, `foo:bar`, `?x`, `example.com:443`.
        NotOriginForm: BAD_REQUEST, "not_origin_form", "the request target does not start with `/`";
        /// `;`, raw or encoded, in an app that does not allow it.
        PathParameter: BAD_REQUEST, "path_parameter", "the path contains `;`";
        /// The request line is not what the parser made of it.
        Repaired: BAD_REQUEST, "request_line_repaired", "the request line is malformed";
        /// `https://` over a plain connection, or the other way round.
        SchemeMismatch: BAD_REQUEST, "target_scheme_mismatch", "the scheme in the request target is not the one of the connection";
        /// More than [`MAX_TARGET`] bytes.
        TooLong: URI_TOO_LONG, "target_too_long", "the request target is longer than 8 KiB";
        /// A space, a quote, an angle bracket or a backtick: a parser would have to repair them.
        Unencoded: BAD_REQUEST, "unencoded_character", "the target contains a character that must be percent-encoded";
    }
}

/// Forms of a path that are refused unless the app of the route allows them (4.2 of the language).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Irregular(u8);

impl Irregular {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// `%2F`: data inside its segment.
    pub const ENCODED_SLASH: Self = Self(1);
    /// `//`: an empty segment.
    pub const DOUBLE_SLASH: Self = Self(2);
    /// `;` and `%3B`: an ordinary character.
    pub const PATH_PARAMS: Self = Self(4);
    /// `%25` and two hex digits: decoded once.
    pub const DOUBLE_ENCODING: Self = Self(8);

    const NAMED: [(&'static str, Self, TargetError); 4] = [
        ("encoded_slash", Self::ENCODED_SLASH, TargetError::EncodedSlash),
        ("double_slash", Self::DOUBLE_SLASH, TargetError::DoubleSlash),
        ("path_params", Self::PATH_PARAMS, TargetError::PathParameter),
        ("double_encoding", Self::DOUBLE_ENCODING, TargetError::DoubleEncoding),
    ];

    /// The form with the name that policies use.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(word, ..)| *word == name).map(|(_, form, _)| *form)
    }

    /// The names of all forms, in the order of the reference.
    pub fn all_names() -> impl Iterator<Item = &'static str> {
        Self::NAMED.iter().map(|(word, ..)| *word)
    }

    /// The names of the forms in this set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMED.iter().filter(move |(_, form, _)| self.contains(*form)).map(|(word, ..)| *word)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are in this set.
    pub fn contains(self, other: Self) -> bool {
        other.is_subset(self)
    }

    /// Whether all of these are allowed.
    pub fn is_subset(self, allowed: Self) -> bool {
        self.0 & !allowed.0 == 0
    }

    /// Refuses with the first form that is not allowed.
    pub fn admit(self, allowed: Self) -> Result<(), TargetError> {
        let refused = Self::NAMED.iter().find(|(_, form, _)| self.contains(*form) && !allowed.contains(*form));
        refused.map_or(Ok(()), |(.., error)| Err(*error))
    }

    fn note(&mut self, form: Self) {
        *self = *self | form;
    }
}

impl BitOr for Irregular {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The target of a request: the canonical path, and the query byte for byte. What is matched is what is forwarded.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// The path and, if there is one, the query: the bytes to forward.
    text: Box<str>,
    /// The path; the same bytes as the beginning of `text`.
    path_len: usize,
    irregular: Irregular,
}

impl Target {
    /// Reads the target of a request, or refuses it.
    ///
    /// Origin-form is read as it is. An absolute http or https URL whose scheme and authority are those of the
    /// request becomes origin-form (RFC 9112 §3.2.2). Everything else is refused.
    pub fn parse(head: &RequestHead<'_>) -> Result<Self, TargetError> {
        if head.target.len() > MAX_TARGET {
            return Err(TargetError::TooLong);
        }
        // Pingora cuts fragments off before anyone sees the target; the raw head still has them. A space that it
        // escaped shows only if the raw head comes from the socket: the one it keeps is escaped, too.
        if let Some(raw) = head.raw {
            let (line, _) = split_request_line(raw).ok_or(TargetError::Repaired)?;
            if line.target != head.target || line.method != head.method.as_bytes() {
                let fragment = line.target.contains(&b'#');
                return Err(if fragment { TargetError::Fragment } else { TargetError::Repaired });
            }
        }
        match head.target {
            [b'/', ..] => Self::origin_form(head.target),
            b"*" => Err(TargetError::Asterisk),
            _ => Self::absolute_form(head),
        }
    }

    fn absolute_form(head: &RequestHead<'_>) -> Result<Self, TargetError> {
        let (scheme, rest) = split_scheme(head.target).ok_or(TargetError::NotOriginForm)?;
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end).ok_or(TargetError::NotOriginForm)?;
        if scheme != head.secure {
            return Err(TargetError::SchemeMismatch);
        }
        let authority = std::str::from_utf8(authority).map_err(|_| TargetError::NonAscii)?;
        let authority = Host::parse(authority).map_err(|_| TargetError::AuthorityMismatch)?;
        let host = Host::of(head).map_err(|_| TargetError::AuthorityMismatch)?;
        if !authority.agrees_with(&host, head.secure) {
            return Err(TargetError::AuthorityMismatch);
        }
        if rest.starts_with(b"/") {
            return Self::origin_form(rest);
        }
        Self::origin_form(&[b"/", rest].concat())
    }

    fn origin_form(target: &[u8]) -> Result<Self, TargetError> {
        let path_end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let (path, query) = target.split_at_checked(path_end).ok_or(TargetError::NotOriginForm)?;
        let mut text = String::with_capacity(target.len());
        let irregular = canonicalize(path, &mut text)?;
        let path_len = text.len();
        query.iter().try_for_each(|byte| query_character(*byte).map(drop))?;
        text.push_str(std::str::from_utf8(query).map_err(|_| TargetError::NonAscii)?);
        Ok(Self { text: text.into_boxed_str(), path_len, irregular })
    }

    /// The canonical path, still percent-encoded.
    pub fn path(&self) -> &str {
        self.text.get(..self.path_len).unwrap_or_default()
    }

    /// The canonical path as a value of its own.
    pub fn canonical_path(&self) -> CanonicalPath {
        CanonicalPath { text: self.path().into(), irregular: self.irregular }
    }

    /// The query without its `?`, byte for byte as received.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_len..)?.strip_prefix('?')
    }

    /// Path and query: the bytes to forward, the same that were matched.
    pub fn forwarded(&self) -> &str {
        &self.text
    }

    /// The segments of the path.
    pub fn segments(&self) -> Segments<'_> {
        Segments::of(self.path())
    }

    /// The forms that the app of the route must allow.
    pub fn irregular(&self) -> Irregular {
        self.irregular
    }

    /// Whether the path ends with a slash that matching ignores. `/` itself does not count.
    pub fn has_trailing_slash(&self) -> bool {
        has_trailing_slash(self.path())
    }

    /// The one value of a query parameter, decoded as a form is.
    pub fn query_value(&self, name: &str) -> Lookup<Cow<'_, str>> {
        let mut values = self.query_values(name);
        match (values.next(), values.next()) {
            (None, _) => Lookup::Missing,
            (Some(Some(value)), None) => Lookup::One(value),
            _ => Lookup::Unclear,
        }
    }

    /// All values of a query parameter, decoded as a form is; `None` stands for one that is not UTF-8.
    pub fn query_values<'t, 'n>(&'t self, name: &'n str) -> impl Iterator<Item = Option<Cow<'t, str>>> + use<'t, 'n> {
        query_values(self.query().unwrap_or_default(), name)
    }
}

/// All values of a parameter in a query, decoded as a form is; `None` stands for one that is not UTF-8.
pub fn query_values<'q, 'n>(query: &'q str, name: &'n str) -> impl Iterator<Item = Option<Cow<'q, str>>> + use<'q, 'n> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(move |(key, _)| form_decode(key).is_some_and(|key| key == name))
        .map(|(_, value)| form_decode(value))
}

/// Shows no query: it may hold a credential.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = self.query().map(|_| "…");
        f.debug_struct("Target")
            .field("path", &self.path())
            .field("query", &query)
            .field("irregular", &self.irregular)
            .finish()
    }
}

/// A path in canonical form, apart from any request: what a rewrite made (12.4 of the language), or a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath {
    text: Box<str>,
    irregular: Irregular,
}

impl CanonicalPath {
    /// Brings a path without query into canonical form, or refuses it as a request target would be.
    pub fn parse(path: &str) -> Result<Self, TargetError> {
        if path.len() > MAX_TARGET {
            return Err(TargetError::TooLong);
        }
        if path.contains('?') {
            return Err(TargetError::Unencoded);
        }
        let mut text = String::with_capacity(path.len());
        let irregular = canonicalize(path.as_bytes(), &mut text)?;
        Ok(Self { text: text.into_boxed_str(), irregular })
    }

    /// The path, percent-encoded.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The segments of the path.
    pub fn segments(&self) -> Segments<'_> {
        Segments::of(&self.text)
    }

    /// The forms that the app must allow.
    pub fn irregular(&self) -> Irregular {
        self.irregular
    }

    /// Whether the path ends with a slash that matching ignores.
    pub fn has_trailing_slash(&self) -> bool {
        has_trailing_slash(&self.text)
    }
}

/// The segments of a canonical path. `/` has none, and a slash at the end adds none: `/a/` has one, `//` has one
/// that is empty.
#[derive(Clone, Debug)]
pub struct Segments<'p> {
    rest: Option<&'p str>,
}

impl<'p> Segments<'p> {
    fn of(path: &'p str) -> Self {
        let body = path.strip_prefix('/').unwrap_or(path);
        Self { rest: (!body.is_empty()).then(|| body.strip_suffix('/').unwrap_or(body)) }
    }

    /// The segments not yet taken, percent-encoded and joined by `/`; empty if there are none.
    pub fn rest(&self) -> &'p str {
        self.rest.unwrap_or_default()
    }
}

impl<'p> Iterator for Segments<'p> {
    type Item = Segment<'p>;

    fn next(&mut self) -> Option<Segment<'p>> {
        let rest = self.rest?;
        let end = memchr::memchr(b'/', rest.as_bytes());
        let (segment, after) = end.and_then(|end| rest.split_at_checked(end)).unwrap_or((rest, ""));
        self.rest = after.strip_prefix('/');
        Some(Segment(segment))
    }
}

/// One segment of a canonical path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'p>(&'p str);

impl<'p> Segment<'p> {
    /// The text as it is forwarded.
    pub fn encoded(self) -> &'p str {
        self.0
    }

    /// The text as an upstream that decodes once reads it. Allocates only where there is a `%`.
    pub fn decoded(self) -> Cow<'p, str> {
        if memchr::memchr(b'%', self.0.as_bytes()).is_none() {
            return Cow::Borrowed(self.0);
        }
        // INVARIANT: canonicalize() has checked that this is UTF-8, so nothing is replaced.
        percent_decode_str(self.0).decode_utf8_lossy()
    }
}

/// Appends the canonical form of `path` to the empty `text`.
fn canonicalize(path: &[u8], text: &mut String) -> Result<Irregular, TargetError> {
    if !path.starts_with(b"/") {
        return Err(TargetError::NotOriginForm);
    }
    let mut irregular = Irregular::NONE;
    let mut high = false;
    let mut rest = path;
    // Most paths are canonical as they are, and have nothing below.
    let common = |byte: u8| byte.is_ascii_alphanumeric() | matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~');
    let unusual = |pair: &[u8]| matches!(pair, b"//" | b"/.");
    if path.iter().fold(true, |all, byte| all & common(*byte))
        && !path.windows(2).any(unusual)
        && let Ok(path) = std::str::from_utf8(path)
    {
        text.push_str(path);
        return Ok(irregular);
    }
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            if byte == b';' {
                irregular.note(Irregular::PATH_PARAMS);
            }
            text.push(path_character(byte)?);
            continue;
        }
        let [first, second, after @ ..] = tail else { return Err(TargetError::BrokenEscape) };
        let (Some(upper), Some(lower)) = (hex(*first), hex(*second)) else { return Err(TargetError::BrokenEscape) };
        rest = after;
        match upper << 4 | lower {
            unreserved @ (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => {
                text.push(char::from(unreserved));
                continue;
            }
            0..=0x1f | 0x7f => return Err(TargetError::Control),
            b'\\' => return Err(TargetError::Backslash),
            b'/' => irregular.note(Irregular::ENCODED_SLASH),
            b';' => irregular.note(Irregular::PATH_PARAMS),
            0x80.. => high = true,
            _ => {}
        }
        text.extend(['%', char::from(*first), char::from(*second)]);
    }
    if high {
        let decoded = percent_decode_str(text).decode_utf8().map_err(|_| TargetError::InvalidUtf8)?;
        // U+0080 to U+009F: some readers take U+0085 for the end of a line.
        if decoded.chars().any(char::is_control) {
            return Err(TargetError::Control);
        }
    }
    if text.contains("//") {
        irregular.note(Irregular::DOUBLE_SLASH);
    }
    // On the canonical text: `%25%32e` is `%252e`.
    if text.match_indices("%25").any(|(at, _)| escapes_again(text, at)) {
        irregular.note(Irregular::DOUBLE_ENCODING);
    }
    if text.split('/').any(|segment| is_dotted(segment, irregular)) {
        return Err(TargetError::DotSegment);
    }
    Ok(irregular)
}

/// Whether two hex digits follow the `%25` at `at`.
fn escapes_again(text: &str, at: usize) -> bool {
    let digits = text.as_bytes().get(at.saturating_add(3)..).unwrap_or_default();
    matches!(digits, [first, second, ..] if hex(*first).is_some() && hex(*second).is_some())
}

/// Whether a segment is `.` or `..`. No opt-in admits `a%2F..%2Fb`, `..;x` or `%252e%252e`: who decodes the one, cuts
/// the other or decodes the third twice sees a dot segment, and nobody needs them.
fn is_dotted(segment: &str, irregular: Irregular) -> bool {
    let is_dot = |part: &str| matches!(part.split(';').next(), Some("." | ".."));
    if irregular.is_empty() {
        return matches!(segment, "." | "..");
    }
    let decoded = percent_decode_str(segment).decode_utf8_lossy();
    if decoded.split('/').any(is_dot) {
        return true;
    }
    irregular.contains(Irregular::DOUBLE_ENCODING)
        && percent_decode_str(&decoded).decode_utf8_lossy().split(['/', '\\']).any(is_dot)
}

/// A byte that may stand in a path as it is.
fn path_character(byte: u8) -> Result<char, TargetError> {
    match byte {
        b'\\' => Err(TargetError::Backslash),
        b'`' => Err(TargetError::Unencoded),
        _ => query_character(byte),
    }
}

/// A byte that may stand in a query as it is.
fn query_character(byte: u8) -> Result<char, TargetError> {
    match byte {
        0..=0x1f | 0x7f => Err(TargetError::Control),
        0x80.. => Err(TargetError::NonAscii),
        b' ' | b'"' | b'<' | b'>' => Err(TargetError::Unencoded),
        b'#' => Err(TargetError::Fragment),
        _ => Ok(char::from(byte)),
    }
}

/// Splits `http://` (false) or `https://` (true) off.
fn split_scheme(target: &[u8]) -> Option<(bool, &[u8])> {
    let colon = target.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = target.split_at_checked(colon)?;
    let rest = rest.strip_prefix(b"://")?;
    if scheme.eq_ignore_ascii_case(b"http") {
        return Some((false, rest));
    }
    scheme.eq_ignore_ascii_case(b"https").then_some((true, rest))
}

fn has_trailing_slash(path: &str) -> bool {
    path.len() > 1 && path.ends_with('/')
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Decodes a name or value of `application/x-www-form-urlencoded`; `None` if it is not UTF-8.
fn form_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8().ok();
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|decoded| Cow::Owned(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};
    use proptest::prelude::*;

    use super::*;

    fn parse(target: impl AsRef<[u8]>) -> Result<Target, TargetError> {
        let headers = HeaderMap::new();
        Target::parse(&RequestHead::new("GET", target.as_ref(), &headers))
    }

    fn decoded(target: &Target) -> Vec<String> {
        target.segments().map(|segment| segment.decoded().into_owned()).collect()
    }

    #[test]
    fn ordinary_targets_are_forwarded_as_received() {
        let rows: &[(&str, &[&str])] = &[
            ("/", &[]),
            ("/items", &["items"]),
            ("/items/", &["items"]),
            ("/caf%C3%A9", &["café"]),
            ("/caf%c3%a9", &["café"]),
            ("/files/report%20final.pdf", &["files", "report final.pdf"]),
            ("/q?next=/admin", &["q"]),
            ("/a+b", &["a+b"]),
            ("/users/@me", &["users", "@me"]),
            ("/users/%40me", &["users", "@me"]),
            ("/a:b/c,d/e=f/(g)/h'i/j*k/l!m/$n/o&p", &["a:b", "c,d", "e=f", "(g)", "h'i", "j*k", "l!m", "$n", "o&p"]),
            ("/a|b/[c]/{d}/^", &["a|b", "[c]", "{d}", "^"]),
            ("/.well-known/jwks.json", &[".well-known", "jwks.json"]),
            ("/.../..a/a../.a", &["...", "..a", "a..", ".a"]),
            ("/admin.", &["admin."]),
            ("/admin%20", &["admin "]),
            ("/admin%3fpublic", &["admin?public"]),
            ("/foo/secret%23/bar", &["foo", "secret#", "bar"]),
            ("/100%25", &["100%"]),
            ("/100%25/x", &["100%", "x"]),
            ("/%ef%bc%8f", &["／"]),
            ("/public?bypass", &["public"]),
            ("/a?", &["a"]),
            ("/a??b=/../c//d;e\\%zz`{}|[]^'", &["a"]),
        ];
        for (text, segments) in rows {
            let target = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(target.forwarded(), *text);
            assert_eq!(decoded(&target), *segments, "{text}");
            assert!(target.irregular().is_empty(), "{text}");
        }
    }

    #[test]
    fn encoded_unreserved_characters_are_decoded_for_matching_and_forwarding() {
        for (text, canonical) in [
            ("/%61dmin/x", "/admin/x"),
            ("/%7Euser/%2Dx%5F", "/~user/-x_"),
            ("/a%2eb", "/a.b"),
            ("/%41?q=%41", "/A?q=%41"),
        ] {
            assert_eq!(parse(text).unwrap().forwarded(), canonical);
        }
    }

    /// The A rows of the attack table that are questions to the target alone.
    #[test]
    fn targets_with_two_readings_are_refused() {
        use TargetError as E;
        let rows: &[(&str, E)] = &[
            ("/public/../admin/secrets", E::DotSegment),
            ("/public/%2e%2e/admin", E::DotSegment),
            ("/public/.%2e/admin", E::DotSegment),
            ("/public/%2E./admin", E::DotSegment),
            ("/public/./../admin", E::DotSegment),
            ("/..", E::DotSegment),
            ("/.", E::DotSegment),
            ("/admin/.", E::DotSegment),
            ("/./", E::DotSegment),
            ("/svc/%2e%2e/admin", E::DotSegment),
            ("/public/..;/admin", E::DotSegment),
            ("/public/..%3b/admin", E::DotSegment),
            ("/public/..%2fadmin", E::DotSegment),
            ("/public;/../admin", E::DotSegment),
            ("/public/%252e%252e/admin", E::DotSegment),
            ("/public/%252e./admin", E::DotSegment),
            ("/public/..%252fadmin", E::DotSegment),
            ("/public/x%255c..%255cadmin", E::DotSegment),
            ("/public/%252e%252e;x/admin", E::DotSegment),
            ("/%25%32e%25%32%65", E::DotSegment),
            ("/%5cadmin", E::Backslash),
            ("/admin%5cx", E::Backslash),
            ("/private%5csecret.txt", E::Backslash),
            ("/public\\..\\admin", E::Backslash),
            ("admin/secrets", E::NotOriginForm),
            ("foo:admin", E::NotOriginForm),
            ("?x", E::NotOriginForm),
            ("foo://h/admin", E::NotOriginForm),
            ("http:/admin", E::NotOriginForm),
            ("a.b:443", E::NotOriginForm),
            ("*/x", E::NotOriginForm),
            ("", E::NotOriginForm),
            ("*", E::Asterisk),
            ("/foo/secret#/bar", E::Fragment),
            ("/foo?a#b", E::Fragment),
            ("/public/%00/../admin", E::Control),
            ("/admin%00.png", E::Control),
            ("/admin\0", E::Control),
            ("/admin/%0a", E::Control),
            ("/admin/%0d%0ax", E::Control),
            ("/admin/%7f", E::Control),
            ("/admin/%c2%85", E::Control),
            ("/a?b\tc", E::Control),
            ("/%c0%ae%c0%ae", E::InvalidUtf8),
            ("/a/%ff", E::InvalidUtf8),
            ("/%c3/%a9", E::InvalidUtf8),
            ("/caf\u{e9}", E::NonAscii),
            ("/a?caf\u{e9}", E::NonAscii),
            ("/a%zz", E::BrokenEscape),
            ("/a%2", E::BrokenEscape),
            ("/a%", E::BrokenEscape),
            ("/a%%32e", E::BrokenEscape),
            ("/public /admin", E::Unencoded),
            ("/a<b", E::Unencoded),
            ("/a>b", E::Unencoded),
            ("/a\"b", E::Unencoded),
            ("/a`b", E::Unencoded),
            ("/a?b c", E::Unencoded),
            ("/a?\"", E::Unencoded),
        ];
        for (text, error) in rows {
            assert_eq!(parse(text), Err(*error), "{text:?}");
            assert_eq!(error.status(), 400);
        }
        assert_eq!(parse(b"/\x80"), Err(E::NonAscii));
    }

    #[test]
    fn irregular_forms_are_noted_and_never_rewritten() {
        let rows: &[(&str, Irregular, &[&str])] = &[
            ("/admin%2fsecret", Irregular::ENCODED_SLASH, &["admin/secret"]),
            ("/admin%2Fsecret", Irregular::ENCODED_SLASH, &["admin/secret"]),
            ("//admin/x", Irregular::DOUBLE_SLASH, &["", "admin", "x"]),
            ("/admin//x", Irregular::DOUBLE_SLASH, &["admin", "", "x"]),
            ("/a//", Irregular::DOUBLE_SLASH, &["a", ""]),
            ("//", Irregular::DOUBLE_SLASH, &[""]),
            ("/admin;a=1/x", Irregular::PATH_PARAMS, &["admin;a=1", "x"]),
            ("/admin%3Ba", Irregular::PATH_PARAMS, &["admin;a"]),
            ("/public/%252ehidden", Irregular::DOUBLE_ENCODING, &["public", "%2ehidden"]),
            ("/%2561dmin", Irregular::DOUBLE_ENCODING, &["%61dmin"]),
            ("/a%2Fb;c//", Irregular::ENCODED_SLASH | Irregular::PATH_PARAMS | Irregular::DOUBLE_SLASH, &["a/b;c", ""]),
        ];
        for (text, irregular, segments) in rows {
            let target = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((target.irregular(), target.forwarded()), (*irregular, *text));
            assert_eq!(decoded(&target), *segments, "{text}");
            assert!(irregular.admit(*irregular).is_ok());
            assert!(irregular.admit(Irregular::NONE).is_err());
        }
        // The digits of the inner escape may themselves be encoded.
        let target = parse("/%25%32f%25%32%66").unwrap();
        assert_eq!((target.forwarded(), target.irregular()), ("/%252f%252f", Irregular::DOUBLE_ENCODING));
    }

    #[test]
    fn irregular_names_are_those_of_the_language() {
        for name in Irregular::all_names() {
            assert_eq!(Irregular::from_name(name).unwrap().names().collect::<Vec<_>>(), [name]);
        }
        assert_eq!(Irregular::from_name("anything"), None);
        assert_eq!(Irregular::DOUBLE_SLASH.admit(Irregular::ENCODED_SLASH), Err(TargetError::DoubleSlash));
    }

    #[test]
    fn absolute_form_becomes_origin_form_where_it_agrees_with_the_connection() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("good"));
        let plain =
            |target: &str| Target::parse(&RequestHead::new("GET", target, &headers)).map(|t| t.forwarded().to_owned());
        assert_eq!(plain("http://good/admin?x").as_deref(), Ok("/admin?x"));
        assert_eq!(plain("HTTP://GOOD:80/admin").as_deref(), Ok("/admin"));
        assert_eq!(plain("http://good").as_deref(), Ok("/"));
        assert_eq!(plain("http://good?x").as_deref(), Ok("/?x"));
        assert_eq!(plain("http://evil/admin"), Err(TargetError::AuthorityMismatch));
        assert_eq!(plain("http://good:81/admin"), Err(TargetError::AuthorityMismatch));
        assert_eq!(plain("http://good@evil/admin"), Err(TargetError::AuthorityMismatch));
        assert_eq!(plain("http:///admin"), Err(TargetError::AuthorityMismatch));
        assert_eq!(plain("https://good/admin"), Err(TargetError::SchemeMismatch));
        assert_eq!(plain("ftp://good/admin"), Err(TargetError::NotOriginForm));
        assert_eq!(plain("http://good/a/../b"), Err(TargetError::DotSegment));
        assert_eq!(plain("http://good#/a"), Err(TargetError::Fragment));
        let secure = RequestHead::new("GET", "https://good/admin", &headers).secure(true);
        assert_eq!(Target::parse(&secure).unwrap().forwarded(), "/admin");
        let nameless = HeaderMap::new();
        let head = RequestHead::new("GET", "http://good/admin", &nameless);
        assert_eq!(Target::parse(&head), Err(TargetError::AuthorityMismatch));
    }

    #[test]
    fn a_target_that_is_not_the_one_on_the_wire_is_refused() {
        let headers = HeaderMap::new();
        let parse = |target: &'static str, raw: &'static str| {
            Target::parse(&RequestHead::new("GET", target, &headers).raw(raw.as_bytes())).map(|_| ())
        };
        assert_eq!(parse("/a", "GET /a HTTP/1.1\r\n\r\n"), Ok(()));
        assert_eq!(parse("/foo/secret", "GET /foo/secret#/bar HTTP/1.1\r\n\r\n"), Err(TargetError::Fragment));
        assert_eq!(parse("/a%20b", "GET /a b HTTP/1.1\r\n\r\n"), Err(TargetError::Repaired));
        assert_eq!(parse("/a%3Cb", "GET /a<b HTTP/1.1\r\n\r\n"), Err(TargetError::Repaired));
        assert_eq!(parse("/a", "POST /a HTTP/1.1\r\n\r\n"), Err(TargetError::Repaired));
        assert_eq!(parse("/a", "GET /a HTTP/1.1\n\n"), Err(TargetError::Repaired));
    }

    #[test]
    fn targets_of_eight_kibibytes_are_read_and_longer_ones_are_414() {
        assert!(parse(format!("/{}", "a".repeat(7_999))).is_ok());
        assert!(parse(format!("/{}", "a".repeat(MAX_TARGET - 1))).is_ok());
        for length in [MAX_TARGET, 65_535] {
            let error = parse(format!("/{}", "a".repeat(length))).unwrap_err();
            assert_eq!((error, error.status().as_u16()), (TargetError::TooLong, 414));
        }
    }

    #[test]
    fn query_parameters_are_found_once_several_times_or_not() {
        let target = parse("/a?x=1&y=a+b%2Bc&z=1&z=2&e&%78y=2&bad=%ff").unwrap();
        assert_eq!(target.query_value("x"), Lookup::One("1".into()));
        assert_eq!(target.query_value("y"), Lookup::One("a b+c".into()));
        assert_eq!(target.query_value("z"), Lookup::Unclear);
        assert_eq!(target.query_value("e"), Lookup::One("".into()));
        assert_eq!(target.query_value("xy"), Lookup::One("2".into()));
        assert_eq!(target.query_value("bad"), Lookup::Unclear);
        assert_eq!(target.query_value("X"), Lookup::Missing);
        assert_eq!(target.query_values("z").flatten().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(parse("/a").unwrap().query_value("x"), Lookup::Missing);
    }

    #[test]
    fn debug_shows_no_query() {
        assert!(!format!("{:?}", parse("/a?token=canary").unwrap()).contains("canary"));
    }

    #[test]
    fn a_rewritten_path_is_judged_like_a_target() {
        assert_eq!(CanonicalPath::parse("/a/%62/").unwrap().as_str(), "/a/b/");
        assert_eq!(CanonicalPath::parse("a"), Err(TargetError::NotOriginForm));
        assert_eq!(CanonicalPath::parse("/a/../b"), Err(TargetError::DotSegment));
        assert_eq!(CanonicalPath::parse("/a?b"), Err(TargetError::Unencoded));
        assert_eq!(CanonicalPath::parse("/a//b").unwrap().irregular(), Irregular::DOUBLE_SLASH);
    }

    /// What an upstream that splits at `/` and decodes each segment once sees: written without the code above.
    fn once_decoded(forwarded: &str) -> Vec<String> {
        let path = forwarded.split('?').next().unwrap();
        let mut parts: Vec<&str> = path.split('/').skip(1).collect();
        if parts.last() == Some(&"") {
            parts.pop();
        }
        let decode = |part: &str| {
            let (mut out, mut rest) = (Vec::new(), part.as_bytes());
            while let Some((&byte, tail)) = rest.split_first() {
                rest = tail;
                if byte == b'%' {
                    let digits = std::str::from_utf8(&tail[..2]).unwrap();
                    out.push(u8::from_str_radix(digits, 16).unwrap());
                    rest = &tail[2..];
                } else {
                    out.push(byte);
                }
            }
            String::from_utf8(out).unwrap()
        };
        parts.into_iter().map(decode).collect()
    }

    fn holds(input: &[u8]) {
        let Ok(target) = parse(input) else { return };
        let again = parse(target.forwarded()).expect("the canonical form is canonical");
        assert_eq!(again, target);
        assert_eq!(decoded(&target), once_decoded(target.forwarded()));
        let uri = http::uri::PathAndQuery::try_from(target.forwarded()).expect("what is accepted can be sent");
        assert_eq!(uri.as_str(), target.forwarded());
        assert_eq!(uri.query(), target.query());
        let segments = decoded(&target);
        assert!(segments.iter().all(|segment| !segment.contains('\\') && segment != ".." && segment != "."));
        let allowed = target.irregular();
        assert!(allowed.contains(Irregular::ENCODED_SLASH) || segments.iter().all(|segment| !segment.contains('/')));
        assert!(allowed.contains(Irregular::DOUBLE_SLASH) || segments.iter().all(|segment| !segment.is_empty()));
        assert!(allowed.contains(Irregular::PATH_PARAMS) || segments.iter().all(|segment| !segment.contains(';')));
        assert_eq!(CanonicalPath::parse(target.path()).unwrap(), target.canonical_path());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn arbitrary_bytes_are_read_one_way_or_refused(input in proptest::collection::vec(any::<u8>(), 0..40)) {
            holds(&input);
            holds(&[b"/", &input[..]].concat());
        }

        #[test]
        fn traversal_spellings_are_read_one_way_or_refused(
            parts in proptest::collection::vec(prop::sample::select(vec![
                "/", "//", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", ";", "%3b", "%25", "%32", "%65", "2e", "%c0%ae",
                "%c3%a9", "%61", "a", "?", "&", "=", "%", "%00", "#", "@", ":", "%7e", "+", "{", "^", "|", "[", "'", "%20",
            ]), 0..12),
        ) {
            holds(format!("/{}", parts.concat()).as_bytes());
        }
    }
}
