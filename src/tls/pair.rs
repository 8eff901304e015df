//! A certificate with its key, parsed and checked to belong together, ready to be served.
//! It does not say whether anybody should trust it: that is the authority's judgement.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::authority;
use super::provider;

/// What a source gave us to serve.
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// The CA beside it, as PEM, where there is one.
    pub(super) ca_pem: Option<String>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Usable, but something about it failed that has to be told (a renewal that was refused).
    pub(super) complaint: Option<String>,
}

impl Loaded {
    /// Parses a chain (leaf first) and its private key, both PEM.
    ///
    /// # Errors
    /// Says which of the two is damaged, or that they do not belong together.
    pub(super) fn parse(chain: &[u8], key: &[u8]) -> Result<Loaded, String> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("the certificate is not readable PEM ({})", damage(&e)))?;
        let Some(leaf) = chain.first() else {
            return Err("it holds no PEM certificate".to_owned());
        };
        let (not_before, not_after) = authority::life(leaf)?;
        // The error may quote a line of the file, so the key's is not passed on.
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "the key is not a readable PEM private key".to_owned())?;
        let key = CertifiedKey::from_der(chain, key, provider()).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => {
                "the private key does not belong to the certificate".to_owned()
            }
            e => e.to_string(),
        })?;
        let key = Arc::new(key);
        Ok(Loaded { key, ca_pem: None, not_before, not_after, complaint: None })
    }

    pub(super) fn with_ca(mut self, ca: &[u8]) -> Loaded {
        self.ca_pem = std::str::from_utf8(ca).ok().map(str::to_owned);
        self
    }

    pub(super) fn with_complaint(mut self, complaint: String) -> Loaded {
        self.complaint = Some(complaint);
        self
    }

    /// The certificate itself, without its chain.
    pub(super) fn leaf(&self) -> &CertificateDer<'static> {
        // `parse` lets no empty chain through.
        &self.key.cert[0]
    }
}

/// What is wrong with a file in PEM: its reader shows the bytes as numbers.
pub(super) fn damage(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it ends before its END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "its BEGIN line is damaged".to_owned(),
        pem::Error::Base64Decode(_) => "between BEGIN and END is no base64".to_owned(),
        pem::Error::NoItemsFound => "it has no BEGIN line of one".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of version 1, as `openssl x509 -req` makes them without extensions.
    const OLD: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBFzCBvwIUCbWPN1317LKV7oR1QJu4l+ZpO/wwCgYIKoZIzj0EAwIwDjEMMAoG\n\
        A1UEAwwDb2xkMCAXDTI2MTEyMjE5MTUwM1oYDzIxMjYxMDI5MTkxNTAzWjAOMQww\n\
        CgYDVQQDDANvbGQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASv/hFiKZiDWWKx\n\
        Y0UXNZn1Shx5EWo+EWrjRaz2b2xQOIVMNSti9vwuZKYxy3n2E2h0bwuQjp5dtZzg\n\
        sunOsSwjMAoGCCqGSM49BAMCA0cAMEQCIES7MEa6n/RZGneBYWFBwln4V/2ipX2t\n\
        4udATw+Q7AI2AiBZCRubdKWTYjWGI4Mc/kh1Ah5fQCNahI4q8E5GgWmEiQ==\n\
        -----END CERTIFICATE-----\n";

    fn self_signed() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn why(chain: &str, key: &str) -> String {
        Loaded::parse(chain.as_bytes(), key.as_bytes()).err().unwrap()
    }

    #[test]
    fn a_chain_is_kept_whole_with_the_leaf_first() {
        let ((leaf, key), (issuer, _)) = (self_signed(), self_signed());
        let chain = format!("{leaf}{issuer}");
        let loaded = Loaded::parse(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(loaded.key.cert.len(), 2);
        assert_eq!(loaded.leaf(), &loaded.key.cert[0]);
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let (certificate, key) = self_signed();
        let (_, other) = self_signed();
        assert!(why("", &key).contains("no PEM certificate"));
        let cut = why(&certificate[..certificate.len() / 2], &key);
        assert_eq!(cut, "the certificate is not readable PEM (it ends before its END line)");
        let spoilt = why(&certificate.replacen("MII", "M!I", 1), &key);
        assert!(spoilt.contains("no base64"), "{spoilt}");
        assert!(why(OLD, &key).contains("TLS needs version 3"));
        assert!(why(&certificate, "secret-line").contains("private key"));
        assert!(why(&certificate, &other).contains("does not belong"));
    }

    #[test]
    fn an_error_never_quotes_the_key() {
        let (certificate, key) = self_signed();
        let broken = key.replace("-----END", "--END");
        let told = why(&certificate, &broken);
        assert!(!told.contains(&key[40..60]), "{told}");
    }
}
