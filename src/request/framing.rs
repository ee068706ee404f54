//! What the head says about the message: where it ends, and whether all parsers agree about that.

use http::{HeaderMap, Version};

use super::head::{RequestHead, split_request_line};

/// The most header fields that are read.
pub const MAX_FIELDS: usize = 100;
/// The most bytes of header fields that are read.
pub const MAX_FIELD_BYTES: usize = 64 * 1024;

refusals! {
    /// Why the framing of a request is refused.
    FramingError {
        /// A CR that does not end a line.
        BareCarriageReturn: BAD_REQUEST, "bare_carriage_return", "the head contains a carriage return inside a line";
        /// A line that ends with LF alone.
        BareLineFeed: BAD_REQUEST, "bare_line_feed", "a line of the head ends without a carriage return";
        /// `Content-Length` and `Transfer-Encoding` together: the two ways to smuggle (CL.TE, TE.CL).
        BothLengths: BAD_REQUEST, "both_lengths", "the request has both `Content-Length` and `Transfer-Encoding`";
        /// A body longer than the route admits.
        ContentTooLarge: PAYLOAD_TOO_LARGE, "content_too_large", "the body is longer than this resource admits";
        /// A control character in a header value.
        ControlInValue: BAD_REQUEST, "control_in_header", "a header value contains a control character";
        /// `Content-Length` that is not one plain number.
        InvalidContentLength: BAD_REQUEST, "content_length_invalid", "`Content-Length` is not one plain number";
        /// A header name that is not a token, or whitespace before its colon.
        InvalidFieldName: BAD_REQUEST, "header_name_invalid", "a header name is malformed";
        /// The head does not begin with a request line, or does not end.
        InvalidHead: BAD_REQUEST, "head_invalid", "the head of the request is malformed";
        /// `Transfer-Encoding` that is not exactly `chunked`, once.
        InvalidTransferEncoding: BAD_REQUEST, "transfer_encoding_invalid", "`Transfer-Encoding` is not exactly `chunked`";
        /// A header value that goes on in the next line.
        ObsoleteFold: BAD_REQUEST, "obsolete_fold", "a header value is folded over several lines";
        /// Several `Content-Length` headers, even if they are equal.
        RepeatedContentLength: BAD_REQUEST, "content_length_repeated", "the request has several `Content-Length` headers";
        /// More than [`MAX_FIELD_BYTES`].
        TooLargeFields: REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "the header fields are longer than 64 KiB";
        /// More than [`MAX_FIELDS`].
        TooManyFields: REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_many", "the request has more than 100 header fields";
        /// `Expect` other than `100-continue`.
        UnknownExpectation: EXPECTATION_FAILED, "expectation_unknown", "`Expect` is not `100-continue`";
        /// A transfer coding other than `chunked`.
        UnsupportedTransferCoding: NOT_IMPLEMENTED, "transfer_coding_unsupported", "the transfer coding is not `chunked`";
        /// `Transfer-Encoding` in a version that does not have it.
        UnexpectedTransferEncoding: BAD_REQUEST, "transfer_encoding_unexpected", "`Transfer-Encoding` is not defined in this version of HTTP";
        /// Neither HTTP/1.0, HTTP/1.1 nor HTTP/2.
        UnsupportedVersion: BAD_REQUEST, "version_unsupported", "the version of HTTP is not supported";
    }
}

/// What a head says about the body that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// As many bytes as stated.
    Length(u64),
    /// As many chunks as come.
    Chunked,
    /// HTTP/2 without a length: the stream's end tells.
    Stream,
}

impl Body {
    /// Refuses a stated length over the limit. What states none is counted while it comes.
    pub fn within(self, limit: u64) -> Result<(), FramingError> {
        match self {
            Self::Length(length) if length > limit => Err(FramingError::ContentTooLarge),
            Self::None | Self::Length(_) | Self::Chunked | Self::Stream => Ok(()),
        }
    }
}

/// Refuses a head that two parsers could frame differently; says what body follows.
///
/// HTTP/1 heads are read again as they were received: Pingora drops `Content-Length` beside `Transfer-Encoding`,
/// folds equal lengths into one and takes LF for CRLF, and the header map shows none of that.
pub fn check(head: &RequestHead<'_>) -> Result<Body, FramingError> {
    if !matches!(head.version, Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2) {
        return Err(FramingError::UnsupportedVersion);
    }
    let mut lengths = Lengths::default();
    match head.raw {
        Some(raw) => read_raw(raw, &mut lengths)?,
        None => read_map(head.headers, &mut lengths)?,
    }
    lengths.judge(head.version)
}

