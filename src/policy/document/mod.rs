//! A policy set as it is written: every named thing of every fragment, with the place of each word.
//!
//! `lower` makes it from YAML nodes, `check` reads it, `compile` turns it into a `PolicySet`.
//! Names are not resolved here, and definitions that stand twice are all kept, so that `check` can report
//! both places.

mod issuer;

use std::time::Duration;

use serde_json::Value as Json;

use crate::diagnostic::{Code, FileId, Span, Spanned};
use crate::request::target::Irregular;

use super::template::Template;

pub use self::issuer::{ForwardClientIp, Introspection, Issuer, Preset, SessionCheck, Waivable};

/// A policy set: the union of all fragments.
#[derive(Debug, Default)]
pub struct Document {
    /// The YAML documents, in the order of files and places.
    pub fragments: Vec<Fragment>,
    /// The apps, one for each name.
    pub apps: Vec<App>,
    /// `identity`.
    pub issuers: Vec<Definition<Issuer>>,
    /// Set-wide `headers`.
    pub headers: HeaderSettings,
    /// Scope catalogue: name → description.
    pub scopes: Vec<Definition<Spanned<String>>>,
    /// Permission catalogue: name → description.
    pub permissions: Vec<Definition<Spanned<String>>>,
    /// `roles`.
    pub roles: Vec<Definition<Role>>,
    /// `sets`.
    pub sets: Vec<Definition<Set>>,
    /// `conditions`.
    pub conditions: Vec<Definition<Condition>>,
    /// `access`.
    pub access: Vec<Definition<Requirement>>,
    /// `limits`.
    pub limits: Vec<Definition<Limit>>,
    /// `guards`.
    pub guards: Vec<Definition<Guard>>,
    /// `routes`, in file order.
    pub routes: Vec<Route>,
    /// Test identities.
    pub identities: Vec<Definition<Fixture>>,
    /// Tests, in file order.
    pub tests: Vec<Test>,
    /// `time_zone`.
    pub time_zone: Option<Spanned<String>>,
    /// `unmatched`: 404 or 403.
    pub unmatched: Option<Spanned<u16>>,
    /// What reading could not make sense of.
    pub damage: Damage,
}

impl Document {
    /// Where people may sign in through a login with sessions of browsers, as names with their places: the providers of
    /// a Supabase project, or issuers of the policy.
    pub fn providers<'d>(&'d self, login: &'d Login) -> Vec<&'d Spanned<String>> {
        if !login.has_sessions() {
            return Vec::new();
        }
        if !login.providers.is_empty() || login.via.value != "oidc" {
            return login.providers.iter().collect();
        }
        if !login.issuers.is_empty() {
            return login.issuers.iter().collect();
        }
        let is_client = |issuer: &Issuer| issuer.preset.value.is_provider() && issuer.other("client_id").is_some();
        self.issuers.iter().filter(|issuer| is_client(&issuer.value)).map(|issuer| &issuer.name).collect()
    }
}

/// What is missing in a document because reading it raised errors.
#[derive(Clone, Debug, Default)]
pub struct Damage {
    /// There was an error: the document can be checked, but is never compiled.
    pub broken: bool,
    /// A whole file could not be parsed: any name may be missing.
    pub unparsed: bool,
    /// Names whose definitions could not be read.
    pub names: Vec<String>,
    /// Where the errors are.
    pub places: Vec<Span>,
}

impl Damage {
    /// Whether there is an error inside of `span`.
    pub fn is_within(&self, span: Span) -> bool {
        self.places.iter().any(|place| place.file == span.file && span.start <= place.start && place.start <= span.end)
    }
}

/// An index into [`Document::fragments`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentId(pub usize);

/// An index into [`Document::apps`] and later into the compiled set's apps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub usize);

/// One YAML document.
#[derive(Debug)]
pub struct Fragment {
    /// Its file.
    pub file: FileId,
    /// All of it.
    pub span: Span,
    /// Whether the file is a `*.test.yaml`.
    pub is_test_file: bool,
    /// The app it belongs to, if it has routes or app keys.
    pub app: Option<AppId>,
    /// Suppressions of the whole document (for an app, those of its header).
    pub allow: Vec<Suppression>,
}

