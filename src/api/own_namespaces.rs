//! The namespaces of who may not list namespaces: those in which this caller may list something
//! that we show. Whole rows where the caller may `get` the namespace, names alone elsewhere.
//!
//! Without it a namespace selector would be empty for everybody who is no administrator.

use std::collections::HashMap;
use std::sync::Arc;

use compact_str::CompactString;
use serde_json::json;

use super::Gateway;
use super::error::ApiError;
use super::related::known;
use super::target::{encoded, live_all};
use super::view;
use crate::cache::Page;
use crate::kinds::Row;
use crate::query::ListQuery;
use crate::upstream::User;

/// Whole rows of one answer: each is a GET as the caller. More namespaces show their names.
const WHOLE: usize = 50;

/// The page of the caller's own namespaces; `None` when there is not one.
pub async fn page(
    gateway: &Gateway,
    user: &User,
    query: &ListQuery,
) -> Result<Option<Page>, ApiError> {
    let kind = known("namespace")?;
    let candidates = view::known_namespaces(gateway, user).await;
    let visible = gateway.authorizer.visible(&gateway.cluster, user, &candidates).await?;
    if visible.is_empty() {
        return Ok(None);
    }
    let name_only = |name: &CompactString| {
        let json = json!({ "metadata": { "name": name } }).to_string();
        (kind.row)(&json).map(Arc::new)
    };
    let rows = visible.iter().map(|(name, _)| name_only(name)).collect::<Result<Vec<_>, _>>()?;
    let mut page = Page::of(&rows, query);
    let gettable: HashMap<&CompactString, bool> =
        visible.iter().map(|(name, may_get)| (name, *may_get)).collect();
    let path = |name: &str| format!("{}/{}", kind.resource.collection(None), encoded(name));
    let wanted = page.rows.iter().filter(|row| gettable.get(&row.name) == Some(&true));
    let wanted = wanted.take(WHOLE).map(|row| (row.name.clone(), path(&row.name))).collect();
    let mut whole: HashMap<CompactString, Arc<Row>> = HashMap::new();
    for (name, answer) in live_all(gateway, user, wanted).await {
        // One that is gone, or no longer theirs to read, keeps its name for this once.
        if let Some(row) = answer.ok().and_then(|json| (kind.row)(&json).ok()) {
            whole.insert(name, Arc::new(row));
        }
    }
    for row in &mut page.rows {
        if let Some(found) = whole.remove(&row.name) {
            *row = found;
        }
    }
    Ok(Some(page))
}
