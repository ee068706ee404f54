//! The files that `init` writes.

use std::fmt::Write as _;
use std::path::Path;

use super::{ADMIN_LISTEN, Answers, Issuer, LISTEN, Login};

/// `policies/app.yaml`.
pub(super) fn policy(answers: &Answers) -> String {
    let Answers { app, upstream, .. } = answers;
    let mut text = format!(
        "# Who may call your app. What is not listed here is refused; the most specific route decides, whatever the order.\n\
         # Change a line and save: a running gateway takes the new set if it has no mistake and passes its own tests.\n\
         #\n\
         #   portcullis check                          every mistake of all files, and the tests in app.test.yaml\n\
         #   portcullis explain GET /orders --as ada   why this request is allowed or refused\n\
         #   portcullis help P102                      what a finding means\n\
         version: 1\n\
         app: {app}\n\
         upstream: {upstream}{:pad$}# your app: host and port, no path\n\
         case: insensitive{:23}# /ADMIN is decided like /admin, however your app reads it\n",
        "",
        "",
        pad = 30_usize.saturating_sub(upstream.len()).max(2),
    );
    text.push_str(login(answers.login));
    text.push_str(&identity(answers));
    text.push_str(
        "\nroles:\n  admin: { can: \"*\" }\n\
         \n\
         # A route is `METHOD /path: who`. Paths are whole: `{id}` is one segment, `**` any number of them.\n\
         # Who: public, authenticated, { scope: items:write }, { role: admin }, { permission: items:delete },\n\
         #      { where: path.user_id == user.id }, { any: [ …, … ] }, { all: [ …, … ] }\n\
         routes:\n\
         \x20 GET /health: public\n\
         \x20 GET /docs: public\n\
         \x20 GET /openapi.json: { access: public, openapi: rewrite }   # your API's document, with locks and scopes added\n\
         \x20 /admin/**: { role: admin }\n\
         \x20 /**: authenticated\n",
    );
    text
}

fn login(login: Login) -> &'static str {
    match login {
        Login::Local => {
            "\n\
             # POST /token with a name and a password gives a token for 30 minutes, and a refresh token for 14 days.\n\
             # `portcullis user add NAME` adds somebody. After 10 failures from one address it is closed to the two for\n\
             # 15 minutes. POST /logout ends a session, POST /revoke a token.\n\
             login: local\n"
        }
        Login::Upstream => {
            "\n\
             # POST /token goes to your app, which checks the password. Portcullis counts what fails and slows it down.\n\
             login: upstream\n"
        }
        Login::Supabase => {
            "\n\
             # POST /token with a name and a password asks Supabase, for scripts and Swagger UI; browsers sign in at /login.\n\
             # Clients of Supabase may go on logging in there themselves.\n\
             login: supabase\n"
        }
        Login::None => "",
    }
}

fn identity(answers: &Answers) -> String {
    let mut text = String::from("\n");
    let url = answers.issuer_url.as_deref();
    let audience = answers.audience.as_deref();
    match answers.issuer {
        Issuer::Local => text.push_str(
            "# Tokens are signed and verified with SECRET_KEY (HS256), from the environment or from `.env`.\n\
             identity:\n  local: { preset: local, secret: env:SECRET_KEY }\n",
        ),
        Issuer::Secret => {
            text.push_str(
                "# Your app signs tokens with the same SECRET_KEY (HS256).\nidentity:\n  app:\n    preset: jwt\n",
            );
            text.push_str("    secret: env:SECRET_KEY\n");
            match url {
                Some(url) => {
                    let _ = writeln!(text, "    issuer: {url}");
                }
                None => text.push_str("    issuer: any\n"),
            }
            match audience {
                Some(audience) => {
                    let _ = writeln!(text, "    audience: {audience}");
                }
                None => text.push_str("    audience: none\n"),
            }
            if url.is_none() || audience.is_none() {
                text.push_str(
                    "    # As in FastAPI's tutorial. If your app can set `iss` and `aud`, name both here instead.\n\
                     \x20   allow: { P408: the app's tokens carry neither iss nor aud }\n",
                );
            }
        }
        Issuer::Supabase => text.push_str(
            "# SUPABASE_URL is the project's URL, SUPABASE_KEY its publishable (or anon) key.\n\
             identity:\n  supabase: { preset: supabase, url: env:SUPABASE_URL, key: env:SUPABASE_KEY }\n",
        ),
        Issuer::Oidc => {
            let _ = write!(
                text,
                "# An OpenID provider. Where its tokens have the roles elsewhere: claims: {{ roles: realm_access.roles }}\n\
                 identity:\n  company:\n    preset: oidc\n    issuer: {}\n    audience: {}\n",
                url.unwrap_or_default(),
                audience.unwrap_or_default(),
            );
        }
    }
    text
}

/// `policies/app.test.yaml`.
pub(super) fn policy_tests() -> String {
    "# Who gets which answer. `portcullis check` runs these tests, `portcullis test --coverage` shows what they leave out,\n\
     # and a running gateway does not take a set that fails them.\n\
     version: 1\n\
     identities:\n\
     \x20 ada: { id: u1 }                     # anybody who is signed in\n\
     \x20 grace: { id: u2, roles: admin }\n\
     tests:\n\
     \x20 everybody:\n\
     \x20   GET /health: { anonymous: allow, ada: allow }\n\
     \x20   POST /health: { grace: 405 }      # a path owns its methods\n\
     \x20 signed in:\n\
     \x20   GET /orders: { anonymous: 401, invalid: 401, ada: allow, grace: allow }\n\
     \x20 administrators:\n\
     \x20   GET /admin/users: { anonymous: 401, ada: 403, grace: allow }\n\
     \x20   GET /ADMIN/users: { ada: 403 }\n"
        .to_owned()
}

