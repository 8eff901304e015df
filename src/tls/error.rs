//! What can go wrong with our certificate, each as one sentence: what, where, and what would be right.
//! These errors are for the operator's log and for the exit line at start; no client ever sees one.

use std::io;
use std::path::PathBuf;

/// Why a certificate could not be read, made or kept.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {cause}", .path.display())]
    Io {
        /// What we tried: "read", "write", "create".
        action: &'static str,
        path: PathBuf,
        /// Told already: as `source` it would be told twice.
        cause: io::Error,
    },
    /// What is there is damaged, or belongs to somebody else. We never overwrite such a thing.
    #[error("{place} cannot be used: {why}; {remedy}")]
    Broken {
        /// The file or the Secret.
        place: String,
        why: String,
        remedy: String,
    },
    /// The API server did not let us read or write the Secret, or did not answer.
    #[error("cannot {action} Secret {place}: {why}")]
    Secret {
        /// What we tried: "get", "create", "update".
        action: &'static str,
        /// `namespace/name`.
        place: String,
        why: String,
    },
    /// The API server that keeps the Secret gave no answer: it may be starting, as we are.
    #[error("cannot {action} Secret {place} yet: {why}")]
    Away {
        action: &'static str,
        /// `namespace/name`.
        place: String,
        why: String,
    },
    /// A name that a certificate cannot carry.
    #[error(
        "`{0}` cannot stand in a certificate: give a DNS name (internationalized names in their \
         xn-- form, a wildcard only as the first label) or an IP address"
    )]
    Name(String),
    /// A key or a certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
    /// rustls refused the configuration.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}
