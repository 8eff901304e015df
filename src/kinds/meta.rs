//! Metadata shared by all kinds: borrowed from the object's JSON, written as the contract's
//! `objectMeta` and `typeMeta`, and turned into the common part of a row.
//!
//! Knows nothing of single kinds.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::compact::Uid;
use super::row::{Cell, Facts, Link, Row};

/// An object that is not what its kind promises. Costs one row and a count, never the watch.
#[derive(Debug, thiserror::Error)]
#[error("malformed {kind}: {reason}")]
pub struct Malformed {
    pub kind: &'static str,
    pub reason: String,
}

/// Annotations that no list shows: they hold the whole object once more. Details show them.
const HIDDEN_ANNOTATIONS: [&str; 1] = ["kubectl.kubernetes.io/last-applied-configuration"];

/// A string borrowed from the JSON where it holds no escapes, also inside maps and lists, where
/// serde's own `Cow` always copies.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text<'a>(Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta<'a> {
    #[serde(borrow)]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub namespace: Text<'a>,
    #[serde(borrow)]
    pub uid: Text<'a>,
    #[serde(borrow)]
    pub resource_version: Text<'a>,
    #[serde(borrow)]
    pub creation_timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    pub deletion_timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    pub labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(borrow)]
    pub annotations: Option<BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(borrow)]
    pub owner_references: Option<Vec<Owner<'a>>>,
}

#[derive(Debug, Deserialize)]
pub struct Owner<'a> {
    #[serde(borrow, default)]
    pub kind: Text<'a>,
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(borrow, default)]
    pub uid: Text<'a>,
    #[serde(default)]
    pub controller: Option<bool>,
}

/// The contract's `objectMeta`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMeta<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
    creation_timestamp: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    owner_references: Vec<OwnerReference<'a>>,
}

#[derive(Serialize)]
struct OwnerReference<'a> {
    kind: &'a str,
    name: &'a str,
}

/// The contract's `typeMeta`.
#[derive(Serialize)]
pub struct TypeMeta {
    pub kind: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub scalable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restartable: bool,
}

impl TypeMeta {
    pub const fn plain(kind: &'static str) -> Self {
        Self { kind, scalable: false, restartable: false }
    }
}

