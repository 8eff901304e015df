//! Listing a kind page by page, as ourselves for the cache or as a user for a live answer, and
//! turning each object into its row.
//!
//! A malformed object costs its row and a count. Bounded in pages, rows and bytes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use futures::StreamExt as _;
use http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::store::Store;
use crate::auth::{Reach, Scope};
use crate::kinds::custom::CUSTOM;
use crate::kinds::{KindDef, Row, Source};
use crate::upstream::{Cluster, Failure, Identity, UpstreamError, User};

/// Objects asked for at once, as client-go does: the API server holds a page in memory.
const PAGE: usize = 500;
/// How often a list is begun again, or a page asked for again, before it has failed.
const TURNS: usize = 3;
/// Least and longest wait before a page that an overloaded API server refused is asked for again.
const BUSY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Longest pauses together of a list as a caller, which holds a turn meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);
/// A page of 500 objects near the 1.5 MiB that etcd allows is rare; one of more than 64 MiB is asked
/// for in parts.
const PAGE_BYTES: usize = 64 << 20;
/// A whole collection: 150,000 pods at some 5 KiB. One object of it is in memory at a time.
const WHOLE_BYTES: usize = 1 << 30;
/// Rows of one live answer, over all of its lists: at about 2 KiB a row this is 40 MiB for the time
/// of one request, and a page more for each list at once. A list of more is refused: of pages, sums
/// and orders a part would be wrong.
const LIVE_ROWS: usize = 20_000;
/// Namespaces listed at once for one live answer.
const LISTS_AT_ONCE: usize = 8;
/// So many refused are rights that have just been lost. More: who asks has to find out first where
/// he may list, instead of trying everywhere.
const REFUSALS: usize = 32;

#[derive(Debug, Clone, thiserror::Error)]
pub enum ListError {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("more than {LIVE_ROWS} {0} would have to be read live; name fewer namespaces, if any")]
    TooMany(&'static str),
}

/// A whole list, its resource version, and how many objects were malformed.
#[derive(Default)]
pub(super) struct Listed {
    /// Where they stay: a store takes them as they are.
    pub rows: Vec<Arc<Row>>,
    pub version: String,
    pub malformed: u64,
    columns: Vec<Value>,
}

/// A list without its items.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    /// Of a `Table`.
    #[serde(default)]
    column_definitions: Vec<Value>,
    #[serde(default)]
    metadata: ListMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    r#continue: String,
    /// Left out where something is selected, and by some servers always.
    remaining_item_count: Option<i64>,
}

/// What a page says of those behind it.
struct Behind {
    /// Of the next page; empty where there is none.
    token: String,
    /// Objects on all of them, if the API server tells.
    left: Option<usize>,
}

/// Rows read live, with the proof that their caller may see them: the API server gave them out.
pub struct Listing {
    pub store: Store,
    pub scope: Scope,
    /// `columnDefinitions` of a table; empty for other sources.
    pub columns: Vec<Value>,
    /// Objects that are left out.
    pub malformed: u64,
    /// What one of the namespaces that are left out has answered: 403.
    pub refused: Option<Failure>,
    /// Objects behind these, of which no more was asked for.
    pub remaining: usize,
}

impl Listing {
    /// The first objects of a collection that `user` may list, and how many there are behind them:
    /// one page, however many that is. `None` where the API server does not tell.
    pub async fn first(
        cluster: &Cluster,
        user: &User,
        kind: &'static KindDef,
        collection: &str,
        most: usize,
    ) -> Result<Option<Self>, Failure> {
        let (path, who) = (format!("{collection}?limit={most}"), Identity::User(user));
        let mut listed = Listed::default();
        let behind = page(cluster, who, kind, (&path, PAGE_BYTES), &mut listed).await?;
        let remaining = if behind.token.is_empty() { Some(0) } else { behind.left };
        let Some(remaining) = remaining else { return Ok(None) };
        let Listed { rows, columns, malformed, .. } = listed;
        let (store, scope) = (Store::of(kind, rows), Scope::answered(kind, Reach::Everything));
        Ok(Some(Self { store, scope, columns, malformed, refused: None, remaining }))
    }
}

