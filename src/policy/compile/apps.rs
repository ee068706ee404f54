//! Apps and where their requests go.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::diagnostic::{Code, Span, Spanned};
use crate::policy::document::{self, AppHeader, Source};
use crate::policy::set::{App, Assertion, Cors, HostPattern, Upstream, UpstreamId};

use super::Builder;

/// What Swagger UI and ordinary clients send.
const CORS_HEADERS: &[&str] = &["authorization", "content-type", "x-requested-with"];

/// What the clients of Supabase send, uploads in pieces (tus) included.
const SUPABASE_HEADERS: &[&str] = &[
    "authorization",
    "x-client-info",
    "apikey",
    "content-type",
    "x-supabase-api-version",
    "x-retry-count",
    "prefer",
    "accept",
    "accept-profile",
    "content-profile",
    "range",
    "range-unit",
    "if-none-match",
    "x-upsert",
    "x-metadata",
    "x-region",
    "cache-control",
    "x-requested-with",
    "tus-resumable",
    "upload-length",
    "upload-metadata",
    "upload-offset",
    "upload-defer-length",
    "x-http-method-override",
];

/// What they read, and what tus clients read.
const SUPABASE_EXPOSED: &[&str] = &[
    "x-supabase-api-version",
    "x-sb-error-code",
    "content-range",
    "preference-applied",
    "location",
    "x-total-count",
    "link",
    "www-authenticate",
    "tus-resumable",
    "tus-version",
    "tus-extension",
    "tus-max-size",
    "upload-offset",
    "upload-length",
];

/// How long an assertion is valid, if nothing is stated.
const ASSERTION: Duration = Duration::from_secs(60);

impl Builder<'_> {
    pub(super) fn apps(&mut self) {
        let nothing = AppHeader::default();
        let document = self.document;
        for app in &document.apps {
            let header = app.header().unwrap_or(&nothing);
            let place = self.place(app.name.span);
            let name: Arc<str> = app.name.value.as_str().into();
            self.policy.apps.push(App {
                realm: Arc::clone(&name),
                name,
                place,
                hosts: header.hosts.iter().map(|host| host_text(&host.value)).collect(),
                base: header.base.as_ref().map_or_else(Vec::new, |base| base.segments.clone()),
                strip_base: header.strip_base,
                fold_case: header.case_insensitive == Some(true),
                irregular: header.irregular,
                cors: header.cors.as_ref().map(|cors| cors_settings(&cors.value, header.preset.is_some())),
                errors_fastapi: header.errors_fastapi,
                forward_token: header.defaults.forward_token.as_ref().is_none_or(|forward| forward.value),
                enforce_method_override: header.defaults.enforce_method_override.is_some(),
                allow_on_store_error: header.defaults.allow_on_store_error.is_some(),
                login: None,
                assertion: header.assertion.as_ref().map(|assertion| {
                    let Spanned { value: document::Assertion { audience, expires }, .. } = assertion;
                    Assertion {
                        audience: audience.as_ref().map_or(&app.name.value, |audience| &audience.value).as_str().into(),
                        expires: expires.as_ref().map_or(ASSERTION, |expires| expires.value),
                    }
                }),
            });
        }
    }

    /// The upstream of a route: its own, or its app's.
    pub(super) fn upstream(
        &mut self,
        header: &AppHeader,
        own: Option<&Spanned<Source>>,
        route: Span,
    ) -> Option<UpstreamId> {
        let Some(source) = own.or(header.upstream.as_ref()) else {
            self.problem(Code::P207, route, "neither the route nor its app has an `upstream`");
            return None;
        };
        let text = match &source.value {
            Source::Literal(url) => Some(url.clone()),
            Source::Env(name) => self.references.env(name).map(|value| value.expose().clone()),
            Source::File(_) => None,
        };
        let ca = header.upstream_ca.as_ref().and_then(|ca| self.resolve(ca));
        let server_name = header.upstream_server_name.as_ref().filter(|_| own.is_none());
        let insecure = header.upstream_insecure.is_some();
        let upstream = match text {
            None => {
                let url = match &source.value {
                    Source::Env(name) => format!("env:{name}"),
                    Source::File(path) => format!("file:{path}"),
                    Source::Literal(url) => url.clone(),
                };
                let (host, server_name) = (String::new(), "unresolved".to_owned());
                Upstream { url, tls: false, host, port: 0, server_name, ca, insecure }
            }
            Some(url) => {
                let Some((tls, host, port)) = parse_url(&url) else {
                    self.problem(Code::P109, source.span, "an upstream is `http://` or `https://`, a host and a port");
                    return None;
                };
                let server_name = server_name.map_or_else(|| host.clone(), |name| name.value.clone());
                Upstream { url, tls, host, port, server_name, ca, insecure }
            }
        };
        if let Some(id) = self.upstreams.get(&upstream) {
            return Some(*id);
        }
        let id = UpstreamId(self.policy.upstreams.len());
        self.policy.upstreams.push(upstream.clone());
        self.upstreams.insert(upstream, id);
        Some(id)
    }

    /// The bytes that a source stands for; `None` if the reference is not resolved.
    pub(super) fn resolve(&self, source: &Spanned<Source>) -> Option<Vec<u8>> {
        match &source.value {
            Source::Literal(text) => Some(text.clone().into_bytes()),
            Source::Env(name) => self.references.env(name).map(|value| value.expose().clone().into_bytes()),
            Source::File(path) => self.references.file(source.span.file, path).map(|content| content.expose().clone()),
        }
    }

    /// Methods as they run: `GET` includes `HEAD`.
    pub(super) fn methods(&mut self, named: &[Spanned<String>]) -> Vec<Method> {
        let mut methods = Vec::new();
        for name in named {
            match Method::from_bytes(name.value.as_bytes()) {
                Ok(method) => {
                    let with_head = method == Method::GET;
                    for method in std::iter::once(method).chain(with_head.then_some(Method::HEAD)) {
                        if !methods.contains(&method) {
                            methods.push(method);
                        }
                    }
                }
                Err(_) => self.problem(Code::P202, name.span, format!("unknown method `{}`", name.value)),
            }
        }
        methods
    }
}

