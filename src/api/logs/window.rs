//! Logs: which containers of a workload have one, a window of one container's log, and the whole of
//! it as a stream.
//!
//! Every byte is read as the caller, nothing of it is kept. What a window shows, `logs::lines` knows.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use compact_str::CompactString;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use url::form_urlencoded;

use super::follow;
use super::lines::{Line, Position, Selection, lines, parameter, select};
use super::source;
use crate::api::body;
use crate::api::body::too_many;
use crate::api::error::ApiError;
use crate::api::live::events;
use crate::api::read::related::known;
use crate::api::read::view;
use crate::api::read::view::{NoView, View};
use crate::api::respond::{Freshness, Reply};
use crate::api::target::{Target, segment};
use crate::api::{Caller, Gateway, Shared};
use crate::auth::Reach;
use crate::kinds::{KindDef, Link, Row, Uid};
use crate::upstream::{Answer, Failure, Identity, Turns, UpstreamError, User};

/// What has logs, and where its objects describe the containers.
const SOURCES: [(&str, &str); 8] = [
    ("pod", "/spec"),
    ("job", "/spec/template/spec"),
    ("replicaset", "/spec/template/spec"),
    ("replicationcontroller", "/spec/template/spec"),
    ("daemonset", "/spec/template/spec"),
    ("statefulset", "/spec/template/spec"),
    ("deployment", "/spec/template/spec"),
    ("cronjob", "/spec/jobTemplate/spec/template/spec"),
];

/// Lines that a window is looked for in, from the log's end; the contract's number.
const LINES: usize = 5_000;
/// Bytes that a window is looked for in, from the log's beginning; the contract's number.
const BYTES: usize = 500_000;
/// Lines have no longest length, so the last of them are bounded by this, too: 1.6 KiB for each.
const LIMIT: usize = 8 << 20;
/// Bytes that a window may be looked for in, and that its answer may have, without a place: lines
/// of 200 bytes fit.
const FREE: usize = 1 << 20;
/// Places of longer ones: of one caller, and of all. With its answer, whose escapes may take six
/// times as much, each has some 60 MiB at worst.
const LONG_OF_ONE: usize = 2;
static LONG: Semaphore = Semaphore::const_new(8);
static OWN: LazyLock<Turns> = LazyLock::new(|| Turns::new(LONG_OF_ONE));
/// The longest wait for such a place.
const WAIT: Duration = Duration::from_secs(20);
/// The longest message of an error that is read; kubelets write a line.
const ERROR_LIMIT: usize = 64 << 10;
/// How long a window, or the head of a file, may take: who waits for it waits for a page.
const TIME: Duration = Duration::from_secs(30);
/// nginx, as an ingress, would hold back the lines of a quiet container.
pub(crate) const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The contract's `LogDetails`.
#[derive(Serialize)]
struct Details<'a> {
    info: Info<'a>,
    selection: &'a Selection,
    logs: &'a [Line<'a>],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    pod_name: &'a str,
    container_name: &'a str,
    /// Always empty: an init container is a container like any other here.
    init_container_name: &'a str,
    from_date: &'a str,
    to_date: &'a str,
    truncated: bool,
}

/// `GET /api/v1/log/source/{namespace}/{name}/{type}`.
pub async fn sources(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let path = request.uri().path();
    let (kind, spec) = source(&segment(path.rsplit('/').next().unwrap_or_default())?)?;
    let target = Target::of(path, kind, 1)?;
    let at = view::served(&gateway, &user, kind).await?;
    let owner = body::get(&gateway, &user, &target.path(&at)).await?;
    let (pods, views) = if kind.name == "pod" {
        (vec![target.name], Vec::new())
    } else {
        let (rows, views) = pods_of(&gateway, &user, kind, &target.namespace, &owner).await?;
        (rows.iter().map(|row| row.name.clone()).collect(), views)
    };
    let answer = json!({
        "containerNames": names(&owner, &format!("{spec}/containers")),
        "initContainerNames": names(&owner, &format!("{spec}/initContainers")),
        "podNames": pods,
    });
    let freshness = Freshness::of(views.iter()).with_live();
    let reply = Reply::json(answer.to_string().into_bytes(), freshness);
    Ok(reply.respond(&gateway, request.headers()))
}

