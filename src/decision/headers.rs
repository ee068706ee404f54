//! What the upstream is told about the caller, and what no client may tell it.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::identity::Caller;
use crate::policy::document::Access;
use crate::policy::set::{HeaderRule, HeaderSource, PolicySet};

use super::facts::{Environment, Facts, RequestFacts, Value};
use super::permit::Permit;
use super::reason::{Denial, Reason};

/// The longest value that is sent.
const MAX_VALUE: usize = 4 * 1024;

/// Header fields that can be edited: those of the `http` crate, or of a proxy that keeps more than that.
pub trait Fields {
    /// The names that are there, once each.
    fn names(&self) -> Vec<HeaderName>;
    /// Removes all lines of a name.
    fn remove(&mut self, name: &HeaderName);
    /// Sets a name to one value.
    fn set(&mut self, name: HeaderName, value: HeaderValue);
}

impl Fields for HeaderMap {
    fn names(&self) -> Vec<HeaderName> {
        self.keys().cloned().collect()
    }

    fn remove(&mut self, name: &HeaderName) {
        Self::remove(self, name);
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }
}

/// What changes in the headers of a request and of its response. It cannot be made without the names that are
/// always removed, and applying it twice is the same as once.
#[derive(Clone, Debug)]
pub struct HeaderEdits {
    policy: Arc<PolicySet>,
    request: Vec<(HeaderName, HeaderValue)>,
    response: Vec<(HeaderName, Option<HeaderValue>)>,
}

impl HeaderEdits {
    /// What is set on the request.
    pub fn request(&self) -> &[(HeaderName, HeaderValue)] {
        &self.request
    }

    /// What is set on the response, or removed from it.
    pub fn response(&self) -> &[(HeaderName, Option<HeaderValue>)] {
        &self.response
    }

    /// Also sets this on the request. The name must be one that is always removed.
    pub fn set_on_request(&mut self, name: HeaderName, value: HeaderValue) {
        self.request.push((name, value));
    }

    /// Edits the request that goes upstream. To be called after everything that may remove headers.
    pub fn apply(&self, fields: &mut impl Fields) {
        self.clean(fields);
        for (name, value) in &self.request {
            fields.set(name.clone(), value.clone());
        }
    }

    /// Edits the response that goes to the client.
    pub fn apply_to_response(&self, fields: &mut impl Fields) {
        self.clean(fields);
        for (name, value) in &self.response {
            match value {
                Some(value) => fields.set(name.clone(), value.clone()),
                None => fields.remove(name),
            }
        }
    }

    /// Removes identity headers in every spelling: from requests, responses and trailers.
    pub fn clean(&self, fields: &mut impl Fields) {
        clean(&self.policy, fields);
    }
}

/// Removes identity headers in every spelling.
pub fn clean(policy: &PolicySet, fields: &mut impl Fields) {
    for name in fields.names() {
        if policy.strip.contains(name.as_str()) {
            fields.remove(&name);
        }
    }
}

/// The header edits of an allowed request; 403 if a value cannot be sent safely.
pub fn headers(permit: &Permit, facts: &RequestFacts<'_>, now: Timestamp) -> Result<HeaderEdits, Denial> {
    headers_in(permit, facts, now, Environment::Resolved)
}

pub(super) fn headers_in(
    permit: &Permit,
    request: &RequestFacts<'_>,
    now: Timestamp,
    environment: Environment,
) -> Result<HeaderEdits, Denial> {
    let (policy, route) = (permit.policy(), permit.route());
    let facts = Facts::new(policy, route, permit.target(), request, permit.caller(), now, environment);
    let unsafe_value = |name: &HeaderName| unsafe_value(permit, name);
    let anonymous = route.access != Access::Public && matches!(permit.caller(), Caller::Anonymous);
    let request = Vec::with_capacity(route.headers.len());
    // All values are slices of one text, which costs two allocations instead of two for each when they are sent.
    let mut text = BytesMut::with_capacity(if anonymous { 0 } else { 256 });
    let mut edits = HeaderEdits { policy: Arc::clone(policy), request, response: Vec::new() };
    for HeaderRule { name, value } in route.headers.iter() {
        match value {
            HeaderSource::Anonymous if anonymous => {
                edits.request.push((name.clone(), HeaderValue::from_static("true")));
            }
            HeaderSource::Remove | HeaderSource::Anonymous => {}
            // Nothing is said about nobody.
            _ if anonymous || route.access == Access::Public => {}
            HeaderSource::Literal(value) => edits.request.push((name.clone(), value.clone())),
            HeaderSource::Fact(operand) => match render(&facts.read(operand), policy.encode_unsafe, &mut text) {
                Ok(Some(value)) => edits.request.push((name.clone(), value)),
                Ok(None) => {}
                Err(Unsafe) => return Err(unsafe_value(name)),
            },
        }
    }
    if let Some(prefix) = permit.forwarded_prefix() {
        let value = HeaderValue::try_from(prefix).map_err(|_| unsafe_value(&FORWARDED_PREFIX))?;
        edits.request.push((FORWARDED_PREFIX, value));
    }
    for HeaderRule { name, value } in route.response_headers.iter() {
        let value = match value {
            HeaderSource::Remove => None,
            HeaderSource::Literal(value) => Some(value.clone()),
            HeaderSource::Anonymous => continue,
            HeaderSource::Fact(operand) => match render(&facts.read(operand), policy.encode_unsafe, &mut text) {
                Ok(Some(value)) => Some(value),
                Ok(None) => continue,
                Err(Unsafe) => return Err(unsafe_value(name)),
            },
        };
        edits.response.push((name.clone(), value));
    }
    Ok(edits)
}

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

