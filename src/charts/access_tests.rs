//! Tests of credentials: what a Secret says of them, and that nothing else says anything.

use super::*;

const SECRET: &str = "hunter2";

fn at(url: &str) -> Url {
    url.parse().unwrap()
}

fn full() -> Access {
    Access::given(&json!({
        "username": "me", "password": SECRET,
        "clientCertificate": "-----BEGIN CERTIFICATE-----\n", "clientKey": SECRET, "ca": SECRET,
    }))
    .unwrap()
}

fn secret(access: &Access, url: &str) -> Value {
    let owner = json!({ "metadata": { "name": "binnacle.repository.a", "uid": "u-1" } });
    access.secret("binnacle.repository.a", &at(url), Some(&owner))
}

#[test]
fn what_was_handed_in_comes_back_out_of_the_secret() {
    let base = at("https://charts.example/stable/");
    let stored = secret(&full(), base.as_str());
    assert_eq!(stored["type"], SECRET_TYPE);
    assert_eq!(stored["metadata"]["ownerReferences"][0]["uid"], "u-1");
    assert!(Access::stored(&stored, &base).unwrap() == full());
    let credentials = full().credentials(&base);
    assert_eq!(credentials.host, "charts.example:443");
    assert_eq!(credentials.password.as_deref(), Some(SECRET));
    assert_eq!(credentials.client.map(|(_, key)| key).as_deref(), Some(SECRET));
}

#[test]
fn a_secret_made_by_hand_has_the_keys_that_people_know() {
    let encoded = |text: &str| STANDARD.encode(text);
    let stored = json!({
        "type": SECRET_TYPE, "metadata": { "name": "binnacle.repository.a" },
        "data": { "host": encoded("r.corp:5000\n"), "token": encoded("abc\n"),
            "ca.crt": encoded("pem\n") },
    });
    let access = Access::stored(&stored, &at("https://r.corp:5000/")).unwrap();
    assert_eq!(access.token.as_deref(), Some("abc"));
    assert_eq!(access.ca.as_deref(), Some("pem\n"));
}

#[test]
fn stored_credentials_serve_one_host_port_and_scheme() {
    let stored = secret(&full(), "https://charts.example/");
    for other in [
        "https://charts.example:8443/",
        "http://charts.example:443/",
        "https://evil.example/",
        "https://charts.example.evil.example/",
    ] {
        let error = Access::stored(&stored, &at(other)).err().unwrap();
        assert!(matches!(error, BadAccess::Host { .. }), "{other}: {error}");
        assert!(!is_same_host(&at("https://charts.example/"), &at(other)));
    }
    assert!(Access::stored(&stored, &at("https://CHARTS.example:443/other/")).is_ok());
    let mut hostless = stored;
    hostless["data"]["host"].take();
    assert!(Access::stored(&hostless, &at("https://charts.example/")).is_err());
}

#[test]
fn a_secret_of_another_type_is_none_of_ours() {
    let mut stored = secret(&full(), "https://charts.example/");
    stored["type"] = "kubernetes.io/tls".into();
    let error = Access::stored(&stored, &at("https://charts.example/")).err().unwrap();
    assert!(matches!(error, BadAccess::Type(_)), "{error}");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    for (given, wanted) in [
        (json!({ "username": "me" }), BadAccess::Half),
        (json!({ "password": SECRET }), BadAccess::Half),
        (json!({ "username": "me", "password": SECRET, "token": SECRET }), BadAccess::Both),
        (json!({ "clientKey": SECRET }), BadAccess::HalfPair),
        (json!({ "token": 4711 }), BadAccess::Shape),
        (json!({ "secret": SECRET }), BadAccess::Shape),
        (json!(SECRET), BadAccess::Shape),
        (json!({ "token": "a\u{0}b" }), BadAccess::Text("token")),
        (json!({ "ca": "x".repeat(VALUE + 1) }), BadAccess::Text("ca")),
    ] {
        assert_eq!(Access::given(&given).err(), Some(wanted));
    }
    let nothing = Access::given(&json!({ "username": "", "token": null })).unwrap();
    assert!(nothing.is_empty());
}

#[test]
fn no_value_is_in_what_is_shown_of_credentials_or_of_their_errors() {
    let access = full();
    assert!(!format!("{access:?} {access:#?}").contains(SECRET));
    let base = at("https://charts.example/");
    assert!(!format!("{:?}", access.clone().credentials(&base)).contains(SECRET));
    let mut odd = secret(&access, base.as_str());
    odd["data"]["password"] = SECRET.into();
    let error = Access::stored(&odd, &base).err().unwrap();
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    odd["data"]["password"] = STANDARD.encode("hunter2\u{1}").into();
    let error = Access::stored(&odd, &base).err().unwrap();
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
}