/// What the fields seen so far say.
#[derive(Default)]
struct Lengths {
    fields: usize,
    bytes: usize,
    content_length: Option<u64>,
    chunked: bool,
}

impl Lengths {
    /// Takes one field; `value` with the whitespace around it, if that is known.
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), FramingError> {
        self.fields = self.fields.saturating_add(1);
        self.bytes = self.bytes.saturating_add(name.len()).saturating_add(value.len()).saturating_add(4);
        if self.fields > MAX_FIELDS {
            return Err(FramingError::TooManyFields);
        }
        if self.bytes > MAX_FIELD_BYTES {
            return Err(FramingError::TooLargeFields);
        }
        // To the end even where one is found: without a way out in between, many bytes are looked at at a time.
        if value.iter().fold(false, |any, byte| any | is_control(*byte)) {
            return Err(FramingError::ControlInValue);
        }
        if !matches!(name.len(), 6 | 14 | 17) {
            return Ok(()); // no name below
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = content_length(value).ok_or(FramingError::InvalidContentLength)?;
            if self.content_length.replace(length).is_some() {
                return Err(FramingError::RepeatedContentLength);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            transfer_encoding(value)?;
            if std::mem::replace(&mut self.chunked, true) {
                return Err(FramingError::InvalidTransferEncoding);
            }
        } else if name.eq_ignore_ascii_case(b"expect") && !value.trim_ascii().eq_ignore_ascii_case(b"100-continue") {
            return Err(FramingError::UnknownExpectation);
        }
        Ok(())
    }

    fn judge(self, version: Version) -> Result<Body, FramingError> {
        match (self.chunked, self.content_length) {
            (true, _) if version != Version::HTTP_11 => Err(FramingError::UnexpectedTransferEncoding),
            (true, Some(_)) => Err(FramingError::BothLengths),
            (true, None) => Ok(Body::Chunked),
            (false, Some(length)) => Ok(Body::Length(length)),
            (false, None) if version == Version::HTTP_2 => Ok(Body::Stream),
            (false, None) => Ok(Body::None),
        }
    }
}

fn read_map(headers: &HeaderMap, lengths: &mut Lengths) -> Result<(), FramingError> {
    headers.iter().try_for_each(|(name, value)| lengths.field(name.as_str().as_bytes(), value.as_bytes()))
}

/// Reads header lines strictly (RFC 9112 §2.2, §5).
fn read_raw(raw: &[u8], lengths: &mut Lengths) -> Result<(), FramingError> {
    let Some((_, mut rest)) = split_request_line(raw) else { return Err(invalid_request_line(raw)) };
    loop {
        let end = memchr::memchr(b'\n', rest).ok_or(FramingError::InvalidHead)?;
        let (line, after) = rest.split_at_checked(end).ok_or(FramingError::InvalidHead)?;
        rest = after.strip_prefix(b"\n").ok_or(FramingError::InvalidHead)?;
        let line = line.strip_suffix(b"\r").ok_or(FramingError::BareLineFeed)?;
        if line.is_empty() {
            return if rest.is_empty() { Ok(()) } else { Err(FramingError::InvalidHead) };
        }
        // A carriage return is neither of a name nor of a value; looked for only where something is wrong, it
        // explains more than the rest.
        field(line, lengths).map_err(|error| match memchr::memchr(b'\r', line) {
            Some(_) => FramingError::BareCarriageReturn,
            None => error,
        })?;
    }
}

/// Reads one line without its end.
fn field(line: &[u8], lengths: &mut Lengths) -> Result<(), FramingError> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(FramingError::ObsoleteFold);
    }
    let end = line.iter().position(|byte| !is_token(*byte)).ok_or(FramingError::InvalidFieldName)?;
    match line.split_at_checked(end) {
        Some((name, [b':', value @ ..])) if !name.is_empty() => lengths.field(name, value),
        _ => Err(FramingError::InvalidFieldName),
    }
}

