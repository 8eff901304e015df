//! The list of releases: one list of their Secrets' metadata as the caller, then what is remembered
//! of just those Secrets, and the content of those alone of which nothing is.
//!
//! It knows nothing of how Helm packs a record, and shows no values.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use compact_str::CompactString;
use futures::StreamExt as _;
use http::StatusCode;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::read::detail::distinct;
use crate::api::read::join::{Joins, Status};
use crate::api::read::list::namespaces_in;
use crate::api::read::listing;
use crate::api::read::related::known;
use crate::api::read::view::{self, NoView};
use crate::api::respond::{Freshness, Reply};
use crate::api::target::encoded;
use crate::api::{Caller, Gateway, Shared};
use crate::auth::Reach;
use crate::cache::{self, Listing, Page};
use crate::helm::facts::{Fact, Read};
use crate::helm::legacy;
use crate::i18n::Locale;
use crate::kinds::release::{CONTENT, RELEASE, REVISION, named, secret_name};
use crate::kinds::{Cell, Row, time};
use crate::query::{Key, ListQuery, Sort};
use crate::upstream::User;

/// Secrets that hold a revision, and those of them that are not superseded: `owner=helm` and
/// `type=helm.sh/release.v1`, encoded.
const EVERY: &str = "labelSelector=owner%3Dhelm&fieldSelector=type%3Dhelm.sh%2Frelease.v1";
const CURRENT: &str = "labelSelector=owner%3Dhelm%2Cstatus%21%3Dsuperseded\
                       &fieldSelector=type%3Dhelm.sh%2Frelease.v1";
/// Records read one by one for one answer; of more, and more than this part of those listed, the
/// whole list is read with its content.
const SINGLE: usize = 32;
const PART: usize = 16;
/// Reads of content side by side: one request must not crowd out others.
const AT_ONCE: usize = 8;
/// Revisions of one release are told apart in every order.
const TIES: [Sort; 3] = [
    Sort { key: Key::Namespace, descending: false },
    Sort { key: Key::Name, descending: false },
    Sort { key: Key::Cell(REVISION), descending: true },
];
/// What begins so among the labels says something about protection.
const OURS: &str = "binnacle.dev/";

/// A release within the cluster.
type Place = (CompactString, CompactString);

/// What one request lists.
struct Ask<'a> {
    gateway: &'a Gateway,
    user: &'a User,
    /// Where the caller may list them.
    reach: Reach,
    /// Of Secrets.
    selector: &'static str,
}

/// What a list item has beyond metadata.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    chart: &'a str,
    chart_version: &'a str,
    app_version: &'a str,
    updated: Option<String>,
    description: &'a str,
    protected: bool,
}

/// `GET /api/v1/release[/{namespaces}]`; with `all=true` every revision.
pub async fn list(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let mut segments = request.uri().path().rsplit('/');
    let last = segments.next().unwrap_or_default();
    let wanted = match segments.next() {
        Some("release") => namespaces_in(last)?,
        _ => Reach::Everything,
    };
    let asked = request.uri().query();
    let mut query = ListQuery::parse(asked, &RELEASE)?;
    query.sort.extend(TIES);
    let selector = if wants_every(asked) { EVERY } else { CURRENT };
    let locale = gateway.locale_of(request.headers());
    let reply = answer(&gateway, &user, (&wanted, selector), &query, locale).await?;
    Ok(reply.warned(&query.warnings).respond(&gateway, request.headers()))
}

fn wants_every(query: Option<&str>) -> bool {
    let mut pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.any(|(name, value)| name == "all" && value == "true")
}

/// The caller's releases of Helm 3 and later in all namespaces, each by its newest revision with
/// what is known of its content, and why some are missing. Only refused credentials fail it.
pub async fn installed(
    gateway: &Gateway,
    user: &User,
) -> Result<(Vec<(Arc<Row>, Arc<Fact>)>, Option<ApiError>), ApiError> {
    let (ask, rows, missing) = match secrets(gateway, user, &Reach::Everything, CURRENT).await {
        Ok(listed) => listed,
        Err(none) => return Ok((Vec::new(), Some(none.unless_unauthorized()?))),
    };
    let rows: Vec<Arc<Row>> = newest(&rows).into_values().collect();
    let mut facts = Read::new();
    let unknown = ask.learn(&rows, rows.len(), &mut facts).await?;
    let known = rows.into_iter().filter_map(|row| {
        let fact = facts.get(&row.uid)?.clone();
        Some((row, fact))
    });
    Ok((known.collect(), missing.or(unknown)))
}