/// `portcullis.yaml`, where a default is not wanted.
pub(super) fn settings(answers: &Answers) -> String {
    let mut text =
        String::from("# Settings of the process; `portcullis help settings` has them all. A change needs a restart.\n");
    if answers.listen != LISTEN {
        let _ = writeln!(text, "listen: {}", quoted(answers.listen));
    }
    if answers.admin_listen != ADMIN_LISTEN {
        let _ = writeln!(text, "admin: {{ listen: {} }}", quoted(answers.admin_listen));
    }
    text
}

/// An address as YAML: `[::1]:80` would begin a list.
fn quoted(address: std::net::SocketAddr) -> String {
    if address.is_ipv6() { format!("\"{address}\"") } else { address.to_string() }
}

/// What the gateway reads from the environment: name, whether it is needed, what it is, an example.
pub(super) fn variables(answers: &Answers) -> Vec<(&'static str, &'static str, String)> {
    match answers.issuer {
        Issuer::Local => vec![("SECRET_KEY", "signs tokens: `portcullis secret new` makes one", String::new())],
        Issuer::Secret => {
            vec![("SECRET_KEY", "the one that your app signs tokens with, 32 bytes at least", String::new())]
        }
        Issuer::Supabase => vec![
            ("SUPABASE_URL", "the project's URL", answers.issuer_url.clone().unwrap_or_default()),
            ("SUPABASE_KEY", "the project's publishable (or anon) key", String::new()),
            ("SUPABASE_JWT_SECRET", "only where the project still signs with HS256", String::new()),
        ],
        Issuer::Oidc => Vec::new(),
    }
}

/// `.env.example`.
pub(super) fn environment_example(answers: &Answers) -> String {
    let mut text = String::from(
        "# What the gateway reads from the environment, or from a file `.env` beside portcullis.yaml. The environment wins.\n",
    );
    for (name, what, _) in variables(answers) {
        let _ = write!(text, "\n# {what}\n{name}=\n");
    }
    if answers.issuer == Issuer::Local {
        text.push_str("\n# minutes that a token is valid (30)\n#ACCESS_TOKEN_EXPIRE_MINUTES=30\n");
    }
    text.push_str("\n# users and sessions: a file (sqlite:portcullis.db), or a PostgreSQL server\n#DATABASE_URL=postgres://user:password@host/portcullis\n");
    text.push_str("\n# for several gateways: what they share\n#REDIS_URL=redis://host:6379\n");
    text
}

/// `docker-compose.yaml`.
pub(super) fn compose(answers: &Answers, settings: bool) -> String {
    let mount = if settings { "\n      - ./portcullis.yaml:/etc/portcullis/portcullis.yaml:ro" } else { "" };
    format!(
        "# The image is built from a clone of {repository}: docker build -t portcullis:{version} .\n\
         services:\n\
         \x20 portcullis:\n\
         \x20   image: portcullis:{version}\n\
         \x20   # On the host's network, so that {upstream} and {listen} mean here what they mean outside. With your app\n\
         \x20   # as a service of this file: remove this line, write `upstream: http://app:8000` in the policy, and add\n\
         \x20   #   ports: [\"127.0.0.1:{port}:{port}\"]\n\
         \x20   #   environment: {{ PORTCULLIS_LISTEN: \"0.0.0.0:{port}\" }}\n\
         \x20   network_mode: host\n\
         \x20   environment:\n\
         \x20     PORTCULLIS_LISTEN: \"{listen}\"\n\
         \x20     PORTCULLIS_STORE: sqlite:/var/lib/portcullis/portcullis.db   # instead of DATABASE_URL\n\
         \x20   env_file: .env\n\
         \x20   volumes:\n\
         \x20     - ./policies:/etc/portcullis/policies:ro{mount}\n\
         \x20     - state:/var/lib/portcullis\n\
         \x20   read_only: true\n\
         \x20   cap_drop: [ALL]\n\
         \x20   security_opt: [\"no-new-privileges:true\"]\n\
         \x20   restart: unless-stopped\n\
         \n\
         volumes:\n\
         \x20 state:\n",
        repository = env!("CARGO_PKG_REPOSITORY"),
        version = env!("CARGO_PKG_VERSION"),
        upstream = answers.upstream,
        listen = answers.listen,
        port = answers.listen.port(),
    )
}

/// `.github/workflows/policy.yml`.
pub(super) fn workflow(policies: &Path) -> String {
    let (repository, version) = (env!("CARGO_PKG_REPOSITORY"), env!("CARGO_PKG_VERSION"));
    let policies = policies.display();
    format!(
        "# Every mistake of all policies at the line where it stands, and the policies' own tests. No secret is needed.\n\
         name: policy\n\
         on:\n\
         \x20 push:\n\
         \x20 pull_request:\n\
         permissions:\n\
         \x20 contents: read\n\
         jobs:\n\
         \x20 policy:\n\
         \x20   runs-on: ubuntu-latest\n\
         \x20   steps:\n\
         \x20     - uses: actions/checkout@v4\n\
         \x20     - uses: actions/cache@v4\n\
         \x20       with:\n\
         \x20         path: ~/.cargo/bin/portcullis\n\
         \x20         key: portcullis-{version}\n\
         \x20     - name: install portcullis\n\
         \x20       run: command -v portcullis || cargo install --locked --git {repository} --tag v{version}\n\
         \x20     - run: portcullis check -p {policies} --strict --format github\n\
         \x20     - run: portcullis test -p {policies} --coverage\n"
    )
}
