//! Verified claims, and how facts about the caller are read from them.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::clock::Timestamp;

use super::scope::ScopeSet;
use super::{Fact, Identity, IssuerName, Kind, Transport};

/// The claims of a verified token, as JSON. Made by `token` after verification, and by fixtures.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Members>);

/// The members of an object in the order in which they stand. A token has a dozen: comparing names is quicker than
/// hashing them.
#[derive(Debug, Default)]
struct Members {
    /// All names, one after the other.
    names: String,
    /// Where each name begins and ends, and its value. Narrow, so that a dozen are less than what the allocator takes
    /// for large.
    values: Vec<([u32; 2], Value)>,
}

/// Why bytes are not acceptable as a set of claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimsError {
    /// A name occurs twice in one object, at any level; `alg` and `\u0061lg` are the same name.
    DuplicateName,
    /// Not JSON (RFC 8259): a byte order mark, something after the end, `NaN`, a number beyond any type, invalid
    /// UTF-8, or nested deeper than 128 levels.
    NotJson,
    /// JSON, but not an object.
    NotObject,
}

/// Where a fact stands in the claims, as a policy writes it.
///
/// ```text
/// path    := name | segment { "." segment }
/// name    := text with "://" in it and no quotes: one claim name, dots and all
/// segment := characters but . " and spaces | '"' characters but " '"'
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    text: Box<str>,
    segments: Vec<Box<str>>,
}

/// Why a text is not a claim path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimPathError {
    /// A space or control character outside quotes.
    BadCharacter(char),
    /// Nothing between two dots, at an end, or between quotes.
    EmptySegment,
    /// A quote that is not closed, or that does not enclose a whole segment.
    StrayQuote,
}

/// Which claims the facts of an [`Identity`] come from. In each list the first claim present wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimMapping {
    /// `user.id`.
    pub id: Vec<ClaimPath>,
    /// `user.email`.
    pub email: Vec<ClaimPath>,
    /// `user.name`.
    pub name: Vec<ClaimPath>,
    /// `user.tenant`.
    pub tenant: Vec<ClaimPath>,
    /// `user.session`.
    pub session: Vec<ClaimPath>,
    /// Roles: a string is one name, an array holds names.
    pub roles: Vec<ClaimPath>,
    /// Scopes: a string is split at spaces, an array holds one scope per element.
    pub scopes: Vec<ClaimPath>,
    /// Permissions: a string is one name, an array holds names.
    pub permissions: Vec<ClaimPath>,
    /// When the user authenticated.
    pub auth_time: AuthTime,
    /// How `user.kind` is told.
    pub kinds: Kinds,
}

/// Where the time of authentication stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthTime {
    /// In the first of these claims that is present, as seconds since the epoch.
    At(Vec<ClaimPath>),
    /// In the newest `timestamp` of `amr`; renewing a token (`token_refresh`) is not authentication.
    NewestAmr,
}

/// How `user.kind` is told from the claims, and which kinds count as `authenticated`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// Every holder of a token is a user: `client_id` stands in every access token of RFC 9068 and tells nothing.
    AllUsers,
    /// Supabase's claims. Users count as authenticated, the other kinds only where the policy says `allow`.
    Supabase {
        /// `anonymous_users: allow`.
        anonymous: bool,
        /// `service_role: allow`.
        service: bool,
        /// `oauth_clients: allow`.
        clients: bool,
    },
}

// === impl Claims ===

impl Claims {
    /// Wraps claims that were verified, or that a fixture states.
    pub fn new(claims: Map<String, Value>) -> Self {
        let mut members = Members::default();
        for (name, value) in claims {
            members.names.push_str(&name);
            members.push(value);
        }
        Self(Arc::new(members))
    }

    /// Reads a JSON object strictly and in one pass.
    ///
    /// Most parsers let the last of two equal names win, some the first: a token on which two programs disagree is
    /// refused (RFC 7519 §4).
    pub fn parse(json: &[u8]) -> Result<Self, ClaimsError> {
        match strict(json)? {
            Document::Object(members) => Ok(Self(Arc::new(members))),
            Document::Other => Err(ClaimsError::NotObject),
        }
    }