/// `allow: { P311: reason }`.
#[derive(Clone, Debug)]
pub struct Suppression {
    /// What is suppressed.
    pub code: Spanned<Code>,
    /// Why.
    pub reason: Spanned<String>,
}

/// Something with a name.
#[derive(Clone, Debug)]
pub struct Definition<T> {
    /// The name, where it is defined.
    pub name: Spanned<String>,
    /// In which document.
    pub fragment: FragmentId,
    /// What the name stands for.
    pub value: T,
    /// Suppressions that stand on it.
    pub allow: Vec<Suppression>,
}

/// A text that may come from outside: `env:NAME`, `file:PATH`, or written out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `env:NAME`.
    Env(String),
    /// `file:PATH`; relative to the file that says so.
    File(String),
    /// The text itself.
    Literal(String),
}

// === Apps ===

/// An app: the header keys of all its fragments (only one may set them) under one name.
#[derive(Debug)]
pub struct App {
    /// Its name: stated, or the file's stem (then the span is the document's start).
    pub name: Spanned<String>,
    /// The fragments that belong to it.
    pub fragments: Vec<FragmentId>,
    /// Each fragment's header keys; more than one with any key is P207.
    pub headers: Vec<(FragmentId, AppHeader)>,
}

impl App {
    /// The header that sets the keys, or the first.
    pub fn header(&self) -> Option<&AppHeader> {
        self.headers
            .iter()
            .find(|(_, header)| header.any_key.is_some())
            .or_else(|| self.headers.first())
            .map(|(_, h)| h)
    }
}

/// The keys of an app header (3.2).
#[derive(Debug, Default)]
pub struct AppHeader {
    /// The first key other than `app`, if there is one: this fragment sets the header.
    pub any_key: Option<Span>,
    /// `preset: supabase-edge`.
    pub preset: Option<Spanned<String>>,
    /// `upstream`: an URL text, or `env:NAME`.
    pub upstream: Option<Spanned<Source>>,
    /// `upstream_tls.ca`.
    pub upstream_ca: Option<Spanned<Source>>,
    /// `upstream_tls.server_name`.
    pub upstream_server_name: Option<Spanned<String>>,
    /// `upstream_tls.insecure: true`.
    pub upstream_insecure: Option<Span>,
    /// `host`, as written; empty means any.
    pub hosts: Vec<Spanned<String>>,
    /// `base`.
    pub base: Option<Template>,
    /// `strip_base`.
    pub strip_base: bool,
    /// `case: insensitive`; `None` if not stated.
    pub case_insensitive: Option<bool>,
    /// Request-target opt-ins of `allow` (4.2).
    pub irregular: Irregular,
    /// `login`.
    pub login: Option<Spanned<Login>>,
    /// `cors`.
    pub cors: Option<Spanned<Cors>>,
    /// `defaults`.
    pub defaults: Defaults,
    /// `assertion`.
    pub assertion: Option<Spanned<Assertion>>,
    /// `errors: fastapi`.
    pub errors_fastapi: bool,
}

/// `defaults` of an app.
#[derive(Debug, Default)]
pub struct Defaults {
    /// `limit`.
    pub limit: Vec<LimitUse>,
    /// `headers`.
    pub headers: Vec<HeaderEdit>,
    /// `timeout`.
    pub timeout: Option<Spanned<Duration>>,
    /// `max_body`, in bytes.
    pub max_body: Option<Spanned<u64>>,
    /// `forward_token`; default true.
    pub forward_token: Option<Spanned<bool>>,
    /// `on_store_error: allow_until_exp`.
    pub allow_on_store_error: Option<Span>,
    /// `on_method_override: enforce`.
    pub enforce_method_override: Option<Span>,
    /// `on_unauthenticated`, as written.
    pub on_unauthenticated: Option<Spanned<String>>,
}

