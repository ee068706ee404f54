//! The tokens of a session, as they are sealed.
//!
//! ```text
//! kept  = version (1) | ends (8) | access | refresh | id | client
//! field = length (4) | bytes                      ; an absent one is empty
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::secret::Secret;

const VERSION: u8 = 1;

/// The tokens of a session.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The access token.
    pub access: Secret<String>,
    /// What gets the next ones.
    pub refresh: Option<Secret<String>>,
    /// The ID token.
    pub id: Option<Secret<String>>,
    /// Where the ID token speaks for the user: the client it must be for.
    pub client: Option<Box<str>>,
    /// When the first of them ends.
    pub ends: Timestamp,
}

impl Kept {
    /// The token that speaks for the user.
    pub(super) fn speaks(&self) -> &Secret<String> {
        match (&self.client, &self.id) {
            (Some(_), Some(id)) => id,
            _ => &self.access,
        }
    }

    /// As bytes, to be sealed.
    pub fn write(&self) -> Zeroizing<Vec<u8>> {
        let text = |secret: &'_ Option<Secret<String>>| secret.as_ref().map(|secret| secret.expose().clone());
        let (refresh, id) = (Zeroizing::new(text(&self.refresh)), Zeroizing::new(text(&self.id)));
        let fields = [
            self.access.expose().as_str(),
            refresh.as_deref().unwrap_or_default(),
            id.as_deref().unwrap_or_default(),
            self.client.as_deref().unwrap_or_default(),
        ];
        // Once in its final size: what grows leaves copies behind.
        let length: usize = fields.iter().map(|field| field.len().saturating_add(4)).sum();
        let mut out = Zeroizing::new(Vec::with_capacity(length.saturating_add(9)));
        out.push(VERSION);
        out.extend_from_slice(&self.ends.as_millis().to_be_bytes());
        for field in fields {
            out.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(field.as_bytes());
        }
        out
    }

    /// From what was unsealed; `None` where it is not exactly what [`write`](Self::write) makes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (ends, mut rest) = rest.split_first_chunk()?;
        let mut field = || {
            let (length, after) = rest.split_first_chunk()?;
            let (text, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            rest = after;
            std::str::from_utf8(text).ok()
        };
        let (access, refresh, id, client) = (field()?, field()?, field()?, field()?);
        let secret = |text: &str| (!text.is_empty()).then(|| Secret::new(text.to_owned()));
        (*version == VERSION && rest.is_empty()).then(|| Self {
            access: Secret::new(access.to_owned()),
            refresh: secret(refresh),
            id: secret(id),
            client: (!client.is_empty()).then(|| client.into()),
            ends: Timestamp::from_millis(i64::from_be_bytes(*ends)),
        })
    }
}

/// Random bytes as text for cookies, states and verifiers.
pub(super) fn random_text<const LENGTH: usize>(random: &dyn crate::random::Random) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; LENGTH]);
    random.fill(&mut *bytes);
    Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let secret = |text: &str| Some(Secret::new(text.to_owned()));
        for kept in [
            Kept {
                access: Secret::new("access".to_owned()),
                refresh: secret("refresh"),
                id: secret("id"),
                client: Some("client \u{e4}".into()),
                ends: Timestamp::from_millis(-7),
            },
            Kept {
                access: Secret::new("a".repeat(8000)),
                refresh: None,
                id: None,
                client: None,
                ends: Timestamp::from_millis(i64::MAX),
            },
        ] {
            let written = kept.write();
            let read = Kept::read(&written).unwrap();
            assert_eq!(*read.write(), *written);
            assert_eq!((read.access.expose(), read.ends), (kept.access.expose(), kept.ends));
            assert_eq!(read.refresh.is_some(), kept.refresh.is_some());
            assert_eq!(read.speaks().expose(), if kept.client.is_some() { "id" } else { kept.access.expose() });
            for length in 0..written.len().min(60) {
                assert!(Kept::read(&written[..length]).is_none(), "{length}");
            }
            assert!(Kept::read(&[&written[..], b"x"].concat()).is_none());
        }
        let mut hostile = vec![VERSION; 9];
        hostile.extend_from_slice(&[0xff; 4]);
        assert!(Kept::read(&hostile).is_none() && Kept::read(b"").is_none());
    }
}