/// The kind behind the path's `{type}`, in any case, with the place of its pods' spec.
pub(crate) fn source(asked: &str) -> Result<(&'static KindDef, &'static str), ApiError> {
    let wanted = asked.to_ascii_lowercase();
    if let Some(&(name, spec)) = SOURCES.iter().find(|(name, _)| *name == wanted) {
        return Ok((known(name)?, spec));
    }
    let types = SOURCES.map(|(name, _)| name).join(", ");
    let args = [("type", asked), ("known", types.as_str())];
    Err(ApiError::with_status(StatusCode::NOT_FOUND, "error-unknown-log-source", &args))
}

/// Names in a list of containers; null without any, as the contract has it.
pub(crate) fn names(owner: &Value, pointer: &str) -> Value {
    let all = owner.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let names: Vec<Value> = all.filter_map(|one| one.get("name").cloned()).collect();
    if names.is_empty() { Value::Null } else { Value::Array(names) }
}

/// The same as texts.
pub(crate) fn all(names: &Value) -> Vec<CompactString> {
    let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.map(CompactString::from).collect()
}

/// The pods that a workload controls, itself or through its replica sets or jobs, in the order of
/// their names, with the views that they are from. Without the right to list them it is the 403.
pub(crate) async fn pods_of(
    gateway: &Gateway,
    user: &User,
    kind: &KindDef,
    namespace: &CompactString,
    owner: &Value,
) -> Result<(Vec<Arc<Row>>, Vec<View>), ApiError> {
    let open = |kind: &'static KindDef| async move {
        let wanted = Reach::one(namespace);
        view::open(gateway, user, kind, &wanted).await.map_err(NoView::error)
    };
    let pods = known("pod")?;
    let between = match kind.name {
        "deployment" => Some(known("replicaset")?),
        "cronjob" => Some(known("job")?),
        _ => None,
    };
    let uid = owner.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    let mut owners = vec![Uid::from(uid)];
    let mut views = Vec::new();
    if let Some(between) = between {
        let (pods, between) = tokio::try_join!(open(pods), open(between))?;
        owners = controlled(&between, &owners).iter().map(|row| row.uid.clone()).collect();
        views.extend([pods, between]);
    } else {
        views.push(open(pods).await?);
    }
    let mut rows = views.first().map(|pods| controlled(pods, &owners)).unwrap_or_default();
    rows.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok((rows, views))
}

fn controlled(view: &View, owners: &[Uid]) -> Vec<Arc<Row>> {
    let mut rows = Vec::new();
    for owner in owners {
        let link = Link::Owner(owner.clone());
        view.store().linked(&view.scope, &link, |row| rows.push(row.clone()));
    }
    rows
}

/// `GET /api/v1/log/{namespace}/{pod}[/{container}]`: without a container the pod's first one.
pub async fn window(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (pod, container) = of_window(request.uri().path())?;
    let query = request.uri().query().unwrap_or_default();
    let wanted = Selection::of(query);
    let position = wanted.log_file_position;
    let options = window_options(query, position);
    let path = pod.path(&known("pod")?.resource);
    let container = match container {
        Some(container) => container,
        None => first_container(&body::get(&gateway, &user, &path).await?),
    };
    let path = log_path(&path, &container, &options);
    let reading = timeout(TIME, read(&gateway, &user, &path, position)).await;
    let mut log = match reading.unwrap_or_else(|_| Err(UpstreamError::Timeout.into())) {
        Ok(Some(log)) => log,
        Ok(None) => return Err(too_many()),
        Err(failure) if is_about_the_log(&failure) => Newest::of(&failure),
        Err(failure) => return Err(failure.into()),
    };
    let place = log.place.take();
    let lines = lines(&log.bytes);
    let shown = select(&lines, &wanted);
    let is_all_read = match position {
        Position::Beginning => log.bytes.len() < BYTES,
        Position::End => lines.len() < LINES && !log.is_cut,
        Position::Neither => !log.is_cut,
    };
    let [from_date, to_date] = &shown.dates();
    let info = Info {
        pod_name: &pod.name,
        container_name: &container,
        init_container_name: "",
        from_date,
        to_date,
        truncated: shown.is_last && !is_all_read,
    };
    let details = Details { info, selection: &shown.selection, logs: shown.lines };
    let answer = serde_json::to_vec(&details).map_err(|error| ApiError::internal(&error))?;
    let place = match place {
        _ if answer.len() <= FREE => None,
        None => Some(self::place(&user, WAIT).await.ok_or_else(too_many)?),
        held => held,
    };
    let reply = Reply::json(answer, Freshness::default().with_live());
    let response = reply.respond(&gateway, request.headers());
    let Some(place) = place else { return Ok(response) };
    Ok(events::held(response, place, events::WRITE))
}

