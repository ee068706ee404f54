//! A policy set as it runs: tables to look up, formulas to evaluate, nothing left to resolve.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::diagnostic::{Sources, Span};
use crate::identity::IssuerName;
use crate::identity::claims::ClaimPath;
use crate::request::target::Irregular;
use crate::secret::Secret;
use crate::token::verify::Verifier;

use super::document::{Access, AppId, Definition, Fixture, Operator, Test, UserFact};
pub use super::document::{LimitKey, Lockout};
use super::formula::{LeafId, Node};
pub use super::issuer::{
    Admission, Introspection, Issuer, KeysAt, OidcClient, OnExpired, RemoteKeys, SessionCheck, SupabaseProject,
};
pub use super::login::{
    BrowserLogin, LocalIssuer, Login, LoginPaths, OnUnauthenticated, OwnEndpoint, ProviderLink, Via,
};
use super::template::{Kind, Segment};
use super::trie::Trie;

/// A compiled policy set.
#[derive(Debug)]
pub struct PolicySet {
    /// Which text it was made from.
    pub revision: Revision,
    /// The apps, by [`AppId`].
    pub apps: Vec<App>,
    /// The routes, by [`RouteId`]: those of the policy in file order, then the gateway's own.
    pub routes: Vec<Route>,
    /// The guards in the order of their names.
    pub guards: Vec<Guard>,
    /// Where requests go, by [`UpstreamId`].
    pub upstreams: Vec<Upstream>,
    /// The limits, by [`LimitId`].
    pub limits: Vec<Limit>,
    /// Who may sign tokens, in file order.
    pub issuers: Vec<Issuer>,
    /// Verifies the tokens of all issuers.
    pub verifier: Verifier,
    /// Roles and what they permit.
    pub roles: Roles,
    /// The scopes of the catalogue with their descriptions, in file order.
    pub scopes: Vec<(Box<str>, Box<str>)>,
    /// Every permission that the set knows.
    pub permissions: Vec<Box<str>>,
    /// The sets of `in`, by [`SetId`].
    pub sets: Vec<NamedSet>,
    /// The values of `env.NAME`, by [`EnvId`].
    pub environment: Vec<EnvValue>,
    /// Header names that no client may send.
    pub strip: Strip,
    /// `unsafe_values: encode`: control characters in a header value are encoded instead of refused.
    pub encode_unsafe: bool,
    /// The zone of `request.time` and `request.weekday`.
    pub time_zone: jiff::tz::TimeZone,
    /// The status where no route matches: 404 or 403.
    pub unmatched: u16,
    /// The texts that places point into.
    pub sources: Sources,
    /// Test identities.
    pub fixtures: Vec<Definition<Fixture>>,
    /// The set's own tests.
    pub tests: Vec<Test>,
    /// The tables of templates.
    pub hosts: Hosts,
}

/// The first 8 hex digits of the SHA-256 of all policy texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Revision(u32);

/// An index into [`PolicySet::routes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub usize);

/// An index into [`PolicySet::guards`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuardId(pub usize);

/// An index into [`PolicySet::upstreams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub usize);

/// An index into [`PolicySet::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitId(pub usize);

/// An index into [`PolicySet::sets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub usize);

/// An index into [`PolicySet::environment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvId(pub usize);

/// An index into [`Roles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleId(pub usize);

/// Where something stands, for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file, as it is shown.
    pub path: Arc<str>,
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
    /// The same as a span.
    pub span: Span,
}

