//! What a release's Secret holds (pkg/storage/driver/util.go of Helm): base64 of gzip of JSON, and
//! Kubernetes' own base64 around it. Records of Helm 3 and 4 read the same; very old ones are not
//! packed.
//!
//! Pure. Errors tell where something is wrong, never what stands there: values are secrets.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use compact_str::CompactString;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Deserializer, Serializer as _};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;

use super::record::Status;
use super::room::{Room, nodes, weight};

/// Of a whole record: etcd takes 1.5 MiB of it packed, and charts shrink to a tenth.
pub(super) const UNPACKED: u64 = 32 << 20;
/// Of a chart's values, the user's, a schema, metadata: a tree in memory takes ten times its text.
const TREE: usize = 8 << 20;
/// Fields, items, objects and lists of a whole record, in which manifests and files are but texts:
/// enough for ordinary values of 3 MiB, and 70 MiB of trees where they are made up for it.
const NODES: usize = 300_000;
/// Hooks of one release.
const HOOKS: usize = 1_000;
const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];
/// Names under which Helm finds a chart's README, whatever the case (pkg/action/show.go).
const README: [&str; 3] = ["readme.md", "readme.txt", "readme"];

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRelease {
    #[error("its Secret has no data.release")]
    Missing,
    #[error("its data.release is not base64: {0}")]
    Base64(String),
    #[error("it cannot be unpacked: {0}")]
    Packed(String),
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    #[error("it has more than {HOOKS} hooks")]
    Hooks,
    #[error("its values, hooks and chart have more than {NODES} fields and items")]
    Nodes,
    #[error("it is not the JSON of a release (column {0})")]
    Json(usize),
}

/// A Secret as far as it is read here.
pub struct Held<'a> {
    pub uid: CompactString,
    /// 0 where it is no number: nothing can be remembered by it.
    pub version: u64,
    pub release: Option<&'a str>,
}

/// One revision with its content. No `Debug`: it holds secrets.
pub struct Release {
    pub name: String,
    pub namespace: String,
    pub version: u32,
    pub info: Info,
    pub chart: Chart,
    /// The user's values, an object.
    pub config: Value,
    pub manifest: String,
    pub hooks: Vec<Hook>,
    /// `ssa`, `csa`, or empty, which is `csa`.
    pub apply_method: String,
    /// What it takes of the memory for all records, and its caller's turn, where it is read for an
    /// answer.
    pub room: Option<(Room, OwnedSemaphorePermit)>,
}

/// Times are Unix seconds.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Info {
    #[serde(deserialize_with = "time")]
    pub first_deployed: Option<i64>,
    #[serde(deserialize_with = "time")]
    pub last_deployed: Option<i64>,
    #[serde(deserialize_with = "time")]
    pub deleted: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    pub description: String,
    #[serde(deserialize_with = "status")]
    pub status: Status,
    #[serde(deserialize_with = "or_default")]
    pub notes: String,
    /// The revision that a rollback went back to.
    pub rollback_revision: Option<u32>,
}

#[derive(Clone, PartialEq)]
pub struct Chart {
    /// `Chart.yaml` as it was stored, an object.
    pub metadata: Value,
    /// An object.
    pub values: Value,
    pub schema: Option<Value>,
    /// Names of the files that are neither templates nor values.
    pub files: Vec<String>,
    pub readme: Option<String>,
    /// Names of the templates.
    pub templates: Vec<String>,
}

#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Hook {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub path: String,
    #[serde(deserialize_with = "or_default")]
    pub manifest: String,
    #[serde(deserialize_with = "or_default")]
    pub events: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub weight: i64,
    #[serde(deserialize_with = "or_default")]
    pub delete_policies: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub last_run: LastRun,
}

