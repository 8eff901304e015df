//! Our certificate in a cluster: one Secret that all replicas share. It is created only if absent and
//! changed only by compare-and-swap, so replicas that start or renew at once agree on one.
//! A Secret without our label is somebody else's: read, never written.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};

use super::authority::{self, Authority, Made, Reason};
use super::pair::Loaded;
use super::{TlsError, Wanted};

const CA_CRT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const TLS_CRT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";

const LABEL: &str = "app.kubernetes.io/managed-by";
const US: &str = "binnacle";

/// A request to the API server, at most: start must fail with a sentence, not hang.
const PATIENCE: Duration = Duration::from_secs(15);

/// Rounds of read and write until we give up. Each lost round means that another replica has won one,
/// and what it wrote is good for us; two suffice but for a Secret that is being deleted.
const ROUNDS: usize = 5;

/// Where the Secret is.
pub(super) struct Place<'a> {
    pub(super) client: &'a kube::Client,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// The CA certificate that a Secret keeps as PEM, to be trusted by people. Nothing is made.
///
/// # Errors
/// The API server refuses or does not answer, or there is no such certificate.
pub async fn read_ca_of(
    client: kube::Client,
    namespace: &str,
    name: &str,
) -> Result<String, TlsError> {
    let place = Place { client: &client, namespace, name };
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = place.bounded("get", api.get(name)).await?;
    let ca = match entry(&secret, CA_CRT) {
        None if !is_ours(&secret) => {
            let why = "it is not ours and has no ca.crt: trust whoever issued its certificate";
            return Err(place.refused("use", why.to_owned()));
        }
        _ => place.entry(&secret, CA_CRT)?,
    };
    String::from_utf8(ca.to_vec()).map_err(|error| place.broken(error.to_string()))
}