/// `cors` (14).
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// `origins`.
    pub origins: Vec<Spanned<String>>,
    /// `methods`; empty means those of the requested path.
    pub methods: Vec<Spanned<String>>,
    /// `headers`; `None` means the default list.
    pub headers: Option<Vec<Spanned<String>>>,
    /// `expose`.
    pub expose: Vec<Spanned<String>>,
    /// `credentials`.
    pub credentials: bool,
    /// `max_age`; default 10 minutes.
    pub max_age: Option<Duration>,
}

/// `login` (11).
#[derive(Clone, Debug)]
pub struct Login {
    /// `path`; default `/token`.
    pub path: Spanned<String>,
    /// `via`: `local`, `upstream`, `supabase` or `oidc`.
    pub via: Spanned<String>,
    /// `limit`.
    pub limit: Vec<LimitUse>,
    /// `issuer`: names.
    pub issuers: Vec<Spanned<String>>,
    /// `introspect`: who may call the introspection endpoint.
    pub introspect: Option<Requirement>,
    /// The other own endpoints that are on: purpose (`login callback logout revoke introspect`) and path.
    pub paths: Vec<(String, Spanned<String>)>,
    /// `lockout`; `None` is `lockout: none`.
    pub lockout: Option<Lockout>,
    /// `scope_mode: strict`.
    pub strict_scopes: bool,
    /// `default_scopes`; `None` is all that may be given.
    pub default_scopes: Option<Vec<Spanned<String>>>,
    /// `to`: a path at the app.
    pub to: Option<Spanned<String>>,
    /// `account_field`.
    pub account_field: Option<Spanned<String>>,
    /// `failures`: statuses; empty is the default.
    pub failures: Vec<u16>,
    /// `session`: sessions of browsers (`supabase`, `oidc`).
    pub session: Session,
    /// `session: none`.
    pub no_session: Option<Span>,
    /// `providers`.
    pub providers: Vec<Spanned<String>>,
    /// `return_to`.
    pub return_to: Option<Spanned<String>>,
}

/// `session` of a login; what is not stated is the default.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// `cookie`.
    pub cookie: Option<Spanned<String>>,
    /// `idle`.
    pub idle: Option<Spanned<Duration>>,
    /// `expires`.
    pub expires: Option<Spanned<Duration>>,
    /// `refresh_margin`.
    pub refresh_margin: Option<Spanned<Duration>>,
    /// `keys`: the first seals.
    pub keys: Vec<Spanned<Source>>,
}

impl Login {
    /// Whether browsers get sessions.
    pub fn has_sessions(&self) -> bool {
        matches!(self.via.value.as_str(), "supabase" | "oidc") && self.no_session.is_none()
    }

    /// A login that says nothing but who checks passwords.
    pub fn new(via: Spanned<String>) -> Self {
        Self {
            path: Spanned::new("/token".to_owned(), via.span),
            via,
            limit: Vec::new(),
            issuers: Vec::new(),
            introspect: None,
            paths: Vec::new(),
            lockout: Some(Lockout::default()),
            strict_scopes: false,
            default_scopes: None,
            to: None,
            account_field: None,
            failures: Vec::new(),
            session: Session::default(),
            no_session: None,
            providers: Vec::new(),
            return_to: None,
        }
    }
}

/// When failed logins lock, and for how long (`lockout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockout {
    /// After so many failures …
    pub after: u32,
    /// … within this time …
    pub within: Duration,
    /// … for this long, doubled at each repetition, up to a day.
    pub lock: Duration,
}

impl Default for Lockout {
    fn default() -> Self {
        let quarter = Duration::from_secs(15 * 60);
        Self { after: 10, within: quarter, lock: quarter }
    }
}

// === Names ===

/// A role.
#[derive(Clone, Debug, Default)]
pub struct Role {
    /// `includes`.
    pub includes: Vec<Spanned<String>>,
    /// `can`: permissions, `*`, or `prefix:*`.
    pub can: Vec<Spanned<String>>,
    /// `grants`: scopes.
    pub grants: Vec<Spanned<String>>,
}

/// A set, homogeneous.
#[derive(Clone, Debug)]
pub enum Set {
    /// Addresses and CIDRs.
    Networks(Vec<Spanned<ipnet::IpNet>>),
    /// Strings.
    Strings(Vec<Spanned<String>>),
    /// Numbers.
    Numbers(Vec<Spanned<serde_json::Number>>),
}