    /// A claim of the top level by its name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The claims in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.values.iter().map(|(at, value)| (self.0.name(*at), value))
    }
}

/// Reads a whole text with the strictness of [`Strict`].
fn strict<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, ClaimsError> {
    // At once, which is quicker than string by string.
    let text = std::str::from_utf8(json).map_err(|_| ClaimsError::NotJson)?;
    // serde_json refuses trailing data, lone surrogates, numbers that overflow, and more than 128 levels.
    serde_json::from_str(text).map_err(|error| match error.classify() {
        // The visitors accept every type, so the only error of their own is the duplicate name.
        serde_json::error::Category::Data => ClaimsError::DuplicateName,
        _ => ClaimsError::NotJson,
    })
}

// === impl Members ===

/// From how many names on one that occurs twice is found by sorting them.
const MANY: usize = 32;

impl Members {
    /// Adds a value for what was appended to the names since the last one.
    fn push(&mut self, value: Value) {
        self.values.push((self.last(), value));
    }

    /// Where the name stands that was appended last.
    fn last(&self) -> [u32; 2] {
        // Neither a token nor a set of keys is so long that this saturates; names would be lost then.
        let end = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        [self.values.last().map_or(0, |([_, begin], _)| *begin), end]
    }

    fn name(&self, [begin, end]: [u32; 2]) -> &str {
        self.names.get(begin as usize..end as usize).unwrap_or_default()
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let is_it = |[begin, end]: [u32; 2]| (end - begin) as usize == name.len() && self.name([begin, end]) == name;
        self.values.iter().find(|(at, _)| is_it(*at)).map(|(_, value)| value)
    }

    /// Whether a name occurs twice among many.
    fn repeat(&self) -> bool {
        let mut names: Vec<_> = self.values.iter().map(|(at, _)| self.name(*at)).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| matches!(pair, [first, second] if first == second))
    }
}

/// A JSON text: an object, or something that cannot be a set of claims.
enum Document {
    Object(Members),
    Other,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Document, E> {
        Ok(Document::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Document, E> {
        Ok(Document::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Document, E> {
        Ok(Document::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Document, E> {
        Ok(Document::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Document, E> {
        Ok(Document::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Document, A::Error> {
        while let Some(Strict(_)) = items.next_element()? {}
        Ok(Document::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut members = Members { names: String::with_capacity(128), values: Vec::with_capacity(12) };
        while map.next_key_seed(Name(&mut members.names))?.is_some() {
            if members.values.len() < MANY && members.get(members.name(members.last())).is_some() {
                return Err(A::Error::custom("duplicate name"));
            }
            let Strict(value) = map.next_value()?;
            members.push(value);
        }
        if members.values.len() > MANY && members.repeat() {
            return Err(A::Error::custom("duplicate name"));
        }
        Ok(Document::Object(members))
    }
}

/// Appends a name to others.
struct Name<'n>(&'n mut String);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<(), E> {
        self.0.push_str(name);
        Ok(())
    }
}

impl ClaimsError {
    /// The error's name, never renamed.
    pub fn name(self) -> &'static str {
        match self {
            Self::DuplicateName => "duplicate_name",
            Self::NotJson => "not_json",
            Self::NotObject => "not_object",
        }
    }
}

impl fmt::Display for ClaimsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DuplicateName => "a name occurs twice in one object",
            Self::NotJson => "not valid JSON",
            Self::NotObject => "not a JSON object",
        })
    }
}

impl std::error::Error for ClaimsError {}

/// A JSON value in which no object has a name twice.
#[derive(Debug)]
pub struct Strict(pub Value);

impl Strict {
    /// Reads a JSON object, as [`Claims::parse`] does.
    pub fn object(json: &[u8]) -> Result<Map<String, Value>, ClaimsError> {
        match strict(json)? {
            Self(Value::Object(object)) => Ok(object),
            Self(_) => Err(ClaimsError::NotObject),
        }
    }
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate name"));
            }
        }
        Ok(Value::Object(object))
    }
}

// === impl ClaimPath ===

impl ClaimPath {
    /// Reads a path as it stands in a policy.
    pub fn parse(text: &str) -> Result<Self, ClaimPathError> {
        let segments =
            if text.contains("://") && !text.contains('"') { vec![text.into()] } else { Self::segments_of(text)? };
        Ok(Self { text: text.into(), segments })
    }