async fn answer(
    gateway: &Gateway,
    user: &User,
    (wanted, selector): (&Reach, &'static str),
    query: &ListQuery,
    locale: Locale,
) -> Result<Reply, ApiError> {
    let (secrets, legacy) =
        tokio::join!(secrets(gateway, user, wanted, selector), legacy(gateway, user, wanted));
    let (ask, rows, missing) = match secrets {
        Ok(listed) => listed,
        Err(NoView::Failed(error)) => return Err(error),
        Err(NoView::Denied(error)) => {
            let errors = [error.as_item(locale)];
            return Ok(reply(&Page::default(), &errors)?.denied(Some(error)));
        }
    };
    let mut errors: Vec<_> = missing.iter().map(|error| error.as_item(locale)).collect();
    let (old, mut facts) = match legacy {
        Ok((old, facts, unasked)) => {
            errors.extend(unasked.map(|error| error.as_item(locale)));
            (old, facts)
        }
        // Who may not look there has no releases of Helm 2.
        Err(NoView::Denied(_)) => Default::default(),
        Err(none) => {
            errors.push(none.unless_unauthorized()?.as_item(locale));
            Default::default()
        }
    };
    let every = selector == EVERY;
    let newest = newest(&rows);
    let mut rows = if every { rows } else { newest.values().cloned().collect() };
    rows.extend(shown_of_old(old, every));
    if needs_content(query) {
        let failed = ask.learn(&rows, rows.len(), &mut facts).await?;
        errors.extend(failed.map(|error| error.as_item(locale)));
        rows = rows.into_iter().map(|row| filled(row, &facts)).collect();
    }
    let mut page = Page::of(&rows, query);
    if !needs_content(query) {
        let failed = ask.learn(&page.rows, rows.len(), &mut facts).await?;
        errors.extend(failed.map(|error| error.as_item(locale)));
    }
    let nothing = Fact::default();
    let finish = |row: &Arc<Row>| {
        let fact = facts.get(&row.uid).map_or(&nothing, Arc::as_ref);
        let guarded = newest.get(&place(row)).unwrap_or(row);
        finished(row, fact, is_protected(gateway, guarded))
    };
    let items: serde_json::Result<Vec<_>> = page.rows.iter().map(finish).collect();
    page.rows = items.map_err(|error| ApiError::internal(&error))?;
    reply(&page, &distinct(errors))
}

fn reply(page: &Page, errors: &[serde_json::Value]) -> Result<Reply, ApiError> {
    let (status, joins) = (Status::default(), Joins::default());
    let body = listing::body(&RELEASE, &status, (&joins, None), page, Some(errors))
        .map_err(|error| ApiError::internal(&error))?;
    Ok(Reply::json(body, Freshness::default().with_live()))
}

/// The revisions that the caller may list, named after their releases, and why some are missing.
async fn secrets<'a>(
    gateway: &'a Gateway,
    user: &'a User,
    wanted: &Reach,
    selector: &'static str,
) -> Result<(Ask<'a>, Vec<Arc<Row>>, Option<ApiError>), NoView> {
    let secret = known("secret").map_err(NoView::Failed)?;
    let scope = view::scope(gateway, user, secret, wanted).await?;
    let ask = Ask { gateway, user, reach: scope.reach().clone(), selector };
    let at = |namespace: Option<&str>| ask.path(namespace, selector);
    let _turn = gateway.live.turn(user).await.map_err(NoView::Failed)?;
    let listing = Box::pin(view::listed(gateway, user, &RELEASE, &at, &ask.reach)).await;
    let mut listing = listing?;
    let rest = view::denied_among(&scope, wanted).or(view::unasked(&scope)).cloned();
    let missing = listing.refused.take().or(rest).map(ApiError::from);
    let rows = rows(listing);
    let rows = rows.into_iter().map(|row| {
        let mut row = Arc::unwrap_or_clone(row);
        if let Some((release, _)) = named(&row.name) {
            row.name = release.into();
        }
        Arc::new(row)
    });
    Ok((ask, rows.collect(), missing))
}

