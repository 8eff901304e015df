//! Lists of a kind: one answer where a client would need several requests.
//!
//! The way of a list: query → view of the kind → page → joins of the page's rows, each under a
//! view of its own → bytes. A list that is denied is an empty one with a word in `errors`.
//!
//! Many rows are made into bytes by a thread of their own (`made`): workers have others to serve.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::header;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::join::{Joins, is_joined};
use super::kept::{Baked, Recipe};
use super::listing;
use super::own_namespaces;
use super::usage;
use super::view::{self, NoView, View};
use crate::api::error::ApiError;
use crate::api::respond::{Freshness, Reply, SHORT};
use crate::api::{Caller, Gateway, Shared};
use crate::auth::Reach;
use crate::cache::{Page, Series};
use crate::i18n::Locale;
use crate::kinds::{EVENT, Join, KindDef, NAMESPACE, POD, REPLICA_SET, Row};
use crate::query::{self, ListQuery};
use crate::upstream::{Fingerprint, User};

/// Of a namespace's name (RFC 1123 label).
const LONGEST: usize = 63;
/// Rows that are chosen and written where they are asked for, in some 20 ms at most: 150,000 pods
/// take a second or two.
const MANY: usize = 2_000;
/// More rows than these make a very long answer.
const VERY_MANY: usize = 10 * MANY;
/// Very long answers that are made side by side: the machine has others to serve, and each takes
/// memory.
static VERY_LONG: Semaphore = Semaphore::const_new(2);
/// Long ones, which need not wait for those.
static LONG: Semaphore = Semaphore::const_new(4);
/// Longest wait for a turn: rights and rows are older by it, as docs/limits.md says.
const WAIT: Duration = Duration::from_secs(5);

/// A list that may be of [`MANY`] rows.
#[derive(Clone, Copy)]
struct Many {
    /// Its bytes will need room until they are taken: live answers have their own, and of one that
    /// its asker has already there may be none.
    needs_room: bool,
}

impl Many {
    fn of(query: &ListQuery, request: &Request) -> Option<Self> {
        if query.page.is_some_and(|page| page.size <= MANY) {
            return None;
        }
        let is_known = request.headers().contains_key(header::IF_NONE_MATCH);
        let is_live = request.extensions().get::<Caller>().is_some();
        Some(Self { needs_room: !is_known && !is_live })
    }
}

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
    let many = Many::of(&query, &request);
    let reply = answer(&gateway, &user, (kind, &wanted), (asked, &query, many), locale).await?;
    Ok(reply.warned(&query.warnings).respond(&gateway, request.headers()))
}

/// The namespaces that the path's last segment names; everything where it names none.
fn namespaces(path: &str, kind: &KindDef) -> Result<Reach, ApiError> {
    let mut segments = path.rsplit('/');
    let last = segments.next().unwrap_or_default();
    if !kind.resource.namespaced || segments.next() != Some(kind.name) {
        return Ok(Reach::Everything);
    }
    named(last, is_harmless)
}

/// The namespaces of a path's segment, or of a text that holds no percent sign; everything where
/// it names none.
pub fn namespaces_in(segment: &str) -> Result<Reach, ApiError> {
    named(segment, is_namespace)
}

fn named(segment: &str, is_fit: impl Fn(&str) -> Result<(), ApiError>) -> Result<Reach, ApiError> {
    let decoded = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| ApiError::bad_request("error-bad-path", &[("reason", segment)]))?;
    let names = query::namespaces(&decoded)?;
    names.iter().try_for_each(|name| is_fit(name))?;
    Ok(Reach::named(names))
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
    gateway: &Arc<Gateway>,
    user: &User,
    (kind, wanted): (&'static KindDef, &Reach),
    (asked, query, many): (Option<&str>, &ListQuery, Option<Many>),
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
    let recipe = primary.as_ref().filter(|_| errors.is_empty());
    let recipe = recipe.and_then(|rows| Recipe::of(kind, asked, rows, &joins));
    if let Some(baked) = recipe.as_ref().and_then(|recipe| gateway.kept.get(recipe)) {
        return Ok(Reply::baked(&baked));
    }
    let freshness = Freshness::of(primary.iter().chain(joins.views()));
    if let Some(Many { needs_room }) = many
        && let Some(rows) = primary.as_ref().map(|view| view.store().count(&view.scope))
        && rows > MANY
        && let Some(view) = primary
    {
        let (asked, query) = (asked.map(str::to_owned), query.clone());
        let parts = Parts { kind, asked, query, view, joins, errors, freshness };
        let (gateway, room) = (gateway.clone(), needs_room.then(|| user.fingerprint()));
        let baked = Box::pin(apart(rows, move || parts.baked(&gateway, room))).await?;
        return Ok(Reply::baked(&baked));
    }
    let (page, left) = match &primary {
        Some(view) => chosen(kind, view, query, &joins),
        None if kind == NAMESPACE => {
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
    let body = written(kind, primary.as_ref(), &joins, (&page, left.as_deref()), &errors)?;
    let Some(recipe) = recipe else { return Ok(Reply::json(body, freshness).denied(denied)) };
    let baked = Arc::new(Baked::of(gateway, body, freshness));
    gateway.kept.put(&recipe, &baked);
    Ok(Reply::baked(&baked))
}

/// What an answer of many rows is made of.
struct Parts {
    kind: &'static KindDef,
    asked: Option<String>,
    query: ListQuery,
    view: View,
    joins: Joins,
    errors: Vec<Value>,
    freshness: Freshness,
}

impl Parts {
    /// `room`: who needs some for the bytes, which is asked before they are made.
    fn baked(self, gateway: &Gateway, room: Option<Fingerprint>) -> Result<Arc<Baked>, ApiError> {
        let Self { kind, asked, query, view, joins, errors, freshness } = self;
        let recipe = Some(&view).filter(|_| errors.is_empty());
        let recipe = recipe.and_then(|rows| Recipe::of(kind, asked.as_deref(), rows, &joins));
        let (page, left) = chosen(kind, &view, &query, &joins);
        let least: usize = page.rows.iter().map(|row| row.json.len()).sum();
        if let Some(who) = room.filter(|_| least > SHORT) {
            gateway.answers.has_room(who, least)?;
        }
        let body = written(kind, Some(&view), &joins, (&page, left.as_deref()), &errors)?;
        let baked = Arc::new(Baked::of(gateway, body, freshness));
        // Many rows, of which a filter may have left a few.
        if let Some(recipe) = recipe {
            gateway.kept.put(&recipe, &baked);
        }
        Ok(baked)
    }
}

/// Makes an answer of so many rows: of a few here and now, of many by a thread of its own.
pub async fn made<T: Send + 'static>(
    rows: usize,
    make: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if rows > MANY { apart(rows, make).await } else { make() }
}

async fn apart<T: Send + 'static>(
    rows: usize,
    make: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let places = if rows > VERY_MANY { &VERY_LONG } else { &LONG };
    let busy = |_| ApiError::passing("error-answers-too-much", &[]);
    let turn = timeout(WAIT, places.acquire()).await.map_err(busy)?;
    let make = move || {
        let _turn = turn;
        make()
    };
    spawn_blocking(make).await.map_err(|error| ApiError::internal(&error))?
}