/// The place of a long log, until its answer is taken.
struct Place {
    _own: OwnedSemaphorePermit,
    _all: SemaphorePermit<'static>,
}

/// `None` when none is free in time.
async fn place(user: &User, wait: Duration) -> Option<Place> {
    let place = async {
        let own = OWN.of(user).acquire_owned().await.ok()?;
        Some(Place { _own: own, _all: LONG.acquire().await.ok()? })
    };
    timeout(wait, place).await.ok().flatten()
}

/// The pod, and the container if there is one, of `…/log/{namespace}/{pod}[/{container}]`.
fn of_window(path: &str) -> Result<(Target, Option<CompactString>), ApiError> {
    let (_, rest) = path.split_once("/log/").unwrap_or_default();
    let mut parts = rest.split('/').skip(2);
    let container = parts.next().map(segment).transpose()?;
    let pod = Target::of(path, known("pod")?, usize::from(container.is_some()))?;
    Ok((pod, container))
}

fn first_container(pod: &Value) -> CompactString {
    let name = pod.pointer("/spec/containers/0/name").and_then(Value::as_str);
    name.unwrap_or_default().into()
}

fn is_true(query: &str, name: &str) -> bool {
    parameter(query, name).is_some_and(|value| value == "true")
}

fn window_options(query: &str, position: Position) -> Vec<(&'static str, String)> {
    let limit = match position {
        Position::Beginning => ("limitBytes", BYTES.to_string()),
        Position::End | Position::Neither => ("tailLines", LINES.to_string()),
    };
    let mut options = vec![("timestamps", "true".to_owned()), limit];
    if is_true(query, "previous") {
        options.push(("previous", "true".to_owned()));
    }
    options
}

/// Where the API server has the log of a pod's container.
pub(crate) fn log_path(pod: &str, container: &str, options: &[(&'static str, String)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("container", container)
        .extend_pairs(options)
        .finish();
    format!("{pod}/log?{query}")
}

/// The log, still to be read.
pub(crate) async fn open(gateway: &Gateway, user: &User, path: &str) -> Result<Answer, Failure> {
    let request = http::Request::get(path)
        // As kubectl asks: a log is text whatever is accepted, an error is JSON.
        .header(header::ACCEPT, "application/json, */*")
        .body(Body::empty())
        .map_err(|error| UpstreamError::Setup(error.to_string()))?;
    let answer = gateway.cluster.send(Identity::User(user), request).await?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer.into_body());
    }
    let text = Limited::new(answer.into_body(), ERROR_LIMIT).collect().await;
    let text = text.map_err(|error| UpstreamError::Broken(error.to_string()))?.to_bytes();
    match Failure::status(status, &text) {
        // The node refused the API server. Passed on it would end the caller's session.
        Failure::Status { code: StatusCode::UNAUTHORIZED, message, details, .. }
            if is_of_the_node(details.as_ref()) =>
        {
            let code = StatusCode::BAD_GATEWAY;
            Err(Failure::Status { code, message, reason: String::new(), details })
        }
        failure => gateway.authorizer.heed(user, Err(failure)).await,
    }
}

/// Whether an error is what the kubelet answered to the API server: it names `pods/log`, the API
/// server's own errors name `pods` (`NewGenericHttpResponseChecker` in pkg/registry/core/pod/rest).
fn is_of_the_node(details: Option<&Value>) -> bool {
    details.and_then(|details| details.get("kind")).is_some_and(|kind| kind == "pods/log")
}

/// Whether an error is shown in place of the log: all that the API server says, but who may not
/// see the log and a pod that does not exist.
fn is_about_the_log(failure: &Failure) -> bool {
    match failure {
        Failure::Upstream(_) => false,
        Failure::Status { code, details, .. } => {
            !matches!(code.as_u16(), 401 | 403 | 404) || is_of_the_node(details.as_ref())
        }
    }
}

/// A log as far as a window is looked for in it; `None` when it is long and there is no place.
async fn read(
    gateway: &Gateway,
    user: &User,
    path: &str,
    position: Position,
) -> Result<Option<Newest>, Failure> {
    let mut body = open(gateway, user, path).await?;
    let mut log = Newest::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| UpstreamError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if log.place.is_none() && log.bytes.len() + data.len() > FREE {
            log.place = place(user, WAIT).await;
            if log.place.is_none() {
                return Ok(None);
            }
        }
        log.push(&data, LIMIT);
        // Kubelets end here by themselves; what stands in for one may not know the option.
        if position == Position::Beginning && log.bytes.len() > BYTES {
            log.bytes.truncate(BYTES);
            return Ok(Some(log));
        }
    }
    Ok(Some(log.end(LIMIT)))
}