/// What is wrong with a head that does not begin with a request line.
fn invalid_request_line(raw: &[u8]) -> FramingError {
    let mut lines = raw.split_inclusive(|byte| *byte == b'\n');
    let bare = lines.find(|line| line.trim_ascii() != b"").is_some_and(|line| !line.ends_with(b"\r\n"));
    if bare || raw.starts_with(b"\n") { FramingError::BareLineFeed } else { FramingError::InvalidHead }
}

/// One space at most may precede the value, none may follow: `Transfer-Encoding:\tchunked` and its kin are read
/// differently by different servers, and no client sends them.
fn sole_value(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

fn content_length(value: &[u8]) -> Option<u64> {
    let value = sole_value(value);
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    i64::try_from(length).is_ok().then_some(length)
}

fn transfer_encoding(value: &[u8]) -> Result<(), FramingError> {
    match sole_value(value) {
        b"chunked" => Ok(()),
        coding
            if !coding.eq_ignore_ascii_case(b"chunked")
                && !coding.is_empty()
                && coding.iter().all(|b| is_token(*b)) =>
        {
            Err(FramingError::UnsupportedTransferCoding)
        }
        _ => Err(FramingError::InvalidTransferEncoding),
    }
}

/// A byte that may not stand in a value: controls but the tab.
fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') | (byte == 127)
}

