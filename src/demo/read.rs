//! Single reads and lists: pages with continue tokens, selectors, and the forms of `table`.
//!
//! A page behind the first is read from the live objects, not from a snapshot.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::ask::{Ask, Resource};
use super::kinds::Kind;
use super::reply::{self, Fail, Reply};
use super::selector::Selector;
use super::store::{Key, Store, Stored};
use super::table::Form;

/// Bytes of a list sent at once: a long list is never in memory twice.
const CHUNK: usize = 256 * 1024;

/// The stored object a path names.
pub(super) fn find(store: &Store, kind: &Kind, path: &Resource) -> Result<Arc<Stored>, Fail> {
    store.get(kind, space(kind, path), &path.name).ok_or_else(|| Fail::not_found(kind, &path.name))
}

/// The namespace under which the store keeps what a path names.
pub(super) fn space<'a>(kind: &Kind, path: &'a Resource) -> &'a str {
    if kind.namespaced { &path.namespace } else { "" }
}

/// The namespace a list is limited to.
pub(super) fn limited<'a>(kind: &Kind, path: &'a Resource) -> Option<&'a str> {
    Some(space(kind, path)).filter(|namespace| !namespace.is_empty())
}

pub(super) fn selector(kind: &Kind, ask: &Ask) -> Result<Selector, Fail> {
    let (labels, fields) = (ask.query.get("labelSelector"), ask.query.get("fieldSelector"));
    Selector::parse(kind, labels, fields)
}

pub(super) fn get(store: &Store, kind: &Kind, path: &Resource, form: &Form) -> Result<Reply, Fail> {
    let object = find(store, kind, path)?;
    Ok(reply::whole(200, "application/json", form.single(kind, &object, true)))
}

/// The `autoscaling/v1` Scale of a workload.
pub(super) fn scale(store: &Store, kind: &Kind, path: &Resource) -> Result<Reply, Fail> {
    let object = find(store, kind, path)?;
    Ok(reply::json(200, &scale_of(&object)))
}

pub(super) fn scale_of(object: &Stored) -> Value {
    let value = object.value();
    let labels = value.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let pairs = labels.into_iter().flatten();
    let pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    let metadata = &value["metadata"];
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": value["spec"]["replicas"].as_i64().unwrap_or(0) },
        "status": {
            "replicas": value["status"]["replicas"].as_i64().unwrap_or(0),
            "selector": pairs.join(","),
        },
    })
}

pub(super) fn list(
    store: &Store,
    kind: &'static Kind,
    ask: &Ask,
    path: &Resource,
    form: &Form,
) -> Result<Reply, Fail> {
    if !ask.query.get("sendInitialEvents").is_empty() {
        let why = "sendInitialEvents is forbidden for list";
        return Err(Fail::options("sendInitialEvents", why));
    }
    let matching = !ask.query.get("resourceVersionMatch").is_empty();
    if matching && ask.query.get("resourceVersion").is_empty() {
        let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        return Err(Fail::options("resourceVersionMatch", why));
    }
    let selector = selector(kind, ask)?;
    let limit = ask.query.number::<usize>("limit")?.unwrap_or(0);
    let asked = ask.query.number::<u64>("resourceVersion")?.unwrap_or(0);
    if asked > store.version() {
        return Err(Fail::too_new(asked, store.version()));
    }
    let token = ask.query.get("continue");
    let behind = if token.is_empty() { None } else { Some(Token::read(token)?) };
    if let Some(token) = &behind
        && let Some(version) = token.version
        && !store.remembers(kind, version)
    {
        return Err(Fail::expired_page(Token { version: None, ..token.clone() }.write()));
    }
    let after = behind.as_ref().map(|token| &token.after);
    let page = store.list(kind, limited(kind, path), &selector, after, limit);
    // All pages of one list show the version of the first, so that a watch from it misses nothing.
    let version = behind.as_ref().and_then(|token| token.version).unwrap_or(page.version);
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if let Some(next) = page.next {
        metadata["continue"] = json!(Token { version: Some(version), after: next }.write());
        if selector.is_empty() {
            metadata["remainingItemCount"] = json!(page.remaining);
        }
    }
    Ok(send(kind, *form, &metadata, page.items))
}

/// A list of these items.
pub(super) fn send(
    kind: &'static Kind,
    form: Form,
    metadata: &Value,
    items: Vec<Arc<Stored>>,
) -> Reply {
    let head = form.list_head(kind, metadata).into_bytes();
    let chunks = Chunks { kind, form, head: Some(head), items, at: 0 };
    reply::streamed("application/json", futures::stream::iter(chunks))
}

/// The bytes of a list, made as they are sent.
struct Chunks {
    kind: &'static Kind,
    form: Form,
    head: Option<Vec<u8>>,
    items: Vec<Arc<Stored>>,
    /// The next item; beyond the items when all is sent.
    at: usize,
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.at > self.items.len() {
            return None;
        }
        let mut chunk = self.head.take().unwrap_or_default();
        while let Some(item) = self.items.get(self.at) {
            if self.at > 0 {
                chunk.push(b',');
            }
            chunk.extend_from_slice(&self.form.item(self.kind, item));
            self.at += 1;
            if chunk.len() >= CHUNK {
                return Some(chunk.into());
            }
        }
        chunk.extend_from_slice(b"]}");
        self.at = self.items.len() + 1;
        Some(chunk.into())
    }
}

/// A continue token: the version of the first page and the last key of the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    /// None goes on without consistency.
    version: Option<u64>,
    after: Key,
}

impl Token {
    fn write(&self) -> String {
        let token = json!({
            "v": "meta.k8s.io/v1",
            "rv": self.version,
            "start": [self.after.0, self.after.1],
        });
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn read(token: &str) -> Result<Token, Fail> {
        let refused = || Fail::bad_request("continue key is not valid: cannot be decoded");
        let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| refused())?;
        let token: Value = serde_json::from_slice(&token).map_err(|_| refused())?;
        let part = |at: usize| token["start"][at].as_str().map(str::to_owned);
        let after = part(0).zip(part(1)).ok_or_else(refused)?;
        Ok(Token { version: token["rv"].as_u64(), after })
    }
}
