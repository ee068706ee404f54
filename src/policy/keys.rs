//! The one table of keys: name, type, doc text, example, edition.
//!
//! Lowering takes unknown keys and "did you mean" from it; the JSON Schema, the reference and the comments of
//! `init` are written from it, so that they cannot drift.

use super::document::Preset;

/// A key of the language.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What it takes.
    pub ty: Type,
    /// What it means, for users.
    pub doc: &'static str,
    /// A value, as YAML in one line.
    pub example: &'static str,
    /// The edition that introduced it.
    pub since: u32,
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// Any text.
    Text,
    /// A text, or a list of texts.
    Texts,
    /// A name.
    Name,
    /// A name, or a list of names.
    Names,
    /// One of these words.
    Word(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// `true`.
    True,
    /// A whole number.
    Integer,
    /// `90s`, `10m`, `2h`, `30d`.
    Duration,
    /// `10MiB`, `64KiB`, `10MB`.
    Size,
    /// A path template.
    Template,
    /// A template, or a list of templates.
    Templates,
    /// `http://…` or `https://…`, or `env:NAME`.
    Url,
    /// `env:NAME` or `file:PATH`.
    Source,
    /// `env:NAME` or `file:PATH`, or a list of them.
    Sources,
    /// A condition or a condition name.
    Condition,
    /// A condition, a condition name, or a list of them (all must hold).
    Conditions,
    /// A requirement.
    Requirement,
    /// A list of requirements and access names.
    Requirements,
    /// One name, `{ any: […] }` or `{ all: […] }`.
    Choice,
    /// A limit, a limit name, a list of them, or `none`.
    Limits,
    /// A reference, a quoted string, or `null`.
    Header,
    /// A map of header names to [`Type::Header`].
    Headers,
    /// A map of codes to reasons.
    Suppressions,
    /// An object with the keys of this context.
    Object(Context),
    /// An object with these keys, or one of these words.
    ObjectOr(Context, &'static [&'static str]),
    /// A map of names to objects or values of this type.
    Map(&'static Self),
    /// A role: permissions, or an object.
    Role,
    /// The members of a set.
    Members,
    /// Any YAML.
    Any,
}

impl Type {
    /// What it takes, in words that fit behind "needs".
    pub fn noun(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Texts => "a text or a list of texts",
            Self::Name => "a name",
            Self::Names => "a name or a list of names",
            Self::Word(_) => "a word",
            Self::Bool => "`true` or `false`",
            Self::True => "`true`",
            Self::Integer => "a whole number",
            Self::Duration => "a duration such as `30s`",
            Self::Size => "a size such as `10MiB`",
            Self::Template => "a path template",
            Self::Templates => "a path template or a list of them",
            Self::Url => "a URL or `env:NAME`",
            Self::Source => "`env:NAME` or `file:PATH`",
            Self::Sources => "`env:NAME` or `file:PATH`, or a list of them",
            Self::Condition => "a condition or a condition name",
            Self::Conditions => "a condition, a condition name, or a list of them",
            Self::Requirement => "a requirement",
            Self::Requirements => "a list of requirements",
            Self::Choice => "a name, `{ any: […] }` or `{ all: […] }`",
            Self::Limits => "a limit, a limit name, or a list of them",
            Self::Header => "a reference or a quoted string",
            Self::Headers => "a map of header names",
            Self::Suppressions => "a map of codes to reasons",
            Self::Object(_) | Self::Map(_) => "a map",
            Self::ObjectOr(..) => "a word or a map",
            Self::Role => "a list of permissions or a map",
            Self::Members => "a list",
            Self::Any => "a value",
        }
    }
}

/// Where keys stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A document, header keys of its app included.
    Document,
    /// A `*.test.yaml`.
    TestDocument,
    /// `upstream_tls`.
    UpstreamTls,
    /// `cors`.
    Cors,
    /// `defaults`.
    Defaults,
    /// `assertion`.
    Assertion,
    /// `login`.
    Login,
    /// `login.lockout`.
    Lockout,
    /// `login.paths`.
    LoginPaths,
    /// `login.session`.
    Session,
    /// An entry of `identity` with this preset.
    Issuer(Preset),
    /// `claims` of an issuer.
    Claims,
    /// `introspection` of an issuer.
    Introspection,
    /// `session_check` of an issuer.
    SessionCheck,
    /// `forward_client_ip` of an issuer.
    ForwardClientIp,
    /// `headers` of the set; header names come in addition.
    Headers,
    /// A role.
    Role,
    /// A guard.
    Guard,
    /// A named requirement.
    Access,
    /// A requirement inside of another, or of a guard.
    Requirement,
    /// A route.
    Route,
    /// `{ any: […] }` or `{ all: […] }` of names.
    Choice,
    /// A test identity.
    Fixture,
    /// The long form of a test.
    Test,
    /// `request` of a test.
    TestRequest,
    /// What a test expects.
    Expectation,
}

