//! Why nothing was fetched, in words.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::CertificateError;

/// Why nothing was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The server's certificate is not good: why, in words.
    Certificate(String),
    /// It cannot be reached: why.
    Connect(String),
    /// What came is not HTTP, or ended early.
    Exchange(String),
    /// Nobody listens there.
    Refused,
    /// It took too long.
    Timeout,
    /// No TLS connection came up: why.
    Tls(String),
    /// More than so many bytes.
    TooLarge(usize),
    /// The fetcher itself cannot be made.
    Unusable(String),
    /// Not a URL that can be asked.
    Url,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(why) => write!(f, "TLS: {why}"),
            Self::Connect(why) => write!(f, "cannot connect: {why}"),
            Self::Exchange(why) => write!(f, "no proper answer: {why}"),
            Self::Refused => f.write_str("connection refused"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Tls(why) => write!(f, "TLS: {why}"),
            Self::TooLarge(most) => write!(f, "more than {most} bytes"),
            Self::Unusable(why) => f.write_str(why),
            Self::Url => f.write_str("not a URL that can be asked"),
        }
    }
}

impl Error for FetchError {}

impl FetchError {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(current) = cause {
            if let Some(tls) = current.downcast_ref::<rustls::Error>() {
                return match tls {
                    rustls::Error::InvalidCertificate(why) => Self::Certificate(certificate(why)),
                    other => Self::Tls(other.to_string()),
                };
            }
            let io = current.downcast_ref::<io::Error>();
            match io.map(io::Error::kind) {
                Some(io::ErrorKind::ConnectionRefused) => return Self::Refused,
                Some(io::ErrorKind::TimedOut) => return Self::Timeout,
                _ => {}
            }
            // An I/O error names as its source the source of what it wraps, and so leaves out what it wraps.
            cause = match io.and_then(io::Error::get_ref) {
                Some(wrapped) => Some(wrapped),
                None => current.source(),
            };
        }
        let why = deepest(error);
        if error.is_timeout() {
            Self::Timeout
        } else if error.is_builder() {
            Self::Url
        } else if error.is_connect() {
            Self::Connect(why)
        } else {
            Self::Exchange(why)
        }
    }
}

/// What is at the bottom of an error.
pub(super) fn deepest(error: &dyn Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "the certificate expired".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            let seconds = time.as_secs().saturating_sub(not_after.as_secs());
            format!("the certificate expired {} ago", rough(seconds))
        }
        CertificateError::NotValidYet => "the certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            let seconds = not_before.as_secs().saturating_sub(time.as_secs());
            format!("the certificate is valid in {} only", rough(seconds))
        }
        CertificateError::NotValidForName => "the certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "the certificate is for another name".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<String> = presented.iter().take(3).map(|name| plain(name)).collect();
            format!("the certificate is for another name: {}", names.join(", "))
        }
        CertificateError::UnknownIssuer => "the certificate is from an authority that is not trusted here".to_owned(),
        CertificateError::Revoked => "the certificate was revoked".to_owned(),
        other => format!("the certificate is not good: {other}"),
    }
}

/// `DnsName("example.com")` as it is said.
fn plain(name: &str) -> String {
    name.split('"').nth(1).unwrap_or(name).to_owned()
}

fn rough(seconds: u64) -> String {
    let (number, word) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}
