//! YAML and a document in, a document out.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{RewriteError, View, outline, rewrite};
use crate::diagnostic::Sources;
use crate::policy::compile::compile;
use crate::policy::document::AppId;
use crate::policy::references::References;
use crate::policy::set::{PolicySet, Revision};
use crate::policy::{Options, check, read};

const HEAD: &str = "\
version: 1
app: items-api
upstream: http://localhost:8000
login: { path: /token, via: upstream }
identity:
  own: { preset: jwt, secret: env:SECRET_KEY, algorithms: [HS256], audience: a, issuer: i }
scopes: { items: Everything, 'items:read': Read items, 'items:write': Write items, admin: Run it }
permissions: { 'items:delete': Remove an item }
roles: { editor: { can: 'items:delete' }, staff: { can: '*' } }
";

fn policy(text: &str) -> Arc<PolicySet> {
    let text = if text.starts_with("version") { text.to_owned() } else { format!("{HEAD}{text}") };
    let mut sources = Sources::default();
    sources.add("policies/test.yaml", &text);
    let (document, found) = read(&sources);
    let (checked, more) = check(document, &sources, &Options::default());
    let checked = checked.unwrap_or_else(|| panic!("{found:?} {more:?}"));
    Arc::clone(compile(&checked, &sources, &References::none(), Revision::of(&sources)).unwrap().policy())
}

fn view(policy: &PolicySet) -> View<'_> {
    View { policy, app: AppId(0), host: "localhost" }
}

/// A document of one operation for each `METHOD /path`.
fn document(operations: &[&str]) -> Value {
    let mut paths = json!({});
    for operation in operations {
        let (method, path) = operation.split_once(' ').unwrap();
        paths[path][method.to_ascii_lowercase()] = json!({ "operationId": operation, "responses": {} });
    }
    json!({ "openapi": "3.1.0", "info": { "title": "t", "version": "1" }, "paths": paths })
}

/// `security` of one operation; null if it is gone.
fn security(routes: &str, operation: &str) -> Value {
    let document = rewrite(document(&[operation]), view(&policy(&format!("routes:\n{routes}")))).unwrap();
    let (method, path) = operation.split_once(' ').unwrap();
    document["paths"][path][method.to_ascii_lowercase()]["security"].clone()
}

fn scopes(alternatives: &[&[&str]]) -> Value {
    alternatives.iter().map(|scopes| json!({ "OAuth2PasswordBearer": scopes })).collect()
}

#[test]
fn operations_have_the_security_of_their_route() {
    for (routes, operation, expected) in [
        ("  GET /: public", "GET /", json!([])),
        ("  GET /a: optional", "GET /a", json!([{}, { "OAuth2PasswordBearer": [] }])),
        ("  GET /a: authenticated", "GET /a", scopes(&[&[]])),
        ("  GET /a: { scope: 'items:read' }", "GET /a", scopes(&[&["items:read"]])),
        ("  GET /a: { scope: { all: ['items:read', admin] } }", "GET /a", scopes(&[&["items:read", "admin"]])),
        ("  GET /a: { scope: { any: ['items:read', admin] } }", "GET /a", scopes(&[&["items:read"], &["admin"]])),
        ("  GET /a: { role: staff }", "GET /a", scopes(&[&[]])),
        ("  GET /a: { any: [{ scope: admin }, { role: staff }] }", "GET /a", scopes(&[&["admin"], &[]])),
        (
            "  GET /a: { scope: 'items:read', any: [{ scope: admin }, { role: staff }] }",
            "GET /a",
            scopes(&[&["items:read", "admin"], &["items:read"]]),
        ),
        (
            "  GET /a: { any: [{ scope: admin }, { all: [{ scope: admin }, { mfa: true }] }] }",
            "GET /a",
            scopes(&[&["admin"]]),
        ),
        // Nobody gets an answer there.
        ("  GET /a: deny", "GET /a", Value::Null),
        ("  GET /a: { access: todo }", "GET /a", Value::Null),
        ("  GET /a: public", "POST /a", Value::Null),
        ("  GET /a: public", "GET /b", Value::Null),
        ("  GET /a: public", "TRACE /a", Value::Null),
    ] {
        assert_eq!(security(routes, operation), expected, "{routes} {operation}");
    }
}