/// An app as it runs.
#[derive(Debug)]
pub struct App {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is defined.
    pub place: Place,
    /// The hosts it answers on, as written (lower case); empty means any.
    pub hosts: Vec<String>,
    /// `base`, parsed.
    pub base: Vec<Segment>,
    /// `strip_base`.
    pub strip_base: bool,
    /// `case: insensitive`.
    pub fold_case: bool,
    /// Opt-ins for request targets.
    pub irregular: Irregular,
    /// `cors`.
    pub cors: Option<Cors>,
    /// `errors: fastapi`.
    pub errors_fastapi: bool,
    /// `forward_token`.
    pub forward_token: bool,
    /// `on_method_override: enforce`; otherwise such headers are removed.
    pub enforce_method_override: bool,
    /// `on_store_error: allow_until_exp`.
    pub allow_on_store_error: bool,
    /// The realm of challenges: the app's name.
    pub realm: Arc<str>,
    /// How people log in.
    pub login: Option<Arc<Login>>,
    /// `assertion`.
    pub assertion: Option<Assertion>,
}

/// A signed statement about the caller (`X-Auth-Assertion`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// Its `aud`: the app's name, if nothing else is stated.
    pub audience: Box<str>,
    /// How long it is valid.
    pub expires: Duration,
}

/// `cors`, with defaults filled in.
#[derive(Clone, Debug)]
pub struct Cors {
    /// `origins: ["*"]`.
    pub any_origin: bool,
    /// Origins, compared exactly.
    pub origins: Vec<Box<str>>,
    /// `methods`; empty means those of the requested path.
    pub methods: Vec<Box<str>>,
    /// `headers`.
    pub headers: Vec<Box<str>>,
    /// `expose`.
    pub expose: Vec<Box<str>>,
    /// `credentials`.
    pub credentials: bool,
    /// `max_age`.
    pub max_age: Duration,
}

/// A route as it runs.
#[derive(Debug)]
pub struct Route {
    /// Its index.
    pub id: RouteId,
    /// Methods and whole template: `GET|HEAD /v1/items/{id}`, `/**` for any method.
    pub key: Arc<str>,
    /// The key as it stands in the file, without `base`.
    pub written: Box<str>,
    /// `name`.
    pub name: Option<Box<str>>,
    /// Where it stands.
    pub place: Place,
    /// Of which app.
    pub app: AppId,
    /// The methods it serves, `HEAD` for `GET` included.
    pub methods: Vec<Method>,
    /// Whether it names no method.
    pub any_method: bool,
    /// The whole template, `base` included.
    pub template: Vec<Segment>,
    /// Where an allowed request goes.
    pub destination: Destination,
    /// The access word in force.
    pub access: Access,
    /// The leaves, by [`LeafId`].
    pub leaves: Vec<Leaf>,
    /// Its own requirement, the access word included.
    pub requirement: Node,
    /// The guards that may apply, in the order of names.
    pub guards: Vec<RouteGuard>,
    /// The leaves about the caller.
    pub identity_leaves: u64,
    /// The leaves that ask for a scope.
    pub scope_leaves: u64,
    /// The leaves that a fresh or second authentication could make true.
    pub step_up_leaves: u64,
    /// Limits counted by address, taken before the caller is known.
    pub limits_by_address: Vec<LimitUse>,
    /// The other limits, taken after the decision.
    pub limits_by_identity: Vec<LimitUse>,
    /// How long the upstream may take.
    pub timeout: Duration,
    /// The longest body, in bytes.
    pub max_body: Option<u64>,
    /// Whether idempotent requests may be sent twice.
    pub retry: bool,
    /// Whether people log in here, at the gateway or (`via: upstream`) at the app.
    pub login: bool,
    /// Whether an upgrade may pass.
    pub websocket: bool,
    /// How long a socket may stay open; until the token ends if not stated.
    pub max_ws_age: Option<Duration>,
    /// Identity headers to send.
    pub headers: Arc<[HeaderRule]>,
    /// Changes of the response's headers.
    pub response_headers: Arc<[HeaderRule]>,
    /// `rewrite`.
    pub rewrite: Option<Vec<Segment>>,
    /// `openapi: rewrite`: the answer is an OpenAPI document, and is served with our security in it.
    pub openapi_rewrite: bool,
    /// What a browser gets that nobody signed in with.
    pub on_unauthenticated: OnUnauthenticated,
    /// Which part of Supabase it leads to (`preset: supabase-edge`).
    pub edge: Option<Edge>,
    /// Nobody wrote it: the app's preset brings it. Its place is the preset's.
    pub generated: bool,
}