impl<'a> Meta<'a> {
    /// As lists show it: without the annotations that hold the whole object once more.
    pub fn object_meta(&'a self) -> ObjectMeta<'a> {
        self.meta_with(|annotation| !HIDDEN_ANNOTATIONS.contains(&annotation))
    }

    /// As details show it: with all annotations.
    pub fn full_object_meta(&'a self) -> ObjectMeta<'a> {
        self.meta_with(|_| true)
    }

    fn meta_with(&'a self, shown: impl Fn(&str) -> bool) -> ObjectMeta<'a> {
        let pairs = |map: &'a Option<BTreeMap<Text<'a>, Text<'a>>>| {
            map.iter().flatten().map(|(key, value)| (&**key, &**value))
        };
        ObjectMeta {
            name: &self.name,
            namespace: &self.namespace,
            labels: pairs(&self.labels).collect(),
            annotations: pairs(&self.annotations).filter(|(key, _)| shown(key)).collect(),
            creation_timestamp: self.creation_timestamp.as_deref(),
            uid: &self.uid,
            owner_references: self
                .owner_references
                .iter()
                .flatten()
                .map(|owner| OwnerReference { kind: &owner.kind, name: &owner.name })
                .collect(),
        }
    }

    /// UID of the owner with `controller: true`.
    pub fn controller(&self) -> Option<&str> {
        let owners = self.owner_references.iter().flatten();
        owners.filter(|owner| owner.controller == Some(true)).map(|owner| &*owner.uid).next()
    }

    /// The link to the controller, if there is one: what most kinds need.
    pub fn owner_link(&self) -> Option<Link> {
        self.controller().map(|uid| Link::Owner(uid.into()))
    }

    /// Links to all owners, each once and the controller first: for a kind that its owners find
    /// whether they control it or not.
    pub fn owner_links(&self) -> Vec<Link> {
        let owners = self.owner_references.iter().flatten().map(|owner| &*owner.uid);
        let mut seen = HashSet::new();
        let each = self.controller().into_iter().chain(owners).filter(|uid| seen.insert(*uid));
        each.map(|uid| Link::Owner(uid.into())).collect()
    }

    /// A row of this object. `item` is the contract's list item; it fails only when it cannot be
    /// written as JSON or the object has no name.
    pub fn row(
        &self,
        kind: &'static str,
        item: &impl Serialize,
        cells: Vec<Cell>,
        links: Vec<Link>,
        facts: Facts,
    ) -> Result<Row, Malformed> {
        if self.name.is_empty() {
            return Err(Malformed { kind, reason: "metadata.name is missing".into() });
        }
        let json = written(item).map_err(|error| Malformed { kind, reason: error.to_string() })?;
        let labels = self.labels.iter().flatten();
        Ok(Row {
            namespace: CompactString::new(&*self.namespace),
            name: CompactString::new(&*self.name),
            uid: Uid::from(&*self.uid),
            created: self.creation_timestamp.as_deref().and_then(seconds).unwrap_or(0),
            version: self.resource_version.parse().unwrap_or(0),
            labels: labels.map(|(key, value)| (&**key, &**value)).collect(),
            cells: cells.into(),
            links: links.into(),
            facts,
            json,
        })
    }
}

/// Most bytes of a row for which the memory that it was written in is kept for the next.
const SCRATCH: usize = 64 << 10;

/// `item` as JSON, in memory of just its size: tens of thousands of rows stay, and what a growing
/// buffer leaves between them would stay with them.
fn written(item: &impl Serialize) -> serde_json::Result<Bytes> {
    thread_local! {
        static BUFFER: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) };
    }
    let mut buffer = BUFFER.take();
    buffer.clear();
    serde_json::to_writer(&mut buffer, item)?;
    let json = Bytes::copy_from_slice(&buffer);
    if buffer.capacity() <= SCRATCH {
        BUFFER.set(buffer);
    }
    Ok(json)
}

/// Unix seconds of an RFC 3339 text, fractions cut (`metav1.Time`, `metav1.MicroTime`).
pub fn seconds(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// A time as the contract writes it: RFC 3339 in UTC with whole seconds.
pub fn time(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

/// Decodes the part of an object that a kind declares, naming what is wrong.
pub fn decode<'a, T: Deserialize<'a>>(kind: &'static str, json: &'a str) -> Result<T, Malformed> {
    serde_json::from_str(json).map_err(|error| Malformed { kind, reason: error.to_string() })
}

/// A value written for a detail.
pub fn encode(kind: &'static str, value: impl Serialize) -> Result<Value, Malformed> {
    serde_json::to_value(value).map_err(|error| Malformed { kind, reason: error.to_string() })
}

/// `objectMeta` as details show it.
pub fn full_meta(kind: &'static str, object: &Value) -> Result<Value, Malformed> {
    let metadata = object.get("metadata").map(Meta::deserialize).transpose();
    let metadata = metadata.map_err(|error| Malformed { kind, reason: error.to_string() })?;
    encode(kind, metadata.unwrap_or_default().full_object_meta())
}

/// Start of a detail that is flat over its list item: the item's fields, but with all annotations.
pub fn flat(
    kind: &'static str,
    object: &Value,
    row: &Row,
) -> Result<Map<String, Value>, Malformed> {
    let mut fields: Map<String, Value> = serde_json::from_slice(&row.json)
        .map_err(|error| Malformed { kind, reason: error.to_string() })?;
    fields.insert("objectMeta".into(), full_meta(kind, object)?);
    Ok(fields)
}
