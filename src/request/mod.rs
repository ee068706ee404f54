//! What is asked: a raw request head becomes one unambiguous target, or a refusal.
//!
//! In goes a [`head::RequestHead`], borrowed from the connection or written by a fixture. Out comes [`Asked`]:
//! the canonical [`target::Target`], the effective [`host::Host`] and what the head says about the body, or a
//! [`RequestError`] that names what is wrong. Beside that: forwarded addresses ([`forwarded`]), cookies
//! ([`cookie`]) and what is special about some methods ([`method`]).
//!
//! Nothing here repairs a request: two readings of one request are how gateways are walked around, so what is
//! not in the one strict form is refused. This part knows no policy: which app allows which irregular form, and
//! which route is meant, is decided in `decision`.

/// One table for each kind of refusal: the variant with its doc, its status, its stable name, its detail.
macro_rules! refusals {
    ($(#[$doc:meta])* $kind:ident { $($(#[$variant_doc:meta])* $variant:ident: $status:ident, $name:literal, $detail:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $kind { $($(#[$variant_doc])* $variant,)+ }

        impl $kind {
            /// The stable name, documented and never changed.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The status to answer with.
            pub fn status(self) -> http::StatusCode {
                match self { $(Self::$variant => http::StatusCode::$status,)+ }
            }

            /// What is wrong, in words for the client's developer.
            pub fn detail(self) -> &'static str {
                match self { $(Self::$variant => $detail,)+ }
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.detail())
            }
        }

        impl std::error::Error for $kind {}
    };
}

pub mod cookie;
pub mod forwarded;
pub mod framing;
pub mod head;
pub mod host;
pub mod method;
pub mod target;

use std::fmt;

use http::StatusCode;

use self::cookie::CookieError;
use self::framing::{Body, FramingError};
use self::head::RequestHead;
use self::host::{Host, HostError};
use self::target::{Target, TargetError};

/// A request whose head has one reading.
#[derive(Clone, Debug)]
pub struct Asked<'r> {
    /// The canonical path, and the query as received.
    pub target: Target,
    /// The effective host.
    pub host: Host<'r>,
    /// What the head says about the body.
    pub body: Body,
}

impl<'r> Asked<'r> {
    /// All checks that need no policy, in the order framing, target, host, server name.
    pub fn parse(head: &RequestHead<'r>) -> Result<Self, RequestError> {
        let body = framing::check(head)?;
        let target = Target::parse(head)?;
        let host = Host::of(head)?;
        host::check_server_name(head, &host)?;
        Ok(Self { target, host, body })
    }
}

/// Why a request is refused before any policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestError {
    /// Cookies have no clear reading.
    Cookie(CookieError),
    /// The head frames the message in a way that two parsers could read differently.
    Framing(FramingError),
    /// The host is missing, malformed or contradicted.
    Host(HostError),
    /// The request target is not canonical.
    Target(TargetError),
}

impl RequestError {
    /// The stable name of the refusal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cookie(error) => error.name(),
            Self::Framing(error) => error.name(),
            Self::Host(error) => error.name(),
            Self::Target(error) => error.name(),
        }
    }

    /// The status to answer with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Cookie(error) => error.status(),
            Self::Framing(error) => error.status(),
            Self::Host(error) => error.status(),
            Self::Target(error) => error.status(),
        }
    }

    /// What is wrong, in words for the client's developer.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Cookie(error) => error.detail(),
            Self::Framing(error) => error.detail(),
            Self::Host(error) => error.detail(),
            Self::Target(error) => error.detail(),
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for RequestError {}

impl From<CookieError> for RequestError {
    fn from(error: CookieError) -> Self {
        Self::Cookie(error)
    }
}

impl From<FramingError> for RequestError {
    fn from(error: FramingError) -> Self {
        Self::Framing(error)
    }
}

impl From<HostError> for RequestError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl From<TargetError> for RequestError {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}
