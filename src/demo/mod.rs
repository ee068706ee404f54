//! What `portcullis demo` shows: a sample API, three users who log in, and the lines to try.
//!
//! The policy is the one of `examples/demo`, built in. Texts for a folder, the users of an embedded store, an
//! [`ItemsApi`] and [`Line`]s with their expected statuses come out. Starting and stopping the gateway is left to
//! `cli`, which starts the very gateway that `serve` starts.

mod items;

use std::net::SocketAddr;

pub use self::items::ItemsApi;
use crate::clock::Timestamp;
use crate::identity::account::AccountName;
use crate::secret::Secret;
use crate::store::User;

/// The policy, as a file of the policies folder.
pub const POLICY: (&str, &str) = ("items.yaml", include_str!("../../examples/demo/policies/items.yaml"));

/// The environment variable through which the policy finds the sample API.
pub const UPSTREAM: &str = "DEMO_UPSTREAM";

/// Someone who can log in.
#[derive(Clone, Copy, Debug)]
pub struct Person {
    /// The name; the shell variable of the token is the same in capitals.
    pub name: &'static str,
    /// The password.
    pub password: &'static str,
    /// What the user has, in words.
    pub has: &'static str,
    roles: &'static [&'static str],
    scopes: &'static [&'static str],
}

/// Who can log in.
pub const PEOPLE: &[Person] = &[
    Person { name: "alice", password: "wonderland", has: "scope items:read", roles: &[], scopes: &["items:read"] },
    Person { name: "bob", password: "thebuilder", has: "scope items", roles: &[], scopes: &["items"] },
    Person {
        name: "carol",
        password: "christmas",
        has: "role admin, scope items",
        roles: &["admin"],
        scopes: &["items"],
    },
];

impl Person {
    /// The command that logs in and keeps the access token in a shell variable.
    pub fn command(&self, gateway: SocketAddr) -> String {
        format!(
            "{}=$(curl -s -d username={} -d password={} http://{gateway}/token | \
             sed 's/.*\"access_token\":\"\\([^\"]*\\).*/\\1/')",
            self.name.to_ascii_uppercase(),
            self.name,
            self.password,
        )
    }

    /// The user as it is stored, with `hash`. The id is the name, so that paths can be read aloud.
    pub fn user(&self, hash: Secret<String>, now: Timestamp) -> Option<User> {
        Some(User {
            id: self.name.to_owned(),
            name: self.name.to_owned(),
            account: AccountName::parse(self.name).ok()?,
            email: Some(format!("{}@demo.example", self.name)),
            hash: Some(hash),
            roles: self.roles.iter().map(ToString::to_string).collect(),
            scopes: self.scopes.iter().map(ToString::to_string).collect(),
            tenant: None,
            disabled: false,
            created: now,
            updated: now,
        })
    }
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
    line(Some("bob"), "POST", "/logout", 204, "ends the session"),
    line(Some("bob"), "GET", "/items", 401, "his token is refused from now on"),
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
