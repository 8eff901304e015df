//! Watches: newline-framed JSON events from a version on, with bookmarks, streaming lists and
//! 410 for what is forgotten.
//!
//! Over WebSocket it does not speak.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ask::{Ask, Resource};
use super::kinds::{EVENT, Kind};
use super::read;
use super::reply::{self, Fail, Reply};
use super::selector::Selector;
use super::server::Shared;
use super::store::{Change, Stored};
use super::table::Form;

/// Chunks waiting for a slow client; the watch waits then, and falls out of the history at last.
const QUEUE: usize = 16;

/// Events are put together up to this many bytes before they are sent.
const CHUNK: usize = 64 * 1024;

/// Time between bookmarks; a real server waits about a minute.
const BOOKMARKS: Duration = Duration::from_secs(15);

/// How long a watch lives that asks for no time of its own, as the API server's least.
const LIFE: Duration = Duration::from_secs(1_800);

struct Watch {
    shared: Arc<Shared>,
    kind: &'static Kind,
    namespace: Option<String>,
    selector: Selector,
    form: Form,
    bookmarks: bool,
    until: Instant,
    /// The first Table of a watch alone has columns.
    columns: bool,
    sender: mpsc::Sender<Bytes>,
    chunk: Vec<u8>,
}

/// The client is gone, or the watch is over.
struct Ended;

pub(super) fn answer(
    shared: &Arc<Shared>,
    kind: &'static Kind,
    ask: &Ask,
    path: &Resource,
    form: Form,
) -> Result<Reply, Fail> {
    let selector = read::selector(kind, ask)?;
    let from = ask.query.number::<u64>("resourceVersion")?.unwrap_or(0);
    let initial = match ask.query.get("sendInitialEvents") {
        "" => None,
        text => Some(text == "true" || text == "1"),
    };
    let matching = ask.query.get("resourceVersionMatch");
    let why = match (initial, matching) {
        (None, "") | (Some(_), "NotOlderThan") => "",
        (None, _) => {
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        }
        (Some(_), _) => "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    };
    if !why.is_empty() {
        return Err(Fail::options("resourceVersionMatch", why));
    }
    // 0 is no time of its own either.
    let life = ask.query.number::<u64>("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let life = life.map_or(LIFE, Duration::from_secs);
    let (sender, receiver) = mpsc::channel(QUEUE);
    let watch = Watch {
        shared: Arc::clone(shared),
        kind,
        namespace: read::limited(kind, path).map(str::to_owned),
        selector,
        form,
        bookmarks: ask.query.flag("allowWatchBookmarks"),
        until: Instant::now() + life.min(LIFE),
        columns: true,
        sender,
        chunk: Vec::new(),
    };
    tokio::spawn(watch.run(from, initial));
    let chunks = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    Ok(reply::streamed("application/json", chunks))
}

impl Watch {
    async fn run(mut self, from: u64, initial: Option<bool>) {
        // However it ends, the client sees a clean end of the stream.
        let _ = self.follow(from, initial).await;
    }

    async fn follow(&mut self, from: u64, initial: Option<bool>) -> Result<(), Ended> {
        let mut changed = self.shared.store.subscribe(self.kind);
        let mut dropped = self.shared.faults.dropped();
        let mut seen = from;
        if initial.unwrap_or(from == 0) {
            seen = self.initial().await?;
            if initial.is_some() && self.bookmarks {
                self.bookmark(seen, true);
            }
            self.flush().await?;
        } else if from == 0 {
            seen = self.shared.store.version();
        }
        // The API server has no watch cache for events unless it is told to, and so no bookmarks
        // but the one behind a streaming list.
        let bookmarks = self.bookmarks && !std::ptr::eq(self.kind, &EVENT);
        let mut bookmark_at = Instant::now() + BOOKMARKS;
        loop {
            let news = match self.shared.store.news(self.kind, seen) {
                Ok(news) => news,
                Err(fail) => {
                    self.put("ERROR", fail.status().to_string().as_bytes()).await?;
                    return self.flush().await;
                }
            };
            seen = news.version;
            for change in &news.changes {
                self.tell(change).await?;
            }
            self.flush().await?;
            tokio::select! {
                told = changed.changed() => told.map_err(|_| Ended)?,
                _ = dropped.changed() => return Ok(()),
                () = self.shared.stop.cancelled() => return Ok(()),
                () = self.sender.closed() => return Ok(()),
                () = tokio::time::sleep_until(self.until) => {
                    if bookmarks {
                        self.bookmark(seen, false);
                    }
                    return self.flush().await;
                }
                () = tokio::time::sleep_until(bookmark_at), if bookmarks => {
                    seen = self.quiet_version(seen);
                    self.bookmark(seen, false);
                    bookmark_at = Instant::now() + BOOKMARKS;
                }
            }
        }
    }

    /// The newest version, if nothing of this kind happened since `seen`.
    fn quiet_version(&self, seen: u64) -> u64 {
        match self.shared.store.news(self.kind, seen) {
            Ok(news) if news.changes.is_empty() => news.version,
            _ => seen,
        }
    }

    /// Sends what is there now and returns its version.
    async fn initial(&mut self) -> Result<u64, Ended> {
        let namespace = self.namespace.as_deref();
        let page = self.shared.store.list(self.kind, namespace, &self.selector, None, 0);
        for object in &page.items {
            self.put_object("ADDED", object).await?;
        }
        Ok(page.version)
    }

    fn wants(&self, object: &Stored) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| *object.namespace == *wanted)
            && self.selector.matches(object)
    }

    /// A change as this watch sees it: an object that begins to match is new to it, and one that
    /// no longer matches is deleted, as it was before.
    async fn tell(&mut self, change: &Change) -> Result<(), Ended> {
        let was = change.before.as_ref().is_some_and(|before| self.wants(before));
        let is = !change.deleted && self.wants(&change.object);
        let event = match (was, is) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return Ok(()),
        };
        if let (true, false, Some(before)) = (was, change.deleted, &change.before)
            && !is
        {
            return self.put_object(event, &before.under(self.kind, change.version)).await;
        }
        self.put_object(event, &change.object).await
    }

    async fn put_object(&mut self, event: &str, object: &Stored) -> Result<(), Ended> {
        let bytes = self.form.single(self.kind, object, self.columns);
        self.columns = false;
        self.put(event, &bytes).await
    }

    async fn put(&mut self, event: &str, object: &[u8]) -> Result<(), Ended> {
        self.frame(event, object);
        if self.chunk.len() >= CHUNK { self.flush().await } else { Ok(()) }
    }

    fn frame(&mut self, event: &str, object: &[u8]) {
        let head = format!("{{\"type\":\"{event}\",\"object\":");
        self.chunk.extend_from_slice(head.as_bytes());
        self.chunk.extend_from_slice(object);
        self.chunk.extend_from_slice(b"}\n");
    }

    fn bookmark(&mut self, version: u64, initial_end: bool) {
        let mut metadata = json!({ "resourceVersion": version.to_string() });
        if initial_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let partial = json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
        });
        let object = match self.form {
            Form::Plain => json!({
                "kind": self.kind.kind,
                "apiVersion": self.kind.api_version(),
                "metadata": metadata,
            }),
            Form::Metadata => partial,
            Form::Table(_) => json!({
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": { "resourceVersion": version.to_string() },
                "rows": [{ "cells": [], "object": partial }],
            }),
        };
        self.frame("BOOKMARK", object.to_string().as_bytes());
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.sender.send(chunk.into()).await.map_err(|_| Ended)
    }
}
