//! What changes a release: install, upgrade, rollback, uninstall, test. All that can be told at once
//! is told before the 202: a chart that is none, a name that is taken, a release that is absent,
//! protected or pending, and somebody else who is at work.
//!
//! The 202 is for an operation that `releases::run` brings to its end. What is stuck stays so until
//! it is unlocked (`releases::unlock`).

use std::sync::{Arc, LazyLock};

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::detail::{self, Asked, content, found};
use super::operation::shown;
use super::plan::{back_to, method_of};
use super::protect::refuse_if_protected;
use super::run::{self, Task, chart_of, fetched};
use crate::api::body::{self, JSON, TURN, send};
use crate::api::error::ApiError;
use crate::api::passthrough::user_name;
use crate::api::read::view;
use crate::api::target::{encoded, segment};
use crate::api::{CONTRACT, Caller, Gateway, Shared};
use crate::charts::store::FetchPlace;
use crate::helm::act::{self, Act, BadAct, ChartFrom, Deploy};
use crate::helm::argv::argv;
use crate::helm::lock::{Held, Place, Seen, Taken};
use crate::helm::operation::{Holder, NoSeat, Operation, Step, key_of, letters, new_id};
use crate::helm::record::{self, Record, Status};
use crate::helm::stuck::{Standing, Stuck, stuck};
use crate::helm::words::Progress;
use crate::helm::{engine, names};
use crate::upstream::{Turns, User};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Characters of such a key.
const KEY: usize = 200;
/// Writes that begin at once, each with its chart in memory; accepted ones are counted by their
/// seats.
static BEGINNING: Semaphore = Semaphore::const_new(16);
/// Of those, of one caller by his name: who takes over a silent lock looks at it for a while first,
/// and it is his own that he may leave so.
const OF_ONE: usize = 8;
static OWN: LazyLock<Turns<String>> = LazyLock::new(|| Turns::new(OF_ONE));

type Answer = Result<Response, ApiError>;

/// `POST /api/v1/release/{namespace}`
pub async fn install(state: Shared, caller: Caller, request: Request) -> Answer {
    write(state, caller, request, None, |_, body| act::install(body)).await
}

/// `PUT /api/v1/release/{namespace}/{name}`
pub async fn upgrade(state: Shared, caller: Caller, request: Request) -> Answer {
    write(state, caller, request, Some(0), |_, body| act::upgrade(body)).await
}

/// `POST /api/v1/release/{namespace}/{name}/rollback`
pub async fn rollback(state: Shared, caller: Caller, request: Request) -> Answer {
    write(state, caller, request, Some(1), |_, body| act::rollback(body)).await
}

/// `DELETE /api/v1/release/{namespace}/{name}`
pub async fn uninstall(state: Shared, caller: Caller, request: Request) -> Answer {
    write(state, caller, request, Some(0), |query, _| act::uninstall(query)).await
}

/// `POST /api/v1/release/{namespace}/{name}/test`
pub async fn test(state: Shared, caller: Caller, request: Request) -> Answer {
    write(state, caller, request, Some(1), |_, body| act::test(body)).await
}

/// A write that was read and not yet judged.
struct Wanted {
    gateway: Arc<Gateway>,
    user: User,
    /// What the cluster calls the caller.
    caller: String,
    namespace: String,
    head: Parts,
    /// What the same request is known by, if it asked to be.
    key: Option<String>,
    act: Act,
    chart: Option<Bytes>,
    /// Why its repository did not give it.
    failed: Option<ApiError>,
}

