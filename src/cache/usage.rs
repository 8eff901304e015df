//! What pods and nodes have used over the last quarter of an hour. One poller with our own rights
//! asks metrics.k8s.io for all of them; readers need a scope, as for rows.
//!
//! The points themselves, and what they cost in memory: `usage_table`. It judges nobody's rights
//! and shows nothing. The source knows no uids: a history belongs to a name, is shown only while
//! the source still measures it, and of one object only from its creation on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use ahash::RandomState;
use bytes::Bytes;
use dashmap::DashMap;
use http::StatusCode;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::reflector::jittered;
use super::usage_table::{Series, Table};
use crate::auth::Scope;
use crate::kinds::usage::{Measurements, NODE_USAGE, POD_USAGE};
use crate::kinds::{Resource, Row, Uid};
use crate::upstream::{Cluster, Failure, Identity, UpstreamError};

/// metrics-server measures every 15 s unless told otherwise: asking more often shows nothing new.
const POLL: Duration = Duration::from_secs(15);
/// Pods with a history, and as many nodes: more than Kubernetes is built for (150,000 pods).
const SERIES: usize = 200_000;
/// The metrics API has no pages, and a pod takes half to one KiB: enough for 150,000 pods. Of it no
/// more than one object is in memory.
const BODY: usize = 256 << 20;
/// First and longest wait before asking again after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// A source that has been silent for longer is down: its last figures are not what is used now.
const STALE: Duration = Duration::from_secs(60);
/// No poll takes as long as that: without a failure either, nobody polls any more.
const STOPPED: Duration = Duration::from_secs(120);
/// A poll of more objects is taken on a thread of its own: these cost some 20 ms.
const MANY: usize = 20_000;
/// Pods whose written usage is kept until the next poll: 1.5 KiB each, those that somebody looks at.
const WRITTEN: usize = 2_000;
/// Versions of the API in the order in which they are tried; both show the same fields.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// How usage can be had.
#[derive(Debug, Clone)]
pub enum Standing {
    /// Not from here: nothing was polled yet, or not for long, or we may not. As the user, live.
    Live,
    /// The history is as current as the source.
    Current,
    /// The cluster has no metrics.k8s.io.
    Absent,
    /// It does not answer, or not with what it should.
    Down(Failure),
}

/// For people: how the last poll went.
pub struct Report {
    pub connected: bool,
    /// Unix seconds of the last poll's end.
    pub checked: Option<i64>,
    pub failure: Option<Failure>,
}

/// The history of one cluster.
#[derive(Default)]
pub struct Usage {
    pods: RwLock<Table>,
    nodes: RwLock<Table>,
    health: Mutex<Health>,
    /// The first poll is under way.
    starting: watch::Sender<bool>,
    /// What was written of a pod since the last poll, and that poll's number: every page that shows
    /// it shows the same. By uid, so that a pod made anew under an old name shows nothing of the
    /// old one.
    written: DashMap<Uid, (u32, Bytes), RandomState>,
    /// Polls, by how they ended.
    pub answered: AtomicU64,
    pub failures: AtomicU64,
    pub malformed: AtomicU64,
}

#[derive(Default)]
struct Health {
    checked: Option<i64>,
    /// When the source last gave its figures.
    heard: Option<Instant>,
    failure: Option<Failure>,
}

impl Health {
    fn heard_within(&self, time: Duration) -> bool {
        self.heard.is_some_and(|at| at.elapsed() < time)
    }
}

