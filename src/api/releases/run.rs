//! One operation from its begin to its end: the engine's child, the heartbeats of the lock beside
//! it, the release read again as the truth about it, and the last word, which is written where it
//! outlives us. Also what a run needs of a chart, and how a release stands.
//!
//! Whether it may begin at all is `releases::write`'s part.

use std::ffi::OsString;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::operation::shown;
use super::plan::{closed, files};
use super::protect::{keep_label, refuse_if_protected};
use super::write::whose;
use crate::api::Gateway;
use crate::api::body::too_many;
use crate::api::charts::repositories::readable;
use crate::api::charts::version::{Wanted, chart_from_catalogue, chart_from_registry};
use crate::api::error::ApiError;
use crate::charts::archive::{self, Archive};
use crate::charts::dependencies::{self, BadDependency};
use crate::charts::store::FetchPlace;
use crate::helm::act::{Act, BadAct, ChartFrom, Deploy};
use crate::helm::argv::argv;
use crate::helm::classify::classify;
use crate::helm::door::{Door, DoorKey};
use crate::helm::engine::{Ended, Found, Job, RunError, Why};
use crate::helm::lock::{Beat, Held, Place, Seen};
use crate::helm::operation::{Begun, Live, Operation, Problem, State, conclude};
use crate::helm::record::{self, Record};
use crate::helm::redact::{Lines, without_values};
use crate::helm::stuck::{Standing, Stuck, stuck};
use crate::i18n::{self, Locale};
use crate::upstream::{Failure, User};

/// What the engine may say on its stdout: notes, logs of tests. More is not read by anybody.
const OUTPUT: usize = 8 << 20;
/// A run's time: its timeout for each of Helm's waits, for the same again when it rolls back on
/// failure, and what is beside: rendering knows no timeout. Helm waits so long for each hook and
/// each pod of a test, one after the other, and for the objects; charts have a few of them. Where
/// helm itself counts, it is over long before: this ends what hangs.
const WAITS: u32 = 20;
const BESIDE: Duration = Duration::from_secs(120);
/// How long the end of an operation waits for an API server that is away.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(2);

/// An operation that begins: its lock is held, its 202 is about to be sent.
pub struct Task {
    pub gateway: Arc<Gateway>,
    pub begun: Begun,
    pub held: Held,
    pub engine: Found,
    pub act: Act,
    pub chart: Option<Bytes>,
    /// How the release was applied so far: `ssa` or `csa`.
    pub method: Option<&'static str>,
}

/// What became of it.
#[derive(Debug, PartialEq)]
struct Outcome {
    state: State,
    exit_code: Option<i32>,
    error: Option<Problem>,
}

/// The chart that an act names, looked through, with the charts in it that it needs: those that it
/// does not hold come from repositories that the caller may read. No other chart is given to helm.
pub async fn chart_of(
    gateway: &Gateway,
    user: &User,
    deploy: &Deploy,
) -> Result<(Archive, Bytes), ApiError> {
    let (archive, bytes) = as_it_is_made(gateway, user, &deploy.chart).await?;
    let incomplete = |error: BadDependency| {
        if let BadDependency::BrokenOff(error) = &error {
            return ApiError::internal(error);
        }
        if error.is_busy() {
            return too_many();
        }
        let status =
            if error.is_away() { StatusCode::BAD_GATEWAY } else { StatusCode::BAD_REQUEST };
        let (name, reason) = (archive.name.as_str(), error.to_string());
        let args = [("name", name), ("reason", reason.as_str())];
        ApiError::with_status(status, "error-chart-dependency", &args)
    };
    let missing = dependencies::missing(&archive, &bytes).await.map_err(incomplete)?;
    let whole = if missing.is_empty() {
        (archive, bytes)
    } else {
        let readable = readable(gateway, user).await?;
        let chart = (archive.name.as_str(), bytes);
        let complete = dependencies::complete(&gateway.store, &readable, chart, &missing).await;
        complete.map_err(incomplete)?
    };
    closed(deploy, &whole.1).await?;
    Ok(whole)
}

/// Has the chart here that an act names elsewhere, where it may be slow: to be awaited before one
/// of the places is taken that others wait for. One of a repository is on disk then. One of any
/// registry is what is told: to be taken for what was named, and its place kept until the other.
pub async fn fetched(
    gateway: &Gateway,
    user: &User,
    from: &ChartFrom,
) -> Result<Option<(ChartFrom, FetchPlace)>, ApiError> {
    match from {
        ChartFrom::Archive(_) => Ok(None),
        ChartFrom::Catalogue { repository, name, version } => {
            let wanted = Wanted::named(gateway, user, repository, name, version).await?;
            wanted.fetched(gateway).await.map(|()| None)
        }
        ChartFrom::Oci(reference) => {
            let (bytes, place) = chart_from_registry(gateway, user, reference).await?;
            Ok(Some((ChartFrom::Archive(bytes), place)))
        }
    }
}

