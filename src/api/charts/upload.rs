//! Charts written to their repositories: uploaded, signed and deleted, by who may change the
//! repository and with the credentials that are stored for it.
//!
//! All is looked through before anything is sent. How a ChartMuseum and a registry are spoken to
//! is `list::museum`'s and `list::push`'s to know.

use std::collections::HashSet;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::list::{self, Use, uses};
use super::repositories::{found, may_change, name_in, read_anew};
use super::version::Wanted;
use crate::api::body::{self, TURN, turn};
use crate::api::error::ApiError;
use crate::api::releases::write::conflict;
use crate::api::{Caller, Gateway, Shared};
use crate::charts::PACKED;
use crate::charts::archive::{self, Archive, CHART_NODES, CHART_TEXT};
use crate::charts::catalogue::Version;
use crate::charts::client::Client;
use crate::charts::definition::Kind;
use crate::charts::museum::{BadPush, Museum};
use crate::charts::provenance::{LONGEST, Signature};
use crate::charts::push::{self, Tag};
use crate::charts::renew;
use crate::charts::repository::{Loaded, Repository};
use crate::charts::versions::Range;
use crate::upstream::User;

/// Archives looked through and sent at once: 20 MiB and what they are unpacked to, piece by piece.
const UPLOADS: usize = 4;
/// Releases named where a version is in use, and faults named of a chart: the others come up when
/// these are gone.
const NAMED: usize = 10;
/// As in helm's linter (`ValidateChartName`): the name of a chart gets into those of objects.
const NAME: usize = 250;
/// What archives are sent as: the registered type of gzip, what it was before, and what browsers
/// and curl call a file that they do not know.
const ARCHIVE: [&str; 3] = ["application/gzip", "application/x-gzip", "application/octet-stream"];

/// Archives that are being received or wait for a place, up to 20 MiB each: who sends slowly keeps
/// nobody from a place.
const RECEIVED: usize = 8;

static PLACES: Semaphore = Semaphore::const_new(UPLOADS);
static RECEIVING: Semaphore = Semaphore::const_new(RECEIVED);

/// `POST /api/v1/chart/{repository}[?force=true]`: the body is the archive. 201; 409 where the
/// version is there and nobody forces it.
pub async fn upload(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, sent) = request.into_parts();
    let name = name_in(head.uri.path(), 0)?;
    let repository = found(&gateway, &user, &name).await?;
    may_change(&gateway, &user, &repository).await?;
    let client = writable(&repository).await?;
    // A page elsewhere cannot declare it so.
    body::is_one_of(&head.headers, &ARCHIVE)?;
    let receiving = turn(&RECEIVING, TURN).await?;
    let bytes = body::up_to(PACKED, sent).await?;
    let place = turn(&PLACES, TURN).await?;
    drop(receiving);
    let force = wants_force(&head.uri);
    let work = async move {
        // Here: it goes on when the client leaves, and has its place until it ends.
        let chart = looked_through(&bytes).await?;
        let address = send(&repository, &client, &chart, bytes, force).await?;
        let entry = push::entry(&chart, address);
        let written = Version {
            version: chart.version.as_str().into(),
            urls: entry.urls.iter().collect(),
            ..Version::default()
        };
        gateway.store.forget_archive(&repository, &chart.name, &written).await;
        renew::change(&repository, move |catalogue| match catalogue.with(&entry) {
            Ok(catalogue) => Some(catalogue),
            Err(error) => {
                tracing::warn!(%error, "a chart that was uploaded is not in the catalogue yet");
                None
            }
        })
        .await;
        drop(place);
        read_anew(&gateway, &user, &repository).await;
        let mut answer = told(&repository, &chart.name, &chart.version);
        answer["digest"] = chart.digest.into();
        Ok::<_, ApiError>(answer)
    };
    Ok(body::answer(StatusCode::CREATED, &to_its_end(work).await?))
}

