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
    /// The last number, and since when.
    seen: Mutex<(Option<u64>, Instant)>,
    settles: Duration,
}

impl Epoch {
    /// `count` moves with each change, and is `None` while nobody would hear of one.
    pub fn of(count: Count) -> Self {
        Self { count, seen: Mutex::new((None, Instant::now())), settles: SETTLES }
    }

    /// A number that stands as long as no right has changed; `None` when that cannot be said, or
    /// when one has changed a moment ago.
    pub fn settled(&self) -> Option<u64> {
        let now = (self.count)();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != now {
            *seen = (now, Instant::now());
        }
        now.filter(|_| seen.1.elapsed() >= self.settles)
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
    fn there_is_no_epoch_while_nobody_would_hear_of_a_change() {
        let mut epoch = Epoch::of(Box::new(|| None));
        epoch.settles = Duration::ZERO;
        assert_eq!(epoch.settled(), None);
    }
}
