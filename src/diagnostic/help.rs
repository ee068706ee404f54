//! What each code means, for `portcullis help CODE` and `docs/diagnostics.md`.
//!
//! A table, checked by `tests/help.rs`: every mistake shown earns its code, and no fix does.

use std::fmt::Write as _;

use super::{Code, Severity};

/// The explanation of a code.
#[derive(Clone, Copy, Debug)]
pub struct Help {
    /// What it finds.
    pub finds: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// An example of the mistake.
    pub mistake: &'static str,
    /// The same without the mistake.
    pub fix: &'static str,
}

/// Where the explanation stands in the documentation.
pub fn uri(code: Code) -> String {
    let anchor = code.as_str().to_ascii_lowercase();
    format!("{}/blob/main/docs/diagnostics.md#{anchor}", env!("CARGO_PKG_REPOSITORY"))
}

/// The explanation for a terminal.
pub fn explain(code: Code) -> String {
    let help = of(code);
    let mut text = format!("{code} ({}): {}\n\n{}\n{}\n", kind(code), code.title(), help.finds, help.why);
    let _ = write!(text, "\nThe mistake:\n\n{}\nInstead:\n\n{}", indented(help.mistake), indented(help.fix));
    if code.can_be_suppressed() {
        let _ = write!(text, "\nIf it is meant so, say why where it stands: `allow: {{ {code}: the reason }}`\n");
    }
    text
}

/// All explanations as a page of the documentation.
pub fn page() -> String {
    let mut page = String::from(
        "# Diagnostics\n\nWhat `portcullis check` finds. A set with an error does not load; a warning can be suppressed with a \
         reason\n(`allow: { CODE: reason }` on what it is about). `portcullis help CODE` shows the same text.\n\n\
         This page is written by `UPDATE=1 cargo test --test help`.\n",
    );
    for code in Code::ALL {
        let help = of(*code);
        let _ = write!(page, "\n## {code}\n\n**{}** · {}\n\n{} {}\n", kind(*code), code.title(), help.finds, help.why);
        let _ = write!(page, "\n{}\nInstead:\n\n{}", fenced(help.mistake), fenced(help.fix));
    }
    page
}

fn kind(code: Code) -> &'static str {
    match (code.severity(), code) {
        (Severity::Error, _) => "error",
        (Severity::Warning, Code::P508) => "warning, error with --strict",
        (Severity::Warning, Code::P312) => "warning, error in apps with opt-ins",
        (Severity::Warning, _) => "warning",
    }
}

fn indented(example: &str) -> String {
    example.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect()
}

fn fenced(example: &str) -> String {
    format!("```yaml\n{}\n```\n", example.trim_end())
}

