//! Our certificate on a machine: `ca.key`, `ca.crt`, `tls.key` and `tls.crt` in the state directory.
//! Each step leaves a directory that the next start can go on from, and a key is always there before
//! its certificate, so two processes at once end with the same files. A renewal keeps the leaf's key:
//! it is then a single rename. What cannot be read is an error and never overwritten.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::authority::{self, Authority, Reason};
use super::files;
use super::pair::{Loaded, damage};
use super::{TlsError, Wanted};

const CA_CRT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const TLS_CRT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";

/// Owner only: whoever reads a key can be us.
const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o700;

/// Reads what the directory holds, makes what is missing, and replaces a leaf that is due.
/// `wanted.names` count only `at_start`: two processes that want different names would otherwise replace
/// each other's leaf for ever. Nothing is created later than at start either: a directory that
/// lost its files while we run is told, not filled with a new authority.
///
/// # Errors
/// A file cannot be read or written, or is damaged.
pub(super) fn load(
    dir: &Path,
    wanted: &Wanted,
    at_start: bool,
    now: Timestamp,
) -> Result<Loaded, TlsError> {
    if at_start {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(dir)
            .map_err(|source| io_error("create", dir, source))?;
    } else if !dir.join(CA_CRT).exists() || !dir.join(TLS_CRT).exists() {
        return Err(gone(dir));
    }
    let (ca_pem, authority) = kept_authority(dir, now)?;
    let (chain, key) = kept_leaf(dir, &authority, wanted, now)?;
    if at_start {
        // Only then: we look again every few seconds.
        warn_if_readable(&dir.join(CA_KEY));
        warn_if_readable(&dir.join(TLS_KEY));
    }
    let place = || dir.join(TLS_CRT).display().to_string();
    let loaded = Loaded::parse(&chain, key.as_bytes()).map_err(|why| broken_leaf(place(), why))?;
    let names = at_start.then_some(wanted);
    let reason =
        authority.judge(loaded.leaf(), names, now).map_err(|why| broken_leaf(place(), why))?;
    let Some(reason) = reason else {
        return Ok(loaded.with_ca(&ca_pem));
    };
    tracing::info!(?reason, file = place(), "replacing our certificate");
    let renewed = authority
        .leaf(&key, wanted, now)
        .map_err(|why| broken_authority(dir, why))
        .and_then(|pem| replace(dir, TLS_CRT, pem.as_bytes(), PUBLIC_MODE).map(|()| pem));
    match renewed {
        Ok(pem) => Loaded::parse(pem.as_bytes(), key.as_bytes())
            .map(|loaded| loaded.with_ca(&ca_pem))
            .map_err(TlsError::Make),
        Err(error) if reason != Reason::Unverified => {
            Ok(loaded.with_ca(&ca_pem).with_complaint(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// The CA certificate of a state directory as PEM, to be trusted by people.
///
/// # Errors
/// There is none yet, or it is damaged.
pub fn read_ca(dir: &Path) -> Result<String, TlsError> {
    let path = dir.join(CA_CRT);
    let bytes = files::read(&path)?;
    let broken = |why: String| TlsError::Broken {
        place: path.display().to_string(),
        why,
        remedy: "restore it from a backup, or start with an empty state directory".to_owned(),
    };
    CertificateDer::from_pem_slice(&bytes)
        .map_err(|error| broken(format!("it holds no PEM certificate ({})", damage(&error))))?;
    String::from_utf8(bytes).map_err(|e| broken(e.to_string()))
}

fn kept_authority(dir: &Path, now: Timestamp) -> Result<(Vec<u8>, Authority), TlsError> {
    // The certificate is looked for first: it is written last, so one without a key is no race.
    let certificate = existing(dir, CA_CRT)?;
    let key = existing(dir, CA_KEY)?;
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => {
            return Err(broken_authority(dir, "ca.key is missing".to_owned()));
        }
        (None, key) => {
            let key = match key {
                Some(key) => key,
                None => create(dir, CA_KEY, authority::new_key()?.as_bytes(), SECRET_MODE)?,
            };
            let made = authority::ca_certificate(&String::from_utf8_lossy(&key), now)
                .map_err(|why| broken_authority(dir, format!("ca.key: {why}")))?;
            let certificate = create(dir, CA_CRT, made.as_bytes(), PUBLIC_MODE)?;
            (certificate, key)
        }
    };
    let authority =
        Authority::parse(&certificate, &key).map_err(|why| broken_authority(dir, why))?;
    Ok((certificate, authority))
}

/// Certificate and key, as they stand or as just made.
fn kept_leaf(
    dir: &Path,
    authority: &Authority,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<(Vec<u8>, String), TlsError> {
    let place = || dir.join(TLS_CRT).display().to_string();
    let chain = existing(dir, TLS_CRT)?;
    let key = match existing(dir, TLS_KEY)? {
        Some(key) => key,
        None if chain.is_some() => {
            return Err(broken_leaf(place(), "tls.key is missing".to_owned()));
        }
        None => create(dir, TLS_KEY, authority::new_key()?.as_bytes(), SECRET_MODE)?,
    };
    let key = String::from_utf8_lossy(&key).into_owned();
    let chain = match chain {
        Some(chain) => chain,
        None => {
            let made = authority
                .leaf(&key, wanted, now)
                .map_err(|why| broken_leaf(dir.join(TLS_KEY).display().to_string(), why))?;
            create(dir, TLS_CRT, made.as_bytes(), PUBLIC_MODE)?
        }
    };
    Ok((chain, key))
}

fn existing(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, TlsError> {
    match files::read(&dir.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(TlsError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file that must not exist yet, whole or not at all, and returns what is there then:
/// our bytes, or those of a process that was faster.
fn create(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<Vec<u8>, TlsError> {
    let path = dir.join(name);
    let temporary = write_temporary(dir, name, bytes, mode)?;
    // A hard link, unlike a rename, fails when the name is taken.
    let linked = std::fs::hard_link(&temporary, &path);
    let _ = std::fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync(dir).map(|()| bytes.to_vec()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => files::read(&path),
        Err(source) => Err(io_error("create", &path, source)),
    }
}

/// Puts new content in the place of a file; a reader sees the old or the new, never a part.
fn replace(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    let path = dir.join(name);
    let temporary = write_temporary(dir, name, bytes, mode)?;
    if let Err(source) = std::fs::rename(&temporary, &path) {
        let _ = std::fs::remove_file(&temporary);
        return Err(io_error("write", &path, source));
    }
    sync(dir)
}

/// A new file beside its destination, on disk before its name is.
fn write_temporary(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<PathBuf, TlsError> {
    let mut random = [0; 8];
    rand::fill(&mut random).map_err(|_| TlsError::Make("no randomness".to_owned()))?;
    let path = dir.join(format!(".{name}.{:016x}", u64::from_ne_bytes(random)));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| {
        let _ = std::fs::remove_file(&path);
        io_error("write", &path, source)
    })?;
    Ok(path)
}

/// Makes a new name in the directory survive a power cut.
fn sync(dir: &Path) -> Result<(), TlsError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| io_error("write", dir, source))
}

fn warn_if_readable(path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |m| m.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(
            file = %path.display(),
            "other users may read this private key; `chmod 600` it"
        );
    }
}

fn gone(dir: &Path) -> TlsError {
    TlsError::Broken {
        place: dir.display().to_string(),
        why: "ca.crt or tls.crt is gone".to_owned(),
        remedy: "restore the files, or restart to have new ones made; until then the certificate \
                 in memory is served"
            .to_owned(),
    }
}

fn broken_authority(dir: &Path, why: String) -> TlsError {
    TlsError::Broken {
        place: format!("the authority in {}", dir.display()),
        why,
        remedy:
            "restore ca.crt and ca.key from a backup, or remove both and have people trust the \
                 new one that the next start makes"
                .to_owned(),
    }
}

fn broken_leaf(place: String, why: String) -> TlsError {
    TlsError::Broken {
        place,
        why,
        remedy: "remove tls.crt and tls.key to have new ones made, or name a certificate of your \
                 own with --tls-cert and --tls-key"
            .to_owned(),
    }
}

fn io_error(action: &'static str, path: &Path, cause: io::Error) -> TlsError {
    TlsError::Io { action, path: path.to_owned(), cause }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
