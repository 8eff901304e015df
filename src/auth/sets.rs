//! The namespaces in which a caller may list a kind, all together, for seconds: looking up two
//! thousand verdicts one by one takes 20 ms of a page.
//!
//! It asks nobody. A set is made of verdicts that are remembered one by one; whatever ends one of
//! them ends the set.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use compact_str::CompactString;
use moka::future::Cache;

use crate::upstream::Fingerprint;

/// A set is made of verdicts of at most 5 s, or of some that no change of a role has touched, so
/// that nothing in it is believed in for much longer than by itself.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(3);
/// Callers with kinds; a set of 500 namespaces has some 20 KiB.
const SETS: u64 = 2_000;

type Key = (Fingerprint, &'static str);

/// What a set was found among, and in which epoch its verdicts were asked for.
pub(super) type Among<'a> = (&'a [CompactString], Option<u64>);

#[derive(Clone)]
pub(super) struct Sets {
    known: Cache<Key, (u64, Arc<BTreeSet<CompactString>>)>,
    hasher: RandomState,
}

impl Default for Sets {
    fn default() -> Self {
        let known = Cache::builder().support_invalidation_closures().max_capacity(SETS);
        Self { known: known.time_to_live(KEPT_FOR).build(), hasher: RandomState::new() }
    }
}

impl Sets {
    /// The set that was found among these very candidates in this very epoch.
    pub async fn get(
        &self,
        who: Fingerprint,
        kind: &'static str,
        among: Among<'_>,
    ) -> Option<BTreeSet<CompactString>> {
        let (of, set) = self.known.get(&(who, kind)).await?;
        (of == self.hasher.hash_one(among)).then(|| (*set).clone())
    }

    pub async fn put(
        &self,
        who: Fingerprint,
        kind: &'static str,
        among: Among<'_>,
        set: &BTreeSet<CompactString>,
    ) {
        let of = self.hasher.hash_one(among);
        self.known.insert((who, kind), (of, Arc::new(set.clone()))).await;
    }

    /// A right of the caller's to this kind has ended.
    pub async fn end(&self, who: Fingerprint, kind: &'static str) {
        self.known.invalidate(&(who, kind)).await;
    }

    /// All rights of the caller have ended; whether that could be done.
    pub fn forget(&self, who: Fingerprint) -> bool {
        self.known.invalidate_entries_if(move |(caller, _), _| *caller == who).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::upstream::User;

    #[tokio::test]
    async fn a_set_holds_for_its_caller_kind_candidates_and_epoch_until_one_right_ends() {
        let sets = Sets::default();
        let who = |token| User::bearer(token, &HeaderMap::new()).unwrap().fingerprint();
        let (one, other) = (who("a"), who("b"));
        let names: Vec<CompactString> = vec!["x".into(), "y".into()];
        let set = BTreeSet::from([names[0].clone()]);
        for (caller, kind) in [(one, "pod"), (one, "event"), (other, "pod")] {
            sets.put(caller, kind, (&names, Some(1)), &set).await;
        }
        assert_eq!(sets.get(one, "pod", (&names, Some(1))).await, Some(set));
        assert_eq!(sets.get(one, "pod", (&names[..1], Some(1))).await, None, "of other namespaces");
        assert_eq!(sets.get(one, "pod", (&names, Some(2))).await, None, "of another epoch");
        assert_eq!(sets.get(one, "node", (&names, Some(1))).await, None);
        sets.end(one, "pod").await;
        assert_eq!(sets.get(one, "pod", (&names, Some(1))).await, None);
        assert!(sets.get(one, "event", (&names, Some(1))).await.is_some());
        assert!(sets.forget(one));
        assert_eq!(sets.get(one, "event", (&names, Some(1))).await, None);
        assert!(sets.get(other, "pod", (&names, Some(1))).await.is_some());
    }
}