/// The explanation of a code. The match is exhaustive: a new code does not compile without one.
pub fn of(code: Code) -> Help {
    let (finds, why, mistake, fix) = match code {
        Code::P001 => (
            "Finds text that is not YAML. Only the first such place in a file is reported.",
            "What stands behind it cannot be read, so the file is left out. Often a text needs quotes: one that begins with `*`, `&`, `{`, `[` or `@`, or that holds `: ` or ` #`, or a `{` inside of `{ … }`.",
            "routes: { GET /items/{id}: public }",
            "routes:\n  GET /items/{id}: public",
        ),
        Code::P002 => (
            "Finds a key that stands twice in one map, with both places.",
            "Most YAML readers silently keep the last one. In a policy that could be the weaker one.",
            "routes:\n  GET /items: { scope: items:read }\n  GET /items: public",
            "routes:\n  GET /items: { scope: items:read }",
        ),
        Code::P003 => (
            "Finds a document in a language edition that this binary does not know.",
            "A newer edition may say things that this binary would miss. Update Portcullis, or write edition 1.",
            "version: 2\nscopes: { items: Everything on items }",
            "version: 1\nscopes: { items: Everything on items }",
        ),
        Code::P004 => (
            "Finds a key that the language does not have at this place, and suggests the one that was probably meant.",
            "A misspelt key that is ignored is a rule that is not there.",
            "routes:\n  GET /items: { scopes: items:read }",
            "routes:\n  GET /items: { scope: items:read }",
        ),
        Code::P005 => (
            "Finds merge keys (`<<`).",
            "They override security settings silently, and YAML 1.2 dropped them. Give what is shared a name.",
            "access:\n  staff: &staff { role: staff }\n  admins: { <<: *staff, mfa: true }",
            "access:\n  staff: { role: staff }\n  admins: { all: [ staff, { mfa: true } ] }",
        ),
        Code::P006 => (
            "Finds a file over 4 MiB, a set over 32 MiB or 1,000 files, nesting over 32 levels, or more than 1,000 alias expansions.",
            "A few lines of aliases can stand for gigabytes. Nobody writes such policies by hand.",
            "sets:\n  deep: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
            "sets:\n  flat: [1]",
        ),
        Code::P007 => (
            "Finds policy keys in a `*.test.yaml`, which may hold only `version`, `identities` and `tests`.",
            "Reviewers look at test files with less care; a route hidden in one would not be seen.",
            "# items.test.yaml\nversion: 1\nroutes:\n  GET /: public",
            "# items.test.yaml\nversion: 1\nidentities:\n  ann: { id: u1 }",
        ),
        Code::P008 => (
            "Finds a file that is not UTF-8, or that cannot be read.",
            "Text in another encoding would be misread, and a file that is left out is a rule that is not there.",
            "# items.yaml, saved as Latin-1 or UTF-16",
            "# items.yaml, saved as UTF-8",
        ),
        Code::P009 => (
            "Finds a document without `version`.",
            "The edition says how the document is to be read, today and in ten years.",
            "routes:\n  GET /: public",
            "version: 1\nroutes:\n  GET /: public",
        ),
        Code::P010 => (
            "Finds a value of another kind than the key takes: a list where a map belongs, a text where `true` or `false` belongs, and the like.",
            "Guessing what was meant would be guessing about access. `yes`, `on` and `True` are texts in YAML 1.2.",
            "strip_base: yes",
            "strip_base: true",
        ),
        Code::P011 => (
            "Finds a key that is not a text (a number, a Boolean, a list), and tags other than those of YAML itself.",
            "Tools disagree about such keys; and a tag like `!env` looks as if it did something.",
            "roles:\n  404: { can: \"*\" }",
            "roles:\n  \"404\": { can: \"*\" }",
        ),
        Code::P012 => (
            "Finds an empty document, an empty file, or a folder without policy files.",
            "An empty set refuses everything. That is safe, but hardly what somebody wanted to deploy.",
            "# nothing but a comment",
            "version: 1\nroutes:\n  GET /: public",
        ),
        Code::P013 => (
            "Finds a symbolic link whose target lies outside of the policies folder.",
            "Whoever may write there could change the policy without touching the folder that is reviewed.",
            "# policies/shared.yaml -> /home/ann/shared.yaml",
            "# policies/shared.yaml, a file",
        ),
        Code::P101 => (
            "Finds a name that is defined twice in the set, with both places, and settings of the whole set that are set twice.",
            "If a second definition replaced the first, the meaning of a name would depend on the order of files.",
            "version: 1\nroles: { admin: { can: \"*\" } }\n---\nversion: 1\nroles: { admin: [items:read] }",
            "version: 1\nroles: { admin: { can: \"*\" } }\n---\nversion: 1\nroles: { reader: [items:read] }",
        ),
        Code::P102 => (
            "Finds the name of a role, scope, permission, access, condition, set, limit, issuer, identity or app that the set does not define.",
            "A misspelt scope is a requirement that nobody meets or, inside `any` or `not`, one that means something else.",
            "scopes: { items:write: Change items }\nroutes:\n  POST /items: { scope: items:wirte }",
            "scopes: { items:write: Change items }\nroutes:\n  POST /items: { scope: items:write }",
        ),
        Code::P103 => (
            "Finds roles that include themselves through others.",
            "A cycle makes all of its roles the same role, which is hardly ever meant.",
            "roles:\n  editor: { includes: admin }\n  admin: { includes: editor, can: \"*\" }",
            "roles:\n  editor: [items:edit]\n  admin: { includes: editor, can: \"*\" }",
        ),
        Code::P104 => (
            "Finds requirements or conditions that refer to themselves through others.",
            "There is nothing that such a requirement finally asks for.",
            "access:\n  a: { any: [ b ] }\n  b: { any: [ a ] }",
            "access:\n  a: { any: [ b ] }\n  b: { scope: items }",
        ),
        Code::P105 => (
            "Finds a limit that does not follow `N/(s|min|hour|day) [by KEY] [burst N]`.",
            "A limit that is misread limits nothing, or everybody.",
            "limits: { slow: 5 per minute }",
            "limits: { slow: 5/min by user burst 10 }",
        ),
        Code::P106 => (
            "Finds a condition that is not one comparison: an unknown root or operator, a string without quotes, `and` and `or`.",
            "Strings are always quoted, so that a misspelt reference cannot turn into one.",
            "conditions: { ours: user.tenant == acme }",
            "conditions: { ours: user.tenant == \"acme\" }",
        ),
        Code::P107 => (
            "Finds definitions under a name that the language keeps for itself: `public`, `optional`, `authenticated`, `deny`, `todo`, `anonymous`, `invalid`, `none`, `portcullis:…`, and names that read like references.",
            "`public` has to mean the same in every policy.",
            "access: { public: { scope: items:read } }",
            "access: { readers: { scope: items:read } }",
        ),
        Code::P108 => (
            "Finds `*` where one name is required.",
            "`permission: project:*` could mean any of them or all of them. Only what a role `can` do may be wide.",
            "roles: { owner: [\"project:*\"] }\nroutes:\n  DELETE /projects: { permission: \"project:*\" }",
            "roles: { owner: [\"project:*\", project:delete] }\nroutes:\n  DELETE /projects: { permission: project:delete }",
        ),
        Code::P109 => (
            "Finds a value that its key does not take: a bad duration, size, address, URL, status, header name or time zone.",
            "A timeout of `5` could be seconds or milliseconds.",
            "defaults: { timeout: 5 }",
            "defaults: { timeout: 5s }",
        ),
        Code::P201 => (
            "Finds a template that is listed twice for one method, also across files and with other names of parameters. `GET` includes `HEAD`.",
            "Both would decide, and only the order of files could say which.",
            "routes:\n  GET /users/{id}: { scope: users:read }\n  GET /users/{name}: authenticated",
            "routes:\n  GET /users/{id}: { scope: users:read }",
        ),
        Code::P202 => (
            "Finds a path template or route key that cannot be read, and templates that no request can match.",
            "A segment is entirely a literal or entirely a parameter; there are no patterns inside. `..`, `//`, queries and backslashes never are part of a canonical path.",
            "routes:\n  GET /items/:id: authenticated",
            "routes:\n  GET /items/{id}: authenticated",
        ),
        Code::P203 => (
            "Finds a parameter name that stands twice in one template.",
            "`path.id` could be either.",
            "routes:\n  GET /users/{id}/friends/{id}: authenticated",
            "routes:\n  GET /users/{id}/friends/{friend}: authenticated",
        ),
        Code::P204 => (
            "Finds typed parameters that overlap and stand at one position after the same beginning: `slug` overlaps `int`, `uuid` and `date`.",
            "`/items/7` matches both, and nothing says which is more specific.",
            "routes:\n  GET /items/{id:int}: { scope: items:read }\n  GET /items/{name:slug}: authenticated",
            "routes:\n  GET /items/{id:int}: { scope: items:read }\n  GET /items/{name}: authenticated",
        ),
        Code::P205 => (
            "Finds routes that never decide, because more specific ones take all their paths.",
            "Whoever reads the route believes that it protects or opens something.",
            "routes:\n  /files: authenticated\n  /files/{path}/**: { scope: files }\n  /files/**: deny",
            "routes:\n  /files: authenticated\n  /files/{path}/**: { scope: files }",
        ),
        Code::P206 => (
            "Finds a template that could be deleted without changing any answer.",
            "It is noise, or it was meant to differ.",
            "routes:\n  GET /reports/**: { scope: reports:read }\n  GET /reports/annual: { scope: reports:read }",
            "routes:\n  GET /reports/**: { scope: reports:read }",
        ),
        Code::P207 => (
            "Finds an app whose header is set by two documents, an app without `upstream`, and bad hosts.",
            "Two headers would need an order between files; without an upstream there is nowhere to forward to.",
            "upstream: http://localhost:8000\nhost: https://api.example.com",
            "upstream: http://localhost:8000\nhost: api.example.com",
        ),
        Code::P301 => (
            "Finds a list where it is not said whether one of its members is enough or all are needed.",
            "Products disagree: a list of scopes means \"any\" to AWS and \"all\" to OpenAPI. Guessing wrong opens a route.",
            "roles: { admin: { can: \"*\" }, editor: { includes: admin } }\nroutes:\n  DELETE /users: { role: [admin, editor] }",
            "roles: { admin: { can: \"*\" }, editor: { includes: admin } }\nroutes:\n  DELETE /users: { role: { any: [admin, editor] } }",
        ),
        Code::P302 => (
            "Finds two templates that share some paths, neither containing the other, and that ask for different things. It names a path of both and the route that decides there.",
            "The rule is fixed (from the left, the more specific segment wins), but whoever wrote the second route probably did not think of the first.",
            "roles: { admin: { can: \"*\" } }\nroutes:\n  GET /users/me/{section}: authenticated\n  GET /users/{id}/settings: { role: admin }",
            "roles: { admin: { can: \"*\" } }\nroutes:\n  GET /users/me/{section}: authenticated\n  GET /users/me/settings: authenticated\n  GET /users/{id}/settings: { role: admin }",
        ),
        Code::P303 => (
            "Finds an access word below the top of a requirement or in a guard, and facts about the user where no credential is looked at.",
            "`any: [ public, … ]` would open the whole route; `public` with a role could never hold.",
            "roles: { admin: { can: \"*\" } }\nroutes:\n  GET /feed: { any: [ public, { role: admin } ] }",
            "routes:\n  GET /feed: optional",
        ),
        Code::P304 => (
            "Finds conditions that can never be true: types that cannot be equal, values that a reference never has, pairs that exclude each other.",
            "The route would refuse everybody, or an alternative would be dead.",
            "routes:\n  POST /orders: { where: [ request.time >= 18:00, request.time < 06:00 ] }",
            "routes:\n  POST /orders: { any: [ { where: request.time >= 18:00 }, { where: request.time < 06:00 } ] }",
        ),
        Code::P305 => (
            "Finds a template that refuses methods (405) which the next broader route would serve.",
            "A path owns its methods and never falls through to a broader route, so that `/**: public` cannot open `DELETE /admin/users`. Name the methods if they are needed.",
            "routes:\n  /files/**: { scope: files }\n  GET /files/shared/{name**}: { scope: files:read }",
            "routes:\n  /files/**: { scope: files }\n  GET /files/shared/{name**}: { scope: files:read }\n  POST|PUT|PATCH|DELETE|OPTIONS /files/shared/{name**}: { scope: files }",
        ),
        Code::P306 => (
            "Finds `path.X` where the route, or one of the guard's paths, has no parameter `X`; through names too, with both places.",
            "The condition would be unknown for every request, and unknown refuses.",
            "routes:\n  GET /items: { where: path.user_id == user.id }",
            "routes:\n  GET /users/{user_id}/items: { where: path.user_id == user.id }",
        ),
        Code::P307 => (
            "Finds guards that no route can meet.",
            "The guard was written to protect something. Its path is misspelt, or what it protected has moved.",
            "guards:\n  people: { paths: /amdin/**, require: { where: user.kind == \"user\" } }\nroutes:\n  /admin/**: authenticated",
            "guards:\n  people: { paths: /admin/**, require: { where: user.kind == \"user\" } }\nroutes:\n  /admin/**: authenticated",
        ),
        Code::P308 => (
            "Finds a requirement that asks for nothing: `{}`, nothing at all, `any: []`, `all: []`.",
            "Nothing could mean everybody or nobody. Everybody is written `public`.",
            "routes:\n  GET /items: {}",
            "routes:\n  GET /items: public",
        ),
        Code::P309 => (
            "Finds routes with more than 64 different leaves, those of the guards over them included.",
            "A decision is recorded in two masks of 64 bits, which makes every decision explicable at no cost. And nobody can review a rule with 65 parts.",
            "# a route whose `any` lists 70 conditions `user.id == \"…\"`",
            "sets: { testers: [u1, u2] }\nroutes:\n  GET /beta: { where: user.id in testers }",
        ),
        Code::P310 => (
            "Finds `not` over anything but roles, scopes, issuers and conditions with `is` or `is not`.",
            "Everything else can be unknown, and the negation of unknown is unknown: people would be refused for reasons that the policy does not show.",
            "routes:\n  GET /items: { not: { where: token.suspended == true } }",
            "routes:\n  GET /items: { where: token.suspended is not true }",
        ),
        Code::P311 => (
            "Finds a route that grants what the tree around it refuses.",
            "\"Everything below `/admin` needs the role admin\" is what people read and rely on; the exception may stand in another file.",
            "roles: { admin: { can: \"*\" } }\nroutes:\n  /admin/**: { role: admin }\n  /admin/metrics/**: authenticated",
            "roles: { admin: { can: \"*\" } }\nroutes:\n  /admin/**: { role: admin }\n  /admin/metrics/**: { access: authenticated, allow: { P311: every user may see the load } }",
        ),
        Code::P312 => (
            "Finds a catch-all that is weaker than a sibling, while the upstream may read another spelling as the sibling's path: `/ADMIN`, `/admin.json`, `007`.",
            "An upstream that reads `/ADMIN` as `/admin` executes what the sibling protects, for whomever the catch-all lets in.",
            "roles: { admin: { can: \"*\" } }\nroutes:\n  /**: authenticated\n  /admin/**: { role: admin }",
            "case: sensitive\nroles: { admin: { can: \"*\" } }\nroutes:\n  /**: { role: admin }\n  /admin/**: { role: admin, mfa: true, allow: { P312: the framework has no suffixes } }",
        ),
        Code::P401 => (
            "Finds issuers that take roles, permissions, scopes or the tenant from `user_metadata`.",
            "Supabase lets users edit their own `user_metadata`: everybody could become an administrator. Supabase's own lint 0015 says so.",
            "identity:\n  supabase: { preset: supabase, url: env:SUPABASE_URL, claims: { roles: user_metadata.roles } }",
            "identity:\n  supabase: { preset: supabase, url: env:SUPABASE_URL, claims: { roles: app_metadata.roles } }",
        ),
        Code::P402 => (
            "Finds algorithms that do not fit the key, `none`, and secrets that are too short or well known.",
            "HS256 with a public key lets everybody who has that key sign tokens; a short secret can be guessed offline from one token.",
            "identity:\n  partners: { preset: oidc, issuer: https://login.example/, audience: api, algorithms: [none] }",
            "identity:\n  partners: { preset: oidc, issuer: https://login.example/, audience: api, algorithms: [RS256] }",
        ),
        Code::P403 => (
            "Finds a secret that is written out in a policy. It is not shown.",
            "Policies are read by many and kept for long. Use `env:NAME` or `file:PATH`, and change this secret.",
            "identity:\n  local: { preset: local, secret: 0123456789abcdef0123456789abcdef }",
            "identity:\n  local: { preset: local, secret: env:SECRET_KEY }",
        ),
        Code::P404 => (
            "Finds routes that ask for nothing but a login while a Supabase issuer admits anonymous users.",
            "Anybody can create such a user with one call; with `anonymous_users: allow`, `authenticated` means everybody.",
            "identity:\n  supabase: { preset: supabase, url: env:SUPABASE_URL, anonymous_users: allow }\nroutes:\n  POST /reviews: authenticated",
            "identity:\n  supabase: { preset: supabase, url: env:SUPABASE_URL, anonymous_users: allow }\nroutes:\n  POST /reviews: { where: user.kind == \"user\" }",
        ),
        Code::P405 => (
            "Finds conditions that read a request header or query parameter, unless it is compared with a secret (`env.X`).",
            "Clients send what they like.",
            "routes:\n  GET /metrics: { access: public, where: header.x-internal == \"true\" }",
            "routes:\n  GET /metrics: { access: public, where: header.x-token == env.METRICS_TOKEN }",
        ),
        Code::P406 => (
            "Finds `env:` and `file:` references that cannot be resolved. Reported by `serve`, at reload, by `doctor` and `check --resolve`.",
            "A secret that is not there cannot verify anything.",
            "# SECRET_KEY is not set\nidentity:\n  local: { preset: local, secret: env:SECRET_KEY }",
            "# export SECRET_KEY=…, or: secret: file:/run/secrets/key",
        ),
        Code::P407 => (
            "Finds secret files that other users of the machine can read.",
            "Whoever can read a signing secret can sign tokens.",
            "# -rw-r--r-- secrets/key",
            "# chmod 600 secrets/key",
        ),
        Code::P408 => (
            "Finds checks that the policy waives: `audience: none`, `issuer: any`, `expiry: none`, `insecure: true`.",
            "Without `aud`, a token made for another API is accepted; without `exp`, a stolen one is good for ever. If the issuer cannot do better, say why.",
            "identity:\n  app: { preset: jwt, secret: env:SECRET_KEY, issuer: https://app.example/, audience: none }",
            "identity:\n  app: { preset: jwt, secret: env:SECRET_KEY, issuer: https://app.example/, audience: api }",
        ),
        Code::P410 => (
            "Finds comparisons of `token.*` that refuse whoever's token lacks the claim.",
            "A missing claim makes a comparison unknown, and unknown refuses. With `is` and `is not`, missing is a value.",
            "guards:\n  not-suspended: { paths: /**, require: { where: token.suspended != true } }\nroutes:\n  GET /items: authenticated",
            "guards:\n  not-suspended: { paths: /**, require: { where: token.suspended is not true } }\nroutes:\n  GET /items: authenticated",
        ),
        Code::P411 => (
            "Finds a set whose routes need an identity while nobody may sign tokens: no `identity`, and neither `SECRET_KEY` nor `SUPABASE_URL` is set.",
            "Every such route would answer 401 to everybody.",
            "routes:\n  GET /items: authenticated",
            "identity:\n  local: { preset: local, secret: env:SECRET_KEY }\nroutes:\n  GET /items: authenticated",
        ),
        Code::P412 => (
            "Finds issuers that lack a key they need, that state keys which exclude each other, or that cannot be told apart, be it by `iss`, or because both are asked about opaque tokens.",
            "Two issuers that claim the same tokens would let one's keys sign for the other.",
            "identity:\n  partners: { preset: oidc, issuer: https://login.example/ }",
            "identity:\n  partners: { preset: oidc, issuer: https://login.example/, audience: api }",
        ),
        Code::P501 => (
            "Finds roles, scopes and permissions that nothing uses.",
            "Usually the name is misspelt where it should have been used.",
            "scopes: { items:read: Read items, items:write: Change items }\nroutes:\n  GET /items: { scope: items:read }",
            "scopes: { items:read: Read items }\nroutes:\n  GET /items: { scope: items:read }",
        ),
        Code::P502 => (
            "Finds named requirements and conditions that nothing uses.",
            "A condition that no route names protects nothing.",
            "conditions: { own: path.id == user.id }\nroutes:\n  GET /users/{id}: authenticated",
            "conditions: { own: path.id == user.id }\nroutes:\n  GET /users/{id}: { where: own }",
        ),
        Code::P503 => (
            "Finds sets and limits that nothing uses.",
            "A limit that no route names limits nothing.",
            "limits: { slow: 5/min }\nroutes:\n  GET /items: authenticated",
            "limits: { slow: 5/min }\nroutes:\n  GET /items: { limit: slow }",
        ),
        Code::P504 => (
            "Finds test identities that no test uses.",
            "The case it was made for is not tested.",
            "identities: { eve: { id: u1 } }",
            "identities: { eve: { id: u1 } }\nroutes:\n  GET /items: authenticated\ntests:\n  items:\n    GET /items: { eve: allow }",
        ),
        Code::P505 => (
            "Finds `role: X` where a role with `can: \"*\"` does not include `X`.",
            "\"The administrator can do everything\" is about permissions. A role check asks for the role itself.",
            "roles:\n  editor: [items:edit]\n  admin: { can: \"*\" }\nroutes:\n  PUT /items: { role: editor }",
            "roles:\n  editor: [items:edit]\n  admin: { includes: editor, can: \"*\" }\nroutes:\n  PUT /items: { role: editor }",
        ),
        Code::P506 => (
            "Finds a permission that a route asks for, but that no role grants and no issuer maps.",
            "Nobody can have it, so nobody can pass.",
            "permissions: { items:purge: Remove items for good }\nroutes:\n  DELETE /items: { permission: items:purge }",
            "permissions: { items:purge: Remove items for good }\nroles: { admin: [items:purge] }\nroutes:\n  DELETE /items: { permission: items:purge }",
        ),
        Code::P507 => (
            "Finds public routes with methods that change something, without a limit and without a condition.",
            "Anybody can call them as often as they like.",
            "routes:\n  POST /contact: public",
            "routes:\n  POST /contact: { access: public, limit: 5/min by ip }",
        ),
        Code::P508 => (
            "Finds `todo`.",
            "It refuses everybody. Importers write it where nobody ever stated who may call a route.",
            "routes:\n  GET /reports: todo",
            "routes:\n  GET /reports: deny",
        ),
        Code::P509 => (
            "Without a `scopes` catalogue, finds scopes that differ in one letter of one part.",
            "Without a catalogue every name is accepted, also the misspelt one that no token will ever carry.",
            "routes:\n  GET /items: { scope: items:read }\n  POST /items: { scope: item:read }",
            "routes:\n  GET /items: { scope: items:read }\n  POST /items: { scope: items:write }",
        ),
        Code::P510 => (
            "Finds suppressions that suppress nothing.",
            "A suppression that no longer matches anything hides the next finding of its kind.",
            "routes:\n  GET /items: { scope: items:read, allow: { P311: not needed any more } }",
            "routes:\n  GET /items: { scope: items:read }",
        ),
        Code::P511 => (
            "Finds suppressions with an unknown code, without a reason, or of a code that cannot be suppressed.",
            "A suppression is a decision with a reason. Errors cannot be decided away.",
            "routes:\n  GET /reports: { access: todo, allow: { P508: } }",
            "routes:\n  GET /reports: { access: todo, allow: { P508: waiting for the owner } }",
        ),
        Code::P601 => (
            "Finds tests of the policy that fail.",
            "The policy does not do what its authors say it does. A failing test keeps a new set from loading.",
            "routes:\n  GET /items: public\ntests:\n  items:\n    GET /items: { anonymous: 401 }",
            "routes:\n  GET /items: authenticated\ntests:\n  items:\n    GET /items: { anonymous: 401 }",
        ),
        Code::P602 => (
            "With `--coverage`, finds routes without a test that is let in, or without one that is refused.",
            "A route that is only tested one way may be open or shut for everybody.",
            "routes:\n  GET /items: authenticated",
            "identities: { ann: { id: u1 } }\nroutes:\n  GET /items: authenticated\ntests:\n  items:\n    GET /items: { anonymous: 401, ann: allow }",
        ),
        Code::P603 => (
            "Finds tests that cannot be read, or that expect something which the set does not have.",
            "A test that does not say what it means proves nothing.",
            "tests:\n  items:\n    GET /items: { anonymous: refused }",
            "tests:\n  items:\n    GET /items: { anonymous: 404 }",
        ),
        Code::P701 => (
            "Finds a login whose own paths are taken by a route or another app, a login without a fitting issuer or without what that needs (the `key` of a Supabase project, the `client_id` at a provider), and `redirect` where there is no sign-in page.",
            "Two owners of one path would need an order; and tokens that no issuer recognises log nobody in.",
            "login: local\nidentity:\n  local: { preset: local, secret: env:SECRET_KEY }\nroutes:\n  POST /token: { access: public, limit: 5/min }",
            "login: local\nidentity:\n  local: { preset: local, secret: env:SECRET_KEY }\nroutes:\n  GET /items: authenticated",
        ),
        Code::P702 => (
            "Finds origins that no browser sends, and `*` together with credentials.",
            "With `*` and credentials every web page could act with the cookies of whoever visits it.",
            "cors: { origins: [https://app.example/] }",
            "cors: { origins: [https://app.example] }",
        ),
        Code::P703 => (
            "Finds headers that frame or route a message or carry the credential.",
            "`Transfer-Encoding` from a policy would break the framing between gateway and upstream.",
            "headers: { Host: '\"internal\"' }",
            "headers: { X-Site: '\"internal\"' }",
        ),
        Code::P704 => (
            "Finds two headers that many servers read as the same: they differ only in case or in `-`, `_`, `.`.",
            "WSGI servers fold `X_Plan` and `X-Plan` into one variable; one value would silently win.",
            "headers: { X-Plan: token.plan, X_Plan: token.app_metadata.plan }",
            "headers: { X-Plan: token.plan, X-App-Plan: token.app_metadata.plan }",
        ),
    };
    Help { finds, why, mistake, fix }
}
