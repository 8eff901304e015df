//! One version of a chart as its archive tells it: what Chart.yaml says, README, values, schema,
//! and what is known of its signature; its icon and the archive itself. And the chart that an
//! install names, by repository, name and range or by where it is in any registry.
//!
//! What a repository has is the catalogue's part (`charts`); the rights are the repository's.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use compact_str::CompactString;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use super::list::{self, chart_name, in_catalogue};
use super::repositories;
use crate::api::body::{TURN, too_many, turn};
use crate::api::error::ApiError;
use crate::api::live::events::{self, WRITE};
use crate::api::passthrough::user_name;
use crate::api::releases::write::whose;
use crate::api::respond::{Freshness, Reply};
use crate::api::target::{encoded, segment};
use crate::api::{CONTRACT, Caller, Gateway, Shared};
use crate::charts::archive::Archive;
use crate::charts::catalogue::{Chart, Version};
use crate::charts::dependencies;
use crate::charts::icon::Icon;
use crate::charts::oci::BadPull::{Broken, Status, Timeout, Unreachable};
use crate::charts::provenance::{SIGNED, Signature};
use crate::charts::repository::Repository;
use crate::charts::store::{BadChart, FetchPlace};
use crate::charts::{readme, versions};
use crate::kinds::time;
use crate::upstream::User;

/// An SVG is a document where it is opened by itself; this one may do nothing.
const ICON_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
/// Icons hardly change, and pages show dozens.
const ICON_CACHING: &str = "private, max-age=3600";
/// Details that are made at once: one has an archive of up to 20 MiB in memory and what is shown of
/// it, which can be twice as much, and the longest README takes seconds. Nobody has a place while a
/// repository is waited for, if there is a disk: until an archive is on it, the store's own places
/// bound what is in memory (see `list::store`). Who waits holds a provenance file, of 320 KiB at
/// most.
const DETAILS: usize = 4;
/// Archives that are downloaded at once, each in memory until it is sent, or nobody takes any of
/// it: up to 20 MiB, so 320 MiB at the very worst. Most charts have some 50 KiB.
const DOWNLOADS: usize = 16;

