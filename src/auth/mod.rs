//! May this user list that, and where? The API server is asked as the user; its verdicts are
//! remembered for seconds.
//!
//! It holds no tokens (only their keyed hash), knows no roles, and never uses our own rights.

mod epoch;
mod permitted;
mod review;
mod rules;
mod scope;
mod sets;

pub use review::Attributes;
pub use scope::{Reach, Scope};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use compact_str::CompactString;
use http::StatusCode;
use moka::future::Cache;
use moka::policy::EvictionPolicy;

use self::epoch::Epoch;
use self::sets::Sets;
use crate::kinds::KindDef;
use crate::upstream::{Cluster, Failure, Fingerprint, User};

/// How long a right is believed in without asking again: a revoked right may be used for so long.
pub(crate) const ALLOWED_FOR: Duration = Duration::from_secs(10);
/// A new right must show soon, yet a client that retries must not become a flood of reviews.
const DENIED_FOR: Duration = Duration::from_secs(5);
/// The same of a rules review while no role and no binding has changed, as far as our watches tell:
/// a caller of a thousand namespaces would otherwise cost a thousand reviews every five seconds. It
/// has an end because a dead watch tells nothing (for up to 90 s), and groups may come from outside.
const UNCHANGED_FOR: Duration = Duration::from_secs(30);
/// Answers to single questions kept: 2,000 users with 30 kinds; each takes about 450 bytes.
const VERDICTS: u64 = 60_000;
/// Denials in words kept: what 1,000 callers are told of 20 kinds; each takes about 900 bytes.
const WORDS: u64 = 20_000;
/// Rules reviews kept, and rights that were confirmed: 60 callers at once in a cluster of 5,000
/// namespaces, and 50 of them with rights to 20 kinds in 300. Who finds no room asks about each
/// namespace anew with every list, thousands of reviews. A review takes some 590 bytes, a right
/// 400, most of it the store's own lists and table: 180 and 120 MB at most, for seconds.
const BY_NAMESPACE: u64 = 300_000;

/// One question: may this caller list this kind here (`None`: in all namespaces)?
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    who: Fingerprint,
    kind: &'static str,
    namespace: Option<CompactString>,
}

/// What one rules review tells of: a caller, a namespace, and the epoch in which it was asked for.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Ruled {
    who: Fingerprint,
    namespace: CompactString,
    epoch: Option<u64>,
}

/// Why there is no scope.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The API server says no (403), in its own words.
    Denied(Arc<Failure>),
    /// It could not be asked, or answered with something that is neither yes nor no.
    Unknown(Arc<Failure>),
}

/// A namespace that exists, as one caller sees it.
pub struct Visible {
    pub name: CompactString,
    /// Something may be listed there that may not be listed everywhere.
    pub is_own: bool,
    /// The namespace itself may be read.
    pub may_get: bool,
}

#[derive(Clone)]
pub struct Authorizer {
    /// Whether the caller may.
    fresh: Cache<Question, bool>,
    /// The API server's own words where it may not, for whoever has to be told.
    words: Cache<Question, Arc<Failure>>,
    /// When a right was last confirmed: bridges an API server that is away, never a denial.
    confirmed: Cache<Question, Instant>,
    rules: Cache<Ruled, Arc<rules::Listable>>,
    sets: Sets,
    epoch: Arc<Epoch>,
    /// How often callers were denied something; each counts at one of these places.
    denials: Arc<[AtomicU64; 64]>,
    /// Callers of whom `fresh`, `words`, `confirmed`, `rules` or `sets` may know something.
    known: Cache<Fingerprint, ()>,
    pub counts: Arc<Counts>,
}

/// Verdicts that had to be asked for, since start.
#[derive(Default)]
pub struct Counts {
    pub allowed: AtomicU64,
    pub denied: AtomicU64,
    pub failed: AtomicU64,
}

