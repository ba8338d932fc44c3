//! TLS to a server that may have made its certificate itself: whom to believe is decided by who knows the certificate.

use std::fs;
use std::io;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Where systems keep the certificates of authorities.
const BUNDLES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// SHA-256 of a certificate.
pub type Fingerprint = [u8; 32];

/// Shakes hands on a connection. The server has shown that it has the key of its certificate, and nothing else: see [`shown`].
///
/// # Errors
/// What the other end speaks is no TLS, or none that is good enough.
pub async fn shake_hands(stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Undecided(provider)))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(name_of(host)?, stream).await
}

/// The fingerprint of the certificate that the server has shown.
pub fn shown(stream: &TlsStream<TcpStream>) -> Option<Fingerprint> {
    Some(Sha256::digest(stream.get_ref().1.peer_certificates()?.first()?).into())
}

/// Whether an authority of this system says that the certificate is that of this host.
pub fn is_vouched_for(stream: &TlsStream<TcpStream>, host: &str) -> bool {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let (Some((own, others)), Ok(name)) = (certificates.split_first(), name_of(host)) else { return false };
    let Some(bundle) = BUNDLES.iter().find_map(|file| fs::read(file).ok()) else { return false };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).filter_map(Result::ok));
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider())).build();
    verifier.is_ok_and(|verifier| verifier.verify_server_cert(own, others, &name, &[], UnixTime::now()).is_ok())
}

/// A fingerprint as browsers and our log show it: `AB:CD:…`.
pub fn fingerprint_text(fingerprint: &Fingerprint) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Reads a fingerprint with colons or without, in whatever case.
///
/// # Errors
/// A sentence for the person who wrote it.
pub fn fingerprint_of(text: &str) -> Result<Fingerprint, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b':' | b' ')).collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes = pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect::<Option<Vec<_>>>();
    let bytes = bytes.filter(|_| rest.is_empty()).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "a SHA-256 is wanted: 64 hexadecimal digits, with colons or without".into())
}

fn name_of(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(|_| io::Error::other(format!("{host} is no name of a server")))
}

/// Believes every certificate for now, and no key that is not its own.
#[derive(Debug)]
struct Undecided(Arc<CryptoProvider>);

impl ServerCertVerifier for Undecided {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_they_are_shown() {
        let fingerprint: Fingerprint = std::array::from_fn(|i| u8::try_from(i * 8).unwrap());
        let text = fingerprint_text(&fingerprint);
        assert!(text.starts_with("00:08:10:") && text.len() == 95, "{text}");
        for text in [text.clone(), text.replace(':', ""), text.to_lowercase()] {
            assert_eq!(fingerprint_of(&text), Ok(fingerprint), "{text}");
        }
        for wrong in ["", "AB", "zz:zz", &text[..94], &format!("{text}:00")] {
            assert!(fingerprint_of(wrong).is_err(), "{wrong}");
        }
    }
}