/// The newest bytes of a log.
#[derive(Default)]
struct Newest {
    bytes: Vec<u8>,
    /// There were more.
    is_cut: bool,
    /// Of a long one.
    place: Option<Place>,
}

impl Newest {
    /// What is shown in place of a log.
    fn of(failure: &Failure) -> Self {
        Self { bytes: failure.to_string().into_bytes(), ..Self::default() }
    }

    /// Holds more than the limit before it is cut, so that bytes are not moved with every chunk.
    fn push(&mut self, data: &[u8], limit: usize) {
        self.bytes.extend_from_slice(data);
        if self.bytes.len() > limit + limit / 4 {
            self.cut(limit);
        }
    }

    fn cut(&mut self, limit: usize) {
        let surplus = self.bytes.len().saturating_sub(limit);
        self.is_cut |= surplus > 0;
        self.bytes.drain(..surplus);
    }

    /// At most `limit` bytes; the rest of a line that was cut is dropped.
    fn end(mut self, limit: usize) -> Self {
        self.cut(limit);
        let feed = self.bytes.iter().position(|byte| *byte == b'\n');
        if let Some(feed) = feed.filter(|_| self.is_cut) {
            self.bytes.drain(..=feed);
        }
        self
    }
}

/// `GET /api/v1/log/file/{namespace}/{pod}/{container}`: the log as it is read, never held. It may
/// be followed, and begin late: `follow`, `tailLines`, `sinceSeconds`, `sinceTime`, as in
/// Kubernetes. The API server checks the right when the log is opened, we again while it lasts.
pub async fn file(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let path = request.uri().path();
    let pods = known("pod")?;
    let pod = Target::of(path, pods, 1)?;
    let container = segment(path.rsplit('/').next().unwrap_or_default())?;
    let query = request.uri().query().unwrap_or_default();
    let path = log_path(&pod.path(&pods.resource), &container, &file_options(query)?);
    let is_followed = is_true(query, "follow");
    let body = if is_followed {
        let opening = source::opening(&gateway, &user, path);
        let opening = source::begun(&gateway, &user, opening).await?;
        let seat = gateway.follows.seat(&user)?;
        follow::judged(&gateway, &user, &pod, opening, seat)
    } else {
        let log = timeout(TIME, open(&gateway, &user, &path)).await;
        Body::new(log.unwrap_or_else(|_| Err(UpstreamError::Timeout.into()))?)
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_followed {
        headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
    if let Ok(value) = HeaderValue::from_str(&disposition(&pod.name, &container)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// Names of pods and containers hold nothing that would need quoting; anything else is left out.
fn disposition(pod: &str, container: &str) -> String {
    let mut name = format!("{pod}_{container}");
    name.retain(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    format!("attachment; filename=\"{name}.log\"")
}

/// The options of a file that go to the API server; unknown ones are no error.
pub(crate) fn file_options(query: &str) -> Result<Vec<(&'static str, String)>, ApiError> {
    let given = |name: &str| parameter(query, name).filter(|value| !value.is_empty());
    let mut options = Vec::new();
    for name in ["previous", "timestamps", "follow"] {
        if is_true(query, name) {
            options.push((name, "true".to_owned()));
        }
    }
    for (name, least) in [("tailLines", 0i64), ("sinceSeconds", 1)] {
        let Some(value) = given(name) else { continue };
        let Some(number) = value.parse::<i64>().ok().filter(|number| *number >= least) else {
            let least = least.to_string();
            let args = [("name", name), ("value", &*value), ("least", least.as_str())];
            return Err(ApiError::bad_request("error-bad-log-number", &args));
        };
        options.push((name, number.to_string()));
    }
    if let Some(value) = given("sinceTime") {
        let Ok(time) = value.parse::<Timestamp>() else {
            let args = [("value", &*value)];
            return Err(ApiError::bad_request("error-bad-log-time", &args));
        };
        if given("sinceSeconds").is_some() {
            return Err(ApiError::bad_request("error-two-log-times", &[]));
        }
        options.push(("sinceTime", time.to_string()));
    }
    Ok(options)
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
