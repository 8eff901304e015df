//! When repositories are refreshed: in the background, a few at a time, each after its interval and
//! less often while it fails, and at once where somebody asks for it.
//!
//! What a refresh does is not known here. Replicas do not talk to each other; each asks the same
//! servers, and a mark on a repository's ConfigMap (`repositories`) asks all of them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::renew::{Ended, refresh, restore};
use super::repositories::Repositories;
use super::repository::{Repository, State};
use super::snapshot;
use crate::telemetry::Charts;

/// Refreshes at once: each may have a whole catalogue in memory besides the one that answers.
const DOWNLOADS: usize = 2;
/// One that takes longer does not count for that: it waits for its server more than it keeps in
/// memory, and slow servers do not stop the refreshes of others.
const LONG: Duration = Duration::from_secs(60);
/// Refreshes at once with those that take long.
const MOST: usize = 6;
/// First and longest wait after a failure, where the repository's interval is no shorter.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60 * 60));
/// Where nothing is due, something may still be asked for.
const NOTHING_DUE: Duration = Duration::from_secs(60 * 60);

/// What becomes of refreshes. Overtaken ones are done again at once.
const OUTCOMES: [(&str, Ended); 4] = [
    ("changed", Ended::Changed),
    ("unchanged", Ended::Unchanged),
    ("overtaken", Ended::Overtaken),
    ("failed", Ended::Badly),
];

/// Asks for refreshes; clones share the task that does them.
#[derive(Clone)]
pub struct Refresher(Arc<Inner>);

struct Inner {
    repositories: Repositories,
    /// Where snapshots are.
    snapshots: PathBuf,
    /// Names of repositories that somebody wants refreshed at once.
    wanted: Mutex<HashSet<String>>,
    wake: Notify,
    counts: Counts,
}

/// Refreshes so far.
#[derive(Default)]
struct Counts {
    /// In the order of `OUTCOMES`.
    ended: [AtomicU64; OUTCOMES.len()],
    /// Of all and of the last one, in milliseconds.
    millis: AtomicU64,
    last: AtomicU64,
}

/// When a repository is refreshed.
struct Plan {
    repository: Arc<Repository>,
    due: Instant,
    /// Somebody waits for it.
    asked: bool,
    /// In a row.
    failures: u32,
    running: Option<Running>,
}

/// A refresh under way.
struct Running {
    task: AbortHandle,
    begun: Instant,
}

/// Begins to refresh all repositories; returns at once. Snapshots below the directory answer until
/// the first refresh. The task ends with `stop`, and what it was reading with it.
pub fn start(
    repositories: &Repositories,
    snapshots: &Path,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Refresher {
    let refresher = Refresher(Arc::new(Inner {
        repositories: repositories.clone(),
        snapshots: snapshots.to_owned(),
        wanted: Mutex::default(),
        wake: Notify::new(),
        counts: Counts::default(),
    }));
    let (running, stop) = (refresher.clone(), stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = running.run() => {}
        }
    });
    refresher
}

impl Refresher {
    /// Refreshes this repository as soon as there is a place; if it is being refreshed, once more
    /// behind that.
    pub fn refresh_now(&self, name: &str) {
        self.wanted().insert(name.to_owned());
        self.0.wake.notify_one();
    }

    /// What of all repositories together is counted and kept now.
    pub fn totals(&self) -> Charts {
        let Inner { repositories, counts, .. } = &*self.0;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let ended = OUTCOMES.iter().zip(&counts.ended);
        let refreshes = ended.map(|((outcome, _), count)| (*outcome, read(count))).collect();
        let mut totals = Charts {
            refreshes,
            refreshing: Duration::from_millis(read(&counts.millis)),
            last_refresh: Duration::from_millis(read(&counts.last)),
            repositories: vec![("never", 0), ("ok", 0), ("refreshing", 0), ("failing", 0)],
            ..Charts::default()
        };
        for repository in repositories.all() {
            let loaded = repository.loaded.load();
            let status = &loaded.status;
            // In the order of what is above.
            let state = match status.state {
                State::Never => 0,
                State::Ok => 1,
                State::Refreshing => 2,
                State::Failing => 3,
            };
            if let Some((_, count)) = totals.repositories.get_mut(state) {
                *count += 1;
            }
            totals.charts += status.charts;
            totals.versions += status.versions;
            totals.skipped += status.skipped;
            totals.bytes += loaded.text;
        }
        totals
    }

    fn wanted(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self) {
        let mut changed = self.0.repositories.changed();
        let mut plans = HashMap::new();
        let mut running = JoinSet::new();
        let mut swept = false;
        loop {
            self.meet(&mut plans, &mut swept).await;
            let wanted = std::mem::take(&mut *self.wanted());
            for name in wanted {
                if let Some(plan) = plans.get_mut(&name) {
                    plan.asked = true;
                }
            }
            let next = self.begin(&mut plans, &mut running);
            tokio::select! {
                () = self.0.wake.notified() => {}
                // The sender lives as long as we do.
                _ = changed.changed() => {}
                Some(ended) = running.join_next_with_id() => settle(&mut plans, ended),
                () = sleep_until(next) => {}
            }
        }
    }