/// A place, and the archive that it is for.
type Placed = (SemaphorePermit<'static>, (Arc<Archive>, Bytes));

/// Repository, name and version in a path.
type Segments = (CompactString, CompactString, CompactString);

static MAKING: Semaphore = Semaphore::const_new(DETAILS);
static SENDING: Semaphore = Semaphore::const_new(DOWNLOADS);

/// A version that the caller may read. Of its chart, which may have thousands, what is needed.
pub struct Wanted {
    pub repository: Arc<Repository>,
    /// The chart's name.
    pub chart: CompactString,
    /// The icon's address, as the catalogue has it.
    pub icon: Option<Box<str>>,
    pub version: Version,
}

impl Wanted {
    /// Of a path that ends in `/{repository}/{name}/{version}` and `after` more segments.
    pub async fn of(
        gateway: &Gateway,
        user: &User,
        path: &str,
        after: usize,
    ) -> Result<Self, ApiError> {
        Self::found_by(Chart::version, gateway, user, segments(path, after)?).await
    }

    /// As `of`, for who does away with it: one that only means the same is not what he named.
    pub async fn written(gateway: &Gateway, user: &User, path: &str) -> Result<Self, ApiError> {
        Self::found_by(Chart::written, gateway, user, segments(path, 0)?).await
    }

    async fn found_by(
        find: for<'a> fn(&'a Chart, &str) -> Option<&'a Version>,
        gateway: &Gateway,
        user: &User,
        (repository, name, version): Segments,
    ) -> Result<Self, ApiError> {
        let repository = repositories::found(gateway, user, &repository).await?;
        let loaded = list::loaded(&repository, &name).await;
        let chart = in_catalogue(&loaded, repository.name(), &name)?;
        let found = find(chart, &version);
        let version = found.ok_or_else(|| no_version(chart, &version))?;
        Ok(Self::new(repository, chart, version))
    }

    /// What an install names: the newest version in a range, or the one that is written so; an
    /// empty range is that of all stable ones.
    pub async fn named(
        gateway: &Gateway,
        user: &User,
        repository: &str,
        name: &str,
        version: &str,
    ) -> Result<Self, ApiError> {
        let repository = repositories::found(gateway, user, repository).await?;
        let loaded = list::loaded(&repository, name).await;
        let chart = in_catalogue(&loaded, repository.name(), name)?;
        let Some(version) = versions::newest(&chart.versions, version) else {
            versions::Range::parse(version).map_err(|error| {
                let reason = error.to_string();
                ApiError::bad_request("error-version-range", &[("reason", reason.as_str())])
            })?;
            return Err(no_version(chart, version));
        };
        Ok(Self::new(repository, chart, version))
    }

    fn new(repository: Arc<Repository>, chart: &Chart, version: &Version) -> Self {
        let (icon, version) = (chart.icon.clone(), version.clone());
        Self { repository, chart: chart.name.clone(), icon, version }
    }

    /// Sees to it that the archive is on disk; nothing of it stays in memory.
    pub async fn fetched(&self, gateway: &Gateway) -> Result<(), ApiError> {
        let Self { repository, chart, version, .. } = self;
        let fetched = gateway.store.fetch(repository, chart, version).await;
        fetched.map_err(|error| unavailable(chart, version, &error))
    }

    pub async fn archive(&self, gateway: &Gateway) -> Result<(Arc<Archive>, Bytes), ApiError> {
        let Self { repository, chart, version, .. } = self;
        let found = gateway.store.archive(repository, chart, version).await;
        found.map_err(|error| unavailable(chart, version, &error))
    }

    async fn kept(&self, gateway: &Gateway) -> Result<Option<(Arc<Archive>, Bytes)>, ApiError> {
        let Self { repository, chart, version, .. } = self;
        let found = gateway.store.kept(repository, chart, version).await;
        found.map_err(|error| unavailable(chart, version, &error))
    }

    /// One of these places, with what was `fetched` before. If that is of no use any more, it is
    /// fetched once more without a place; and with it only where even that is not kept.
    async fn placed(
        &self,
        gateway: &Gateway,
        places: &'static Semaphore,
    ) -> Result<Placed, ApiError> {
        let mut place = turn(places, TURN).await?;
        let mut found = self.kept(gateway).await?;
        if found.is_none() {
            drop(place);
            self.fetched(gateway).await?;
            place = turn(places, TURN).await?;
            found = self.kept(gateway).await?;
        }
        let found = match found {
            Some(found) => found,
            None => self.archive(gateway).await?,
        };
        Ok((place, found))
    }
}

fn segments(path: &str, after: usize) -> Result<Segments, ApiError> {
    let mut segments = path.rsplit('/').skip(after);
    let mut next = || segments.next().unwrap_or_default();
    let (version, name, repository) = (next(), next(), next());
    Ok((segment(repository)?, chart_name(name)?, segment(version)?))
}

fn no_version(chart: &Chart, version: &str) -> ApiError {
    let known = chart.versions.iter().take(20).map(|version| version.version.as_str());
    let known = known.collect::<Vec<_>>().join(", ");
    let version: String = version.chars().take(100).collect();
    let args =
        [("name", chart.name.as_str()), ("version", version.as_str()), ("known", known.as_str())];
    ApiError::with_status(StatusCode::NOT_FOUND, "error-no-chart-version", &args)
}

fn unavailable(name: &str, version: &Version, error: &BadChart) -> ApiError {
    if matches!(error, BadChart::Busy(_)) {
        return too_many();
    }
    let reason = error.to_string();
    let args = [("name", name), ("version", &*version.version), ("reason", reason.as_str())];
    ApiError::with_status(StatusCode::BAD_GATEWAY, "error-chart-unavailable", &args)
}

/// The chart that an install names: the newest version in a range, or the one that is written so;
/// an empty range is that of all stable ones.
pub async fn chart_from_catalogue(
    gateway: &Gateway,
    user: &User,
    repository: &str,
    name: &str,
    version: &str,
) -> Result<(Archive, Bytes), ApiError> {
    let wanted = Wanted::named(gateway, user, repository, name, version).await?;
    let (archive, bytes) = wanted.archive(gateway).await?;
    Ok((Arc::unwrap_or_clone(archive), bytes))
}