impl Context {
    /// What it is, in words that fit behind "a key of".
    pub fn noun(self) -> &'static str {
        match self {
            Self::Document => "a policy document",
            Self::TestDocument => "a test file",
            Self::UpstreamTls => "`upstream_tls`",
            Self::Cors => "`cors`",
            Self::Defaults => "`defaults`",
            Self::Assertion => "`assertion`",
            Self::Login => "`login`",
            Self::Lockout => "`lockout`",
            Self::LoginPaths => "`paths`",
            Self::Session => "`session`",
            Self::Issuer(_) => "an issuer with this preset",
            Self::Claims => "`claims`",
            Self::Introspection => "`introspection`",
            Self::SessionCheck => "`session_check`",
            Self::ForwardClientIp => "`forward_client_ip`",
            Self::Headers => "`headers`",
            Self::Role => "a role",
            Self::Guard => "a guard",
            Self::Access => "a named requirement",
            Self::Requirement => "a requirement",
            Self::Route => "a route",
            Self::Choice => "a choice of names",
            Self::Fixture => "a test identity",
            Self::Test => "a test",
            Self::TestRequest => "a test's request",
            Self::Expectation => "an expectation",
        }
    }

    fn tables(self) -> &'static [&'static [Key]] {
        match self {
            Self::Document => &[VERSION, APP, SET, TESTS, ALLOW],
            Self::TestDocument => &[VERSION, TESTS],
            Self::UpstreamTls => &[UPSTREAM_TLS],
            Self::Cors => &[CORS],
            Self::Defaults => &[DEFAULTS],
            Self::Assertion => &[ASSERTION],
            Self::Login => &[LOGIN],
            Self::Lockout => &[LOCKOUT],
            Self::LoginPaths => &[LOGIN_PATHS],
            Self::Session => &[SESSION],
            Self::Issuer(preset) => match preset {
                Preset::Local => &[LOCAL, ISSUER, ALLOW],
                Preset::Supabase => &[SUPABASE, ISSUER, FETCHED, ALLOW],
                Preset::Jwt => &[JWT, ISSUER, FETCHED, ALLOW],
                _ => &[OIDC, ISSUER, FETCHED, ALLOW],
            },
            Self::Claims => &[CLAIMS],
            Self::Introspection => &[INTROSPECTION],
            Self::SessionCheck => &[SESSION_CHECK],
            Self::ForwardClientIp => &[FORWARD_CLIENT_IP],
            Self::Headers => &[HEADERS],
            Self::Role => &[ROLE, ALLOW],
            Self::Guard => &[GUARD, ALLOW],
            Self::Access => &[ACCESS, AUTHORIZING, ALLOW],
            Self::Requirement => &[AUTHORIZING],
            Self::Route => &[ACCESS, AUTHORIZING, OTHER, ALLOW],
            Self::Choice => &[CHOICE],
            Self::Fixture => &[FIXTURE, ALLOW],
            Self::Test => &[TEST],
            Self::TestRequest => &[TEST_REQUEST],
            Self::Expectation => &[EXPECTATION],
        }
    }

    /// Its keys, in the order of the reference.
    pub fn keys(self) -> impl Iterator<Item = &'static Key> {
        self.tables().iter().flat_map(|table| table.iter())
    }

    /// One of its keys.
    pub fn key(self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }
}

/// Whether a key of a document belongs to the header of its app.
pub fn is_app_key(name: &str) -> bool {
    APP.iter().any(|key| key.name == name)
}

/// Whether a key of a route is one that does not authorise.
pub fn is_route_option(name: &str) -> bool {
    OTHER.iter().any(|key| key.name == name)
}

const fn key(name: &'static str, ty: Type, doc: &'static str, example: &'static str) -> Key {
    Key { name, ty, doc, example, since: 1 }
}

/// The opt-ins of `allow` in an app header.
pub const OPT_INS: &[&str] = &["encoded_slash", "double_slash", "path_params", "double_encoding"];
/// Names of identity header presets.
pub const HEADER_PRESETS: &[&str] =
    &["auth", "remote", "forwarded", "auth-request", "pomerium-claims", "grafana", "hasura", "supabase", "none"];
