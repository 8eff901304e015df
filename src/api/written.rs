//! Read your own writes: after a write through us, the writer's next read shows it. A read whose
//! stores have not heard of the write yet waits for them a moment, and else is live.
//!
//! Other replicas learn of a write by a short-lived cookie (or header, for scripts) that its answer
//! sets: no state is shared. It carries no right: what is waited for is only what the caller may
//! list anyway.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use compact_str::CompactString;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use serde_json::Value;

use crate::api::read::list::is_namespace;
use crate::api::web::cookie_path::cookie_path;
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
/// Pairs of caller and kind that are remembered at most: past it all are forgotten, and readers see
/// what the watch has.
const MOST: usize = 10_000;
/// Past it nobody is added on his own word: a stranger sends as many tokens, and tales of writes, as
/// he likes.
const UNPROVEN: usize = MOST / 2;
/// Between two searches for what is over, which look at everything.
const SWEEP: Duration = Duration::from_secs(1);
/// The API server's own are 36 characters.
const LONGEST_UID: usize = 64;
/// Writes of one kind that are told apart.
const OF_ONE_KIND: usize = 8;
/// Writes that a cookie carries: what one page of a frontend changes at once.
const CARRIED: usize = 8;

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
    /// Something of this kind changed, at this time (Unix microseconds by the clock of the replica
    /// that it went through): a later change is another one, not an old tale told again.
    Something(u64),
}

/// Caller and kind.
type Key = (Fingerprint, usize);

#[derive(Default)]
struct Recent {
    /// Each with when it was first heard of.
    all: HashMap<Key, Vec<(Instant, What)>>,
    swept: Option<Instant>,
}

/// Writes that stores may not have heard of.
#[derive(Default)]
pub struct Writes {
    recent: Mutex<Recent>,
    /// How many are in `recent`: reads look at this alone while nobody writes.
    count: AtomicUsize,
}

impl Recent {
    /// Whether there are fewer than so many, once those that are over are gone.
    fn has_room(&mut self, most: usize) -> bool {
        if self.all.len() >= most && self.swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            self.all.retain(|_, of_one| of_one.iter().any(|(at, _)| at.elapsed() < REMEMBERED));
            self.swept = Some(Instant::now());
        }
        self.all.len() < most
    }
}

impl Wrote {
    /// What the API server's answer to a write says: the object, or the status of its deletion.
    pub fn of(kind: &'static KindDef, namespace: &str, answer: &Value) -> Self {
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
        let version = text("/metadata/resourceVersion").and_then(|version| version.parse().ok());
        let what = match (version, text("/details/uid")) {
            (Some(version), _) => What::Version(version),
            (None, Some(uid)) => What::Gone { namespace: namespace.into(), uid: uid.into() },
            (None, None) => What::now(),
        };
        Self { kind, what }
    }

    /// Something of this resource changed; `None` when no rows of it are kept.
    pub fn something(group: &str, plural: &str) -> Option<Self> {
        let mut kinds = KINDS.iter().filter(|kind| kind.is_kept());
        let same = |kind: &&KindDef| kind.resource.group == group && kind.resource.plural == plural;
        kinds.find(same).map(|kind| Self { kind, what: What::now() })
    }

    fn encode(&self) -> String {
        let name = self.kind.name;
        match &self.what {
            What::Version(version) => format!("{name}:{version}"),
            What::Gone { namespace, uid } => format!("{name}:{namespace}:{uid}"),
            What::Something(at) => format!("{name}::{at}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let name = parts.next()?;
        let kind = KINDS.iter().find(|kind| kind.name == name && kind.is_kept())?;
        let what = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => What::Something(0),
            // In no namespace something may also be gone: a uid is no number.
            (Some(""), Some(at), None) if kind.resource.namespaced || at.parse::<u64>().is_ok() => {
                What::Something(at.parse().ok()?)
            }
            (Some(version), None, _) => What::Version(version.parse().ok()?),
            // Whoever sends it has not shown good credentials yet: nothing longer is kept.
            (Some(namespace), Some(uid), None)
                if is_namespace(namespace).is_ok() && is_uid(uid) =>
            {
                What::Gone { namespace: namespace.into(), uid: uid.into() }
            }
            _ => return None,
        };
        Some(Self { kind, what })
    }
}

/// What is echoed in a header and kept for somebody who has not shown good credentials yet.
fn is_uid(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.len() <= LONGEST_UID && text.bytes().all(plain)
}

impl Writes {
    /// Remembers a write of this caller.
    pub fn note(&self, user: &User, wrote: &Wrote) {
        self.remember(user, wrote, true);
    }

    /// Remembers what the caller's cookie or header tells of writes through other replicas.
    pub fn hear(&self, user: &User, headers: &HeaderMap) {
        for wrote in carried(headers).filter_map(Wrote::decode) {
            self.remember(user, &wrote, false);
        }
    }