#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LastRun {
    #[serde(deserialize_with = "time")]
    pub started_at: Option<i64>,
    #[serde(deserialize_with = "time")]
    pub completed_at: Option<i64>,
    /// `Unknown`, `Running`, `Succeeded`, `Failed`, or empty.
    #[serde(deserialize_with = "or_default")]
    pub phase: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stored<'a> {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    namespace: String,
    #[serde(deserialize_with = "or_default")]
    version: u32,
    #[serde(deserialize_with = "or_default")]
    info: Info,
    #[serde(borrow)]
    chart: Option<StoredChart<'a>>,
    #[serde(borrow)]
    config: Option<&'a RawValue>,
    #[serde(deserialize_with = "or_default")]
    manifest: String,
    #[serde(borrow)]
    hooks: Option<Vec<&'a RawValue>>,
    #[serde(deserialize_with = "or_default")]
    apply_method: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredChart<'a> {
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    values: Option<&'a RawValue>,
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    #[serde(borrow)]
    files: Option<Vec<File<'a>>>,
    #[serde(borrow)]
    templates: Option<Vec<File<'a>>>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default)]
    name: String,
    /// Base64, looked into for a README alone.
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl<'a> Held<'a> {
    pub fn of(secret: &'a [u8]) -> Result<Self, BadRelease> {
        #[derive(Deserialize)]
        struct Secret<'a> {
            metadata: Metadata,
            #[serde(borrow, default)]
            data: Option<Data<'a>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            uid: CompactString,
            resource_version: CompactString,
        }
        #[derive(Deserialize)]
        struct Data<'a> {
            #[serde(borrow, default)]
            release: Option<&'a str>,
        }
        let Secret { metadata, data } = from_json(secret)?;
        let version = metadata.resource_version.parse().unwrap_or(0);
        Ok(Self { uid: metadata.uid, version, release: data.and_then(|data| data.release) })
    }
}

impl Release {
    /// Bytes that it takes, with the copies that an answer makes of it.
    pub fn weight(&self) -> usize {
        let chart = &self.chart;
        let trees = [&self.config, &chart.metadata, &chart.values];
        let trees: usize = trees.into_iter().chain(&chart.schema).map(weight).sum();
        let hooks = self.hooks.iter().map(|hook| {
            let Hook { name, kind, path, manifest, events, delete_policies, last_run, .. } = hook;
            let words = events.iter().chain(delete_policies);
            let words: usize = words.map(|word| size_of::<String>() + word.len()).sum();
            let texts = [name, kind, path, manifest, &last_run.phase].map(String::len);
            size_of::<Hook>() + words + texts.iter().sum::<usize>()
        });
        let names = chart.files.iter().chain(&chart.templates);
        let names = names.map(|name| size_of::<String>() + name.len());
        let own = [&self.name, &self.namespace, &self.apply_method, &self.info.description];
        let texts = [&self.manifest, &self.info.notes].into_iter().chain(own).chain(&chart.readme);
        let texts: usize = texts.map(String::len).chain(hooks).chain(names).sum();
        // Values are shown as they are, and merged with the chart's.
        4 * trees + 2 * texts
    }
}

/// A record out of a Secret's `data.release`.
pub fn decode(base64: &str) -> Result<Release, BadRelease> {
    let text = unpacked(base64)?;
    let stored: Stored = from_json(&text)?;
    let chart = stored.chart.unwrap_or_default();
    let files = chart.files.unwrap_or_default();
    let is_readme = |name: &str| README.iter().any(|one| name.eq_ignore_ascii_case(one));
    let readme = files.iter().find(|file| is_readme(&file.name));
    let readme = readme.and_then(|file| contents(file.data));
    let is_small = |text: &String| text.len() <= TREE && nodes(text.as_bytes()) <= NODES;
    let schema = contents(chart.schema).filter(is_small);
    let hooks = stored.hooks.unwrap_or_default();
    if hooks.len() > HOOKS {
        return Err(BadRelease::Hooks);
    }
    Ok(Release {
        name: stored.name,
        namespace: stored.namespace,
        version: stored.version,
        info: stored.info,
        chart: Chart {
            metadata: object(chart.metadata)?,
            values: object(chart.values)?,
            schema: schema.and_then(|schema| serde_json::from_str(&schema).ok()),
            files: files.into_iter().map(|file| file.name).collect(),
            readme,
            templates: chart.templates.into_iter().flatten().map(|file| file.name).collect(),
        },
        config: object(stored.config)?,
        manifest: stored.manifest,
        hooks: hooks
            .iter()
            .map(|hook| from_json(hook.get().as_bytes()))
            .collect::<Result<_, _>>()?,
        apply_method: stored.apply_method,
        room: None,
    })
}

/// The chart's values under the user's, as `helm get values --all` has them: a null takes a default
/// away. Values of subcharts are what the chart's own values say of them, since a record holds no
/// subcharts. (`coalesceValues` in pkg/chart/common/util/coalesce.go)
///
/// Nulls among the chart's own defaults are left out, as Helm 4 does it; Helm 3 keeps them.
pub fn computed(release: &Release) -> Value {
    let mut values = release.config.as_object().cloned().unwrap_or_default();
    for (key, default) in release.chart.values.as_object().into_iter().flatten() {
        let mut default = default.clone();
        clean(&mut default);
        match (values.get_mut(key), default) {
            (Some(Value::Null), _) => drop(values.remove(key)),
            (Some(Value::Object(own)), Value::Object(defaults)) => coalesce(own, defaults),
            (Some(_), _) | (None, Value::Null) => {}
            (None, default) => drop(values.insert(key.clone(), default)),
        }
    }
    Value::Object(values)
}

