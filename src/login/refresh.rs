//! Going on with a refresh token: opaque, stored as a hash, replaced at every use.
//!
//! Whoever presents a token within the window after its replacement gets the same successor again: an answer that was
//! lost locks nobody out. The successor lies in the store sealed under the token that it follows, so neither the store
//! nor anybody else can read it. A token that is used after that was copied by somebody: its session ends, with all
//! access tokens.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::random::Random;
use crate::response::Response;
use crate::store::{EndedBy, Rotation, Session, StoreError, Successor, TokenHash};
use crate::telemetry::audit::{AuditEvent, Event, Outcome, Reason};

use super::error::OAuthError;
use super::form::Form;
use super::{Asking, Login, Ours, grant, to_the_end};

/// How a refresh token begins, so that scanners for leaked secrets know it.
const PREFIX: &str = "prt_";

/// A refresh token: 32 random bytes.
pub struct RefreshToken(Zeroizing<String>);

impl RefreshToken {
    /// A new one.
    pub fn generate(random: &dyn Random) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        random.fill(&mut *bytes);
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 43));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(*bytes, &mut text);
        Self(text)
    }

    /// Reads a token as it was sent. What nobody can have given out needs no look into the store.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(PREFIX).filter(|encoded| encoded.len() == 43)?;
        URL_SAFE_NO_PAD.decode(encoded).ok()?;
        Some(Self(Zeroizing::new(text.to_owned())))
    }

    /// What is stored of it.
    pub fn hash(&self) -> TokenHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, self.0.as_bytes()).as_ref());
        TokenHash(hash)
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The key under which the successor is sealed: only who has this token can make it.
    fn key(&self) -> Option<LessSafeKey> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"portcullis");
        let secret = salt.extract(self.0.as_bytes());
        let key = secret.expand(&[b"successor of a refresh token 1"], &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }

    /// Seals a successor under this token: nonce, then ciphertext and tag (AES-256-GCM).
    fn seal(&self, successor: &Self, random: &dyn Random) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce);
        let mut text = successor.0.as_bytes().to_vec();
        self.key()?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text).ok()?;
        Some([&nonce[..], &text].concat())
    }

    /// Opens what was sealed under this token.
    fn unseal(&self, sealed: &[u8]) -> Option<Self> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let mut text = Zeroizing::new(text.to_vec());
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self.key()?.open_in_place(nonce, Aad::empty(), &mut text).ok()?;
        Self::parse(std::str::from_utf8(text).ok()?)
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

impl Login {
    /// `grant_type=refresh_token`. Everything that can be refused is refused before the token is replaced; what fails
    /// after that can be asked for again with the same token.
    pub(super) async fn refresh(&self, asking: &Asking<'_>, form: &Form) -> Result<Response, OAuthError> {
        let failed = |reason| asking.event(Event::Refresh, Outcome::Failure).because(reason);
        let refused = |error, event: AuditEvent<'_>| {
            self.audit(&event);
            error
        };
        let invalid = |reason| refused(OAuthError::InvalidGrant, failed(reason));
        let down = |_| refused(OAuthError::unavailable(), failed(Reason::StoreUnavailable));