#[test]
fn templates_of_two_languages_meet_in_sample_paths() {
    let routes = "  GET /users/me: authenticated\n  GET /users/{id}: { scope: admin }\n  GET /n/{id:int}: { scope: items }\n  \
                  GET /u/{a:uuid}/{b:date}: { scope: items }\n  GET /f/{path**}: { scope: items }\n  GET /s/{name}: { scope: items }\n  \
                  GET /x/{a:int}: { scope: items }\n  GET /x/{a}: { scope: admin }\n  GET /é/a%20b: { scope: items }\n";
    for (operation, expected) in [
        ("GET /users/me", scopes(&[&[]])),
        ("GET /users/me/", scopes(&[&[]])),
        ("GET /users/{user_id}", scopes(&[&["admin"]])),
        ("GET /n/{item_id}", scopes(&[&["items"]])),
        ("GET /u/{x}/{y}", scopes(&[&["items"]])),
        ("GET /f/{file_path}", scopes(&[&["items"]])),
        ("GET /s/{name}.json", scopes(&[&["items"]])),
        ("GET /é/a b", scopes(&[&["items"]])),
        // Which of the two depends on the value: all that either asks for.
        ("GET /x/{a}", scopes(&[&["admin", "items"]])),
        ("GET /{a}/{b}/{c}/{d}/{e}/{f}/{g}", Value::Null),
        ("GET /users/{user_id", Value::Null),
        ("GET /users/..", Value::Null),
        ("GET /users//me", Value::Null),
        ("GET /users?x", Value::Null),
    ] {
        assert_eq!(security(routes, operation), expected, "{operation}");
    }
}

#[test]
fn what_a_document_says_about_a_parameter_chooses_the_route() {
    let policy = policy(
        "routes:\n  GET /x/{a:int}: { scope: items }\n  GET /x/{a}: { scope: admin }\n  GET /x/red: authenticated\n",
    );
    for (schema, expected) in [
        (json!({ "type": "integer" }), scopes(&[&["items"]])),
        (json!({ "type": "string", "format": "uuid" }), scopes(&[&["admin"]])),
        (json!({ "type": "string" }), scopes(&[&["admin", "items"]])),
        (json!({ "enum": ["red"] }), scopes(&[&[]])),
        (json!({ "$ref": "#/components/schemas/Colour" }), scopes(&[&[]])),
        (json!({ "$ref": "#/components/schemas/Nothing" }), scopes(&[&["admin", "items"]])),
        (json!(7), scopes(&[&["admin", "items"]])),
    ] {
        let mut document = document(&["GET /x/{a}"]);
        document["paths"]["/x/{a}"]["get"]["parameters"] = json!([{ "name": "a", "in": "path", "schema": schema }]);
        document["components"]["schemas"]["Colour"] = json!({ "enum": ["red"] });
        let document = rewrite(document, view(&policy)).unwrap();
        assert_eq!(document["paths"]["/x/{a}"]["get"]["security"], expected, "{schema}");
    }
}

#[test]
fn what_is_no_scope_is_said_in_words_and_values_of_the_policy_are_not() {
    let policy = policy(
        "sets: { office: [192.0.2.77/32] }\nconditions: { secret-office: client.ip in office }\n\
         guards: { g: { paths: [/internal/**], require: { role: staff } } }\n\
         routes:\n  GET /a: { scope: admin }\n  GET /b: { permission: 'items:delete', mfa: true }\n  \
         GET /c/{id}: { any: [{ where: path.id == user.id }, { role: staff }] }\n  \
         GET /d: { where: 'token.plan == \"canary\"' }\n  GET /e: { where: secret-office }\n  GET /internal/a: { scope: admin }\n",
    );
    let operations = ["GET /a", "GET /b", "GET /c/{id}", "GET /d", "GET /e", "GET /internal/a"];
    let mut given = document(&operations);
    given["paths"]["/b"]["get"]["description"] = json!("Deletes.");
    let document = rewrite(given, view(&policy)).unwrap();
    for (path, requires, description) in [
        ("/a", "scope `admin`", Value::Null),
        (
            "/b",
            "permission `items:delete` and a second factor",
            json!("Deletes.\n\nRequires permission `items:delete` and a second factor."),
        ),
        ("/c/{id}", "`path.id == user.id` or role `staff`", json!("Requires `path.id == user.id` or role `staff`.")),
        ("/d", "a further condition", json!("Requires a further condition.")),
        ("/e", "a further condition", json!("Requires a further condition.")),
        ("/internal/a", "scope `admin` and role `staff`", json!("Requires scope `admin` and role `staff`.")),
    ] {
        let operation = &document["paths"][path]["get"];
        assert_eq!(
            (&operation["x-portcullis-requires"], &operation["description"]),
            (&json!(requires), &description),
            "{path}"
        );
    }
    let text = document.to_string();
    assert!(!text.contains("canary") && !text.contains("192.0.2.77"), "{text}");
}

