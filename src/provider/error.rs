//! Why a provider gave nothing.

use std::fmt;
use std::time::Duration;

use crate::fetch::FetchError;

/// Why a provider gave nothing. Only [`ProviderError::Refused`] says something about the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderError {
    /// It refused, in its own words: what was presented is wrong, used, or over.
    Refused {
        /// The status.
        status: u16,
        /// Its code, as far as it is one (`invalid_grant`, `invalid_credentials`).
        code: Box<str>,
        /// Its description.
        description: Box<str>,
    },
    /// It wants to be left alone for a while (429, 409): nothing was said about what was presented.
    Busy(Option<Duration>),
    /// It is not to be reached, too slow, or answers what cannot be understood.
    Unavailable(Box<str>),
    /// It does not know the gateway, or is not who the policy says it is.
    Misconfigured(Box<str>),
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, code, .. } => write!(f, "refused with {status} ({code})"),
            Self::Busy(_) => f.write_str("too many requests for it"),
            Self::Unavailable(why) | Self::Misconfigured(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ProviderError {}

impl From<FetchError> for ProviderError {
    /// Whatever keeps an answer away says nothing about what was asked.
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Url => Self::Misconfigured(error.to_string().into()),
            _ => Self::Unavailable(error.to_string().into()),
        }
    }
}
