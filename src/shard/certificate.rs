//! The certificate of what is served inside TLS, read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use std::{fs, io};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error as TlsError, ServerConfig};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate's file is wrong.
    #[error("{} {why}", file.display())]
    Certificate {
        /// Which file.
        file: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The key's file is wrong.
    #[error("{} {why}", file.display())]
    Key {
        /// Which file.
        file: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// A certificate and its key, as new connections get them.
#[derive(Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    config: Arc<ServerConfig>,
    /// How the files looked when they were read last, sound or not.
    seen: [Option<Look>; 2],
}

/// What tells that a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

impl Certificate {
    /// Reads two files in PEM: the certificate with those between it and its authority behind it, and its private key.
    ///
    /// # Errors
    /// A file cannot be read, holds nothing of the kind, or the two do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        // Looked at first: what changes while it is read is read once more.
        let seen = [look(certificate), look(key)];
        let config = read(certificate, key)?;
        let held = Mutex::new(Held { config, seen });
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), held })
    }

    /// The file of the certificate, as it was named.
    pub fn file(&self) -> &Path {
        &self.certificate
    }

    /// What a new connection is served with.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.held.lock().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Reads the files again if they have changed. Where they are not sound, the old ones stay, which is logged.
    ///
    /// Waits for the disk.
    pub fn refresh(&self) {
        let seen = [look(&self.certificate), look(&self.key)];
        if self.held.lock().unwrap_or_else(PoisonError::into_inner).seen == seen {
            return;
        }
        let result = read(&self.certificate, &self.key);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.seen = seen;
        match result {
            Ok(config) => {
                held.config = config;
                tracing::info!(file = %self.certificate.display(), "the certificate of TLS was read anew");
            }
            Err(error) => tracing::warn!(%error, "the new certificate of TLS cannot be used; the old one stays in use"),
        }
    }
}

fn look(file: &Path) -> Option<Look> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(file).ok()?;
    Some(Look { modified: metadata.modified().ok()?, bytes: metadata.len(), inode: metadata.ino() })
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, CertificateError> {
    let of_certificate = |why| CertificateError::Certificate { file: certificate.to_owned(), why };
    let of_key = |why| CertificateError::Key { file: key.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| of_certificate(pem_words(error, "CERTIFICATE")))?;
    if chain.is_empty() {
        return Err(of_certificate(pem_words(PemError::NoItemsFound, "CERTIFICATE")));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| of_key(pem_words(error, "PRIVATE KEY")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        // TLS 1.2 and 1.3.
        .with_safe_default_protocol_versions()
        .map_err(|error| of_certificate(format!("cannot be used: {error}")))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| match error {
            TlsError::InconsistentKeys(_) => of_key(format!("is not the key of the certificate in {}", certificate.display())),
            TlsError::InvalidCertificate(_) => of_certificate(format!("holds no certificate that can be used: {error}")),
            error => of_key(format!("holds no key that can be used (RSA, ECDSA and Ed25519 can): {error}")),
        })?;
    // Players connect once: what would be kept for a second time is never asked for.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn pem_words(error: PemError, what: &str) -> String {
    match error {
        PemError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            format!("cannot be read: {error}; it has to be readable by the user that the server runs as")
        }
        PemError::Io(error) => format!("cannot be read: {error}"),
        PemError::NoItemsFound => format!("holds no \"-----BEGIN {what}-----\"; it has to be PEM"),
        error => format!("is no sound PEM: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    /// A certificate and its key.
    fn pair() -> [String; 2] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        [pem("CERTIFICATE", made.cert.der()), pem("PRIVATE KEY", &made.signing_key.serialize_der())]
    }

    #[test]
    fn a_changed_pair_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["chain.pem", "key.pem"].map(|name| folder.path().join(name));
        // Put in its place whole, so that it is another file whatever the clock of the file system says.
        let put = |which: usize, text: &str| {
            let new = folder.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &files[which]).unwrap();
        };
        let (one, other) = (pair(), pair());
        put(0, &one[0]);
        put(1, &one[1]);
        let certificate = Certificate::load(&files[0], &files[1]).unwrap();
        let first = certificate.config();
        certificate.refresh();
        assert!(Arc::ptr_eq(&first, &certificate.config()), "nothing has changed");
        for (which, broken) in [(0, &other[0]), (1, &"nonsense".to_owned())] {
            put(which, broken);
            certificate.refresh();
            assert!(Arc::ptr_eq(&first, &certificate.config()), "file {which} alone");
        }
        put(1, &other[1]);
        certificate.refresh();
        assert!(!Arc::ptr_eq(&first, &certificate.config()), "both have changed");
        let second = certificate.config();
        fs::remove_file(&files[0]).unwrap();
        certificate.refresh();
        assert!(Arc::ptr_eq(&second, &certificate.config()), "one is gone");
    }

    #[test]
    fn what_is_wrong_is_told_of_the_file_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (one, other) = (pair(), pair());
        let (chain, key, strange) = (file("chain", &one[0]), file("key", &one[1]), file("strange", &other[1]));
        let (empty, nowhere) = (file("empty", ""), folder.path().join("nowhere"));
        let broken = file("broken", &pem("CERTIFICATE", b"no certificate"));
        for (certificate, key, of_key, words) in [
            (&empty, &key, false, "holds no \"-----BEGIN CERTIFICATE-----\""),
            (&nowhere, &key, false, "cannot be read"),
            (&broken, &key, false, "no certificate that can be used"),
            (&chain, &empty, true, "holds no \"-----BEGIN PRIVATE KEY-----\""),
            (&chain, &nowhere, true, "cannot be read"),
            (&chain, &strange, true, "is not the key of the certificate"),
        ] {
            let error = Certificate::load(certificate, key).unwrap_err();
            assert_eq!(matches!(error, CertificateError::Key { .. }), of_key, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