    /// Takes over what there is now: new repositories begin with their snapshot and are due, and
    /// what is read of those that are gone is not read on. `swept`: whether snapshots of those that
    /// went, before we came as well, have been removed; that waits until we know that they went.
    async fn meet(&self, plans: &mut HashMap<String, Plan>, swept: &mut bool) {
        let (all, is_seen) = self.0.repositories.seen();
        // What is let go of; it may be the last that holds a large catalogue.
        let mut old = Vec::new();
        let is_gone = |name: &String, plan: &mut Plan| {
            // Until its refresh has ended, so that this is not the last that holds it.
            !all.iter().any(|one| one.name() == name) && !plan.abort()
        };
        old.extend(plans.extract_if(is_gone).map(|(_, plan)| plan.repository));
        *swept &= old.is_empty();
        let mut fresh = Vec::new();
        for repository in &all {
            match plans.get_mut(repository.name()) {
                Some(plan) if Arc::ptr_eq(&plan.repository, repository) => continue,
                Some(plan) => {
                    let elsewhere = plan.repository.key() != repository.key();
                    if elsewhere && plan.abort() {
                        continue;
                    }
                    *swept &= !elsewhere;
                    old.push(std::mem::replace(&mut plan.repository, repository.clone()));
                    // Defined anew or marked. Behind the refresh that may be running, which is that
                    // of what it was.
                    (plan.asked, plan.failures) = (true, 0);
                }
                None => {
                    let plan = Plan {
                        repository: repository.clone(),
                        due: Instant::now(),
                        asked: false,
                        failures: 0,
                        running: None,
                    };
                    plans.insert(repository.name().to_owned(), plan);
                }
            }
            fresh.push(repository.clone());
        }
        let sweeps = is_seen && !*swept;
        *swept |= is_seen;
        if fresh.is_empty() && old.is_empty() && !sweeps {
            return;
        }
        let (repositories, snapshots) = (self.0.repositories.clone(), self.0.snapshots.clone());
        let done = spawn_blocking(move || {
            drop(old);
            if sweeps {
                let kept: HashSet<String> = all.iter().map(|one| one.key()).collect();
                snapshot::retain(&snapshots, |key| kept.contains(key));
            }
            for repository in &fresh {
                restore(&repositories, repository, &snapshots);
            }
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "snapshots of charts were not loaded");
        }
    }

    /// Begins what is due where there is a place: what somebody waits for, then what has waited
    /// longest. Returns when something else is due.
    fn begin(&self, plans: &mut HashMap<String, Plan>, running: &mut JoinSet<Ended>) -> Instant {
        let now = Instant::now();
        loop {
            let free = free(plans, now);
            let idle = plans.values_mut().filter(|plan| plan.running.is_none());
            let Some(plan) = idle.min_by_key(|plan| (!plan.asked, plan.due)) else {
                return now + NOTHING_DUE;
            };
            if !plan.asked && plan.due > now {
                return plan.due;
            }
            if free > now {
                return free;
            }
            plan.asked = false;
            let (inner, repository) = (self.0.clone(), plan.repository.clone());
            let task = running.spawn(async move {
                let ended = refresh(&inner.repositories, &repository, &inner.snapshots).await;
                inner.counts.add(ended, now.elapsed());
                ended
            });
            plan.running = Some(Running { task, begun: now });
        }
    }
}

impl Counts {
    fn add(&self, ended: Ended, took: Duration) {
        let place = OUTCOMES.iter().position(|(_, known)| *known == ended);
        if let Some(count) = place.and_then(|place| self.ended.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_add(millis, Ordering::Relaxed);
        self.last.store(millis, Ordering::Relaxed);
    }
}

impl Plan {
    /// Ends the refresh that is running. Whether there is one.
    fn abort(&self) -> bool {
        self.running.as_ref().inspect(|running| running.task.abort()).is_some()
    }
}

/// When there is a place for one more, if no refresh ends before: now, or when one takes long.
fn free(plans: &HashMap<String, Plan>, now: Instant) -> Instant {
    let running = plans.values().filter_map(|plan| plan.running.as_ref());
    let begun: Vec<Instant> = running.map(|running| running.begun).collect();
    let young = begun.iter().filter(|begun| now.duration_since(**begun) < LONG);
    match (begun.len(), young.clone().count()) {
        (MOST.., _) => now + NOTHING_DUE,
        (_, DOWNLOADS..) => young.min().map_or(now, |begun| *begun + LONG),
        _ => now,
    }
}

/// Plans what comes behind a refresh.
fn settle(plans: &mut HashMap<String, Plan>, ended: Result<(Id, Ended), JoinError>) {
    let (id, ended) = match ended {
        Ok(ended) => ended,
        Err(error) => (error.id(), Ended::Badly),
    };
    let is_its = |running: &Running| running.task.id() == id;
    let its = plans.values_mut().find(|plan| plan.running.as_ref().is_some_and(is_its));
    let Some(plan) = its else { return };
    plan.running = None;
    let interval = plan.repository.definition.interval();
    let wait = match ended {
        Ended::Changed | Ended::Unchanged => {
            plan.failures = 0;
            interval
        }
        Ended::Overtaken => Duration::ZERO,
        Ended::Badly => {
            plan.failures = plan.failures.saturating_add(1);
            back_off(plan.failures, interval)
        }
    };
    plan.due = Instant::now() + jittered(wait);
}

/// Doubles with every failure. Never longer than the interval: replicas agree after one, whichever
/// of them a server has failed.
fn back_off(failures: u32, interval: Duration) -> Duration {
    let (first, longest) = BACK_OFF;
    let wait = first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    wait.min(longest).min(interval)
}

/// Up to a fifth less, so that replicas and repositories do not come as one, and never late.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0u8; 1];
    let _ = aws_lc_rs::rand::fill(&mut byte);
    wait.mul_f64(1.0 - f64::from(byte[0]) * 0.2 / 255.0)
}

#[cfg(test)]
#[path = "refresh_tests.rs"]
mod tests;