// === Requirements ===

/// `assertion`; `true` has neither.
#[derive(Clone, Debug, Default)]
pub struct Assertion {
    /// `audience`.
    pub audience: Option<Spanned<String>>,
    /// `expires`.
    pub expires: Option<Spanned<std::time::Duration>>,
}

/// The five access words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// No credential is looked at.
    Public,
    /// A credential may be absent.
    Optional,
    /// Any valid identity.
    Authenticated,
    /// Nobody.
    Deny,
    /// Nobody yet.
    Todo,
}

impl Access {
    /// The word as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Optional => "optional",
            Self::Authenticated => "authenticated",
            Self::Deny => "deny",
            Self::Todo => "todo",
        }
    }

    /// From the word as it is written.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Public, Self::Optional, Self::Authenticated, Self::Deny, Self::Todo]
            .into_iter()
            .find(|access| access.as_str() == word)
    }
}

/// A requirement as it is written (6).
#[derive(Clone, Debug)]
pub enum Requirement {
    /// One of the five words.
    Word(Spanned<Access>),
    /// An access name.
    Named(Spanned<String>),
    /// Keys that must all hold.
    Object(RequirementObject),
}

impl Requirement {
    /// Where it stands.
    pub fn span(&self) -> Span {
        match self {
            Self::Word(word) => word.span,
            Self::Named(name) => name.span,
            Self::Object(object) => object.span,
        }
    }
}

/// A requirement object: the access word, if stated, and its authorising keys in file order, all of which
/// must hold.
#[derive(Clone, Debug)]
pub struct RequirementObject {
    /// All of it.
    pub span: Span,
    /// `access`: a word or an access name. Legal at the top only.
    pub access: Option<AccessRef>,
    /// The other authorising keys, in file order.
    pub clauses: Vec<Clause>,
}

/// The value of `access`.
#[derive(Clone, Debug)]
pub enum AccessRef {
    /// One of the five words.
    Word(Spanned<Access>),
    /// An access name.
    Named(Spanned<String>),
}

/// One authorising key.
#[derive(Clone, Debug)]
pub enum Clause {
    /// `scope`.
    Scope(Names),
    /// `role`.
    Role(Names),
    /// `permission`.
    Permission(Names),
    /// `issuer`.
    Issuer(Names),
    /// `where`.
    Where(Condition),
    /// `mfa: true`.
    Mfa(Span),
    /// `max_age`.
    MaxAge(Spanned<Duration>),
    /// `any`.
    Any(Vec<Requirement>, Span),
    /// `all`.
    All(Vec<Requirement>, Span),
    /// `not`.
    Not(Box<Requirement>, Span),
}

/// One name, or several with `any` or `all`.
#[derive(Clone, Debug)]
pub struct Names {
    /// How several are joined; `All` for a single name.
    pub join: Join,
    /// The names, in file order.
    pub names: Vec<Spanned<String>>,
    /// The whole value.
    pub span: Span,
}

/// How several things are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// One suffices.
    Any,
    /// Each must hold.
    All,
}

// === Conditions ===

/// A condition (8).
#[derive(Clone, Debug)]
pub enum Condition {
    /// One comparison.
    Comparison(Comparison),
    /// A named condition.
    Named(Spanned<String>),
    /// A list: all must hold.
    All(Vec<Self>, Span),
}

/// `left operator right`.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The whole comparison, as written (with its place).
    pub text: Spanned<String>,
    /// The left side.
    pub left: Reference,
    /// Where the left side stands.
    pub left_span: Span,
    /// The operator.
    pub operator: Operator,
    /// The right side.
    pub right: Operand,
    /// Where the right side stands.
    pub right_span: Span,
}

/// What a condition or a header can read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// `path.X`.
    Path(String),
    /// `user.X`.
    User(UserFact),
    /// `token.a.b`; the segments.
    Token(Vec<String>),
    /// `client.ip`.
    ClientIp,
    /// `client.country`.
    ClientCountry,
    /// `header.X`, lower case.
    Header(String),
    /// `query.X`.
    Query(String),
    /// `request.method`.
    RequestMethod,
    /// `request.host`.
    RequestHost,
    /// `request.time`.
    RequestTime,
    /// `request.weekday`.
    RequestWeekday,
    /// `env.X`.
    Env(String),
}

