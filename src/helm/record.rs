//! Revisions of a release as the metadata of their Secrets tells them, and reading one of them
//! whole. Everything is read as the user; nothing is remembered.
//!
//! How the content is packed, `blob` knows.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use compact_str::CompactString;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::blob::{self, BadRelease, Held, Release};
use super::room::{Room, WAIT};
use crate::kinds::release::{RELEASE, is_custom, named};
use crate::upstream::{Cluster, Failure, Identity, OBJECT_LIMIT, Turns, UpstreamError, User};

pub use crate::kinds::release::secret_name;

/// What names of namespaces and Secrets hold; all else is encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.');
/// Metadata alone of a list's objects.
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// A history: Helm keeps ten revisions unless told otherwise; at about 1 KiB each this is 16,000.
const HISTORY_BYTES: usize = 16 << 20;
/// Records unpacked at once: a malicious one costs some 200 MiB while it is read.
const UNPACKING: usize = 4;
static TURNS: Semaphore = Semaphore::const_new(UNPACKING);
/// Records of one caller that are read or held at once; the tabs of a browser take turns.
const EACH: usize = 3;
static OWN: LazyLock<Turns> = LazyLock::new(|| Turns::new(EACH));

/// One revision of a release.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub namespace: CompactString,
    pub name: CompactString,
    pub revision: u32,
    pub status: Status,
    /// Without those that Helm sets for itself.
    pub labels: BTreeMap<String, String>,
    /// Name of the Secret.
    pub secret: String,
    pub uid: CompactString,
    pub resource_version: String,
    /// Unix seconds; 0 when the Secret tells none.
    pub created: i64,
}

/// How a revision stands (pkg/release/common/status.go of Helm).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    #[default]
    Unknown,
    Deployed,
    Uninstalled,
    Superseded,
    Failed,
    Uninstalling,
    PendingInstall,
    PendingUpgrade,
    PendingRollback,
}

/// Why a record cannot be shown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error(transparent)]
    Broken(#[from] BadRelease),
    /// Too many are read or held just now.
    #[error("there is no room for a further record")]
    Busy,
}

impl Status {
    const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Deployed,
        Self::Uninstalled,
        Self::Superseded,
        Self::Failed,
        Self::Uninstalling,
        Self::PendingInstall,
        Self::PendingUpgrade,
        Self::PendingRollback,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Deployed => "deployed",
            Self::Uninstalled => "uninstalled",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
            Self::Uninstalling => "uninstalling",
            Self::PendingInstall => "pending-install",
            Self::PendingUpgrade => "pending-upgrade",
            Self::PendingRollback => "pending-rollback",
        }
    }

    /// A text that Helm does not write is `Unknown`.
    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|status| status.as_str() == text).unwrap_or_default()
    }

    /// Something was going on when the record was written. An uninstall is not among them, as with
    /// Helm: whoever begins another one may.
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::PendingInstall | Self::PendingUpgrade | Self::PendingRollback)
    }
}

/// The revision whose Secret has this `metadata`; `None` when it is no release's.
pub fn of(metadata: &Value) -> Option<Record> {
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
    let labels = metadata.get("labels")?.as_object()?;
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    if label("owner") != Some("helm") {
        return None;
    }
    let (name, revision) = named(text("name"))?;
    let custom = labels.iter().filter(|(key, _)| is_custom(key));
    let custom = custom.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    Some(Record {
        namespace: text("namespace").into(),
        name: name.into(),
        revision,
        status: label("status").map(Status::parse).unwrap_or_default(),
        labels: custom.collect(),
        secret: text("name").to_owned(),
        uid: text("uid").into(),
        resource_version: text("resourceVersion").to_owned(),
        created: blob::seconds(text("creationTimestamp")).unwrap_or(0),
    })
}

