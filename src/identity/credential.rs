//! One credential, or none, or a refusal.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::Transport;

/// Why the credentials of a request are refused, before any of them is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialError {
    /// Header and cookie, or two cookies, hold different tokens: two parties would see two callers.
    Conflicting,
    /// `Authorization` looks like a bearer token and is not one (RFC 6750 §2.1).
    Malformed,
    /// More than one `Authorization`, in several lines or joined in one.
    Several,
}

impl CredentialError {
    /// The stable name, documented and never changed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conflicting => "credentials_conflicting",
            Self::Malformed => "credential_malformed",
            Self::Several => "credential_repeated",
        }
    }

    /// The status to answer with; the code is `invalid_request` (RFC 6750 §3.1).
    pub fn status(self) -> StatusCode {
        match self {
            Self::Conflicting | Self::Malformed | Self::Several => StatusCode::BAD_REQUEST,
        }
    }

    /// What is wrong, in words for the client's developer.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Conflicting => "the request carries two different credentials",
            Self::Malformed => "the `Authorization` header is not `Bearer` and one token",
            Self::Several => "the request has several `Authorization` credentials",
        }
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for CredentialError {}

/// The one credential of a request, not yet verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential<'r> {
    token: Cow<'r, str>,
    transport: Transport,
    ignored: bool,
}

impl<'r> Credential<'r> {
    /// The credential of a request: `Authorization: Bearer`, or one of `cookies`, the tokens in the cookies that may
    /// hold one. Neither the query nor a form is ever read.
    ///
    /// ```text
    /// Authorization = "Bearer" 1*SP b64token        scheme in any case
    /// b64token      = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
    /// ```
    /// The same token twice is one credential. Other schemes are none of ours and count as no credential.
    pub fn single(
        headers: &'r HeaderMap,
        cookies: impl IntoIterator<Item = Cow<'r, str>>,
    ) -> Result<Option<Self>, CredentialError> {
        let bearer = bearer(headers)?;
        let ignored = bearer.is_some_and(|token| is_api_key(headers, token));
        let mut cookie: Option<Cow<'r, str>> = None;
        for token in cookies.into_iter().filter(|token| !token.is_empty()) {
            match &cookie {
                Some(earlier) if *earlier != token => return Err(CredentialError::Conflicting),
                Some(_) => {}
                None => cookie = Some(token),
            }
        }
        let by_header = |token: &'r str| Self { token: token.into(), transport: Transport::Bearer, ignored };
        match (bearer, cookie) {
            (Some(bearer), Some(cookie)) if !ignored && bearer != cookie => Err(CredentialError::Conflicting),
            (Some(token), None) => Ok(Some(by_header(token))),
            (Some(token), Some(_)) if !ignored => Ok(Some(by_header(token))),
            (_, Some(token)) => Ok(Some(Self { token, transport: Transport::Cookie, ignored: false })),
            (None, None) => Ok(None),
        }
    }

    /// The token as sent.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The token as sent, on its own.
    pub fn into_token(self) -> Cow<'r, str> {
        self.token
    }

    /// How it came.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether this counts as no credential: what Supabase's clients send while nobody is signed in, a bearer that
    /// equals the `apikey` header or begins with `sb_`. It is not verified, and not forwarded either.
    pub fn is_ignored(&self) -> bool {
        self.ignored
    }
}

/// Shows nothing of the token.
impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("transport", &self.transport)
            .field("ignored", &self.ignored)
            .finish_non_exhaustive()
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, CredentialError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(CredentialError::Several);
    }
    let Some(value) = value.map(HeaderValue::to_str) else { return Ok(None) };
    let value = value.map_err(|_| CredentialError::Malformed)?;
    let Some(rest) = strip_bearer(value) else {
        // `Basic …, Bearer …`: a list of credentials, which some servers read from the end.
        let joined = value.split(',').skip(1).any(|part| strip_bearer(part.trim_ascii_start()).is_some());
        return if joined { Err(CredentialError::Several) } else { other_scheme(value) };
    };
    let token = rest.trim_start_matches(' ');
    if token.len() < rest.len() && is_b64token(token) {
        return Ok(Some(token));
    }
    let joined = rest.split(',').skip(1).any(|part| strip_bearer(part.trim_ascii_start()).is_some());
    Err(if joined { CredentialError::Several } else { CredentialError::Malformed })
}

/// What follows the scheme `Bearer`, if that is the scheme.
fn strip_bearer(value: &str) -> Option<&str> {
    let (scheme, rest) = value.split_at_checked("Bearer".len())?;
    let ends = rest.bytes().next().is_none_or(|byte| !byte.is_ascii_alphanumeric() && byte != b'-' && byte != b'_');
    (ends && scheme.eq_ignore_ascii_case("Bearer")).then_some(rest)
}

/// Another scheme's credential counts as none; what has no scheme at all is malformed. So is a token without a scheme, which
/// some servers take for a bearer (Supabase's Storage): no scheme has a dot in its name.
fn other_scheme(value: &str) -> Result<Option<&str>, CredentialError> {
    let scheme = value.split(' ').next().unwrap_or_default();
    let is_token =
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_~+".contains(&byte));
    if is_token { Ok(None) } else { Err(CredentialError::Malformed) }
}

