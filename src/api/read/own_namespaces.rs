//! The namespaces of who may not list namespaces: those in which this caller may list something
//! that not everywhere, and those of rows that this caller may list everywhere. So nobody learns
//! of a namespace who could not learn of it from the API server. Whole rows where the caller may
//! `get` the namespace, names alone elsewhere.
//!
//! Without it a namespace selector would be empty for everybody who is no administrator.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use compact_str::CompactString;
use http::StatusCode;
use serde_json::json;

use super::related::known;
use super::view;
use crate::api::Gateway;
use crate::api::error::ApiError;
use crate::api::target::{encoded, live_all};
use crate::auth::Reach;
use crate::cache::Page;
use crate::kinds::{KindDef, Row};
use crate::query::{Key, ListQuery};
use crate::upstream::User;

/// Whole rows of one answer: each is a GET as the caller. More namespaces show their names.
const WHOLE: usize = 50;

/// The page of the caller's own namespaces, and a word where some may be missing from it or where
/// only names decide about their order; `None` when there is not one.
pub async fn page(
    gateway: &Gateway,
    user: &User,
    query: &ListQuery,
) -> Result<Option<(Page, Option<ApiError>)>, ApiError> {
    let kind = known("namespace")?;
    let candidates = view::known_namespaces(gateway, user).await?;
    let (everywhere, mut visible) =
        gateway.authorizer.visible(&gateway.cluster, user, &candidates).await?;
    let mut inhabited = HashSet::new();
    for kind in everywhere.into_iter().filter(|kind| gateway.cache.feed(kind).is_some()) {
        // A kind that cannot be read now takes its namespaces with it, and no others.
        // A webhook may mean every namespace that is named, and not all of them at once.
        if let Ok(view) = view::open(gateway, user, kind, &Reach::Everything).await {
            inhabited.extend(view.store().namespaces(&view.scope));
        }
    }
    visible.retain(|one| one.is_own || inhabited.contains(&one.name));
    if visible.is_empty() {
        return Ok(None);
    }
    let name_only = |name: &CompactString| {
        let json = json!({ "metadata": { "name": name } }).to_string();
        (kind.row)(&json).map(Arc::new)
    };
    let mut rows = visible.iter().map(|one| name_only(&one.name)).collect::<Result<Vec<_>, _>>()?;
    let gettable: HashSet<&CompactString> =
        visible.iter().filter(|one| one.may_get).map(|one| &one.name).collect();
    let (mut query, mut partly, mut unread) = (query.clone(), None, true);
    if needs_content(&query) {
        // What a name rules out need not be read.
        let mut by_name = query.filters.clone();
        by_name.retain(|filter| is_name(filter.key));
        rows.retain(|row| by_name.iter().all(|filter| filter.matches(row)));
        unread = rows.iter().filter(|row| gettable.contains(&row.name)).count() > WHOLE;
        let is_order_alone = !filters_content(&query);
        if unread {
            let (too_many, most) = (StatusCode::PAYLOAD_TOO_LARGE, WHOLE.to_string());
            let id = match is_order_alone {
                true => "error-namespaces-by-name",
                false => "error-custom-objects-in-part",
            };
            partly = Some(ApiError::with_status(too_many, id, &[("most", &most)]));
        }
        if unread && is_order_alone {
            // Those that are not read would all stand at one end.
            query.sort.retain(|sort| is_name(sort.key));
        } else {
            fill(gateway, user, (kind, &gettable), &mut rows).await;
        }
    }
    let mut page = Page::of(&rows, &query);
    if unread {
        fill(gateway, user, (kind, &gettable), &mut page.rows).await;
    }
    Ok(Some((page, partly)))
}

fn is_name(key: Key) -> bool {
    matches!(key, Key::Name | Key::Namespace)
}

/// Whether more than names decides who is on the page, and where.
fn needs_content(query: &ListQuery) -> bool {
    filters_content(query) || query.sort.iter().any(|sort| !is_name(sort.key))
}

/// Whether more than names decides who is on the page.
fn filters_content(query: &ListQuery) -> bool {
    !query.labels.is_empty() || query.filters.iter().any(|filter| !is_name(filter.key))
}

/// Puts whole rows in the places of the first of those that the caller may read.
async fn fill(
    gateway: &Gateway,
    user: &User,
    (kind, gettable): (&'static KindDef, &HashSet<&CompactString>),
    rows: &mut [Arc<Row>],
) {
    let path = |name: &str| format!("{}/{}", kind.resource.collection(None), encoded(name));
    let wanted = rows.iter().filter(|row| gettable.contains(&row.name));
    let wanted = wanted.take(WHOLE).map(|row| (row.name.clone(), path(&row.name))).collect();
    let mut whole: HashMap<CompactString, Arc<Row>> = HashMap::new();
    for (name, answer) in live_all(gateway, user, wanted).await {
        // One that is gone, or no longer theirs to read, keeps its name for this once.
        if let Some(row) = answer.ok().and_then(|json| (kind.row)(&json).ok()) {
            whole.insert(name, Arc::new(row));
        }
    }
    for row in rows {
        if let Some(found) = whole.remove(&row.name) {
            *row = found;
        }
    }
}
