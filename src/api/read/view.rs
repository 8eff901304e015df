//! Where the rows of an answer come from: the shared cache under the caller's scope, or a live
//! list as the caller. Either way a store and a scope, so that what follows cannot tell.
//!
//! It joins nothing and writes no HTTP.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use compact_str::CompactString;
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::list::is_harmless;
use crate::api::Gateway;
use crate::api::error::ApiError;
use crate::api::target::{self, live};
use crate::auth::{Reach, Refusal, Scope};
use crate::cache::{Feed, ListError, Listing, State, Store, list_as};
use crate::kinds::{KindDef, NAMESPACE, Resource};
use crate::upstream::{Failure, Served, Turns, User};

/// Live lists at work: each may hold tens of MiB for a while.
pub struct LiveLists {
    all: Semaphore,
    each: Turns,
}

/// Live lists at once, of all callers.
const LIVE_AT_ONCE: usize = 32;
/// Of those, of one caller: what one page of a frontend needs side by side.
const LIVE_OF_ONE: usize = 4;
/// Longest wait for a turn; frontends give up before.
const TURN: Duration = Duration::from_secs(20);
/// In the API server's 403 to who says to be another and may not.
const IMPERSONATION: &str = "cannot impersonate";

impl Default for LiveLists {
    fn default() -> Self {
        Self { all: Semaphore::new(LIVE_AT_ONCE), each: Turns::new(LIVE_OF_ONE) }
    }
}

/// Leave to list; given back when dropped.
pub struct Turn<'a> {
    _own: OwnedSemaphorePermit,
    _all: SemaphorePermit<'a>,
}

impl LiveLists {
    pub async fn turn(&self, user: &User) -> Result<Turn<'_>, ApiError> {
        let own = self.each.of(user);
        let turn = async {
            let own = own.acquire_owned().await.ok()?;
            Some(Turn { _own: own, _all: self.all.acquire().await.ok()? })
        };
        let turn = tokio::time::timeout(TURN, turn).await.ok().flatten();
        let busy = StatusCode::TOO_MANY_REQUESTS;
        turn.ok_or_else(|| ApiError::with_status(busy, "error-too-many-live-lists", &[]))
    }
}

/// Rows of one kind that this caller may see.
pub struct View {
    pub scope: Scope,
    rows: Rows,
    /// How old the rows are; zero while a watch is open or for a live list.
    pub age: Duration,
    /// What one of the namespaces has answered whose rows are missing though the scope has them: a
    /// right to list that was lost between the question and the list, or denied by more than rights.
    pub refused: Option<Failure>,
}

enum Rows {
    Shared(Arc<Feed>),
    Own(Box<Store>),
}

/// Why there is no view.
pub enum NoView {
    /// The API server denies it: an empty list and a word in `errors`.
    Denied(ApiError),
    Failed(ApiError),
}

impl View {
    pub fn store(&self) -> &Store {
        match &self.rows {
            Rows::Shared(feed) => &feed.store,
            Rows::Own(store) => store,
        }
    }

    /// Of shared rows that are current; it moves with each change of them.
    pub fn revision(&self) -> Option<u64> {
        match &self.rows {
            Rows::Shared(feed) if self.age.is_zero() => Some(feed.store.revision()),
            _ => None,
        }
    }

    pub fn is_shared(&self) -> bool {
        matches!(self.rows, Rows::Shared(_))
    }

    /// Why rows of some namespaces are missing for which no denial is known beforehand: they were
    /// refused, or nobody could be asked about them, though the rows of the others are current.
    pub fn missing(&self) -> Option<ApiError> {
        self.refused.as_ref().or(self.unasked()).cloned().map(ApiError::from)
    }

    /// Why nobody could be asked about some namespaces, though the rows of the others are current.
    pub fn unasked(&self) -> Option<&Failure> {
        unasked(&self.scope).filter(|_| self.age.is_zero())
    }

    /// Why rows of some of the namespaces that were named are denied to the caller.
    pub fn denied_among(&self, wanted: &Reach) -> Option<ApiError> {
        denied_among(&self.scope, wanted).cloned().map(ApiError::from)
    }
}

/// Why nobody could be asked about some namespaces, where others are in the scope.
pub fn unasked(scope: &Scope) -> Option<&Failure> {
    scope.rest().filter(|why| !is_denial(why))
}

/// Why the scope lacks some of the namespaces that were named. Of all namespaces nobody expects
/// those in which he has no rights: nothing is said of them.
pub fn denied_among<'s>(scope: &'s Scope, wanted: &Reach) -> Option<&'s Failure> {
    let is_short = wanted.names().any(|namespace| !scope.covers(namespace));
    scope.rest().filter(|why| is_short && is_denial(why))
}

fn is_denial(failure: &Failure) -> bool {
    failure.code() == Some(StatusCode::FORBIDDEN)
}