/// The chart that an act names, looked through.
async fn as_it_is_made(
    gateway: &Gateway,
    user: &User,
    from: &ChartFrom,
) -> Result<(Archive, Bytes), ApiError> {
    let bytes = match from {
        ChartFrom::Archive(bytes) => bytes.clone(),
        ChartFrom::Catalogue { repository, name, version } => {
            return chart_from_catalogue(gateway, user, repository, name, version).await;
        }
        // Whoever has prepared has it as an archive.
        ChartFrom::Oci(reference) => chart_from_registry(gateway, user, reference).await?.0,
    };
    let read = bytes.clone();
    // Up to 100 MiB are unpacked: too long for a thread that others wait for.
    let read = tokio::task::spawn_blocking(move || archive::inspect(&read)).await;
    match read.map_err(|error| ApiError::internal(&error))? {
        Ok(archive) => Ok((archive, bytes)),
        Err(error) => {
            let reason = error.to_string();
            Err(ApiError::bad_request("error-chart-broken", &[("reason", reason.as_str())]))
        }
    }
}

/// How a release stands: its last operation, and what its `pending-*` means; `null` each where
/// there is none. Of the lock nothing is told to whom it may not be read.
pub async fn standing(
    gateway: &Gateway,
    user: &User,
    locale: Locale,
    (namespace, name): (&str, &str),
    history: &[Record],
) -> (Value, Value) {
    let Some(place) = Place::of(namespace, name) else { return (Value::Null, Value::Null) };
    let seen = place.look(&gateway.cluster, user).await;
    let seen = gateway.authorizer.heed(user, seen).await.ok().flatten();
    let here = seen.as_ref().and_then(|seen| at_work(gateway, namespace, seen));
    let stuck = stuck(history, seen.as_ref(), here.is_some());
    let operation = match (&here, &seen) {
        (Some(live), _) => Some(live.operation()),
        (None, Some(seen)) => Some(seen.operation()),
        (None, None) => None,
    };
    let operation = operation.map(|operation| shown(&operation.bare(), locale));
    let stuck = stuck.map(|stuck| told(locale, &stuck, seen.as_ref()));
    (operation.unwrap_or_default(), stuck.unwrap_or_default())
}

/// The operation that holds this lock, if this process is at it.
fn at_work(gateway: &Gateway, namespace: &str, seen: &Seen) -> Option<Arc<Live>> {
    let live = gateway.helm.operations.find(namespace, &seen.operation().id)?;
    (!live.state().is_over()).then_some(live)
}

fn told(locale: Locale, stuck: &Stuck, seen: Option<&Seen>) -> Value {
    let id = match stuck.standing {
        Standing::Running => "release-stuck-running",
        Standing::Interrupted => "release-stuck-interrupted",
        Standing::Elsewhere if seen.is_none() => "release-stuck-unknown",
        Standing::Elsewhere => "release-stuck-elsewhere",
    };
    let holder = seen.map(|seen| seen.operation().holder).unwrap_or_default();
    let args = [
        ("status", stuck.status.as_str()),
        ("user", holder.user.as_str()),
        ("instance", holder.instance.as_str()),
    ];
    json!({
        "state": stuck.standing.as_str(), "since": stuck.since, "revision": stuck.revision,
        "remedy": stuck.remedy, "rollbackTo": stuck.rollback_to,
        "message": i18n::message(locale, id, &args),
    })
}

/// Runs it to its end, whatever happens.
pub async fn run(task: Task) {
    let Task { gateway, begun, mut held, engine, act, chart, method } = task;
    let live = begun.live.clone();
    let operation = live.operation();
    let (namespace, release) = (operation.namespace.as_str(), operation.release.as_str());
    let args = argv(&act, release, namespace, engine.major, method, false);
    let door = gateway.helm.doors.open(live.owner().borrow().clone());
    door.until(held.since + held.silence());
    let lost = AtomicBool::new(false);
    let (mut outcome, history) = {
        let what = (&act, args, chart);
        let mut work = pin!(work(&gateway, &live, (&engine, door.key()), what, &lost));
        let mut beats = pin!(beats(&gateway, &live, &mut held, door));
        loop {
            tokio::select! {
                done = &mut work => break done,
                () = &mut beats, if !is_set(&lost) => lost.store(true, Ordering::Relaxed),
            }
        }
    };
    let lost = is_set(&lost);
    if lost {
        outcome.state = State::Interrupted;
        outcome.error = Some(problem("locked", ""));
    }
    let (revision, status) = as_it_is(&act, history.as_deref());
    let result = |operation: &mut Operation| {
        operation.state = outcome.state;
        operation.exit_code = outcome.exit_code;
        operation.error = outcome.error.clone();
        operation.revision = revision;
        operation.status = status.clone();
    };
    if !lost {
        live.step("record");
        // The same request, come late, would uninstall what is there by then.
        let leaves_nothing = matches!(&act, Act::Uninstall(gone) if !gone.keep_history)
            && outcome.state == State::Succeeded
            && !held.is_keyed();
        let mut last = live.record();
        conclude(&mut last, result);
        last_word(&gateway, &live, &mut held, (!leaves_nothing).then_some(last)).await;
    }
    // Not before: who reads that it is over may begin the next one.
    live.finish(result);
    tracing::info!(id = %operation.id, %namespace, state = ?outcome.state, "an operation is over");
}

fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}

/// From the last look at the release before the engine starts to the first one when it is gone.
async fn work(
    gateway: &Gateway,
    live: &Live,
    (engine, key): (&Found, DoorKey),
    (act, args, chart): (&Act, Result<Vec<OsString>, BadAct>, Option<Bytes>),
    lost: &AtomicBool,
) -> (Outcome, Option<Vec<Record>>) {
    let Operation { namespace, release, .. } = live.operation();
    let token = key.token.clone();
    let ended = match args {
        Err(bad) => Err(problem("engine", &bad.to_string())),
        Ok(args) => child(gateway, engine, live, (args, key), (act, chart)).await,
    };
    let outcome = judged(act, ended, gateway.helm.doors.denial(&token));
    live.over(outcome.state == State::Succeeded);
    live.step("release");
    // First, since it waits for an API server that is away.
    let history = history(gateway, live, &namespace, &release).await;
    // Without the lock the newest record may be another's.
    if matches!(act, Act::Upgrade(_) | Act::Rollback(_)) && !is_set(lost) {
        let user = live.owner().borrow().clone();
        if let Err(error) = keep_label(gateway, &user, &namespace, &release).await {
            let text = error.text(gateway.locale);
            live.line(&format!("the protection of the release was not kept: {text}"));
        }
    }
    (outcome, history)
}

/// Why the engine must not start now that its turn has come: somebody has protected the release
/// since the operation was accepted. What cannot be read helm cannot read either.
async fn protected(gateway: &Gateway, live: &Live, act: &Act) -> Option<String> {
    live.step("engine");
    if matches!(act, Act::Test(_)) {
        return None;
    }
    let Operation { namespace, release, .. } = live.operation();
    let history = history(gateway, live, &namespace, &release).await?;
    let (newest, user) = (history.first()?, live.owner().borrow().clone());
    let refused = refuse_if_protected(gateway, &user, &namespace, &release, newest).await;
    refused.err().map(|error| error.text(gateway.locale))
}

/// One run of the engine, whose words go to the log.
async fn child(
    gateway: &Gateway,
    engine: &Found,
    live: &Live,
    (args, door): (Vec<OsString>, DoorKey),
    (act, chart): (&Act, Option<Bytes>),
) -> Result<Ended, Problem> {
    let Operation { namespace, holder, .. } = live.operation();
    let job = Job {
        args,
        door,
        namespace,
        files: files(act, chart),
        time: time_of(act),
        cancel: live.cancelled(),
        stdout_limit: OUTPUT,
    };
    let mut lines = Lines::default();
    let tell = |line: &str| {
        if let Some(line) = lines.without_value(line) {
            live.line(&line);
        }
    };
    let who = whose(&holder.user, &live.owner().borrow());
    let protected = protected(gateway, live, act);
    let ended = gateway.helm.engine.run_unless(Some(&who), protected, engine, job, tell).await;
    ended.map_err(|error| match error {
        RunError::Refused(words) => problem("forbidden", &words),
        error => problem("engine", &error.to_string()),
    })
}

/// Heartbeats until the lock is lost: then the door is shut at once, and the child told to end. The
/// door is shut as well when this is dropped, and while it is not known whether the lock is ours.
async fn beats(gateway: &Gateway, live: &Live, held: &mut Held, door: Door) {
    let mut owner = live.owner();
    loop {
        tokio::select! {
            () = sleep(held.pause()) => {}
            Ok(()) = owner.changed() => door.renew(owner.borrow_and_update().clone()),
        }
        let user = owner.borrow().clone();
        let began = Instant::now();
        let beat = held.write(&gateway.cluster, &user, live.record()).await;
        match gateway.authorizer.heed(&user, beat).await {
            Ok(Beat::Kept { cancel }) => {
                door.until(began + held.silence());
                if cancel {
                    live.cancel();
                }
            }
            Ok(Beat::Lost) => {
                drop(door);
                live.cancel();
                return;
            }
            Err(error) => {
                if error.code() == Some(StatusCode::UNAUTHORIZED) {
                    door.refused();
                }
                tracing::debug!(%error, "a heartbeat was not written");
            }
        }
    }
}