/// Adds defaults (without nulls) below values.
fn coalesce(values: &mut Map<String, Value>, defaults: Map<String, Value>) {
    for (key, default) in defaults {
        match (values.get_mut(&key), default) {
            (Some(Value::Null), _) => drop(values.remove(&key)),
            (Some(Value::Object(own)), Value::Object(defaults)) => coalesce(own, defaults),
            (Some(_), _) => {}
            (None, default) => drop(values.insert(key, default)),
        }
    }
}

/// Takes the nulls out of objects, at any depth but in arrays.
fn clean(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(clean);
    }
}

/// The same record as failed, for `data.release`; what else it says stays as it is.
pub fn marked_failed(base64: &str, description: &str) -> Result<String, BadRelease> {
    type Members = BTreeMap<String, Box<RawValue>>;
    let written = |error: serde_json::Error| BadRelease::Json(error.column());
    let mut release: Members = from_json(&unpacked(base64)?)?;
    let info = release.get("info").map_or("{}", |info| info.get());
    let mut info = from_json::<Option<Members>>(info.as_bytes())?.unwrap_or_default();
    info.insert("status".into(), to_raw_value(Status::Failed.as_str()).map_err(written)?);
    info.insert("description".into(), to_raw_value(description).map_err(written)?);
    release.insert("info".into(), to_raw_value(&info).map_err(written)?);
    // In Helm's order: lists read no further than to what they show.
    let first = ["name", "info", "chart"].map(|key| release.remove_entry(key));
    let first = first.iter().flatten().map(|(key, value)| (key, value));
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut text);
    writer.collect_map(first.chain(&release)).map_err(written)?;
    let wrong = |error: std::io::Error| BadRelease::Packed(error.to_string());
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&text).map_err(wrong)?;
    let bytes = gzip.finish().map_err(wrong)?;
    Ok(STANDARD.encode(STANDARD.encode(bytes)))
}

/// Unix seconds of an RFC 3339 text; Go's zero time is none.
pub fn seconds(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_second()).filter(|seconds| *seconds > 0)
}

/// Without both base64s.
pub(super) fn packed(base64: &str) -> Result<Vec<u8>, BadRelease> {
    let wrong = |error: base64::DecodeError| BadRelease::Base64(error.to_string());
    let inner = STANDARD.decode(base64).map_err(wrong)?;
    STANDARD.decode(inner).map_err(wrong)
}

pub(super) fn is_packed(bytes: &[u8]) -> bool {
    bytes.len() > GZIP.len() && bytes.starts_with(&GZIP)
}

fn unpacked(base64: &str) -> Result<Vec<u8>, BadRelease> {
    let bytes = packed(base64)?;
    let text = if is_packed(&bytes) {
        let mut text = Vec::new();
        let mut gzip = GzDecoder::new(bytes.as_slice()).take(UNPACKED + 1);
        gzip.read_to_end(&mut text).map_err(|error| BadRelease::Packed(error.to_string()))?;
        text
    } else {
        bytes
    };
    if text.len() as u64 > UNPACKED {
        Err(BadRelease::TooLarge(UNPACKED))
    } else if nodes(&text) > NODES {
        Err(BadRelease::Nodes)
    } else {
        Ok(text)
    }
}

fn from_json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, BadRelease> {
    serde_json::from_slice(text).map_err(|error| BadRelease::Json(error.column()))
}

/// An object as a tree; nothing is an empty one.
fn object(raw: Option<&RawValue>) -> Result<Value, BadRelease> {
    let text = raw.map_or("{}", RawValue::get);
    if text.len() > TREE {
        return Err(BadRelease::TooLarge(TREE as u64));
    }
    from_json::<Map<String, Value>>(text.as_bytes()).map(Value::Object)
}

/// The text of a file, which Go writes as base64.
fn contents(raw: Option<&RawValue>) -> Option<String> {
    let text: String = serde_json::from_str(raw?.get()).ok()?;
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Helm 3 writes times that are not there as empty texts, Helm 4 leaves them out.
pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.as_deref().and_then(seconds))
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Status, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.as_deref().map(Status::parse).unwrap_or_default())
}

#[cfg(test)]
#[path = "blob_tests.rs"]
pub(super) mod tests;
