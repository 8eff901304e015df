//! Who may fetch something now: so many for all repositories and so many for each, so that one that
//! is slow leaves places to the others; and one for all who want the same.
//!
//! What is fetched, and how long that may take, is not known here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::FutureExt as _;
use futures::future::{BoxFuture, WeakShared};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// None where the semaphore is closed, which none is.
pub(super) type Place = Option<OwnedSemaphorePermit>;

/// Places of all repositories, and of each by its scope.
pub(super) struct Places {
    pub(super) all: Arc<Semaphore>,
    most_each: usize,
    each: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Places {
    pub(super) fn new(most: usize, most_each: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(most)), most_each, each: Mutex::default() }
    }

    /// The repository's own place comes first: who waits for it takes none from others.
    pub(super) async fn place(&self, scope: &str) -> (Place, Place) {
        let own = self.of(scope).acquire_owned().await.ok();
        (own, self.all.clone().acquire_owned().await.ok())
    }

    fn of(&self, scope: &str) -> Arc<Semaphore> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        each.retain(|_, known| known.strong_count() > 0);
        if let Some(known) = each.get(scope).and_then(Weak::upgrade) {
            return known;
        }
        let new = Arc::new(Semaphore::new(self.most_each));
        each.insert(scope.to_owned(), Arc::downgrade(&new));
        new
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
    use super::*;

    #[tokio::test]
    async fn one_repository_leaves_places_to_the_others() {
        let places = Places::new(8, 2);
        let mut taken = Vec::new();
        for _ in 0..2 {
            taken.push(places.place("one").now_or_never().unwrap());
        }
        assert!(places.place("one").now_or_never().is_none());
        taken.push(places.place("two").now_or_never().unwrap());
        drop(taken.remove(0));
        assert!(places.place("one").now_or_never().is_some());
        drop(taken);
        drop(places.place("three").now_or_never());
        assert_eq!(places.each.lock().unwrap().len(), 1);
    }
}
