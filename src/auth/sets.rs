//! The namespaces in which a caller may list a kind, all together, for seconds: looking up two
//! thousand verdicts one by one takes 20 ms of a page.
//!
//! It asks nobody. A set is made of verdicts that are remembered one by one; whatever ends one of
//! them ends the set.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use ahash::RandomState;
use compact_str::CompactString;
use moka::future::Cache;

use super::ALLOWED_FOR;
use crate::upstream::Fingerprint;

/// Names in all sets, at some 40 bytes each: 2,000 sets of 500, one for each caller and kind.
const NAMES: u64 = 1_000_000;
/// What a set takes besides its names, counted in names.
const ITSELF: usize = 10;

type Key = (Fingerprint, &'static str);

/// What a set was found among, and in which epoch its verdicts were asked for.
pub(super) type Among<'a> = (&'a [CompactString], Option<u64>);

#[derive(Clone)]
struct Kept {
    of: u64,
    /// The end of its first verdict: nothing in it is believed in for longer than by itself.
    until: Instant,
    set: Arc<BTreeSet<CompactString>>,
}

#[derive(Clone)]
pub(super) struct Sets {
    known: Cache<Key, Kept>,
    hasher: RandomState,
}

impl Default for Sets {
    fn default() -> Self {
        let known = Cache::builder().support_invalidation_closures().max_capacity(NAMES);
        let known = known.weigher(|_: &Key, kept: &Kept| {
            u32::try_from(kept.set.len() + ITSELF).unwrap_or(u32::MAX)
        });
        // `until` ends most of them; none is put for longer than this.
        Self { known: known.time_to_live(ALLOWED_FOR).build(), hasher: RandomState::new() }
    }
}

impl Sets {
    /// The set that was found among these very candidates in this very epoch.
    pub async fn get(
        &self,
        who: Fingerprint,
        kind: &'static str,
        among: Among<'_>,
    ) -> Option<Arc<BTreeSet<CompactString>>> {
        let Kept { of, until, set } = self.known.get(&(who, kind)).await?;
        let stands = Instant::now() < until && of == self.hasher.hash_one(among);
        stands.then_some(set)
    }

    pub async fn put(
        &self,
        who: Fingerprint,
        kind: &'static str,
        among: Among<'_>,
        (set, until): (Arc<BTreeSet<CompactString>>, Instant),
    ) {
        let of = self.hasher.hash_one(among);
        self.known.insert((who, kind), Kept { of, until, set }).await;
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
    use std::time::Duration;

    use http::HeaderMap;

    use super::*;
    use crate::upstream::User;

    #[tokio::test]
    async fn a_set_holds_for_its_caller_kind_candidates_and_epoch_until_one_right_ends() {
        let sets = Sets::default();
        let who = |token| User::bearer(token, &HeaderMap::new()).unwrap().fingerprint();
        let (one, other) = (who("a"), who("b"));
        let names: Vec<CompactString> = vec!["x".into(), "y".into()];
        let set = Arc::new(BTreeSet::from([names[0].clone()]));
        let later = Instant::now() + Duration::from_secs(9);
        for (caller, kind) in [(one, "pod"), (one, "event"), (other, "pod")] {
            sets.put(caller, kind, (&names, Some(1)), (set.clone(), later)).await;
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

    #[tokio::test]
    async fn a_set_ends_with_the_first_of_its_verdicts() {
        let sets = Sets::default();
        let who = User::bearer("a", &HeaderMap::new()).unwrap().fingerprint();
        let names: Vec<CompactString> = vec!["x".into()];
        let set: Arc<BTreeSet<_>> = Arc::new(names.iter().cloned().collect());
        let now = Instant::now();
        for (until, stands) in [(now + Duration::from_secs(9), true), (now, false)] {
            sets.put(who, "pod", (&names, None), (set.clone(), until)).await;
            assert_eq!(sets.get(who, "pod", (&names, None)).await.is_some(), stands);
        }
    }
}