/// `PUT /api/v1/chart/{repository}/{name}/{version}/provenance[?force=true]`: the body is the
/// provenance file of the archive that is there.
pub async fn sign(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, sent) = request.into_parts();
    let wanted = Wanted::of(&gateway, &user, head.uri.path(), 1).await?;
    may_change(&gateway, &user, &wanted.repository).await?;
    let client = writable(&wanted.repository).await?;
    let sent = body::up_to(LONGEST, sent).await?;
    let (archive, _) = wanted.archive(&gateway).await?;
    if !is_signature_of(&archive, &String::from_utf8_lossy(&sent)) {
        let Archive { name, version, digest, .. } = &*archive;
        let args =
            [("name", name.as_str()), ("version", version.as_str()), ("digest", digest.as_str())];
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(ApiError::with_status(status, "error-chart-provenance", &args));
    }
    let force = wants_force(&head.uri);
    let work = async move {
        let Wanted { repository, chart, version: of, .. } = &wanted;
        let (name, version) = (chart.as_str(), of.version.as_str());
        let signed = if repository.definition.kind == Kind::Museum {
            let what = format!("a provenance file of {name} {version}");
            Museum { client: &client, url: &repository.base }.sign(&what, sent, force).await
        } else {
            let to = tag(repository, &repository.loaded.load(), name, version)?;
            push::sign(&client, &to, sent, force).await
        };
        gateway.store.forget_provenance(repository, name, of).await;
        signed.map_err(|error| refused(&error))?;
        // Other replicas remember as well that nobody had signed: until there is another mark.
        read_anew(&gateway, &user, repository).await;
        Ok::<_, ApiError>(told(repository, name, version))
    };
    Ok(body::answer(StatusCode::OK, &to_its_end(work).await?))
}

/// `DELETE /api/v1/chart/{repository}/{name}/{version}[?force=true]`: the version that is written
/// so. 409 while a release that the caller sees is of it, unless it is forced.
pub async fn delete(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, _) = request.into_parts();
    // Of those that mean the same, a deletion that is repeated would take one after the other.
    let wanted = Wanted::written(&gateway, &user, head.uri.path()).await?;
    may_change(&gateway, &user, &wanted.repository).await?;
    let client = writable(&wanted.repository).await?;
    if !wants_force(&head.uri) {
        refuse_if_used(&gateway, &user, &wanted).await?;
    }
    let work = async move {
        let Wanted { repository, chart, version: of, .. } = &wanted;
        let (name, version) = (chart.as_str(), of.version.as_str());
        let deleted = if repository.definition.kind == Kind::Museum {
            let museum = Museum { client: &client, url: &repository.base };
            museum.delete(&format!("{name} {version}"), name, version).await
        } else {
            let to = tag(repository, &repository.loaded.load(), name, version)?;
            push::delete(&client, &to).await
        };
        gateway.store.forget_archive(repository, name, of).await;
        deleted.map_err(|error| refused(&error))?;
        let (gone, of) = (name.to_owned(), version.to_owned());
        renew::change(repository, move |catalogue| Some(catalogue.without(&gone, &of))).await;
        read_anew(&gateway, &user, repository).await;
        Ok::<_, ApiError>(told(repository, name, version))
    };
    Ok(body::answer(StatusCode::OK, &to_its_end(work).await?))
}

/// Goes on when the client leaves: what was written to a repository has to get into the catalogue,
/// and to the other replicas.
async fn to_its_end(
    work: impl Future<Output = Result<Value, ApiError>> + Send + 'static,
) -> Result<Value, ApiError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(ApiError::internal(&error)))
}

/// The client of a repository that charts can be written to.
async fn writable(repository: &Repository) -> Result<Client, ApiError> {
    if repository.definition.kind == Kind::Index {
        let args = [("repository", repository.name())];
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(ApiError::with_status(status, "error-chart-read-only", &args));
    }
    let client = repository.client().await;
    client.map_err(|error| failed(StatusCode::BAD_GATEWAY, &error.to_string()))
}

/// Writes a chart; where the archive is then, as the catalogue has it.
async fn send(
    repository: &Repository,
    client: &Client,
    chart: &Archive,
    bytes: Bytes,
    force: bool,
) -> Result<String, ApiError> {
    let Archive { name, version, .. } = chart;
    if repository.definition.kind == Kind::Museum {
        let museum = Museum { client, url: &repository.base };
        let sent = museum.upload(&format!("{name} {version}"), bytes, force).await;
        sent.map_err(|error| refused(&error))?;
        return Ok(format!("charts/{name}-{version}.tgz"));
    }
    // Where it belongs is told by what is there.
    let to = tag(repository, &*list::loaded(repository, name).await, name, version)?;
    let sent = push::push(client, &to, chart, bytes, force).await;
    sent.map_err(|error| refused(&error))?;
    Ok(to.address())
}