#[test]
fn the_scheme_is_the_gateways_own() {
    let mut given = document(&["GET /a"]);
    given["servers"] = json!([{ "url": "http://internal:8000" }]);
    given["security"] = json!([{ "Old": [] }]);
    given["components"] = json!({ "schemas": { "A": {} }, "securitySchemes": { "Old": { "type": "apiKey" } } });
    given["paths"]["/a"]["servers"] = json!([{ "url": "http://internal:8000" }]);
    given["paths"]["/a"]["get"]["security"] = json!([{ "Old": [] }]);
    let routes = "routes:\n  GET /a: { scope: admin }\n";
    let document = rewrite(given.clone(), view(&policy(routes))).unwrap();
    assert_eq!(
        document["components"]["securitySchemes"],
        json!({ "OAuth2PasswordBearer": { "type": "oauth2", "flows": { "password": {
            "tokenUrl": "/token",
            "scopes": { "items": "Everything", "items:read": "Read items", "items:write": "Write items", "admin": "Run it" }
        }}}})
    );
    assert_eq!(document["components"]["schemas"], json!({ "A": {} }));
    let text = document.to_string();
    assert!(!text.contains("internal:8000") && !text.contains("Old"), "{text}");

    // Without a login the tokens come from elsewhere, and OpenAPI 3.0 knows no scopes of a plain bearer.
    let without = format!("{HEAD}{routes}").replace("login: { path: /token, via: upstream }\n", "");
    for (version, expected) in
        [("3.1.0", json!([{ "HTTPBearer": ["admin"] }])), ("3.0.3", json!([{ "HTTPBearer": [] }]))]
    {
        given["openapi"] = json!(version);
        let document = rewrite(given.clone(), view(&policy(&without))).unwrap();
        assert_eq!(
            document["components"]["securitySchemes"],
            json!({ "HTTPBearer": { "type": "http", "scheme": "bearer" } })
        );
        assert_eq!(document["paths"]["/a"]["get"]["security"], expected, "{version}");
    }
}

#[test]
fn header_parameters_that_the_gateway_sets_are_not_shown() {
    let mut given = document(&["GET /a"]);
    let header = |name: &str| json!({ "in": "header", "name": name, "required": true });
    given["paths"]["/a"]["get"]["parameters"] =
        json!([header("x-auth-user"), header("X-Own"), { "in": "query", "name": "x-auth-user" }, { "$ref": "x" }]);
    given["paths"]["/a"]["parameters"] = json!([header("X_Auth_Roles")]);
    let document = rewrite(given, view(&policy("routes:\n  GET /a: { scope: admin }\n"))).unwrap();
    assert_eq!(
        document["paths"]["/a"]["get"]["parameters"],
        json!([header("X-Own"), { "in": "query", "name": "x-auth-user" }, { "$ref": "x" }])
    );
    assert_eq!(document["paths"]["/a"]["parameters"], json!([]));
}

