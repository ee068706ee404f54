//! Routes with `openapi: rewrite`.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::harness::{Harness, IDENTITY, Token, get};
use crate::upstream::{Recorded, Upstream};

/// What FastAPI serves, shortened.
fn fastapi(version: &str) -> String {
    json!({
        "openapi": version,
        "info": { "title": "FastAPI", "version": "0.1.0" },
        "servers": [{ "url": "http://internal:8000" }],
        "paths": {
            "/items": {
                "get": { "summary": "List", "operationId": "list_items_get", "responses": { "200": { "description": "OK" } } },
                "post": { "operationId": "create_items_post", "responses": { "201": { "description": "Created" } } }
            },
            "/items/{item_id}": { "get": {
                "parameters": [{ "name": "item_id", "in": "path", "required": true, "schema": { "type": "integer" } }],
                "responses": { "200": { "description": "OK" } }
            } },
            "/internal": { "get": { "responses": { "200": { "description": "canary" } } } }
        },
        "components": { "schemas": { "Item": { "type": "object" } } }
    })
    .to_string()
}

fn policy() -> String {
    format!(
        "version: 1\napp: items\nupstream: http://UPSTREAM\nlogin: {{ path: /token, via: upstream }}\n{IDENTITY}\
         scopes: {{ 'items:read': Read items, 'items:write': Write items }}\n\
         routes:\n  GET /openapi.json: {{ access: public, openapi: rewrite, timeout: 5s }}\n  \
         GET /private.json: {{ scope: 'items:read', openapi: rewrite }}\n  \
         GET /items: {{ scope: 'items:read' }}\n  POST /items: {{ scope: 'items:write' }}\n  \
         GET /items/{{id:int}}: {{ scope: 'items:read' }}\n  GET /internal: deny\n"
    )
}

