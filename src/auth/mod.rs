//! May this user list that, and where? The API server is asked as the user; its verdicts are
//! remembered for seconds.
//!
//! It holds no tokens (only their keyed hash), knows no roles, and never uses our own rights.

mod epoch;
mod review;
mod rules;
mod scope;
mod sets;

pub use review::Attributes;
pub use scope::{Reach, Scope};

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use compact_str::CompactString;
use futures::StreamExt as _;
use http::StatusCode;
use moka::future::Cache;

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
/// Verdicts kept: 2,000 users with 30 kinds; each is about 200 bytes.
const VERDICTS: u64 = 60_000;
/// Reviews at once for one request: a user with rights in many namespaces must not crowd out others.
const REVIEWS_AT_ONCE: usize = 16;

/// Verdicts that were collected within this are of one time.
const AT_ONCE: Duration = Duration::from_secs(1);

/// No namespace can have this name: what may be listed in it may be listed in all.
const NOWHERE: &str = "-";

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

#[derive(Clone)]
enum Verdict {
    Allowed,
    /// The API server's own words to this caller.
    Denied(Arc<Failure>),
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
    fresh: Cache<Question, Verdict>,
    /// When a right was last confirmed: bridges an API server that is away, never a denial.
    confirmed: Cache<Question, Instant>,
    rules: Cache<Ruled, Arc<rules::Listable>>,
    sets: Sets,
    epoch: Arc<Epoch>,
    /// How often callers were denied something; each counts at one of these places.
    denials: Arc<[AtomicU64; 64]>,
    /// Callers of whom the four above may know something.
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
        let confirmed = Cache::builder().support_invalidation_closures().max_capacity(VERDICTS);
        let rules = Cache::builder().support_invalidation_closures().max_capacity(VERDICTS);
        let fresh = fresh.expire_after(review::Expiry).build();
        let confirmed = confirmed.time_to_live(ALLOWED_FOR + away).build();
        let rules = rules.expire_after(review::Expiry).build();
        // As long as anything of a caller is remembered.
        let longest = ALLOWED_FOR + away + UNCHANGED_FOR + sets::KEPT_FOR;
        let known = Cache::builder().max_capacity(VERDICTS).time_to_live(longest).build();
        let epoch = Arc::new(Epoch::of(Box::new(changes)));
        let denials = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let (sets, counts) = (Sets::default(), Arc::default());
        Self { fresh, confirmed, rules, sets, epoch, denials, known, counts }
    }

    /// What `user` may list of `kind` among `wanted` namespaces (empty: all of them). `known`
    /// names the namespaces that exist; it is asked only for users without a cluster-wide right.
    /// While nobody can be asked, it is what was confirmed shortly before.
    pub async fn scope(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        wanted: &[CompactString],
        known: impl AsyncFnOnce() -> Vec<CompactString>,
    ) -> Result<Scope, Refusal> {
        let everywhere = wanted.is_empty() || !kind.resource.namespaced;
        if let [namespace] = wanted
            && !everywhere
            && !self.listed_everywhere(user, kind).await
        {
            self.ask(cluster, user, kind, Some(namespace.clone())).await?;
            return Ok(Scope::within(kind, BTreeSet::from([namespace.clone()]), None));
        }
        let mut refusal = match self.ask(cluster, user, kind, None).await {
            Ok(()) if everywhere => return Ok(Scope::everything(kind)),
            Ok(()) => return Ok(Scope::within(kind, wanted.iter().cloned().collect(), None)),
            Err(refusal) => refusal,
        };
        let is_denied = matches!(refusal, Refusal::Denied(_));
        // Nobody but who was known shortly before has rights that still stand.
        let is_known = self.known.contains_key(&user.fingerprint());
        if !kind.resource.namespaced || !(is_denied || refusal.is_absence() && is_known) {
            return Err(refusal);
        }
        let candidates = if everywhere { Box::pin(known()).await } else { wanted.to_vec() };
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
        let forgotten = [
            self.fresh.invalidate_entries_if(move |question, _| question.who == who).is_ok(),
            self.confirmed.invalidate_entries_if(move |question, _| question.who == who).is_ok(),
            self.forget_rules(who),
            self.sets.forget(who),
        ];
        debug_assert_eq!(forgotten, [true; 4], "the caches are built to forget by closures");
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
        matches!(self.fresh.get(&question).await, Some(Verdict::Allowed))
    }

    async fn ask(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        namespace: Option<CompactString>,
    ) -> Result<(), Refusal> {
        let question = Question { who: user.fingerprint(), kind: kind.name, namespace };
        if user.is_over() {
            // By our clock, which may be ahead: nothing is remembered, the API server decides.
            Box::pin(self.fresh.invalidate(&question)).await;
        }
        let verdict = match self.fresh.get(&question).await {
            Some(verdict) => Ok(verdict),
            // Rare, and large futures: boxed, so that the common way stays small.
            None => Box::pin(self.ask_anew(cluster, user, kind, &question)).await,
        };
        match verdict {
            Ok(Verdict::Allowed) => Ok(()),
            Ok(Verdict::Denied(words)) => Err(Refusal::Denied(words)),
            Err(failure) => Box::pin(self.bridge(user, &question, failure)).await,
        }
    }

    /// Asks the API server; many who wait for the same answer cause one question.
    async fn ask_anew(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        question: &Question,
    ) -> Result<Verdict, Arc<Failure>> {
        let asking = async {
            let namespace = question.namespace.as_deref();
            let attributes = Attributes::list(kind, namespace);
            let answer = review::ask(cluster, user, &attributes).await;
            let count = match answer {
                Ok(true) => &self.counts.allowed,
                Ok(false) => &self.counts.denied,
                Err(_) => &self.counts.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
            if answer? {
                self.known.insert(question.who, ()).await;
                self.confirmed.insert(question.clone(), Instant::now()).await;
                return Ok(Verdict::Allowed);
            }
            self.known.insert(question.who, ()).await;
            self.contradict(question).await;
            review::words_of_denial(cluster, user, kind, namespace).await
        };
        self.fresh.try_get_with(question.clone(), asking).await
    }

    /// A denial that no rules review has told: it is younger than those that are remembered.
    async fn contradict(&self, question: &Question) {
        if let Some(namespace) = &question.namespace {
            self.denials(question.who).fetch_add(1, Ordering::AcqRel);
            for epoch in [None, self.epoch.settled()] {
                let ruled = Ruled { who: question.who, namespace: namespace.clone(), epoch };
                self.rules.invalidate(&ruled).await;
            }
        }
        if self.deny(question).await {
            let forgotten = self.forget_rules(question.who);
            debug_assert!(forgotten, "the cache is built to forget by closures");
        }
    }

    /// A denial where a right was confirmed before is a revocation; whether it was one. Whatever
    /// else was confirmed of this kind may have rested on the same binding (a right in all
    /// namespaces on the one that is denied here, or the other way round), so none of it bridges an
    /// API server that is away.
    async fn deny(&self, question: &Question) -> bool {
        let everywhere = Question { namespace: None, ..question.clone() };
        self.sets.end(question.who, question.kind).await;
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

    /// Those of `candidates` in which the caller may list: by one rules review a namespace where
    /// that is trustworthy, by access reviews else.
    async fn permitted(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        candidates: &[CompactString],
    ) -> Result<BTreeSet<CompactString>, Refusal> {
        let (who, epoch) = (user.fingerprint(), self.epoch.settled());
        let among = (candidates, epoch);
        if let Some(known) = self.sets.get(who, kind.name, among).await
            && !user.is_over()
        {
            return Ok(known);
        }
        let (begun, denials) = (Instant::now(), self.denials(who).load(Ordering::Acquire));
        let verdicts = futures::stream::iter(candidates.iter().cloned()).map(|namespace| async {
            let verdict = self.permitted_in(cluster, user, kind, (&namespace, epoch)).await;
            verdict.map(|(allowed, by_rules)| (allowed.then_some(namespace), by_rules))
        });
        let mut verdicts = verdicts.buffer_unordered(REVIEWS_AT_ONCE);
        let (mut permitted, mut by_rules) = (BTreeSet::new(), true);
        while let Some(verdict) = verdicts.next().await {
            let (namespace, of_rules) = verdict?;
            permitted.extend(namespace);
            by_rules &= of_rules;
        }
        // An access review is believed in for twice as long as a rules review: too long for a set,
        // as are verdicts that took their time.
        if by_rules && begun.elapsed() < AT_ONCE {
            self.sets.put(who, kind.name, among, &permitted).await;
            // What was denied meanwhile found no set to end.
            if self.denials(who).load(Ordering::Acquire) != denials {
                self.sets.end(who, kind.name).await;
            }
        }
        Ok(permitted)
    }

    /// What the caller may list in all namespaces, and, in the order of their names, what the
    /// candidates are to the caller.
    pub async fn visible(
        &self,
        cluster: &Cluster,
        user: &User,
        candidates: &[CompactString],
    ) -> Result<(Vec<&'static KindDef>, Vec<Visible>), Refusal> {
        let epoch = self.epoch.settled();
        let review = async |namespace: CompactString| {
            let listable = self.listable(cluster, user, (&namespace, epoch)).await;
            listable.map_err(Refusal::Unknown).map(|listable| (namespace, listable))
        };
        let (_, everywhere) = review(NOWHERE.into()).await?;
        let reviews = futures::stream::iter(candidates.iter().cloned()).map(review);
        let mut reviews = reviews.buffer_unordered(REVIEWS_AT_ONCE);
        let mut visible = Vec::new();
        while let Some(answer) = reviews.next().await {
            let (name, listable) = answer?;
            let may_get = listable.may_get_namespace();
            visible.push(Visible { name, is_own: listable.is_beyond(&everywhere), may_get });
        }
        visible.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok((everywhere.kinds().collect(), visible))
    }

    /// What a rules review says of a namespace.
    async fn listable(
        &self,
        cluster: &Cluster,
        user: &User,
        (namespace, epoch): (&CompactString, Option<u64>),
    ) -> Result<Arc<rules::Listable>, Arc<Failure>> {
        let who = user.fingerprint();
        let ruled = Ruled { who, namespace: namespace.clone(), epoch };
        // Whoever asks about a namespace has just been told that the token is good.
        if user.is_over() && namespace == NOWHERE {
            self.rules.invalidate(&ruled).await;
        }
        let denials = self.denials(who).load(Ordering::Acquire);
        let asking = rules::review(cluster, user, namespace, denials);
        let entry = match self.rules.entry(ruled.clone()).or_try_insert_with(asking).await {
            Ok(entry) => entry,
            Err(failure) => {
                if failure.code() == Some(StatusCode::UNAUTHORIZED) {
                    self.forget(who).await;
                }
                return Err(failure);
            }
        };
        if entry.is_fresh() {
            self.known.insert(who, ()).await;
            // What was denied meanwhile found nothing to end: this answer may be older than it.
            if self.denials(who).load(Ordering::Acquire) != denials {
                self.rules.invalidate(&ruled).await;
            }
        }
        Ok(entry.into_value())
    }

    /// Whether the caller may list here, and whether a rules review says so.
    async fn permitted_in(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        (namespace, epoch): (&CompactString, Option<u64>),
    ) -> Result<(bool, bool), Refusal> {
        let who = user.fingerprint();
        let question = Question { who, kind: kind.name, namespace: Some(namespace.clone()) };
        let denials = self.denials(who).load(Ordering::Acquire);
        // A denial that is younger than the rules.
        if matches!(self.fresh.get(&question).await, Some(Verdict::Denied(_))) {
            return Ok((false, true));
        }
        let reviewed = self.listable(cluster, user, (namespace, epoch)).await.ok();
        // What is remembered confirms as long as nothing was denied since it was asked for.
        let stands = reviewed.as_ref().is_some_and(|listable| listable.denials == denials);
        match reviewed.and_then(|listable| listable.allows(kind)) {
            Some(true) => {
                if stands {
                    self.confirmed.insert(question.clone(), Instant::now()).await;
                    // What was denied meanwhile found nothing to end.
                    if self.denials(who).load(Ordering::Acquire) != denials {
                        self.confirmed.invalidate(&question).await;
                    }
                }
                Ok((true, true))
            }
            Some(false) => {
                self.deny(&question).await;
                Ok((false, true))
            }
            None => match self.ask(cluster, user, kind, Some(namespace.clone())).await {
                Ok(()) => Ok((true, false)),
                Err(Refusal::Denied(_)) => Ok((false, false)),
                Err(unknown) => Err(unknown),
            },
        }
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
