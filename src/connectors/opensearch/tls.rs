//! Whom the sink trusts to be the server.

use std::error::Error;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::error::Fault;

/// TLS as rustls does it with ring: with the certificates that the system trusts, or with these and no others.
pub(super) fn config(authority: Option<&[u8]>) -> Result<ClientConfig, Fault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(Fault::fatal)?;
    let builder = match authority {
        None => builder.with_platform_verifier().map_err(Fault::fatal)?,
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate
                    .map_err(|error| Fault::fatal(format!("the certificate authority is no PEM: {error}")))?;
                roots.add(certificate).map_err(Fault::fatal)?;
            }
            if roots.is_empty() {
                return Err(Fault::fatal("the certificate authority holds no certificate in PEM"));
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(builder.with_no_client_auth())
}

/// Whether the server's certificate was refused, which no retry cures.
pub(super) fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner: Option<&(dyn Error + 'static)> = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .map(|inner| inner as &(dyn Error + 'static));
        let found = [Some(error), inner].into_iter().flatten().any(|error| {
            matches!(
                error.downcast_ref::<rustls::Error>(),
                Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
            )
        });
        if found {
            return true;
        }
        cause = inner.or_else(|| error.source());
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Duration;

    use reqwest::Method;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::super::http::{Body, Credentials, Http};
    use super::*;
    use crate::error::FaultKind;

    // Made by openssl, until the year 2126: an authority that signed a certificate for `localhost`, and another one.
    const AUTHORITY: &[u8] = include_bytes!("testdata/authority.pem");
    const OTHER: &[u8] = include_bytes!("testdata/other.pem");
    const CERTIFICATE: &[u8] = include_bytes!("testdata/server.pem");
    const KEY: &[u8] = include_bytes!("testdata/server.key");

    fn open(url: &str, authority: Option<&[u8]>) -> Result<Http, Fault> {
        Http::new(url, Credentials::None, authority, Duration::from_secs(20), true)
    }

    #[test]
    fn a_certificate_authority_must_be_one() {
        for pem in [&b""[..], b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(open("https://c", Some(pem)).unwrap_err().kind(), FaultKind::Fatal);
        }
    }

    /// A server for as many connections as are asked for, which answers each request with nothing.
    #[allow(clippy::disallowed_methods, reason = "a thread of the test's own")]
    fn serve(connections: usize) -> u16 {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for _ in 0..connections {
                let (stream, _) = listener.accept().unwrap();
                let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
                let mut request = Vec::new();
                let mut chunk = [0; 4_096];
                // A client that does not trust the certificate ends it here.
                while let Ok(read @ 1..) = stream.read(&mut chunk) {
                    request.extend_from_slice(&chunk[..read]);
                    if request.ends_with(b"\r\n\r\n") {
                        let _ = stream.write_all(b"HTTP/1.1 204 No\r\nconnection: close\r\n\r\n");
                        let _ = stream.flush();
                        break;
                    }
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn an_authority_of_ones_own_is_trusted_and_another_ends_the_run() {
        let port = serve(4);
        let ask = async |host: &str, authority| {
            let http = open(&format!("https://{host}:{port}"), authority).unwrap();
            http.ask(Method::GET, "x", Body::None).await
        };
        assert_eq!(ask("localhost", Some(AUTHORITY)).await.unwrap().status, 204);
        for untrusted in [
            ask("localhost", None).await,
            ask("localhost", Some(OTHER)).await,
            ask("127.0.0.1", Some(AUTHORITY)).await,
        ] {
            let fault = untrusted.unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
            assert!(fault.message().contains("certificate"), "{fault}");
        }
    }
}