    /// `anew`: its time begins again; what a client goes on carrying is as old as it was.
    fn remember(&self, user: &User, wrote: &Wrote, anew: bool) {
        let key = (user.fingerprint(), wrote.kind.index());
        // The API server has answered to what is noted with a version or as gone. What is heard, or
        // is on its way through the passthrough, may be a stranger's: it pushes out nobody.
        let proven = anew && !matches!(wrote.what, What::Something(_));
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if !recent.all.contains_key(&key) {
            if !proven && !recent.has_room(UNPROVEN) {
                return;
            }
            if !recent.has_room(MOST) {
                recent.all.clear();
            }
        }
        let all = recent.all.entry(key).or_default();
        all.retain(|(at, _)| at.elapsed() < REMEMBERED);
        if let Some(known) = all.iter_mut().find(|(_, known)| known.covers(&wrote.what)) {
            if anew {
                known.0 = Instant::now();
            }
        } else {
            all.retain(|(_, known)| !wrote.what.covers(known));
            if all.len() == OF_ONE_KIND {
                // Too many to tell apart: everything of the kind is live for a while.
                *all = vec![(Instant::now(), What::now())];
            }
            all.push((Instant::now(), wrote.what.clone()));
        }
        self.count.store(recent.all.len(), Ordering::Release);
    }

    /// Whether the store shows all that this caller wrote: at once nearly always, else after a
    /// moment; `false`: read live.
    pub async fn are_seen(&self, user: &User, feed: &Feed, scope: &Scope) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return true;
        }
        let key = (user.fingerprint(), feed.kind.index());
        let begun = Instant::now();
        loop {
            let mut open = self.open(key);
            let is_live = |(at, what): &(Instant, What)| {
                matches!(what, What::Something(_)) && at.elapsed() < LIVE
            };
            if open.iter().any(is_live) {
                return false;
            }
            open.retain(|(_, what)| !what.is_elsewhere(scope));
            // What is gone may not have come yet: it is looked for last, and in each round anew.
            open.sort_by_key(|(_, what)| matches!(what, What::Gone { .. }));
            if open.iter().all(|(_, what)| what.is_seen(feed, scope)) {
                self.forget(key, &open);
                return true;
            }
            if begun.elapsed() > PATIENCE {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn open(&self, key: Key) -> Vec<(Instant, What)> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let all = recent.all.get(&key).cloned().unwrap_or_default();
        drop(recent);
        let (fresh, old): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(at, _)| at.elapsed() < REMEMBERED);
        self.forget(key, &old);
        fresh
    }

    /// Forgets these alone: what was noted meanwhile stays.
    fn forget(&self, key: Key, seen: &[(Instant, What)]) {
        if seen.is_empty() {
            return;
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(all) = recent.all.get_mut(&key) {
            all.retain(|one| !seen.contains(one));
            if all.is_empty() {
                recent.all.remove(&key);
            }
        }
        self.count.store(recent.all.len(), Ordering::Release);
    }
}

impl What {
    fn now() -> Self {
        Self::Something(u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default())
    }