impl NoView {
    /// The error to name beside other rows; bad credentials are the whole answer.
    pub fn unless_unauthorized(self) -> Result<ApiError, ApiError> {
        let error = self.error();
        if error.status == StatusCode::UNAUTHORIZED { Err(error) } else { Ok(error) }
    }

    pub fn error(self) -> ApiError {
        match self {
            Self::Denied(error) | Self::Failed(error) => error,
        }
    }
}

impl From<Refusal> for NoView {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(_) => Self::Denied(refusal.into()),
            Refusal::Unknown(_) => Self::Failed(refusal.into()),
        }
    }
}

impl From<ListError> for NoView {
    /// A right that was lost between the question and the list is a denial as any other.
    fn from(error: ListError) -> Self {
        match &error {
            ListError::Failed(failure) if failure.code() == Some(StatusCode::FORBIDDEN) => {
                Self::Denied(error.into())
            }
            _ => Self::Failed(error.into()),
        }
    }
}

/// What `user` may see of `kind` where it is `wanted`.
pub async fn open(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
    wanted: &Reach,
) -> Result<View, NoView> {
    let scope = scope(gateway, user, kind, wanted).await?;
    within(gateway, user, kind, scope).await
}

/// How much of where it is `wanted` `user` may list `kind` in.
pub async fn scope(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
    wanted: &Reach,
) -> Result<Scope, NoView> {
    wanted.names().try_for_each(|name| is_harmless(name)).map_err(NoView::Failed)?;
    let known = async || known_namespaces(gateway, user).await;
    Ok(gateway.authorizer.scope(&gateway.cluster, user, kind, wanted, known).await?)
}

/// All rows of `kind`, or no view: for sums that a part of the rows would make wrong.
pub async fn open_all(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
) -> Result<View, NoView> {
    let scope = gateway.authorizer.scope_of_all(&gateway.cluster, user, kind).await?;
    within(gateway, user, kind, scope).await
}

/// The rows of a scope: shared where the cache has them, else listed as the caller.
async fn within(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
    scope: Scope,
) -> Result<View, NoView> {
    if let Some(feed) = gateway.cache.feed(kind) {
        let age = match feed.state() {
            State::Current => Some(Duration::ZERO),
            State::Stale(age) if age <= gateway.away => Some(age),
            State::Stale(_) | State::Starting | State::Refused => None,
        };
        if let Some(age) = age
            && gateway.writes.are_seen(user, feed, &scope).await
        {
            return Ok(View { scope, rows: Rows::Shared(feed.clone()), age, refused: None });
        }
    }
    // Boxed: the common way through the cache must not carry this large future about.
    Box::pin(own(gateway, user, kind, scope)).await
}

/// The rows of a scope, listed as the caller.
async fn own(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
    scope: Scope,
) -> Result<View, NoView> {
    let at = served(gateway, user, kind).await.map_err(NoView::Failed)?;
    let at = move |namespace: Option<&str>| at.collection(namespace);
    let _turn = gateway.live.turn(user).await.map_err(NoView::Failed)?;
    let state = gateway.cache.feed(kind).map(|feed| feed.state());
    let listing = listed(gateway, user, kind, &at, scope.reach()).await;
    let listing = listing.map_err(|error| unlisted(error, kind, state))?;
    let Listing { store, refused, .. } = listing;
    // The listing's own scope reaches no further, and knows nothing of the rest.
    Ok(View { scope, rows: Rows::Own(Box::new(store)), age: Duration::ZERO, refused })
}

/// Why there is no list as the caller. That one is too long to be read live is not for its caller to
/// mend where the cache, which has room for it, is being filled, or has yet to hear of a write.
fn unlisted(error: ListError, kind: &KindDef, state: Option<State>) -> NoView {
    let is_kept = state.is_some_and(|state| state != State::Refused);
    if is_kept && matches!(error, ListError::TooMany(_)) {
        let args = [("kind", kind.name)];
        return NoView::Failed(ApiError::passing("error-cache-filling", &args));
    }
    error.into()
}

/// A list as the caller; credentials that it refuses end what is remembered of them, and what is
/// left out of it counts with its kind, if that is one that we keep.
pub async fn listed(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
    at: &(impl Fn(Option<&str>) -> String + Sync),
    reach: &Reach,
) -> Result<Listing, ListError> {
    let listing = list_as(&gateway.cluster, user, kind, at, reach).await;
    match &listing {
        Ok(Listing { malformed, .. }) => {
            if let Some(feed) = gateway.cache.feed(kind) {
                feed.malformed.fetch_add(*malformed, Ordering::Relaxed);
            }
        }
        Err(ListError::Failed(failure)) if failure.code() == Some(StatusCode::UNAUTHORIZED) => {
            gateway.authorizer.refused(user).await;
        }
        Err(_) => {}
    }
    listing
}

