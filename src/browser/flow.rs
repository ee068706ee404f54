//! The way to a provider and back: what was begun is in a cookie of its own, so that several tabs do not clash.
//!
//! ```text
//! __Host-login-<id> = base64url(sealed flow)      ; ten minutes; at most five at a time
//! ```
//!
//! The cookie binds the way back to the browser that went: without it, or with another's, nobody is signed in (RFC 9700
//! §2.1). It is sealed, since it holds what only the gateway may show the provider.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::clock::Timestamp;
use crate::policy::set::BrowserLogin;
use crate::random::Random;
use crate::request::cookie;
use crate::store::StoreError;

use super::Inner;
use super::kept::random_text;
use super::seal::OpenError;

/// How the cookies of logins under way begin: never sent upstream, never taken from there.
pub(super) const FLOW_COOKIES: &str = "__Host-login-";

/// How long a login may take.
const LIFE: u64 = 600;
/// How many logins may be under way in a browser.
const MOST: usize = 5;
/// The longest cookie that is opened.
const MOST_COOKIE: usize = 4096;
/// The length of an id.
const ID_LEN: usize = 22;

/// A login under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Flow {
    /// When it began, in milliseconds.
    pub(super) at: i64,
    /// The app.
    pub(super) app: String,
    /// The issuer of the tokens it ends with.
    pub(super) issuer: String,
    /// What must come back.
    pub(super) state: String,
    /// What must be in the ID token.
    pub(super) nonce: String,
    /// The PKCE verifier.
    pub(super) verifier: String,
    /// Where it ends.
    pub(super) return_to: String,
}

/// Why there is no flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FlowError {
    /// There is none of that name in this browser, it is too old, or it was not made by us.
    Unknown,
    /// Keys cannot be read now.
    Store(StoreError),
}

impl From<StoreError> for FlowError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The id of a new flow.
pub(super) fn new_id(random: &dyn Random) -> String {
    random_text::<16>(random).to_string()
}

/// Whether something can be the id of a flow.
fn is_id(text: &str) -> bool {
    text.len() == ID_LEN && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Removes the cookie of a flow.
pub(super) fn clearing(id: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{FLOW_COOKIES}{id}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax")).ok()
}

/// Whether what came back is what was sent along.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// The ids of the flows of a browser.
fn ids(headers: &HeaderMap) -> Vec<&str> {
    let mut ids = Vec::new();
    for field in headers.get_all(COOKIE) {
        for pair in field.to_str().unwrap_or_default().split(';') {
            let name = pair.split('=').next().unwrap_or_default().trim();
            if let Some(id) = name.strip_prefix(FLOW_COOKIES).filter(|id| is_id(id) && !ids.contains(id)) {
                ids.push(id);
            }
        }
    }
    ids
}

fn binds(id: &str) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, format!("login under way: {id}").as_bytes());
    hash.as_ref().first_chunk().copied().unwrap_or_default()
}

impl Inner {
    /// The cookies that begin a flow: its own, and the removal of those that are too many.
    pub(super) async fn begin_flow(
        &self,
        login: &BrowserLogin,
        headers: &HeaderMap,
        id: &str,
        flow: &Flow,
        now: Timestamp,
    ) -> Result<Vec<HeaderValue>, StoreError> {
        let text = serde_json::to_vec(flow).map_err(|_| StoreError::Corrupt("a login under way".to_owned()))?;
        let sealed = self.sealer.seal(&login.keys, &binds(id), &text).await?;
        let value = URL_SAFE_NO_PAD.encode(sealed);
        let cookie = format!("{FLOW_COOKIES}{id}={value}; Path=/; Max-Age={LIFE}; Secure; HttpOnly; SameSite=Lax");
        let mut cookies: Vec<HeaderValue> = HeaderValue::try_from(cookie).into_iter().collect();
        let others = ids(headers);
        if others.len() >= MOST {
            // Few get here: it takes several tabs with unfinished logins.
            let mut ages = Vec::new();
            for other in others {
                let began = self.flow(login, headers, other, now).await.map_or(i64::MIN, |flow| flow.at);
                ages.push((began, other));
            }
            ages.sort_unstable();
            let too_many = ages.len().saturating_sub(MOST - 1);
            cookies.extend(ages.into_iter().take(too_many).filter_map(|(_, other)| clearing(other)));
        }
        Ok(cookies)
    }

    /// A flow that this browser began.
    pub(super) async fn flow(
        &self,
        login: &BrowserLogin,
        headers: &HeaderMap,
        id: &str,
        now: Timestamp,
    ) -> Result<Flow, FlowError> {
        if !is_id(id) {
            return Err(FlowError::Unknown);
        }
        let value = cookie::find(headers, &format!("{FLOW_COOKIES}{id}")).ok().flatten();
        // Its size comes before anything is done with it.
        let value = value.filter(|value| value.len() <= MOST_COOKIE).ok_or(FlowError::Unknown)?;
        let sealed = URL_SAFE_NO_PAD.decode(value).map_err(|_| FlowError::Unknown)?;
        let text = self.sealer.open(&login.keys, &binds(id), &sealed).await.map_err(|error| match error {
            OpenError::Store(error) => FlowError::Store(error),
            OpenError::UnknownKey | OpenError::Broken => FlowError::Unknown,
        })?;
        let flow: Flow = serde_json::from_slice(&text).map_err(|_| FlowError::Unknown)?;
        let age = now.as_millis().saturating_sub(flow.at);
        // Another gateway's clock may be a little ahead.
        if (-60_000..=i64::try_from(LIFE * 1000).unwrap_or(0)).contains(&age) {
            Ok(flow)
        } else {
            Err(FlowError::Unknown)
        }
    }
}