impl Authorizer {
    /// `away`: how long a confirmed right outlives its freshness while nobody can be asked.
    /// `changes` counts what roles and bindings have changed, `None` while nobody would hear of it.
    pub fn new(away: Duration, changes: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        // Closures are how `forget` finds everything of one caller.
        let fresh = Cache::builder().support_invalidation_closures().max_capacity(VERDICTS);
        let words = Cache::builder().support_invalidation_closures().max_capacity(WORDS);
        let rules = Cache::builder().support_invalidation_closures().max_capacity(BY_NAMESPACE);
        let fresh = fresh.expire_after(review::Expiry).build();
        let words = words.time_to_live(DENIED_FOR).build();
        let rules = rules.expire_after(review::Expiry).build();
        let confirmed = confirmed(BY_NAMESPACE, away);
        // As long as anything of a caller is remembered.
        let longest = ALLOWED_FOR + away + UNCHANGED_FOR;
        let known = Cache::builder().max_capacity(VERDICTS).time_to_live(longest).build();
        let epoch = Arc::new(Epoch::of(Box::new(changes)));
        let denials = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let (sets, counts) = (Sets::default(), Arc::default());
        Self { fresh, words, confirmed, rules, sets, epoch, denials, known, counts }
    }

    /// What `user` may list of `kind` where it is `wanted`; nowhere is nothing, and nobody is asked.
    /// `known` names the namespaces that exist; it is asked only for users without a cluster-wide
    /// right. While nobody can be asked, it is what was confirmed shortly before.
    pub async fn scope(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        wanted: &Reach,
        known: impl AsyncFnOnce() -> Result<Vec<CompactString>, Failure>,
    ) -> Result<Scope, Refusal> {
        let named = match wanted {
            Reach::Namespaces(none) if none.is_empty() => {
                return Ok(Scope::within(kind, none.clone(), None));
            }
            Reach::Namespaces(names) if kind.resource.namespaced => Some(names),
            Reach::Everything | Reach::Namespaces(_) => None,
        };
        if let Some(names) = named
            && let Some(namespace) = wanted.only()
            && !self.listed_everywhere(user, kind).await
        {
            self.ask(cluster, user, kind, Some(namespace.clone())).await?;
            return Ok(Scope::within(kind, names.clone(), None));
        }
        let mut refusal = match (self.ask(cluster, user, kind, None).await, named) {
            (Ok(()), None) => return Ok(Scope::everything(kind)),
            (Ok(()), Some(names)) => return Ok(Scope::within(kind, names.clone(), None)),
            (Err(refusal), _) => refusal,
        };
        let is_denied = matches!(refusal, Refusal::Denied(_));
        // Nobody but who was known shortly before has rights that still stand.
        let is_known = self.known.contains_key(&user.fingerprint());
        if !kind.resource.namespaced || !(is_denied || refusal.is_absence() && is_known) {
            return Err(refusal);
        }
        let candidates = match named {
            None => Box::pin(known()).await.map_err(|failure| Refusal::Unknown(failure.into()))?,
            Some(names) => names.iter().cloned().collect(),
        };
        let permitted = match is_denied {
            true => Box::pin(self.permitted(cluster, user, kind, &candidates)).await,
            false => Err(refusal.clone()),
        };
        let permitted = match permitted {
            Ok(none) if none.is_empty() => return Err(refusal),
            Ok(permitted) => permitted,
            Err(unknown) => {
                refusal = unknown.clone();
                self.standing(user, kind, &candidates, unknown)?
            }
        };
        let (Refusal::Denied(rest) | Refusal::Unknown(rest)) = refusal;
        Ok(Scope::within(kind, permitted, Some(rest)))
    }

    /// A scope over all namespaces or none: for sums that a part of the rows would make wrong.
    pub async fn scope_of_all(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
    ) -> Result<Scope, Refusal> {
        self.ask(cluster, user, kind, None).await?;
        Ok(Scope::everything(kind))
    }

