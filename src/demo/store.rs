//! The objects of the demo cluster, as JSON bytes in ordered maps, with one resource version
//! counter and a bounded history of changes per kind for watches.
//!
//! It checks names and versions only; what an object says inside is not validated.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::kinds::{KINDS, Kind};
use super::objects;
use super::reply::Fail;
use super::selector::Selector;

/// Changes remembered per kind: a minute of a busy demo, and a few MB at most.
const HISTORY: usize = 2_048;

/// Namespace (empty for cluster kinds) and name.
pub(super) type Key = (String, String);

/// Labels; shared by the pods that one template made.
pub(super) type Labels = Arc<[(String, String)]>;

/// One version of one object.
#[derive(Debug)]
pub(super) struct Stored {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub version: u64,
    labels: Labels,
    fields: Box<[(&'static str, Box<str>)]>,
    /// The object without `apiVersion` and `kind`: lists leave these out, the rest adds them.
    pub json: Bytes,
}

impl Stored {
    fn new(kind: &Kind, key: &Key, version: u64, object: &Value) -> Stored {
        let fields = kind.fields.iter().filter_map(|path| {
            let pointer = format!("/{}", path.replace('.', "/"));
            match object.pointer(&pointer)? {
                Value::String(text) => Some((*path, text.as_str().into())),
                Value::Bool(flag) => Some((*path, flag.to_string().into())),
                _ => None,
            }
        });
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
        let labels = labels.into_iter().flatten();
        Stored {
            namespace: key.0.as_str().into(),
            name: key.1.as_str().into(),
            version,
            labels: labels
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect(),
            fields: fields.collect(),
            json: object.to_string().into(),
        }
    }

    /// The same object under another version.
    pub(super) fn under(&self, kind: &Kind, version: u64) -> Stored {
        let mut object = self.value();
        if let Ok(metadata) = metadata_of(&mut object) {
            metadata.insert("resourceVersion".into(), json!(version.to_string()));
        }
        Stored::new(kind, &(self.namespace.to_string(), self.name.to_string()), version, &object)
    }

    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|label| label.0 == name).map(|label| label.1.as_str())
    }

    /// A field of the kind's selectable fields; empty when the object does not have it.
    pub(super) fn field(&self, path: &str) -> &str {
        self.fields.iter().find(|field| field.0 == path).map_or("", |field| &*field.1)
    }

    /// The object without its type, as stored.
    pub(super) fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// The object with its type, as single reads and watches give it.
    pub(super) fn full(&self, kind: &Kind) -> Vec<u8> {
        let version = kind.api_version();
        let head = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{version}\",", kind.kind);
        let mut full = Vec::with_capacity(head.len() + self.json.len());
        full.extend_from_slice(head.as_bytes());
        full.extend_from_slice(self.json.get(1..).unwrap_or_default());
        full
    }
}

/// One change of one object. `before` is absent when it was made.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub version: u64,
    pub object: Arc<Stored>,
    pub before: Option<Arc<Stored>>,
    pub deleted: bool,
}

/// A part of a list.
pub(super) struct Page {
    pub items: Vec<Arc<Stored>>,
    pub version: u64,
    /// The last key of this page, if more follow.
    pub next: Option<Key>,
    /// How many follow.
    pub remaining: usize,
}

/// The changes since a version, and the version they lead to.
pub(super) struct News {
    pub changes: Vec<Change>,
    pub version: u64,
}

#[derive(Default)]
struct Shelf {
    objects: BTreeMap<Key, Arc<Stored>>,
    history: VecDeque<Change>,
    /// Changes up to this version are forgotten.
    floor: u64,
}

struct Slot {
    shelf: RwLock<Shelf>,
    changed: watch::Sender<u64>,
}

/// All objects. Cheap to read from many tasks; each kind has a lock of its own.
pub(super) struct Store {
    slots: Vec<Slot>,
    version: AtomicU64,
}

impl Store {
    pub(super) fn new() -> Store {
        let slot = || Slot { shelf: RwLock::default(), changed: watch::Sender::new(0) };
        Store { slots: KINDS.iter().map(|_| slot()).collect(), version: AtomicU64::new(1_000) }
    }

    fn slot(&self, kind: &Kind) -> &Slot {
        let at = KINDS.iter().position(|known| std::ptr::eq(*known, kind)).unwrap_or_default();
        &self.slots[at]
    }

