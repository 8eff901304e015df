//! Whether a right that RBAC gives may have changed: a number that moves with every change of a
//! role or a binding that the cache hears of.
//!
//! It reads no role and gives no right; it only says for how long a verdict may be remembered.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The API server's own authorizer hears of a change when we do, more or less, and there may be
/// several of them: what is asked sooner after one may be an answer from before it.
const SETTLES: Duration = Duration::from_secs(5);

type Count = Box<dyn Fn() -> Option<u64> + Send + Sync>;

pub(super) struct Epoch {
    count: Count,
    seen: Mutex<Seen>,
    settles: Duration,
}

struct Seen {
    /// The last number, and since when.
    now: Option<u64>,
    since: Instant,
    /// The one before it that had settled.
    before: Option<u64>,
}

impl Epoch {
    /// `count` moves with each change, and is `None` while nobody would hear of one.
    pub fn of(count: Count) -> Self {
        let seen = Seen { now: None, since: Instant::now(), before: None };
        Self { count, seen: Mutex::new(seen), settles: SETTLES }
    }

    /// One in which every number has settled at once.
    #[cfg(test)]
    pub fn at_once(count: Count) -> Self {
        Self { settles: Duration::ZERO, ..Self::of(count) }
    }

    /// A number that stands as long as no right has changed; `None` when that cannot be said, or
    /// when one has changed a moment ago.
    pub fn settled(&self) -> Option<u64> {
        let now = (self.count)();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.now != now {
            let settled = seen.now.filter(|_| seen.since.elapsed() >= self.settles);
            let before = settled.or(seen.before);
            *seen = Seen { now, since: Instant::now(), before };
        }
        now.filter(|_| seen.since.elapsed() >= self.settles)
    }

    /// The last number that was given out before the one of now: what is remembered under it is of
    /// use no more, but where nobody could tell of changes for a while and none has come.
    pub fn outdated(&self) -> Option<u64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).before
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn an_epoch_stands_until_something_changes_and_is_none_while_that_is_young() {
        let changes = Arc::new(AtomicU64::new(7));
        let count = changes.clone();
        let mut epoch = Epoch::of(Box::new(move || Some(count.load(Ordering::Relaxed))));
        assert_eq!(epoch.settled(), None, "seen for the first time");
        epoch.settles = Duration::ZERO;
        assert_eq!(epoch.settled(), Some(7));
        changes.store(8, Ordering::Relaxed);
        epoch.settles = SETTLES;
        assert_eq!(epoch.settled(), None);
        epoch.settles = Duration::ZERO;
        assert_eq!(epoch.settled(), Some(8));
    }

    #[test]
    fn a_number_that_never_settled_takes_no_place_of_one_that_did() {
        let changes = Arc::new(AtomicU64::new(1));
        let count = changes.clone();
        let mut epoch = Epoch::at_once(Box::new(move || Some(count.load(Ordering::Relaxed))));
        assert_eq!((epoch.settled(), epoch.outdated()), (Some(1), None));
        changes.store(2, Ordering::Relaxed);
        // Seen, and settled at once: it would be outdated next.
        assert_eq!((epoch.settled(), epoch.outdated()), (Some(2), Some(1)));
        epoch.settles = SETTLES;
        changes.store(3, Ordering::Relaxed);
        assert_eq!((epoch.settled(), epoch.outdated()), (None, Some(1)), "two was not old enough");
        epoch.settles = Duration::ZERO;
        assert_eq!((epoch.settled(), epoch.outdated()), (Some(3), Some(1)));
    }

    #[test]
    fn there_is_no_epoch_while_nobody_would_hear_of_a_change() {
        let mut epoch = Epoch::of(Box::new(|| None));
        epoch.settles = Duration::ZERO;
        assert_eq!(epoch.settled(), None);
    }
}