/// `after`: the segments behind the release's name, if the path names one.
async fn write(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
    after: Option<usize>,
    read: fn(&str, &[u8]) -> Result<Act, BadAct>,
) -> Answer {
    let (namespace, release) = match after {
        Some(after) => {
            let Asked { namespace, name, .. } = Asked::of(request.uri(), after)?;
            (namespace, Some(name))
        }
        None => (segment(request.uri().path().rsplit('/').next().unwrap_or_default())?, None),
    };
    let release = release.as_deref();
    if gateway.helm.operations.is_ending() {
        return Err(no_seat(NoSeat::Ending));
    }
    names::namespace(&namespace)?;
    if let Some(release) = release {
        names::release(release)?;
    }
    let (head, body) = request.into_parts();
    let idempotent = idempotency_key(&head.headers)?;
    let caller = user_name(&gateway, &user).await;
    if caller.is_empty() {
        // Strangers send us no charts.
        view::verified(&gateway, &user).await?;
        // A caller without a name cannot be told from another one.
        if idempotent.is_some() {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(ApiError::with_status(status, "error-idempotency-nameless", &[]));
        }
    }
    let (body, place) = body::with_chart(&user, &head.headers, body).await?;
    let act = detail::act(&head, &body, read).await?;
    let key = idempotent.map(|key| {
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        let method = head.method.as_str().as_bytes();
        key_of(&[caller.as_bytes(), key.as_bytes(), method, target.as_bytes(), &body])
    });
    drop(body);
    let (namespace, chart, failed) = (namespace.into(), None, None);
    let mut wanted = Wanted { gateway, user, caller, namespace, head, key, act, chart, failed };
    let pulled = wanted.prepare().await;
    let beginning = beginning(&whose(&wanted.caller, &wanted.user)).await?;
    // Not before: what waits for its turn is in memory, too.
    drop((place, pulled));
    let release = wanted.release(release).await?;
    // To its end even if the client goes away: what holds a lock is an operation or gives it back.
    let begun = tokio::spawn(async move {
        let begun = wanted.begin(&release).await;
        drop(beginning);
        begun
    });
    begun.await.map_err(|error| ApiError::internal(&error))?
}

/// Whose turns and places are taken: those of the caller's name, or of his credentials where nobody
/// tells it.
pub fn whose(caller: &str, user: &User) -> String {
    if caller.is_empty() { format!("{:?}", user.fingerprint()) } else { caller.to_owned() }
}

/// One of the caller's places to begin in, and then one of all; 429 when there is none in time.
async fn beginning(
    caller: &str,
) -> Result<(OwnedSemaphorePermit, SemaphorePermit<'static>), ApiError> {
    let places = async {
        let own = OWN.at(caller.to_owned()).acquire_owned().await.ok()?;
        Some((own, BEGINNING.acquire().await.ok()?))
    };
    timeout(TURN, places).await.ok().flatten().ok_or_else(body::too_many)
}

impl Wanted {
    fn deploy(&mut self) -> Option<&mut Deploy> {
        match &mut self.act {
            Act::Install(deploy) | Act::Upgrade(deploy) => Some(deploy),
            Act::Rollback(_) | Act::Uninstall(_) | Act::Test(_) => None,
        }
    }

    /// The release's name: of the path, of the body, or made of the chart's. The same request gets
    /// the same one.
    async fn release(&mut self, of_path: Option<&str>) -> Result<String, ApiError> {
        let of_body = self.deploy().and_then(|deploy| deploy.name.clone());
        let known = of_path.map(str::to_owned).or(of_body);
        if let Some(name) = known.or_else(|| Some(self.same(None)?.release)) {
            return Ok(name);
        }
        let name = names::generated(&self.fetch().await?);
        Ok(self.key.as_deref().map_or_else(|| name.clone(), |key| steady(&name, key)))
    }