    fn read(&self, kind: &Kind) -> RwLockReadGuard<'_, Shelf> {
        self.slot(kind).shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, kind: &Kind) -> RwLockWriteGuard<'_, Shelf> {
        self.slot(kind).shelf.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_version(&self) -> u64 {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The version of the newest write to any kind.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Told the version of each change of this kind.
    pub(super) fn subscribe(&self, kind: &Kind) -> watch::Receiver<u64> {
        self.slot(kind).changed.subscribe()
    }

    /// The version of the last change of this kind.
    pub(super) fn changed(&self, kind: &Kind) -> u64 {
        *self.slot(kind).changed.borrow()
    }

    /// Forgets all changes so far, so that every older version is gone (410).
    pub(super) fn expire(&self) {
        for kind in KINDS {
            let mut shelf = self.write(kind);
            shelf.history.clear();
            shelf.floor = self.version();
        }
    }

    fn record(&self, kind: &Kind, shelf: &mut Shelf, change: Change) {
        let version = change.version;
        if shelf.history.len() >= HISTORY
            && let Some(oldest) = shelf.history.pop_front()
        {
            shelf.floor = oldest.version;
        }
        shelf.history.push_back(change);
        self.slot(kind).changed.send_replace(version);
    }

    pub(super) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        self.read(kind).objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Adds an object. `metadata.name` (or `generateName`) names it; uid, version, generation
    /// and, where it is absent, the creation time are given here. `dry` keeps nothing.
    pub(super) fn create(
        &self,
        kind: &'static Kind,
        namespace: &str,
        mut object: Value,
        dry: bool,
    ) -> Result<Arc<Stored>, Fail> {
        let name = settle_name(kind, &mut object)?;
        let key = (if kind.namespaced { namespace.to_owned() } else { String::new() }, name);
        let mut shelf = self.write(kind);
        if shelf.objects.contains_key(&key) {
            return Err(Fail::exists(kind, &key.1));
        }
        let version = self.next_version();
        let has_spec = object.get("spec").is_some();
        let metadata = metadata_of(&mut object)?;
        if kind.namespaced {
            metadata.insert("namespace".into(), json!(key.0));
        } else {
            metadata.remove("namespace");
        }
        metadata.entry("uid").or_insert_with(|| json!(objects::uid(version)));
        metadata.entry("creationTimestamp").or_insert_with(|| json!(objects::ago(0)));
        metadata.insert("resourceVersion".into(), json!(version.to_string()));
        if has_spec {
            metadata.insert("generation".into(), json!(1));
        }
        strip_type(&mut object);
        let object = Arc::new(Stored::new(kind, &key, version, &object));
        if !dry {
            shelf.objects.insert(key, Arc::clone(&object));
            let change = Change { version, object: object.clone(), before: None, deleted: false };
            self.record(kind, &mut shelf, change);
        }
        Ok(object)
    }

    /// Adds an object whose JSON is made by the caller, unchecked: for pods by the ten thousand,
    /// and for objects that are broken on purpose.
    pub(super) fn insert_raw(
        &self,
        kind: &'static Kind,
        key: Key,
        labels: Labels,
        fields: Vec<(&'static str, Box<str>)>,
        json: impl FnOnce(u64) -> String,
    ) {
        let mut shelf = self.write(kind);
        let version = self.next_version();
        let object = Arc::new(Stored {
            namespace: key.0.as_str().into(),
            name: key.1.as_str().into(),
            version,
            labels,
            fields: fields.into(),
            json: json(version).into(),
        });
        let before = shelf.objects.insert(key, Arc::clone(&object));
        self.record(kind, &mut shelf, Change { version, object, before, deleted: false });
    }

    /// Changes one object under its lock. Nothing is written when `change` fails or changes
    /// nothing; a new spec raises the generation.
    pub(super) fn update(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        dry: bool,
        change: impl FnOnce(&mut Value) -> Result<(), Fail>,
    ) -> Result<Arc<Stored>, Fail> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut shelf = self.write(kind);
        let before = shelf.objects.get(&key).ok_or_else(|| Fail::not_found(kind, name))?.clone();
        let old = before.value();
        let mut object = old.clone();
        change(&mut object)?;
        strip_type(&mut object);
        let respecified = old.get("spec") != object.get("spec");
        let metadata = metadata_of(&mut object)?;
        for fixed in ["uid", "creationTimestamp", "generation", "resourceVersion"] {
            match old.pointer(&format!("/metadata/{fixed}")) {
                Some(value) => metadata.insert(fixed.to_owned(), value.clone()),
                None => metadata.remove(fixed),
            };
        }
        metadata.insert("name".into(), json!(name));
        if kind.namespaced {
            metadata.insert("namespace".into(), json!(namespace));
        }
        if object == old {
            return Ok(before);
        }
        let version = self.next_version();
        let metadata = metadata_of(&mut object)?;
        metadata.insert("resourceVersion".into(), json!(version.to_string()));
        if respecified {
            let generation = old.pointer("/metadata/generation").and_then(Value::as_i64);
            metadata.insert("generation".into(), json!(generation.unwrap_or(0) + 1));
        }
        let object = Arc::new(Stored::new(kind, &key, version, &object));
        if !dry {
            shelf.objects.insert(key, Arc::clone(&object));
            let before = Some(before);
            let change = Change { version, object: object.clone(), before, deleted: false };
            self.record(kind, &mut shelf, change);
        }
        Ok(object)
    }

    /// Takes one object away; what is returned and watched is its last state under the version
    /// of the deletion.
    pub(super) fn delete(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut shelf = self.write(kind);
        let before = shelf.objects.remove(&key)?;
        let version = self.next_version();
        let object = Arc::new(before.under(kind, version));
        let change =
            Change { version, object: object.clone(), before: Some(before), deleted: true };
        self.record(kind, &mut shelf, change);
        Some(object)
    }

    /// The objects that match, in order of their keys, from behind `after`; a `limit` of 0 is
    /// none.
    pub(super) fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: &Selector,
        after: Option<&Key>,
        limit: usize,
    ) -> Page {
        let first = (namespace.unwrap_or_default().to_owned(), String::new());
        let from = after.map_or(Bound::Included(&first), Bound::Excluded);
        let shelf = self.read(kind);
        let version = self.version();
        let mut found = shelf
            .objects
            .range::<Key, _>((from, Bound::Unbounded))
            .map(|(_, object)| object)
            .take_while(|object| namespace.is_none_or(|wanted| *object.namespace == *wanted))
            .filter(|object| selector.matches(object));
        let wanted = if limit == 0 { usize::MAX } else { limit };
        let items: Vec<Arc<Stored>> = found.by_ref().take(wanted).cloned().collect();
        let remaining = found.count();
        let last = items.last().filter(|_| remaining > 0);
        let next = last.map(|last| (last.namespace.to_string(), last.name.to_string()));
        Page { items, version, next, remaining }
    }

    /// All objects of a kind, or those of one namespace.
    pub(super) fn all(&self, kind: &Kind, namespace: Option<&str>) -> Vec<Arc<Stored>> {
        self.list(kind, namespace, &Selector::default(), None, 0).items
    }

    /// The changes of a kind behind a version; 410 when they are forgotten.
    pub(super) fn news(&self, kind: &Kind, after: u64) -> Result<News, Fail> {
        let shelf = self.read(kind);
        if after < shelf.floor {
            return Err(Fail::expired(after, shelf.floor));
        }
        let start = shelf.history.partition_point(|change| change.version <= after);
        let changes = shelf.history.range(start..).cloned().collect();
        Ok(News { changes, version: self.version().max(after) })
    }

    /// Whether the history of this kind still reaches back to this version.
    pub(super) fn remembers(&self, kind: &Kind, version: u64) -> bool {
        version >= self.read(kind).floor
    }
}

