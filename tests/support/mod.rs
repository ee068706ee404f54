//! Policies and decisions for tests, through the functions that the gateway uses.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::HeaderMap;
use portcullis::clock::Timestamp;
use portcullis::decision::{self, Denial, Permit, RequestFacts};
use portcullis::diagnostic::Sources;
use portcullis::identity::Caller;
use portcullis::policy::Options;
use portcullis::policy::references::References;
use portcullis::policy::set::{PolicySet, Revision};
use portcullis::request::Asked;
use portcullis::request::forwarded::ClientAddr;
use portcullis::request::head::RequestHead;

/// One file as a compiled set; it must have no errors.
pub fn policy(text: &str) -> Arc<PolicySet> {
    let mut sources = Sources::default();
    sources.add("policies/test.yaml", text);
    let (document, mut diagnostics) = portcullis::policy::read(&sources);
    let (checked, found) = portcullis::policy::check(document, &sources, &Options::default());
    diagnostics.extend(found);
    let checked = checked.unwrap_or_else(|| panic!("{diagnostics:#?}\n{text}"));
    let compiled = portcullis::policy::compile::compile(&checked, &sources, &References::none(), Revision::default());
    Arc::clone(compiled.unwrap_or_else(|problems| panic!("{problems:#?}")).policy())
}

/// Decides a request without headers but `Host`.
pub fn decide(
    policy: &Arc<PolicySet>,
    method: &str,
    target: &str,
    caller: Caller,
    now: Timestamp,
) -> Result<Permit, Denial> {
    let mut headers = HeaderMap::new();
    headers.insert("host", http::HeaderValue::from_static("gateway.example"));
    let head = RequestHead::new(method, target.as_bytes(), &headers);
    let asked = Asked::parse(&head)?;
    let routed = decision::route(policy, asked.target, &asked.host, &head)?;
    let client = ClientAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
    decision::authorize(routed, caller, &RequestFacts { head: &head, host: &asked.host, client, country: None }, now)
}