    /// The path to a claim of the top level, whatever characters its name has.
    pub fn name(name: &str) -> Self {
        Self { text: name.into(), segments: vec![name.into()] }
    }

    fn segments_of(text: &str) -> Result<Vec<Box<str>>, ClaimPathError> {
        let mut segments = Vec::new();
        let mut rest = text;
        loop {
            let (segment, tail) = if let Some(quoted) = rest.strip_prefix('"') {
                quoted.split_once('"').ok_or(ClaimPathError::StrayQuote)?
            } else {
                let end = rest.find('.').unwrap_or(rest.len());
                let (segment, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
                if segment.contains('"') {
                    return Err(ClaimPathError::StrayQuote);
                }
                if let Some(bad) = segment.chars().find(|c| c.is_whitespace() || c.is_control()) {
                    return Err(ClaimPathError::BadCharacter(bad));
                }
                (segment, tail)
            };
            if segment.is_empty() {
                return Err(ClaimPathError::EmptySegment);
            }
            segments.push(segment.into());
            if tail.is_empty() {
                return Ok(segments);
            }
            rest = tail.strip_prefix('.').ok_or(ClaimPathError::StrayQuote)?;
        }
    }

    /// The claim, if it is present; `null` is not.
    pub fn get<'c>(&self, claims: &'c Claims) -> Option<&'c Value> {
        let (first, rest) = self.segments.split_first()?;
        let mut value = claims.get(first)?;
        for segment in rest {
            value = value.as_object()?.get(segment.as_ref())?;
        }
        (!value.is_null()).then_some(value)
    }

    /// The names on the way, from the top.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(AsRef::as_ref)
    }

    /// The path as it stands in the policy.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for ClaimPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadCharacter(character) => {
                write!(f, "character {character:?} in a claim path: quote the segment that has it")
            }
            Self::EmptySegment => f.write_str("empty segment in a claim path"),
            Self::StrayQuote => f.write_str("quotes in a claim path enclose one whole segment"),
        }
    }
}

impl std::error::Error for ClaimPathError {}

// === impl ClaimMapping ===

impl ClaimMapping {
    /// The mapping of the presets `oidc` and `jwt`.
    pub fn standard() -> Self {
        Self {
            id: path(&["sub"]),
            email: path(&["email"]),
            name: path(&["name"]),
            tenant: Vec::new(),
            session: path(&["sid"]),
            roles: path(&["roles"]),
            scopes: paths(&[&["scope"], &["scp"], &["scopes"]]),
            permissions: path(&["permissions"]),
            auth_time: AuthTime::At(path(&["auth_time"])),
            kinds: Kinds::AllUsers,
        }
    }

    /// The mapping of the preset `local`: what our own tokens say.
    pub fn local() -> Self {
        Self { tenant: path(&["tenant"]), scopes: path(&["scope"]), ..Self::standard() }
    }

    /// The mapping of the preset `supabase`. Nothing is read from `user_metadata`, which users can edit.
    pub fn supabase() -> Self {
        Self {
            session: path(&["session_id"]),
            roles: paths(&[&["user_role"], &["app_metadata", "role"], &["app_metadata", "roles"]]),
            scopes: path(&["scope"]),
            permissions: paths(&[&["permissions"], &["app_metadata", "permissions"]]),
            auth_time: AuthTime::NewestAmr,
            kinds: Kinds::Supabase { anonymous: false, service: false, clients: false },
            ..Self::standard()
        }
    }