fn unsafe_value(permit: &Permit, name: &HeaderName) -> Denial {
    let mut denial = Denial::new(Reason::AccessDenied, "access is denied");
    denial.cause = Some(format!("unsafe_header_value: {name}"));
    denial.failed = vec![format!("header {name}")];
    denial.route = Some(permit.route().id);
    denial.app = Some(permit.route().app);
    denial.masks = Some(permit.masks());
    denial.shadow = permit.shadow();
    denial.caller = permit.caller().clone();
    denial
}

/// A value has control characters, or is too long.
struct Unsafe;

/// A value as it is sent: lists joined by commas, absent for what is absent or empty, percent-encoded where a
/// reader could take it for something else. It is written at the end of `text` and split off from it.
fn render(value: &Value<'_>, encode_unsafe: bool, text: &mut BytesMut) -> Result<Option<HeaderValue>, Unsafe> {
    text.clear();
    match value {
        Value::Missing | Value::Unclear | Value::Other => return Ok(None),
        Value::Text(value, _) | Value::Secret(value) => encode(value, false, encode_unsafe, text)?,
        Value::Bool(value) => write(text, format_args!("{value}")),
        Value::Integer(value) => write(text, format_args!("{value}")),
        Value::Float(value) => write(text, format_args!("{value}")),
        Value::Address(value) => write(text, format_args!("{value}")),
        Value::Time(minutes) => write(text, format_args!("{:02}:{:02}", minutes / 60, minutes % 60)),
        Value::Duration(value) => write(text, format_args!("{}", value.as_secs())),
        Value::Names(names) => join(names.iter().copied(), encode_unsafe, text)?,
        Value::List(items) => {
            let mut names = Vec::with_capacity(items.len());
            for item in *items {
                match item {
                    serde_json::Value::String(text) => names.push(text.clone()),
                    serde_json::Value::Number(number) => names.push(number.to_string()),
                    serde_json::Value::Bool(value) => names.push(value.to_string()),
                    // A list of anything else has no form that an app could read back.
                    _ => return Ok(None),
                }
            }
            join(names.iter().map(String::as_str), encode_unsafe, text)?;
        }
    }
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_VALUE {
        return Err(Unsafe);
    }
    HeaderValue::from_maybe_shared(text.split().freeze()).map(Some).map_err(|_| Unsafe)
}

fn write(text: &mut BytesMut, value: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = text.write_fmt(value);
}

fn join<'n>(names: impl Iterator<Item = &'n str>, encode_unsafe: bool, text: &mut BytesMut) -> Result<(), Unsafe> {
    for (number, name) in names.filter(|name| !name.is_empty()).enumerate() {
        if number > 0 {
            text.extend_from_slice(b",");
        }
        encode(name, true, encode_unsafe, text)?;
    }
    Ok(())
}

fn encode(value: &str, in_list: bool, encode_unsafe: bool, text: &mut BytesMut) -> Result<(), Unsafe> {
    let plain = |byte: u8| matches!(byte, b'!'..=b'~') & (byte != b'%') & !(in_list & (byte == b','));
    if value.bytes().fold(true, |all, byte| all & plain(byte)) {
        text.extend_from_slice(value.as_bytes());
        return Ok(());
    }
    let inner = value.trim_matches(' ');
    let leading = value.len() - value.trim_start_matches(' ').len();
    for (at, character) in value.char_indices() {
        let is_edge = character == ' ' && (at < leading || at >= leading + inner.len());
        // DEL and C1 controls count as well as CR, LF and NUL.
        if character.is_control() && !encode_unsafe {
            return Err(Unsafe);
        }
        let mut buffer = [0; 4];
        let bytes = character.encode_utf8(&mut buffer).as_bytes();
        if is_edge
            || character == '%'
            || !character.is_ascii()
            || character.is_control()
            || (in_list && character == ',')
        {
            for byte in bytes {
                write(text, format_args!("%{byte:02X}"));
            }
        } else {
            text.extend_from_slice(bytes);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn values_are_encoded_so_that_they_cannot_be_mistaken() {
        let sent = |value: &Value<'_>, encode_unsafe| match render(value, encode_unsafe, &mut BytesMut::new()) {
            Ok(value) => value.map(|value| value.to_str().unwrap().to_owned()),
            Err(Unsafe) => Some("refused".to_owned()),
        };
        let long = "x".repeat(MAX_VALUE + 1);
        for (value, expected) in [
            (Value::text("ada"), Some("ada")),
            (Value::text("Zoë 100%"), Some("Zo%C3%AB 100%25")),
            (Value::text(" a b "), Some("%20a b%20")),
            (Value::text("  "), Some("%20%20")),
            (Value::text("a,b"), Some("a,b")),
            (Value::text(""), None),
            (Value::Missing, None),
            (Value::text("a\r\nX: y"), Some("refused")),
            (Value::text("a\tb"), Some("refused")),
            (Value::text(&long), Some("refused")),
            (Value::Names(smallvec!["user,admin", "b"]), Some("user%2Cadmin,b")),
            (Value::Names(smallvec![]), None),
            (Value::Integer(7), Some("7")),
        ] {
            assert_eq!(sent(&value, false).as_deref(), expected, "{value:?}");
        }
        assert_eq!(sent(&Value::text("a\r\nb"), true).as_deref(), Some("a%0D%0Ab"));
    }
}