/// Where a version is in a registry, or belongs. One that has not been read may have the chart
/// anywhere; one that cannot be listed takes what its address says.
fn tag(
    repository: &Repository,
    loaded: &Loaded,
    name: &str,
    version: &str,
) -> Result<Tag, ApiError> {
    if list::is_unread(loaded, name) {
        return Err(list::unread(repository.name(), loaded));
    }
    let at = (&repository.definition, &repository.base);
    Tag::of(at, &loaded.catalogue, name, version).map_err(|error| refused(&error))
}

fn told(repository: &Repository, name: &str, version: &str) -> Value {
    json!({ "repository": repository.name(), "name": name, "version": version })
}

fn wants_force(uri: &Uri) -> bool {
    let mut pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    pairs.any(|(name, value)| name == "force" && value == "true")
}

/// What an archive holds, if nothing is wrong with it.
async fn looked_through(bytes: &Bytes) -> Result<Archive, ApiError> {
    let read = bytes.clone();
    // Up to 100 MiB are unpacked: too long for a thread that others wait for.
    let looked = spawn_blocking(move || {
        let chart = archive::inspect(&read).map_err(|error| error.to_string())?;
        let faults = lint(&chart);
        if faults.is_empty() { Ok(chart) } else { Err(faults.join("; ")) }
    });
    let looked = looked.await.map_err(|error| ApiError::internal(&error))?;
    looked.map_err(|reason| ApiError::bad_request("error-chart-broken", &[("reason", &reason)]))
}

/// 409 when releases that the caller sees are of this version. Who may see none is not held up.
async fn refuse_if_used(gateway: &Gateway, user: &User, wanted: &Wanted) -> Result<(), ApiError> {
    let Wanted { repository, chart, version, .. } = wanted;
    let (uses, unknown) = uses(gateway, user, chart).await?;
    let catalogue = repository.loaded.load().catalogue.clone();
    let is_of_it = |one: &&Use| {
        let known = catalogue.version(chart, &one.version);
        known.is_some_and(|known| known.version == version.version)
    };
    let all: Vec<&Use> = uses.iter().filter(is_of_it).collect();
    if all.is_empty() {
        return match unknown {
            Some(error) if error.status != StatusCode::FORBIDDEN => Err(error),
            _ => Ok(()),
        };
    }
    let names = all.iter().take(NAMED).map(|one| format!("{}/{}", one.namespace, one.name));
    let (names, count) = (names.collect::<Vec<_>>().join(", "), all.len().to_string());
    let args = [
        ("name", chart.as_str()),
        ("version", version.version.as_str()),
        ("count", count.as_str()),
        ("releases", names.as_str()),
    ];
    Err(conflict("error-chart-in-use", &args))
}

/// Whether a provenance file is about this archive. ChartMuseum files it under the first name and
/// version that stand in it, so they have to be the archive's as well.
fn is_signature_of(archive: &Archive, provenance: &str) -> bool {
    let line =
        |key: &str| provenance.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    Signature::of(archive, Some(provenance)) == Signature::Present
        && line("name") == Some(archive.name.as_str())
        && line("version") == Some(archive.version.as_str())
}

/// What a repository's refusal is to who has asked for it. That its credentials may not do it is
/// no denial of the caller.
fn refused(error: &BadPush) -> ApiError {
    let status = match error {
        BadPush::Exists(..) => {
            return conflict("error-chart-exists", &[("reason", &error.to_string())]);
        }
        BadPush::Immutable(..) => StatusCode::CONFLICT,
        BadPush::NotFound(..) => StatusCode::NOT_FOUND,
        BadPush::NoApi(_) | BadPush::NoDelete(_) => StatusCode::METHOD_NOT_ALLOWED,
        BadPush::Full(..) => StatusCode::INSUFFICIENT_STORAGE,
        BadPush::TooLarge(..) => StatusCode::PAYLOAD_TOO_LARGE,
        BadPush::Unfit(..) | BadPush::Place(..) => StatusCode::UNPROCESSABLE_ENTITY,
        BadPush::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        BadPush::Denied(..)
        | BadPush::Status(..)
        | BadPush::Broken(..)
        | BadPush::Fetch(_)
        | BadPush::Token(_) => StatusCode::BAD_GATEWAY,
    };
    failed(status, &error.to_string())
}

