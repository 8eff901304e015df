//! The shared cache: one store of rows for each kind, kept by list and watch with our own rights.
//!
//! Rows leave it only against an [`auth::Scope`](crate::auth::Scope). It never answers for itself
//! whether somebody may see them, and holds no Secret data.

mod pager;
mod reflector;
mod select;
mod store;
mod usage;
mod usage_table;
mod watch;

pub use pager::{ListError, Listing, list_as};
pub use select::Page;
pub use store::Store;
pub use usage::{Report, Standing, Usage};
pub use usage_table::Series;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use compact_str::CompactString;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::kinds::{KINDS, KindDef, by_name};
use crate::upstream::Cluster;

/// Where RBAC keeps who may do what.
const RIGHTS: [&str; 4] = ["clusterrole", "clusterrolebinding", "role", "rolebinding"];

/// One kind's store and how current it is.
pub struct Feed {
    pub kind: &'static KindDef,
    pub store: Store,
    synced: AtomicBool,
    refused: AtomicBool,
    /// A watch was open once.
    watched: AtomicBool,
    /// Since when nothing is heard; `None` while a watch is open.
    silent: Mutex<Option<Instant>>,
    /// The latest resource version that list or watch have told.
    version: AtomicU64,
    /// How often rows or state have changed.
    changes: Sender<u64>,
    pub events: AtomicU64,
    pub malformed: AtomicU64,
    pub restarts: AtomicU64,
}

/// How a feed stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not listed yet.
    Starting,
    /// We may not list or watch this kind; it is read live as the user.
    Refused,
    /// Rows are as current as a watch makes them.
    Current,
    /// Rows are as of so long ago: the watch is broken.
    Stale(Duration),
}

impl Feed {
    fn new(kind: &'static KindDef) -> Self {
        Self {
            kind,
            store: Store::new(kind),
            synced: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            silent: Mutex::new(Some(Instant::now())),
            version: AtomicU64::new(0),
            changes: Sender::default(),
            events: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
        }
    }

    pub fn state(&self) -> State {
        if self.refused.load(Ordering::Acquire) {
            return State::Refused;
        }
        if !self.synced.load(Ordering::Acquire) {
            return State::Starting;
        }
        match *self.silent.lock().unwrap_or_else(PoisonError::into_inner) {
            None => State::Current,
            Some(since) => State::Stale(since.elapsed()),
        }
    }

    /// Whether the store is at least as new as this resource version. They count up within one
    /// resource (KEP-5504; before 1.35 etcd's own revisions did the same).
    pub fn heard_of(&self, version: u64) -> bool {
        self.version.load(Ordering::Acquire) >= version
    }

    /// How often rows or state have changed, for [`Self::changed_since`].
    pub fn changes(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Returns as soon as that is another number; at once if it is already.
    pub async fn changed_since(&self, count: u64) {
        let mut changes = self.changes.subscribe();
        // It cannot fail: the sender is ours.
        let _ = changes.wait_for(|now| *now != count).await.is_ok();
    }

    /// Tells who waits; after the change, so that whoever looks then sees it.
    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn reached(&self, version: &str) {
        if let Ok(version) = version.parse() {
            self.version.store(version, Ordering::Release);
        }
    }

    fn heard(&self) {
        self.watched.store(true, Ordering::Release);
        let refused = self.refused.swap(false, Ordering::AcqRel);
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner).take();
        if refused || silent.is_some() {
            self.changed();
        }
    }

    fn lost(&self) {
        self.lost_since(Instant::now());
    }

    /// Nothing has been heard since then, as it turns out now.
    fn lost_since(&self, last: Instant) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = silent.is_none();
        silent.get_or_insert(last);
        drop(silent);
        if heard {
            self.changed();
        }
    }
}

/// The keeping of a feed. However it ends, by a panic of ours too, its rows are current no more.
struct Keeping(Arc<Feed>);

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.lost();
    }
}

/// All feeds of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    feeds: Arc<[Arc<Feed>]>,
}

impl Cache {
    /// Begins to list and watch every kind with our own rights; returns at once. The tasks end
    /// with `stop`.
    pub fn start(cluster: &Cluster, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let cache = Self { feeds: KINDS.iter().map(|kind| Arc::new(Feed::new(kind))).collect() };
        for feed in cache.feeds() {
            let (cluster, stop, keeping) = (cluster.clone(), stop.clone(), Keeping(feed.clone()));
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = reflector::run(&cluster, &keeping.0) => {}
                }
            });
        }
        cache
    }

    /// A cache that watches nothing: every read is live as the user.
    pub fn idle() -> Self {
        let cache = Self { feeds: KINDS.iter().map(|kind| Arc::new(Feed::new(kind))).collect() };
        for feed in cache.feeds() {
            feed.refused.store(true, Ordering::Release);
        }
        cache
    }

    /// Those that are kept by watching.
    pub fn feeds(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.feeds.iter().filter(|feed| feed.kind.is_kept())
    }

    pub fn feed(&self, kind: &'static KindDef) -> Option<&Arc<Feed>> {
        self.feeds.get(kind.index()).filter(|feed| feed.kind.is_kept())
    }

    /// How often roles and bindings have changed; `None` while one of the watches would not tell.
    pub fn changes_of_rights(&self) -> Option<u64> {
        let changes = RIGHTS.iter().map(|name| {
            let feed = self.feed(by_name(name)?)?;
            (feed.state() == State::Current).then(|| feed.changes())
        });
        changes.sum()
    }

    /// Whether every kind is either synced or refused.
    pub fn settled(&self) -> bool {
        self.feeds().all(|feed| feed.state() != State::Starting)
    }

    /// Names of all namespaces, if we watch them: for asking what a user may list in each, never
    /// to be shown.
    pub fn namespace_names(&self) -> Option<Vec<CompactString>> {
        let feed = self.feed(by_name("namespace")?)?;
        match feed.state() {
            State::Current | State::Stale(_) => Some(feed.store.names()),
            State::Starting | State::Refused => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current() -> Arc<Feed> {
        let feed = Arc::new(Feed::new(by_name("pod").unwrap()));
        feed.synced.store(true, Ordering::Release);
        feed.heard();
        assert_eq!(feed.state(), State::Current);
        feed
    }

    #[test]
    fn a_watch_that_died_silently_is_as_old_as_its_last_word() {
        let (feed, ago) = (current(), Duration::from_secs(90));
        let before = feed.changes();
        feed.lost_since(Instant::now().checked_sub(ago).unwrap());
        // Found out once more: it does not begin anew.
        feed.lost();
        assert!(matches!(feed.state(), State::Stale(age) if age >= ago), "{:?}", feed.state());
        assert_eq!(feed.changes(), before + 1);
    }

    #[tokio::test]
    async fn a_feed_that_nobody_keeps_any_more_is_not_current() {
        let feed = current();
        let keeping = Keeping(feed.clone());
        let task = tokio::spawn(async move {
            assert_eq!(keeping.0.state(), State::Refused, "a mistake of ours");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert!(matches!(feed.state(), State::Stale(_)), "{:?}", feed.state());
    }
}