/// The archive that an install names by `oci://…`, in memory: its place is to be kept until another
/// one bounds that. No caller has more than a few, and the registry may be slow.
pub async fn chart_from_registry(
    gateway: &Gateway,
    user: &User,
    reference: &str,
) -> Result<(Bytes, FetchPlace), ApiError> {
    if gateway.charts.has_air_gap()
        && !dependencies::is_within(&repositories::readable(gateway, user).await?, reference)
    {
        let reference = dependencies::shown(reference);
        let args = [("reference", reference.as_str())];
        return Err(ApiError::bad_request("error-chart-air-gap", &args));
    }
    let caller = whose(&user_name(gateway, user).await, user);
    gateway.store.pull(&caller, reference).await.map_err(|error| {
        let status = match &error {
            BadChart::Busy(_) => return too_many(),
            BadChart::Pull(Unreachable(..) | Timeout(_) | Status(..) | Broken(..)) => {
                StatusCode::BAD_GATEWAY
            }
            _ => StatusCode::BAD_REQUEST,
        };
        let reason = error.to_string();
        ApiError::with_status(status, "error-chart-pull", &[("reason", reason.as_str())])
    })
}

/// `GET /api/v1/chart/{repository}/{name}/{version}`.
pub async fn detail(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let wanted = Wanted::of(&gateway, &user, request.uri().path(), 0).await?;
    let Wanted { repository, chart, version, .. } = &wanted;
    let signed = gateway.store.provenance(repository, chart, version);
    let (fetched, signed) = tokio::join!(wanted.fetched(&gateway), signed);
    fetched?;
    let (place, (archive, bytes)) = wanted.placed(&gateway, &MAKING).await?;
    let locale = gateway.locale_of(request.headers());
    let signed = signed.map_err(|error| unavailable(chart, version, &error).as_item(locale));
    let base = gateway.base_path.clone();
    // The longest take seconds: too long for a thread that others wait for. It goes on when the
    // client leaves, so it has its place until it ends.
    let made = tokio::task::spawn_blocking(move || {
        let _place = place;
        let mut body = shown(&base, &wanted, &archive);
        if let Some(all) = body["dependencies"].as_array_mut() {
            dependencies::mark(all, &bytes);
        }
        sign(&mut body, &archive, signed);
        if let Some(html) = archive.readme.as_deref().map(readme::html) {
            body["readme"]["html"] = html.into();
        }
        body.to_string()
    });
    let body = made.await.map_err(|error| ApiError::internal(&error))?;
    let reply = Reply::json(body, Freshness::default().with_live());
    Ok(reply.respond(&gateway, request.headers()))
}

/// Adds what is known of the signature, or why nothing is.
fn sign(body: &mut Value, archive: &Archive, signed: Result<Option<Arc<str>>, Value>) {
    body["signature"]["keysChecked"] = false.into();
    match signed {
        Ok(text) => {
            let state = Signature::of(archive, text.as_deref());
            body["signature"]["state"] = state.as_str().into();
            body["provenance"] = text.as_deref().filter(|text| text.contains(SIGNED)).into();
        }
        Err(error) => body["errors"] = json!([error]),
    }
}

/// All but the README as HTML and the signature.
fn shown(base_path: &str, wanted: &Wanted, archive: &Archive) -> Value {
    let Wanted { repository, chart, icon, version } = wanted;
    let path = has_icon(icon.as_deref(), archive).then(|| {
        let (repository, name) = (encoded(repository.name()), encoded(chart));
        let version = encoded(&version.version);
        format!("{base_path}{CONTRACT}/chart/{repository}/{name}/{version}/icon")
    });
    let mut body = told(archive);
    body["name"] = chart.as_str().into();
    body["repository"] = repository.name().into();
    body["version"] = version.version.as_str().into();
    body["created"] = version.created.and_then(time).into();
    body["deprecated"] = version.deprecated.into();
    body["icon"] = path.into();
    body["urls"] = addresses(&repository.base, version).into();
    body
}