    /// Whether who waits for this has also waited for the other.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Version(known), Self::Version(other))
            | (Self::Something(known), Self::Something(other)) => known >= other,
            _ => self == other,
        }
    }

    /// It is about a namespace that this read does not look at.
    fn is_elsewhere(&self, scope: &Scope) -> bool {
        matches!(self, Self::Gone { namespace, .. } if !scope.covers(namespace))
    }

    fn is_seen(&self, feed: &Feed, scope: &Scope) -> bool {
        match self {
            Self::Version(version) => feed.heard_of(*version),
            Self::Gone { uid, .. } => feed.store.by_uid(scope, &uid.as_str().into()).is_none(),
            Self::Something(_) => true,
        }
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
    let newest = wrote.iter().rev().cloned();
    let mut all: Vec<Wrote> = Vec::new();
    for one in newest.chain(carried(request).filter_map(Wrote::decode)) {
        if all.len() == CARRIED {
            break;
        }
        if !all.iter().any(|known| known.kind == one.kind && known.what.covers(&one.what)) {
            all.push(one);
        }
    }
    let all: Vec<String> = all.iter().map(Wrote::encode).collect();
    let text = all.join("|");
    let seconds = REMEMBERED.as_secs();
    let path = cookie_path(request, base_path, "/");
    let cookie =
        format!("{COOKIE}={text}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict");
    let value = |text: &str| HeaderValue::from_str(text).ok();
    Some([(WROTE, value(&text)?), (header::SET_COOKIE, value(&cookie)?)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use futures::FutureExt as _;
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
        assert!(Wrote::of(pod(), "atlas", &Value::Null).encode().starts_with("pod::1"));
        assert_eq!(Wrote::decode("pod").unwrap().encode(), "pod::0");
        let uid = "node::0b9e4c1a-5d0f-4c43-9f0e-3f1f6c2a7b11";
        for text in ["pod:41", "pod:atlas:u1", "pod::7", uid, "node::7"] {
            assert_eq!(Wrote::decode(text).unwrap().encode(), text);
        }
        let long = format!("pod:n:{}", "u".repeat(65));
        assert_eq!(Wrote::decode(&long), None);
        let odd = ["", "gadget:4", "pod:x", "pod:a:b:c", "secret:4", "pod::x", "pod::", "node::"];
        for odd in odd {
            assert_eq!(Wrote::decode(odd), None, "{odd}");
        }
        let node = crate::kinds::by_name("node").unwrap();
        let gone = Wrote::of(node, "", &json!({"details": {"uid": "0b9e-a1"}}));
        assert_eq!(Wrote::decode(&gone.encode()), Some(gone));
    }

    #[test]
    fn a_client_carries_the_latest_write_of_some_kinds() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::COOKIE,
            HeaderValue::from_static("a=b; binnacle-wrote=pod:4|job:5|odd|node:1"),
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
            writes.note(&user(index), &Wrote { kind: pod(), what: What::Version(7) });
        }
        assert!(writes.count.load(Ordering::Relaxed) <= MOST);
        let last = user(MOST);
        assert_eq!(writes.open((last.fingerprint(), pod().index())).len(), 1);
        assert!(writes.open((user(MOST + 1).fingerprint(), pod().index())).is_empty());
    }

    #[test]
    fn strangers_push_out_no_write_that_the_api_server_has_answered() {
        let writes = Writes::default();
        let user = |index: usize| User::bearer(&format!("t{index}"), &HeaderMap::new()).unwrap();
        let (first, last) = (user(0), user(MOST + 1));
        let answered = Wrote { kind: pod(), what: What::Version(7) };
        let on_its_way = Wrote { kind: pod(), what: What::now() };
        let told = HeaderMap::from_iter([(WROTE, HeaderValue::from_static("pod:9"))]);
        writes.note(&first, &answered);
        for index in 1..=MOST {
            match index % 2 {
                0 => writes.hear(&user(index), &told),
                _ => writes.note(&user(index), &on_its_way),
            }
        }
        assert!(writes.count.load(Ordering::Relaxed) <= UNPROVEN);
        writes.note(&last, &answered);
        for user in [&first, &last] {
            assert_eq!(writes.open((user.fingerprint(), pod().index())).len(), 1);
        }
        // Who is remembered already is heard all the same.
        writes.hear(&first, &told);
        let open = writes.open((first.fingerprint(), pod().index()));
        assert!(open.iter().any(|(_, what)| *what == What::Version(9)), "{open:?}");
    }

    #[test]
    fn a_later_change_begins_its_time_anew_and_an_old_tale_told_again_does_not() {
        let writes = Writes::default();
        let user = User::bearer("t", &HeaderMap::new()).unwrap();
        let hear = |text: &'static str| {
            writes.hear(&user, &HeaderMap::from_iter([(WROTE, HeaderValue::from_static(text))]));
            let open = writes.open((user.fingerprint(), pod().index()));
            assert_eq!(open.len(), 1, "{text}: {open:?}");
            open[0].0
        };
        let first = hear("pod::7");
        assert_eq!((hear("pod::7"), hear("pod::6")), (first, first));
        let second = hear("pod::8");
        assert!(second > first);
        assert_eq!(hear("pod::7"), second);
    }

    #[tokio::test]
    async fn what_is_gone_is_looked_for_again_when_what_was_made_has_come() {
        let (writes, cache) = (Writes::default(), Cache::idle());
        let (feed, scope) = (cache.feed(pod()).unwrap(), Scope::for_tests(pod(), None));
        let user = User::bearer("t", &HeaderMap::new()).unwrap();
        let key = (user.fingerprint(), pod().index());
        let gone = What::Gone { namespace: "n".into(), uid: "u1".into() };
        // It was made, then deleted, and nothing has been heard of either: it is not there.
        for what in [gone, What::Version(4)] {
            writes.note(&user, &Wrote { kind: pod(), what });
        }
        assert_eq!(writes.are_seen(&user, feed, &scope).now_or_never(), None, "it waits");
        assert_eq!(writes.open(key).len(), 2);
    }

    #[test]
    fn writes_of_one_kind_stand_side_by_side_and_the_highest_version_is_enough() {
        let writes = Writes::default();
        let user = User::bearer("t", &HeaderMap::new()).unwrap();
        let gone = |uid: usize| What::Gone { namespace: "n".into(), uid: format!("u{uid}").into() };
        for what in [What::Version(4), What::Version(9), What::Version(7), gone(1), gone(1)] {
            writes.note(&user, &Wrote { kind: pod(), what });
        }
        let key = (user.fingerprint(), pod().index());
        let open: Vec<What> = writes.open(key).into_iter().map(|(_, what)| what).collect();
        assert_eq!(open, [What::Version(9), gone(1)]);
        for uid in 2..20 {
            writes.note(&user, &Wrote { kind: pod(), what: gone(uid) });
        }
        let open = writes.open(key);
        assert!(
            open.len() <= OF_ONE_KIND
                && open.iter().any(|(_, what)| matches!(what, What::Something(_)))
        );
    }
}