/// The first objects of a collection as the caller, and how many are behind them; `None` where
/// nobody tells that.
pub async fn first(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
    collection: &str,
    most: usize,
) -> Result<Option<Listing>, ListError> {
    let first = Listing::first(&gateway.cluster, user, kind, collection, most).await;
    Ok(gateway.authorizer.heed(user, first).await?)
}

/// Where the cluster serves a kind: for kinds of several versions the first served one that shows
/// the same fields.
pub async fn served(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
) -> Result<Resource, ApiError> {
    if kind.older.is_empty() {
        return Ok(kind.resource);
    }
    let is_it = |served: &Served| {
        served.group == kind.resource.group && served.plural == kind.resource.plural
    };
    let served = target::find(gateway, user, is_it).await?;
    let versions = [kind.resource.version].into_iter().chain(kind.older.iter().copied());
    let version = served.and_then(|served| {
        let mut versions = versions.filter(|version| served.version(Some(version)).is_some());
        versions.next()
    });
    match version {
        Some(version) => Ok(Resource { version, ..kind.resource }),
        None => Err(unknown(gateway, user, "error-unknown-kind", kind.name).await),
    }
}

/// 404 with a message about a kind that discovery does not know. Discovery is shared: whoever asks
/// must have good credentials, which such an answer would not have needed.
pub async fn unknown(
    gateway: &Gateway,
    user: &User,
    message: &'static str,
    kind: &str,
) -> ApiError {
    let error = ApiError::with_status(StatusCode::NOT_FOUND, message, &[("kind", kind)]);
    told_to_known(gateway, user, error).await
}

/// An error that tells of what is shared between callers, for those whom the API server knows.
pub async fn told_to_known(gateway: &Gateway, user: &User, error: ApiError) -> ApiError {
    verified(gateway, user).await.err().unwrap_or(error)
}

/// An error unless the API server takes the caller's credentials: for answers that need no other
/// word from it. A 403 is its word to somebody whom it knows, but for the one to who says to be
/// another: any name would be good for that. Silence proves nobody.
pub async fn verified(gateway: &Gateway, user: &User) -> Result<(), ApiError> {
    match live(gateway, user, "/version").await {
        Ok(_) => Ok(()),
        Err(Failure::Status { code: StatusCode::FORBIDDEN, message, .. })
            if !message.contains(IMPERSONATION) =>
        {
            Ok(())
        }
        Err(failure) => Err(failure.into()),
    }
}

/// The namespaces to ask about one by one when a caller has no cluster-wide right: those that we
/// watch, else those that the caller may list, else the configured ones. A list that fails for
/// another reason than a lack of rights says nothing of the caller's, and is not "none".
pub async fn known_namespaces(
    gateway: &Gateway,
    user: &User,
) -> Result<Vec<CompactString>, Failure> {
    if let Some(names) = gateway.cache.namespace_names() {
        return Ok(names);
    }
    let at = |namespace: Option<&str>| NAMESPACE.resource.collection(namespace);
    match listed(gateway, user, NAMESPACE, &at, &Reach::Everything).await {
        Ok(Listing { store, scope, .. }) => {
            let mut names = Vec::new();
            store.each(&scope, |row| names.push(row.name.clone()));
            Ok(names)
        }
        Err(ListError::Failed(failure))
            if failure.code() != Some(StatusCode::FORBIDDEN) && gateway.namespaces.is_empty() =>
        {
            Err(failure)
        }
        Err(_) => Ok(gateway.namespaces.clone()),
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;
    use crate::i18n::Locale;
    use crate::kinds::{EVENT, POD, REPLICA_SET, by_name};

    #[test]
    fn what_is_too_long_to_be_read_live_is_to_be_asked_for_again_if_the_cache_will_have_it() {
        let kind = by_name("pod").unwrap();
        let error = |state| unlisted(ListError::TooMany("pods"), kind, state).error();
        for state in [State::Starting, State::Current, State::Stale(Duration::from_secs(900))] {
            let filling = error(Some(state));
            assert_eq!(filling.status, StatusCode::SERVICE_UNAVAILABLE, "{state:?}");
            let answer = filling.into_text_response(Locale::EN);
            assert!(answer.headers().contains_key(header::RETRY_AFTER), "{state:?}");
        }
        for state in [None, Some(State::Refused)] {
            assert_eq!(error(state).status, StatusCode::PAYLOAD_TOO_LARGE, "{state:?}");
        }
    }

    #[test]
    fn kinds_that_code_names_are_those_of_the_table() {
        for kind in [EVENT, NAMESPACE, POD, REPLICA_SET] {
            // A store opens for the very kind alone, not for one of the same name.
            assert!(std::ptr::eq(kind, by_name(kind.name).unwrap()), "{}", kind.name);
        }
    }
}