/// An answer with these header lines, each with its line end.
fn answer(status: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{lines}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

const JSON: &str = "Content-Type: application/json\r\n";

async fn answering(answer: impl Fn(&Recorded) -> Vec<u8> + Send + Sync + 'static) -> Harness {
    Harness::with(&policy(), Upstream::answering(answer).await, |_| {}).await
}

async fn serving(document: String) -> Harness {
    answering(move |_| answer("200 OK", JSON, document.as_bytes())).await
}

fn document(answer: &Answer) -> Value {
    serde_json::from_str(&answer.text()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apps_document_is_served_with_the_policys_security() {
    for version in ["3.1.0", "3.0.3"] {
        let gateway = serving(fastapi(version)).await;
        let answer = gateway.get("/openapi.json", "").await;
        assert_eq!((answer.status, answer.value("content-type")), (200, Some("application/json")));
        assert_eq!(answer.value("content-length").unwrap().parse::<usize>().unwrap(), answer.body.len());
        let document = document(&answer);
        let password = &document["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]["password"];
        assert_eq!(password["tokenUrl"], "/token");
        assert_eq!(password["scopes"]["items:write"], "Write items");
        let security = |path: &str, method: &str| document["paths"][path][method]["security"].to_string();
        assert_eq!(security("/items", "get"), r#"[{"OAuth2PasswordBearer":["items:read"]}]"#);
        assert_eq!(security("/items", "post"), r#"[{"OAuth2PasswordBearer":["items:write"]}]"#);
        assert_eq!(security("/items/{item_id}", "get"), r#"[{"OAuth2PasswordBearer":["items:read"]}]"#);
        assert_eq!(document["paths"]["/items"]["get"]["operationId"], "list_items_get");
        assert_eq!(document["components"]["schemas"]["Item"]["type"], "object");
        assert!(!answer.text().contains("internal"), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_asked_for_the_whole_document_as_it_is() {
    let gateway = serving(fastapi("3.1.0")).await;
    let lines = "Accept-Encoding: gzip, br\r\nIf-None-Match: \"x\"\r\nIf-Modified-Since: Sat, 01 Jan 2026 00:00:00 GMT\r\n\
                 Range: bytes=0-1\r\nAccept: text/html\r\nConnection: x-private\r\nX-Private: a\r\nX-Auth-User: admin\r\n\
                 X-Forwarded-For: 1.2.3.4\r\nX-Own: kept\r\n";
    let answer = gateway.get("/openapi.json?v=1", lines).await;
    assert_eq!(answer.status, 200);
    let asked = gateway.upstream.one();
    assert_eq!((asked.target(), asked.value("accept-encoding")), ("/openapi.json?v=1", Some("identity")));
    assert_eq!((asked.value("host"), asked.value("x-own")), (Some("api.test"), Some("kept")));
    assert_eq!((asked.value("x-forwarded-for"), asked.value("via")), (Some("127.0.0.1"), Some("1.1 portcullis")));
    for gone in ["if-none-match", "if-modified-since", "range", "x-private", "x-auth-user"] {
        assert_eq!(asked.value(gone), None, "{gone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entity_tag_is_that_of_the_rewritten_document() {
    let gateway = answering(|_| {
        let lines = format!(
            "{JSON}ETag: \"upstream\"\r\nLast-Modified: Sat, 01 Jan 2026 00:00:00 GMT\r\nCache-Control: no-cache\r\n"
        );
        answer("200 OK", &lines, fastapi("3.1.0").as_bytes())
    })
    .await;
    let first = gateway.get("/openapi.json", "").await;
    let etag = first.value("etag").unwrap().to_owned();
    assert!(etag.starts_with('"') && etag != "\"upstream\"", "{etag}");
    assert_eq!(first.value("last-modified"), None);
    for given in [etag.clone(), format!("W/{etag}"), format!("\"a\", {etag}"), "*".to_owned()] {
        let again = gateway.get("/openapi.json", &format!("If-None-Match: {given}\r\n")).await;
        assert_eq!((again.status, again.value("etag"), again.body.len()), (304, Some(&*etag), 0), "{given}");
        assert_eq!(again.value("cache-control"), Some("no-cache"));
    }
    let other = gateway.get("/openapi.json", "If-None-Match: \"upstream\"\r\n").await;
    assert_eq!(other.status, 200);

    // Another policy is another document.
    gateway.reload(&policy().replace("POST /items: {", "PUT /items: {"));
    let changed = gateway.get("/openapi.json", &format!("If-None-Match: {etag}\r\n")).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.value("etag"), Some(&*etag));
    assert!(document(&changed)["paths"]["/items"]["post"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_the_length_of_the_rewritten_document() {
    let gateway = serving(fastapi("3.1.0")).await;
    let length = gateway.get("/openapi.json", "").await.body.len().to_string();
    let mut client = gateway.client().await;
    client.send("HEAD /openapi.json HTTP/1.1\r\nHost: api.test\r\n\r\n").await;
    let answer = client.answer_to_head().await.unwrap();
    assert_eq!((answer.status, answer.value("content-length")), (200, Some(&*length)));
    // The connection lives on.
    client.send(get("/openapi.json", "")).await;
    assert_eq!(client.answer().await.unwrap().status, 200);
    assert!(gateway.upstream.take().iter().all(|asked| asked.head.starts_with("GET ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_documents_and_early_hints_are_read() {
    let gateway = answering(|_| {
        let mut bytes = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec();
        bytes.extend(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in fastapi("3.1.0").as_bytes().chunks(100) {
            bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            bytes.extend(piece);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    })
    .await;
    let answer = gateway.get("/openapi.json", "").await;
    assert_eq!((answer.status, answer.value("transfer-encoding")), (200, None));
    assert_eq!(document(&answer)["openapi"], "3.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_document_passes_as_it_is() {
    for (status, lines, body) in [
        ("404 Not Found", JSON, r#"{"detail":"Not Found"}"#),
        ("200 OK", "Content-Type: text/html\r\nX-Auth-User: admin\r\nETag: \"a\"\r\n", "<html>"),
        ("200 OK", JSON, r#"{"swagger":"2.0","host":"a"}"#),
        ("200 OK", JSON, r#"[1,2]"#),
        ("302 Found", "Location: /elsewhere\r\nContent-Encoding: gzip\r\n", "zipped"),
        ("500 Internal Server Error", JSON, "not json"),
    ] {
        let gateway = answering(move |_| answer(status, lines, body.as_bytes())).await;
        let answer = gateway.get("/openapi.json", "").await;
        assert_eq!(
            format!("{} {}", answer.status, answer.text()),
            format!("{} {body}", status.split(' ').next().unwrap())
        );
        assert_eq!(answer.value("x-auth-user"), None);
        if lines.contains("ETag") {
            assert_eq!(answer.value("etag"), Some("\"a\""));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rewritten_is_not_shown() {
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(fastapi("3.1.0").as_bytes()).unwrap();
    let zipped = zipped.finish().unwrap();
    let deep = format!("{{\"openapi\":\"3.1.0\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let long = fastapi("3.1.0").replace("canary", &"x".repeat(9 << 20));
    for (lines, body) in [
        (format!("{JSON}Content-Encoding: gzip\r\n"), zipped),
        (JSON.to_owned(), b"{\"openapi\":\"3.1.0\",".to_vec()),
        (JSON.to_owned(), b"{\"openapi\":\"3.1.0\",\"x\":\"\xff\"}".to_vec()),
        (JSON.to_owned(), Vec::new()),
        (JSON.to_owned(), deep.into_bytes()),
        (JSON.to_owned(), long.into_bytes()),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let gateway = answering(move |_| answer("200 OK", &lines, &body)).await;
        let answer = gateway.get("/openapi.json", "").await;
        assert_eq!((answer.status, answer.code()), (502, "bad_gateway".to_owned()), "{shown}");
    }
    // An answer that ends too early, and none.
    let gateway = answering(|_| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n{JSON}Connection: close\r\n\r\n{{}}").into_bytes()
    })
    .await;
    assert_eq!(gateway.get("/openapi.json", "").await.status, 502);
    let gateway = answering(|_| b"Connection: close".to_vec()).await;
    assert_eq!(gateway.get("/openapi.json", "").await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_document_is_protected_and_the_route_decides_who_is_named_to_the_app() {
    let gateway = serving(fastapi("3.1.0")).await;
    assert_eq!(gateway.get("/private.json", "").await.status, 401);
    assert!(gateway.upstream.take().is_empty());
    let token = Token::of("ada").with("scope", "items:read").line();
    assert_eq!(gateway.get("/private.json", &token).await.status, 200);
    assert_eq!(gateway.upstream.one().value("x-auth-user"), Some("ada"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_ask_at_once() {
    let gateway = serving(fastapi("3.1.0")).await;
    let asked = (0..64).map(|_| gateway.get("/openapi.json", ""));
    for answer in futures_of(asked).await {
        assert_eq!(answer.status, 200);
    }
}

/// Waits for all, at once.
async fn futures_of(all: impl Iterator<Item = impl Future<Output = Answer>>) -> Vec<Answer> {
    let mut waiting: Vec<_> = all.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(move |context| {
        waiting.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                done.push(answer);
                false
            }
            std::task::Poll::Pending => true,
        });
        if waiting.is_empty() { std::task::Poll::Ready(std::mem::take(&mut done)) } else { std::task::Poll::Pending }
    })
    .await
}