/// Where the archive is. A page may lead there, so nothing else than what can be fetched.
fn addresses(base: &Url, version: &Version) -> Vec<String> {
    let urls = version.urls.iter().filter_map(|url| base.join(url).ok());
    urls.filter(|url| matches!(url.scheme(), "http" | "https" | "oci")).map(String::from).collect()
}

/// What the archive itself tells.
fn told(archive: &Archive) -> Value {
    let schema = archive.schema.as_deref().map(|text| {
        // One that cannot be read is shown as it is.
        serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
    });
    let dependencies = archive.metadata["dependencies"].as_array().cloned();
    json!({
        "appVersion": archive.app_version,
        "metadata": archive.metadata,
        "readme": archive.readme.as_ref().map(|raw| json!({ "raw": raw })),
        "values": archive.values,
        "schema": schema,
        "templates": archive.templates,
        "dependencies": dependencies.unwrap_or_default(),
        "crds": archive.crds,
        "digest": archive.digest,
        "signature": { "state": null },
        "provenance": null,
        "errors": [],
    })
}

/// Whether the catalogue knows an icon's address or the archive tells one.
fn has_icon(known: Option<&str>, archive: &Archive) -> bool {
    known.is_some() || !own_icon(archive).is_empty()
}

/// The catalogue leaves long addresses out, such as those that are images themselves.
fn own_icon(archive: &Archive) -> &str {
    archive.metadata["icon"].as_str().unwrap_or_default()
}

/// `GET …/icon`: the chart's icon, fetched by us.
pub async fn icon(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let wanted = Wanted::of(&gateway, &user, request.uri().path(), 1).await?;
    let Wanted { repository, chart, icon, version } = &wanted;
    let address = match icon.as_deref() {
        Some(address) => address.to_owned(),
        None => own_icon(&wanted.archive(&gateway).await?.0).to_owned(),
    };
    if address.is_empty() {
        let args = [("name", chart.as_str())];
        return Err(ApiError::with_status(StatusCode::NOT_FOUND, "error-no-icon", &args));
    }
    let found = gateway.store.icon(repository, &address).await;
    let Icon { kind, bytes } = found.map_err(|error| unavailable(chart, version, &error))?;
    let headers =
        [(header::CACHE_CONTROL, ICON_CACHING), (header::CONTENT_SECURITY_POLICY, ICON_POLICY)];
    Ok(file(bytes.into(), kind.content_type(), headers))
}

/// `GET …/archive`: the `.tgz` as the repository has it.
pub async fn archive(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let wanted = Wanted::of(&gateway, &user, request.uri().path(), 1).await?;
    wanted.fetched(&gateway).await?;
    let (place, (archive, bytes)) = wanted.placed(&gateway, &SENDING).await?;
    Ok(download(&archive, bytes, place, WRITE))
}

/// An archive, which has its `place` until it is taken, or nothing of it was for so long.
fn download<P: Send + 'static>(
    archive: &Archive,
    bytes: Bytes,
    place: P,
    patience: Duration,
) -> Response {
    let disposition = format!("attachment; filename=\"{}\"", file_name(archive));
    let headers = [(header::CACHE_CONTROL, "no-store")];
    let mut response = file(bytes.into(), "application/gzip", headers);
    if let Ok(value) = HeaderValue::from_str(&disposition) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    events::held(response, place, patience)
}

/// A stranger's bytes, which no browser takes for anything else.
fn file<const N: usize>(
    body: Body,
    content: &'static str,
    more: [(HeaderName, &'static str); N],
) -> Response {
    let mut response = Response::new(body);
    let own = [(header::CONTENT_TYPE, content), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in own.into_iter().chain(more) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// As helm names it, without what means something in a header.
fn file_name(archive: &Archive) -> String {
    let name = format!("{}-{}.tgz", archive.name, archive.version);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
    name.chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

#[cfg(test)]
#[path = "version_tests.rs"]
mod tests;
