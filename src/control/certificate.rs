//! The certificate of control port and console, where the settings name none: made at the first start, kept, told by its
//! fingerprint.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// Names of the files in the state folder.
const CERTIFICATE: &str = "control-certificate.pem";
const KEY: &str = "control-key.pem";

/// The files of the certificate that was made here, made now where there is none; `addresses` are those it is to be good for beside
/// this machine's name and its own addresses. The folder is made too.
///
/// # Errors
/// The folder or a file cannot be written or read; the text says which.
pub fn own_certificate(folder: &Path, host: Option<&str>, addresses: &[IpAddr]) -> anyhow::Result<[PathBuf; 2]> {
    let files = [CERTIFICATE, KEY].map(|name| folder.join(name));
    let [certificate, key] = &files;
    if certificate.is_file() && key.is_file() {
        return Ok(files);
    }
    let folder_fails =
        || format!("no certificate can be kept in {}; name one by `control.certificate` and `control.key`", folder.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(folder_fails)?;
    let (certificate_pem, key_pem) = make(host, addresses).context("no certificate can be made")?;
    // The key first: a certificate without its key would be taken for both.
    write_private(key, &key_pem).with_context(folder_fails)?;
    write_private(certificate, &certificate_pem).with_context(folder_fails)?;
    Ok(files)
}

/// SHA-256 of the first certificate of a file, as browsers show it: `AB:CD:…`.
///
/// # Errors
/// The file cannot be read, or holds none.
pub fn fingerprint(file: &Path) -> anyhow::Result<String> {
    let certificate = CertificateDer::from_pem_file(file).with_context(|| format!("{} holds no certificate", file.display()))?;
    let bytes: Vec<String> = Sha256::digest(&certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(bytes.join(":"))
}

fn make(host: Option<&str>, addresses: &[IpAddr]) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let names = ["localhost"].into_iter().chain(host.filter(|host| !host.is_empty() && *host != "localhost"));
    let mut params = CertificateParams::new(names.map(str::to_owned).collect::<Vec<_>>())?;
    let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16])];
    let mut own: Vec<IpAddr> = loopback.into_iter().chain(addresses.iter().copied()).filter(|ip| !ip.is_unspecified()).collect();
    own.sort();
    own.dedup();
    params.subject_alt_names.extend(own.into_iter().map(SanType::IpAddress));
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("wmrelay on {}", host.unwrap_or("localhost")));
    params.distinguished_name = name;
    let certificate = params.self_signed(&key)?;
    Ok((pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der())))
}

/// PEM with lines of 64 characters (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// In one step, readable by us alone.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Certificate;

    #[test]
    fn it_is_made_once_and_can_be_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let addresses = ["192.0.2.1".parse().unwrap(), "0.0.0.0".parse().unwrap()];
        let files = own_certificate(&state, Some("media.example"), &addresses).unwrap();
        Certificate::load(&files[0], &files[1]).unwrap();
        let first = fingerprint(&files[0]).unwrap();
        assert_eq!((first.len(), first.matches(':').count()), (95, 31));
        assert!(files.iter().all(|file| fs::metadata(file).unwrap().permissions().mode() & 0o777 == 0o600));
        assert_eq!(own_certificate(&state, None, &[]).unwrap(), files);
        assert_eq!(fingerprint(&files[0]).unwrap(), first, "the next start has the same one");
        fs::remove_file(&files[1]).unwrap();
        own_certificate(&state, None, &[]).unwrap();
        assert_ne!(fingerprint(&files[0]).unwrap(), first);
    }

    #[test]
    fn a_folder_that_cannot_be_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = format!("{:#}", own_certificate(&file.join("state"), None, &[]).unwrap_err());
        assert!(error.contains("no certificate can be kept in") && error.contains("control.certificate"), "{error}");
    }
}
