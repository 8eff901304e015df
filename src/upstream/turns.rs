//! Turns of callers: how many things of one kind each has under way at once.
//!
//! It knows callers by their fingerprint, or by whatever else names them, and judges nobody.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use super::{Fingerprint, User};

/// So many at once of each caller.
pub struct Turns<K = Fingerprint> {
    most: usize,
    each: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K: Eq + Hash> Turns<K> {
    pub fn new(most: usize) -> Self {
        Self { most, each: Mutex::default() }
    }

    /// Those of who is called so; forgotten when nobody holds them.
    pub fn at(&self, who: K) -> Arc<Semaphore> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        each.retain(|_, own| own.strong_count() > 0);
        let own = each.entry(who).or_default();
        own.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(self.most));
            *own = Arc::downgrade(&new);
            new
        })
    }
}

impl Turns {
    /// This caller's.
    pub fn of(&self, user: &User) -> Arc<Semaphore> {
        self.at(user.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(token: &str) -> User {
        User::bearer(token, &http::HeaderMap::new()).unwrap()
    }

    #[tokio::test]
    async fn one_callers_turns_are_his_own_and_forgotten_when_nobody_holds_them() {
        let turns = Turns::new(1);
        let own = turns.of(&user("a"));
        let taken = turns.of(&user("a")).acquire_owned().await.unwrap();
        assert_eq!(own.available_permits(), 0);
        assert_eq!(turns.of(&user("b")).available_permits(), 1);
        drop((own, taken));
        assert_eq!(turns.of(&user("a")).available_permits(), 1);
        assert_eq!(turns.each.lock().unwrap().len(), 1, "b is forgotten");
    }
}
