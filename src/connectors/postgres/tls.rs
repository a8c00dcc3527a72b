//! Encryption of the connections, by rustls.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::PostgresError;

/// How connections over TCP are encrypted, in the terms of libpq's `sslmode`. Over a Unix socket there is no TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tls {
    pub(super) mode: Mode,
    roots: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Tls {
    /// No encryption: passwords of the SCRAM kind are safe all the same, rows are not.
    #[must_use]
    pub fn disable() -> Self {
        Self { mode: Mode::Disable, roots: None, identity: None }
    }

    /// Encryption where the server offers it, with whoever answers. The default, as it is of libpq.
    #[must_use]
    pub fn prefer() -> Self {
        Self { mode: Mode::Prefer, ..Self::disable() }
    }

    /// Encryption always, with whoever answers: nobody listens in, unless he stands in between.
    #[must_use]
    pub fn require() -> Self {
        Self { mode: Mode::Require, ..Self::disable() }
    }

    /// The server's certificate must be signed by one of the authorities in this PEM file.
    pub fn verify_ca(roots: impl AsRef<Path>) -> Self {
        Self { mode: Mode::VerifyCa, roots: Some(roots.as_ref().to_owned()), identity: None }
    }

    /// So must it, and it must be of the host that is connected to: what to use over any network that is not one's own.
    /// The system's authorities are `/etc/ssl/certs/ca-certificates.crt` on Debian.
    pub fn verify_full(roots: impl AsRef<Path>) -> Self {
        Self { mode: Mode::VerifyFull, ..Self::verify_ca(roots) }
    }

    /// The client shows a certificate of its own: PEM files of it and of its key.
    #[must_use]
    pub fn identity(self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        Self { identity: Some((certificate.as_ref().to_owned(), key.as_ref().to_owned())), ..self }
    }

    /// Reads the files. Errors name the one that is at fault.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, PostgresError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let wrong = |what: String| PostgresError::Settings { what };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?;
        let verifier: Arc<dyn ServerCertVerifier> = match (&self.roots, self.mode) {
            (Some(path), Mode::VerifyFull) => {
                let roots = Arc::new(roots(path)?);
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .map_err(|error| wrong(format!("the authorities in `{}`: {error}", path.display())))?
            }
            (Some(path), _) => {
                Arc::new(Lenient { roots: Some(roots(path)?), provider: Arc::clone(&provider) })
            }
            (None, _) => Arc::new(Lenient { roots: None, provider: Arc::clone(&provider) }),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| wrong(format!("the private key `{}`: {error}", key.display())))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| wrong(format!("the certificate `{}`: {error}", certificate.display())))?
            }
        };
        Ok(MakeRustlsConnect::new(config))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PostgresError> {
    let wrong = |what: String| PostgresError::Settings {
        what: format!("the certificates in `{}`: {what}", path.display()),
    };
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    match read {
        Ok(certificates) if certificates.is_empty() => Err(wrong("there are none".into())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(wrong(error.to_string())),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, PostgresError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(path)?);
    match added {
        0 => Err(PostgresError::Settings {
            what: format!("the certificates in `{}`: none can be used", path.display()),
        }),
        _ => Ok(roots),
    }
}

/// Takes a certificate of any host, or any certificate at all; that the server holds its key is checked either way.
struct Lenient {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Lenient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lenient").field("verifies_chain", &self.roots.is_some()).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
