//! A sample items API without a line of auth code: it believes the identity headers, since only the gateway can
//! reach it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::endpoint::Endpoint;
use crate::response::Response;

/// The most items it keeps; creating more answers 507.
const CAPACITY: usize = 1000;

/// The API: items in memory, lost when the demo ends.
#[derive(Debug)]
pub struct ItemsApi {
    items: Mutex<BTreeMap<u64, Item>>,
}

#[derive(Clone, Debug, Serialize)]
struct Item {
    id: u64,
    name: String,
    owner: String,
}

impl Default for ItemsApi {
    /// With two items.
    fn default() -> Self {
        let item = |id, name: &str, owner: &str| (id, Item { id, name: name.to_owned(), owner: owner.to_owned() });
        Self { items: Mutex::new([item(1, "lamp", "alice"), item(2, "chair", "bob")].into()) }
    }
}

#[async_trait]
impl Endpoint for ItemsApi {
    async fn answer(&self, request: Request<Bytes>) -> Response {
        let path = request.uri().path().trim_matches('/').to_owned();
        let segments: Vec<&str> = path.split('/').collect();
        match (request.method(), segments.as_slice()) {
            (&Method::GET | &Method::HEAD, [""]) => {
                Response::json(200, &json!({"message": "a sample API that contains no auth code"}))
            }
            (&Method::GET | &Method::HEAD, ["users", "me"]) => Response::json(200, &seen(&request)),
            (&Method::GET | &Method::HEAD, ["users", name]) => {
                Response::json(200, &json!({"user": name, "asked_by": header(&request, "x-auth-user")}))
            }
            (&Method::GET | &Method::HEAD, ["items"]) => {
                Response::json(200, &self.items.lock().values().cloned().collect::<Vec<_>>())
            }
            (&Method::POST, ["items"]) => self.create(&request),
            (&Method::GET | &Method::HEAD, ["items", id]) => match self.items.lock().get(&number(id)) {
                Some(item) => Response::json(200, item),
                None => missing(),
            },
            (&Method::DELETE, ["items", id]) => match self.items.lock().remove(&number(id)) {
                Some(_) => Response::new(204),
                None => missing(),
            },
            _ => missing(),
        }
    }
}

impl ItemsApi {
    fn create(&self, request: &Request<Bytes>) -> Response {
        let name = serde_json::from_slice::<Value>(request.body())
            .ok()
            .and_then(|body| Some(body.get("name")?.as_str()?.to_owned()));
        let Some(name) = name else {
            return Response::json(422, &json!({"detail": "the body is JSON with a `name`"}));
        };
        let mut items = self.items.lock();
        if items.len() >= CAPACITY {
            return Response::json(507, &json!({"detail": "the sample is full"}));
        }
        let id = items.keys().next_back().map_or(1, |last| last + 1);
        let item = Item { id, name, owner: header(request, "x-auth-user").unwrap_or_default() };
        items.insert(id, item.clone());
        Response::json(201, &item)
    }
}

/// No item has the number 0.
fn number(id: &str) -> u64 {
    id.parse().unwrap_or(0)
}

fn missing() -> Response {
    Response::json(404, &json!({"detail": "no such thing"}))
}

/// What the app is told about the caller.
fn seen(request: &Request<Bytes>) -> Value {
    request
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-auth-"))
        .map(|(name, value)| (name.as_str().to_owned(), Value::from(value.to_str().unwrap_or_default())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn header(request: &Request<Bytes>, name: &str) -> Option<String> {
    request.headers().get(name)?.to_str().ok().map(str::to_owned)
}