    /// Has the chart here before a place is taken that others wait for; with the place that it has
    /// in memory, if it is there. What is said instead of it is told in its turn: other reasons go
    /// before it.
    async fn prepare(&mut self) -> Option<FetchPlace> {
        let from = self.deploy().map(|deploy| deploy.chart.clone());
        let from = from.filter(|_| self.same(None).is_none())?;
        match fetched(&self.gateway, &self.user, &from).await {
            Ok(pulled) => {
                let (chart, place) = pulled?;
                if let Some(deploy) = self.deploy() {
                    deploy.chart = chart;
                }
                Some(place)
            }
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    /// Has the chart here, if the act has one; its name. What was fetched is what is run, whatever
    /// the registry gives a moment later.
    async fn fetch(&mut self) -> Result<String, ApiError> {
        self.failed.take().map_or(Ok(()), Err)?;
        let (gateway, user) = (self.gateway.clone(), self.user.clone());
        let Some(deploy) = self.deploy() else { return Ok(String::new()) };
        let (archive, bytes) = chart_of(&gateway, &user, deploy).await?;
        deploy.chart = ChartFrom::Archive(bytes.clone());
        self.chart = Some(bytes);
        Ok(archive.name)
    }

    /// The operation that this request has begun already, here or anywhere.
    fn same(&self, seen: Option<&Seen>) -> Option<Operation> {
        let key = self.key.as_deref()?;
        let here = self.gateway.helm.operations.by_key(&self.namespace, key);
        here.map(|live| live.operation()).or_else(|| seen?.same(key))
    }

    async fn begin(mut self, release: &str) -> Result<Response, ApiError> {
        let (gateway, user) = (self.gateway.clone(), self.user.clone());
        let place = place_of(&self.namespace, release)?;
        let seen = place.look(&gateway.cluster, &user).await;
        let seen = gateway.authorizer.heed(&user, seen).await?;
        if let Some(same) = self.same(seen.as_ref()) {
            return Ok(self.accepted(&same));
        }
        if let Some(other) = at_it(&gateway, &self.namespace, release, seen.as_ref()) {
            return Err(busy(&other));
        }
        let engine = gateway.helm.engine.found().await.map_err(|error| no_engine(&error))?;
        let history = self.checked(release, seen.as_ref()).await?;
        if self.chart.is_none() {
            self.fetch().await?;
        }
        let method = self.method(&history).await?;
        argv(&self.act, release, &self.namespace, engine.major, method, false)?;
        let operation = self.operation(release, &history);
        let held = match self.lock(&place, &operation).await? {
            Taken::Same(same) => return Ok(self.accepted(&same)),
            Taken::Busy(other) => return Err(busy(&other)),
            Taken::Held(held) => *held,
        };
        // Somebody may have been at it between the look and the lock.
        let again = self.checked(release, None).await.and_then(|now| {
            let newest = |records: &[Record]| records.first().map(|record| record.revision);
            if newest(&now) == newest(&history) { Ok(()) } else { Err(changed()) }
        });
        let who = whose(&self.caller, &user);
        let seat = again.and_then(|()| gateway.helm.operations.seat(&who).map_err(no_seat));
        let seat = match seat {
            Ok(seat) => seat,
            Err(error) => {
                undo(&gateway, &user, held).await;
                return Err(error);
            }
        };
        let answer = self.accepted(&operation);
        let begun = gateway.helm.operations.begin(seat, operation, self.key, user);
        let (act, chart) = (self.act, self.chart);
        let task = Task { gateway, begun, held, engine, act, chart, method };
        tokio::spawn(run::run(task));
        Ok(answer)
    }

    /// The history, if the cluster says nothing against the act.
    async fn checked(&self, release: &str, seen: Option<&Seen>) -> Result<Vec<Record>, ApiError> {
        let (gateway, user, namespace) = (&self.gateway, &self.user, self.namespace.as_str());
        let may_be_absent = match &self.act {
            Act::Install(_) => true,
            Act::Upgrade(deploy) => deploy.install,
            Act::Rollback(_) | Act::Uninstall(_) | Act::Test(_) => false,
        };
        let history = if may_be_absent {
            let history = record::history(&gateway.cluster, user, namespace, release).await;
            gateway.authorizer.heed(user, history).await?
        } else {
            found(gateway, user, namespace, release, None).await?.0
        };
        let Some(newest) = history.first() else { return Ok(history) };
        if let Some(stuck) = stuck(&history, seen, false) {
            return Err(pending(release, &stuck));
        }
        match &self.act {
            Act::Install(_) => {
                let revision = newest.revision.to_string();
                let status = newest.status.as_str();
                let args = [("name", release), ("status", status), ("revision", revision.as_str())];
                return Err(conflict("error-release-name-taken", &args));
            }
            Act::Rollback(back) => {
                detail::chosen(&history, release, back_to(back, newest))?;
            }
            Act::Upgrade(_) | Act::Uninstall(_) | Act::Test(_) => {}
        }
        if !matches!(self.act, Act::Test(_)) {
            refuse_if_protected(gateway, user, namespace, release, newest).await?;
        }
        Ok(history)
    }

    /// How the revision was applied that Helm will look at; `None` where there is none, or nobody
    /// can read it.
    async fn method(&self, history: &[Record]) -> Result<Option<&'static str>, ApiError> {
        let Some(newest) = history.first() else { return Ok(None) };
        let record = match &self.act {
            // What is uninstalled is installed anew.
            Act::Upgrade(_) => Some(newest).filter(|newest| newest.status != Status::Uninstalled),
            Act::Rollback(back) => history.iter().find(|one| one.revision == back_to(back, newest)),
            Act::Install(_) | Act::Uninstall(_) | Act::Test(_) => None,
        };
        let Some(record) = record else { return Ok(None) };
        match content(&self.gateway, &self.user, record).await {
            Err(busy) if busy.status == StatusCode::TOO_MANY_REQUESTS => Err(busy),
            read => Ok(read.ok().and_then(Result::ok).map(|release| method_of(&release))),
        }
    }

    fn operation(&self, release: &str, history: &[Record]) -> Operation {
        let (verb, now) = (self.act.verb(), Some(Timestamp::now()));
        let instance = self.gateway.helm.operations.instance().to_owned();
        Operation {
            id: new_id(release, verb),
            namespace: self.namespace.clone(),
            release: release.to_owned(),
            act: verb.into(),
            steps: vec![Step { name: "lock".into(), state: Progress::Done.into(), at: now }],
            started_at: now,
            holder: Holder { user: self.caller.clone(), instance },
            before: history.first().map_or(0, |record| record.revision),
            ..Operation::default()
        }
    }

    /// Takes the lock; the namespace is made for it, if that was asked for and it is not there.
    async fn lock(&self, place: &Place, operation: &Operation) -> Result<Taken, ApiError> {
        let (gateway, user, key) = (&self.gateway, &self.user, self.key.as_deref());
        let silence = gateway.helm.silence;
        let creates = match &self.act {
            Act::Install(deploy) | Act::Upgrade(deploy) => deploy.create_namespace,
            Act::Rollback(_) | Act::Uninstall(_) | Act::Test(_) => false,
        };
        let taken = place.take(&gateway.cluster, user, operation, key, silence).await;
        match gateway.authorizer.heed(user, taken).await {
            Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) && creates => {}
            taken => return Ok(taken?),
        }
        // As Helm makes it (pkg/action/install.go).
        let name = &self.namespace;
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "labels": { "name": name } },
        });
        let namespace = Bytes::from(namespace.to_string());
        match send(gateway, user, Method::POST, "/api/v1/namespaces", JSON, namespace).await {
            Ok(_) => {}
            // Somebody else has made it.
            Err(failure) if failure.code() == Some(StatusCode::CONFLICT) => {}
            Err(failure) => return Err(failure.into()),
        }
        let taken = place.take(&gateway.cluster, user, operation, key, silence).await;
        Ok(gateway.authorizer.heed(user, taken).await?)
    }

    /// 202, and where to look on.
    fn accepted(&self, operation: &Operation) -> Response {
        let locale = self.gateway.locale_of(&self.head.headers);
        let mut response = body::answer(StatusCode::ACCEPTED, &shown(operation, locale));
        let (namespace, id) = (encoded(&operation.namespace), encoded(&operation.id));
        let below = format!("{CONTRACT}/operation/{namespace}/{id}");
        let location = self.gateway.seen_at(&self.head.headers, &below);
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// What was not begun leaves no trace; if that fails, the lock falls silent.
async fn undo(gateway: &Gateway, user: &User, held: Held) {
    let undone = held.undo(&gateway.cluster, user).await;
    if let Err(error) = gateway.authorizer.heed(user, undone).await {
        tracing::warn!(%error, "a lock that was taken for nothing could not be given back");
    }
}

/// The operation that is at work on this release: here, even if somebody has deleted its lock, or
/// by the lock anywhere.
pub fn at_it(
    gateway: &Gateway,
    namespace: &str,
    release: &str,
    seen: Option<&Seen>,
) -> Option<Operation> {
    match gateway.helm.operations.at(namespace, release) {
        Some(live) => Some(live.operation()),
        None => seen.filter(|seen| seen.is_live()).map(Seen::operation),
    }
}

/// Another operation is at work.
pub fn busy(other: &Operation) -> ApiError {
    in_the_way("error-release-busy", other)
}

/// A conflict whose sentence tells which operation it is with.
pub fn in_the_way(id: &'static str, other: &Operation) -> ApiError {
    let since = other.started_at.map(|at| at.to_string()).unwrap_or_default();
    let args = [
        ("name", other.release.as_str()),
        ("act", other.act.as_str()),
        ("user", other.holder.user.as_str()),
        ("instance", other.holder.instance.as_str()),
        ("since", since.as_str()),
        ("id", other.id.as_str()),
    ];
    conflict(id, &args)
}

/// A `pending-*` revision that no operation of ours is at.
pub fn pending(release: &str, stuck: &Stuck) -> ApiError {
    let since = stuck.since.map(|at| at.to_string()).unwrap_or_default();
    let revision = stuck.revision.to_string();
    let args = [
        ("name", release),
        ("status", stuck.status.as_str()),
        ("revision", revision.as_str()),
        ("since", since.as_str()),
    ];
    let id = match stuck.standing {
        Standing::Interrupted => "error-release-interrupted",
        Standing::Running | Standing::Elsewhere => "error-release-pending",
    };
    conflict(id, &args)
}

/// The release is not what it was a moment ago.
pub fn changed() -> ApiError {
    conflict("error-release-changed", &[])
}

pub fn conflict(id: &'static str, args: &[(&'static str, &str)]) -> ApiError {
    ApiError::with_status(StatusCode::CONFLICT, id, args)
}