    /// Reads the facts of an identity. The claims must be verified, or a fixture's.
    pub fn identity(
        &self,
        claims: Claims,
        issuer: IssuerName,
        transport: Transport,
        expires: Option<Timestamp>,
    ) -> Identity {
        let (kind, counts_as_authenticated) = self.kinds.of(&claims);
        Identity {
            issuer,
            kind,
            counts_as_authenticated,
            id: text(&self.id, &claims),
            email: text(&self.email, &claims),
            name: text(&self.name, &claims),
            tenant: text(&self.tenant, &claims),
            session: text(&self.session, &claims),
            roles: roles(&self.roles, &claims),
            scopes: scopes(&self.scopes, &claims),
            permissions: names(&self.permissions, &claims),
            auth_time: self.auth_time.of(&claims),
            mfa: None,
            expires,
            transport,
            claims,
        }
    }
}

impl AuthTime {
    fn of(&self, claims: &Claims) -> Fact<Timestamp> {
        let paths = match self {
            Self::At(paths) => paths,
            Self::NewestAmr => return newest_amr(claims),
        };
        let Some(value) = first(paths, claims) else { return Fact::Missing };
        match seconds(value) {
            Some(time) => Fact::Known(time),
            None => Fact::WrongType,
        }
    }
}

impl Kinds {
    fn of(self, claims: &Claims) -> (Kind, bool) {
        let Self::Supabase { anonymous, service, clients } = self else { return (Kind::User, true) };
        if claims.get("role").and_then(Value::as_str) == Some("service_role") {
            return (Kind::Service, service);
        }
        // Whatever is not `false` is taken for anonymous: a claim that cannot be read must not grant.
        if !matches!(claims.get("is_anonymous"), None | Some(Value::Null | Value::Bool(false))) {
            return (Kind::Anonymous, anonymous);
        }
        if !matches!(claims.get("client_id"), None | Some(Value::Null)) {
            return (Kind::Client, clients);
        }
        (Kind::User, true)
    }
}

fn path(segments: &[&str]) -> Vec<ClaimPath> {
    paths(&[segments])
}

fn paths(paths: &[&[&str]]) -> Vec<ClaimPath> {
    paths
        .iter()
        .map(|segments| ClaimPath {
            text: segments.join(".").into(),
            segments: segments.iter().map(|&segment| segment.into()).collect(),
        })
        .collect()
}

fn first<'c>(paths: &[ClaimPath], claims: &'c Claims) -> Option<&'c Value> {
    paths.iter().find_map(|path| path.get(claims))
}

/// A string. The empty string is missing: Supabase writes `""` for an e-mail address that a user has not.
fn text(paths: &[ClaimPath], claims: &Claims) -> Fact<Box<str>> {
    let present = |path: &ClaimPath| path.get(claims).filter(|value| value.as_str() != Some(""));
    match paths.iter().find_map(present) {
        None => Fact::Missing,
        Some(Value::String(text)) => Fact::Known(text.as_str().into()),
        Some(_) => Fact::WrongType,
    }
}

/// A string is one name, never split: `former admin` must not become `admin`.
fn names(paths: &[ClaimPath], claims: &Claims) -> Fact<Vec<Box<str>>> {
    match first(paths, claims) {
        None => Fact::Missing,
        Some(Value::String(name)) => Fact::Known(vec![name.as_str().into()]),
        Some(Value::Array(items)) => strings(items),
        Some(_) => Fact::WrongType,
    }
}

fn roles(paths: &[ClaimPath], claims: &Claims) -> Fact<Vec<Box<str>>> {
    let mut roles = names(paths, claims);
    if let Fact::Known(roles) = &mut roles {
        // The gateway's own roles are given by policies alone, not by a token.
        roles.retain(|role| !role.starts_with("portcullis:"));
    }
    roles
}

fn scopes(paths: &[ClaimPath], claims: &Claims) -> Fact<ScopeSet> {
    first(paths, claims).map_or(Fact::Missing, ScopeSet::from_claim)
}

