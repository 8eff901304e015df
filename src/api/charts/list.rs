//! The catalogue: the charts of all repositories that the caller may read, searched, sorted and
//! cut into pages by the grammar of every list; and one chart with its versions and the caller's
//! releases of it.
//!
//! Nothing is fetched here, and what is in an archive is not known here.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use compact_str::CompactString;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::repositories;
use crate::api::body::{TURN, turn};
use crate::api::error::ApiError;
use crate::api::read::join::{Joins, Status};
use crate::api::read::listing;
use crate::api::releases::list;
use crate::api::respond::{Freshness, Reply};
use crate::api::target::{encoded, segment};
use crate::api::{CONTRACT, Caller, Gateway, Shared};
use crate::cache::Page;
use crate::charts::catalogue::{Chart, Version};
use crate::charts::repository::{Loaded, Repository};
use crate::charts::{hex, versions};
use crate::helm::facts::Fact;
use crate::kinds::chart::{CHART, SCORE, Shown};
use crate::kinds::{Cell, Row, time};
use crate::query::{self, Key, ListQuery, Sort};
use crate::upstream::User;

/// Repositories that one request can name: nobody types more.
const NAMED: usize = 100;
/// Versions of one chart where nobody asks for pages. Hardly any chart has more.
const VERSIONS: usize = 1_000;
/// Lists, and charts, that are shown at once: they compute, a list with a row in memory for every
/// chart there is.
const LISTS: usize = 4;
/// In every order, the same chart of two repositories stays together.
const TIES: [Sort; 2] =
    [Sort { key: Key::Name, descending: false }, Sort { key: Key::Namespace, descending: false }];

static CHOOSING: Semaphore = Semaphore::const_new(LISTS);

/// Why nothing is known of a repository that is new. Like all reasons, it is not translated.
const FIRST: &str = "it is being read for the first time; ask again soon";
/// For that first time somebody waits so long who wants a chart of it: most repositories are read
/// in a second, and who has just made one asks for its charts next.
const FIRST_READ: Duration = Duration::from_secs(3);
/// Between two looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// What `/chart?…` asks besides the grammar of every list.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    /// Empty: all.
    repositories: Vec<CompactString>,
    /// `None`: everything is wanted.
    words: Option<String>,
    /// Those that nobody should begin with are wanted as well.
    deprecated: bool,
}

/// A repository's name, and what was last read of it.
struct Shelf {
    name: CompactString,
    loaded: Arc<Loaded>,
}

/// A list item.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    name: &'a str,
    repository: &'a str,
    /// The newest stable one, or the newest where none is stable.
    version: &'a str,
    latest: &'a str,
    app_version: &'a str,
    description: &'a str,
    keywords: &'a [Box<str>],
    deprecated: bool,
    icon: Option<String>,
    home: Option<&'a str>,
    versions: usize,
    updated: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<i64>,
}

/// A release of the caller's that was made from a chart of this name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    pub namespace: CompactString,
    pub name: CompactString,
    /// Of the chart.
    pub version: CompactString,
}

/// `GET /api/v1/chart[?repository=&q=&deprecated=true]`, and what every list takes.
pub async fn list(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let raw = request.uri().query();
    let asked = Asked::of(raw);
    let mut query = ListQuery::parse(raw, &CHART)?;
    let warnings = std::mem::take(&mut query.warnings);
    if asked.words.is_some() {
        query.sort.push(Sort { key: Key::Cell(SCORE), descending: true });
    }
    query.sort.extend(TIES);
    let readable = repositories::readable(&gateway, &user).await?;
    let shelves = readable.iter().map(|repository| Shelf {
        name: repository.name().into(),
        loaded: repository.loaded.load_full(),
    });
    let (shelves, errors) = wanted(shelves.collect(), &asked.repositories);
    let locale = gateway.locale_of(request.headers());
    let errors: Vec<Value> = errors.iter().map(|error| error.as_item(locale)).collect();
    let base = gateway.base_path.clone();
    // Some milliseconds for thousands of charts, more for more.
    let page = in_place(&CHOOSING, move || choose(&shelves, &asked, &query, &base)).await?;
    let (status, joins) = (Status::default(), Joins::default());
    let page = page.map_err(|error| ApiError::internal(&error))?;
    let body = listing::body(&CHART, &status, (&joins, None), &page, Some(&errors))
        .map_err(|error| ApiError::internal(&error))?;
    let reply = Reply::json(body, Freshness::default().with_live());
    Ok(reply.warned(&warnings).respond(&gateway, request.headers()))
}