impl Usage {
    /// Begins to poll with our own rights; returns at once. The task ends with `stop`.
    pub fn start(cluster: &Cluster, tasks: &TaskTracker, stop: &CancellationToken) -> Arc<Self> {
        let usage = Arc::new(Self { starting: watch::Sender::new(true), ..Self::default() });
        let (polled, cluster, stop) = (usage.clone(), cluster.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = polled.run(&cluster) => {}
            }
        });
        usage
    }

    /// A history that nobody fills: every read is live as the user.
    pub fn idle() -> Arc<Self> {
        Arc::default()
    }

    /// The usage of one object of the scope's kind; the namespace of a node is empty. `None` when
    /// the scope does not cover it or the source does not measure it (any more).
    pub fn get(&self, scope: &Scope, namespace: &str, name: &str) -> Option<Series> {
        if !scope.covers(namespace) {
            return None;
        }
        let table = read(self.table(scope)?);
        let mut sums = table.sums();
        sums.add_measured(table.get(namespace, name)?);
        Some(sums.series()).filter(|series| series.sources > 0)
    }

    /// The same of the very object that was created then (unix seconds), and of none that had its
    /// name before.
    pub fn of(
        &self,
        scope: &Scope,
        (namespace, name): (&str, &str),
        created: i64,
    ) -> Option<Series> {
        if !scope.covers(namespace) {
            return None;
        }
        let table = read(self.table(scope)?);
        let line = table.get(namespace, name)?;
        let mut sums = table.sums();
        sums.add_measured(line);
        sums.series().since(created, line.measured())
    }

    /// What `write` makes of a pod's usage since its creation, made once a poll.
    pub fn written(
        &self,
        scope: &Scope,
        pod: &Row,
        write: impl FnOnce(&Series) -> Vec<u8>,
    ) -> Option<Bytes> {
        if scope.kind().name != POD_USAGE.name || !scope.covers(&pod.namespace) {
            return None;
        }
        // Before the figures: those of a poll that comes meanwhile are written once more.
        let poll = read(&self.pods).polls();
        if let Some(known) = self.written.get(&pod.uid)
            && known.0 == poll
        {
            return Some(known.1.clone());
        }
        let place = (pod.namespace.as_str(), pod.name.as_str());
        let series = self.of(scope, place, pod.created)?;
        let bytes = Bytes::from(write(&series));
        if self.written.len() < WRITTEN {
            self.written.insert(pod.uid.clone(), (poll, bytes.clone()));
        }
        Some(bytes)
    }

    /// The sum over the named objects that the scope covers; namespace and name, each once. O(1)
    /// for each name, about 0.2 ms for a thousand; a namespace is looked up once for all its names
    /// that follow each other.
    pub fn sum<'a>(
        &self,
        scope: &Scope,
        names: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Series {
        let Some(table) = self.table(scope) else { return Series::default() };
        let table = read(table);
        let mut sums = table.sums();
        let mut here = None;
        for (namespace, name) in names {
            let space = match here {
                Some((known, space)) if known == namespace => space,
                _ if scope.covers(namespace) => table.space(namespace),
                _ => None,
            };
            here = Some((namespace, space));
            if let Some(line) = space.and_then(|space| table.line_in(space, name)) {
                sums.add(line);
            }
        }
        sums.series()
    }

    /// The sum over all objects of the last poll in the namespaces that both scopes cover: added up
    /// once a poll, so that it costs no more than there are namespaces.
    pub fn total(&self, scope: &Scope, within: &Scope) -> Series {
        let Some(table) = self.table(scope) else { return Series::default() };
        let table = read(table);
        let mut sums = table.sums();
        for (namespace, space) in table.spaces() {
            if scope.covers(namespace) && within.covers(namespace) {
                sums.add_space(space);
            }
        }
        sums.series()
    }

    /// Waits for the first poll, if it is under way, for so long; whether it is over.
    pub async fn begun(&self, patience: Duration) -> bool {
        if !*self.starting.borrow() {
            return true;
        }
        let mut starting = self.starting.subscribe();
        let over = starting.wait_for(|starting| !starting);
        tokio::time::timeout(patience, over).await.is_ok()
    }

    pub fn standing(&self) -> Standing {
        let health = self.health();
        let Some(failure) = &health.failure else {
            return if health.heard_within(STOPPED) { Standing::Current } else { Standing::Live };
        };
        match failure.code() {
            Some(StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => Standing::Live,
            Some(StatusCode::NOT_FOUND) => Standing::Absent,
            _ if health.heard_within(STALE) => Standing::Current,
            _ => Standing::Down(failure.clone()),
        }
    }

    pub fn report(&self) -> Report {
        let health = self.health();
        Report {
            connected: health.failure.is_none() && health.heard_within(STOPPED),
            checked: health.checked,
            failure: health.failure.clone(),
        }
    }

    /// Equal numbers, equal figures: whoever makes something of figures reads it before them.
    pub fn revision(&self) -> u64 {
        u64::from(read(&self.pods).polls()) << 32 | u64::from(read(&self.nodes).polls())
    }

    /// How many pods and nodes have a history.
    pub fn series(&self) -> usize {
        read(&self.pods).count() + read(&self.nodes).count()
    }

    /// A scope of any other kind opens nothing.
    fn table(&self, scope: &Scope) -> Option<&RwLock<Table>> {
        match scope.kind().name {
            name if name == POD_USAGE.name => Some(&self.pods),
            name if name == NODE_USAGE.name => Some(&self.nodes),
            _ => None,
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls for ever.
    async fn run(self: &Arc<Self>, cluster: &Cluster) {
        let (mut version, mut wait) = (None, BACK_OFF.0);
        loop {
            let begun = tokio::time::Instant::now();
            let answer = poll(cluster, &mut version).await;
            let now = jiff::Timestamp::now().as_second();
            match answer {
                Ok((nodes, pods)) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    self.taken(now, nodes, pods).await;
                    self.starting.send_replace(false);
                    wait = BACK_OFF.0;
                    tokio::time::sleep_until(begun + POLL).await;
                }
                Err(failure) => {
                    self.fail(now, failure);
                    self.starting.send_replace(false);
                    tokio::time::sleep(jittered(wait)).await;
                    wait = (wait * 2).min(BACK_OFF.1);
                }
            }
        }
    }

    /// Takes a poll; a long one where no request has to wait for the worker.
    async fn taken(self: &Arc<Self>, now: i64, nodes: Measurements, pods: Measurements) {
        if nodes.items.len() + pods.items.len() <= MANY {
            self.take(now, nodes, pods);
        } else {
            let usage = self.clone();
            let _ = spawn_blocking(move || usage.take(now, nodes, pods)).await;
        }
    }

    fn take(&self, now: i64, nodes: Measurements, pods: Measurements) {
        for (kind, table, mut found) in
            [(NODE_USAGE.name, &self.nodes, nodes), (POD_USAGE.name, &self.pods, pods)]
        {
            if let Some(why) = &found.why {
                tracing::debug!(kind, left_out = found.malformed, why, "nonsense is left out");
            }
            self.malformed.fetch_add(found.malformed, Ordering::Relaxed);
            // Pages with usage wait while lines are changed: only that is done under the lock.
            let news = read(table).news(&found.items);
            let surplus = {
                let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
                table.apply(now, &mut found.items, news, SERIES)
            };
            read(table).add_up();
            if surplus > 0 {
                tracing::warn!(kind, surplus, "more than {SERIES} objects; these have no history");
            }
        }
        self.written.clear();
        let mut health = self.health();
        health.checked = Some(now);
        health.heard = Some(Instant::now());
        if health.failure.take().is_some() {
            tracing::info!("the metrics source answers again");
        }
    }

    fn fail(&self, now: i64, failure: Failure) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut health = self.health();
        health.checked = Some(now);
        if health.failure.is_none() {
            tracing::debug!(reason = %failure, "no usage from metrics.k8s.io");
        }
        health.failure = Some(failure);
    }
}

