//! Who may fetch something now: so many at once, and so many of each. Who turns out to be slow
//! shares a few places with his like, so that any number of those leave the others to who answers.
//! And one flight for all who want the same.
//!
//! What is fetched, and how long that may take, is not known here.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, WeakShared};
use moka::future::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::upstream::Turns;

/// How long it is remembered who was slow: 200 repositories, as many as there can be, that all hang
/// anew whenever this is over keep two quick places of archives for 4 s each: half of the time.
const SLOW_AGE: Duration = Duration::from_secs(10 * 60);
/// So many are remembered: repositories, or callers.
const SLOW_ONES: u64 = 2_000;

/// None where the semaphore is closed, which none is.
pub(super) type Permit = Option<OwnedSemaphorePermit>;

/// How many may fetch at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Of those who were not slow lately.
    pub(super) quick: usize,
    /// Of those who were.
    pub(super) slow: usize,
    /// Of each, in either.
    pub(super) each: usize,
    /// Who takes longer is slow.
    pub(super) soon: Duration,
}

/// There was no place in time; or who was slow had to give his to somebody who waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much is being fetched just now, and some of it is slow: try again soon")]
pub struct Busy;

/// Leave to fetch, and to have in memory what was fetched; given back when dropped.
#[must_use]
pub struct FetchPlace {
    _own: Permit,
    _common: Permit,
    is_quick: bool,
}

/// Places of all, and of each by its scope.
pub(super) struct Places {
    rule: Rule,
    pub(super) quick: Arc<Semaphore>,
    pub(super) slow: Arc<Semaphore>,
    own: Turns<String>,
    /// Who was slow lately.
    slow_ones: Cache<String, ()>,
    /// So many wait for a quick place, and so many go for them and are not gone yet.
    waiting: watch::Sender<(usize, usize)>,
}

/// Counts as one who waits, until it is dropped.
struct Waits<'a>(&'a watch::Sender<(usize, usize)>);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|(waiting, going)| {
            *waiting -= 1;
            *going = going.saturating_sub(1);
        });
    }
}

impl Places {
    pub(super) fn new(rule: Rule) -> Self {
        let slow_ones = Cache::builder().max_capacity(SLOW_ONES).time_to_live(SLOW_AGE).build();
        Self {
            rule,
            quick: Arc::new(Semaphore::new(rule.quick)),
            slow: Arc::new(Semaphore::new(rule.slow)),
            own: Turns::new(rule.each),
            slow_ones,
            waiting: watch::Sender::default(),
        }
    }

    /// A place within this time. The own one comes first: who waits for it takes none from others.
    pub(super) async fn place(&self, scope: &str, wait: Duration) -> Result<FetchPlace, Busy> {
        let taken = async {
            let own = self.own.at(scope.to_owned()).acquire_owned().await.ok();
            let quick = if self.is_slow(scope) { None } else { self.quick_one().await };
            // Another one of the same may have turned out to be slow meanwhile.
            let is_quick = quick.is_some() && !self.is_slow(scope);
            let common = if is_quick {
                quick
            } else {
                drop(quick);
                self.slow.clone().acquire_owned().await.ok()
            };
            FetchPlace { _own: own, _common: common, is_quick }
        };
        timeout(wait, taken).await.map_err(|_| Busy)
    }

    /// What comes of `work`, which has this place. If it turns out to be slow it goes on in one of
    /// the places for that; where none is free, in its own as long as nobody waits for that.
    pub(super) async fn run<T>(
        &self,
        scope: &str,
        place: &mut FetchPlace,
        work: impl Future<Output = T>,
    ) -> Result<T, Busy> {
        let mut work = pin!(work);
        if !place.is_quick {
            return Ok(work.await);
        }
        if let Ok(done) = timeout(self.rule.soon, work.as_mut()).await {
            return Ok(done);
        }
        self.slow_ones.insert(scope.to_owned(), ()).await;
        tokio::select! {
            biased;
            done = work.as_mut() => return Ok(done),
            slow = self.slow.clone().acquire_owned() => place._common = slow.ok(),
            () = self.somebody_waits() => return Err(Busy),
        }
        place.is_quick = false;
        Ok(work.await)
    }

    async fn quick_one(&self) -> Permit {
        if let Ok(free) = self.quick.clone().try_acquire_owned() {
            return Some(free);
        }
        self.waiting.send_modify(|(waiting, _)| *waiting += 1);
        let _waits = Waits(&self.waiting);
        self.quick.clone().acquire_owned().await.ok()
    }

