//! Where the rows of an answer come from: the shared cache under the caller's scope, or a live
//! list as the caller. Either way a store and a scope, so that what follows cannot tell.
//!
//! It joins nothing and writes no HTTP.

use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;

use super::Gateway;
use super::error::ApiError;
use crate::auth::{Reach, Refusal, Scope};
use crate::cache::{Feed, Listing, State, Store, list_as};
use crate::kinds::{KindDef, by_name};
use crate::upstream::User;

/// Rows of one kind that this caller may see.
pub struct View {
    pub scope: Scope,
    rows: Rows,
    /// How old the rows are; zero while a watch is open or for a live list.
    pub age: Duration,
}

enum Rows {
    Shared(Arc<Feed>),
    Own(Store),
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

    pub fn is_shared(&self) -> bool {
        matches!(self.rows, Rows::Shared(_))
    }
}

impl NoView {
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

/// What `user` may see of `kind` in the `wanted` namespaces (empty: all).
pub async fn open(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
    wanted: &[CompactString],
) -> Result<View, NoView> {
    let known = async || known_namespaces(gateway, user).await;
    let scope = gateway.authorizer.scope(&gateway.cluster, user, kind, wanted, known).await?;
    within(gateway, user, kind, scope).await
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
        if let Some(age) = age {
            return Ok(View { scope, rows: Rows::Shared(feed.clone()), age });
        }
    }
    let namespaces: Vec<CompactString> = match scope.reach() {
        Reach::Everything => Vec::new(),
        Reach::Namespaces(names) => names.iter().cloned().collect(),
    };
    // Boxed: the common way through the cache must not carry this large future about.
    let listing = Box::pin(list_as(&gateway.cluster, user, kind, &namespaces)).await;
    let Listing { store, scope } = listing.map_err(|error| NoView::Failed(error.into()))?;
    Ok(View { scope, rows: Rows::Own(store), age: Duration::ZERO })
}

/// The namespaces to ask about one by one when a caller has no cluster-wide right: those that we
/// watch, else those that the caller may list, else the configured ones.
async fn known_namespaces(gateway: &Gateway, user: &User) -> Vec<CompactString> {
    if let Some(names) = gateway.cache.namespace_names() {
        return names;
    }
    let Some(namespaces) = by_name("namespace") else { return Vec::new() };
    match list_as(&gateway.cluster, user, namespaces, &[]).await {
        Ok(Listing { store, scope }) => {
            let mut names = Vec::new();
            store.each(&scope, |row| names.push(row.name.clone()));
            names
        }
        Err(_) => gateway.namespaces.clone(),
    }
}
