//! Our own certificate authority: makes keys, its own certificate and leaves, and judges whether a leaf
//! is still good. Pure but for randomness: times are arguments, and nothing is read or written here.
//! It is no public CA: no revocation, no intermediates, one kind of leaf (a TLS server).

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::rand;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
    date_time_ymd,
};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::pair::damage;
use super::{TlsError, Wanted, provider};

/// Stands in every subject; by it we know our own leaves from ones that somebody else put there.
const ORGANIZATION: &str = "Binnacle";

const DAY: i64 = 24 * 60 * 60;

/// Days a leaf lives. Clients refuse more than 398 (CA/Browser Forum, Apple); they count the last second.
const LEAF_DAYS: i64 = 397;

/// Days our CA lives: ten years, because people trust it by hand.
const CA_DAYS: i64 = 3650;

/// Seconds a certificate is valid before it is made: clocks of clients differ by minutes.
const SKEW: i64 = 5 * 60;

/// Characters of a common name, at most (ub-common-name, RFC 5280 appendix A.1).
const MAX_COMMON_NAME: usize = 64;

/// The kept CA, parsed and checked: certificate and key belong together.
pub(super) struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    /// Seconds since 1970.
    not_after: i64,
}

/// A new authority and a leaf of it, each with its key; all PEM.
pub(super) struct Made {
    pub(super) ca: String,
    pub(super) ca_key: String,
    pub(super) leaf: String,
    pub(super) key: String,
}

/// Why a leaf has to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Two thirds of its life are over; it still verifies.
    Age,
    /// It lacks a name that is wanted now; it still verifies.
    Names,
    /// No client that trusts our CA would accept it (expired, not yet valid, issued by an earlier CA).
    Unverified,
}

/// A new ECDSA P-256 key as PKCS#8 PEM.
pub(super) fn new_key() -> Result<String, TlsError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
    Ok(key.serialize_pem())
}

/// A self-signed CA certificate over this key (PKCS#8 PEM), as PEM.
///
/// # Errors
/// Says what is wrong with the key.
pub(super) fn ca_certificate(key: &str, now: Timestamp) -> Result<String, String> {
    let key = KeyPair::from_pem(key).map_err(|e| format!("it holds no usable private key: {e}"))?;
    let serial = serial().map_err(|e| e.to_string())?;
    let tail: String = serial[..4].iter().map(|b| format!("{b:02x}")).collect();
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(|e| e.to_string())?;
    // The tail tells two CAs of ours apart in a list of trusted authorities.
    params.distinguished_name = subject(&format!("Binnacle CA {tail}"));
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let from = now.as_second() - SKEW;
    set_validity(&mut params, from, from + CA_DAYS * DAY);
    let certificate = params.self_signed(&key).map_err(|e| e.to_string())?;
    Ok(certificate.pem())
}

/// Founds an authority, and has it make its first leaf.
pub(super) fn found(wanted: &Wanted, now: Timestamp) -> Result<Made, TlsError> {
    let (ca_key, key) = (new_key()?, new_key()?);
    let ca = ca_certificate(&ca_key, now).map_err(TlsError::Make)?;
    let authority = Authority::parse(ca.as_bytes(), ca_key.as_bytes()).map_err(TlsError::Make)?;
    let leaf = authority.leaf(&key, wanted, now).map_err(TlsError::Make)?;
    Ok(Made { ca, ca_key, leaf, key })
}

impl Authority {
    /// Reads a kept CA.
    ///
    /// # Errors
    /// Says which part is damaged.
    pub(super) fn parse(certificate: &[u8], key: &[u8]) -> Result<Authority, String> {
        let certificate = CertificateDer::from_pem_slice(certificate)
            .map_err(|e| format!("ca.crt holds no PEM certificate ({})", damage(&e)))?;
        let key = std::str::from_utf8(key)
            .map_err(|e| e.to_string())
            .and_then(|text| KeyPair::from_pem(text).map_err(|e| e.to_string()))
            .map_err(|e| format!("ca.key holds no usable private key ({e})"))?;
        let (not_after, own_key) = {
            let parsed = x509(&certificate).map_err(|e| format!("ca.crt: {e}"))?;
            if !parsed.is_ca() {
                return Err("ca.crt is not the certificate of an authority".to_owned());
            }
            let own_key = parsed.public_key().raw == key.subject_public_key_info().as_slice();
            (parsed.validity().not_after.timestamp(), own_key)
        };
        if !own_key {
            return Err("ca.key is not the key of ca.crt".to_owned());
        }
        Ok(Authority { certificate, key, not_after })
    }