    async fn somebody_waits(&self) {
        let mut waiting = self.waiting.subscribe();
        loop {
            // It fails when there is nobody to tell of it any more: we are.
            drop(waiting.wait_for(|(waiting, going)| waiting > going).await);
            let goes = self.waiting.send_if_modified(|(waiting, going)| {
                let goes = *waiting > *going;
                *going += usize::from(goes);
                goes
            });
            if goes {
                return;
            }
        }
    }

    fn is_slow(&self, scope: &str) -> bool {
        self.slow_ones.contains_key(scope)
    }
}

/// What is fetched just now, by name, as long as somebody waits for it.
pub(super) struct Flights<T>(Mutex<HashMap<String, WeakShared<BoxFuture<'static, T>>>>);

impl<T: Clone> Flights<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) async fn join(
        &self,
        name: String,
        begin: impl FnOnce() -> BoxFuture<'static, T> + Send,
    ) -> T {
        let flight = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, flight| flight.upgrade().is_some());
            if let Some(flight) = all.get(&name).and_then(WeakShared::upgrade) {
                flight
            } else {
                let flight = begin().shared();
                all.extend(flight.downgrade().map(|weak| (name, weak)));
                flight
            }
        };
        flight.await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const RULE: Rule = Rule { quick: 8, slow: 2, each: 2, soon: LONG };

    /// One fetch, as the store does it.
    async fn fetch<T>(
        places: &Places,
        scope: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, Busy> {
        let mut place = places.place(scope, LONG).await?;
        places.run(scope, &mut place, work).await
    }

    #[tokio::test]
    async fn one_repository_leaves_places_to_the_others() {
        let places = Places::new(RULE);
        let mut taken = Vec::new();
        for _ in 0..2 {
            taken.push(places.place("one", LONG).now_or_never().unwrap().unwrap());
        }
        assert!(places.place("one", LONG).now_or_never().is_none());
        taken.push(places.place("two", LONG).now_or_never().unwrap().unwrap());
        drop(taken.remove(0));
        assert!(places.place("one", LONG).now_or_never().is_some());
        drop(taken);
        for scope in ["one", "two"] {
            assert_eq!(places.own.at(scope.to_owned()).available_permits(), 2, "{scope}");
        }
    }

    #[tokio::test]
    async fn who_finds_no_place_in_time_is_told_so() {
        let places = Places::new(RULE);
        let all = places.quick.clone().acquire_many_owned(8).await.unwrap();
        assert_eq!(places.place("one", Duration::ZERO).await.err(), Some(Busy));
        assert_eq!(*places.waiting.borrow(), (0, 0), "nobody waits any more");
        drop(all);
        assert!(places.place("one", LONG).await.is_ok());
    }

    #[tokio::test]
    async fn any_number_that_hang_leave_the_quick_places_to_who_answers() {
        let rule = Rule { quick: 2, soon: Duration::from_millis(20), ..RULE };
        let places = Arc::new(Places::new(rule));
        let hanging: Vec<_> = (0..60)
            .map(|number| {
                let (places, scope) = (places.clone(), format!("hangs {}", number % 20));
                tokio::spawn(async move { fetch(&places, &scope, pending::<()>()).await })
            })
            .collect();
        let good = async {
            while places.quick.available_permits() > 0 {
                yield_now().await;
            }
            for _ in 0..5 {
                assert_eq!(fetch(&places, "answers", ready(7)).await, Ok(7));
            }
            while (0..20).any(|number| !places.is_slow(&format!("hangs {number}"))) {
                yield_now().await;
            }
            // Now all of them are known, and not one keeps a quick place.
            let mut all = Vec::new();
            for scope in ["answers", "another"] {
                all.push(places.place(scope, LONG).await.unwrap());
            }
            drop(all);
            assert_eq!(places.quick.available_permits(), 2);
        };
        timeout(LONG, good).await.unwrap();
        assert_eq!(places.slow.available_permits(), 0, "some of them hang on");
        hanging.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn who_is_slow_goes_on_as_long_as_nobody_waits_for_his_place() {
        let rule = Rule { quick: 1, slow: 0, soon: Duration::ZERO, ..RULE };
        let places = Arc::new(Places::new(rule));
        let slow = |scope: &'static str, work: oneshot::Receiver<u8>| {
            let places = places.clone();
            tokio::spawn(async move { fetch(&places, scope, work).await })
        };
        let (end, ended) = oneshot::channel();
        let first = slow("one", ended);
        while !places.is_slow("one") {
            yield_now().await;
        }
        end.send(1).unwrap();
        assert_eq!(first.await.unwrap(), Ok(Ok(1)));
        let (_end, ended) = oneshot::channel();
        let second = slow("two", ended);
        while !places.is_slow("two") {
            yield_now().await;
        }
        assert_eq!(fetch(&places, "three", ready(3)).await, Ok(3));
        assert_eq!(second.await.unwrap(), Err(Busy));
    }
}
