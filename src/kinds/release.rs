//! Helm's releases as their Secrets' metadata tells them: one row for each revision. What else a
//! list shows of a release stands in the Secret's content, which is no part of a row.
//!
//! Not in the kind table: a release is no object of the API server's, and has routes of its own.

use std::collections::BTreeMap;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::meta::{Meta, TypeMeta, decode};
use super::*;

/// Rows are named after their Secrets: revisions of one release have one name.
pub static RELEASE: KindDef = KindDef {
    source: Source::Metadata,
    columns: &[
        Column::text("status"),
        Column::number("revision"),
        Column::text("chart"),
        Column::text("chartVersion"),
        Column::text("appVersion"),
        Column::time("updated"),
    ],
    list: ListShape::rows("releases"),
    ..KindDef::of("release", Resource::namespaced("", "v1", "Secret", "secrets"), row, detail)
};

/// Where a row has its revision; the columns from [`CONTENT`] on are empty until somebody has read
/// the content.
pub const REVISION: usize = 1;
pub const CONTENT: usize = 2;

/// What a Secret's name begins with (`HelmStorageType` in pkg/storage/storage.go of Helm).
const PREFIX: &str = "sh.helm.release.v1.";
/// Labels that Helm sets for itself (`systemLabels` in pkg/storage/driver/util.go).
const OF_HELM: [&str; 6] = ["name", "owner", "status", "version", "createdAt", "modifiedAt"];

/// The part of a list item that metadata tells.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item<'a> {
    pub object_meta: Head<'a>,
    pub type_meta: TypeMeta,
    pub revision: u32,
    pub status: &'a str,
    /// Of Helm 2.
    pub legacy: bool,
}

/// `objectMeta` of a release: the name is its own, uid and time are those of its record.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Head<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<&'a str, &'a str>,
    pub creation_timestamp: Option<&'a str>,
    pub uid: &'a str,
}

#[derive(Deserialize)]
struct Secret<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
}

/// `typeMeta` of every release.
pub const fn type_meta() -> TypeMeta {
    TypeMeta::plain("release")
}

/// The release and the revision in the name of a Secret.
pub fn named(secret: &str) -> Option<(&str, u32)> {
    let (name, revision) = secret.strip_prefix(PREFIX)?.rsplit_once(".v")?;
    let revision = revision.parse().ok().filter(|revision| *revision > 0)?;
    (!name.is_empty()).then_some((name, revision))
}

/// The name of the Secret that holds a revision.
pub fn secret_name(release: &str, revision: u32) -> String {
    format!("{PREFIX}{release}.v{revision}")
}

/// Whether somebody else than Helm has set a label of this name.
pub fn is_custom(label: &str) -> bool {
    !OF_HELM.contains(&label)
}

fn item<'a>(metadata: &'a Meta<'a>) -> Result<Item<'a>, Malformed> {
    let Some((name, revision)) = named(&metadata.name) else {
        let reason = format!("{:?} is not the name of a release's Secret", &*metadata.name);
        return Err(Malformed { kind: RELEASE.name, reason });
    };
    let labels = || metadata.labels.iter().flatten().map(|(key, value)| (&**key, &**value));
    let object_meta = Head {
        name,
        namespace: &metadata.namespace,
        labels: labels().filter(|(key, _)| is_custom(key)).collect(),
        creation_timestamp: metadata.creation_timestamp.as_deref(),
        uid: &metadata.uid,
    };
    let status = labels().find(|(key, _)| *key == "status").map_or("unknown", |(_, value)| value);
    Ok(Item { object_meta, type_meta: type_meta(), revision, status, legacy: false })
}

fn row(json: &str) -> Result<Row, Malformed> {
    let Secret { metadata } = decode(RELEASE.name, json)?;
    let item = item(&metadata)?;
    let cells = cells(item.status, item.revision);
    metadata.row(RELEASE.name, &item, cells, vec![], Facts::None)
}

/// The cells of a row whose content nobody has read.
pub fn cells(status: &str, revision: u32) -> Vec<Cell> {
    let text = |text: &str| Cell::Text(CompactString::new(text));
    let (status, revision) = (text(status), Cell::Number(revision.into()));
    vec![status, revision, text(""), text(""), text(""), Cell::Time(None)]
}

/// What the row shows: there is no more to a Secret's metadata.
fn detail(_: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    serde_json::from_slice(&row.json)
        .map_err(|error| Malformed { kind: RELEASE.name, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: &str = r#"{"metadata": {"name": "sh.helm.release.v1.web.v12",
        "namespace": "atlas", "uid": "u-1", "resourceVersion": "77",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"owner": "helm", "name": "web", "status": "deployed", "version": "12",
            "createdAt": "1767323045", "team": "red"}}}"#;

    #[test]
    fn a_row_tells_release_revision_status_and_the_labels_that_are_not_helms_own() {
        let row = row(SECRET).unwrap();
        assert_eq!((row.name.as_str(), row.version), ("sh.helm.release.v1.web.v12", 77));
        assert_eq!(row.cells[0], Cell::Text("deployed".into()));
        assert_eq!(row.cells[REVISION], Cell::Number(12));
        assert_eq!(row.cells.len(), RELEASE.columns.len());
        assert_eq!(RELEASE.columns[REVISION].name, "revision");
        assert_eq!(RELEASE.columns[CONTENT].name, "chart");
        let item: Value = serde_json::from_slice(&row.json).unwrap();
        let meta = json!({"name": "web", "namespace": "atlas", "uid": "u-1",
            "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"team": "red"}});
        assert_eq!(
            item,
            json!({"objectMeta": meta, "typeMeta": {"kind": "release"}, "revision": 12,
                "status": "deployed", "legacy": false})
        );
        assert_eq!(row.labels.get("status"), Some("deployed"));
    }

    #[test]
    fn a_name_of_dots_ends_at_its_last_revision() {
        assert_eq!(named("sh.helm.release.v1.a.v1.b.v3"), Some(("a.v1.b", 3)));
        assert_eq!(named(&secret_name("a.v1.b", 3)), Some(("a.v1.b", 3)));
        let odds = [
            "web",
            "sh.helm.release.v1.web",
            "sh.helm.release.v1.web.v0",
            "sh.helm.release.v1.web.vx",
            "sh.helm.release.v1..v1",
        ];
        for odd in odds {
            assert_eq!(named(odd), None, "{odd}");
            assert!(row(&json!({"metadata": {"name": odd}}).to_string()).is_err(), "{odd}");
        }
    }
}
