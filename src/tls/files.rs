//! A certificate that somebody else made and keeps: two files, read as they are.
//! Nothing is ever written here, and nothing is judged but that the two belong together.

use std::path::Path;

use super::TlsError;
use super::pair::Loaded;

/// Bytes of a certificate or key file, at most: a chain of ten with RSA-4096 keys is 25 kB.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads a given pair.
///
/// # Errors
/// A file cannot be read, is damaged, or they do not belong together.
pub(super) fn load(certificate: &Path, key: &Path) -> Result<Loaded, TlsError> {
    let chain = read(certificate)?;
    let private = read(key)?;
    Loaded::parse(&chain, &private).map_err(|why| TlsError::Broken {
        place: format!("{} with key {}", certificate.display(), key.display()),
        why,
        remedy: "give a PEM certificate chain, leaf first, and its PEM private key".to_owned(),
    })
}

/// A whole file, bounded.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        if std::fs::metadata(path)?.len() > MAX_FILE {
            return Err(std::io::Error::other("it is larger than 1 MiB"));
        }
        std::fs::read(path)
    };
    read().map_err(|cause| TlsError::Io { action: "read", path: path.to_owned(), cause })
}