#[test]
fn refusals_are_added_where_they_can_happen_and_the_apps_own_stay() {
    let mut given = document(&["GET /a", "GET /b", "GET /c", "GET /d"]);
    given["paths"]["/b"]["get"]["responses"] =
        json!({ "200": { "description": "x" }, "403": { "description": "mine" } });
    given["paths"]["/d"]["get"]["responses"] = json!("wrong");
    let policy = policy(
        "routes:\n  GET /a: public\n  GET /b: { scope: admin, limit: 5/min by ip }\n  GET /c: authenticated\n  GET /d: authenticated\n",
    );
    let document = rewrite(given, view(&policy)).unwrap();
    let responses = |path: &str| document["paths"][path]["get"]["responses"].clone();
    let refusal = |name: &str| json!({ "$ref": format!("#/components/responses/{name}") });
    assert_eq!(responses("/a"), json!({}));
    assert_eq!(
        responses("/b"),
        json!({
            "200": { "description": "x" }, "403": { "description": "mine" },
            "401": refusal("Portcullis401"), "429": refusal("Portcullis429"),
        })
    );
    assert_eq!(responses("/c"), json!({ "401": refusal("Portcullis401") }));
    assert_eq!(responses("/d"), json!("wrong"));
    for name in ["Portcullis401", "Portcullis403", "Portcullis429"] {
        assert!(document["components"]["responses"][name]["content"]["application/problem+json"].is_object(), "{name}");
    }
}

