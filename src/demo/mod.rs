//! What `portcullis demo` shows: a sample API, three users with tokens, and the lines to try.
//!
//! The policy is the one of `examples/demo`, built in. A secret made for this run goes in; texts for a folder,
//! an [`ItemsApi`] and [`Line`]s with their tokens and expected statuses come out. Starting and stopping the
//! gateway is left to `cli`, which starts the very gateway that `serve` starts.

mod items;

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

pub use self::items::ItemsApi;
use crate::clock::Timestamp;
use crate::token::algorithm::Algorithm;
use crate::token::mint::Minter;

/// The policy, as a file of the policies folder.
pub const POLICY: (&str, &str) = ("items.yaml", include_str!("../../examples/demo/policies/items.yaml"));

/// The environment variable through which the policy finds the sample API.
pub const UPSTREAM: &str = "DEMO_UPSTREAM";

/// How long the printed tokens live.
const LIFETIME: std::time::Duration = std::time::Duration::from_secs(8 * 60 * 60);

/// Someone whose token is printed.
#[derive(Clone, Debug)]
pub struct User {
    /// The name; the shell variable of the token is the same in capitals.
    pub name: &'static str,
    /// What the user has, in words.
    pub has: &'static str,
    /// The token.
    pub token: String,
}

/// One line to try.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// The user whose token is sent.
    pub user: Option<&'static str>,
    /// The method.
    pub method: &'static str,
    /// The request target.
    pub target: &'static str,
    /// A further argument of curl.
    pub extra: Option<&'static str>,
    /// The status it gives.
    pub status: u16,
    /// Why.
    pub because: &'static str,
}

/// The lines, in the order in which they are printed and meant to be tried.
pub const LINES: &[Line] = &[
    line(None, "GET", "/", 200, "public"),
    line(None, "GET", "/items", 401, "no credential"),
    line(Some("alice"), "GET", "/items", 200, "has items:read"),
    Line { extra: Some(NEW_ITEM), ..line(Some("alice"), "POST", "/items", 403, "lacks items:write") },
    Line { extra: Some(NEW_ITEM), ..line(Some("bob"), "POST", "/items", 201, "items implies items:write") },
    line(Some("bob"), "DELETE", "/items/1", 403, "no role grants bob items:delete"),
    line(Some("carol"), "DELETE", "/items/1", 204, "an admin may do everything"),
    line(Some("bob"), "GET", "/users/alice", 403, "neither alice nor an admin"),
    line(Some("alice"), "GET", "/users/alice", 200, "herself"),
    Line {
        extra: Some("-H 'X-Auth-User: carol'"),
        ..line(Some("alice"), "GET", "/users/me", 200, "still alice: the header is replaced")
    },
    Line { extra: Some("--path-as-is"), ..line(Some("alice"), "GET", "/admin/../items", 400, "not a canonical path") },
    line(Some("alice"), "PUT", "/items/2", 405, "the path owns its methods"),
    line(Some("carol"), "GET", "/nowhere", 404, "what is not granted is refused"),
];

const NEW_ITEM: &str = r#"-d '{"name":"table"}'"#;

const fn line(
    user: Option<&'static str>,
    method: &'static str,
    target: &'static str,
    status: u16,
    because: &'static str,
) -> Line {
    Line { user, method, target, extra: None, status, because }
}

impl Line {
    /// The command for a shell in which the users' variables are set.
    pub fn command(&self, gateway: SocketAddr) -> String {
        let mut command = String::from("curl -i");
        if self.method != "GET" && !(self.method == "POST" && self.extra.is_some()) {
            command.push_str(" -X ");
            command.push_str(self.method);
        }
        if let Some(user) = self.user {
            command.push_str(&format!(" -H \"Authorization: Bearer ${}\"", user.to_ascii_uppercase()));
        }
        if let Some(extra) = self.extra {
            command.push(' ');
            command.push_str(extra);
        }
        command.push_str(&format!(" http://{gateway}{}", self.target));
        command
    }
}

/// The demo's users with tokens signed by `secret`, valid from `now` for eight hours; `None` if the secret is
/// too weak to sign with.
pub fn users(secret: &[u8], now: Timestamp) -> Option<Vec<User>> {
    let minter = Minter::from_secret(secret, Algorithm::HS256).ok()?;
    [
        ("alice", "scope items:read", json!({"scope": "items:read"})),
        ("bob", "scope items", json!({"scope": "items"})),
        ("carol", "role admin, scope items", json!({"scope": "items", "roles": ["admin"]})),
    ]
    .into_iter()
    .map(|(name, has, own)| {
        let mut claims: Map<String, Value> = Map::new();
        claims.insert("iss".into(), "portcullis".into());
        claims.insert("aud".into(), "items".into());
        claims.insert("sub".into(), name.into());
        claims.insert("email".into(), format!("{name}@demo.example").into());
        claims.insert("iat".into(), now.as_seconds().into());
        claims.insert("exp".into(), now.plus(LIFETIME).as_seconds().into());
        claims.extend(own.as_object().cloned().unwrap_or_default());
        Some(User { name, has, token: minter.mint(&claims, None, Some("JWT")).ok()? })
    })
    .collect()
}
