//! Read your own writes: after a write through us, the writer's next read shows it. A read whose
//! stores have not heard of the write yet waits for them a moment, and else is live.
//!
//! Other replicas learn of a write by a short-lived cookie (or header, for scripts) that its answer
//! sets: no state is shared. It carries no right: what is waited for is only what the caller may
//! list anyway.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use compact_str::CompactString;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;

use crate::auth::Scope;
use crate::cache::Feed;
use crate::kinds::{KINDS, KindDef};
use crate::upstream::{Fingerprint, User};

/// For clients that keep no cookies: what an answer sent, sent back with the next read.
pub const WROTE: HeaderName = HeaderName::from_static("binnacle-wrote");
const COOKIE: &str = "binnacle-wrote";
/// A watch is behind for less than this, or it is broken, which is seen by itself.
const REMEMBERED: Duration = Duration::from_secs(10);
/// After a write whose version we do not know (the passthrough reads no answers) lists are live.
const LIVE: Duration = Duration::from_secs(2);
/// How long a read waits for its stores before it is live.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);
/// Writes remembered at most: past it the oldest are forgotten, and their readers see what the
/// watch has.
const MOST: usize = 10_000;
const LONGEST_NAMESPACE: usize = 63;
/// The API server's own are 36 characters.
const LONGEST_UID: usize = 64;
/// Writes that a cookie carries: what one page of a frontend changes at once.
const CARRIED: usize = 4;

/// One write, as far as a read has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrote {
    pub kind: &'static KindDef,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// The object's version after it; stores are as far once they have heard of this one.
    Version(u64),
    /// The object with this uid is gone from this namespace.
    Gone { namespace: CompactString, uid: CompactString },
    /// Something of this kind changed.
    Something,
}

/// Writes that stores may not have heard of.
#[derive(Default)]
pub struct Writes {
    recent: Mutex<HashMap<(Fingerprint, usize), (Instant, What)>>,
    /// Length of `recent`: reads look at this alone while nobody writes.
    count: AtomicUsize,
}

impl Wrote {
    /// What the API server's answer to a write says: the object, or the status of its deletion.
    pub fn of(kind: &'static KindDef, namespace: &str, answer: &Value) -> Self {
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
        let version = text("/metadata/resourceVersion").and_then(|version| version.parse().ok());
        let what = match (version, text("/details/uid")) {
            (Some(version), _) => What::Version(version),
            (None, Some(uid)) => What::Gone { namespace: namespace.into(), uid: uid.into() },
            (None, None) => What::Something,
        };
        Self { kind, what }
    }

    /// Something of this resource changed; `None` when no rows of it are kept.
    pub fn something(group: &str, plural: &str) -> Option<Self> {
        let mut kinds = KINDS.iter().filter(|kind| kind.is_kept());
        let same = |kind: &&KindDef| kind.resource.group == group && kind.resource.plural == plural;
        kinds.find(same).map(|kind| Self { kind, what: What::Something })
    }

    fn encode(&self) -> String {
        let name = self.kind.name;
        match &self.what {
            What::Version(version) => format!("{name}:{version}"),
            What::Gone { namespace, uid } => format!("{name}:{namespace}:{uid}"),
            What::Something => name.to_owned(),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let name = parts.next()?;
        let kind = KINDS.iter().find(|kind| kind.name == name && kind.is_kept())?;
        let what = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => What::Something,
            (Some(version), None, _) => What::Version(version.parse().ok()?),
            // Whoever sends it has not shown good credentials yet: nothing longer is kept.
            (Some(namespace), Some(uid), None)
                if namespace.len() <= LONGEST_NAMESPACE && uid.len() <= LONGEST_UID =>
            {
                What::Gone { namespace: namespace.into(), uid: uid.into() }
            }
            _ => return None,
        };
        Some(Self { kind, what })
    }
}

impl Writes {
    /// Remembers a write of this caller.
    pub fn note(&self, user: &User, wrote: &Wrote) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= MOST {
            recent.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
            if recent.len() >= MOST {
                recent.clear();
            }
        }
        let key = (user.fingerprint(), wrote.kind.index());
        recent.insert(key, (Instant::now(), wrote.what.clone()));
        self.count.store(recent.len(), Ordering::Release);
    }

    /// Remembers what the caller's cookie or header tells of writes through other replicas.
    pub fn hear(&self, user: &User, headers: &HeaderMap) {
        for text in carried(headers) {
            if let Some(wrote) = Wrote::decode(text) {
                self.note(user, &wrote);
            }
        }
    }

    /// Whether the store shows all that this caller wrote: at once nearly always, else after a
    /// moment; `false`: read live.
    pub async fn are_seen(&self, user: &User, feed: &Feed, scope: &Scope) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return true;
        }
        let key = (user.fingerprint(), feed.kind.index());
        let Some((at, what)) = self.find(key) else { return true };
        let begun = Instant::now();
        loop {
            let seen = match &what {
                What::Version(version) => feed.heard_of(*version),
                What::Gone { namespace, uid } => {
                    !scope.covers(namespace) || feed.store.by_uid(scope, uid).is_none()
                }
                What::Something => return at.elapsed() >= LIVE,
            };
            if seen {
                self.forget(key);
                return true;
            }
            if begun.elapsed() > PATIENCE {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn find(&self, key: (Fingerprint, usize)) -> Option<(Instant, What)> {
        let found =
            self.recent.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()?;
        if found.0.elapsed() < REMEMBERED {
            return Some(found);
        }
        self.forget(key);
        None
    }

    fn forget(&self, key: (Fingerprint, usize)) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.remove(&key);
        self.count.store(recent.len(), Ordering::Release);
    }
}