    /// A leaf over this key (PKCS#8 PEM) with the wanted names, as PEM. It never outlives the CA.
    ///
    /// # Errors
    /// Says what is wrong with the key or the CA.
    pub(super) fn leaf(
        &self,
        key: &str,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<String, String> {
        let not_before = now.as_second() - SKEW;
        let not_after = (not_before + LEAF_DAYS * DAY).min(self.not_after);
        if not_after <= now.as_second() {
            return Err("our certificate authority has expired".to_owned());
        }
        let key = KeyPair::from_pem(key).map_err(|e| format!("no usable private key ({e})"))?;
        let serial = serial().map_err(|e| e.to_string())?;
        let mut params = CertificateParams::new(wanted.names.clone()).map_err(|e| e.to_string())?;
        params.distinguished_name = subject(common_name(wanted));
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        // Explicit, because only then rcgen writes the subject key identifier.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut params, not_before, not_after);
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)
            .map_err(|e| format!("ca.crt: {e}"))?;
        let leaf = params.signed_by(&key, &issuer).map_err(|e| e.to_string())?;
        Ok(leaf.pem())
    }

    /// Whether a kept leaf has to be replaced now, and why. `wanted` is `None` where names do not count.
    ///
    /// # Errors
    /// The leaf is not ours to replace, or cannot be read.
    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        wanted: Option<&Wanted>,
        now: Timestamp,
    ) -> Result<Option<Reason>, String> {
        let parsed = x509(leaf)?;
        let ours =
            parsed.issuer().iter_organization().any(|name| name.as_str() == Ok(ORGANIZATION));
        if !ours {
            return Err(format!("its issuer is {}, not we", parsed.issuer()));
        }
        if !self.verifies(leaf, now) {
            return Ok(Some(Reason::Unverified));
        }
        if now.as_second() >= renewal_time(&parsed) {
            return Ok(Some(Reason::Age));
        }
        let names = names(&parsed);
        let lacking = wanted.is_some_and(|w| w.names.iter().any(|name| !names.contains(name)));
        Ok(lacking.then_some(Reason::Names))
    }

    /// As a client that trusts this CA alone would see it.
    fn verifies(&self, leaf: &CertificateDer<'_>, now: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        if roots.add(self.certificate.clone()).is_err() {
            return false;
        }
        let Ok(leaf) = rustls::server::ParsedCertificate::try_from(leaf) else {
            return false;
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &roots,
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            provider().signature_verification_algorithms.all,
        )
        .is_ok()
    }
}

/// Names in a certificate, written as in [`Wanted`]; empty for one that cannot be read.
pub(super) fn names_in(certificate: &CertificateDer<'_>) -> Vec<String> {
    x509(certificate).map_or_else(|_| Vec::new(), |parsed| names(&parsed))
}

/// The beginning and the end of a certificate's life.
pub(super) fn life(certificate: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), String> {
    let parsed = x509(certificate)?;
    let life = parsed.validity();
    let at = |seconds| Timestamp::from_second(seconds).map_err(|e| e.to_string());
    Ok((at(life.not_before.timestamp())?, at(life.not_after.timestamp())?))
}

/// Two thirds of the way from birth to end, in seconds since 1970.
fn renewal_time(leaf: &X509Certificate<'_>) -> i64 {
    let from = leaf.validity().not_before.timestamp();
    let to = leaf.validity().not_after.timestamp();
    to - to.saturating_sub(from) / 3
}

fn x509<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    let (_, parsed) = X509Certificate::from_der(der.as_ref())
        .map_err(|e| format!("not an X.509 certificate ({e})"))?;
    // `openssl x509 -req` makes such ones where no extension is asked for.
    if parsed.version() != X509Version::V3 {
        return Err("an X.509 certificate of an old version, where TLS needs version 3".to_owned());
    }
    Ok(parsed)
}

fn names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANIZATION);
    name.push(DnType::CommonName, common_name);
    name
}

/// The first name that fits; a subject must never be empty.
fn common_name(wanted: &Wanted) -> &str {
    wanted
        .names
        .iter()
        .map(String::as_str)
        .find(|name| name.len() <= MAX_COMMON_NAME)
        .unwrap_or("binnacle")
}

/// 128 bits, positive and never shorter: the first two bits are fixed, the others random (RFC 5280 allows
/// 20 bytes; browsers ask for 64 random bits).
fn serial() -> Result<[u8; 16], TlsError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| TlsError::Make("no randomness".to_owned()))?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(bytes)
}

/// Both ends of a life, in seconds since 1970. (The date type belongs to a crate behind rcgen.)
fn set_validity(params: &mut CertificateParams, from: i64, to: i64) {
    let epoch = date_time_ymd(1970, 1, 1);
    let after = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    params.not_before = epoch + after(from);
    params.not_after = epoch + after(to);
}

fn make(error: rcgen::Error) -> TlsError {
    TlsError::Make(error.to_string())
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
