//! What our certificates say, and when a leaf is replaced. No file and no clock: times are made up.

use jiff::SignedDuration;

use super::*;

const HOUR: i64 = 60 * 60;

fn now() -> Timestamp {
    "2026-01-10T12:00:00Z".parse().unwrap()
}

fn later(days: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * days)
}

fn wanted(names: &[&str]) -> Wanted {
    Wanted { names: names.iter().map(|name| (*name).to_owned()).collect() }
}

fn authority() -> Authority {
    let key = new_key().unwrap();
    let certificate = ca_certificate(&key, now()).unwrap();
    Authority::parse(certificate.as_bytes(), key.as_bytes()).unwrap()
}

fn leaf(authority: &Authority, wanted: &Wanted) -> CertificateDer<'static> {
    let pem = authority.leaf(&new_key().unwrap(), wanted, now()).unwrap();
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_leaf_has_a_subject_names_and_the_usages_of_a_tls_server() {
    let wanted = wanted(&["dash.example.com", "localhost", "127.0.0.1", "::1"]);
    let der = leaf(&authority(), &wanted);
    let leaf = x509(&der).unwrap();
    assert_eq!(leaf.subject().to_string(), "O=Binnacle, CN=dash.example.com");
    assert_eq!(names(&leaf), wanted.names);
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && !extended.client_auth && !extended.any);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature());
    assert!(!usage.value.key_cert_sign());
    assert!(!leaf.is_ca());
}

#[test]
fn a_leaf_lives_no_longer_than_398_days_and_starts_a_little_earlier() {
    let der = leaf(&authority(), &wanted(&["localhost"]));
    let leaf = x509(&der).unwrap();
    let from = leaf.validity().not_before.timestamp();
    let to = leaf.validity().not_after.timestamp();
    assert!(to - from < 398 * DAY);
    assert!(from < now().as_second() && from > now().as_second() - HOUR);
}

#[test]
fn serials_are_random_positive_and_128_bits_long() {
    let authority = authority();
    let one = leaf(&authority, &wanted(&["localhost"]));
    let two = leaf(&authority, &wanted(&["localhost"]));
    let (one, two) = (x509(&one).unwrap(), x509(&two).unwrap());
    assert_ne!(one.raw_serial(), two.raw_serial());
    for certificate in [one, two] {
        assert_eq!(certificate.raw_serial().len(), 16);
        assert!(certificate.raw_serial()[0] < 0x80);
    }
}

#[test]
fn the_authority_may_sign_leaves_and_nothing_else() {
    let authority = authority();
    let ca = x509(&authority.certificate).unwrap();
    let constraints = ca.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    assert!(ca.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert!(ca.subject().to_string().starts_with("O=Binnacle, CN=Binnacle CA "));
    assert_eq!(ca.validity().not_after.timestamp(), now().as_second() - SKEW + CA_DAYS * DAY);
}

#[test]
fn key_identifiers_link_the_leaf_to_the_authority() {
    use x509_parser::extensions::ParsedExtension;

    let authority = authority();
    let der = leaf(&authority, &wanted(&["localhost"]));
    let identifiers = |der: &CertificateDer<'_>| {
        let (mut own, mut issuers) = (None, None);
        for extension in x509(der).unwrap().extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    issuers = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
        (own, issuers)
    };
    let (leafs_own, leafs_issuer) = identifiers(&der);
    let (authoritys_own, _) = identifiers(&authority.certificate);
    assert!(leafs_own.is_some() && authoritys_own.is_some());
    assert_eq!(leafs_issuer, authoritys_own);
    assert_ne!(leafs_own, authoritys_own);
}

#[test]
fn a_leaf_is_renewed_at_two_thirds_of_its_life_and_not_before() {
    let authority = authority();
    let wanted = wanted(&["localhost"]);
    let leaf = leaf(&authority, &wanted);
    let judge = |days| authority.judge(&leaf, Some(&wanted), later(days)).unwrap();
    assert_eq!(judge(0), None);
    assert_eq!(judge(264), None);
    assert_eq!(judge(265), Some(Reason::Age));
    assert_eq!(judge(396), Some(Reason::Age));
    assert_eq!(judge(398), Some(Reason::Unverified));
}

#[test]
fn a_missing_name_asks_for_a_new_leaf_and_a_superfluous_one_does_not() {
    let authority = authority();
    let leaf = leaf(&authority, &wanted(&["localhost", "::1"]));
    let judge = |names: &[&str]| authority.judge(&leaf, Some(&wanted(names)), now()).unwrap();
    assert_eq!(judge(&["localhost"]), None);
    assert_eq!(judge(&["::1", "localhost"]), None);
    assert_eq!(judge(&["localhost", "10.0.0.1"]), Some(Reason::Names));
    assert_eq!(authority.judge(&leaf, None, now()).unwrap(), None);
}

#[test]
fn a_leaf_of_another_authority_of_ours_is_replaced_and_a_foreign_one_is_not() {
    let wanted = wanted(&["localhost"]);
    let other = leaf(&authority(), &wanted);
    let ours = authority();
    assert_eq!(ours.judge(&other, Some(&wanted), now()).unwrap(), Some(Reason::Unverified));
    let foreign = rcgen::generate_simple_self_signed(wanted.names.clone()).unwrap();
    let why = ours.judge(foreign.cert.der(), Some(&wanted), now()).unwrap_err();
    assert!(why.contains("its issuer is"), "{why}");
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let authority = authority();
    let wanted = wanted(&["localhost"]);
    let key = new_key().unwrap();
    let pem = authority.leaf(&key, &wanted, later(CA_DAYS - 10)).unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert_eq!(life(&der).unwrap().1.as_second(), authority.not_after);
    let why = authority.leaf(&key, &wanted, later(CA_DAYS + 1)).unwrap_err();
    assert!(why.contains("expired"), "{why}");
}

#[test]
fn damaged_and_mismatched_authorities_are_told_apart() {
    let key = new_key().unwrap();
    let certificate = ca_certificate(&key, now()).unwrap();
    let why = |certificate: &str, key: &str| {
        Authority::parse(certificate.as_bytes(), key.as_bytes()).err().unwrap()
    };
    assert!(why("", &key).contains("ca.crt"));
    assert!(why(&certificate, "rubbish").contains("ca.key"));
    assert!(why(&certificate, &new_key().unwrap()).contains("not the key of ca.crt"));
}

#[test]
fn a_long_first_name_does_not_become_the_common_name() {
    let long = format!("{}.example.com", "a".repeat(60));
    assert_eq!(common_name(&wanted(&[&long, "short"])), "short");
    assert_eq!(common_name(&wanted(&[&long])), "binnacle");
}
