//! Where an OpenID provider's endpoints are: its discovery document, read strictly.

use serde_json::{Map, Value};

use crate::identity::claims::Strict;

use super::error::ProviderError;
use super::url::Url;

/// The longest document, in bytes.
pub(super) const MOST: usize = 256 * 1024;
/// Where it is, below the issuer.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// What an issuer says about itself (OpenID Connect Discovery §3).
///
/// It can be trusted as far as its issuer: it came from there, and says so itself. What it names must be on the issuer's
/// own host, with TLS where the issuer has it. Endpoints for tokens and for browsers may also be at another public name
/// with TLS, as Google's and Cognito's are; never at an address, or at a name of an inner network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The issuer, exactly as it is configured.
    pub issuer: Box<str>,
    /// Where its keys are, if on its own host; another must be configured.
    pub jwks_uri: Option<Box<str>>,
    /// Where browsers are sent to sign in.
    pub authorization_endpoint: Option<Box<str>>,
    /// Where codes and refresh tokens become tokens.
    pub token_endpoint: Option<Box<str>>,
    /// Where browsers are sent to sign out.
    pub end_session_endpoint: Option<Box<str>>,
    /// Whether its answers to browsers name it (RFC 9207): then one that does not is another's.
    pub names_itself: bool,
    /// Whether it takes client credentials in the body alone: Basic is what everybody must take, unless it says so.
    pub secret_in_body: bool,
}

impl Discovery {
    /// Where the document of an issuer is. A slash at the end of the issuer counts once.
    pub fn url(issuer: &str) -> String {
        format!("{}{WELL_KNOWN}", issuer.strip_suffix('/').unwrap_or(issuer))
    }

    /// Reads the document that was found for an issuer.
    pub fn parse(issuer: &str, body: &[u8]) -> Result<Self, ProviderError> {
        let wrong = |why: &str| ProviderError::Misconfigured(format!("the discovery document: {why}").into());
        let home = Url::parse(issuer).ok_or_else(|| wrong("the issuer is no URL"))?;
        if body.len() > MOST {
            return Err(ProviderError::Unavailable("the discovery document is too long".into()));
        }
        let document = Strict::object(body)
            .map_err(|error| ProviderError::Unavailable(format!("the discovery document: {error}").into()))?;
        // RFC 8414 §3.3: byte by byte, or keys of one issuer would serve another.
        match document.get("issuer") {
            Some(Value::String(named)) if named == issuer => {}
            Some(Value::String(_)) => return Err(wrong("it is of another issuer")),
            _ => return Err(wrong("it names no issuer")),
        }
        let at_home = |url: &Url| url.is_on_host_of(&home) && (url.is_https() || !home.is_https());
        let elsewhere = |url: &Url| home.is_https() && url.is_https() && url.is_public_name();
        let endpoint = |name: &str| match url(&document, name)? {
            Some((text, url)) if at_home(&url) || elsewhere(&url) => Ok(Some(text)),
            Some(_) => Err(wrong(&format!("`{name}` leads to where it must not"))),
            None => Ok(None),
        };
        Ok(Self {
            issuer: issuer.into(),
            jwks_uri: url(&document, "jwks_uri")?.filter(|(_, url)| at_home(url)).map(|(text, _)| text),
            authorization_endpoint: endpoint("authorization_endpoint")?,
            token_endpoint: endpoint("token_endpoint")?,
            end_session_endpoint: endpoint("end_session_endpoint")?,
            names_itself: document.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true)),
            secret_in_body: secret_in_body(&document),
        })
    }

    /// Where the keys are. An error says what must be configured.
    pub fn keys(&self) -> Result<&str, ProviderError> {
        let elsewhere = "the discovery document names no keys on the issuer's own host: state `jwks_url`";
        self.jwks_uri.as_deref().ok_or_else(|| ProviderError::Misconfigured(elsewhere.into()))
    }
}

fn url(document: &Map<String, Value>, name: &str) -> Result<Option<(Box<str>, Url)>, ProviderError> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(value) => {
            let read = value.as_str().and_then(|text| Some((text.into(), Url::parse(text)?)));
            let wrong = || ProviderError::Misconfigured(format!("the discovery document: `{name}` is no URL").into());
            read.map(Some).ok_or_else(wrong)
        }
    }
}