/// A host as it is compared: lower case, Unicode as punycode.
fn host_text(host: &str) -> String {
    let (wildcard, name) = host.strip_prefix("*.").map_or(("", host), |suffix| ("*.", suffix));
    let name = idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_ascii_lowercase());
    format!("{wildcard}{}", name.trim_end_matches('.'))
}

/// A host as it is matched.
pub(super) fn host_pattern(host: &str) -> HostPattern {
    HostPattern::new(&host_text(host))
}

fn cors_settings(cors: &document::Cors, is_edge: bool) -> Cors {
    let (headers, expose) = if is_edge { (SUPABASE_HEADERS, SUPABASE_EXPOSED) } else { (CORS_HEADERS, &[][..]) };
    let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    let texts = |texts: &[Spanned<String>]| texts.iter().map(|text| text.value.as_str().into()).collect();
    let any_origin = cors.origins.iter().any(|origin| origin.value == "*");
    Cors {
        any_origin,
        origins: texts(&cors.origins),
        methods: texts(&cors.methods),
        headers: cors.headers.as_ref().map_or_else(|| names(headers), |headers| texts(headers)),
        expose: if cors.expose.is_empty() { names(expose) } else { texts(&cors.expose) },
        credentials: cors.credentials,
        max_age: cors.max_age.unwrap_or(Duration::from_secs(600)),
    }
}

/// TLS, host and port of an upstream's URL. IPv6 addresses lose their brackets.
fn parse_url(url: &str) -> Option<(bool, String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let authority: http::uri::Authority = rest.parse().ok()?;
    if rest.contains('@') || authority.host().is_empty() {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    // `Authority::port` is `None` for a port that does not fit, too.
    let port = match rest.strip_prefix(authority.host())?.strip_prefix(':') {
        Some(port) if port.starts_with('+') => return None,
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if tls => 443,
        None => 80,
    };
    Some((tls, host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_urls() {
        for (url, expected) in [
            ("http://localhost:8000", Some((false, "localhost", 8000))),
            ("https://API.internal", Some((true, "api.internal", 443))),
            ("http://[::1]:9000/", Some((false, "::1", 9000))),
            ("http://127.0.0.1", Some((false, "127.0.0.1", 80))),
            ("http://a/b", None),
            ("http://user@a", None),
            ("http://a:99999", None),
            ("http://a:", None),
            ("ftp://a", None),
            ("localhost:8000", None),
            ("http://", None),
        ] {
            let expected = expected.map(|(tls, host, port)| (tls, host.to_owned(), port));
            assert_eq!(parse_url(url), expected, "{url}");
        }
    }

    #[test]
    fn hosts_are_lower_case_punycode() {
        for (written, compared) in [
            ("API.Example", "api.example"),
            ("*.Bücher.example", "*.xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(host_text(written), compared);
        }
    }
}