/// A part of Supabase that an app with `preset: supabase-edge` leads to. Its routes behave as the clients of that part
/// expect (`supabase-and-oauth.md` A6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edge {
    /// Supabase Auth, but for logging out: bearers are passed on and not looked at; refusals have its shape.
    Auth,
    /// `/auth/v1/token`: what is transient is 503 for the refresh grant, since clients take anything else for the end.
    Token,
    /// `/auth/v1/logout`: what it ends is refused here too, at once.
    Logout,
    /// PostgREST and GraphQL.
    Rest,
    /// Storage.
    Storage,
    /// Edge functions.
    Functions,
    /// Realtime. Of sockets (`Route::websocket`) the key of the project stands in the query of the upgrade, and the
    /// user's token comes inside; the rest is HTTP as with PostgREST.
    Realtime,
}

/// Where an allowed request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To an upstream.
    Upstream(UpstreamId),
    /// To an endpoint of the gateway.
    Own(OwnEndpoint),
}

/// A guard as it is shown; what it asks for is in each route that it may apply to.
#[derive(Debug)]
pub struct Guard {
    /// Its name.
    pub name: Arc<str>,
    /// Where it stands.
    pub place: Place,
    /// Evaluated and logged, not enforced.
    pub shadow: bool,
    /// Also on public routes.
    pub include_public: bool,
    /// Its templates.
    pub paths: Vec<Vec<Segment>>,
    /// Narrowing by host; empty means any.
    pub hosts: Vec<HostPattern>,
    /// Narrowing by method; empty means any.
    pub methods: Vec<Method>,
    /// Narrowing by app; empty means any.
    pub apps: Vec<AppId>,
}

/// A guard with one of its templates, for one route.
#[derive(Debug)]
pub struct RouteGuard {
    /// Which guard.
    pub guard: GuardId,
    /// The template to match at run time (folded if the app folds case); `None` if it matches every path of the
    /// route.
    pub template: Option<Vec<Segment>>,
    /// What it asks for, over the route's leaves.
    pub requirement: Node,
}

/// A host as policies write it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// One name.
    Exact(Box<str>),
    /// `*.suffix`, kept as `.suffix`: one or more labels before it.
    Suffix(Box<str>),
}

impl HostPattern {
    /// Reads a host as it is written; Unicode names must have become punycode before.
    pub fn new(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some(suffix) => Self::Suffix(suffix.into()),
            None => Self::Exact(text.into()),
        }
    }

    /// Whether a canonical host is one of these.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }
}

/// One thing that a requirement asks for.
#[derive(Debug)]
pub struct Leaf {
    /// What it asks for.
    pub kind: LeafKind,
    /// As explanations and logs name it: `scope items:write`, `path.user_id == user.id`.
    pub text: Box<str>,
    /// The named condition that is this leaf, if there is one.
    pub condition: Option<Box<str>>,
    /// Where it stands first.
    pub place: Place,
}

/// What a leaf asks for. Leaves that are equal share a bit.
#[derive(Clone, Debug, PartialEq)]
pub enum LeafKind {
    /// The access word.
    Access(Access),
    /// A scope, the issuer's hierarchy applied.
    Scope(Box<str>),
    /// A role, inclusion applied.
    Role(RoleId),
    /// A permission. The bits say which roles permit it.
    Permission(Box<str>, Bits),
    /// An issuer.
    Issuer(IssuerName),
    /// A second factor.
    Mfa,
    /// The time since authentication, at most.
    MaxAge(Duration),
    /// A comparison.
    Comparison(Comparison),
}