/// What earlier answers gave the client to carry, newest first.
fn carried(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let texts = |name: &HeaderName| {
        headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
    };
    let cookies = texts(&header::COOKIE)
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    texts(&WROTE).chain(cookies).flat_map(|text| text.split('|')).take(CARRIED)
}

/// The headers that tell the client to carry this write to whichever replica it reads from next.
pub fn carry(
    wrote: &[Wrote],
    request: &HeaderMap,
    base_path: &str,
) -> Option<[(HeaderName, HeaderValue); 2]> {
    let is_older = |text: &&str| {
        let name = text.split(':').next().unwrap_or_default();
        !wrote.iter().any(|one| one.kind.name == name)
    };
    let older = carried(request).filter(is_older);
    // Of several writes of one kind the last tells enough.
    let mut seen = HashSet::new();
    let newest = wrote.iter().rev().filter(|one| seen.insert(one.kind.name));
    let all: Vec<_> = newest
        .map(Wrote::encode)
        .chain(older.filter(|text| Wrote::decode(text).is_some()).map(str::to_owned))
        .take(CARRIED)
        .collect();
    let text = all.join("|");
    let seconds = REMEMBERED.as_secs();
    let cookie =
        format!("{COOKIE}={text}; Path={base_path}/; Max-Age={seconds}; HttpOnly; SameSite=Strict");
    let value = |text: &str| HeaderValue::from_str(text).ok();
    Some([(WROTE, value(&text)?), (header::SET_COOKIE, value(&cookie)?)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> &'static KindDef {
        crate::kinds::by_name("pod").unwrap()
    }

    #[test]
    fn an_answer_tells_the_version_or_what_is_gone() {
        let changed = json!({"metadata": {"resourceVersion": "41"}});
        assert_eq!(Wrote::of(pod(), "atlas", &changed).encode(), "pod:41");
        let gone = json!({"kind": "Status", "metadata": {}, "details": {"uid": "u1"}});
        assert_eq!(Wrote::of(pod(), "atlas", &gone).encode(), "pod:atlas:u1");
        assert_eq!(Wrote::of(pod(), "atlas", &Value::Null).encode(), "pod");
        for text in ["pod:41", "pod:atlas:u1", "pod"] {
            assert_eq!(Wrote::decode(text).unwrap().encode(), text);
        }
        let long = format!("pod:n:{}", "u".repeat(65));
        assert_eq!(Wrote::decode(&long), None);
        for odd in ["", "gadget:4", "pod:x", "pod:a:b:c", "secret:4"] {
            assert_eq!(Wrote::decode(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_client_carries_the_latest_write_of_some_kinds() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::COOKIE,
            HeaderValue::from_static("a=b; binnacle-wrote=pod:4|job:5|odd|node:1|event:2"),
        );
        let wrote = Wrote { kind: pod(), what: What::Version(9) };
        let [(_, text), (_, cookie)] = carry(&[wrote], &headers, "/x").unwrap();
        assert_eq!(text, "pod:9|job:5|node:1");
        assert_eq!(
            cookie,
            "binnacle-wrote=pod:9|job:5|node:1; Path=/x/; Max-Age=10; HttpOnly; SameSite=Strict"
        );
    }

    #[test]
    fn writes_are_remembered_for_each_caller_and_in_bounds() {
        let writes = Writes::default();
        let user = |index: usize| User::bearer(&format!("t{index}"), &HeaderMap::new()).unwrap();
        for index in 0..=MOST {
            writes.note(&user(index), &Wrote { kind: pod(), what: What::Something });
        }
        assert!(writes.count.load(Ordering::Relaxed) <= MOST);
        let last = user(MOST);
        assert!(writes.find((last.fingerprint(), pod().index())).is_some());
        assert!(writes.find((user(MOST + 1).fingerprint(), pod().index())).is_none());
    }
}
