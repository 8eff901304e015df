//! Lists of a kind: one answer where a client would need several requests.
//!
//! The way of a list: query → view of the kind → page → joins of the page's rows, each under a
//! view of its own → bytes. A list that is denied is an empty one with a word in `errors`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use compact_str::CompactString;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::error::ApiError;
use super::join::{Joins, kinds_joined};
use super::kept::{Baked, Recipe};
use super::listing;
use super::respond::{Freshness, Reply};
use super::view::{self, NoView, View};
use super::{Caller, Gateway, Shared, own_namespaces, usage};
use crate::cache::{Page, Series};
use crate::i18n::Locale;
use crate::kinds::{Join, KindDef, Row, by_name};
use crate::query::{self, ListQuery};
use crate::upstream::User;

/// Of a namespace's name (RFC 1123 label).
const LONGEST: usize = 63;

/// `GET /api/v1/{kind}[/{namespace}]`.
pub async fn list(
    State(gateway): Shared,
    Caller(user): Caller,
    kind: &'static KindDef,
    request: Request,
) -> Result<Response, ApiError> {
    let wanted = namespaces(request.uri().path(), kind)?;
    let asked = request.uri().query();
    let query = ListQuery::parse(asked, kind)?;
    let locale = gateway.locale_of(request.headers());
    let reply = answer(&gateway, &user, (kind, &wanted), (asked, &query), locale).await?;
    Ok(reply.warned(&query.warnings).respond(&gateway, request.headers()))
}

/// The namespaces that the path's last segment names.
fn namespaces(path: &str, kind: &KindDef) -> Result<Vec<CompactString>, ApiError> {
    let last = path.rsplit('/').next().unwrap_or_default();
    if !kind.resource.namespaced || path.rsplit('/').nth(1) != Some(kind.name) {
        return Ok(Vec::new());
    }
    named(last, is_harmless)
}

/// The namespaces of a path's segment, or of a text that holds no percent sign.
pub fn namespaces_in(segment: &str) -> Result<Vec<CompactString>, ApiError> {
    named(segment, is_namespace)
}

fn named(
    segment: &str,
    is_fit: impl Fn(&str) -> Result<(), ApiError>,
) -> Result<Vec<CompactString>, ApiError> {
    let decoded = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| ApiError::bad_request("error-bad-path", &[("reason", segment)]))?;
    let names = query::namespaces(&decoded)?;
    names.iter().try_for_each(|name| is_fit(name))?;
    Ok(names)
}

/// Whether this can be a namespace's name (RFC 1123 label): of writes and releases nothing else may
/// reach a path upstream.
pub fn is_namespace(name: &str) -> Result<(), ApiError> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edge = name.starts_with('-') || name.ends_with('-');
    if name.len() <= LONGEST && name.bytes().all(inner) && !edge {
        return Ok(());
    }
    Err(ApiError::bad_request("error-bad-path", &[("reason", name)]))
}

/// Whether this may stand in a path upstream. Nothing is in a namespace that cannot exist, as the
/// API server has it: people type half a name and see an empty list, no error.
pub fn is_harmless(name: &str) -> Result<(), ApiError> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() <= LONGEST && name.bytes().all(inner) && !matches!(name, "." | "..") {
        return Ok(());
    }
    Err(ApiError::bad_request("error-bad-path", &[("reason", name)]))
}