/// The rows that `user` may list as far as `reach`, read now with the user's own credentials. `at`
/// is the collection's path in a namespace or in all. Of several namespaces those that are refused
/// cost their own rows alone; all of them refused are an error. Nowhere is no row, and asks nobody.
pub async fn list_as(
    cluster: &Cluster,
    user: &User,
    kind: &'static KindDef,
    at: &(impl Fn(Option<&str>) -> String + Sync),
    reach: &Reach,
) -> Result<Listing, ListError> {
    let who = Identity::User(user);
    let room = &Semaphore::new(LIVE_ROWS);
    let namespaces: Vec<CompactString> = match reach {
        Reach::Namespaces(names) if kind.resource.namespaced || names.is_empty() => {
            names.iter().cloned().collect()
        }
        Reach::Everything | Reach::Namespaces(_) => {
            let listed = list(cluster, who, kind, at, None, room).await?;
            let Listed { rows, columns, malformed, .. } = listed;
            let (store, scope) = (Store::of(kind, rows), Scope::answered(kind, Reach::Everything));
            return Ok(Listing { store, scope, columns, malformed, refused: None, remaining: 0 });
        }
    };
    let lists = futures::stream::iter(namespaces).map(|namespace| async move {
        let listed = list(cluster, who, kind, at, Some(&namespace), room).await;
        (namespace, listed)
    });
    let mut lists = lists.buffer_unordered(LISTS_AT_ONCE);
    let (mut rows, mut columns, mut malformed) = (Vec::new(), Vec::new(), 0);
    let (mut answered, mut refused, mut refusals) = (BTreeSet::new(), None, 0);
    while let Some((namespace, listed)) = lists.next().await {
        let listed = match listed {
            Err(ListError::Failed(failure)) if is_denial(&failure) => {
                refusals += 1;
                if refusals > REFUSALS {
                    return Err(failure.into());
                }
                refused = Some(failure);
                continue;
            }
            listed => listed?,
        };
        answered.insert(namespace);
        rows.extend(listed.rows);
        columns = listed.columns;
        malformed += listed.malformed;
    }
    match refused {
        Some(failure) if answered.is_empty() => Err(failure.into()),
        refused => {
            let answered = Reach::Namespaces(answered.into());
            let (store, scope) = (Store::of(kind, rows), Scope::answered(kind, answered));
            Ok(Listing { store, scope, columns, malformed, refused, remaining: 0 })
        }
    }
}

/// Lists a collection with our own rights as the API server's cache has it, in one answer: as fast
/// as it can be had, and as old as that cache, which a watch from there makes up for. For a first
/// list alone: a later one could go back in time.
pub(super) async fn list_cached(
    cluster: &Cluster,
    kind: &'static KindDef,
) -> Result<Listed, Failure> {
    let path = format!("{}?resourceVersion=0", kind.resource.collection(None));
    let mut listed = Listed::default();
    let behind = page(cluster, Identity::Server, kind, (&path, WHOLE_BYTES), &mut listed).await?;
    if !behind.token.is_empty() {
        let words = format!("list of {}: a part, where the whole was asked for", kind.name);
        return Err(UpstreamError::Broken(words).into());
    }
    Ok(listed)
}

