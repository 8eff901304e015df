//! In which of many namespaces a caller may list a kind, and which of them are anything to the
//! caller: by one rules review a namespace where that is trustworthy, by access reviews else.
//!
//! It does not know which namespaces there are. What it learns, rights and their ends, it leaves in
//! the caches of `mod.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use compact_str::CompactString;
use futures::StreamExt as _;
use http::StatusCode;

use super::review::believed_for;
use super::{ALLOWED_FOR, Authorizer, DENIED_FOR, Question, Refusal, Ruled, Visible, rules};
use crate::kinds::{KindDef, POD};
use crate::upstream::{Cluster, Failure, User};

/// Reviews at once for one request: a user with rights in many namespaces must not crowd out others.
const REVIEWS_AT_ONCE: usize = 16;
/// Verdicts in a row: when all are remembered none of them waits, a thousand take 10 ms, and an
/// overview looks up those of some twenty kinds.
const STEP: usize = 256;

/// No namespace can have this name: what may be listed in it may be listed in all.
const NOWHERE: &str = "-";

impl Authorizer {
    /// Those of `candidates` in which the caller may list.
    pub(super) async fn permitted(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        candidates: &[CompactString],
    ) -> Result<Arc<BTreeSet<CompactString>>, Refusal> {
        let (who, epoch) = (user.fingerprint(), self.epoch.settled());
        let among = (candidates, epoch);
        if let Some(known) = self.sets.get(who, kind.name, among).await
            && !user.is_over()
        {
            return Ok(known);
        }
        // A set confirms nothing: in the end its rights must still outlive `away` in full.
        let longest = Instant::now() + ALLOWED_FOR;
        let denials = self.denials(who).load(Ordering::Acquire);
        let verdicts = futures::stream::iter(candidates.iter().cloned()).map(|namespace| async {
            let verdict = self.permitted_in(cluster, user, kind, (&namespace, epoch)).await;
            verdict.map(|(allowed, until)| (allowed.then_some(namespace), until))
        });
        let mut verdicts = verdicts.buffer_unordered(REVIEWS_AT_ONCE).enumerate();
        let (mut permitted, mut until) = (BTreeSet::new(), Some(longest));
        while let Some((at, verdict)) = verdicts.next().await {
            let (namespace, end) = verdict?;
            permitted.extend(namespace);
            until = until.zip(end).map(|(first, end)| first.min(end));
            others_turn(at).await;
        }
        let permitted = Arc::new(permitted);
        if let Some(until) = until {
            self.sets.put(who, kind.name, among, (permitted.clone(), until)).await;
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
            let here = (&namespace, epoch);
            let listable = self.listable(cluster, user, here).await.map_err(Refusal::Unknown)?;
            // What a webhook gives is in no rules: pods stand for all of it.
            let pods = match listable.allows(POD) {
                // A denial stands as long as the rules, by itself for 5 s; a right no longer than ever.
                None if listable.no_pods.get().is_none() => {
                    let (allowed, _) =
                        Box::pin(self.permitted_in(cluster, user, POD, here)).await?;
                    if !allowed {
                        let _ = listable.no_pods.set(());
                    }
                    allowed
                }
                Some(_) | None => false,
            };
            Ok::<_, Refusal>((namespace, listable, pods))
        };
        let (_, everywhere, all_pods) = review(NOWHERE.into()).await?;
        let reviews = futures::stream::iter(candidates.iter().cloned()).map(review);
        let mut reviews = reviews.buffer_unordered(REVIEWS_AT_ONCE).enumerate();
        let mut visible = Vec::new();
        while let Some((at, answer)) = reviews.next().await {
            let (name, listable, pods) = answer?;
            let may_get = listable.may_get_namespace();
            let is_own = listable.is_beyond(&everywhere) || pods && !all_pods;
            visible.push(Visible { name, is_own, may_get });
            others_turn(at).await;
        }
        visible.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut kinds: Vec<_> = everywhere.kinds().collect();
        if all_pods && !kinds.contains(&POD) {
            kinds.push(POD);
        }
        Ok((kinds, visible))
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
        let asking = async {
            // Its predecessor would take up room to its end, and nobody looks at it again.
            if let Some(outdated) = self.epoch.outdated() {
                let outdated = Ruled { epoch: Some(outdated), ..ruled.clone() };
                self.rules.invalidate(&outdated).await;
            }
            rules::review(cluster, user, namespace, denials).await
        };
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
            let is_doubtful = self.denials(who).load(Ordering::Acquire) != denials;
            if is_doubtful && !entry.value().is_silent() {
                self.rules.invalidate(&ruled).await;
            }
        }
        Ok(entry.into_value())
    }

    /// Whether the caller may list here, and until when a set may say so: to the end of the rules
    /// review that tells. Of an access review nobody remembers when it was asked for: no set.
    pub(super) async fn permitted_in(
        &self,
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        (namespace, epoch): (&CompactString, Option<u64>),
    ) -> Result<(bool, Option<Instant>), Refusal> {
        let who = user.fingerprint();
        let question = Question { who, kind: kind.name, namespace: Some(namespace.clone()) };
        let denials = self.denials(who).load(Ordering::Acquire);
        // A denial that is younger than the rules.
        if self.fresh.get(&question).await == Some(false) {
            return Ok((false, Some(Instant::now() + DENIED_FOR)));
        }
        let reviewed = self.listable(cluster, user, (namespace, epoch)).await.ok();
        // What is remembered confirms as long as nothing was denied since it was asked for.
        let stands = reviewed.as_ref().is_some_and(|listable| listable.denials == denials);
        let until = reviewed.as_ref().map(|listable| listable.asked + believed_for(epoch));
        match reviewed.and_then(|listable| listable.allows(kind)) {
            Some(true) => {
                if stands {
                    self.confirmed.insert(question.clone(), Instant::now()).await;
                    // What was denied meanwhile found nothing to end.
                    if self.denials(who).load(Ordering::Acquire) != denials {
                        self.confirmed.invalidate(&question).await;
                    }
                }
                Ok((true, until))
            }
            Some(false) => {
                self.deny(&question).await;
                Ok((false, until))
            }
            None => match self.verdict(cluster, user, kind, &question).await {
                Ok(allowed) => Ok((allowed, None)),
                Err(failure) => {
                    let bridged = Box::pin(self.bridge(user, &question, failure)).await;
                    bridged.map(|()| (true, None))
                }
            },
        }
    }
}

/// Lets others at the worker after so many verdicts.
async fn others_turn(at: usize) {
    if (at + 1).is_multiple_of(STEP) {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
#[path = "permitted_tests.rs"]
mod tests;
