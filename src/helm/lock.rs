//! The lock of a release: one Secret beside it, made as the user, that says who is at work and is
//! written anew every few seconds. Who finds it silent may take it over by compare-and-swap; who
//! lost it learns so from the conflict at his next heartbeat. It outlives its process, and so tells
//! any replica what became of an operation.
//!
//! It is no lock against the `helm` command of other people: that one knows `pending-*` alone.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::lock_ask::{ANSWER, MANAGER, Version, ask, broken, contended, is_unsure, written_at};
use super::names;
use super::operation::{Operation, State, conclude};
use crate::upstream::{Cluster, Failure, UpstreamError, User};

/// Heartbeats in the time after which a holder is taken for gone: some may be lost.
const BEATS: u32 = 6;
/// Seconds; more cannot be configured. Whoever writes Secrets may claim any time for a lock, and a
/// part of it is slept through before the lock is taken over.
const LONGEST: u32 = 600;
/// For the second look at a silent lock that is to be taken over.
const UNIT: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(1) };

/// Attempts at a write whose conflicts may be our own earlier attempt, or a wish to cancel.
const ROUNDS: usize = 4;
/// Operations before the last one of which the lock still tells the end, without their logs.
const EARLIER: usize = 8;

const TYPE: &str = "binnacle.dev/operation.v1";
const LABEL: &str = "binnacle.dev/operation";
/// Another name than a holder's for who asks to cancel: that is no heartbeat.
const CANCELLER: &str = "binnacle-cancel";

/// Where a release's lock is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    namespace: String,
    release: String,
}

/// What the Secret holds, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Entry {
    operation: Operation,
    /// What the same request is known by.
    key: Option<String>,
    /// Changes with each heartbeat: the API server notes the time of changes alone.
    beat: u64,
    /// Seconds of the API server's clock without a heartbeat until its holder is taken for gone, as
    /// the holder says himself: replicas need not be configured alike.
    silence: u32,
    earlier: Vec<Past>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Past {
    operation: Operation,
    key: Option<String>,
}

/// A lock as it was read.
#[derive(Debug, Clone)]
pub struct Seen {
    entry: Entry,
    version: Version,
    secret: Value,
    /// Unix seconds of the last heartbeat, by the API server's clock.
    pub beat_at: Option<i64>,
    /// Seconds since then, by the same clock; `None` when it did not say. As many as there are
    /// where no heartbeat is noted: what comes out of a backup has no holder; who lives writes.
    age: Option<i64>,
}

/// A lock that is ours.
#[derive(Debug)]
pub struct Held {
    place: Place,
    entry: Entry,
    /// `None`: somebody has deleted it, and it is made anew.
    version: Option<Version>,
    /// What was taken over.
    previous: Option<Entry>,
    /// Somebody has asked to cancel, and a heartbeat that would tell so has failed since.
    cancel: bool,
    /// From when on nobody takes it over for as long as its silence.
    pub since: Instant,
}

pub enum Taken {
    Held(Box<Held>),
    /// The same request was here before: this is its operation.
    Same(Box<Operation>),
    /// Somebody else is at work.
    Busy(Box<Operation>),
}

/// What a heartbeat found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Ours still; somebody may have asked to cancel.
    Kept { cancel: bool },
    /// Another has taken it over, or it was unlocked: end at once.
    Lost,
}

impl Place {
    /// `None` when these are no names: nothing else may get into a path.
    pub fn of(namespace: &str, release: &str) -> Option<Self> {
        let is_name = names::namespace(namespace).is_ok() && names::release(release).is_ok();
        is_name.then(|| Self { namespace: namespace.to_owned(), release: release.to_owned() })
    }

    fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    fn name(&self) -> String {
        format!("binnacle.operation.{}", self.release)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name())
    }

    fn secret(&self, entry: &Entry, version: Option<&Version>) -> Result<Value, Failure> {
        let record = serde_json::to_vec(entry)
            .map_err(|error| UpstreamError::Setup(format!("a lock's record: {error}")))?;
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": TYPE,
            "metadata": {
                "name": self.name(), "namespace": self.namespace, "labels": { LABEL: "true" },
            },
            "data": { "record": STANDARD.encode(record) },
        });
        if let Some(Version { uid, resource_version }) = version {
            secret["metadata"]["uid"] = uid.as_str().into();
            secret["metadata"]["resourceVersion"] = resource_version.as_str().into();
        }
        Ok(secret)
    }

    /// Writes the entry: creates it, or replaces exactly this version.
    async fn put(
        &self,
        cluster: &Cluster,
        user: &User,
        entry: &Entry,
        version: Option<&Version>,
    ) -> Result<Version, Failure> {
        let (method, path) = match version {
            Some(_) => (Method::PUT, self.path()),
            None => (Method::POST, self.collection()),
        };
        let body = self.secret(entry, version)?;
        let path = format!("{path}?fieldManager={MANAGER}");
        let (secret, _) = ask(cluster, user, method, &path, Some(&body)).await?;
        Version::of(&secret).ok_or_else(|| broken(&path, &"the answer has no version"))
    }

    /// The release's lock, if it has one.
    pub async fn look(&self, cluster: &Cluster, user: &User) -> Result<Option<Seen>, Failure> {
        let path = self.path();
        match ask(cluster, user, Method::GET, &path, None).await {
            Ok((secret, now)) => self.seen(secret, now).map(Some),
            Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn seen(&self, secret: Value, now: Option<i64>) -> Result<Seen, Failure> {
        let record = secret.pointer("/data/record").and_then(Value::as_str);
        let record = record.and_then(|text| STANDARD.decode(text).ok());
        let entry = record.and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok());
        let ours = secret["type"] == TYPE;
        let (Some(mut entry), Some(version), true) = (entry, Version::of(&secret), ours) else {
            let (namespace, name) = (&self.namespace, self.name());
            let words = format!(
                "the Secret {name} in namespace {namespace} stands where the lock of this release \
                 should be, and is none; delete it if nobody needs it"
            );
            return Err(Failure::status(StatusCode::CONFLICT, words.as_bytes()));
        };
        entry.silence = entry.silence.min(LONGEST);
        let beat_at = written_at(&secret);
        let age = now.map(|now| beat_at.map_or(i64::MAX, |at| now - at));
        Ok(Seen { entry, version, secret, beat_at, age })
    }

    /// Takes the lock for this operation: makes it, or takes over one that is over or silent.
    ///
    /// # Errors
    /// What the API server says to this user: 403, 404 without the namespace.
    pub async fn take(
        &self,
        cluster: &Cluster,
        user: &User,
        operation: &Operation,
        key: Option<&str>,
        silence: u32,
    ) -> Result<Taken, Failure> {
        for _ in 0..ROUNDS {
            let found = self.look(cluster, user).await?;
            if let Some(seen) = &found {
                if let Some(same) = key.and_then(|key| seen.same(key)) {
                    return Ok(Taken::Same(Box::new(same)));
                }
                if seen.is_live() {
                    return Ok(Taken::Busy(Box::new(seen.operation())));
                }
                if !self.is_left(cluster, user, seen).await? {
                    continue;
                }
            }
            let earlier = found.as_ref().map(Seen::history).unwrap_or_default();
            let beat = found.as_ref().map_or(0, |seen| seen.entry.beat.wrapping_add(1));
            let key = key.map(str::to_owned);
            let entry = Entry { operation: operation.clone(), key, beat, silence, earlier };
            let version = found.as_ref().map(|seen| &seen.version);
            let since = Instant::now();
            let written = match self.put(cluster, user, &entry, version).await {
                // If it was done all the same, nobody but us would ever end this operation.
                Err(failure) if is_unsure(&failure) => {
                    let now = self.look(cluster, user).await.ok().flatten();
                    let ours = now.filter(|now| now.entry.operation.id == operation.id);
                    ours.map(|now| now.version).ok_or(failure)
                }
                written => written,
            };
            match written {
                Ok(version) => {
                    let (place, version) = (self.clone(), Some(version));
                    let previous = found.map(|seen| seen.entry);
                    let held = Held { place, entry, version, previous, cancel: false, since };
                    return Ok(Taken::Held(Box::new(held)));
                }
                // Somebody was faster, or the lock that was to be taken over is gone.
                Err(failure) if failure.code() == Some(StatusCode::CONFLICT) => {}
                Err(failure)
                    if failure.code() == Some(StatusCode::NOT_FOUND) && found.is_some() => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(contended(&self.path()))
    }

    /// Whether nobody is at work on a lock that is not live: it is over, or stays silent.
    pub async fn is_left(
        &self,
        cluster: &Cluster,
        user: &User,
        seen: &Seen,
    ) -> Result<bool, Failure> {
        if seen.is_over() {
            return Ok(true);
        }
        // After an API server was away all locks are silent, until their holders have written again.
        sleep(UNIT * seen.entry.silence / BEATS + ANSWER.min(UNIT * seen.entry.silence / 4)).await;
        let now = self.look(cluster, user).await?;
        Ok(now.is_none_or(|now| now.version == seen.version))
    }

    /// Asks whoever holds the lock for this operation to cancel it; the lock as it is then. Nothing
    /// is asked of another operation, or of one that is over.
    pub async fn cancel(
        &self,
        cluster: &Cluster,
        user: &User,
        id: &str,
    ) -> Result<Option<Seen>, Failure> {
        for _ in 0..ROUNDS {
            let Some(mut seen) = self.look(cluster, user).await? else { return Ok(None) };
            let running = &seen.entry.operation;
            if running.id != id || running.state.is_over() || seen.is_to_cancel() {
                return Ok(Some(seen));
            }
            seen.secret["data"]["cancel"] = STANDARD.encode(id).into();
            let path = format!("{}?fieldManager={CANCELLER}", self.path());
            match ask(cluster, user, Method::PUT, &path, Some(&seen.secret)).await {
                Ok(_) => return Ok(Some(seen)),
                Err(failure) if failure.code() == Some(StatusCode::CONFLICT) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(contended(&self.path()))
    }

    /// Ends the lock of a holder that is silent: should he come back, he finds that he lost it.
    ///
    /// # Errors
    /// 409 when it is not as it was seen any more.
    pub async fn close(&self, cluster: &Cluster, user: &User, seen: &Seen) -> Result<(), Failure> {
        let mut entry = seen.entry.clone();
        conclude(&mut entry.operation, |operation| operation.state = State::Interrupted);
        entry.beat = entry.beat.wrapping_add(1);
        self.put(cluster, user, &entry, Some(&seen.version)).await.map(|_| ())
    }
}

impl Seen {
    /// Whether its operation has ended by its own word.
    pub fn is_over(&self) -> bool {
        self.entry.operation.state.is_over()
    }

    /// Whether its holder is at work.
    pub fn is_live(&self) -> bool {
        !self.is_over() && self.age.is_none_or(|age| age < self.silence())
    }

    /// Seconds after which its holder is taken for gone.
    pub fn silence(&self) -> i64 {
        self.entry.silence.into()
    }

    fn is_to_cancel(&self) -> bool {
        let wish = self.secret.pointer("/data/cancel").and_then(Value::as_str);
        wish.is_some_and(|wish| wish == STANDARD.encode(&self.entry.operation.id))
    }

    /// The operation that holds it, or held it last, as it is to be told by a process that does not
    /// run it.
    pub fn operation(&self) -> Operation {
        let mut operation = self.entry.operation.clone();
        if !operation.state.is_over() {
            operation.state = if self.is_live() { State::Elsewhere } else { State::Interrupted };
        }
        operation
    }

    /// The operation of this id, the last one or one before.
    pub fn find(&self, id: &str) -> Option<Operation> {
        if self.entry.operation.id == id {
            return Some(self.operation());
        }
        let past = self.entry.earlier.iter().find(|past| past.operation.id == id);
        past.map(|past| past.operation.clone())
    }

    /// The operation that this request has begun already.
    pub fn same(&self, key: &str) -> Option<Operation> {
        if self.entry.key.as_deref() == Some(key) {
            return Some(self.operation());
        }
        let past = self.entry.earlier.iter().find(|past| past.key.as_deref() == Some(key));
        past.map(|past| past.operation.clone())
    }

    /// What the next holder remembers, newest first.
    fn history(&self) -> Vec<Past> {
        let mut last = self.entry.operation.bare();
        last.log_dropped = last.log_dropped.saturating_add(self.entry.operation.log.len() as u64);
        if !last.state.is_over() {
            conclude(&mut last, |operation| operation.state = State::Interrupted);
        }
        let last = Past { operation: last, key: self.entry.key.clone() };
        let earlier = self.entry.earlier.iter().cloned();
        std::iter::once(last).chain(earlier).take(EARLIER).collect()
    }

    #[cfg(test)]
    pub(super) fn for_tests(operation: Operation, age: i64, beat_at: i64) -> Self {
        let version = Version { uid: "u".into(), resource_version: "1".into() };
        let entry = Entry { operation, silence: 30, ..Entry::default() };
        let (age, beat_at) = (Some(age), Some(beat_at));
        Self { entry, version, secret: Value::Null, beat_at, age }
    }
}

impl Held {
    /// From a heartbeat on nobody takes it over for so long.
    pub fn silence(&self) -> Duration {
        Duration::from_secs(self.entry.silence.into())
    }

    /// Whether a repeated request shall find it.
    pub fn is_keyed(&self) -> bool {
        self.entry.key.is_some()
    }

    /// From the end of a heartbeat to the begin of the next.
    pub fn pause(&self) -> Duration {
        self.silence() / BEATS
    }

    /// A heartbeat, or the last word: writes how far the operation is.
    ///
    /// # Errors
    /// It could not be written; whether it is still ours is not known.
    pub async fn write(
        &mut self,
        cluster: &Cluster,
        user: &User,
        operation: Operation,
    ) -> Result<Beat, Failure> {
        self.entry.operation = operation;
        self.entry.beat = self.entry.beat.wrapping_add(1);
        for _ in 0..ROUNDS {
            let version = self.version.as_ref();
            match self.place.put(cluster, user, &self.entry, version).await {
                Ok(version) => {
                    self.version = Some(version);
                    return Ok(Beat::Kept { cancel: std::mem::take(&mut self.cancel) });
                }
                Err(failure) => {
                    if self.is_lost(cluster, user, failure).await? {
                        return Ok(Beat::Lost);
                    }
                }
            }
        }
        Err(contended(&self.place.path()))
    }

    /// Puts the lock back as it was found, since nothing was done with it.
    pub async fn undo(mut self, cluster: &Cluster, user: &User) -> Result<(), Failure> {
        let Some(mut previous) = self.previous.take() else {
            return self.give_back(cluster, user).await;
        };
        if !previous.operation.state.is_over() {
            conclude(&mut previous.operation, |operation| operation.state = State::Interrupted);
        }
        previous.beat = self.entry.beat.wrapping_add(1);
        self.place.put(cluster, user, &previous, self.version.as_ref()).await.map(|_| ())
    }

    /// Deletes the lock, if it still is ours.
    pub async fn give_back(&mut self, cluster: &Cluster, user: &User) -> Result<(), Failure> {
        for _ in 0..ROUNDS {
            let Some(Version { uid, resource_version }) = &self.version else { return Ok(()) };
            let body = json!({
                "apiVersion": "v1", "kind": "DeleteOptions",
                "preconditions": { "uid": uid, "resourceVersion": resource_version },
            });
            let path = self.place.path();
            let Err(failure) = ask(cluster, user, Method::DELETE, &path, Some(&body)).await else {
                self.version = None;
                return Ok(());
            };
            if self.is_lost(cluster, user, failure).await? {
                return Ok(());
            }
        }
        Err(contended(&self.place.path()))
    }

    /// After a write that failed: whether it is another's lock, when that can be told. Our own
    /// write, whose answer was lost, is a conflict as well.
    async fn is_lost(
        &mut self,
        cluster: &Cluster,
        user: &User,
        failure: Failure,
    ) -> Result<bool, Failure> {
        match failure.code() {
            Some(StatusCode::NOT_FOUND) if self.version.is_some() => self.version = None,
            Some(StatusCode::CONFLICT) => match self.place.look(cluster, user).await? {
                None => self.version = None,
                Some(seen) if self.is_ours(&seen) => {
                    self.cancel |= seen.is_to_cancel();
                    self.version = Some(seen.version);
                }
                Some(_) => return Ok(true),
            },
            _ => return Err(failure),
        }
        Ok(false)
    }

    fn is_ours(&self, seen: &Seen) -> bool {
        let (theirs, ours) = (&seen.entry.operation, &self.entry.operation);
        theirs.id == ours.id && (!theirs.state.is_over() || theirs.state == ours.state)
    }
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