/// The object's metadata, made where it is absent; 400 where it is no object.
pub(super) fn metadata_of(object: &mut Value) -> Result<&mut Map<String, Value>, Fail> {
    let Value::Object(object) = object else {
        return Err(Fail::bad_request("the body must be a JSON object"));
    };
    match object.entry("metadata").or_insert_with(|| json!({})) {
        Value::Object(metadata) => Ok(metadata),
        _ => Err(Fail::bad_request("metadata must be a JSON object")),
    }
}

fn strip_type(object: &mut Value) {
    if let Value::Object(object) = object {
        object.remove("apiVersion");
        object.remove("kind");
    }
}

/// The longest name Kubernetes allows (a DNS subdomain).
const LONGEST_NAME: usize = 253;

fn settle_name(kind: &Kind, object: &mut Value) -> Result<String, Fail> {
    let metadata = metadata_of(object)?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default();
    let name = match (text("name"), text("generateName")) {
        ("", "") => {
            let why = "metadata.name: Required value: name or generateName is required";
            return Err(Fail::invalid(kind, "", why));
        }
        ("", prefix) => format!("{prefix}{}", objects::suffix(objects::random(), 5)),
        (name, _) => name.to_owned(),
    };
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(c);
    let strict = kind.group != "rbac.authorization.k8s.io";
    if name.len() > LONGEST_NAME || (strict && !name.chars().all(allowed)) {
        let why = format!("metadata.name: Invalid value: \"{name}\": must be a DNS subdomain");
        return Err(Fail::invalid(kind, &name, &why));
    }
    metadata.insert("name".into(), json!(name));
    Ok(name)
}