/// The facts under `user.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the word behind `user.`; policy-language 8 has their meaning")]
pub enum UserFact {
    Id,
    Email,
    Name,
    Tenant,
    Session,
    Issuer,
    Kind,
    Roles,
    Scopes,
    Permissions,
    AuthAge,
}

/// Comparison operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the operator of its name; policy-language 8 has their meaning")]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    StartsWith,
    EndsWith,
    In,
    Is,
    IsNot,
}

/// The right side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A quoted string.
    String(String),
    /// An integer.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A time of the day, minutes since midnight.
    Time(u16),
    /// A duration.
    Duration(Duration),
    /// Another reference.
    Reference(Reference),
    /// The name of a set, after `in`.
    Set(String),
    /// `present`, after `is`.
    Present,
    /// `missing`, after `is`.
    Missing,
}

// === Limits, guards, routes ===

/// `5/min by user burst 10`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub count: u32,
    /// In which time.
    pub per: Duration,
    /// Counted by what; `None` is the default of the route.
    pub by: Option<LimitKey>,
    /// `burst`; default is `count`.
    pub burst: Option<u32>,
    /// The text as written.
    pub text: Spanned<String>,
}

/// What a limit counts by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// The client's address; IPv6 by /64.
    Ip,
    /// `user.id` within its issuer.
    User,
    /// The token.
    Token,
    /// `user.tenant`.
    Tenant,
    /// One bucket for the route.
    Route,
    /// The value of a request header.
    Header(String),
    /// The account that a login asks for (`login.limit` only).
    Account,
}

/// A limit where it is used.
#[derive(Clone, Debug)]
pub enum LimitUse {
    /// Written out.
    Inline(Limit),
    /// By its name.
    Named(Spanned<String>),
    /// `none`: drops the app's default limits.
    None(Span),
}

/// A guard (9).
#[derive(Clone, Debug)]
pub struct Guard {
    /// `paths`.
    pub paths: Vec<Template>,
    /// `hosts`.
    pub hosts: Vec<Spanned<String>>,
    /// `methods`.
    pub methods: Vec<Spanned<String>>,
    /// `apps`.
    pub apps: Vec<Spanned<String>>,
    /// `require`.
    pub require: Requirement,
    /// `mode: shadow`.
    pub shadow: bool,
    /// `include_public: true`.
    pub include_public: Option<Span>,
    /// `description`.
    pub description: Option<String>,
}

/// One entry of `routes`.
#[derive(Clone, Debug)]
pub struct Route {
    /// The key as written, with its place.
    pub key: Spanned<String>,
    /// In which document.
    pub fragment: FragmentId,
    /// Of which app.
    pub app: AppId,
    /// The methods named; empty means any method. `HEAD` is not added here.
    pub methods: Vec<Spanned<String>>,
    /// The template of the key, without the app's `base`.
    pub template: Template,
    /// What it asks for.
    pub requirement: Requirement,
    /// Everything that does not authorise.
    pub options: RouteOptions,
    /// Suppressions.
    pub allow: Vec<Suppression>,
    /// Nobody wrote it: the app's preset brings it.
    pub generated: bool,
}

/// The keys of a route that do not authorise (3.3).
#[derive(Clone, Debug, Default)]
pub struct RouteOptions {
    /// `limit`.
    pub limit: Vec<LimitUse>,
    /// `headers`.
    pub headers: Vec<HeaderEdit>,
    /// `response_headers`.
    pub response_headers: Vec<HeaderEdit>,
    /// `upstream` for this route alone.
    pub upstream: Option<Spanned<Source>>,
    /// `rewrite`.
    pub rewrite: Option<Template>,
    /// `timeout`.
    pub timeout: Option<Spanned<Duration>>,
    /// `max_body`, in bytes.
    pub max_body: Option<Spanned<u64>>,
    /// `retry: false`.
    pub no_retry: bool,
    /// `websocket: true`.
    pub websocket: bool,
    /// `max_ws_age`.
    pub max_ws_age: Option<Spanned<Duration>>,
    /// `on_unauthenticated`, as written.
    pub on_unauthenticated: Option<Spanned<String>>,
    /// `openapi: rewrite`.
    pub openapi_rewrite: Option<Span>,
    /// `name`.
    pub name: Option<String>,
    /// `description`.
    pub description: Option<String>,
    /// `tags`.
    pub tags: Vec<String>,
}

