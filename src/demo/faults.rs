//! What tests break in the demo API, and what they count: failures, delays, cut watches, an API
//! server that is down, forgotten history, malformed objects, requests seen.
//!
//! Nothing here happens unless a test asks for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::kinds;
use super::store::Store;

/// Distinct requests counted one by one; what goes beyond is counted together.
const COUNTED: usize = 20_000;

struct Failure {
    prefix: String,
    code: u16,
    left: u32,
}

#[derive(Default)]
struct State {
    failures: Vec<Failure>,
    delays: Vec<(String, Duration)>,
    /// Requests by Kubernetes verb and path.
    seen: HashMap<(&'static str, String), u64>,
}

/// The switches. All take effect at once and may be used from any thread.
pub struct Faults {
    state: Mutex<State>,
    down: watch::Sender<bool>,
    dropped: watch::Sender<u64>,
    store: Arc<Store>,
}

impl Faults {
    pub(super) fn new(store: Arc<Store>) -> Faults {
        let (down, dropped) = (watch::Sender::new(false), watch::Sender::new(0));
        Faults { state: Mutex::default(), down, dropped, store }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the next `times` requests whose path begins with `prefix` with this HTTP status;
    /// 429 and 503 carry `Retry-After: 1`.
    pub fn respond(&self, prefix: &str, code: u16, times: u32) {
        self.state().failures.push(Failure { prefix: prefix.to_owned(), code, left: times });
    }

    /// Holds every request whose path begins with `prefix` back for `by`; zero lifts it.
    pub fn delay(&self, prefix: &str, by: Duration) {
        let mut state = self.state();
        state.delays.retain(|delay| delay.0 != prefix);
        if !by.is_zero() {
            state.delays.push((prefix.to_owned(), by));
        }
    }

    /// Ends all watches that run now, cleanly, as the API server does from time to time.
    pub fn drop_watches(&self) {
        self.dropped.send_modify(|count| *count += 1);
    }

    /// Cuts all connections and every new one, until lifted: the API server is down.
    pub fn set_down(&self, down: bool) {
        self.down.send_replace(down);
    }

    /// Forgets the changes so far: a watch from an older version gets 410.
    pub fn expire_history(&self) {
        self.store.expire();
    }

    /// Puts an object whose `metadata.name` is a number into the lists and watches of a
    /// resource (`pods`). False when the demo has no such resource.
    pub fn insert_malformed(&self, plural: &str) -> bool {
        let Some(kind) = kinds::stored(plural) else { return false };
        let namespace = if kind.namespaced { "default" } else { "" };
        let key = (namespace.to_owned(), "malformed".to_owned());
        self.store.insert_raw(kind, key, Arc::new([]), Vec::new(), |version| {
            format!(
                "{{\"metadata\":{{\"name\":42,\"namespace\":\"{namespace}\",\"uid\":\"malformed\",\
                 \"resourceVersion\":\"{version}\"}}}}"
            )
        });
        true
    }

    /// How many requests came whose path begins with `prefix`.
    pub fn requests(&self, prefix: &str) -> u64 {
        let state = self.state();
        let seen = state.seen.iter();
        seen.filter(|((_, path), _)| path.starts_with(prefix)).map(|(_, count)| count).sum()
    }

    /// The same for one Kubernetes verb: get, list, watch, create, update, patch, delete,
    /// deletecollection.
    pub fn requests_of(&self, verb: &str, prefix: &str) -> u64 {
        let state = self.state();
        let seen = state.seen.iter();
        seen.filter(|((of, path), _)| *of == verb && path.starts_with(prefix))
            .map(|(_, count)| count)
            .sum()
    }

    pub(super) fn record(&self, verb: &'static str, path: &str) {
        let mut state = self.state();
        let seen = &mut state.seen;
        let mut key = (verb, path.to_owned());
        if seen.len() >= COUNTED && !seen.contains_key(&key) {
            key.1 = "/more".to_owned();
        }
        *seen.entry(key).or_default() += 1;
    }

    /// The failure this request is to meet, if any; takes it from its count.
    pub(super) fn failure(&self, path: &str) -> Option<u16> {
        let mut state = self.state();
        let failure = state
            .failures
            .iter_mut()
            .find(|failure| failure.left > 0 && path.starts_with(&failure.prefix))?;
        failure.left -= 1;
        let code = failure.code;
        state.failures.retain(|failure| failure.left > 0);
        Some(code)
    }

    /// How long this request is to wait.
    pub(super) fn wait(&self, path: &str) -> Option<Duration> {
        let state = self.state();
        state.delays.iter().find(|delay| path.starts_with(&delay.0)).map(|delay| delay.1)
    }

    pub(super) fn is_down(&self) -> bool {
        *self.down.borrow()
    }

    /// Returns once the API server is to be down.
    pub(super) async fn until_down(&self) {
        let mut down = self.down.subscribe();
        // An error means that the switches are gone, and with them the server.
        let _ = down.wait_for(|down| *down).await;
    }

    /// Changes when all watches are to end.
    pub(super) fn dropped(&self) -> watch::Receiver<u64> {
        self.dropped.subscribe()
    }
}