/// `left operator right`, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The left side.
    pub left: Operand,
    /// The operator.
    pub operator: Operator,
    /// The right side.
    pub right: Operand,
}

/// A side of a comparison, or the source of a header.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the reference or literal of its name; policy-language 8 has their meaning")]
pub enum Operand {
    Path(Parameter),
    User(UserFact),
    Token(ClaimPath),
    ClientIp,
    ClientCountry,
    Header(HeaderName),
    Query(Box<str>),
    RequestMethod,
    RequestHost,
    RequestTime,
    RequestWeekday,
    Env(EnvId),
    /// How the credential came (`X-Auth-Method`); only presets use it.
    Transport,
    String(Box<str>),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// Minutes since midnight.
    Time(u16),
    Duration(Duration),
    Set(SetId),
    Present,
    Missing,
}

/// A captured parameter: where its value stands in the path.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: Box<str>,
    /// The segment, or the first of the tail.
    pub position: usize,
    /// Its type.
    pub kind: Kind,
    /// Whether it is a tail.
    pub tail: bool,
}

/// Names do not count: the same leaf may call one position by two names.
impl PartialEq for Parameter {
    fn eq(&self, other: &Self) -> bool {
        (self.position, self.kind, self.tail) == (other.position, other.kind, other.tail)
    }
}

impl LeafKind {
    /// Whether another caller could change what it says: it reads the identity.
    pub fn is_about_identity(&self) -> bool {
        match self {
            Self::Access(access) => *access == Access::Authenticated,
            Self::Scope(_) | Self::Role(_) | Self::Permission(..) | Self::Issuer(_) | Self::Mfa | Self::MaxAge(_) => {
                true
            }
            Self::Comparison(comparison) => {
                [&comparison.left, &comparison.right].into_iter().any(Operand::is_about_identity)
            }
        }
    }
}

impl Operand {
    /// Whether it is a fact about the caller.
    pub fn is_about_identity(&self) -> bool {
        matches!(self, Self::User(_) | Self::Token(_) | Self::Transport)
    }
}

/// A header that is set or removed.
#[derive(Clone, Debug)]
pub struct HeaderRule {
    /// The name.
    pub name: HeaderName,
    /// Where the value comes from.
    pub value: HeaderSource,
}

/// Where the value of a header comes from.
#[derive(Clone, Debug)]
pub enum HeaderSource {
    /// It is removed.
    Remove,
    /// A constant.
    Literal(HeaderValue),
    /// A fact.
    Fact(Operand),
    /// `true` for an anonymous caller.
    Anonymous,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// The URL as written, or `env:NAME` if it is not resolved.
    pub url: String,
    /// `https`.
    pub tls: bool,
    /// The host name or address; empty if the reference is not resolved.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The name that the certificate must have, never empty with TLS.
    pub server_name: String,
    /// CA certificates instead of the system's, PEM.
    pub ca: Option<Vec<u8>>,
    /// The certificate is not verified.
    pub insecure: bool,
}

/// A rate limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its index.
    pub id: LimitId,
    /// Its name; an inline limit has none and belongs to one route.
    pub name: Option<Arc<str>>,
    /// How many.
    pub count: u32,
    /// In which time.
    pub per: Duration,
    /// At once.
    pub burst: u32,
    /// As written.
    pub text: Box<str>,
    /// Where it stands.
    pub place: Place,
}

/// A limit where it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitUse {
    /// Which limit.
    pub limit: LimitId,
    /// Counted by what. If the value is absent, the address is used instead.
    pub by: LimitKey,
}

/// A set of `in`.
#[derive(Debug)]
pub struct NamedSet {
    /// Its name.
    pub name: Box<str>,
    /// Its members.
    pub members: Members,
}

