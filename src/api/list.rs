//! Lists of a kind: one answer where a client would need several requests.
//!
//! The way of a list: query → view of the kind → page → joins of the page's rows, each under a
//! view of its own → bytes. A list that is denied is an empty one with a word in `errors`.

use axum::extract::{Request, State};
use axum::response::Response;
use compact_str::CompactString;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::error::ApiError;
use super::join::{Joins, Status, kinds_joined};
use super::listing;
use super::respond::{Freshness, Reply};
use super::view::{self, NoView, View};
use super::{Caller, Gateway, Shared};
use crate::i18n::Locale;
use crate::kinds::{Join, KindDef, PodsOf, by_name};
use crate::query::{self, ListQuery};
use crate::upstream::User;

/// `GET /api/v1/{kind}[/{namespace}]`.
pub async fn list(
    State(gateway): Shared,
    Caller(user): Caller,
    kind: &'static KindDef,
    request: Request,
) -> Result<Response, ApiError> {
    let wanted = namespaces(request.uri().path(), kind)?;
    let query = ListQuery::parse(request.uri().query(), kind)?;
    let locale = gateway.locale_of(request.headers());
    let reply = answer(&gateway, &user, kind, &wanted, &query, locale).await?;
    Ok(reply.warned(&query.warnings).respond(&gateway, request.headers()))
}

/// The namespaces that the path's last segment names.
fn namespaces(path: &str, kind: &KindDef) -> Result<Vec<CompactString>, ApiError> {
    let last = path.rsplit('/').next().unwrap_or_default();
    if !kind.resource.namespaced || path.rsplit('/').nth(1) != Some(kind.name) {
        return Ok(Vec::new());
    }
    let decoded = percent_decode_str(last)
        .decode_utf8()
        .map_err(|_| ApiError::bad_request("error-bad-path", &[("reason", path)]))?;
    let names = query::namespaces(&decoded);
    match names.iter().find(|name| !is_namespace(name)) {
        Some(bad) => Err(ApiError::bad_request("error-bad-path", &[("reason", bad)])),
        None => Ok(names),
    }
}

/// Whether this can be a namespace's name (RFC 1123 label): nothing else may reach a path upstream.
fn is_namespace(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= 63 && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

async fn answer(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
    wanted: &[CompactString],
    query: &ListQuery,
    locale: Locale,
) -> Result<Reply, ApiError> {
    let (primary, (joins, mut errors)) = tokio::join!(
        view::open(gateway, user, kind, wanted),
        open_joins(gateway, user, kind, wanted, locale),
    );
    let primary = match primary {
        Ok(view) => Some(view),
        Err(NoView::Denied(error)) => {
            errors.insert(0, error.as_item(locale));
            None
        }
        Err(NoView::Failed(error)) => return Err(error),
    };
    let page = primary.as_ref().map(|view| view.store().select(&view.scope, query));
    let page = page.unwrap_or_default();
    let freshness = Freshness::of(primary.iter().chain(joins.views()));
    let status = primary.as_ref().filter(|_| kind.list.status);
    let status = status.map(|view| status_of(kind, view, &joins)).unwrap_or_default();
    let body = listing::body(kind, &status, &joins, &page, Some(&errors))
        .map_err(|error| ApiError::internal(&error))?;
    Ok(Reply::json(body, freshness))
}

/// The views that the kind's joins need, side by side; what cannot be had is named.
pub async fn open_joins(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
    wanted: &[CompactString],
    locale: Locale,
) -> (Joins, Vec<Value>) {
    let names = kinds_joined(kind);
    // Node allocation adds up the pods of all namespaces: a part of them would be a wrong number.
    let all = kind.joins.contains(&Join::Allocation);
    let open = |name: &'static str| {
        let kind = by_name(name).filter(|_| names.contains(&name));
        async move {
            match kind {
                Some(kind) if all => Some(view::open_all(gateway, user, kind).await),
                Some(kind) => Some(view::open(gateway, user, kind, wanted).await),
                None => None,
            }
        }
    };
    let (events, pods, sets) = tokio::join!(open("event"), open("pod"), open("replicaset"));
    let mut errors = Vec::new();
    let mut keep = |view: Option<Result<View, NoView>>| match view? {
        Ok(view) => Some(view),
        Err(none) => {
            errors.push(none.error().as_item(locale));
            None
        }
    };
    let joins = Joins { pods: keep(pods), events: keep(events), replica_sets: keep(sets) };
    (joins, errors)
}

fn status_of(kind: &KindDef, view: &View, joins: &Joins) -> Status {
    let pods = kind.joins.iter().find_map(|join| match join {
        Join::PodInfo { pods, .. } => Some(*pods),
        _ => None,
    });
    match pods {
        Some(how @ (PodsOf::Owner | PodsOf::ReplicaSets)) => joins.workload_status(view, how),
        None => joins.pod_status(view),
    }
}