/// Lists a collection to its end. Each row takes a place in the `room`, which lists side by side
/// share, and does not give it back.
pub(super) async fn list(
    cluster: &Cluster,
    who: Identity<'_>,
    kind: &'static KindDef,
    at: &(impl Fn(Option<&str>) -> String + Sync),
    namespace: Option<&str>,
    room: &Semaphore,
) -> Result<Listed, ListError> {
    let collection = at(namespace);
    // A path that selects has a query already.
    let sign = if collection.contains('?') { '&' } else { '?' };
    let mut listed = Listed::default();
    let (mut token, mut limit) = (String::new(), PAGE);
    let (mut again, mut busy, mut paused) = (0, 0, Duration::ZERO);
    loop {
        let path = if token.is_empty() {
            format!("{collection}{sign}limit={limit}")
        } else {
            let token = utf8_percent_encode(&token, NON_ALPHANUMERIC);
            format!("{collection}{sign}limit={limit}&continue={token}")
        };
        let (before, malformed) = (listed.rows.len(), listed.malformed);
        let behind = match page(cluster, who, kind, (&path, PAGE_BYTES), &mut listed).await {
            // The continuation's snapshot is compacted: begin again.
            Err(failure) if failure.code() == Some(StatusCode::GONE) && again < TURNS => {
                again += 1;
                room.add_permits(before);
                (listed.rows, listed.malformed, token) = (Vec::new(), 0, String::new());
                continue;
            }
            // Large objects: the same page in smaller parts.
            Err(Failure::Upstream(UpstreamError::TooLarge(_))) if limit > 1 => {
                listed.rows.truncate(before);
                listed.malformed = malformed;
                limit = (limit / 4).max(1);
                continue;
            }
            // Not all is lost: the pages before are still good.
            Err(failure)
                if is_busy(&failure)
                    && !token.is_empty()
                    && busy < TURNS
                    && (matches!(who, Identity::Server) || paused < PATIENCE) =>
            {
                busy += 1;
                let pause = failure.retry_after().unwrap_or(BUSY.0).clamp(BUSY.0, BUSY.1);
                paused += pause;
                tokio::time::sleep(pause).await;
                continue;
            }
            other => other?,
        };
        busy = 0;
        let new = u32::try_from(listed.rows.len() - before).unwrap_or(u32::MAX);
        let Ok(taken) = room.try_acquire_many(new) else { return Err(too_many(kind)) };
        taken.forget();
        if behind.token.is_empty() {
            return Ok(listed);
        }
        // What will find no place need not be read.
        if behind.left.is_some_and(|left| left > room.available_permits()) {
            return Err(too_many(kind));
        }
        token = behind.token;
    }
}

fn too_many(kind: &KindDef) -> ListError {
    ListError::TooMany(match kind.resource.plural {
        // Of a kind that no table knows.
        "" => "objects",
        plural => plural,
    })
}

fn is_denial(failure: &Failure) -> bool {
    failure.code() == Some(StatusCode::FORBIDDEN)
}

fn is_busy(failure: &Failure) -> bool {
    failure.code() == Some(StatusCode::TOO_MANY_REQUESTS)
}

/// What of each object is wanted. Of custom kinds the whole is taken from a server that prints no
/// tables; of other tables, which are of secrets, never.
fn accept(kind: &KindDef) -> &'static str {
    match kind.source {
        Source::Metadata => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        Source::Table if kind.name == CUSTOM.name => {
            "application/json;as=Table;g=meta.k8s.io;v=v1, application/json"
        }
        Source::Table => "application/json;as=Table;g=meta.k8s.io;v=v1",
        Source::Watch | Source::Live | Source::Poll => "application/json",
    }
}

/// Adds a page's rows and returns what is behind it. After an error `listed` may hold a part of the
/// page.
async fn page(
    cluster: &Cluster,
    who: Identity<'_>,
    kind: &'static KindDef,
    (path, most): (&str, usize),
    listed: &mut Listed,
) -> Result<Behind, Failure> {
    let mut take = |item: &str| match (kind.row)(item) {
        Ok(row) => listed.rows.push(Arc::new(row)),
        Err(error) => {
            listed.malformed += 1;
            tracing::warn!(kind = kind.name, %error, "an object of a list is left out");
        }
    };
    let rest = cluster.items(who, (path, accept(kind)), most, &mut take).await?;
    let page: List = serde_json::from_slice(&rest).map_err(|error| {
        UpstreamError::Broken(format!("list of {}: {error}", kind.resource.plural))
    })?;
    if !page.column_definitions.is_empty() {
        listed.columns = page.column_definitions;
    }
    let ListMeta { resource_version, r#continue: token, remaining_item_count } = page.metadata;
    listed.version = resource_version;
    Ok(Behind { token, left: remaining_item_count.and_then(|left| usize::try_from(left).ok()) })
}

#[cfg(test)]
#[path = "pager_tests.rs"]
mod tests;