/// The members of a set.
#[derive(Debug)]
pub enum Members {
    /// Addresses.
    Networks(Vec<ipnet::IpNet>),
    /// Strings.
    Strings(std::collections::HashSet<Box<str>>),
    /// Numbers.
    Numbers(Vec<serde_json::Number>),
}

impl Members {
    /// Whether the address lies in one of the networks; `None` if the members are of another type.
    pub fn contains_address(&self, address: IpAddr) -> Option<bool> {
        match self {
            Self::Networks(networks) => Some(networks.iter().any(|network| network.contains(&address))),
            Self::Strings(_) | Self::Numbers(_) => None,
        }
    }
}

/// `env.NAME` in a condition.
#[derive(Debug)]
pub struct EnvValue {
    /// The name.
    pub name: Box<str>,
    /// The value; `None` if it is not resolved.
    pub value: Option<Secret<String>>,
}

// === Roles ===

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits(smallvec::SmallVec<[u64; 2]>);

impl Bits {
    /// Adds a number.
    pub fn insert(&mut self, number: usize) {
        let word = number / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(bits) = self.0.get_mut(word) {
            *bits |= 1 << (number % 64);
        }
    }

    /// Whether the number is in it.
    pub fn contains(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|bits| bits & (1 << (number % 64)) != 0)
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    /// Whether both have a number.
    pub fn intersects(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|bits| *bits == 0)
    }

    /// The numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let mut rest = *bits;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(word * 64 + bit as usize)
            })
        })
    }
}

/// Roles, with everything that follows from them.
#[derive(Debug, Default)]
pub struct Roles {
    /// The roles, by [`RoleId`].
    pub roles: Vec<RoleEntry>,
    /// By name.
    pub by_name: HashMap<Box<str>, RoleId>,
}

/// A role.
#[derive(Debug)]
pub struct RoleEntry {
    /// Its name.
    pub name: Box<str>,
    /// Where it stands.
    pub place: Place,
    /// Itself and all that it includes, transitively.
    pub closure: Bits,
    /// `can` of the role itself: permissions, `*`, `prefix:*`.
    pub can: Vec<Box<str>>,
    /// Scopes that a login may be given, of the role itself.
    pub grants: Vec<Box<str>>,
}

impl Roles {
    /// A role by its name.
    pub fn id(&self, name: &str) -> Option<RoleId> {
        self.by_name.get(name).copied()
    }

    /// A role by its index.
    pub fn get(&self, id: RoleId) -> Option<&RoleEntry> {
        self.roles.get(id.0)
    }

    /// The closure of the named roles; names that the set does not define have no effect.
    pub fn closure<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Bits {
        let mut all = Bits::default();
        for role in names.into_iter().filter_map(|name| self.get(self.id(name)?)) {
            all.extend(&role.closure);
        }
        all
    }

    /// The roles that themselves permit something (apply to a closure).
    pub fn permitting(&self, permission: &str) -> Bits {
        let mut all = Bits::default();
        for (number, role) in self.roles.iter().enumerate() {
            if role.can.iter().any(|pattern| permits(pattern, permission)) {
                all.insert(number);
            }
        }
        all
    }
}

/// Whether a granted permission, `*` or `prefix:*` covers a permission.
pub fn permits(pattern: &str, permission: &str) -> bool {
    pattern == "*"
        || pattern == permission
        || pattern.strip_suffix('*').is_some_and(|prefix| prefix.ends_with(':') && permission.starts_with(prefix))
}

// === Hosts ===

/// The tables of templates of all hosts.
#[derive(Debug, Default)]
pub struct Hosts {
    /// Apps of one host.
    pub exact: HashMap<Box<str>, Trie<Methods>>,
    /// Apps of `*.suffix` (kept as `.suffix`), the longest first.
    pub suffixes: Vec<(Box<str>, Trie<Methods>)>,
    /// Apps without `host`.
    pub any: Trie<Methods>,
}