        let parts = &self.parts;
        let ours = asking.ours()?;
        let presented = form.get("refresh_token").ok_or_else(|| {
            refused(OAuthError::InvalidRequest("refresh_token is missing"), failed(Reason::InvalidRequest))
        })?;
        let requested = form.scopes().map_err(|error| refused(error, failed(Reason::InvalidScope)))?;
        let presented = RefreshToken::parse(presented).ok_or_else(|| invalid(Reason::UnknownToken))?;
        let hash = presented.hash();
        let session = parts.stores.sessions.of_token(&hash).await.map_err(down)?;
        // A token of another app or issuer is unknown here: it must not become one of this audience.
        let session = session
            .filter(|session| session.issuer == ours.issuer.name.as_str() && *session.app == *asking.app.name)
            .ok_or_else(|| invalid(Reason::UnknownToken))?;
        let about = |event: AuditEvent<'_>| {
            self.audit(&AuditEvent { subject: Some(&session.user), session: Some(&session.id), ..event });
        };
        if !session.is_live(asking.now) {
            self.finish_ending(asking, ours, &session).await.map_err(down)?;
            about(failed(Reason::SessionOver));
            return Err(OAuthError::InvalidGrant);
        }
        let user = parts.stores.users.by_id(&session.user).await.map_err(down)?;
        let Some(user) = user.filter(|user| !user.disabled) else {
            self.end(ours, &session, EndedBy::User, asking.now).await.map_err(down)?;
            about(failed(Reason::Disabled));
            return Err(OAuthError::InvalidGrant);
        };
        let allowed = grant::allowed(&user, asking.policy);
        let (hierarchy, strict) = (ours.issuer.hierarchy, asking.login.strict_scopes);
        let scopes = grant::renewed(&requested, &session.scopes, &allowed, hierarchy, strict)
            .inspect_err(|_| about(failed(Reason::InvalidScope)))?;
        let keys = parts.issuers.snapshot();
        let signer = keys
            .signer(&ours.issuer.name)
            .ok_or_else(|| refused(OAuthError::unavailable(), failed(Reason::KeysUnavailable)))?;
        let access = grant::mint(asking, ours, signer, &user, &session, &scopes, &*parts.random)
            .inspect_err(|_| about(failed(Reason::InvalidScope)))?;

        let successor = RefreshToken::generate(&*parts.random);
        let sealed = presented.seal(&successor, &*parts.random).ok_or(OAuthError::unavailable())?;
        let next = Successor { hash: successor.hash(), sealed };
        let window = ours.local.reuse_window;
        let (successor, reason) = match parts.stores.sessions.rotate(&hash, &next, window, asking.now).await {
            Ok(Rotation::Rotated(_)) => (successor, None),
            Ok(Rotation::Repeated(_, sealed)) => match presented.unseal(&sealed) {
                Some(successor) => (successor, Some(Reason::Repeated)),
                None => return Err(down(StoreError::Corrupt("a sealed refresh token".to_owned()))),
            },
            Ok(Rotation::Reused(session)) => {
                about(asking.event(Event::Reuse, Outcome::Failure).because(Reason::Reused));
                self.end(ours, &session, EndedBy::Reuse, asking.now).await.map_err(down)?;
                return Err(OAuthError::InvalidGrant);
            }
            Ok(Rotation::Over(_)) => {
                about(failed(Reason::SessionOver));
                return Err(OAuthError::InvalidGrant);
            }
            Ok(Rotation::Unknown) => return Err(invalid(Reason::UnknownToken)),
            Err(error) => return Err(down(error)),
        };
        let done = asking.event(Event::Refresh, Outcome::Success);
        about(AuditEvent { reason, ..done });
        Ok(asking.answer(grant::answer(&access, &successor)))
    }

    /// Ends a session with all its tokens, even if the client goes away meanwhile.
    pub(super) async fn end(
        &self,
        ours: Ours<'_>,
        session: &Session,
        by: EndedBy,
        now: crate::clock::Timestamp,
    ) -> Result<(), StoreError> {
        let (parts, session, until) = (self.parts.clone(), session.clone(), ours.last_token_ends(now));
        to_the_end(async move { parts.end_session(&session, by, until, now).await }).await
    }

    /// A session that ended early has its access tokens revoked too. Where that is not so, because the process or the
    /// store failed in between, it is done now.
    async fn finish_ending(&self, asking: &Asking<'_>, ours: Ours<'_>, session: &Session) -> Result<(), StoreError> {
        let Some((ended, by)) = session.ended else { return Ok(()) };
        let until = ours.last_token_ends(ended);
        if asking.now >= until || self.parts.revoked.is_revoked(&session.issuer, None, Some(&session.id), None, None) {
            return Ok(());
        }
        self.end(ours, session, by, asking.now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn a_token_is_read_as_it_was_given_out_and_nothing_else_is() {
        let token = RefreshToken::generate(&SeededRandom::new(1));
        assert_eq!(token.expose().len(), 47);
        assert_eq!(RefreshToken::parse(token.expose()).unwrap().hash(), token.hash());
        let longer = format!("{}A", token.expose());
        let spaced = format!(" {}", token.expose());
        let other_end = format!("{}B", token.expose().get(..46).unwrap()); // bits after the last byte
        for bad in ["", "prt_", "prt_abc", &longer, &spaced, &other_end, token.expose().get(4..).unwrap()] {
            assert!(RefreshToken::parse(bad).is_none(), "{bad}");
        }
        assert!(!format!("{token:?}").contains(token.expose().get(4..10).unwrap()));
    }

    #[test]
    fn a_successor_is_read_with_its_predecessor_alone() {
        let random = SeededRandom::new(1);
        let [first, second, other] = std::array::from_fn(|_| RefreshToken::generate(&random));
        let sealed = first.seal(&second, &random).unwrap();
        assert_eq!(first.unseal(&sealed).unwrap().expose(), second.expose());
        assert!(other.unseal(&sealed).is_none() && second.unseal(&sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(first.unseal(&changed).is_none());
            assert!(first.unseal(&sealed[..at]).is_none());
        }
    }
}