/// Ways to log in.
pub const LOGIN_WAYS: &[&str] = &["local", "upstream", "supabase", "oidc"];
/// Kinds of callers.
pub const KINDS: &[&str] = &["user", "anonymous", "service", "client"];
/// The signature algorithms that are supported.
pub const ALGORITHMS: &[&str] =
    &["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
const PRESETS: &[&str] = &[
    "local", "supabase", "oidc", "auth0", "keycloak", "entra", "cognito", "clerk", "firebase", "google", "okta", "jwt",
];
const ALLOW_OR_DENY: &[&str] = &["deny", "allow"];

const VERSION: &[Key] = &[key("version", Type::Integer, "The language edition; required in every document.", "1")];

const ALLOW: &[Key] = &[key(
    "allow",
    Type::Suppressions,
    "Suppresses a diagnostic of what it stands on: code and reason. In an app's header it also takes the \
     request-target opt-ins `encoded_slash`, `double_slash`, `path_params` and `double_encoding`.",
    "{ P311: metrics are scraped without a login }",
)];

const APP: &[Key] = &[
    key("app", Type::Name, "The app's name; default is the file's name without its ending.", "items-api"),
    key(
        "preset",
        Type::Word(&["supabase-edge"]),
        "Ready-made routes and rules of an app in front of Supabase.",
        "supabase-edge",
    ),
    key(
        "upstream",
        Type::Url,
        "Where requests go: scheme, host and port, no path. Required, unless every route names one.",
        "http://localhost:8000",
    ),
    key(
        "upstream_tls",
        Type::Object(Context::UpstreamTls),
        "TLS settings for an `https://` upstream.",
        "{ ca: file:ca.pem }",
    ),
    key(
        "host",
        Type::Texts,
        "The host names that the app answers on; `*.suffix` matches one or more labels. Default: any.",
        "api.example.com",
    ),
    key("base", Type::Template, "Put in front of every template of the app; may contain parameters.", "/v1"),
    key(
        "strip_base",
        Type::Bool,
        "Removes `base` before forwarding and sends `X-Forwarded-Prefix`. Default `false`.",
        "true",
    ),
    key(
        "case",
        Type::Word(&["sensitive", "insensitive"]),
        "Whether the upstream tells upper and lower case in paths apart.",
        "insensitive",
    ),
    key(
        "login",
        Type::ObjectOr(Context::Login, LOGIN_WAYS),
        "The login endpoints of the app.",
        "{ path: /token, via: local }",
    ),
    key(
        "cors",
        Type::Object(Context::Cors),
        "Which pages of other origins may call the app.",
        "{ origins: [https://app.example] }",
    ),
    key(
        "defaults",
        Type::Object(Context::Defaults),
        "Settings of all the app's routes; never an access requirement.",
        "{ timeout: 30s }",
    ),
    key(
        "assertion",
        Type::ObjectOr(Context::Assertion, &["true"]),
        "Sends a signed `X-Auth-Assertion` upstream.",
        "true",
    ),
    key(
        "errors",
        Type::Word(&["problem", "fastapi"]),
        "The shape of refusals: RFC 9457 or FastAPI's. Default `problem`.",
        "fastapi",
    ),
];

const SET: &[Key] = &[
    key(
        "identity",
        Type::Map(&Type::Any),
        "Who may sign tokens: issuer name and settings.",
        "{ local: { preset: local } }",
    ),
    key(
        "headers",
        Type::Object(Context::Headers),
        "Identity headers sent upstream; these names are always removed from the client's request.",
        "{ preset: auth, X-Plan: token.plan }",
    ),
    key("scopes", Type::Map(&Type::Text), "Catalogue of scopes: name and description.", "{ items:read: Read items }"),
    key(
        "permissions",
        Type::Map(&Type::Text),
        "Catalogue of permissions: name and description.",
        "{ items:delete: Remove an item }",
    ),
    key(
        "roles",
        Type::Map(&Type::Role),
        "Roles, what they include, and the permissions they give.",
        "{ admin: { can: \"*\" } }",
    ),
    key(
        "sets",
        Type::Map(&Type::Members),
        "Named lists of addresses, texts or numbers, used with `in`.",
        "{ office: [10.8.0.0/16] }",
    ),
    key("conditions", Type::Map(&Type::Condition), "Named comparisons.", "{ same_tenant: path.tenant == user.tenant }"),
    key(
        "access",
        Type::Map(&Type::Requirement),
        "Named requirements, usable wherever `public` is.",
        "{ staff: { role: support } }",
    ),
    key("limits", Type::Map(&Type::Text), "Named rate limits.", "{ per_user: 600/min by user }"),
    key(
        "guards",
        Type::Map(&Type::Object(Context::Guard)),
        "Requirements that must hold in addition, over whole path trees.",
        "{ office: { paths: /admin/**, require: { where: client.ip in office } } }",
    ),
    key(
        "routes",
        Type::Map(&Type::Requirement),
        "What is granted: methods and path template, and the requirement.",
        "{ GET /items: { scope: items:read } }",
    ),
    key("time_zone", Type::Text, "For `request.time` and `request.weekday`. Default `UTC`.", "Europe/Berlin"),
    key("unmatched", Type::Integer, "The answer where no route matches: `404` (default) or `403`.", "403"),
];

const TESTS: &[Key] = &[
    key(
        "identities",
        Type::Map(&Type::Object(Context::Fixture)),
        "Identities for tests.",
        "{ reader: { id: u1, scopes: items:read } }",
    ),
    key(
        "tests",
        Type::Map(&Type::Any),
        "Groups of requests and what is expected for each identity.",
        "{ items: { GET /items: { anonymous: 401, reader: allow } } }",
    ),
];

const UPSTREAM_TLS: &[Key] = &[
    key("ca", Type::Source, "CA certificates instead of the system's roots.", "file:ca.pem"),
    key("server_name", Type::Text, "Another name to ask for and to verify.", "internal.example"),
    key("insecure", Type::Bool, "`true` switches verification off.", "true"),
];

const CORS: &[Key] = &[
    key("origins", Type::Texts, "Origins, compared exactly; `\"*\"` for any.", "[https://app.example]"),
    key("methods", Type::Texts, "Default: those of the requested path.", "[GET, POST]"),
    key(
        "headers",
        Type::Texts,
        "Request headers that pages may send. Default: `authorization`, `content-type`, `x-requested-with`; with \
         `preset: supabase-edge`, what the clients of Supabase send.",
        "[authorization]",
    ),
    key("expose", Type::Texts, "Response headers that pages may read.", "[X-Total]"),
    key("credentials", Type::Bool, "Whether cookies may be sent. Default `false`.", "true"),
    key("max_age", Type::Duration, "How long a browser remembers the answer. Default `10m`.", "1h"),
];

const DEFAULTS: &[Key] = &[
    key("limit", Type::Limits, "Limits of every route of the app.", "600/min by user"),
    key("headers", Type::Headers, "Identity headers of the app; `null` removes one.", "{ X-Plan: token.plan }"),
    key("timeout", Type::Duration, "How long the upstream may take. Default `60s`.", "30s"),
    key("max_body", Type::Size, "The largest request body.", "10MiB"),
    key(
        "forward_token",
        Type::Bool,
        "Whether the validated `Authorization` header goes upstream. Default `true`.",
        "false",
    ),
    key(
        "on_store_error",
        Type::Word(&["deny", "allow_until_exp"]),
        "While revocations cannot be read. Default `deny`.",
        "deny",
    ),
    key(
        "on_method_override",
        Type::Word(&["remove", "enforce"]),
        "What happens to `X-HTTP-Method-Override` and its kin. Default `remove`.",
        "enforce",
    ),
    key(
        "on_unauthenticated",
        Type::Text,
        "With browser sessions: `challenge`, `redirect`, or `redirect /PATH`.",
        "redirect",
    ),
];

const ASSERTION: &[Key] = &[
    key("audience", Type::Text, "The assertion's audience. Default: the app's name.", "items-api"),
    key("expires", Type::Duration, "How long an assertion is valid. Default `60s`.", "60s"),
];

const LOGIN: &[Key] = &[
    key("path", Type::Text, "Path of the token endpoint under `base`. Default `/token`.", "/token"),
    key(
        "via",
        Type::Word(LOGIN_WAYS),
        "Who checks the password: `local`, `upstream`, `supabase`, or `oidc` for browser sessions only. Required.",
        "local",
    ),
    key(
        "limit",
        Type::Limits,
        "Limits of the login; the key `account` counts by the user name asked for.",
        "5/min by ip",
    ),
    key(
        "lockout",
        Type::ObjectOr(Context::Lockout, &["none"]),
        "When failures lock an account for a client address.",
        "{ after: 10, within: 15m, for: 15m }",
    ),
    key("issuer", Type::Names, "Which issuer, if several fit.", "local"),
    key(
        "scope_mode",
        Type::Word(&["intersect", "strict"]),
        "What happens to requested scopes that may not be given. Default `intersect`.",
        "strict",
    ),
    key("default_scopes", Type::Texts, "Given when none is requested. Default: all that may be given.", "[items:read]"),
    key("to", Type::Text, "With `via: upstream`: path at the app.", "/api/token"),
    key(
        "account_field",
        Type::Text,
        "With `via: upstream`: the field that names the account. Default `username`.",
        "email",
    ),
    key(
        "failures",
        Type::Any,
        "With `via: upstream`: statuses that count as a failed login. Default `[400, 401, 403, 422]`.",
        "[401]",
    ),
    key(
        "paths",
        Type::Object(Context::LoginPaths),
        "The other own endpoints, under `base`; `none` switches one off.",
        "{ logout: /logout }",
    ),
    key(
        "introspect",
        Type::Requirement,
        "Who may call the introspection endpoint. Default `deny`.",
        "{ role: service }",
    ),
    key("session", Type::ObjectOr(Context::Session, &["none"]), "Browser sessions.", "{ idle: 24h, expires: 14d }"),
    key("providers", Type::Texts, "With `via: supabase`: providers offered.", "[github, google]"),
    key("return_to", Type::Text, "Where a login ends. Default `/`.", "/app"),
];

const LOCKOUT: &[Key] = &[
    key("after", Type::Integer, "How many failures.", "10"),
    key("within", Type::Duration, "In which time.", "15m"),
    key("for", Type::Duration, "For how long; doubles at each repetition, up to a day.", "15m"),
];

const LOGIN_PATHS: &[Key] = &[
    key("login", Type::Text, "Where browser logins begin. Default `/login`.", "/login"),
    key("callback", Type::Text, "Where they come back. Default `/auth/callback`.", "/auth/callback"),
    key("logout", Type::Text, "Ends a session. Default `/logout`.", "/logout"),
    key("revoke", Type::Text, "RFC 7009. Default `/revoke`.", "/revoke"),
    key("introspect", Type::Text, "RFC 7662. Default `/introspect`.", "/introspect"),
];

const SESSION: &[Key] = &[
    key("cookie", Type::Text, "The cookie's name. Default `__Host-session`.", "__Host-session"),
    key("idle", Type::Duration, "How long a session may rest. Default `24h`.", "24h"),
    key("expires", Type::Duration, "How long it may last. Default `14d`.", "14d"),
    key("refresh_margin", Type::Duration, "How long before its end a token is renewed. Default `90s`.", "90s"),
    key("keys", Type::Sources, "Sealing keys; the first seals. Default: kept in the store.", "[env:SESSION_KEY]"),
];

const ISSUER: &[Key] = &[
    key("preset", Type::Word(PRESETS), "What kind of issuer. Required.", "oidc"),
    key("issuer", Type::Text, "The exact `iss` of its tokens; `any` waives the check.", "https://login.example/"),
    key("audience", Type::Texts, "The `aud` that tokens must carry, one of a list; `none` waives the check.", "my-api"),
    key(
        "from",
        Type::Texts,
        "Where tokens are looked for: `bearer`, `cookie NAME`. Default `[bearer]`.",
        "[bearer, cookie sb-access-token]",
    ),
    key(
        "claims",
        Type::Object(Context::Claims),
        "Where facts about the user come from: fact and claim path, or a list of paths.",
        "{ roles: app_metadata.roles }",
    ),
    key(
        "types",
        Type::Map(&Type::Word(&["string", "number", "bool", "list"])),
        "Types of claims, for static checks.",
        "{ org_id: number }",
    ),
    key(
        "hierarchy",
        Type::Word(&["colon", "dot", "none"]),
        "Whether the scope `items` satisfies `items:read`. Default `colon`.",
        "none",
    ),
    key("leeway", Type::Duration, "How far clocks may differ. Default `30s`.", "5s"),
    key("max_token_age", Type::Duration, "The most that `exp` − `iat` may be.", "24h"),
    key("required_typ", Type::Text, "The header `typ` that tokens must carry.", "at+jwt"),
    key(
        "mfa",
        Type::Condition,
        "A condition on `token.*` that says when several factors were used.",
        "token.amr contains \"mfa\"",
    ),
    key("expiry", Type::Word(&["none"]), "`none` waives the check of `exp`.", "none"),
    key("algorithms", Type::Texts, "The signature algorithms accepted.", "[RS256]"),
    key("description", Type::Text, "For people.", "staff"),
];

const FETCHED: &[Key] = &[
    key("refresh", Type::Duration, "How often keys are fetched. At most `10m`.", "10m"),
    key("cool_down", Type::Duration, "Time between fetches for an unknown `kid`. Default `30s`.", "30s"),
    key("max_stale", Type::Duration, "How long keys are used while they cannot be fetched. Default `24h`.", "24h"),
];

const LOCAL: &[Key] = &[
    key(
        "secret",
        Type::Sources,
        "The signing secret; of a list the first signs, all verify. Default `env:SECRET_KEY`.",
        "env:SECRET_KEY",
    ),
    key("signing_key", Type::Source, "A PEM key instead of a secret, or `managed`: keys in the store.", "managed"),
    key("algorithm", Type::Word(ALGORITHMS), "Default: HS256, or what the key is.", "HS256"),
    key("expires", Type::Duration, "How long access tokens are valid. Default `30m`.", "15m"),
    key("refresh_expires", Type::Duration, "How long a login lasts. Default `14d`.", "14d"),
    key("reuse_window", Type::Duration, "How long a used refresh token is still accepted. Default `10s`.", "10s"),
    key(
        "upgrade",
        Type::Word(&["true", "log"]),
        "Whether outdated password hashes are replaced at login. Default `true`.",
        "log",
    ),
];

const SUPABASE: &[Key] = &[
    key("url", Type::Url, "The project's URL. Default `env:SUPABASE_URL`.", "env:SUPABASE_URL"),
    key("jwt_secret", Type::Sources, "The legacy HS256 secret.", "env:SUPABASE_JWT_SECRET"),
    key("key", Type::Source, "The publishable or anon key, for the login.", "env:SUPABASE_KEY"),
    key(
        "db_roles",
        Type::Texts,
        "The values of `role` that are accepted. Default `[authenticated]`.",
        "[authenticated]",
    ),
    key("anonymous_users", Type::Word(ALLOW_OR_DENY), "Whether anonymous users count as `authenticated`.", "deny"),
    key("service_role", Type::Word(ALLOW_OR_DENY), "Whether the service key is accepted.", "deny"),
    key("oauth_clients", Type::Word(ALLOW_OR_DENY), "Whether OAuth clients count as `authenticated`.", "deny"),
    key(
        "on_expired",
        Type::Word(&["unauthenticated", "refresh_and_set_cookie"]),
        "What happens to an expired session.",
        "unauthenticated",
    ),
    key(
        "session_check",
        Type::Object(Context::SessionCheck),
        "Asks Supabase whether the session still exists.",
        "{ cache: 30s }",
    ),
    key(
        "forward_client_ip",
        Type::Object(Context::ForwardClientIp),
        "Tells Supabase the client's address.",
        "{ secret_key: env:SUPABASE_SECRET_KEY }",
    ),
];

const OIDC: &[Key] = &[
    key(
        "jwks_url",
        Type::Url,
        "Where its keys are. Default: as its discovery document says.",
        "https://login.example/jwks",
    ),
    key(
        "introspection",
        Type::Object(Context::Introspection),
        "For opaque tokens.",
        "{ url: https://login.example/introspect, client_id: api, client_secret: env:CLIENT_SECRET }",
    ),
    key("client_id", Type::Text, "The gateway's client at the provider.", "portcullis"),
    key("client_secret", Type::Source, "Its secret.", "env:CLIENT_SECRET"),
    key("login_scopes", Type::Texts, "Scopes asked for at login. Default `[openid, profile, email]`.", "[openid]"),
    key("domain", Type::Text, "The provider's domain (auth0, clerk, okta).", "acme.eu.auth0.com"),
    key("url", Type::Url, "The provider's URL (keycloak).", "https://id.example/realms/acme"),
    key("tenant", Type::Text, "The tenant (entra).", "8b1a9953-c461-4296-a827-abf8c47804d7"),
    key("project", Type::Text, "The project (firebase) or user pool (cognito).", "acme-prod"),
];

const JWT: &[Key] = &[
    key("secret", Type::Sources, "A shared secret; of a list all verify.", "env:SECRET_KEY"),
    key("public_key", Type::Source, "A public key: PEM, or `file:`.", "file:public.pem"),
    key("jwks_file", Type::Source, "A JWKS, or one JWK.", "file:jwks.json"),
    key("jwks_url", Type::Url, "Where its keys are.", "https://login.example/jwks"),
];

const CLAIMS: &[Key] = &[
    key("id", Type::Texts, "`user.id`.", "sub"),
    key("email", Type::Texts, "`user.email`.", "email"),
    key("tenant", Type::Texts, "`user.tenant`.", "app_metadata.tenant_id"),
    key("roles", Type::Texts, "`user.roles`.", "app_metadata.roles"),
    key("scopes", Type::Texts, "`user.scopes`.", "scope"),
    key("permissions", Type::Texts, "`user.permissions`.", "permissions"),
    key("auth_time", Type::Texts, "When the user authenticated.", "auth_time"),
    key("session", Type::Texts, "`user.session`.", "sid"),
    key("name", Type::Texts, "`user.name`.", "name"),
];

const INTROSPECTION: &[Key] = &[
    key("url", Type::Url, "The introspection endpoint.", "https://login.example/introspect"),
    key("client_id", Type::Text, "The gateway's client.", "api"),
    key("client_secret", Type::Source, "Its secret.", "env:CLIENT_SECRET"),
    key("cache", Type::Duration, "How long answers are remembered. Default `30s`.", "30s"),
];

const SESSION_CHECK: &[Key] = &[
    key("paths", Type::Templates, "Where it is asked.", "/account/**"),
    key("cache", Type::Duration, "How long answers are remembered. Default `30s`.", "30s"),
    key("on_error", Type::Word(ALLOW_OR_DENY), "While Supabase cannot be asked. Default `deny`.", "deny"),
];

const FORWARD_CLIENT_IP: &[Key] =
    &[key("secret_key", Type::Source, "The project's secret key.", "env:SUPABASE_SECRET_KEY")];

const HEADERS: &[Key] = &[
    key("preset", Type::Word(HEADER_PRESETS), "A family of names. Default `auth`.", "remote"),
    key(
        "unsafe_values",
        Type::Word(&["refuse", "encode"]),
        "What happens to values with control characters. Default `refuse`.",
        "encode",
    ),
];

const ROLE: &[Key] = &[
    key("includes", Type::Names, "Roles that are included.", "viewer"),
    key("can", Type::Names, "Permissions; `\"*\"` for all, `\"project:*\"` for a prefix.", "[items:edit]"),
    key("grants", Type::Names, "Scopes that a user with this role may be given at login.", "[items]"),
    key("description", Type::Text, "For people.", "Edits items"),
];

const GUARD: &[Key] = &[
    key("paths", Type::Templates, "The paths that it watches. Required.", "/admin/**"),
    key("hosts", Type::Texts, "Only on these hosts.", "api.example.com"),
    key("methods", Type::Texts, "Only for these methods.", "[POST, PUT]"),
    key("apps", Type::Names, "Only for these apps.", "billing"),
    key("require", Type::Requirement, "What must hold. Required.", "{ where: client.ip in office }"),
    key(
        "mode",
        Type::Word(&["enforce", "shadow"]),
        "`shadow` evaluates and logs, but does not refuse. Default `enforce`.",
        "shadow",
    ),
    key("include_public", Type::Bool, "`true`: also on public routes and the login path.", "true"),
    key("description", Type::Text, "For people.", "office network only"),
];

const ACCESS: &[Key] = &[key(
    "access",
    Type::Name,
    "`public`, `optional`, `authenticated`, `deny`, `todo`, or an access name. Default `authenticated`.",
    "public",
)];

const AUTHORIZING: &[Key] = &[
    key("scope", Type::Choice, "The scopes that the token must have.", "items:read"),
    key("role", Type::Choice, "The roles that the user must have.", "admin"),
    key("permission", Type::Choice, "The permissions that the user must have.", "items:delete"),
    key("issuer", Type::Choice, "Who must have signed the token.", "supabase"),
    key("where", Type::Conditions, "Conditions that must hold.", "path.user_id == user.id"),
    key("mfa", Type::True, "Asks for several factors.", "true"),
    key("max_age", Type::Duration, "How long ago the user authenticated, at most.", "10m"),
    key("any", Type::Requirements, "One of these must hold.", "[ { role: admin }, staff ]"),
    key("all", Type::Requirements, "Each of these must hold.", "[ staff, { scope: items } ]"),
    key(
        "not",
        Type::Requirement,
        "This must not hold; only roles, scopes, issuers and conditions with `is`.",
        "{ role: suspended }",
    ),
];

const OTHER: &[Key] = &[
    key("limit", Type::Limits, "Rate limits; `none` drops those of the app.", "5/min by user"),
    key("headers", Type::Headers, "Identity headers of this route; `null` removes one.", "{ X-Plan: token.plan }"),
    key("response_headers", Type::Headers, "Headers of the answer; `null` removes one.", "{ Server: null }"),
    key("upstream", Type::Url, "Another upstream for this route.", "http://localhost:9000"),
    key("rewrite", Type::Template, "The path that is forwarded.", "/api/{id}"),
    key("timeout", Type::Duration, "How long the upstream may take.", "5m"),
    key("max_body", Type::Size, "The largest request body.", "10MiB"),
    key("retry", Type::Bool, "`false` for routes that must never be tried twice.", "false"),
    key("websocket", Type::Bool, "`true` lets upgrades pass.", "true"),
    key("max_ws_age", Type::Duration, "How long a socket may stay open.", "1h"),
    key(
        "on_unauthenticated",
        Type::Text,
        "With browser sessions: `challenge`, `redirect`, or `redirect /PATH`.",
        "redirect",
    ),
    key(
        "openapi",
        Type::Word(&["rewrite"]),
        "Serves the upstream's OpenAPI document with our security schemes.",
        "rewrite",
    ),
    key("name", Type::Text, "For logs, matrix and console.", "list items"),
    key("description", Type::Text, "For people.", "Lists items"),
    key("tags", Type::Texts, "For logs, matrix and console.", "[items]"),
];

const CHOICE: &[Key] = &[
    key("any", Type::Names, "One of these.", "[admin, editor]"),
    key("all", Type::Names, "Each of these.", "[items, me]"),
];

const FIXTURE: &[Key] = &[
    key("issuer", Type::Name, "Who signed its token. Default: the only issuer.", "supabase"),
    key("id", Type::Text, "`user.id`.", "u1"),
    key("email", Type::Text, "`user.email`.", "ann@example.com"),
    key("name", Type::Text, "`user.name`.", "Ann"),
    key("tenant", Type::Text, "`user.tenant`.", "acme"),
    key("roles", Type::Names, "Its roles.", "[editor]"),
    key("scopes", Type::Names, "Its scopes.", "[items:read]"),
    key("permissions", Type::Names, "Its permissions.", "[items:delete]"),
    key("mfa", Type::Bool, "Whether several factors were used.", "true"),
    key("auth_age", Type::Duration, "How long ago it authenticated.", "5m"),
    key("kind", Type::Word(KINDS), "`user` (default), `anonymous`, `service`, `client`.", "service"),
    key("ip", Type::Text, "The client address of its requests.", "10.8.3.4"),
    key("claims", Type::Any, "Raw token claims.", "{ plan: pro }"),
];

const TEST: &[Key] = &[
    key("request", Type::Object(Context::TestRequest), "The request.", "{ method: POST, url: /hooks }"),
    key("expect", Type::Map(&Type::Any), "What is expected for each identity.", "{ anonymous: 401 }"),
];

const TEST_REQUEST: &[Key] = &[
    key("method", Type::Text, "The method. Default `GET`.", "POST"),
    key("url", Type::Text, "Path and query, or a whole URL. Required.", "/items?limit=5"),
    key("headers", Type::Map(&Type::Text), "Request headers.", "{ x-plan: pro }"),
    key("ip", Type::Text, "The client address. Default `203.0.113.1`.", "10.8.3.4"),
    key("time", Type::Text, "When. Default `2030-01-01T12:00:00Z`.", "2030-01-01T03:00:00Z"),
];

const EXPECTATION: &[Key] = &[
    key("status", Type::Integer, "The status of the refusal.", "403"),
    key("allow", Type::True, "The request is forwarded.", "true"),
    key("code", Type::Text, "The code of the refusal.", "insufficient_scope"),
    key(
        "because",
        Type::Text,
        "What decided: a code, `guard NAME`, `scope NAME`, `role NAME` and the like.",
        "guard tenant-isolation",
    ),
    key("route", Type::Text, "The route that was chosen.", "GET /items"),
    key(
        "headers",
        Type::Map(&Type::Text),
        "Identity headers sent upstream; `null` means absent.",
        "{ X-Auth-User: u1 }",
    ),
];

#[cfg(test)]
mod tests {
    use super::{Context, Preset};

    #[test]
    fn names_are_unique_in_their_context_and_every_key_is_documented() {
        let mut contexts = vec![
            Context::Document,
            Context::TestDocument,
            Context::UpstreamTls,
            Context::Cors,
            Context::Defaults,
            Context::Assertion,
            Context::Login,
            Context::Lockout,
            Context::LoginPaths,
            Context::Session,
            Context::Claims,
            Context::Introspection,
            Context::SessionCheck,
            Context::ForwardClientIp,
            Context::Headers,
            Context::Role,
            Context::Guard,
            Context::Access,
            Context::Requirement,
            Context::Route,
            Context::Choice,
            Context::Fixture,
            Context::Test,
            Context::TestRequest,
            Context::Expectation,
        ];
        contexts.extend(Preset::ALL.iter().map(|(preset, _)| Context::Issuer(*preset)));
        for context in contexts {
            let mut names = std::collections::HashSet::new();
            for key in context.keys() {
                assert!(names.insert(key.name), "{context:?}: {} twice", key.name);
                assert!(key.doc.ends_with('.') && !key.example.is_empty(), "{context:?}: {}", key.name);
                let mut diagnostics = Vec::new();
                let text = format!("{}: {}", key.name, key.example);
                let nodes = crate::policy::yaml::parse(crate::diagnostic::FileId(0), &text, &mut diagnostics);
                assert!(diagnostics.is_empty() && nodes.len() == 1, "{context:?}: {text}: {diagnostics:?}");
            }
        }
    }
}