fn is_b64token(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() | matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    // To the end even where one is wrong: without a way out in between, many bytes are looked at at a time.
    !body.is_empty() && body.bytes().fold(true, |all, byte| all & allowed(byte))
}

const API_KEY: HeaderName = HeaderName::from_static("apikey");

fn is_api_key(headers: &HeaderMap, token: &str) -> bool {
    token.starts_with("sb_") || headers.get_all(API_KEY).iter().any(|key| key.as_bytes() == token.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn single(
        authorization: &[&str],
        cookies: &[&'static str],
    ) -> Result<Option<(String, Transport)>, CredentialError> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let credential = Credential::single(&headers, cookies.iter().map(|token| Cow::Borrowed(*token)))?;
        Ok(credential.map(|credential| (credential.token().to_owned(), credential.transport())))
    }

    #[test]
    fn a_bearer_token_is_read_in_one_spelling() {
        use CredentialError as E;
        let token = |text: &str| Ok(Some((text.to_owned(), Transport::Bearer)));
        for (value, expected) in [
            ("Bearer x", token("x")),
            ("bearer x", token("x")),
            ("BEARER x", token("x")),
            ("Bearer  x", token("x")),
            ("Bearer a.b-c_d~e+f/g==", token("a.b-c_d~e+f/g==")),
            ("Bearer", Err(E::Malformed)),
            ("Bearer ", Err(E::Malformed)),
            ("Bearer\tx", Err(E::Malformed)),
            ("Bearer x,", Err(E::Malformed)),
            ("Bearer,x", Err(E::Malformed)),
            ("Bearer:x", Err(E::Malformed)),
            ("Bearer=x", Err(E::Malformed)),
            ("Bearer a b", Err(E::Malformed)),
            ("Bearer \"x\"", Err(E::Malformed)),
            ("Bearer =", Err(E::Malformed)),
            ("Bearer a=b", Err(E::Malformed)),
            ("Bearer é", Err(E::Malformed)),
            ("Bearer x ", Err(E::Malformed)),
            ("", Err(E::Malformed)),
            (" x", Err(E::Malformed)),
            ("Bearer a, Bearer b", Err(E::Several)),
            ("Bearer a,Bearer b", Err(E::Several)),
            ("Basic eDp5, Bearer x", Err(E::Several)),
            ("Basic eDp5", Ok(None)),
            ("DPoP x", Ok(None)),
            ("Negotiate", Ok(None)),
            ("a.b.c", Err(E::Malformed)),
            ("a.b.c x", Err(E::Malformed)),
            ("BearerToken x", Ok(None)),
            ("Bear x", Ok(None)),
        ] {
            assert_eq!(single(&[value], &[]), expected, "{value:?}");
        }
        assert_eq!(single(&["Bearer a", "Bearer a"], &[]), Err(E::Several));
        assert_eq!(single(&["Basic eDp5", "Bearer a"], &[]), Err(E::Several));
        assert_eq!(single(&[], &[]), Ok(None));
    }

    #[test]
    fn header_and_cookie_are_one_credential_only_if_they_are_equal() {
        assert_eq!(single(&[], &["x"]), Ok(Some(("x".to_owned(), Transport::Cookie))));
        assert_eq!(single(&["Bearer x"], &["x"]), Ok(Some(("x".to_owned(), Transport::Bearer))));
        assert_eq!(single(&["Bearer x"], &["y"]), Err(CredentialError::Conflicting));
        assert_eq!(single(&[], &["x", "y"]), Err(CredentialError::Conflicting));
        assert_eq!(single(&["Bearer x"], &[""]), Ok(Some(("x".to_owned(), Transport::Bearer))));
        assert_eq!(single(&["Basic eDp5"], &["x"]), Ok(Some(("x".to_owned(), Transport::Cookie))));
        assert_eq!(single(&["Bearer"], &["x"]), Err(CredentialError::Malformed));
    }

    #[test]
    fn a_supabase_api_key_is_no_credential() {
        let mut headers = HeaderMap::new();
        headers.insert("apikey", HeaderValue::from_static("anon.key"));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer anon.key"));
        let credential = Credential::single(&headers, []).unwrap().unwrap();
        assert!(credential.is_ignored());
        let session = Credential::single(&headers, ["session".into()]).unwrap().unwrap();
        assert_eq!((session.token(), session.is_ignored()), ("session", false));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer sb_publishable_1"));
        assert!(Credential::single(&headers, []).unwrap().unwrap().is_ignored());
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer user.token"));
        assert!(!Credential::single(&headers, []).unwrap().unwrap().is_ignored());
    }

    #[test]
    fn debug_does_not_show_the_token() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer canary"));
        assert!(!format!("{:?}", Credential::single(&headers, [])).contains("canary"));
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic(value in proptest::collection::vec(any::<u8>(), 0..40), prefix in "(Bearer )?") {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&[prefix.as_bytes(), &value].concat()) {
                headers.append(header::AUTHORIZATION, value);
            }
            if let Ok(Some(credential)) = Credential::single(&headers, []) {
                prop_assert!(is_b64token(credential.token()));
            }
        }
    }
}
