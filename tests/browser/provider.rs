//! An identity provider that is Supabase Auth and an OpenID provider at once, with a clock that is moved by hand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::clock::{Clock as _, ManualClock};
use portcullis::token::algorithm::Algorithm;
use portcullis::token::mint::Minter;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::upstream::{Recorded, Upstream};

/// What Supabase's tokens are signed with.
pub const SECRET: &str = "a-secret-of-the-tests-with-more-than-32-bytes";
/// How long access tokens live, in seconds.
pub const LIFE: i64 = 3600;
/// What everybody's password is.
pub const PASSWORD: &str = "a long walk in the rain";

/// What becomes of a request for new tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// They are given out.
    Fine,
    /// This status, with nothing to be read in it.
    Status(u16),
    /// They are given out, but nobody hears of it: the connection ends.
    Cut,
    /// It says nothing for ten seconds.
    Silent,
}

#[derive(Default)]
struct State {
    /// Refresh tokens: their session, and whether they were used.
    tokens: HashMap<String, (String, bool)>,
    /// Sessions: the newest token, and the user.
    sessions: HashMap<String, (String, String)>,
    /// Codes: the challenge, the user, the nonce.
    codes: HashMap<String, (String, String, String)>,
    moods: Vec<Mood>,
    mood: Option<Mood>,
    reused: usize,
    logged_out: Vec<String>,
    /// Claims that are put into ID tokens instead of the right ones.
    lies: Map<String, Value>,
    /// Whether access tokens of the OpenID provider say nothing.
    opaque: bool,
    /// Answers to sign-ups: `None` is a session.
    confirms: bool,
    count: usize,
}

pub struct Provider {
    pub server: Upstream,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    clock: Arc<ManualClock>,
    refreshes: AtomicUsize,
    slow: Mutex<Duration>,
    signer: Minter,
    address: Mutex<Option<SocketAddr>>,
}