/// One poll: nodes and pods, of the version that answered last time or else of the first that does.
async fn poll(
    cluster: &Cluster,
    version: &mut Option<&'static str>,
) -> Result<(Measurements, Measurements), Failure> {
    let versions = version.map_or(VERSIONS.to_vec(), |known| vec![known]);
    let mut answer: Result<_, Failure> =
        Err(UpstreamError::Setup("metrics.k8s.io has no version".into()).into());
    for candidate in versions {
        answer = tokio::try_join!(
            list(cluster, NODE_USAGE.name, Resource { version: candidate, ..NODE_USAGE.resource }),
            list(cluster, POD_USAGE.name, Resource { version: candidate, ..POD_USAGE.resource }),
        );
        *version = answer.is_ok().then_some(candidate);
        let missing = |failure: &Failure| failure.code() == Some(StatusCode::NOT_FOUND);
        if !answer.as_ref().is_err_and(missing) {
            break;
        }
    }
    answer
}

async fn list(
    cluster: &Cluster,
    kind: &'static str,
    resource: Resource,
) -> Result<Measurements, Failure> {
    let path = resource.collection(None);
    let mut found = Measurements::default();
    let mut take = |item: &str| found.take(kind, item);
    let from = (path.as_str(), "application/json");
    // Whatever stands in for a list (a page of a proxy, say) has failed by then.
    cluster.items(Identity::Server, from, BODY, &mut take).await?;
    Ok(found)
}

fn read(table: &RwLock<Table>) -> RwLockReadGuard<'_, Table> {
    table.read().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
