//! `preset: supabase-edge`: the routes of an app in front of Supabase (supabase-and-oauth A6.1, A6.4), as if they had
//! been written. What the policy says about the same template and method stands instead of them.

use crate::diagnostic::{Span, Spanned};
use crate::policy::document::{Access, AppId, Document, FragmentId, Requirement, Route, RouteOptions};
use crate::policy::set::Edge;
use crate::policy::template::{Segment, Template};

/// A part of Supabase, what its paths begin with, and its routes below that: path, access, and where the part itself
/// has it, if that is elsewhere.
struct Part {
    name: &'static str,
    routes: &'static [(&'static str, Access, Option<&'static str>)],
}

const PARTS: &[Part] = &[
    Part {
        name: "auth",
        routes: &[
            // Bearers are for Supabase Auth to judge: a client may renew its session with one that has expired.
            ("/**", Access::Public, None),
            ("/token", Access::Public, None),
            ("/logout", Access::Public, None),
            // What only the secret key may do is nothing for the edge.
            ("/admin/**", Access::Deny, None),
            ("/invite", Access::Deny, None),
            ("/scim/**", Access::Deny, None),
        ],
    },
    // Its root describes the whole database.
    Part { name: "rest", routes: &[("/**", Access::Optional, None), ("/", Access::Deny, None)] },
    Part { name: "graphql", routes: &[("/**", Access::Optional, None)] },
    // S3 clients sign their requests in their own way; Storage verifies that.
    Part { name: "storage", routes: &[("/**", Access::Optional, None), ("/s3/**", Access::Public, None)] },
    Part { name: "functions", routes: &[("/**", Access::Optional, None)] },
    Part {
        name: "realtime",
        routes: &[
            ("/**", Access::Optional, None),
            // The user's token comes inside the socket.
            (SOCKET, Access::Public, Some("/socket/websocket")),
            ("/api/openapi", Access::Deny, None),
            ("/api/tenants/**", Access::Deny, None),
        ],
    },
];

/// Where clients open their sockets.
const SOCKET: &str = "/websocket";

/// The version that stands behind every part's name.
const VERSION: &str = "v1";

/// Adds the routes of every app with the preset.
pub(super) fn add(document: &mut Document) {
    let mut added = Vec::new();
    for (number, app) in document.apps.iter().enumerate() {
        let Some((fragment, header)) = app.headers.iter().find(|(_, header)| header.preset.is_some()) else { continue };
        let Some(preset) = &header.preset else { continue };
        let base = header.base.as_ref().map_or(&[][..], |base| &base.segments);
        for part in PARTS {
            let under = match part_of_base(base) {
                // The base is this part: its routes follow at once.
                Some(only) if only == part.name => String::new(),
                Some(_) => continue,
                None => format!("/{}/{VERSION}", part.name),
            };
            let stripped = under.is_empty() && header.strip_base;
            for (path, access, elsewhere) in part.routes {
                let text = format!("{under}{path}");
                let rewrite = elsewhere.filter(|_| stripped);
                added.push(route(&text, *access, rewrite, preset.span, AppId(number), *fragment));
            }
        }
    }
    added.retain(|route| !is_written(document, route));
    document.routes.append(&mut added);
}

/// The part that an app's base ends with.
fn part_of_base(base: &[Segment]) -> Option<&'static str> {
    let [.., Segment::Literal(name), Segment::Literal(version)] = base else { return None };
    PARTS.iter().map(|part| part.name).find(|part| part == name && version == VERSION)
}

/// Which part a route of such an app leads to, by its whole template.
pub(in crate::policy) fn edge_of(base: &[Segment], template: &[Segment]) -> Option<Edge> {
    let at = if part_of_base(base).is_some() { base.len().saturating_sub(2) } else { base.len() };
    let [Segment::Literal(name), Segment::Literal(version), rest @ ..] = template.get(at..)? else { return None };
    if version != VERSION {
        return None;
    }
    match (name.as_str(), rest) {
        ("auth", [Segment::Literal(token)]) if token == "token" => Some(Edge::Token),
        ("auth", [Segment::Literal(logout)]) if logout == "logout" => Some(Edge::Logout),
        ("auth", _) => Some(Edge::Auth),
        ("rest" | "graphql", _) => Some(Edge::Rest),
        ("storage", _) => Some(Edge::Storage),
        ("functions", _) => Some(Edge::Functions),
        ("realtime", _) => Some(Edge::Realtime),
        _ => None,
    }
}

/// Whether the policy itself has this template of the app, for any method.
fn is_written(document: &Document, route: &Route) -> bool {
    let same = |other: &Route| {
        !other.generated && other.app == route.app && same_shape(&other.template.segments, &route.template.segments)
    };
    // A route for some methods leaves the others to the preset.
    document.routes.iter().any(|other| same(other) && other.methods.is_empty())
}

/// Names of parameters do not count.
fn same_shape(one: &[Segment], other: &[Segment]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|pair| match pair {
            (Segment::Tail { .. }, Segment::Tail { .. }) => true,
            (one, other) => one == other,
        })
}

fn route(path: &str, access: Access, rewrite: Option<&str>, span: Span, app: AppId, fragment: FragmentId) -> Route {
    let options = RouteOptions {
        rewrite: rewrite.map(|path| template(path, span)),
        websocket: path.ends_with(SOCKET),
        ..RouteOptions::default()
    };
    let template = template(path, span);
    Route {
        key: Spanned::new(template.text.clone(), span),
        fragment,
        app,
        methods: Vec::new(),
        template,
        requirement: Requirement::Word(Spanned::new(access, span)),
        options,
        allow: Vec::new(),
        generated: true,
    }
}

fn template(path: &str, span: Span) -> Template {
    let segment = |part: &str| match part {
        "**" => Segment::Tail { name: None },
        part => Segment::Literal(part.to_owned()),
    };
    let segments = path.split('/').filter(|part| !part.is_empty()).map(segment).collect();
    let text = match path {
        "/" => path,
        path => path.trim_end_matches('/'),
    };
    Template { text: text.to_owned(), span, segments }
}