impl Hosts {
    /// The table of a host: the most specific one that exists. There is no falling through to a broader host.
    pub fn table(&self, host: &str) -> &Trie<Methods> {
        if let Some(table) = self.exact.get(host) {
            return table;
        }
        let suffix = self.suffixes.iter().find(|(suffix, _)| host.len() > suffix.len() && host.ends_with(&**suffix));
        suffix.map_or(&self.any, |(_, table)| table)
    }
}

/// What a template answers: the routes by their methods. A path owns its methods.
#[derive(Clone, Debug, Default)]
pub struct Methods {
    /// Routes that name the method; `HEAD` beside `GET` is in it unless another route names it.
    pub named: Vec<(Method, RouteId)>,
    /// The route that serves any method.
    pub any: Option<RouteId>,
}

/// The methods of a route that names none.
pub const ANY_METHOD: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

impl Methods {
    /// The route for a method: named before any-method.
    pub fn find(&self, method: &str) -> Option<RouteId> {
        let named = self.named.iter().find(|(named, _)| named.as_str() == method).map(|(_, route)| *route);
        named.or_else(|| self.any.filter(|_| ANY_METHOD.iter().any(|any| any.as_str() == method)))
    }

    /// All routes of the template, each once.
    pub fn routes(&self) -> impl Iterator<Item = RouteId> + '_ {
        let named = self.named.iter().map(|(_, route)| *route).chain(self.any);
        let mut seen = smallvec::SmallVec::<[RouteId; 4]>::new();
        named.filter(move |route| {
            let new = !seen.contains(route);
            if new {
                seen.push(*route);
            }
            new
        })
    }

    /// The value of `Allow`.
    pub fn allow(&self) -> Vec<Method> {
        let mut methods: Vec<Method> = self.named.iter().map(|(method, _)| method.clone()).collect();
        if self.any.is_some() {
            methods.extend(ANY_METHOD);
        }
        let mut seen = Vec::new();
        methods.retain(|method| {
            let new = !seen.contains(method);
            if new {
                seen.push(method.clone());
            }
            new
        });
        methods
    }
}

// === Headers that are stripped ===

/// Names that no client may send, compared without case and with all equal that is neither letter nor digit: most
/// frameworks take `-` for `_`, and some servers (lighttpd's CGI variables) everything.
#[derive(Clone, Debug, Default)]
pub struct Strip {
    names: std::collections::HashSet<Box<[u8]>>,
    prefixes: Vec<Box<[u8]>>,
    /// For the low five bits of a first byte: the lengths of names that are removed, as bits. Most names of a request
    /// need no more than this look.
    lengths: [u64; 32],
}

impl Strip {
    /// From names and from prefixes.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>, prefixes: &[&str]) -> Self {
        let fold = |name: &str| -> Box<[u8]> { name.bytes().map(fold_byte).collect() };
        let names: std::collections::HashSet<_> = names.into_iter().map(fold).collect();
        let prefixes: Vec<_> = prefixes.iter().map(|prefix| fold(prefix)).collect();
        let mut lengths = [0; 32];
        for (name, or_longer) in names.iter().map(|name| (name, false)).chain(prefixes.iter().map(|name| (name, true)))
        {
            if let Some(lengths) = lengths.get_mut(first_of(name)) {
                let bit = length_bit(name.len());
                *lengths |= if or_longer { !(bit - 1) } else { bit };
            }
        }
        Self { names, prefixes, lengths }
    }

    /// Whether a header of this name is removed from every request.
    pub fn contains(&self, name: &str) -> bool {
        let lengths = self.lengths.get(first_of(name.as_bytes())).copied().unwrap_or(u64::MAX);
        if lengths & length_bit(name.len()) == 0 {
            return false;
        }
        let folded: smallvec::SmallVec<[u8; 64]> = name.bytes().map(fold_byte).collect();
        self.names.contains(&folded[..]) || self.prefixes.iter().any(|prefix| folded.starts_with(prefix))
    }
}