/// Rows of Helm 2's ConfigMaps, with all that is known of them, and why nobody could be asked about
/// more: from the shared rows where we keep ConfigMaps, else listed as the caller.
async fn legacy(
    gateway: &Gateway,
    user: &User,
    wanted: &Reach,
) -> Result<(Vec<Arc<Row>>, Read, Option<ApiError>), NoView> {
    let kind = known("configmap").map_err(NoView::Failed)?;
    let state = gateway.cache.feed(kind).map(|feed| feed.state());
    let (mut found, mut facts) = (Vec::new(), Read::new());
    let take = |map: &Arc<Row>| {
        if let Some((row, fact)) = legacy::row(map) {
            facts.insert(row.uid.clone(), Arc::new(fact));
            found.push(Arc::new(row));
        }
    };
    if matches!(state, Some(cache::State::Current | cache::State::Stale(_))) {
        let view = Box::pin(view::open(gateway, user, kind, wanted)).await?;
        view.store().each(&view.scope, take);
        return Ok((found, facts, view.unasked().cloned().map(ApiError::from)));
    }
    let scope = view::scope(gateway, user, kind, wanted).await?;
    let selector = encoded(legacy::SELECTOR);
    let at = |namespace: Option<&str>| {
        format!("{}?labelSelector={selector}", kind.resource.collection(namespace))
    };
    let listing = Box::pin(view::listed(gateway, user, kind, &at, scope.reach())).await;
    rows(listing?).iter().for_each(take);
    Ok((found, facts, view::unasked(&scope).cloned().map(ApiError::from)))
}

fn rows(Listing { store, scope, .. }: Listing) -> Vec<Arc<Row>> {
    let mut rows = Vec::with_capacity(store.len());
    store.each(&scope, |row| rows.push(row.clone()));
    rows
}

fn place(row: &Row) -> Place {
    (row.namespace.clone(), row.name.clone())
}

fn revision(row: &Row) -> i64 {
    match row.cells.get(REVISION) {
        Some(Cell::Number(revision)) => *revision,
        _ => 0,
    }
}

/// The newest revision of each release. Where superseded ones are not listed this is the newest as
/// well: Helm supersedes a revision only by a newer one.
fn newest(rows: &[Arc<Row>]) -> HashMap<Place, Arc<Row>> {
    let mut newest: HashMap<Place, Arc<Row>> = HashMap::with_capacity(rows.len());
    for row in rows {
        let held = newest.entry(place(row)).or_insert_with(|| row.clone());
        if revision(held) < revision(row) {
            *held = row.clone();
        }
    }
    newest
}

/// Of Helm 2's releases the same: all, or the newest of each where it is not superseded.
fn shown_of_old(rows: Vec<Arc<Row>>, every: bool) -> Vec<Arc<Row>> {
    if every {
        return rows;
    }
    let superseded = Cell::Text("superseded".into());
    let newest = newest(&rows).into_values();
    newest.filter(|row| row.cells.first() != Some(&superseded)).collect()
}

/// Whether content decides which rows are on the page.
fn needs_content(query: &ListQuery) -> bool {
    let is_content = |key: &Key| matches!(key, Key::Cell(index) if *index >= CONTENT);
    query.sort.iter().any(|sort| is_content(&sort.key))
        || query.filters.iter().any(|filter| is_content(&filter.key))
}

fn filled(row: Arc<Row>, facts: &Read) -> Arc<Row> {
    let Some(fact) = facts.get(&row.uid) else { return row };
    let mut row = Arc::unwrap_or_clone(row);
    let text = |text: &CompactString| Cell::Text(text.clone());
    let content = [
        text(&fact.chart),
        text(&fact.chart_version),
        text(&fact.app_version),
        Cell::Time(fact.updated),
    ];
    for (cell, content) in row.cells.iter_mut().skip(CONTENT).zip(content) {
        *cell = content;
    }
    Arc::new(row)
}