/// The release as it is now; `None` when it could not be read for a while.
async fn history(
    gateway: &Gateway,
    live: &Live,
    namespace: &str,
    release: &str,
) -> Option<Vec<Record>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let user = live.owner().borrow().clone();
        let history = record::history(&gateway.cluster, &user, namespace, release).await;
        match gateway.authorizer.heed(&user, history).await {
            Ok(history) => return Some(history),
            Err(failure) if is_final(&failure) || Instant::now() >= until => {
                live.line(&format!("the release could not be read again: {failure}"));
                return None;
            }
            Err(_) => sleep(AGAIN).await,
        }
    }
}

/// Writes the last record, or deletes the lock of what has left nothing, as long as it takes.
async fn last_word(gateway: &Gateway, live: &Live, held: &mut Held, last: Option<Operation>) {
    let until = Instant::now() + PATIENCE;
    loop {
        let user = live.owner().borrow().clone();
        let written = match &last {
            Some(last) => held.write(&gateway.cluster, &user, last.clone()).await.map(|_| ()),
            None => held.give_back(&gateway.cluster, &user).await,
        };
        match gateway.authorizer.heed(&user, written).await {
            Ok(()) => return,
            Err(error) if is_final(&error) || Instant::now() >= until => {
                tracing::warn!(%error, "the end of an operation could not be written");
                return;
            }
            Err(_) => sleep(AGAIN).await,
        }
    }
}

/// The namespace is gone, or the API server would say the same again. Credentials may be renewed.
fn is_final(failure: &Failure) -> bool {
    let passing = [StatusCode::UNAUTHORIZED, StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS];
    failure.code().is_some_and(|code| code.is_client_error() && !passing.contains(&code))
}

fn time_of(act: &Act) -> Duration {
    let timeout = match act {
        Act::Install(deploy) | Act::Upgrade(deploy) => deploy.waiting.timeout,
        Act::Rollback(back) => back.waiting.timeout,
        Act::Uninstall(gone) => gone.waiting.timeout,
        Act::Test(test) => test.timeout,
    };
    let rolls_back = matches!(
        act,
        Act::Install(deploy) | Act::Upgrade(deploy) if deploy.rollback_on_failure
    );
    let waits = if rolls_back { 2 * WAITS } else { WAITS };
    timeout * waits + BESIDE
}

/// What the child's end means; an error is that there was none. `denial` is what the API server
/// denied last: helm does not always tell.
fn judged(act: &Act, ended: Result<Ended, Problem>, denial: Option<String>) -> Outcome {
    let ended = match ended {
        Ok(ended) => ended,
        Err(problem) => {
            return Outcome { state: State::Failed, exit_code: None, error: Some(problem) };
        }
    };
    let exit_code = ended.code;
    let state = match ended.why {
        Why::Itself if exit_code == Some(0) => {
            return Outcome { state: State::Succeeded, exit_code, error: None };
        }
        Why::Cancelled => State::Cancelled,
        Why::Itself | Why::TimedOut | Why::TooMuchOutput => State::Failed,
    };
    let trouble = classify(ended.why, &ended.stderr);
    let trouble = if matches!(act, Act::Test(_)) { trouble.of_test() } else { trouble };
    // It may be that of a webhook.
    let error = match denial.map(|words| without_values(&words)) {
        // A quota's refusal is a 403, too; of a failed test Helm 3 says nothing but that.
        Some(words)
            if words.contains("exceeded quota")
                && matches!(trouble.class, "unknown" | "test-failed") =>
        {
            problem("quota", &format!("{}: {words}", trouble.detail))
        }
        Some(words) if trouble.class == "unknown" => {
            problem("forbidden", &format!("{}: {words}", trouble.detail))
        }
        _ => problem(trouble.class, &trouble.detail),
    };
    Outcome { state, exit_code, error: Some(error) }
}

fn problem(class: &str, detail: &str) -> Problem {
    Problem { class: class.to_owned(), message: String::new(), detail: detail.to_owned() }
}

/// Revision and status of the release after the act, whatever the engine said.
fn as_it_is(act: &Act, history: Option<&[Record]>) -> (Option<u32>, Option<String>) {
    let newest = match history {
        None => return (None, None),
        Some(history) => history.first(),
    };
    match newest {
        Some(newest) => (Some(newest.revision), Some(newest.status.as_str().to_owned())),
        None if matches!(act, Act::Uninstall(_)) => (None, Some("uninstalled".to_owned())),
        None => (None, None),
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
