//! What a repository is shown to be let in: a user name and a password, or a token, a client
//! certificate, and whom we trust there; as a Secret keeps it and as it is handed in.
//!
//! No value of it is ever written: not in an answer, not in a message, not in a log.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use url::Url;

use super::client::{Credentials, authority};

/// Of Secrets that are ours to read.
pub const SECRET_TYPE: &str = "binnacle.dev/repository.v1";
/// The host that the others are for: `host:port`, and `http://` in front where there is no TLS.
const HOST: &str = "host";
/// The longest value: a bundle of all public authorities has 230 KiB, and a Secret holds 1 MiB.
const VALUE: usize = 256 << 10;
/// What is handed in by these names, and the Secret's keys for it.
const FIELDS: [(&str, &str); 6] = [
    ("username", "username"),
    ("password", "password"),
    ("token", "token"),
    ("clientCertificate", "tls.crt"),
    ("clientKey", "tls.key"),
    ("ca", "ca.crt"),
];

/// Credentials of one repository; those that are not there are `None`, never empty.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Access {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) token: Option<String>,
    /// A chain in PEM.
    pub(super) certificate: Option<String>,
    /// Its key in PEM.
    pub(super) key: Option<String>,
    /// Authorities in PEM that are trusted besides the public ones.
    pub(super) ca: Option<String>,
}

/// What is wrong with credentials, without any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAccess {
    #[error(
        "credentials are an object of texts: username, password, token, clientCertificate, \
         clientKey, ca"
    )]
    Shape,
    #[error("{0} has control characters or more than 256 KiB")]
    Text(&'static str),
    #[error("username and password belong together")]
    Half,
    #[error("username and password, or a token: not both")]
    Both,
    #[error("clientCertificate and clientKey belong together")]
    HalfPair,
    #[error("the Secret {0} is not of the type binnacle.dev/repository.v1")]
    Type(String),
    #[error("the Secret {0} has a key that is no text in base64")]
    Encoding(String),
    #[error("the stored credentials are for {stored} and are not sent to {wanted}: give them anew")]
    Host { stored: String, wanted: String },
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access(..)")
    }
}

impl Access {
    /// As it is handed in.
    pub fn given(value: &Value) -> Result<Self, BadAccess> {
        let fields = value.as_object().ok_or(BadAccess::Shape)?;
        let known = |name: &String| FIELDS.iter().any(|(known, _)| known == name);
        if !fields.keys().all(known) {
            return Err(BadAccess::Shape);
        }
        let mut access = Self::default();
        for (name, _) in FIELDS {
            match fields.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => access.set(name, text.clone()),
                Some(_) => return Err(BadAccess::Shape),
            }
        }
        access.check()?;
        Ok(access)
    }

    /// Out of a Secret, for what stands at `base`.
    pub fn stored(secret: &Value, base: &Url) -> Result<Self, BadAccess> {
        let name = || secret["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if secret["type"].as_str() != Some(SECRET_TYPE) {
            return Err(BadAccess::Type(name()));
        }
        let text = |key: &str| match &secret["data"][key] {
            Value::Null => Ok(String::new()),
            value => {
                let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
                let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
                text.ok_or_else(|| BadAccess::Encoding(name()))
            }
        };
        let (stored, wanted) = (text(HOST)?, scope(base));
        if stored.trim() != wanted {
            // Its own words, but only as long as a host can be.
            let stored = stored.trim().chars().take(255).collect();
            return Err(BadAccess::Host { stored, wanted });
        }
        let mut access = Self::default();
        for (field, key) in FIELDS {
            access.set(field, text(key)?);
        }
        access.check()?;
        Ok(access)
    }

    /// The Secret that keeps it for what stands at `base`, beside the ConfigMap that owns it.
    pub fn secret(&self, name: &str, base: &Url, owner: Option<&Value>) -> Value {
        let mut data = Map::new();
        data.insert(HOST.into(), STANDARD.encode(scope(base)).into());
        for ((_, key), value) in FIELDS.into_iter().zip(self.values()) {
            if let Some(value) = value {
                data.insert(key.into(), STANDARD.encode(value).into());
            }
        }
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE, "data": data,
            "metadata": { "name": name },
        });
        if let Some(owner) = owner {
            secret["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "v1", "kind": "ConfigMap",
                "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
            }]);
        }
        secret
    }

    pub fn is_empty(&self) -> bool {
        self.values().iter().all(|value| value.is_none())
    }

    /// For what stands at `base`, and for nothing else.
    pub(super) fn credentials(self, base: &Url) -> Credentials {
        Credentials {
            username: self.username,
            password: self.password,
            token: self.token,
            client: self.certificate.zip(self.key),
            ca: self.ca,
            host: authority(base),
        }
    }

    /// Whether its parts fit together; what they hold is the client's to judge.
    pub(super) fn check(&self) -> Result<(), BadAccess> {
        for ((field, _), value) in FIELDS.into_iter().zip(self.values()) {
            let pem = is_pem(field);
            let odd = |c: char| c.is_control() && !(pem && matches!(c, '\n' | '\r' | '\t'));
            if value.is_some_and(|value| value.len() > VALUE || value.contains(odd)) {
                return Err(BadAccess::Text(field));
            }
        }
        if self.username.is_some() != self.password.is_some() {
            return Err(BadAccess::Half);
        }
        if self.username.is_some() && self.token.is_some() {
            return Err(BadAccess::Both);
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err(BadAccess::HalfPair);
        }
        Ok(())
    }

    /// In the order of `FIELDS`.
    fn values(&self) -> [Option<&str>; 6] {
        [&self.username, &self.password, &self.token, &self.certificate, &self.key, &self.ca]
            .map(Option::as_deref)
    }

    /// Sets what has this name; nothing counts as not there. A password that ends in a line break,
    /// as files do, is meant without it.
    pub(super) fn set(&mut self, field: &str, mut text: String) {
        if !is_pem(field) {
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
        }
        let value = (!text.is_empty()).then_some(text);
        match field {
            "username" => self.username = value,
            "password" => self.password = value,
            "token" => self.token = value,
            "clientCertificate" => self.certificate = value,
            "clientKey" => self.key = value,
            _ => self.ca = value,
        }
    }
}

/// Whether credentials for the one serve the other: host, port, and whether there is TLS.
pub fn is_same_host(one: &Url, other: &Url) -> bool {
    scope(one) == scope(other)
}

/// What the `host` of a Secret has to be.
fn scope(base: &Url) -> String {
    let scheme = if base.scheme() == "http" { "http://" } else { "" };
    format!("{scheme}{}", authority(base))
}

fn is_pem(field: &str) -> bool {
    matches!(field, "clientCertificate" | "clientKey" | "ca")
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