/// Computes on a thread that nobody else waits for. It goes on when the client leaves, so it has
/// its place until it ends.
async fn in_place<T: Send + 'static>(
    places: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let place = turn(places, TURN).await?;
    let done = spawn_blocking(move || {
        let _place = place;
        work()
    });
    done.await.map_err(|error| ApiError::internal(&error))
}

impl Asked {
    fn of(query: Option<&str>) -> Self {
        let mut asked = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "repository" => {
                    let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                    asked.repositories = names.take(NAMED).map(CompactString::from).collect();
                }
                "q" => {
                    asked.words = Some(value.into_owned()).filter(|words| !words.trim().is_empty());
                }
                "deprecated" => asked.deprecated = value == "true",
                _ => {}
            }
        }
        asked
    }
}

/// The repositories with one of these names (none: all), and why charts are missing.
fn wanted(mut shelves: Vec<Shelf>, names: &[CompactString]) -> (Vec<Shelf>, Vec<ApiError>) {
    let is_named = |shelf: &Shelf| names.is_empty() || names.contains(&shelf.name);
    shelves.retain(is_named);
    let unknown = names.iter().filter(|name| !shelves.iter().any(|shelf| shelf.name == **name));
    let mut errors: Vec<ApiError> = unknown.map(|name| no_repository(name)).collect();
    let never = shelves.iter().filter(|shelf| shelf.loaded.status.last_success.is_none());
    errors.extend(never.map(|shelf| unread(&shelf.name, &shelf.loaded)));
    (shelves, errors)
}

/// Why charts of a repository are missing that has never been read.
pub fn unread(name: &str, loaded: &Loaded) -> ApiError {
    let reason = loaded.status.error.as_deref().unwrap_or(FIRST);
    let args = [("name", name), ("reason", reason)];
    ApiError::with_status(StatusCode::BAD_GATEWAY, "error-repository-unread", &args)
}

/// Whether nobody can say yet if the repository has this chart: it was not read, nor has that
/// failed.
pub fn is_unread(loaded: &Loaded, name: &str) -> bool {
    let Loaded { catalogue, status, .. } = loaded;
    status.last_success.is_none() && status.error.is_none() && catalogue.find(name).is_none()
}

/// What is known of a repository by who wants this chart of it.
pub async fn loaded(repository: &Repository, name: &str) -> Arc<Loaded> {
    let end = Instant::now() + FIRST_READ;
    loop {
        let loaded = repository.loaded.load_full();
        if !is_unread(&loaded, name) || Instant::now() >= end {
            return loaded;
        }
        sleep(LOOK).await;
    }
}

/// Nobody is told which repositories others have.
fn no_repository(name: &str) -> ApiError {
    let name: String = name.chars().take(63).collect();
    let args = [("name", name.as_str())];
    ApiError::with_status(StatusCode::NOT_FOUND, "error-chart-repository", &args)
}