impl Provider {
    pub async fn start(clock: Arc<ManualClock>) -> Self {
        let (signer, _) = Minter::generate(Algorithm::ES256, &[7; 32]).unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            clock,
            refreshes: AtomicUsize::new(0),
            slow: Mutex::new(Duration::ZERO),
            signer,
            address: Mutex::new(None),
        });
        let answering = Arc::clone(&shared);
        let server = Upstream::serving(move |request, mut io| {
            let shared = Arc::clone(&answering);
            Box::pin(async move {
                let bytes = shared.answer(&request).await?;
                io.write_all(&bytes).await.ok()?;
                io.flush().await.ok()?;
                Some(io)
            })
        })
        .await;
        *shared.address.lock().unwrap() = Some(server.address);
        Self { server, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Where it says that it is, when people reach it through something else.
    pub fn known_as(&self, address: SocketAddr) {
        *self.shared.address.lock().unwrap() = Some(address);
    }

    /// A token with these claims, signed with the key of the OpenID provider.
    pub fn token(&self, claims: &Value) -> String {
        self.shared.es256(claims)
    }

    /// How often new tokens were asked for.
    pub fn refreshes(&self) -> usize {
        self.shared.refreshes.load(Ordering::SeqCst)
    }

    /// How often a token was presented that must not be presented again.
    pub fn reused(&self) -> usize {
        self.shared.state.lock().unwrap().reused
    }

    /// How it answers the next requests for new tokens, one after the other; then it is fine.
    pub fn moods(&self, moods: &[Mood]) {
        self.shared.state.lock().unwrap().moods = moods.iter().rev().copied().collect();
    }

    /// How it answers all of them.
    pub fn always(&self, mood: Option<Mood>) {
        self.shared.state.lock().unwrap().mood = mood;
    }

    /// How long it takes for new tokens.
    pub fn slow(&self, delay: Duration) {
        *self.shared.slow.lock().unwrap() = delay;
    }

    /// What ID tokens claim instead of the truth; null leaves a claim out.
    pub fn lie(&self, claims: Value) {
        self.shared.state.lock().unwrap().lies = claims.as_object().cloned().unwrap_or_default();
    }

    pub fn opaque(&self, opaque: bool) {
        self.shared.state.lock().unwrap().opaque = opaque;
    }

    pub fn confirms(&self, confirms: bool) {
        self.shared.state.lock().unwrap().confirms = confirms;
    }

    /// Ends all sessions, as an administrator does.
    pub fn end_sessions(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.sessions.clear();
        state.tokens.clear();
    }

    /// The access tokens that were logged out.
    pub fn logged_out(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().logged_out.clone()
    }

    /// Follows the redirect to it, as a browser that signs in: where it leads.
    pub fn authorize(&self, location: &str) -> String {
        let query = location.split_once('?').unwrap().1;
        let get = |name: &str| {
            let found = form_urlencoded::parse(query.as_bytes()).find(|(found, _)| found == name);
            found.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        assert_eq!(get("code_challenge").len(), 43, "{location}");
        assert!(get("code_challenge_method").eq_ignore_ascii_case("s256"));
        let mut state = self.shared.state.lock().unwrap();
        state.count += 1;
        let code = format!("code-{}", state.count);
        state.codes.insert(code.clone(), (get("code_challenge"), "ada".to_owned(), get("nonce")));
        if location.contains("/auth/v1/authorize") {
            let back = get("redirect_to");
            return format!("{back}{}code={code}", if back.contains('?') { '&' } else { '?' });
        }
        let issuer: String = form_urlencoded::byte_serialize(format!("{}/oidc", self.url()).as_bytes()).collect();
        format!("{}?code={code}&state={}&iss={issuer}", get("redirect_uri"), get("state"))
    }
}

impl Shared {
    fn now(&self) -> i64 {
        self.clock.now().as_seconds()
    }

    async fn answer(&self, request: &Recorded) -> Option<Vec<u8>> {
        let target = request.target();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let form: HashMap<String, String> = form_urlencoded::parse(&request.body).into_owned().collect();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().map(str::to_owned).or_else(|| form.get(name).cloned());
        let grant = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "grant_type");
        let grant = grant.map(|(_, value)| value.into_owned()).or_else(|| text("grant_type"));
        let is_oidc = path.starts_with("/oidc/");
        let (status, answer) = match (path, grant.as_deref()) {
            ("/auth/v1/.well-known/jwks.json", _) => (200, json!({ "keys": [] })),
            ("/oidc/jwks", _) => {
                let jwk = self.signer.verifying_key().to_jwk().unwrap();
                (200, json!({ "keys": [jwk] }))
            }
            ("/oidc/.well-known/openid-configuration", _) => {
                let issuer = format!("http://{}/oidc", self.address.lock().unwrap().unwrap());
                (
                    200,
                    json!({
                        "issuer": issuer,
                        "jwks_uri": format!("{issuer}/jwks"),
                        "authorization_endpoint": format!("{issuer}/authorize"),
                        "token_endpoint": format!("{issuer}/token"),
                        "authorization_response_iss_parameter_supported": true,
                    }),
                )
            }
            ("/auth/v1/logout", _) => {
                let bearer = request.value("authorization").unwrap_or_default();
                let mut state = self.state.lock().unwrap();
                state.logged_out.push(bearer.trim_start_matches("Bearer ").to_owned());
                return Some(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
            }
            ("/auth/v1/user", _) => {
                let bearer = request.value("authorization").unwrap_or_default();
                let claims = URL_SAFE_NO_PAD.decode(bearer.split('.').nth(1).unwrap_or_default()).unwrap_or_default();
                let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
                let state = self.state.lock().unwrap();
                match state.sessions.keys().any(|session| claims["session_id"] == uuid(session)) {
                    true => (200, json!({ "id": claims["sub"] })),
                    false => (403, json!({ "code": 403, "error_code": "session_not_found", "msg": "no session" })),
                }
            }
            ("/auth/v1/signup", _) if self.state.lock().unwrap().confirms => (200, json!({ "id": "a-user" })),
            ("/auth/v1/signup", _) if text("password").is_some_and(|password| password.len() < 6) => {
                (422, json!({ "error_code": "weak_password", "msg": "too weak" }))
            }
            ("/auth/v1/signup", _) => (200, self.begin(&text("email").unwrap_or_default(), None)),
            (_, Some("password")) if text("password").as_deref() == Some(PASSWORD) => {
                (200, self.begin(&text("email").unwrap_or_default(), None))
            }
            (_, Some("password")) => {
                (400, json!({ "code": 400, "error_code": "invalid_credentials", "msg": "Invalid login credentials" }))
            }
            (_, Some("pkce" | "authorization_code")) => self.redeem(
                &text(if is_oidc { "code" } else { "auth_code" }).unwrap_or_default(),
                &text("code_verifier").unwrap_or_default(),
                is_oidc,
            ),
            (_, Some("refresh_token")) => {
                self.refreshes.fetch_add(1, Ordering::SeqCst);
                let mood = {
                    let mut state = self.state.lock().unwrap();
                    state.moods.pop().or(state.mood).unwrap_or(Mood::Fine)
                };
                let delay = *self.slow.lock().unwrap();
                tokio::time::sleep(delay).await;
                match mood {
                    Mood::Fine => self.refresh(&text("refresh_token").unwrap_or_default(), is_oidc),
                    Mood::Status(status) => (status, json!({ "oh": "no" })),
                    Mood::Cut => {
                        self.refresh(&text("refresh_token").unwrap_or_default(), is_oidc);
                        return None;
                    }
                    Mood::Silent => {
                        tokio::time::sleep(Duration::from_secs(10)).await;
                        return None;
                    }
                }
            }
            _ => (404, json!({})),
        };
        let body = answer.to_string();
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        Some(format!("{head}{body}").into_bytes())
    }

    /// Begins a session; `nonce` is that of an OpenID login.
    fn begin(&self, user: &str, nonce: Option<&str>) -> Value {
        let mut state = self.state.lock().unwrap();
        state.count += 1;
        let (session, token) = (format!("session-{}", state.count), format!("refresh-{}", state.count));
        state.tokens.insert(token.clone(), (session.clone(), false));
        state.sessions.insert(session.clone(), (token.clone(), user.to_owned()));
        self.tokens(&state, user, &session, &token, nonce)
    }

    fn redeem(&self, code: &str, verifier: &str, is_oidc: bool) -> (u16, Value) {
        let Some((challenge, user, nonce)) = self.state.lock().unwrap().codes.remove(code) else {
            return (400, json!({ "error": "invalid_grant", "error_code": "flow_state_not_found" }));
        };
        if URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes())) != challenge {
            return (400, json!({ "error": "invalid_grant", "error_code": "bad_code_verifier" }));
        }
        (200, self.begin(&user, is_oidc.then_some(&*nonce)))
    }

    fn refresh(&self, presented: &str, is_oidc: bool) -> (u16, Value) {
        let mut state = self.state.lock().unwrap();
        let refused = |code: &str| (400, json!({ "error": "invalid_grant", "error_code": code, "msg": "no" }));
        let Some((session, used)) = state.tokens.get(presented).cloned() else {
            return refused("refresh_token_not_found");
        };
        let Some((newest, user)) = state.sessions.get(&session).cloned() else { return refused("session_not_found") };
        let nonce = is_oidc.then_some("");
        if used {
            // The parent of the newest is taken, since the answer may have been lost.
            let number =
                |token: &str| token.rsplit('/').next().and_then(|number| number.parse::<i64>().ok()).unwrap_or(0);
            if number(presented) + 1 == number(&newest) {
                return (200, self.tokens(&state, &user, &session, &newest, nonce));
            }
            state.reused += 1;
            state.sessions.remove(&session);
            return refused("refresh_token_already_used");
        }
        let next = match presented.rsplit_once('/') {
            Some((family, number)) => format!("{family}/{}", number.parse::<i64>().unwrap() + 1),
            None => format!("{presented}/1"),
        };
        state.tokens.insert(presented.to_owned(), (session.clone(), true));
        state.tokens.insert(next.clone(), (session.clone(), false));
        state.sessions.insert(session.clone(), (next.clone(), user.clone()));
        (200, self.tokens(&state, &user, &session, &next, nonce))
    }

    fn tokens(&self, state: &State, user: &str, session: &str, refresh: &str, nonce: Option<&str>) -> Value {
        let (now, address) = (self.now(), self.address.lock().unwrap().unwrap());
        let Some(nonce) = nonce else {
            let claims = json!({
                "iss": format!("http://{address}/auth/v1"), "aud": "authenticated", "role": "authenticated",
                "sub": uuid(user), "email": user, "session_id": uuid(session), "iat": now, "exp": now + LIFE,
                "aal": "aal1", "amr": [], "is_anonymous": false, "jti": refresh,
            });
            let access = hs256(&claims);
            return json!({
                "access_token": access, "token_type": "bearer", "expires_in": LIFE, "expires_at": now + LIFE,
                "refresh_token": refresh, "user": { "id": uuid(user), "aud": "authenticated", "email": user,
                    "app_metadata": {}, "user_metadata": {}, "created_at": "2026-01-01T00:00:00Z" },
            });
        };
        let issuer = format!("http://{address}/oidc");
        let access = match state.opaque {
            true => format!("opaque-{refresh}"),
            false => self.es256(&json!({
                "iss": issuer, "aud": "api", "sub": user, "iat": now, "exp": now + LIFE, "jti": refresh, "sid": session,
            })),
        };
        let hash = digest::digest(&digest::SHA256, access.as_bytes());
        let mut claims = json!({
            "iss": issuer, "aud": "gateway", "sub": user, "iat": now, "exp": now + LIFE, "sid": session,
            "at_hash": URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]),
        });
        if !nonce.is_empty() {
            claims["nonce"] = json!(nonce);
        }
        for (name, lie) in &state.lies {
            match lie {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                lie => claims[name] = lie.clone(),
            }
        }
        json!({
            "access_token": access, "id_token": self.es256(&claims), "token_type": "Bearer", "expires_in": LIFE,
            "refresh_token": refresh,
        })
    }

    fn es256(&self, claims: &Value) -> String {
        self.signer.mint(claims.as_object().unwrap(), None, Some("JWT")).unwrap()
    }
}

/// An access token of Supabase.
fn hs256(claims: &Value) -> String {
    let encode = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
    let signed = format!("{}.{}", encode(br#"{"alg":"HS256","typ":"JWT"}"#), encode(claims.to_string().as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{signed}.{}", encode(hmac::sign(&key, signed.as_bytes()).as_ref()))
}

/// A UUID that belongs to a text.
pub fn uuid(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let hex: String = hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}