    /// What the API server said to this caller elsewhere: refused credentials end what is
    /// remembered of them at once, whatever they were used for.
    pub async fn heed<T>(&self, user: &User, answer: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &answer
            && failure.code() == Some(StatusCode::UNAUTHORIZED)
        {
            self.refused(user).await;
        }
        answer
    }

    /// This caller's credentials were refused.
    pub async fn refused(&self, user: &User) {
        self.forget(user.fingerprint()).await;
    }

    /// Forgets everything about a caller whose credentials were refused. Of strangers there is
    /// nothing to forget: a flood of bad tokens must not make every look-up carry their closures.
    async fn forget(&self, who: Fingerprint) {
        if self.known.remove(&who).await.is_none() {
            return;
        }
        // Whoever puts something meanwhile has counted before.
        self.denials(who).fetch_add(1, Ordering::AcqRel);
        let forgotten = [
            self.fresh.invalidate_entries_if(move |question, _| question.who == who).is_ok(),
            self.words.invalidate_entries_if(move |question, _| question.who == who).is_ok(),
            self.confirmed.invalidate_entries_if(move |question, _| question.who == who).is_ok(),
            self.forget_rules(who),
            self.sets.forget(who),
        ];
        debug_assert_eq!(forgotten, [true; 5], "the caches are built to forget by closures");
    }

    fn forget_rules(&self, who: Fingerprint) -> bool {
        self.rules.invalidate_entries_if(move |ruled, _| ruled.who == who).is_ok()
    }

    /// Counts what was denied to this caller against what was known.
    fn denials(&self, who: Fingerprint) -> &AtomicU64 {
        &self.denials[who.spread(self.denials.len())]
    }

    async fn listed_everywhere(&self, user: &User, kind: &'static KindDef) -> bool {
        let question = Question { who: user.fingerprint(), kind: kind.name, namespace: None };
        self.fresh.get(&question).await == Some(true)
    }

