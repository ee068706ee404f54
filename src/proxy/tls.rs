//! TLS towards clients: certificate and key from PEM, HTTP/2 by ALPN, the server name kept for 421.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::listeners::TlsAccept;
use pingora::listeners::tls::{Acceptor, TlsSettings};
use pingora::protocols::tls::{CaType, TlsRef};
use pingora::utils::tls::{WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// A certificate chain with its private key.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<CertifiedKey>);

/// Why a certificate cannot be used.
#[derive(Debug)]
pub enum TlsError {
    /// The chain is not PEM, or has no certificate.
    Certificate(String),
    /// The key is not PEM, or of a kind that is not supported.
    Key(String),
    /// The key belongs to another certificate.
    Mismatch(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(cause) => write!(f, "no certificate in PEM form: {cause}"),
            Self::Key(cause) => write!(f, "no private key in PEM form: {cause}"),
            Self::Mismatch(cause) => write!(f, "the private key does not belong to the certificate: {cause}"),
        }
    }
}

impl std::error::Error for TlsError {}

impl Certificate {
    /// Reads a chain (the server's own certificate first) and its key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let certificates = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| TlsError::Certificate(error.to_string()))?;
        if certificates.is_empty() {
            return Err(TlsError::Certificate("the file has none".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
        let provider = CryptoProvider::get_default().map(Arc::clone);
        let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let certified = CertifiedKey::from_der(certificates, key, &provider);
        certified.map(|certified| Self(Arc::new(certified))).map_err(|error| TlsError::Mismatch(error.to_string()))
    }

    /// An acceptor of connections: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    pub(crate) fn acceptor(&self) -> Result<Arc<Acceptor>, TlsError> {
        let mut settings = TlsSettings::with_callbacks(Box::new(Handshake))
            .map_err(|error| TlsError::Certificate(error.to_string()))?;
        settings.set_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.0))));
        settings.enable_h2();
        Ok(Arc::new(settings.build())) // only panics on files, and there are none
    }
}

/// CA certificates from PEM, as Pingora takes them; `None` if there is none or one cannot be read.
pub(super) fn authorities(pem: &[u8]) -> Option<Arc<CaType>> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()?;
    // `parse_x509` panics where this refuses.
    let mut roots = RootCertStore::empty();
    certificates.iter().try_for_each(|certificate| roots.add(certificate.clone())).ok()?;
    let wrapped = certificates.iter().map(|certificate| WrappedX509::new(certificate.to_vec(), parse_x509));
    let authorities: Arc<CaType> = wrapped.collect::<Vec<_>>().into();
    if authorities.is_empty() { None } else { Some(authorities) }
}

/// The server name that the client asked for in its handshake.
#[derive(Debug)]
pub(super) struct ServerName(pub(super) String);

struct Handshake;

#[async_trait]
impl TlsAccept for Handshake {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        let name = tls.server_name()?.to_owned();
        Some(Arc::new(ServerName(name)))
    }
}