fn strings(items: &[Value]) -> Fact<Vec<Box<str>>> {
    let strings: Option<Vec<Box<str>>> = items.iter().map(|item| item.as_str().map(Box::from)).collect();
    match strings {
        Some(strings) => Fact::Known(strings),
        None => Fact::WrongType,
    }
}

fn newest_amr(claims: &Claims) -> Fact<Timestamp> {
    let methods = match claims.get("amr") {
        None | Some(Value::Null) => return Fact::Missing,
        Some(Value::Array(methods)) => methods,
        Some(_) => return Fact::WrongType,
    };
    let mut newest = None;
    for method in methods {
        // Plain strings are legal (RFC 8176) and say nothing about the time.
        let Value::Object(method) = method else { continue };
        if method.get("method").and_then(Value::as_str) == Some("token_refresh") {
            continue;
        }
        let Some(timestamp) = method.get("timestamp") else { continue };
        let Some(time) = seconds(timestamp) else { return Fact::WrongType };
        newest = newest.max(Some(time));
    }
    newest.map_or(Fact::Missing, Fact::Known)
}

/// A NumericDate (RFC 7519 §2): seconds since the epoch, possibly with a fraction, and within what every JSON
/// parser reads alike (2^53).
pub fn seconds(value: &Value) -> Option<Timestamp> {
    const LIMIT: i64 = 1 << 53;
    if let Some(whole) = value.as_i64() {
        return (0..LIMIT).contains(&whole).then(|| Timestamp::from_seconds(whole));
    }
    let seconds = value.as_f64()?;
    // `as` saturates, and below 2^53 seconds no millisecond is lost.
    (0.0..LIMIT as f64).contains(&seconds).then(|| Timestamp::from_millis((seconds * 1000.0) as i64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        let Value::Object(claims) = value else { panic!("claims are an object") };
        Claims::new(claims)
    }

    fn identity(mapping: &ClaimMapping, value: Value) -> Identity {
        mapping.identity(claims(value), IssuerName::new("test"), Transport::Bearer, None)
    }

    fn list(names: &[&str]) -> Fact<Vec<Box<str>>> {
        Fact::Known(names.iter().map(|&name| name.into()).collect())
    }

    #[test]
    fn claims_are_read_strictly() {
        let deep = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let refused = |json: &str| Claims::parse(json.as_bytes()).err();
        for (json, error) in [
            ("", ClaimsError::NotJson),
            ("{", ClaimsError::NotJson),
            ("[]", ClaimsError::NotObject),
            ("null", ClaimsError::NotObject),
            ("\"{}\"", ClaimsError::NotObject),
            ("{} {}", ClaimsError::NotJson),
            ("{}x", ClaimsError::NotJson),
            ("\u{feff}{}", ClaimsError::NotJson),
            ("{\"exp\":NaN}", ClaimsError::NotJson),
            ("{\"exp\":Infinity}", ClaimsError::NotJson),
            ("{\"exp\":1e309}", ClaimsError::NotJson),
            ("{\"exp\":01}", ClaimsError::NotJson),
            ("{\"a\":1,}", ClaimsError::NotJson),
            ("{'a':1}", ClaimsError::NotJson),
            ("{\"a\":\"\\ud800\"}", ClaimsError::NotJson),
            ("{\"sub\":\"a\",\"sub\":\"a\"}", ClaimsError::DuplicateName),
            ("{\"role\":1,\"\\u0072ole\":2}", ClaimsError::DuplicateName),
            ("{\"a\":{\"b\":[{\"c\":1,\"c\":null}]}}", ClaimsError::DuplicateName),
        ] {
            assert_eq!(refused(json), Some(error), "{json}");
        }
        assert_eq!(refused(&deep(200)), Some(ClaimsError::NotJson));
        assert_eq!(Claims::parse(b"{\"a\": \"\xff\"}").err(), Some(ClaimsError::NotJson));
        assert_eq!(refused(&deep(60)), None);
        let many =
            |last: usize| format!("{{{}\"n{last}\":0}}", (0..99).map(|n| format!("\"n{n}\":0,")).collect::<String>());
        assert_eq!((refused(&many(99)), refused(&many(50))), (None, Some(ClaimsError::DuplicateName)));
        assert_eq!(refused(" {\"sub\":\"Zo\\u00eb\",\"n\":1.5,\"l\":[1,null,true]}\n"), None);
    }

    #[test]
    fn a_claim_path_is_a_name_or_dotted_or_quoted() {
        let segments = |text: &str| ClaimPath::parse(text).map(|path| path.segments().collect::<Vec<_>>().join("|"));
        for (text, expected) in [
            ("sub", Ok("sub")),
            ("app_metadata.role", Ok("app_metadata|role")),
            ("cognito:groups", Ok("cognito:groups")),
            ("https://acme.example/roles", Ok("https://acme.example/roles")),
            ("\"https://acme.example/app\".roles", Ok("https://acme.example/app|roles")),
            ("resource_access.\"my.client\".roles", Ok("resource_access|my.client|roles")),
            ("\"with space\"", Ok("with space")),
            ("", Err(ClaimPathError::EmptySegment)),
            ("a..b", Err(ClaimPathError::EmptySegment)),
            (".a", Err(ClaimPathError::EmptySegment)),
            ("a.", Err(ClaimPathError::EmptySegment)),
            ("\"\"", Err(ClaimPathError::EmptySegment)),
            ("\"a", Err(ClaimPathError::StrayQuote)),
            ("a\"b\"", Err(ClaimPathError::StrayQuote)),
            ("\"a\"b", Err(ClaimPathError::StrayQuote)),
            ("a b", Err(ClaimPathError::BadCharacter(' '))),
        ] {
            assert_eq!(segments(text), expected.map(String::from), "{text}");
        }
    }

    #[test]
    fn a_claim_that_is_null_or_not_on_the_way_is_missing() {
        let claims = claims(json!({"a": {"b": 1, "n": null}, "s": "x", "https://x/y": "z"}));
        let get = |path: &str| ClaimPath::parse(path).unwrap().get(&claims).cloned();
        assert_eq!(get("a.b"), Some(json!(1)));
        assert_eq!(get("https://x/y"), Some(json!("z")));
        for path in ["a.n", "a.c", "s.b", "a.b.c", "nothing"] {
            assert_eq!(get(path), None, "{path}");
        }
    }

    #[test]
    fn texts_are_strings_and_never_empty() {
        let known = |text: &str| Fact::Known(text.into());
        for (value, expected) in [
            (json!({"sub": "ada"}), known("ada")),
            (json!({}), Fact::Missing),
            (json!({"sub": null}), Fact::Missing),
            (json!({"sub": ""}), Fact::Missing),
            (json!({"sub": 42}), Fact::WrongType),
            (json!({"sub": ["ada"]}), Fact::WrongType),
        ] {
            assert_eq!(identity(&ClaimMapping::standard(), value.clone()).id, expected, "{value}");
        }
    }

    #[test]
    fn a_role_is_one_name_and_the_gateways_own_are_dropped() {
        for (value, expected) in [
            (json!({"roles": "former admin"}), list(&["former admin"])),
            (json!({"roles": ["a", "portcullis:admin", "b"]}), list(&["a", "b"])),
            (json!({"roles": "portcullis:admin"}), list(&[])),
            (json!({"roles": []}), list(&[])),
            (json!({"roles": null}), Fact::Missing),
            (json!({"roles": ["a", 1]}), Fact::WrongType),
            (json!({"roles": {"admin": true}}), Fact::WrongType),
        ] {
            assert_eq!(identity(&ClaimMapping::standard(), value.clone()).roles, expected, "{value}");
        }
    }

    #[test]
    fn scopes_are_split_at_spaces_in_a_string_only() {
        let scopes = |value: Value| match identity(&ClaimMapping::standard(), value).scopes {
            Fact::Known(scopes) => scopes.iter().collect::<Vec<_>>().join("|"),
            Fact::Missing => "missing".into(),
            Fact::WrongType => "wrong type".into(),
        };
        for (value, expected) in [
            (json!({"scope": "items:read  items:write "}), "items:read|items:write"),
            (json!({"scope": ["items:read", "a b"]}), "items:read|a b"),
            (json!({"scope": "a\tb"}), "a\tb"),
            (json!({"scp": "ITEMS:READ"}), "ITEMS:READ"),
            (json!({"scope": null, "scopes": ["x"]}), "x"),
            (json!({"scope": 1, "scp": "x"}), "wrong type"),
            (json!({}), "missing"),
        ] {
            assert_eq!(scopes(value.clone()), expected, "{value}");
        }
    }

    #[test]
    fn supabase_roles_come_from_the_first_place_present_and_never_from_user_metadata() {
        for (value, expected) in [
            (json!({"user_role": "a", "app_metadata": {"role": "b"}}), list(&["a"])),
            (json!({"app_metadata": {"role": "b", "roles": ["c"]}}), list(&["b"])),
            (json!({"app_metadata": {"roles": ["c"]}, "user_metadata": {"role": "admin"}}), list(&["c"])),
            (json!({"role": "authenticated", "user_metadata": {"roles": ["admin"]}}), Fact::Missing),
        ] {
            assert_eq!(identity(&ClaimMapping::supabase(), value.clone()).roles, expected, "{value}");
        }
    }

    #[test]
    fn kinds_are_told_apart_for_supabase_alone() {
        let supabase = ClaimMapping::supabase();
        for (value, kind, authenticated) in [
            (json!({"is_anonymous": false}), Kind::User, true),
            (json!({"is_anonymous": true, "role": "authenticated"}), Kind::Anonymous, false),
            (json!({"is_anonymous": "false"}), Kind::Anonymous, false),
            (json!({"role": "service_role"}), Kind::Service, false),
            (json!({"client_id": "c"}), Kind::Client, false),
        ] {
            let identity = identity(&supabase, value.clone());
            assert_eq!((identity.kind, identity.counts_as_authenticated), (kind, authenticated), "{value}");
        }
        let allowing = ClaimMapping {
            kinds: Kinds::Supabase { anonymous: true, service: false, clients: false },
            ..ClaimMapping::supabase()
        };
        assert!(identity(&allowing, json!({"is_anonymous": true})).counts_as_authenticated);
        let standard = identity(&ClaimMapping::standard(), json!({"client_id": "c", "role": "service_role"}));
        assert_eq!((standard.kind, standard.counts_as_authenticated), (Kind::User, true));
    }

    #[test]
    fn renewing_a_token_is_not_authentication() {
        let at = |value: Value| identity(&ClaimMapping::supabase(), value).auth_time;
        let known = |seconds| Fact::Known(Timestamp::from_seconds(seconds));
        let amr = json!({"amr": ["pwd", {"method": "token_refresh", "timestamp": 300},
            {"method": "password", "timestamp": 100}, {"method": "totp", "timestamp": 200}]});
        assert_eq!(at(amr), known(200));
        assert_eq!(at(json!({"amr": ["pwd"]})), Fact::Missing);
        assert_eq!(at(json!({"amr": "pwd"})), Fact::WrongType);
        assert_eq!(at(json!({"amr": [{"method": "password", "timestamp": "100"}]})), Fact::WrongType);
    }

    #[test]
    fn a_numeric_date_is_a_number_that_every_parser_reads_alike() {
        let known = |seconds| Fact::Known(Timestamp::from_millis(seconds));
        for (value, expected) in [
            (json!(0), known(0)),
            (json!(1.5), known(1500)),
            (json!(1_767_225_600), known(1_767_225_600_000)),
            (json!("1767225600"), Fact::WrongType),
            (json!(-1), Fact::WrongType),
            (json!(-0.5), Fact::WrongType),
            (json!(9_007_199_254_740_993_u64), Fact::WrongType),
            (json!(1e300), Fact::WrongType),
            (json!(true), Fact::WrongType),
        ] {
            let fact = identity(&ClaimMapping::standard(), json!({"auth_time": value.clone()})).auth_time;
            assert_eq!(fact, expected, "{value}");
        }
    }
}