/// A character of a token (RFC 9110 §5.6.2).
#[expect(clippy::indexing_slicing, reason = "no byte is over 255")]
fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// The characters of a token, looked up instead of compared, since every byte of every name is.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
static TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        token[byte] = matches!(byte as u8, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#' | b'$' | b'%' | b'&'
            | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    token
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_raw(fields: &str) -> Result<Body, FramingError> {
        let headers = HeaderMap::new();
        let raw = format!("POST /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        check(&RequestHead::new("POST", "/a", &headers).raw(raw.as_bytes()))
    }

    fn check_map(version: Version, fields: &[(&'static str, &str)]) -> Result<Body, FramingError> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        check(&RequestHead::new("POST", "/a", &headers).version(version))
    }

    #[test]
    fn plain_messages_have_one_length() {
        assert_eq!(check_raw("X: 1"), Ok(Body::None));
        assert_eq!(check_raw("X:"), Ok(Body::None));
        assert_eq!(check_raw("X:\ta\tb\t"), Ok(Body::None));
        assert_eq!(check_raw("Content-Length: 5"), Ok(Body::Length(5)));
        assert_eq!(check_raw("content-length:0"), Ok(Body::Length(0)));
        assert_eq!(check_raw("Transfer-Encoding: chunked"), Ok(Body::Chunked));
        assert_eq!(check_raw("Content-Length: 9223372036854775807"), Ok(Body::Length(i64::MAX as u64)));
        assert_eq!(check_raw("Expect: 100-Continue\r\nContent-Length: 5"), Ok(Body::Length(5)));
        assert_eq!(check_map(Version::HTTP_2, &[]), Ok(Body::Stream));
        assert_eq!(check_map(Version::HTTP_2, &[("content-length", "5")]), Ok(Body::Length(5)));
        assert_eq!(check_map(Version::HTTP_10, &[]), Ok(Body::None));
    }

    #[test]
    fn heads_with_two_readings_are_refused() {
        use FramingError as E;
        for (fields, error) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", E::BothLengths),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5", E::BothLengths),
            ("Transfer-Encoding: xchunked", E::UnsupportedTransferCoding),
            ("Transfer-Encoding: identity", E::UnsupportedTransferCoding),
            ("Transfer-Encoding: chunked, identity", E::InvalidTransferEncoding),
            ("Transfer-Encoding: gzip, chunked", E::InvalidTransferEncoding),
            ("Transfer-Encoding: identity, chunked", E::InvalidTransferEncoding),
            ("Transfer-Encoding: ,chunked", E::InvalidTransferEncoding),
            ("Transfer-Encoding: chunked,", E::InvalidTransferEncoding),
            ("Transfer-Encoding: Chunked", E::InvalidTransferEncoding),
            ("Transfer-Encoding:", E::InvalidTransferEncoding),
            ("Transfer-Encoding: \"chunked\"", E::InvalidTransferEncoding),
            ("Transfer-Encoding:\tchunked", E::InvalidTransferEncoding),
            ("Transfer-Encoding:  chunked", E::InvalidTransferEncoding),
            ("Transfer-Encoding: chunked ", E::InvalidTransferEncoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", E::InvalidTransferEncoding),
            ("Transfer-Encoding: chunked\x0b", E::ControlInValue),
            ("Transfer-Encoding : chunked", E::InvalidFieldName),
            ("Content-Length: +5", E::InvalidContentLength),
            ("Content-Length: -5", E::InvalidContentLength),
            ("Content-Length: 0x5", E::InvalidContentLength),
            ("Content-Length: 5_0", E::InvalidContentLength),
            ("Content-Length:  5", E::InvalidContentLength),
            ("Content-Length: 5 ", E::InvalidContentLength),
            ("Content-Length:", E::InvalidContentLength),
            ("Content-Length: 5, 5", E::InvalidContentLength),
            ("Content-Length: 5, 6", E::InvalidContentLength),
            ("Content-Length: 9223372036854775808", E::InvalidContentLength),
            ("Content-Length: 18446744073709551617", E::InvalidContentLength),
            ("Content-Length: 5\r\nContent-Length: 5", E::RepeatedContentLength),
            ("Content-Length: 5\r\nContent-Length: 6", E::RepeatedContentLength),
            ("X : 1", E::InvalidFieldName),
            (": 1", E::InvalidFieldName),
            ("X", E::InvalidFieldName),
            ("X(y): 1", E::InvalidFieldName),
            ("X: 1\r\n 2", E::ObsoleteFold),
            ("X: 1\r\n\t2", E::ObsoleteFold),
            ("X: 1\r2", E::BareCarriageReturn),
            ("X: 1\nY: 2", E::BareLineFeed),
            ("X: a\0b", E::ControlInValue),
            ("Expect: y 100-continue", E::UnknownExpectation),
            ("Expect: 200-ok", E::UnknownExpectation),
            ("X: 1\r\n\r\nGET /b HTTP/1.1", E::InvalidHead),
        ] {
            assert_eq!(check_raw(fields), Err(error), "{fields:?}");
        }
        assert_eq!(E::UnsupportedTransferCoding.status(), 501);
        assert_eq!(E::UnknownExpectation.status(), 417);
    }

    #[test]
    fn a_bare_line_feed_is_seen_wherever_it_stands() {
        let headers = HeaderMap::new();
        for raw in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
        ] {
            let head = RequestHead::new("GET", "/", &headers).raw(raw.as_bytes());
            assert_eq!(check(&head), Err(FramingError::BareLineFeed), "{raw:?}");
        }
    }

    #[test]
    fn transfer_encoding_belongs_to_http_1_1_alone() {
        for version in [Version::HTTP_10, Version::HTTP_2] {
            let error = check_map(version, &[("transfer-encoding", "chunked")]);
            assert_eq!(error, Err(FramingError::UnexpectedTransferEncoding));
        }
        assert_eq!(check_map(Version::HTTP_09, &[]), Err(FramingError::UnsupportedVersion));
    }

    #[test]
    fn the_number_and_size_of_fields_are_limited() {
        let fields = |count| vec!["X: 1"; count].join("\r\n");
        assert_eq!(check_raw(&fields(99)), Ok(Body::None)); // and Host
        assert_eq!(check_raw(&fields(100)), Err(FramingError::TooManyFields));
        assert_eq!(check_raw(&format!("X: {}", "a".repeat(60_000))), Ok(Body::None));
        assert_eq!(check_raw(&format!("X: {}", "a".repeat(65_536))), Err(FramingError::TooLargeFields));
        assert_eq!(FramingError::TooLargeFields.status(), 431);
    }

    #[test]
    fn a_stated_length_over_the_limit_is_413() {
        assert_eq!(Body::Length(10).within(10), Ok(()));
        let error = Body::Length(11).within(10).unwrap_err();
        assert_eq!((error, error.status().as_u16()), (FramingError::ContentTooLarge, 413));
        assert_eq!(Body::Chunked.within(0), Ok(()));
    }

    proptest! {
        #[test]
        fn arbitrary_heads_are_judged_without_panic(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            let headers = HeaderMap::new();
            let head = RequestHead::new("GET", "/", &headers);
            let _ = check(&head.raw(&raw));
            let _ = check(&head.raw(&[b"GET / HTTP/1.1\r\n", &raw[..]].concat()));
        }
    }
}