/// All revisions of a release, the newest first; none when there is no such release.
pub async fn history(
    cluster: &Cluster,
    user: &User,
    namespace: &str,
    name: &str,
) -> Result<Vec<Record>, Failure> {
    // Whatever else a strange name makes of the selector, the name is compared again.
    let selector = format!("owner=helm,name={name}");
    let selector = utf8_percent_encode(&selector, NON_ALPHANUMERIC);
    let path = format!("{}?labelSelector={selector}", secrets(namespace));
    let mut records = Vec::new();
    let mut take = |item: &str| {
        let item = serde_json::from_str::<Value>(item).ok();
        let record = item.as_ref().and_then(|item| of(item.get("metadata")?));
        records.extend(record.filter(|record| record.name == name));
    };
    cluster.items(Identity::User(user), (&path, METADATA), HISTORY_BYTES, &mut take).await?;
    records.sort_unstable_by_key(|record: &Record| std::cmp::Reverse(record.revision));
    Ok(records)
}

/// Leave to unpack one record, whose work holds it to its end: nobody else ends that. `None` when
/// there is none in time.
pub async fn turn() -> Option<SemaphorePermit<'static>> {
    timeout(WAIT, TURNS.acquire()).await.ok()?.ok()
}

/// A revision with its content, as it is now, and with the room that it takes.
pub async fn release(
    cluster: &Cluster,
    user: &User,
    record: &Record,
) -> Result<Release, ReadError> {
    let secret = utf8_percent_encode(&record.secret, SEGMENT);
    let path = format!("{}/{secret}", secrets(&record.namespace));
    // First: who waits for it holds nothing that others wait for.
    let own = timeout(WAIT, OWN.of(user).acquire_owned()).await;
    let own = own.ok().and_then(Result::ok).ok_or(ReadError::Busy)?;
    let body = cluster.get(Identity::User(user), &path, OBJECT_LIMIT).await?;
    let broken = |error: &dyn std::fmt::Display| {
        Failure::from(UpstreamError::Broken(format!("record {}: {error}", record.secret)))
    };
    let turn = turn().await.ok_or(ReadError::Busy)?;
    // A whole chart is unpacked: too long for a thread that others wait for.
    let read = move || (unpacked(&body), turn);
    let read = tokio::task::spawn_blocking(read).await;
    // The turn is held until there is room: no more wait for it than may be unpacked.
    let (read, _turn) = read.map_err(|error| broken(&error))?;
    let mut release = read?;
    let room = Room::of(release.weight()).await.ok_or(ReadError::Busy)?;
    release.room = Some((room, own));
    Ok(release)
}

fn unpacked(secret: &[u8]) -> Result<Release, BadRelease> {
    blob::decode(Held::of(secret)?.release.ok_or(BadRelease::Missing)?)
}

fn secrets(namespace: &str) -> String {
    let namespace = utf8_percent_encode(namespace, SEGMENT).to_string();
    RELEASE.resource.collection(Some(&namespace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata() -> Value {
        json!({"name": "sh.helm.release.v1.web.v3", "namespace": "atlas", "uid": "u",
            "resourceVersion": "9", "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"owner": "helm", "name": "web", "version": "3", "status": "pending-upgrade",
                "modifiedAt": "1767323046", "team": "red"}})
    }

    #[test]
    fn a_record_is_what_its_secrets_name_and_labels_say() {
        let record = of(&metadata()).unwrap();
        assert_eq!((record.name.as_str(), record.revision), ("web", 3));
        assert_eq!(record.status, Status::PendingUpgrade);
        assert_eq!(record.labels, BTreeMap::from([("team".to_owned(), "red".to_owned())]));
        assert_eq!(record.created, 1_767_323_045);
        assert_eq!(secret_name(&record.name, record.revision), record.secret);
    }

    #[test]
    fn secrets_of_others_are_no_records() {
        for (pointer, value) in
            [("/labels/owner", json!("tiller")), ("/labels", json!({})), ("/name", json!("web"))]
        {
            let mut metadata = metadata();
            *metadata.pointer_mut(pointer).unwrap() = value;
            assert_eq!(of(&metadata), None, "{pointer}");
        }
        assert_eq!(of(&json!({})), None);
    }

    #[test]
    fn every_status_is_read_as_it_is_written() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), status);
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert_eq!(Status::parse("DEPLOYED"), Status::Unknown);
        assert!(Status::PendingInstall.is_pending() && !Status::Uninstalling.is_pending());
    }
}