fn is_protected(gateway: &Gateway, row: &Row) -> bool {
    let ours = row.labels.iter().filter(|(key, _)| key.starts_with(OURS));
    let labels: BTreeMap<String, String> =
        ours.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    gateway.helm.protection.of(&row.namespace, &row.name, &labels).protected
}

/// The row with its whole list item.
fn finished(row: &Row, fact: &Fact, protected: bool) -> serde_json::Result<Arc<Row>> {
    let shown = Shown {
        chart: &fact.chart,
        chart_version: &fact.chart_version,
        app_version: &fact.app_version,
        updated: fact.updated.and_then(time),
        description: &fact.description,
        protected,
    };
    let more = serde_json::to_vec(&shown)?;
    let mut json = Vec::with_capacity(row.json.len() + more.len());
    // Two objects become one: the first one's end and the second one's begin are a comma.
    json.extend_from_slice(row.json.strip_suffix(b"}").unwrap_or(&row.json));
    json.push(b',');
    json.extend_from_slice(more.strip_prefix(b"{").unwrap_or(&more));
    Ok(Arc::new(Row { json: json.into(), ..row.clone() }))
}

impl Ask<'_> {
    /// A list of Secrets.
    fn path(&self, namespace: Option<&str>, selector: &str) -> String {
        let namespace = namespace.map(encoded);
        format!("{}?{selector}", RELEASE.resource.collection(namespace.as_deref()))
    }

    /// Brings `facts` up to what these rows need; `listed` is how many there are in all. What
    /// cannot be read is told of, and its rows stay without; refused credentials are an error.
    async fn learn(
        &self,
        rows: &[Arc<Row>],
        listed: usize,
        facts: &mut Read,
    ) -> Result<Option<ApiError>, ApiError> {
        let all = &self.gateway.helm.facts;
        let mut missing = Vec::new();
        for row in rows.iter().filter(|row| !facts.contains_key(&row.uid)).collect::<Vec<_>>() {
            match all.known(&row.uid, row.version).await {
                Some(fact) => drop(facts.insert(row.uid.clone(), fact)),
                None => missing.push(row),
            }
        }
        let reads = self.paths(&missing, listed).into_iter().map(|path| async move {
            let mut read = Read::new();
            let answer = all.read(&self.gateway.cluster, self.user, &path, &mut read).await;
            (read, answer)
        });
        let mut reads = futures::stream::iter(reads).buffer_unordered(AT_ONCE);
        while let Some((read, answer)) = reads.next().await {
            facts.extend(read);
            if let Err(failure) = self.gateway.authorizer.heed(self.user, answer).await {
                let error = ApiError::from(failure);
                let refused = error.status == StatusCode::UNAUTHORIZED;
                return if refused { Err(error) } else { Ok(Some(error)) };
            }
        }
        Ok(None)
    }

    /// The lists that have the content of these rows. Always lists, since that is the right which
    /// the caller has shown to have.
    fn paths(&self, missing: &[&Arc<Row>], listed: usize) -> Vec<String> {
        if missing.len() <= SINGLE.max(listed / PART) {
            let single = |row: &&Arc<Row>| {
                let revision = u32::try_from(revision(row)).unwrap_or(0);
                let secret = encoded(&secret_name(&row.name, revision));
                let selector = format!("fieldSelector=metadata.name%3D{secret}");
                self.path(Some(&row.namespace), &selector)
            };
            return missing.iter().map(single).collect();
        }
        if self.reach == Reach::Everything {
            return vec![self.path(None, self.selector)];
        }
        let namespaces: BTreeSet<&str> = missing.iter().map(|row| row.namespace.as_str()).collect();
        namespaces.into_iter().map(|name| self.path(Some(name), self.selector)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn secret(release: &str, number: u32, status: &str) -> Arc<Row> {
        let metadata = json!({"name": secret_name(release, number), "namespace": "atlas",
            "uid": format!("{release}-{number}"), "resourceVersion": "7",
            "labels": {"owner": "helm", "status": status}});
        let mut row = (RELEASE.row)(&json!({"metadata": metadata}).to_string()).unwrap();
        row.name = release.into();
        Arc::new(row)
    }

    fn query(raw: &str) -> ListQuery {
        let mut query = ListQuery::parse(Some(raw), &RELEASE).unwrap();
        query.sort.extend(TIES);
        query
    }

    #[test]
    fn of_each_release_the_newest_revision_is_shown_by_number_and_not_by_text() {
        let rows = [
            secret("web", 10, "failed"),
            secret("web", 9, "deployed"),
            secret("web.v1", 1, "deployed"),
        ];
        let newest = newest(&rows);
        assert_eq!(newest.len(), 2);
        assert_eq!(newest[&place(&rows[0])].uid.to_string(), "web-10");
        let old = vec![secret("a", 1, "deployed"), secret("b", 3, "superseded")];
        assert_eq!(shown_of_old(old.clone(), true).len(), 2);
        let shown = shown_of_old(old, false);
        assert_eq!(shown.iter().map(|row| row.uid.to_string()).collect::<Vec<_>>(), ["a-1"]);
    }

    #[test]
    fn revisions_of_one_release_come_newest_first_in_any_order() {
        let rows: Vec<_> = (1..=30).map(|number| secret("web", number, "superseded")).collect();
        for raw in ["itemsPerPage=2&page=1", "sortBy=a,name&itemsPerPage=2&page=1"] {
            let page = Page::of(&rows, &query(raw));
            let uids: Vec<_> = page.rows.iter().map(|row| row.uid.to_string()).collect();
            assert_eq!((uids.join(" ").as_str(), page.total), ("web-30 web-29", 30), "{raw}");
        }
    }

    #[test]
    fn content_is_needed_beforehand_only_where_it_decides_who_is_on_the_page() {
        for raw in ["", "sortBy=d,revision", "filterBy=status,failed", "labelSelector=a=b"] {
            assert!(!needs_content(&query(raw)), "{raw}");
        }
        for raw in ["sortBy=d,updated", "filterBy=chart,web", "sortBy=a,name,a,appVersion"] {
            assert!(needs_content(&query(raw)), "{raw}");
        }
        let web = Fact { chart: "web".into(), updated: Some(5), ..Fact::default() };
        let facts = Read::from([("a-1".into(), Arc::new(web))]);
        let rows: Vec<_> = [secret("a", 1, "deployed"), secret("b", 1, "deployed")]
            .into_iter()
            .map(|row| filled(row, &facts))
            .collect();
        assert_eq!(Page::of(&rows, &query("filterBy=chart,web")).total, 1);
        assert_eq!(Page::of(&rows, &query("sortBy=d,updated")).rows[0].uid.to_string(), "a-1");
    }

    #[test]
    fn an_item_is_one_object_of_metadata_and_content() {
        let fact = Fact {
            chart: "web".into(),
            chart_version: "1.2.0".into(),
            updated: Some(1_767_323_045),
            ..Fact::default()
        };
        let row = finished(&secret("web", 3, "deployed"), &fact, true).unwrap();
        let item: Value = serde_json::from_slice(&row.json).unwrap();
        assert_eq!(item["objectMeta"]["name"], "web");
        assert_eq!((&item["revision"], &item["legacy"]), (&json!(3), &json!(false)));
        assert_eq!((&item["chart"], &item["protected"]), (&json!("web"), &json!(true)));
        assert_eq!(item["updated"], "2026-01-02T03:04:05Z");
        let bare = finished(&secret("web", 3, "deployed"), &Fact::default(), false).unwrap();
        let bare: Value = serde_json::from_slice(&bare.json).unwrap();
        assert_eq!((&bare["updated"], &bare["chart"]), (&Value::Null, &json!("")));
    }

    #[test]
    fn all_is_asked_for_by_name() {
        assert!(wants_every(Some("page=1&all=true")));
        for raw in [None, Some("all=false"), Some("all"), Some("every=true")] {
            assert!(!wants_every(raw), "{raw:?}");
        }
    }
}