impl Place<'_> {
    /// Reads the Secret, creates it if absent (only `at_start`), and replaces a leaf that is due.
    /// `wanted.names` count only `at_start`, and are joined with those that are there.
    ///
    /// # Errors
    /// The API server refuses or does not answer, or the Secret cannot be used.
    pub(super) async fn load(
        &self,
        wanted: &Wanted,
        at_start: bool,
        now: Timestamp,
    ) -> Result<Loaded, TlsError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        let plain = PostParams::default();
        for _ in 0..ROUNDS {
            let found = self.bounded("get", api.get_opt(self.name)).await?;
            let Some(secret) = found else {
                if !at_start {
                    return Err(self.gone());
                }
                let made = self.made(wanted, now)?;
                match self.written("create", api.create(&plain, &made)).await? {
                    Some(secret) => return self.ours(&secret).map(|(loaded, _)| loaded),
                    None => continue,
                }
            };
            if !is_ours(&secret) {
                return self.theirs(&secret);
            }
            let (loaded, authority) = self.ours(&secret)?;
            let names = at_start.then_some(wanted);
            let reason =
                authority.judge(loaded.leaf(), names, now).map_err(|why| self.broken(why))?;
            let Some(reason) = reason else {
                return Ok(loaded);
            };
            tracing::info!(?reason, secret = %self, "replacing our certificate");
            let names = wanted.joined(&authority::names_in(loaded.leaf()));
            let next = self.renewed(&secret, &authority, &names, now)?;
            let put = api.replace(self.name, &plain, &next);
            match self.written("update", put).await {
                Ok(Some(secret)) => return self.ours(&secret).map(|(loaded, _)| loaded),
                Ok(None) => {}
                Err(e) if reason != Reason::Unverified => {
                    return Ok(loaded.with_complaint(e.to_string()));
                }
                Err(e) => return Err(e),
            }
        }
        Err(self.refused("update", "others keep changing it".to_owned()))
    }

    /// A new authority and a leaf of it.
    fn made(&self, wanted: &Wanted, now: Timestamp) -> Result<Secret, TlsError> {
        let Made { ca, ca_key, leaf, key } = authority::found(wanted, now)?;
        let data = [(CA_CRT, ca), (CA_KEY, ca_key), (TLS_CRT, leaf), (TLS_KEY, key)];
        Ok(Secret {
            metadata: ObjectMeta {
                name: Some(self.name.to_owned()),
                namespace: Some(self.namespace.to_owned()),
                labels: Some(BTreeMap::from([(LABEL.to_owned(), US.to_owned())])),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(
                data.into_iter()
                    .map(|(key, pem)| (key.to_owned(), ByteString(pem.into_bytes())))
                    .collect(),
            ),
            ..Secret::default()
        })
    }

    /// The same Secret with a new leaf and key; its resourceVersion makes the update compare-and-swap.
    fn renewed(
        &self,
        secret: &Secret,
        authority: &Authority,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<Secret, TlsError> {
        let key = authority::new_key()?;
        let leaf = authority.leaf(&key, wanted, now).map_err(|why| self.broken(why))?;
        let mut next = secret.clone();
        let data = next.data.get_or_insert_default();
        data.insert(TLS_CRT.to_owned(), ByteString(leaf.into_bytes()));
        data.insert(TLS_KEY.to_owned(), ByteString(key.into_bytes()));
        Ok(next)
    }

    fn ours(&self, secret: &Secret) -> Result<(Loaded, Authority), TlsError> {
        let ca = self.entry(secret, CA_CRT)?;
        let authority =
            Authority::parse(ca, self.entry(secret, CA_KEY)?).map_err(|why| self.broken(why))?;
        let loaded = Loaded::parse(self.entry(secret, TLS_CRT)?, self.entry(secret, TLS_KEY)?)
            .map_err(|why| self.broken(why))?;
        Ok((loaded.with_ca(ca), authority))
    }

    /// As given: a Secret of cert-manager, or one made by hand.
    fn theirs(&self, secret: &Secret) -> Result<Loaded, TlsError> {
        let given = |why: String| TlsError::Broken {
            place: format!("Secret {self}"),
            why,
            remedy: format!(
                "it is not ours (no label {LABEL}={US}), so it is not touched: put a PEM \
                 certificate in tls.crt and its key in tls.key, or name another Secret"
            ),
        };
        let part = |key: &str| entry(secret, key).ok_or_else(|| given(format!("it has no {key}")));
        let loaded = Loaded::parse(part(TLS_CRT)?, part(TLS_KEY)?).map_err(&given)?;
        Ok(match entry(secret, CA_CRT) {
            Some(ca) => loaded.with_ca(ca),
            None => loaded,
        })
    }

    fn entry<'a>(&self, secret: &'a Secret, key: &str) -> Result<&'a [u8], TlsError> {
        entry(secret, key).ok_or_else(|| self.broken(format!("it has no {key}")))
    }

    /// A write; `None` when another replica was faster (409) or the Secret is gone (404).
    async fn written(
        &self,
        action: &'static str,
        write: impl Future<Output = kube::Result<Secret>>,
    ) -> Result<Option<Secret>, TlsError> {
        let answer = async {
            match write.await {
                Ok(secret) => Ok(Some(secret)),
                // A create answers 404 only when the namespace is missing: that is an error.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
                Err(kube::Error::Api(status)) if status.code == 404 && action == "update" => {
                    Ok(None)
                }
                Err(e) => Err(e),
            }
        };
        self.bounded(action, answer).await
    }

    async fn bounded<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, TlsError> {
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                let why = format!(
                    "{} (allow get, create and update of this Secret, or give a certificate with \
                     --tls-cert and --tls-key)",
                    status.message
                );
                Err(self.refused(action, why))
            }
            // Overloaded, or still starting: it will be another answer.
            Ok(Err(kube::Error::Api(status))) if status.code >= 500 || status.code == 429 => {
                Err(self.away(action, status.message))
            }
            Ok(Err(kube::Error::Api(status))) => Err(self.refused(action, status.message)),
            Ok(Err(e)) => Err(self.away(action, e.to_string())),
            Err(_) => {
                let why = format!("the API server did not answer in {} s", PATIENCE.as_secs());
                Err(self.away(action, why))
            }
        }
    }

    fn refused(&self, action: &'static str, why: String) -> TlsError {
        TlsError::Secret { action, place: self.to_string(), why }
    }

    fn away(&self, action: &'static str, why: String) -> TlsError {
        TlsError::Away { action, place: self.to_string(), why }
    }

    fn broken(&self, why: String) -> TlsError {
        TlsError::Broken {
            place: format!("Secret {self}"),
            why,
            remedy:
                "restore it from a backup, or delete it and restart to have a new authority made"
                    .to_owned(),
        }
    }

    fn gone(&self) -> TlsError {
        TlsError::Broken {
            place: format!("Secret {self}"),
            why: "it was deleted".to_owned(),
            remedy: "restore it, or restart to have a new authority made; until then the \
                     certificate in memory is served"
                .to_owned(),
        }
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn is_ours(secret: &Secret) -> bool {
    let labels = secret.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(LABEL)).map(String::as_str) == Some(US)
}

fn entry<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    let value = secret.data.as_ref()?.get(key)?;
    Some(value.0.as_slice())
}