fn no_seat(why: NoSeat) -> ApiError {
    match why {
        NoSeat::Full => body::too_many(),
        NoSeat::Ending => {
            ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, "error-shutting-down", &[])
        }
    }
}

pub fn no_engine(error: &engine::NoEngine) -> ApiError {
    let reason = error.to_string();
    let args = [("reason", reason.as_str())];
    ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, "error-no-engine", &args)
}

pub fn place_of(namespace: &str, release: &str) -> Result<Place, ApiError> {
    names::namespace(namespace)?;
    names::release(release)?;
    let bad = || ApiError::bad_request("error-bad-path", &[("reason", release)]);
    Place::of(namespace, release).ok_or_else(bad)
}

/// The key by which a client says that two requests are one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let is_key =
        |bytes: &[u8]| (1..=KEY).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    let key = value.to_str().ok().filter(|key| is_key(key.as_bytes()));
    key.map(Some).ok_or_else(|| ApiError::bad_request("error-idempotency-key", &[]))
}

/// A generated name that the same request gets again.
fn steady(name: &str, key: &str) -> String {
    let (stem, suffix) = name.rsplit_once('-').unwrap_or(("release", name));
    let taken = suffix.len().min(key.len());
    format!("{stem}-{}", letters(&key.as_bytes()[..taken]))
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