// === Headers ===

/// Set-wide `headers` (12).
#[derive(Clone, Debug, Default)]
pub struct HeaderSettings {
    /// `preset`; several are reported.
    pub preset: Vec<Spanned<String>>,
    /// `unsafe_values: encode`.
    pub encode_unsafe: Option<Spanned<bool>>,
    /// Own names.
    pub edits: Vec<HeaderEdit>,
}

/// A header that is set or removed.
#[derive(Clone, Debug)]
pub struct HeaderEdit {
    /// The name as written.
    pub name: Spanned<String>,
    /// What it is set to.
    pub value: HeaderValue,
}

/// Where the value of a header comes from.
#[derive(Clone, Debug)]
pub enum HeaderValue {
    /// `null`: removed.
    Remove,
    /// A quoted string.
    Literal(Spanned<String>),
    /// A reference.
    Reference(Spanned<Reference>),
}

// === Tests ===

/// A test identity (16).
#[derive(Clone, Debug, Default)]
pub struct Fixture {
    /// `issuer`; default the only one.
    pub issuer: Option<Spanned<String>>,
    /// `id`.
    pub id: Option<Spanned<String>>,
    /// `email`.
    pub email: Option<Spanned<String>>,
    /// `name`.
    pub name: Option<Spanned<String>>,
    /// `tenant`.
    pub tenant: Option<Spanned<String>>,
    /// `roles`.
    pub roles: Option<Vec<Spanned<String>>>,
    /// `scopes`.
    pub scopes: Option<Vec<Spanned<String>>>,
    /// `permissions`.
    pub permissions: Option<Vec<Spanned<String>>>,
    /// `mfa`.
    pub mfa: Option<bool>,
    /// `auth_age`.
    pub auth_age: Option<Duration>,
    /// `kind`.
    pub kind: Option<Spanned<String>>,
    /// `ip`.
    pub ip: Option<std::net::IpAddr>,
    /// `claims`.
    pub claims: serde_json::Map<String, Json>,
}

/// One request of a test group and what is expected for each identity.
#[derive(Clone, Debug)]
pub struct Test {
    /// The group.
    pub group: Spanned<String>,
    /// The title: the request key, or the free title of the long form.
    pub title: Spanned<String>,
    /// In which document.
    pub fragment: FragmentId,
    /// Method.
    pub method: String,
    /// Request target: path and query.
    pub target: String,
    /// `https` or `http`, if the target carries a scheme; default `https` is not implied.
    pub scheme: Option<String>,
    /// Host, if the target carries one.
    pub host: Option<String>,
    /// Headers of the long form.
    pub headers: Vec<(String, String)>,
    /// `ip`.
    pub ip: Option<std::net::IpAddr>,
    /// `time`, as milliseconds since the epoch.
    pub time: Option<crate::clock::Timestamp>,
    /// Identity → expectation.
    pub expect: Vec<(Spanned<String>, Expectation)>,
}

/// What a test expects.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// All of it.
    pub span: Span,
    /// `allow`, or a status.
    pub outcome: ExpectedOutcome,
    /// `code`.
    pub code: Option<Spanned<String>>,
    /// `because`.
    pub because: Option<Spanned<String>>,
    /// `route`: a route key.
    pub route: Option<Spanned<String>>,
    /// `headers`: identity headers sent upstream; `None` means absent.
    pub headers: Vec<(Spanned<String>, Option<String>)>,
}

/// `allow`, or a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedOutcome {
    /// The request is forwarded.
    Allow,
    /// It is refused with this status.
    Status(u16),
}