fn secret_in_body(document: &Map<String, Value>) -> bool {
    let Some(Value::Array(methods)) = document.get("token_endpoint_auth_methods_supported") else { return false };
    let has = |name: &str| methods.iter().any(|method| method.as_str() == Some(name));
    has("client_secret_post") && !has("client_secret_basic")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://id.example/realms/a";

    fn parse(issuer: &str, document: &Value) -> Result<Discovery, ProviderError> {
        Discovery::parse(issuer, document.to_string().as_bytes())
    }

    #[test]
    fn a_document_names_endpoints_and_keys() {
        let found = parse(
            ISSUER,
            &json!({
                "issuer": ISSUER,
                "jwks_uri": "https://id.example/keys",
                "authorization_endpoint": "https://id.example/auth?tenant=a",
                "token_endpoint": "https://tokens.example/token",
                "end_session_endpoint": null,
                "authorization_response_iss_parameter_supported": true,
                "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
            }),
        )
        .unwrap();
        assert_eq!(found.keys().unwrap(), "https://id.example/keys");
        assert_eq!(found.authorization_endpoint.as_deref(), Some("https://id.example/auth?tenant=a"));
        assert_eq!(found.token_endpoint.as_deref(), Some("https://tokens.example/token"));
        assert!(found.end_session_endpoint.is_none() && found.names_itself && found.secret_in_body);
        let least = parse(ISSUER, &json!({ "issuer": ISSUER })).unwrap();
        assert!(least.keys().is_err() && !least.names_itself && !least.secret_in_body);
    }

    #[test]
    fn the_document_is_below_the_issuer() {
        for (issuer, expected) in [
            ("https://a.example", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/r/b", "https://a.example/r/b/.well-known/openid-configuration"),
        ] {
            assert_eq!(Discovery::url(issuer), expected);
        }
    }

    /// H06: the issuer is compared byte by byte.
    #[test]
    fn a_document_of_another_issuer_is_refused() {
        for named in [
            json!("https://id.example/realms/a/"),
            json!("https://id.example/realms/b"),
            json!("https://ID.example/realms/a"),
            json!("http://id.example/realms/a"),
            json!(["https://id.example/realms/a"]),
            json!(null),
        ] {
            let error = parse(ISSUER, &json!({ "issuer": named })).unwrap_err();
            assert!(matches!(error, ProviderError::Misconfigured(_)), "{named}: {error}");
        }
        assert!(parse(ISSUER, &json!({})).is_err());
        assert!(parse("id.example", &json!({ "issuer": "id.example" })).is_err());
    }

    /// H05: keys are on the issuer's host alone, with TLS unless the policy's own URL has none.
    #[test]
    fn keys_elsewhere_are_not_fetched() {
        for (issuer, uri, expected) in [
            (ISSUER, "https://id.example:8443/keys", true),
            (ISSUER, "http://id.example/keys", false),
            (ISSUER, "https://evil.example/keys", false),
            (ISSUER, "https://id.example.evil.example/keys", false),
            (ISSUER, "https://169.254.169.254/latest/meta-data", false),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000/keys", true),
            ("http://127.0.0.1:9000", "http://169.254.169.254/keys", false),
        ] {
            let found = parse(issuer, &json!({ "issuer": issuer, "jwks_uri": uri })).unwrap();
            assert_eq!(found.keys().is_ok(), expected, "{uri}");
        }
        for uri in [json!("file:///etc/passwd"), json!("https://user@id.example/"), json!(7), json!("//id.example/")] {
            assert!(parse(ISSUER, &json!({ "issuer": ISSUER, "jwks_uri": uri })).is_err(), "{uri}");
        }
    }

    #[test]
    fn endpoints_lead_to_the_issuers_host_or_to_a_public_name_with_tls() {
        for (issuer, endpoint, expected) in [
            (ISSUER, "https://id.example/token", true),
            (ISSUER, "https://oauth2.googleapis.com/token", true),
            (ISSUER, "http://id.example/token", false),
            (ISSUER, "http://oauth2.googleapis.com/token", false),
            (ISSUER, "https://169.254.169.254/token", false),
            (ISSUER, "https://[fd00::1]/token", false),
            (ISSUER, "https://localhost/token", false),
            (ISSUER, "https://vault.internal/token", false),
            (ISSUER, "https://redis:6379/token", false),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9001/token", true),
            ("http://127.0.0.1:9000", "https://oauth2.googleapis.com/token", false),
            ("http://127.0.0.1:9000", "http://10.0.0.1/token", false),
        ] {
            let found = parse(issuer, &json!({ "issuer": issuer, "token_endpoint": endpoint }));
            assert_eq!(found.is_ok(), expected, "{endpoint}");
        }
    }

    /// O08: what is not strict JSON is an outage, not a document.
    #[test]
    fn broken_json_is_no_document() {
        let good = format!(r#"{{"issuer": "{ISSUER}"}}"#);
        assert!(Discovery::parse(ISSUER, good.as_bytes()).is_ok());
        let twice = format!(r#"{{"issuer": "{ISSUER}", "issuer": "{ISSUER}"}}"#);
        let deep = format!(r#"{{"issuer": "{ISSUER}", "x": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let long = format!(r#"{{"issuer": "{ISSUER}", "x": "{}"}}"#, "x".repeat(MOST));
        for body in [
            "",
            "<html></html>",
            "[]",
            "null",
            &twice,
            &deep,
            &long,
            &good.replace('}', ",}"),
            &good.replace('}', ""),
            &format!("\u{feff}{good}"),
            &format!("{good} x"),
            &good.replace("realms", r"\ud800"),
            &format!(r#"{{"issuer": "{ISSUER}", "x": NaN}}"#),
            &format!(r#"{{"issuer": "{ISSUER}", "x": 1e999}}"#),
            &format!("// x\n{good}"),
        ] {
            let found = Discovery::parse(ISSUER, body.as_bytes());
            assert!(matches!(found, Err(ProviderError::Unavailable(_))), "{:.40}", body);
        }
        assert!(Discovery::parse(ISSUER, b"{\"issuer\": \"\xff\"}").is_err());
    }
}