    async fn ask(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        namespace: Option<CompactString>,
    ) -> Result<(), Refusal> {
        let question = Question { who: user.fingerprint(), kind: kind.name, namespace };
        match self.verdict(cluster, user, kind, &question).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Box::pin(self.in_words(cluster, user, kind, question)).await),
            Err(failure) => Box::pin(self.bridge(user, &question, failure)).await,
        }
    }

    /// Whether the caller may, as it is remembered or as the API server says.
    async fn verdict(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        question: &Question,
    ) -> Result<bool, Arc<Failure>> {
        if user.is_over() {
            // By our clock, which may be ahead: nothing is remembered, the API server decides.
            Box::pin(self.fresh.invalidate(question)).await;
        }
        match self.fresh.get(question).await {
            Some(allowed) => Ok(allowed),
            // Rare, and large futures: boxed, so that the common way stays small.
            None => Box::pin(self.ask_anew(cluster, user, kind, question)).await,
        }
    }

    /// Asks the API server; many who wait for the same answer cause one question.
    async fn ask_anew(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        question: &Question,
    ) -> Result<bool, Arc<Failure>> {
        let asking = async {
            let attributes = Attributes::list(kind, question.namespace.as_deref());
            let answer = review::ask(cluster, user, &attributes).await;
            let count = match answer {
                Ok(true) => &self.counts.allowed,
                Ok(false) => &self.counts.denied,
                Err(_) => &self.counts.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
            let allowed = answer?;
            self.known.insert(question.who, ()).await;
            if allowed {
                self.confirmed.insert(question.clone(), Instant::now()).await;
            } else {
                self.contradict(question).await;
            }
            Ok::<_, Failure>(allowed)
        };
        self.fresh.try_get_with(question.clone(), asking).await
    }

    /// What was denied a moment ago, in the API server's words. They cost a list, so that they are
    /// asked for only where somebody reads them: of many namespaces nobody does.
    async fn in_words(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        question: Question,
    ) -> Refusal {
        let namespace = question.namespace.clone();
        let asking = review::words_of_denial(cluster, user, kind, namespace.as_deref());
        match self.words.try_get_with(question, asking).await {
            Ok(words) => Refusal::Denied(words),
            // This question is not bridged: the answer was no, and only its words are missing.
            Err(failure) => {
                if failure.code() == Some(StatusCode::UNAUTHORIZED) {
                    self.forget(user.fingerprint()).await;
                }
                Refusal::Unknown(failure)
            }
        }
    }

    /// A denial that no rules review has told: it is younger than those that are remembered. One
    /// that is silent it does not contradict; where all are, each would be asked for again.
    async fn contradict(&self, question: &Question) {
        let who = question.who;
        if let Some(namespace) = &question.namespace {
            self.denials(who).fetch_add(1, Ordering::AcqRel);
            for epoch in [None, self.epoch.settled(), self.epoch.outdated()] {
                let ruled = Ruled { who, namespace: namespace.clone(), epoch };
                let known = self.rules.get(&ruled).await;
                let Some(known) = known.filter(|known| !known.is_silent()) else { continue };
                self.rules.invalidate(&ruled).await;
                for kind in known.kinds().collect::<Vec<_>>() {
                    self.sets.end(who, kind.name).await;
                }
            }
        }
        if self.deny(question).await {
            let forgotten = self.forget_rules(who) && self.sets.forget(who);
            debug_assert!(forgotten, "the caches are built to forget by closures");
        }
    }

    /// A denial where a right was confirmed before is a revocation; whether it was one. Whatever
    /// else was confirmed of this kind may have rested on the same binding (a right in all
    /// namespaces on the one that is denied here, or the other way round), so none of it bridges an
    /// API server that is away.
    async fn deny(&self, question: &Question) -> bool {
        let everywhere = Question { namespace: None, ..question.clone() };
        // None rests on a right to all namespaces.
        if question.namespace.is_some() {
            self.sets.end(question.who, question.kind).await;
        }
        let own = self.confirmed.remove(question).await;
        let wide = self.confirmed.remove(&everywhere).await;
        if own.is_none() && wide.is_none() {
            return false;
        }
        self.denials(question.who).fetch_add(1, Ordering::AcqRel);
        // Once more: whoever has put one meanwhile has not seen the count.
        self.sets.end(question.who, question.kind).await;
        if question.namespace.is_some() {
            self.fresh.invalidate(&everywhere).await;
        }
        let (who, kind) = (question.who, question.kind);
        let same = move |other: &Question, _: &Instant| other.who == who && other.kind == kind;
        let forgotten = self.confirmed.invalidate_entries_if(same).is_ok();
        debug_assert!(forgotten, "the cache is built to forget by closures");
        true
    }

    /// Nobody could be asked: a right that was confirmed shortly before still stands. A 429 is no
    /// absence: whoever is throttled may have brought that about.
    async fn bridge(
        &self,
        user: &User,
        question: &Question,
        failure: Arc<Failure>,
    ) -> Result<(), Refusal> {
        match failure.code() {
            Some(StatusCode::UNAUTHORIZED) => self.forget(question.who).await,
            // Somebody answered, and it was no: impersonation refused, for one.
            Some(code) if !code.is_server_error() && code != StatusCode::TOO_MANY_REQUESTS => {
                self.contradict(question).await;
            }
            Some(StatusCode::TOO_MANY_REQUESTS) => {}
            _ if !user.is_over() && self.is_confirmed(question) => return Ok(()),
            _ => {}
        }
        Err(Refusal::Unknown(failure))
    }
}

/// Room for rights that were confirmed. They are put and looked for without being read, so that
/// they have no frequency to be weighed by: the longest not confirmed makes room.
fn confirmed(most: u64, away: Duration) -> Cache<Question, Instant> {
    let confirmed = Cache::builder().support_invalidation_closures().max_capacity(most);
    let confirmed = confirmed.eviction_policy(EvictionPolicy::lru());
    confirmed.time_to_live(ALLOWED_FOR + away).build()
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
