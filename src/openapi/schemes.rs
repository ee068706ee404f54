//! The security scheme of an app, and the refusals that every operation may answer.

use serde_json::{Map, Value, json};

use crate::policy::set::{Login, Via};

use super::View;

/// The name of the scheme where the app has a login: FastAPI's name for the same thing.
const PASSWORD: &str = "OAuth2PasswordBearer";
/// The name where tokens come from elsewhere.
const BEARER: &str = "HTTPBearer";

/// How callers of an app show who they are.
#[derive(Debug)]
pub(super) struct Scheme<'p> {
    view: View<'p>,
    /// The path of the token endpoint.
    token: Option<(&'p str, &'p Login)>,
    has_scopes: bool,
}

impl<'p> Scheme<'p> {
    /// OpenAPI 3.0 has no scopes but with OAuth2: `bearer_scopes` says whether a bearer may have them.
    pub(super) fn of(view: View<'p>, bearer_scopes: bool) -> Self {
        let login = view.policy.app(view.app).and_then(|app| app.login.as_deref());
        let token =
            login.filter(|login| login.via != Via::Oidc).and_then(|login| Some((login.paths.token.as_deref()?, login)));
        Self { view, token, has_scopes: token.is_some() || bearer_scopes }
    }

    pub(super) fn name(&self) -> &'static str {
        if self.token.is_some() { PASSWORD } else { BEARER }
    }

    /// `components.securitySchemes`. The token URL is an absolute path: a relative one is read relative to the last
    /// slash of a server's URL, which is rarely what was meant.
    pub(super) fn definition(&self) -> Value {
        let scheme = match self.token {
            None => json!({ "type": "http", "scheme": "bearer" }),
            Some((token, login)) => {
                let catalogue = self.view.policy.scopes.iter();
                let scopes: Map<String, Value> =
                    catalogue.map(|(name, text)| (String::from(&**name), Value::from(&**text))).collect();
                let mut flow = json!({ "tokenUrl": token, "scopes": scopes });
                if let (Via::Local, Some(flow)) = (login.via, flow.as_object_mut()) {
                    flow.insert("refreshUrl".to_owned(), token.into());
                }
                json!({ "type": "oauth2", "flows": { "password": flow } })
            }
        };
        json!({ self.name(): scheme })
    }

    /// A security requirement: a token with these scopes.
    pub(super) fn requirement(&self, scopes: &[Box<str>]) -> Value {
        let scopes = if self.has_scopes { scopes } else { &[] };
        json!({ self.name(): scopes })
    }
}

/// A refusal, its name among the components, and what it means.
const REFUSALS: [(&str, &str, &str); 3] = [
    ("401", "Portcullis401", "No token, or one that is not accepted"),
    ("403", "Portcullis403", "The token is accepted, and does not allow this"),
    ("429", "Portcullis429", "Too many requests"),
];

/// The refusals as components.
pub(super) fn responses(fastapi: bool) -> impl Iterator<Item = (String, Value)> {
    let text = || json!({ "type": "string" });
    let (media_type, schema) = if fastapi {
        ("application/json", json!({ "type": "object", "properties": { "detail": text() } }))
    } else {
        let properties = json!({
            "type": text(), "title": text(), "status": { "type": "integer" },
            "detail": text(), "code": text(), "decision_id": text(),
        });
        ("application/problem+json", json!({ "type": "object", "properties": properties }))
    };
    REFUSALS.iter().map(move |(status, name, description)| {
        let (field, about) = match *status {
            "401" => ("WWW-Authenticate", "How to authenticate (RFC 6750)"),
            "403" => ("WWW-Authenticate", "The scopes that are missing, if it is scopes (RFC 6750)"),
            _ => ("Retry-After", "After how many seconds to try again"),
        };
        let response = json!({
            "description": description,
            "headers": { field: { "description": about, "schema": text() } },
            "content": { media_type: { "schema": schema.clone() } },
        });
        ((*name).to_owned(), response)
    })
}

/// Adds a refusal to the responses of an operation, unless it describes that status itself.
pub(super) fn add_refusal(responses: &mut Map<String, Value>, status: &str) {
    if let Some((_, name, _)) = REFUSALS.iter().find(|(known, ..)| *known == status)
        && !responses.contains_key(status)
    {
        responses.insert(status.to_owned(), json!({ "$ref": format!("#/components/responses/{name}") }));
    }
}