/// The page of all charts on these shelves that are asked for.
fn choose(
    shelves: &[Shelf],
    asked: &Asked,
    query: &ListQuery,
    base: &str,
) -> serde_json::Result<Page> {
    let mut rows = Vec::new();
    for shelf in shelves {
        let Loaded { catalogue, search, .. } = &*shelf.loaded;
        let mut put = |chart: &Chart, score: u32| {
            if asked.deprecated || !chart.deprecated {
                rows.push(Arc::new(row(&shelf.name, chart, score)));
            }
        };
        match &asked.words {
            None => catalogue.charts.iter().for_each(|chart| put(chart, 0)),
            Some(words) => {
                for (index, score) in search.find(words) {
                    if let Some(chart) = catalogue.charts.get(index) {
                        put(chart, score);
                    }
                }
            }
        }
    }
    let mut page = Page::of(&rows, query);
    let items = page.rows.iter().map(|row| -> serde_json::Result<Arc<Row>> {
        let mut row = Row::clone(row);
        let shelf = shelves.iter().find(|shelf| shelf.name == row.namespace);
        if let Some(chart) = shelf.and_then(|shelf| shelf.loaded.catalogue.find(&row.name)) {
            let score = match row.cells.get(SCORE) {
                Some(Cell::Number(score)) if asked.words.is_some() => Some(*score),
                _ => None,
            };
            row.json = serde_json::to_vec(&item(base, &row.namespace, chart, score))?.into();
        }
        Ok(Arc::new(row))
    });
    page.rows = items.collect::<serde_json::Result<_>>()?;
    Ok(page)
}

fn row(repository: &str, chart: &Chart, score: u32) -> Row {
    let (version, app_version) = best(chart);
    let keywords = chart.keywords.join(",");
    let shown = Shown {
        repository,
        name: &chart.name,
        version,
        latest: chart.latest().map_or("", |version| version.version.as_str()),
        app_version,
        description: &chart.description,
        keywords: &keywords,
        deprecated: chart.deprecated,
        versions: chart.versions.len(),
        updated: chart.latest().and_then(|version| version.created),
        score,
    };
    shown.row()
}

fn item<'a>(base: &str, repository: &'a str, chart: &'a Chart, score: Option<i64>) -> Item<'a> {
    let (version, app_version) = best(chart);
    Item {
        name: &chart.name,
        repository,
        version,
        latest: chart.latest().map_or("", |version| version.version.as_str()),
        app_version,
        description: &chart.description,
        keywords: &chart.keywords,
        deprecated: chart.deprecated,
        icon: icon(base, repository, chart),
        home: chart.home.as_deref().and_then(link),
        versions: chart.versions.len(),
        updated: chart.latest().and_then(|version| version.created).and_then(time),
        score,
    }
}

/// The version that a chart is shown as, and what that is a version of.
fn best(chart: &Chart) -> (&str, &str) {
    chart.best().map_or(("", ""), |best| (best.version.as_str(), best.app_version.as_str()))
}

/// Where we serve the icon, if the chart has one.
fn icon(base: &str, repository: &str, chart: &Chart) -> Option<String> {
    let version = chart.best().filter(|_| chart.icon.is_some())?;
    let (name, version) = (encoded(&chart.name), encoded(&version.version));
    Some(format!("{base}{CONTRACT}/chart/{}/{name}/{version}/icon", encoded(repository)))
}

/// An address that a page may lead to: strangers write it.
fn link(address: &str) -> Option<&str> {
    let has = |scheme: &str| {
        address.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    };
    (has("https://") || has("http://")).then_some(address)
}

/// `GET /api/v1/chart/{repository}/{name}[?itemsPerPage=&page=]`: its versions, newest first (the
/// first 1,000 without a page), and the caller's releases of it.
pub async fn one(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let mut segments = request.uri().path().rsplit('/');
    let name = chart_name(segments.next().unwrap_or_default())?;
    let repository = segment(segments.next().unwrap_or_default())?;
    let query = ListQuery::parse(request.uri().query(), &CHART)?;
    let found = repositories::found(&gateway, &user, &repository).await?;
    let loaded = loaded(&found, &name).await;
    in_catalogue(&loaded, &repository, &name)?;
    let locale = gateway.locale_of(request.headers());
    let (uses, unknown) = uses(&gateway, &user, &name).await?;
    let errors: Value = unknown.iter().map(|error| error.as_item(locale)).collect();
    let (base, page) = (gateway.base_path.clone(), query.page);
    // Each release may be compared with every version: neither number has a bound that is small.
    let body = in_place(&CHOOSING, move || {
        let chart = in_catalogue(&loaded, &repository, &name)?;
        let mut body = shown(&base, &repository, chart, page);
        body["releases"] = uses.iter().map(|one| one.shown(chart)).collect();
        body["errors"] = errors;
        Ok::<_, ApiError>(body.to_string())
    });
    let reply = Reply::json(body.await??, Freshness::default().with_live());
    Ok(reply.warned(&query.warnings).respond(&gateway, request.headers()))
}