/// Which entry of [`Strip::lengths`] a name has; the same for both cases of a letter.
fn first_of(name: &[u8]) -> usize {
    usize::from(name.first().copied().map_or(0, fold_byte) & 31)
}

/// The bit of a length; 63 and more share one.
fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

fn fold_byte(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

// === impl ===

impl Revision {
    /// The revision of a set of texts: SHA-256 over path, length and text of each file in the order of paths.
    pub fn of(sources: &Sources) -> Self {
        Self::of_texts(sources.files().iter().map(|file| (&*file.path, &*file.text)).collect())
    }

    /// The same of paths and texts; a set has the same revision wherever its folder lies if the paths are relative
    /// to it.
    pub fn of_texts(mut files: Vec<(&str, &str)>) -> Self {
        files.sort_unstable();
        let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for file in files {
            for part in [file.0, file.1] {
                hash.update(&(part.len() as u64).to_be_bytes());
                hash.update(part.as_bytes());
            }
        }
        let digest = hash.finish();
        Self(digest.as_ref().iter().take(4).fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl Place {
    /// The place of a span.
    pub fn of(sources: &Sources, span: Span) -> Self {
        let (line, column) = sources.position(span);
        let path = sources.get(span.file).map_or_else(|| Arc::from(""), |file| Arc::clone(&file.path));
        let number = |value| u32::try_from(value).unwrap_or(u32::MAX);
        Self { path, line: number(line), column: number(column), span }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.line)
    }
}

impl PolicySet {
    /// Whether sessions of identity providers end here too: those of browsers, and those whose logout passes through.
    pub fn ends_sessions(&self) -> bool {
        let browser = |app: &App| app.login.as_deref().is_some_and(|login| login.browser.is_some());
        self.apps.iter().any(browser) || self.routes.iter().any(|route| route.edge == Some(Edge::Logout))
    }

    /// Whether it has users, sessions, keys or revocations that must be kept.
    pub fn needs_store(&self) -> bool {
        let local = |login: &Login| login.via == Via::Local;
        let managed = |local: &LocalIssuer| local.managed.is_some();
        self.apps.iter().any(|app| app.login.as_deref().is_some_and(local) || app.assertion.is_some())
            || self.issuers.iter().any(|issuer| issuer.local.as_ref().is_some_and(managed))
            || self.ends_sessions()
    }

    /// A route by its index.
    pub fn route(&self, id: RouteId) -> Option<&Route> {
        self.routes.get(id.0)
    }

    /// An app by its index.
    pub fn app(&self, id: AppId) -> Option<&App> {
        self.apps.get(id.0)
    }

    /// A guard by its index.
    pub fn guard(&self, id: GuardId) -> Option<&Guard> {
        self.guards.get(id.0)
    }

    /// An upstream by its index.
    pub fn upstream(&self, id: UpstreamId) -> Option<&Upstream> {
        self.upstreams.get(id.0)
    }

    /// A limit by its index.
    pub fn limit(&self, id: LimitId) -> Option<&Limit> {
        self.limits.get(id.0)
    }

    /// An issuer by its name.
    pub fn issuer(&self, name: &IssuerName) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| issuer.name == *name)
    }
}

impl Route {
    /// The endpoint of the gateway that answers here, if one does.
    pub fn own(&self) -> Option<OwnEndpoint> {
        match self.destination {
            Destination::Own(own) => Some(own),
            Destination::Upstream(_) => None,
        }
    }

    /// A leaf by its number.
    pub fn leaf(&self, id: LeafId) -> Option<&Leaf> {
        self.leaves.get(usize::from(id.0))
    }

    /// Whether the caller plays a part: false for `public`, `deny` and `todo`.
    pub fn needs_credential(&self) -> bool {
        match self.access {
            Access::Authenticated | Access::Optional => true,
            Access::Public | Access::Deny | Access::Todo => false,
        }
    }
}