fn failed(status: StatusCode, reason: &str) -> ApiError {
    ApiError::with_status(status, "error-chart-write", &[("reason", reason)])
}

/// What `helm lint` finds fault with as an error, as far as it shows without rendering
/// (helm's pkg/chart/v2/lint/rules); the first few faults.
fn lint(chart: &Archive) -> Vec<String> {
    let metadata = &chart.metadata;
    let mut faults = Vec::new();
    let mut fault = |text: String| {
        if faults.len() < NAMED {
            faults.push(text);
        }
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if chart.name.len() > NAME || !chart.name.bytes().all(named) {
        let known = "a-z A-Z 0-9 . _ -";
        fault(format!("its name has more than {NAME} characters, or others than {known}"));
    }
    if metadata["apiVersion"].as_str().unwrap_or_default().is_empty() {
        fault("Chart.yaml has no apiVersion; for Helm 3 and later it is v2".into());
    }
    let kind = metadata["type"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "application" | "library") {
        fault("Chart.yaml has a type other than application and library".into());
    }
    match &metadata["dependencies"] {
        Value::Null => {}
        Value::Array(all) => {
            if metadata["apiVersion"] == "v1" && !all.is_empty() {
                fault("Chart.yaml has dependencies, which needs the apiVersion v2".into());
            }
            dependencies(all, &mut fault);
        }
        _ => fault("the dependencies in Chart.yaml are no list".into()),
    }
    let values = chart.values.as_deref().map_or(Ok(()), mapping);
    values.unwrap_or_else(|why| fault(format!("values.yaml {why}")));
    let schema = chart.schema.as_deref().map(serde_json::from_str::<Value>);
    match schema {
        None | Some(Ok(Value::Object(_) | Value::Bool(_))) => {}
        Some(Ok(_)) => fault("values.schema.json is no schema".into()),
        Some(Err(error)) => fault(format!("values.schema.json cannot be read: {error}")),
    }
    faults
}

/// Each with a name, perhaps an alias, a range of versions and a repository, and none twice.
fn dependencies(all: &[Value], fault: &mut impl FnMut(String)) {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let mut known = HashSet::new();
    for (index, one) in all.iter().enumerate() {
        let text = |key: &str| one[key].as_str().unwrap_or_default();
        let (name, alias) = (text("name"), text("alias"));
        let shown: String = name.chars().take(100).collect();
        if name.is_empty() {
            fault(format!("dependency {} in Chart.yaml has no name", index + 1));
            continue;
        }
        if !alias.bytes().all(named) {
            fault(format!("the alias of dependency {shown} has others than a-z A-Z 0-9 _ -"));
        }
        if let Err(error) = Range::parse(text("version")) {
            fault(format!("the version of dependency {shown} is no range: {error}"));
        }
        let repository = text("repository");
        let known_as = ["https://", "http://", "oci://", "file://", "@", "alias:"];
        if !repository.is_empty() && !known_as.iter().any(|begin| repository.starts_with(begin)) {
            fault(format!("the repository of dependency {shown} is no address"));
        }
        let own = if alias.is_empty() { name } else { alias };
        if !known.insert(own) {
            fault(format!("there are two dependencies {shown}: one of them needs an alias"));
        }
    }
}

/// That values are a mapping, or nothing.
fn mapping(yaml: &str) -> Result<(), String> {
    let is_nothing = |line: &str| line.is_empty() || line.starts_with('#') || line == "---";
    if yaml.lines().map(str::trim).all(is_nothing) {
        return Ok(());
    }
    // Within what Chart.yaml may become: the largest values that are known have a fifth of that.
    match archive::yaml(yaml, CHART_NODES, CHART_TEXT) {
        Ok(Value::Object(_) | Value::Null) => Ok(()),
        Ok(_) => Err("is no mapping".into()),
        Err(why) => Err(format!("cannot be read: {why}")),
    }
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
