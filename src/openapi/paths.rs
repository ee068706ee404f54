//! Which routes an operation has.
//!
//! OpenAPI's `/items/{item_id}` and a policy's `/items/{id:int}` are different languages, so they are not compared:
//! sample paths are made from the one, and the other's table is asked as it is for a request.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use smallvec::SmallVec;

use crate::policy::set::{Methods, RouteId};
use crate::policy::template::{Kind, Segment};
use crate::policy::trie::Trie;
use crate::request::target::CanonicalPath;

use super::{RewriteError, View};

/// So many sample paths are looked up for one document at most: some tens of milliseconds.
const LOOK_UPS: usize = 100_000;
/// So many sample paths are made for one operation at most.
const COMBINATIONS: usize = 256;
/// So many values of an `enum` are tried.
const VALUES: usize = 16;

const INT: &str = "4711471147";
const UUID: &str = "0193530c-7e21-7c44-9d0e-3f1a5b2c8d90";
const DATE: &str = "2006-01-02";
/// One value for each type of parameter that policies know; the first fits none but the untyped.
const ALL: [&str; 5] = ["portcullis~sample", "portcullis-sample", INT, UUID, DATE];

/// What a document may leave as it is in a path, and a request may not.
const UNENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'\\');
/// All but what RFC 3986 calls unreserved.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

type Values = SmallVec<[String; 5]>;

/// What clients see before the paths of a document, as a template of OpenAPI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefix {
    text: String,
    parameters: Vec<(String, Kind)>,
}

impl Prefix {
    /// With `strip_base` it is the base. Else the upstream sees what clients see; its own document may say what it
    /// expects before all paths in `servers` (FastAPI's `root_path` does that), or leave it out.
    pub(super) fn candidates(view: View<'_>, servers: Option<&Value>) -> Vec<Self> {
        match view.policy.app(view.app) {
            Some(app) if app.strip_base => vec![Self::of_template(&app.base)],
            _ => {
                let server = Self { text: server_path(servers), parameters: Vec::new() };
                if server.text.is_empty() { vec![server] } else { vec![server, Self::default()] }
            }
        }
    }

    fn of_template(template: &[Segment]) -> Self {
        let mut prefix = Self::default();
        for segment in template {
            prefix.text.push('/');
            match segment {
                Segment::Literal(text) => prefix.text.extend(utf8_percent_encode(text, VALUE)),
                Segment::Parameter { name, kind } => {
                    let name = name.clone().unwrap_or_else(|| format!("base{}", prefix.parameters.len()));
                    prefix.text.push_str(&format!("{{{name}}}"));
                    prefix.parameters.push((name, *kind));
                }
                Segment::Tail { .. } => {} // refused in `base`
            }
        }
        prefix
    }

    /// A path of the document as clients see it.
    pub(super) fn before(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// Declares the parameters of the prefix in a path item.
    pub(super) fn declare_parameters(&self, item: &mut Map<String, Value>) {
        if self.parameters.is_empty() {
            return;
        }
        let parameters = item.entry("parameters").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(parameters) = parameters {
            parameters.extend(self.parameters.iter().map(|(name, kind)| parameter(name, *kind)));
        }
    }
}

/// A path parameter as OpenAPI declares it.
pub(super) fn parameter(name: &str, kind: Kind) -> Value {
    let schema = match kind {
        Kind::Any => json!({ "type": "string" }),
        Kind::Int => json!({ "type": "integer" }),
        Kind::Uuid => json!({ "type": "string", "format": "uuid" }),
        Kind::Slug => json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]+$" }),
        Kind::Date => json!({ "type": "string", "format": "date" }),
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

/// The path of the first server: `https://h/api/v1/` and `/api/v1` are `/api/v1`.
fn server_path(servers: Option<&Value>) -> String {
    let url = servers.and_then(|servers| servers.get(0)?.get("url")?.as_str()).unwrap_or_default();
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default(),
        None => url,
    };
    let path = path.trim_end_matches('/');
    if path.starts_with('/') && !path.contains(['{', '}', '?', '#']) { path.to_owned() } else { String::new() }
}

/// Finds routes for the operations of one document.
#[derive(Debug)]
pub(super) struct Finder<'a> {
    view: View<'a>,
    table: &'a Trie<Methods>,
    /// `components.schemas`.
    schemas: Option<&'a Map<String, Value>>,
    look_ups: usize,
}

impl<'a> Finder<'a> {
    pub(super) fn new(view: View<'a>, schemas: Option<&'a Map<String, Value>>) -> Self {
        Self { view, table: view.policy.hosts.table(view.host), schemas, look_ups: 0 }
    }

