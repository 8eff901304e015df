//! TLS towards servers of charts: which certificates are trusted, and which one we show ourselves.
//!
//! It trusts the system's authorities and those that a repository brings, never a certificate as
//! such, and there is no switch that trusts everything. Nothing here connects.

use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_native_certs::{CertificateResult, ErrorKind, load_native_certs};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::client::BadClient;

/// Read once: the system's certificates, or those that `SSL_CERT_FILE` names.
static SYSTEM: OnceLock<RootCertStore> = OnceLock::new();
/// What most repositories need, shared by them: the authorities alone have some 150 KiB.
static PLAIN: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// The system's authorities, with those of `ca` (PEM) besides; and a client certificate with its
/// key (both PEM) for servers that ask for one.
pub(super) fn config(
    ca: Option<&str>,
    client: Option<&(String, String)>,
) -> Result<Arc<ClientConfig>, BadClient> {
    if ca.is_some() || client.is_some() {
        return made(ca, client);
    }
    if let Some(plain) = PLAIN.get() {
        return Ok(plain.clone());
    }
    let plain = made(None, None)?;
    Ok(PLAIN.get_or_init(|| plain).clone())
}

/// Why TLS fails, as what is to be done about it.
pub(super) fn explained(error: &rustls::Error) -> String {
    let why = match error {
        rustls::Error::InvalidCertificate(why) => why,
        rustls::Error::InvalidMessage(_) => return format!("no TLS is spoken there ({error})"),
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => return format!("it wants a client certificate that it trusts ({error})"),
        _ => return error.to_string(),
    };
    match why {
        CertificateError::UnknownIssuer => {
            "its certificate is signed by no authority that is known here; the repository's `ca` \
             has to hold the one that signed it"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("its certificate has expired ({why})")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is for other names ({why})")
        }
        _ => error.to_string(),
    }
}

fn system() -> Result<&'static RootCertStore, BadClient> {
    if let Some(roots) = SYSTEM.get() {
        return Ok(roots);
    }
    let roots = taken(load_native_certs())?;
    Ok(SYSTEM.get_or_init(|| roots))
}

/// The authorities among what was found. What could not be read for want of something that is there
/// again in a moment is no answer: it would be kept, by us and by the repository's client.
fn taken(found: CertificateResult) -> Result<RootCertStore, BadClient> {
    if let Some(error) = found.errors.iter().find(|error| is_passing(&error.kind)) {
        return Err(BadClient::Setup(format!("the system's certificates: {error}")));
    }
    let mut roots = RootCertStore::empty();
    let (taken, ignored) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        // Servers without TLS, and those with an authority of their own, can still be read.
        let errors = found.errors;
        tracing::warn!(?errors, ignored, "the system has no root certificates for charts");
    }
    Ok(roots)
}

fn is_passing(why: &ErrorKind) -> bool {
    let ErrorKind::Io { inner, .. } = why else { return false };
    let want = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    Errno::from_io_error(inner).is_some_and(|error| want.contains(&error))
}

fn made(
    ca: Option<&str>,
    client: Option<&(String, String)>,
) -> Result<Arc<ClientConfig>, BadClient> {
    let mut roots = system()?.clone();
    if let Some(ca) = ca {
        let certificates = certificates(ca).map_err(BadClient::Ca)?;
        for certificate in certificates {
            roots.add(certificate).map_err(|error| BadClient::Ca(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BadClient::Setup(error.to_string()))?
        .with_root_certificates(roots);
    let Some((chain, key)) = client else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let chain = certificates(chain).map_err(BadClient::Certificate)?;
    // The error may quote a line of the key, so it is not passed on.
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| BadClient::Key)?;
    let config = builder.with_client_auth_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => BadClient::Pair,
        error => BadClient::Certificate(error.to_string()),
    })?;
    Ok(Arc::new(config))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if all.is_empty() => Err("there is no PEM certificate in it".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_no_file_descriptor_was_left_for_are_read_again() {
        let found = |error: Errno| {
            let (inner, path) = (error.into(), "/etc/ssl/certs/ca-certificates.crt".into());
            let kind = ErrorKind::Io { inner, path };
            let mut found = CertificateResult::default();
            found.errors.push(rustls_native_certs::Error { context: "opening", kind });
            found
        };
        let refused = taken(found(Errno::MFILE)).unwrap_err().to_string();
        assert!(refused.contains("the system's certificates"), "{refused}");
        let none = taken(found(Errno::NOENT)).unwrap();
        assert!(none.is_empty(), "servers without TLS can still be read");
    }
}