#[test]
fn paths_are_those_that_clients_see() {
    let base = |line: &str| {
        policy(&format!(
            "{}routes:\n  GET /items/{{id}}: {{ scope: admin }}\n",
            HEAD.replace("login:", &format!("{line}\nlogin:"))
        ))
    };
    let with_server = |url: &str, path: &str| {
        let mut document = document(&[&format!("GET {path}")]);
        document["servers"] = json!([{ "url": url }]);
        document
    };
    for (line, url, path, shown) in [
        ("", "/", "/items/{id}", "/items/{id}"),
        ("", "https://api.example", "/items/{id}", "/items/{id}"),
        ("base: /api/v1", "/", "/api/v1/items/{id}", "/api/v1/items/{id}"),
        // FastAPI's `root_path`.
        ("base: /api/v1", "/api/v1", "/items/{id}", "/api/v1/items/{id}"),
        ("base: /api/v1", "https://h:8000/api/v1/", "/items/{id}", "/api/v1/items/{id}"),
        // Something before us takes it away.
        ("", "/outer", "/items/{id}", "/items/{id}"),
        ("base: /api/v1\nstrip_base: true", "/", "/items/{id}", "/api/v1/items/{id}"),
        ("base: '/t/{tenant:int}'\nstrip_base: true", "/", "/items/{id}", "/t/{tenant}/items/{id}"),
    ] {
        let policy = base(line);
        let document = rewrite(with_server(url, path), view(&policy)).unwrap();
        let paths: Vec<_> = document["paths"].as_object().unwrap().keys().collect();
        assert_eq!(paths, [shown], "{line} {url} {path}");
        let declared = document["paths"][shown]["parameters"][0]["name"].as_str();
        assert_eq!(declared, shown.contains("{tenant}").then_some("tenant"));
        assert_eq!(document.get("servers"), None);
        let token = &document["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]["password"]["tokenUrl"];
        assert!(token.as_str().unwrap().starts_with('/') && token.as_str().unwrap().ends_with("/token"), "{token}");
    }
}

#[test]
fn routes_of_other_apps_do_not_count() {
    let policy = policy(
        "version: 1\napp: a\nupstream: http://localhost:1\nroutes: { GET /a: public }\n---\nversion: 1\napp: b\nupstream: http://localhost:2\nroutes: { GET /b: public }\n",
    );
    let document = rewrite(document(&["GET /a", "GET /b"]), view(&policy)).unwrap();
    assert_eq!(document["paths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["/a"]);
}

#[test]
fn unknown_members_and_the_order_stay() {
    let text = r#"{"x-first":1,"openapi":"3.0.2","paths":{"x-p":{"get":{}},"/z":{"x-i":[1],"get":{"x-o":{"a":1},"security":[],"summary":"s","responses":{}},"summary":"i"},"/a":{"get":{"responses":{},"security":[]}}},"tags":[{"name":"t"}],"info":{"b":1,"a":2},"webhooks":{"w":{"post":{"x":1,"security":[{"Old":[]}]}}}}"#;
    let policy = policy("routes:\n  GET /z: public\n  GET /a: public\n");
    let document = rewrite(serde_json::from_str(text).unwrap(), view(&policy)).unwrap().to_string();
    let kept = text.replace(r#","security":[{"Old":[]}]"#, "");
    assert!(document.starts_with(kept.strip_suffix('}').unwrap()), "{document}");
}

#[test]
fn hostile_documents_are_refused_or_left_alone() {
    let policy = policy("routes:\n  GET /a: { scope: admin }\n  /**: authenticated\n");
    for (text, expected) in [
        ("[]", Some(RewriteError::NotOpenApi)),
        ("7", Some(RewriteError::NotOpenApi)),
        (r#"{"swagger":"2.0"}"#, Some(RewriteError::NotOpenApi)),
        (r#"{"openapi":3.1}"#, Some(RewriteError::NotOpenApi)),
        (r#"{"openapi":"4.0.0"}"#, Some(RewriteError::NotOpenApi)),
        (r#"{"openapi":"3.1.0"}"#, None),
        (r#"{"openapi":"3.1.0","paths":7,"components":7,"servers":7,"webhooks":7}"#, None),
        (
            r#"{"openapi":"3.1.0","paths":{"/a":7,"/b":{"get":7},"":{},"x":{"get":{}},"/c":{"$ref":"x","get":{}}}}"#,
            None,
        ),
        (
            r#"{"openapi":"3.1.0","paths":{"/a":{"get":{"parameters":7,"responses":7,"description":7,"callbacks":7}}}}"#,
            None,
        ),
        (
            r#"{"openapi":"3.1.0","paths":{"/{a}{b}{c}{d}{e}{f}{g}{h}":{"get":{"parameters":[7,{"in":"path","name":"a","schema":{"enum":[{},7,"../x","\u0000"]}}]}}}}"#,
            None,
        ),
        (
            r#"{"openapi":"3.1.0","servers":[{"url":"/{x}"}],"components":{"responses":7,"pathItems":{"a":7}},"paths":{}}"#,
            None,
        ),
    ] {
        let result = rewrite(serde_json::from_str(text).unwrap(), view(&policy));
        assert_eq!(result.err(), expected, "{text}");
    }
    let many: Vec<String> = (0..1000).map(|n| format!("GET /p{n}/{{a}}/{{b}}/{{c}}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(rewrite(document(&many), view(&policy)), Err(RewriteError::TooLarge));
    // An operation that is shown has a requirement, whatever stood around it.
    let text = r#"{"openapi":"3.1.0","paths":{"/a":{"get":{"security":7,"parameters":7}}}}"#;
    let document = rewrite(serde_json::from_str(text).unwrap(), view(&policy)).unwrap();
    assert_eq!(document["paths"]["/a"]["get"]["security"], scopes(&[&["admin"]]));
}

#[test]
fn the_outline_of_a_policy_is_a_document_of_its_own() {
    let policy = policy(
        "routes:\n  GET /: public\n  GET|PUT /items/{id:int}: { scope: 'items:read' }\n  GET /items/{slug}: { scope: admin }\n  \
         /files/{path**}: authenticated\n  GET /later: { access: todo }\n",
    );
    let document = rewrite(outline(&policy, AppId(0)), view(&policy)).unwrap();
    let operations: Vec<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, op)| format!("{method} {path} {}", op["security"]))
        })
        .collect();
    assert_eq!(
        operations,
        [
            "get / []",
            r#"get /items/{id} [{"OAuth2PasswordBearer":["items:read"]}]"#,
            r#"put /items/{id} [{"OAuth2PasswordBearer":["items:read"]}]"#,
            r#"get /items/{slug} [{"OAuth2PasswordBearer":["admin","items:read"]}]"#,
            r#"get /files/{path} [{"OAuth2PasswordBearer":[]}]"#,
            r#"post /files/{path} [{"OAuth2PasswordBearer":[]}]"#,
            r#"put /files/{path} [{"OAuth2PasswordBearer":[]}]"#,
            r#"patch /files/{path} [{"OAuth2PasswordBearer":[]}]"#,
            r#"delete /files/{path} [{"OAuth2PasswordBearer":[]}]"#,
            "post /token []",
        ]
    );
}