    /// The routes that answer an operation, by its path and method. `declaring` may declare the path's parameters, the
    /// nearest first. None: nothing answers there, or another app does.
    pub(super) fn routes(
        &mut self,
        prefix: &Prefix,
        path: &str,
        method: &str,
        declaring: [&Map<String, Value>; 2],
    ) -> Result<Vec<RouteId>, RewriteError> {
        let Some(pieces) = pieces(&prefix.text).zip(pieces(path)).filter(|_| path.starts_with('/')) else {
            return Ok(Vec::new());
        };
        let pieces: Vec<Piece<'_>> = pieces.0.into_iter().chain(pieces.1).collect();
        let values: Vec<Values> =
            pieces.iter().filter_map(|piece| Some(self.values(piece.name()?, prefix, declaring))).collect();
        let mut routes = Vec::new();
        for choice in choices(&values) {
            self.look_ups += 1;
            if self.look_ups > LOOK_UPS {
                return Err(RewriteError::TooLarge);
            }
            let mut chosen = values.iter().zip(choice).map(|(values, at)| values.get(at).map_or("", String::as_str));
            let mut sample = String::new();
            for piece in &pieces {
                match piece {
                    Piece::Text(text) => sample.extend(utf8_percent_encode(text, UNENCODED)),
                    Piece::Parameter(_) => sample.push_str(chosen.next().unwrap_or_default()),
                }
            }
            if let Some(route) = self.route(&sample, method).filter(|route| !routes.contains(route)) {
                routes.push(route);
            }
        }
        Ok(routes)
    }

    fn route(&self, path: &str, method: &str) -> Option<RouteId> {
        let path = CanonicalPath::parse(path).ok()?;
        let segments: SmallVec<[_; 16]> = path.segments().map(|segment| segment.decoded()).collect();
        let id = self.table.find(path.as_str(), &segments)?.find(method)?;
        let route = self.view.policy.route(id)?;
        let app = self.view.policy.app(route.app)?;
        (route.app == self.view.app && path.irregular().is_subset(app.irregular)).then_some(id)
    }

    /// Values to try for a parameter, percent-encoded.
    fn values(&self, name: &str, prefix: &Prefix, declaring: [&Map<String, Value>; 2]) -> Values {
        if let Some((_, kind)) = prefix.parameters.iter().find(|(known, _)| known == name) {
            return match kind {
                Kind::Int => one(INT),
                Kind::Uuid => one(UUID),
                Kind::Date => one(DATE),
                Kind::Any | Kind::Slug => one("portcullis-sample"),
            };
        }
        let declared = declaring.iter().find_map(|map| {
            let mut parameters = map.get("parameters")?.as_array()?.iter().take(1000);
            parameters.find(|parameter| {
                let is = |member: &str, text: &str| parameter.get(member).and_then(Value::as_str) == Some(text);
                is("in", "path") && is("name", name)
            })
        });
        let mut schema = declared.and_then(|parameter| parameter.get("schema"));
        if let Some(reference) = schema.and_then(|schema| schema.get("$ref")).and_then(Value::as_str) {
            schema = reference.strip_prefix("#/components/schemas/").and_then(|name| self.schemas?.get(name));
        }
        let Some(schema) = schema else { return all() };
        if let Some(Value::Array(values)) = schema.get("enum") {
            let text = |value: &Value| match value {
                Value::String(text) => Some(utf8_percent_encode(text, VALUE).to_string()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            };
            return values.iter().take(VALUES).filter_map(text).collect();
        }
        match (schema.get("type").and_then(Value::as_str), schema.get("format").and_then(Value::as_str)) {
            (Some("integer"), _) => one(INT),
            (Some("string"), Some("uuid")) => one(UUID),
            (Some("string"), Some("date")) => one(DATE),
            _ => all(),
        }
    }
}

fn one(value: &str) -> Values {
    std::iter::once(value.to_owned()).collect()
}

fn all() -> Values {
    ALL.iter().map(|value| (*value).to_owned()).collect()
}

/// Which value each parameter has, for every combination; where there are too many, the same number for all.
fn choices(values: &[Values]) -> impl Iterator<Item = SmallVec<[usize; 4]>> + '_ {
    let product = values.iter().try_fold(1_usize, |product, values| product.checked_mul(values.len()));
    let product = product.filter(|product| *product <= COMBINATIONS);
    let count = product.unwrap_or_else(|| values.iter().map(Values::len).max().unwrap_or_default());
    (0..count).map(move |number| {
        let mut rest = number;
        let choose = |values: &Values| {
            let (at, next) = (rest.checked_rem(values.len()).unwrap_or(0), rest.checked_div(values.len()).unwrap_or(0));
            if product.is_some() {
                rest = next;
            }
            at
        };
        values.iter().map(choose).collect()
    })
}

/// A part of a path of OpenAPI: parameters may stand within a segment (`/files/{name}.json`).
enum Piece<'t> {
    Text(&'t str),
    Parameter(&'t str),
}

impl<'t> Piece<'t> {
    fn name(&self) -> Option<&'t str> {
        match self {
            Self::Text(_) => None,
            Self::Parameter(name) => Some(name),
        }
    }
}

/// `None` if braces do not match.
fn pieces(path: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = path;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        if text.contains('}') || name.contains('{') {
            return None;
        }
        pieces.extend([Piece::Text(text), Piece::Parameter(name)]);
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    (!rest.contains('}')).then_some(pieces)
}
