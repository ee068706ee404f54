//! Why a token is not accepted.

use std::fmt;

use crate::identity::claims::ClaimsError;

/// Why a token is not accepted. All but [`TokenError::KeysUnavailable`] are the client's fault and mean 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// No key that may have signed this token did: forged, tampered with, or signed with a key that was replaced
    /// under the same name.
    BadSignature,
    /// `exp`, `nbf`, `iat`, `iss` or `aud` has a type or value that it may not have.
    ClaimWrongType(&'static str),
    /// `exp` has passed, leeway included.
    Expired,
    /// The header asks for something that changes what the token means: `crit`, `b64`, `zip`, or `cty: JWT`.
    ForbiddenHeader(&'static str),
    /// `iat` lies in the future: a clock is wrong, the issuer's or ours.
    IssuedInFuture,
    /// The issuer that the token names is known, its keys are not: 503, since this cannot be decided.
    KeysUnavailable,
    /// Not a compact JWS with a JSON payload.
    Malformed(Malformed),
    /// A claim that the policy asks for is absent.
    MissingClaim(&'static str),
    /// `nbf` lies in the future.
    NotYetValid,
    /// Longer than 8 KiB.
    TooLarge,
    /// It lives longer than `max_token_age`.
    TooLongLived,
    /// The issuer has no key that this token can be signed with: often a key rotated away, or a token of another
    /// environment.
    UnknownKey,
    /// `alg` is `none`, unknown, not what the policy allows, or not what the key is for.
    UnsupportedAlgorithm,
    /// `aud` names others: a token for another service.
    WrongAudience,
    /// `iss` names nobody in the policy.
    WrongIssuer,
    /// `typ` says that this is another kind of token, e.g. a logout token.
    WrongType,
}

/// In which way a token is not a compact JWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A byte outside `[A-Za-z0-9_.-]`: padding, white space, standard base64, JSON.
    Alphabet,
    /// A part is not strict base64url: a length that cannot be, or unused bits that are set.
    Base64,
    /// The payload is not an acceptable JSON object.
    Claims(ClaimsError),
    /// The header is not an acceptable JSON object, or a member of it has a wrong type.
    Header,
    /// Not three parts: five are JWE, which is not read.
    Parts,
}

impl Malformed {
    /// Whether this may be a token that says nothing itself: its issuer must be asked.
    pub fn may_be_opaque(self) -> bool {
        matches!(self, Self::Alphabet | Self::Base64 | Self::Header | Self::Parts)
    }
}

impl TokenError {
    /// The reason's name, in the style of OAuth's error codes; never renamed.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadSignature => "token_bad_signature",
            Self::ClaimWrongType(_) => "token_claim_wrong_type",
            Self::Expired => "token_expired",
            Self::ForbiddenHeader(_) => "token_forbidden_header",
            Self::IssuedInFuture => "token_issued_in_future",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Malformed(_) => "token_malformed",
            Self::MissingClaim(_) => "token_missing_claim",
            Self::NotYetValid => "token_not_yet_valid",
            Self::TooLarge => "token_too_large",
            Self::TooLongLived => "token_too_long_lived",
            Self::UnknownKey => "token_unknown_key",
            Self::UnsupportedAlgorithm => "token_unsupported_algorithm",
            Self::WrongAudience => "token_wrong_audience",
            Self::WrongIssuer => "token_wrong_issuer",
            Self::WrongType => "token_wrong_type",
        }
    }

    /// What the client is told (`error_description` of RFC 6750): enough to renew the token, not enough to probe.
    pub fn description(self) -> &'static str {
        match self {
            Self::Expired => "the token is expired",
            Self::NotYetValid => "the token is not yet valid",
            _ => "the token is invalid",
        }
    }
}

impl fmt::Display for TokenError {
    /// For the log and for `explain`; the client gets [`TokenError::description`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSignature => f.write_str("the signature does not match any key of the issuer"),
            Self::ClaimWrongType(claim) => write!(f, "claim `{claim}` has a wrong type or value"),
            Self::Expired => f.write_str("the token has expired"),
            Self::ForbiddenHeader(member) => write!(f, "header `{member}` is not accepted"),
            Self::IssuedInFuture => f.write_str("the token was issued in the future"),
            Self::KeysUnavailable => f.write_str("the keys of the issuer are not available"),
            Self::Malformed(malformed) => write!(f, "not a signed token: {malformed}"),
            Self::MissingClaim(claim) => write!(f, "claim `{claim}` is missing"),
            Self::NotYetValid => f.write_str("the token is not valid yet"),
            Self::TooLarge => f.write_str("the token is longer than 8 KiB"),
            Self::TooLongLived => f.write_str("the token lives longer than `max_token_age`"),
            Self::UnknownKey => f.write_str("the issuer has no key for this token"),
            Self::UnsupportedAlgorithm => f.write_str("the algorithm is not one that policy and key allow"),
            Self::WrongAudience => f.write_str("the token is for another audience"),
            Self::WrongIssuer => f.write_str("the token is from an issuer that the policy does not know"),
            Self::WrongType => f.write_str("the token is of another type"),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alphabet => f.write_str("a character that base64url does not have"),
            Self::Base64 => f.write_str("a part is not base64url"),
            Self::Claims(error) => write!(f, "claims: {error}"),
            Self::Header => f.write_str("the header is not acceptable JSON"),
            Self::Parts => f.write_str("not three parts"),
        }
    }
}

impl std::error::Error for TokenError {}

impl From<Malformed> for TokenError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}