/// The name of a chart in a path. Those of a registry can have slashes in them, encoded.
pub fn chart_name(raw: &str) -> Result<CompactString, ApiError> {
    let raw = raw.replace("%2f", "%2F");
    let parts: Result<Vec<CompactString>, ApiError> = raw.split("%2F").map(segment).collect();
    Ok(parts?.join("/").into())
}

/// The chart of this name; 404 with a sentence where there is none, and 502 where nobody knows.
pub fn in_catalogue<'a>(
    loaded: &'a Loaded,
    repository: &str,
    name: &str,
) -> Result<&'a Chart, ApiError> {
    loaded.catalogue.find(name).ok_or_else(|| {
        if loaded.status.last_success.is_none() {
            return unread(repository, loaded);
        }
        let args = [("name", name), ("repository", repository)];
        ApiError::with_status(StatusCode::NOT_FOUND, "error-no-chart", &args)
    })
}

/// The chart without its releases.
fn shown(base: &str, repository: &str, chart: &Chart, page: Option<query::Page>) -> Value {
    let text = |version: Option<&Version>| version.map(|version| version.version.clone());
    let (from, count) =
        page.map_or((0, VERSIONS), |page| (page.size.saturating_mul(page.index), page.size));
    let versions = chart.versions.iter().skip(from).take(count).map(|version| {
        json!({
            "version": version.version, "appVersion": version.app_version,
            "created": version.created.and_then(time), "deprecated": version.deprecated,
            "digest": version.digest.map(|digest| hex(&digest)),
            "stable": versions::is_stable(&version.version),
        })
    });
    json!({
        "name": chart.name, "repository": repository, "description": chart.description,
        "home": chart.home.as_deref().and_then(link), "keywords": chart.keywords,
        "maintainers": chart.maintainers, "deprecated": chart.deprecated,
        "icon": icon(base, repository, chart),
        "latest": text(chart.latest()), "latestStable": text(chart.latest_stable()),
        "listMeta": { "totalItems": chart.versions.len() },
        "versions": versions.collect::<Vec<_>>(),
    })
}

/// The caller's releases that were made from a chart of this name, and why some may be missing.
/// Which repository a chart came from, Helm does not record.
pub async fn uses(
    gateway: &Gateway,
    user: &User,
    chart: &str,
) -> Result<(Vec<Use>, Option<ApiError>), ApiError> {
    let (installed, unknown) = list::installed(gateway, user).await?;
    // In a registry the name of a chart is the last part of its repository's.
    let own = chart.rsplit('/').next().unwrap_or(chart);
    let of_it = installed.iter().filter(|(_, fact)| fact.chart == own);
    let mut uses: Vec<Use> = of_it.map(|(row, fact)| Use::of(row, fact)).collect();
    uses.sort_unstable();
    Ok((uses, unknown))
}

impl Use {
    fn of(release: &Row, fact: &Fact) -> Self {
        Self {
            namespace: release.namespace.clone(),
            name: release.name.clone(),
            version: fact.chart_version.clone(),
        }
    }

    /// `listed` tells whether the chart has the version still, or ever had it: where it has not,
    /// the release may be of another chart of the same name.
    fn shown(&self, chart: &Chart) -> Value {
        json!({
            "namespace": self.namespace, "name": self.name, "version": self.version,
            "listed": chart.version(&self.version).is_some(),
            "update": update(chart, &self.version),
        })
    }
}

/// A version that is newer: a stable one, or any for who runs a prerelease.
fn update<'a>(chart: &'a Chart, version: &str) -> Option<&'a str> {
    let current = versions::order(version)?;
    let newer = |candidate: &&Version| {
        versions::order(&candidate.version).is_some_and(|candidate| candidate > current)
    };
    let any = || chart.latest().filter(|_| !versions::is_stable(version)).filter(newer);
    let update = chart.latest_stable().filter(newer).or_else(any)?;
    Some(update.version.as_str())
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