async fn answer(
    gateway: &Gateway,
    user: &User,
    (kind, wanted): (&'static KindDef, &[CompactString]),
    (asked, query): (Option<&str>, &ListQuery),
    locale: Locale,
) -> Result<Reply, ApiError> {
    let (primary, (mut joins, mut errors), (usage, unknown)) = tokio::join!(
        view::open(gateway, user, kind, wanted),
        open_joins(gateway, user, kind, wanted, locale),
        usage::shown(gateway, user, kind, wanted, locale),
    );
    joins.usage = usage;
    errors.extend(unknown);
    let mut denied = None;
    let primary = match primary {
        Ok(view) => Some(view),
        Err(NoView::Denied(error)) => {
            errors.insert(0, error.as_item(locale));
            denied = Some(error);
            None
        }
        Err(NoView::Failed(error)) => return Err(error),
    };
    let left_out = primary.iter().flat_map(|rows| joins.left_out(&rows.scope));
    errors.extend(left_out.map(|why| ApiError::from(why.clone()).as_item(locale)));
    let denials = primary.iter().filter_map(|view| view.denied_among(wanted));
    let missing = denials.chain(primary.iter().filter_map(View::missing));
    errors.extend(missing.map(|error| error.as_item(locale)));
    let freshness = Freshness::of(primary.iter().chain(joins.views()));
    let recipe = primary.as_ref().filter(|_| errors.is_empty());
    let recipe = recipe.and_then(|rows| Recipe::of(kind, asked, rows, &joins));
    if let Some(baked) = recipe.as_ref().and_then(|recipe| gateway.kept.get(recipe)) {
        return Ok(Reply::baked(baked, freshness));
    }
    let (page, left) = match &primary {
        Some(view) if sums_up_rows(kind, query, &joins) => {
            let (page, rows) = view.store().select_and_filter(&view.scope, query);
            (page, Some(rows))
        }
        Some(view) => (view.store().select(&view.scope, query), None),
        None if kind.name == "namespace" => {
            let own = Box::pin(own_namespaces::page(gateway, user, query)).await?;
            if let Some((_, partly)) = &own {
                // This is the whole of it, mostly: frontends take an error for "unknown".
                errors.clear();
                errors.extend(partly.iter().map(|error| error.as_item(locale)));
                denied = None;
            }
            (own.map(|(page, _)| page).unwrap_or_default(), None)
        }
        None => (Page::default(), None),
    };
    let status = primary.as_ref().map(|view| joins.status(kind, view)).unwrap_or_default();
    let total = primary.as_ref().and_then(|view| total(kind, view, left.as_deref(), &joins));
    let body = listing::body(kind, &status, (&joins, total), &page, Some(&errors))
        .map_err(|error| ApiError::internal(&error))?;
    let Some(recipe) = recipe else { return Ok(Reply::json(body, freshness).denied(denied)) };
    let baked = Baked { tag: gateway.tags.of(&body), body: body.into() };
    gateway.kept.put(&recipe, &baked);
    Ok(Reply::baked(baked, freshness))
}

/// Whether `cumulativeMetrics` need the rows that the filter leaves: all pods and nodes have been
/// added up before.
fn sums_up_rows(kind: &KindDef, query: &ListQuery, joins: &Joins) -> bool {
    let is_known = kind.joins.contains(&Join::Metrics) && !query.is_filtered();
    kind.list.metrics && joins.usage.is_some() && !is_known
}

/// Usage of all rows that the query's filter leaves, whatever the page: `cumulativeMetrics`.
fn total(kind: &KindDef, view: &View, left: Option<&[Arc<Row>]>, joins: &Joins) -> Option<Series> {
    let usage = joins.usage.as_ref().filter(|_| kind.list.metrics)?;
    Some(match left {
        Some(rows) => usage.of_rows(kind, rows, joins),
        None => usage.total(&view.scope),
    })
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
        // Boxed: most kinds need one of the three.
        async move {
            match kind {
                Some(kind) if all => Some(Box::pin(view::open_all(gateway, user, kind)).await),
                Some(kind) => Some(Box::pin(view::open(gateway, user, kind, wanted)).await),
                None => None,
            }
        }
    };
    let (events, pods, sets) = tokio::join!(open("event"), open("pod"), open("replicaset"));
    let mut errors = Vec::new();
    let mut keep = |view: Option<Result<View, NoView>>| match view? {
        Ok(view) => {
            let refused = view.refused.iter();
            errors.extend(refused.map(|why| ApiError::from(why.clone()).as_item(locale)));
            Some(view)
        }
        Err(none) => {
            errors.push(none.error().as_item(locale));
            None
        }
    };
    let joins =
        Joins { pods: keep(pods), events: keep(events), replica_sets: keep(sets), usage: None };
    (joins, errors)
}