/// The rows of the page, and all that the filter leaves where those are added up.
fn chosen(
    kind: &KindDef,
    view: &View,
    query: &ListQuery,
    joins: &Joins,
) -> (Page, Option<Vec<Arc<Row>>>) {
    if sums_up_rows(kind, query, joins) {
        let (page, rows) = view.store().select_and_filter(&view.scope, query);
        return (page, Some(rows));
    }
    (view.store().select(&view.scope, query), None)
}

/// The bytes of the list.
fn written(
    kind: &KindDef,
    primary: Option<&View>,
    joins: &Joins,
    (page, left): (&Page, Option<&[Arc<Row>]>),
    errors: &[Value],
) -> Result<Bytes, ApiError> {
    let status = primary.map(|view| joins.status(kind, view)).unwrap_or_default();
    let total = primary.and_then(|view| total(kind, view, left, joins));
    let body = listing::body(kind, &status, (joins, total), page, Some(errors));
    body.map(Bytes::from).map_err(|error| ApiError::internal(&error))
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
    wanted: &Reach,
    locale: Locale,
) -> (Joins, Vec<Value>) {
    // Node allocation adds up the pods of all namespaces: a part of them would be a wrong number.
    let all = kind.joins.contains(&Join::Allocation);
    let open = |other: &'static KindDef| {
        let is_read = is_joined(kind, other.name);
        // Boxed: most kinds need one of the three.
        async move {
            match is_read {
                true if all => Some(Box::pin(view::open_all(gateway, user, other)).await),
                true => Some(Box::pin(view::open(gateway, user, other, wanted)).await),
                false => None,
            }
        }
    };
    let (events, pods, sets) = tokio::join!(open(EVENT), open(POD), open(REPLICA_SET));
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use axum::body::Body;
    use http::HeaderMap;

    use super::*;
    use crate::kinds::by_name;

    #[tokio::test]
    async fn others_have_their_turn_while_an_answer_of_many_rows_is_made() {
        let (tell, told) = mpsc::channel();
        tokio::spawn(async move { tell.send(()) });
        let make = move || Ok(told.recv_timeout(Duration::from_secs(60)).is_ok());
        assert!(made(MANY + 1, make).await.unwrap(), "the runtime's only thread was taken");
        let here = std::thread::current().id();
        assert_eq!(made(MANY, || Ok(std::thread::current().id())).await.unwrap(), here);
    }

    #[test]
    fn pages_are_made_where_they_are_asked_for_and_room_is_asked_of_plain_lists_alone() {
        let kind = by_name("pod").unwrap();
        let many = |query: &str, request: &Request| {
            let query = ListQuery::parse(Some(query), kind).unwrap();
            Many::of(&query, request).map(|many| many.needs_room)
        };
        let plain = Request::new(Body::empty());
        assert_eq!(many("itemsPerPage=10&page=1", &plain), None);
        assert_eq!(many("itemsPerPage=2000&page=1", &plain), None);
        assert_eq!(many("itemsPerPage=2001&page=1", &plain), Some(true));
        assert_eq!(many("", &plain), Some(true));
        let mut known = Request::new(Body::empty());
        known.headers_mut().insert(header::IF_NONE_MATCH, header::HeaderValue::from_static("*"));
        assert_eq!(many("", &known), Some(false));
        let mut live = Request::new(Body::empty());
        let user = User::bearer("somebody", &HeaderMap::new()).unwrap();
        live.extensions_mut().insert(Caller(user));
        assert_eq!(many("", &live), Some(false));
    }
}
