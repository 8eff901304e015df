//! Locks against a small API server that compares resource versions, notes the time of changes and
//! has a clock of its own.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::State as Extracted;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::*;
use crate::helm::operation::Step;
use crate::helm::words::Word;

const SILENT: u32 = 30;
/// 2026-01-02T03:04:05Z
const NOON: i64 = 1_767_323_045;

#[derive(Default)]
struct Server {
    secret: Mutex<Option<Value>>,
    now: AtomicI64,
    version: AtomicI64,
    /// The next write is done, and its answer is lost.
    mute: AtomicBool,
}

async fn serve(Extracted(server): Extracted<Arc<Server>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (code, value) = answer(&server, &head, body);
    let written = code == 200 && head.method != Method::GET;
    let lost = written && server.mute.swap(false, Ordering::SeqCst);
    let now = Timestamp::from_second(server.now.load(Ordering::SeqCst)).unwrap();
    let date = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap();
    let code = if lost { 500 } else { code };
    let code = StatusCode::from_u16(code).unwrap();
    (code, [(header::DATE, date)], value.to_string()).into_response()
}

fn answer(server: &Server, head: &http::request::Parts, mut body: Value) -> (u16, Value) {
    let mut secret = server.secret.lock().unwrap();
    let here = |secret: &Option<Value>, pointer: &str| {
        secret.as_ref().and_then(|secret| secret.pointer(pointer).cloned()).unwrap_or_default()
    };
    let status = |code: u16| (code, json!({"kind": "Status", "message": "no", "code": code}));
    let version = here(&secret, "/metadata/resourceVersion");
    match (head.method.as_str(), secret.is_some()) {
        ("GET", true) => return (200, secret.clone().unwrap()),
        ("POST", true) => return status(409),
        ("GET" | "PUT" | "DELETE", false) => return status(404),
        ("PUT", true) if body["metadata"]["resourceVersion"] != version => return status(409),
        ("DELETE", true) if body["preconditions"]["resourceVersion"] != version => {
            return status(409);
        }
        ("DELETE", true) => {
            *secret = None;
            return (200, json!({"kind": "Status"}));
        }
        _ => {}
    }
    let now = Timestamp::from_second(server.now.load(Ordering::SeqCst)).unwrap().to_string();
    let mut fields = here(&secret, "/metadata/managedFields");
    let manager = head.uri.query().unwrap().strip_prefix("fieldManager=").unwrap();
    if body.pointer("/data/record") != secret.as_ref().and_then(|s| s.pointer("/data/record")) {
        fields = json!([{"manager": manager, "operation": "Update", "time": now}]);
    }
    let next = server.version.fetch_add(1, Ordering::SeqCst) + 1;
    body["metadata"]["uid"] = "u".into();
    body["metadata"]["resourceVersion"] = next.to_string().into();
    body["metadata"]["managedFields"] = fields;
    *secret = Some(body.clone());
    (200, body)
}

struct Stage {
    server: Arc<Server>,
    cluster: Cluster,
    user: User,
    place: Place,
}

impl Stage {
    async fn new() -> Self {
        let server = Arc::new(Server::default());
        server.now.store(NOON, Ordering::SeqCst);
        let router = axum::Router::new().fallback(serve).with_state(server.clone());
        let cluster = Cluster::played(router).await;
        let user = User::bearer("jane", &HeaderMap::new()).unwrap();
        Self { server, cluster, user, place: Place::of("shop", "web").unwrap() }
    }

    fn pass(&self, seconds: i64) {
        self.server.now.fetch_add(seconds, Ordering::SeqCst);
    }

    async fn take(&self, id: &str, key: Option<&str>) -> Taken {
        self.place.take(&self.cluster, &self.user, &operation(id), key, SILENT).await.unwrap()
    }

    async fn held(&self, id: &str) -> Held {
        match self.take(id, None).await {
            Taken::Held(held) => *held,
            Taken::Same(other) | Taken::Busy(other) => panic!("taken by {}", other.id),
        }
    }

    async fn beat(&self, held: &mut Held) -> Beat {
        let operation = held.entry.operation.clone();
        held.write(&self.cluster, &self.user, operation).await.unwrap()
    }

    async fn seen(&self) -> Seen {
        self.place.look(&self.cluster, &self.user).await.unwrap().unwrap()
    }
}

fn operation(id: &str) -> Operation {
    Operation { id: id.into(), state: State::Running, ..Operation::default() }
}

const KEPT: Beat = Beat::Kept { cancel: false };

#[test]
fn only_names_get_into_a_path() {
    assert!(Place::of("shop", "web.v1-2").is_some());
    for (namespace, release) in
        [("", "web"), ("shop", ""), ("a/b", "web"), ("shop", "../x"), ("a.b", "web"), ("shop", "W")]
    {
        assert!(Place::of(namespace, release).is_none(), "{namespace} {release}");
    }
    assert!(Place::of("shop", &"a".repeat(54)).is_none());
}

#[tokio::test]
async fn a_lock_that_is_held_is_busy_for_others_until_it_is_over() {
    let stage = Stage::new().await;
    let mut held = stage.held("a").await;
    let Taken::Busy(other) = stage.take("b", None).await else { panic!("not busy") };
    assert_eq!((other.id.as_str(), other.state), ("a", State::Elsewhere));
    stage.pass(i64::from(SILENT) - 1);
    assert!(matches!(stage.take("b", None).await, Taken::Busy(_)));
    assert_eq!(stage.beat(&mut held).await, KEPT);
    stage.pass(i64::from(SILENT) - 1);
    assert!(matches!(stage.take("b", None).await, Taken::Busy(_)), "a heartbeat was heard");
    let over = Operation { state: State::Succeeded, ..operation("a") };
    assert_eq!(held.write(&stage.cluster, &stage.user, over).await.unwrap(), KEPT);
    stage.held("b").await;
    let earlier = stage.seen().await.find("a").unwrap();
    assert_eq!(earlier.state, State::Succeeded);
}

#[tokio::test]
async fn a_silent_lock_is_taken_over_and_its_holder_learns_it_at_his_next_heartbeat() {
    let stage = Stage::new().await;
    let mut old = stage.held("a").await;
    stage.pass(i64::from(SILENT));
    assert_eq!(stage.seen().await.find("a").unwrap().state, State::Interrupted);
    let mut new = stage.held("b").await;
    assert_eq!(stage.beat(&mut old).await, Beat::Lost);
    assert_eq!(stage.beat(&mut new).await, KEPT);
    assert_eq!(stage.seen().await.find("a").unwrap().state, State::Interrupted);
    // Nor does he delete what is another's now.
    old.give_back(&stage.cluster, &stage.user).await.unwrap();
    assert_eq!(stage.seen().await.operation().id, "b");
}

#[tokio::test]
async fn a_longer_silence_than_can_be_configured_is_not_waited_for() {
    let stage = Stage::new().await;
    let claimed = operation("a");
    let taken = stage.place.take(&stage.cluster, &stage.user, &claimed, None, u32::MAX).await;
    assert!(matches!(taken, Ok(Taken::Held(_))));
    stage.pass(i64::from(LONGEST) - 1);
    assert!(stage.seen().await.is_live());
    stage.pass(1);
    stage.held("b").await;
}

#[tokio::test]
async fn a_lock_that_no_heartbeat_is_noted_on_is_taken_over_unless_its_holder_writes() {
    let stage = Stage::new().await;
    // As it comes out of a backup: somebody else has written it.
    let restored = |stage: &Stage| {
        let mut secret = stage.server.secret.lock().unwrap();
        secret.as_mut().unwrap()["metadata"]["managedFields"] = json!([]);
    };
    let mut held = stage.held("a").await;
    restored(&stage);
    let seen = stage.seen().await;
    assert!(!seen.is_live() && seen.operation().state == State::Interrupted);
    assert_eq!(stage.beat(&mut held).await, KEPT);
    let left = stage.place.is_left(&stage.cluster, &stage.user, &seen).await.unwrap();
    assert!(!left, "he lives");
    restored(&stage);
    stage.held("b").await;
    assert_eq!(stage.beat(&mut held).await, Beat::Lost);
}

#[tokio::test]
async fn a_holder_who_comes_back_in_time_keeps_his_lock() {
    let stage = Stage::new().await;
    let mut held = stage.held("a").await;
    stage.pass(i64::from(SILENT));
    let seen = stage.seen().await;
    assert!(!seen.is_live());
    assert_eq!(stage.beat(&mut held).await, KEPT);
    let left = stage.place.is_left(&stage.cluster, &stage.user, &seen).await.unwrap();
    assert!(!left && stage.seen().await.is_live());
    let error = stage.place.close(&stage.cluster, &stage.user, &seen).await.unwrap_err();
    assert_eq!(error.code(), Some(StatusCode::CONFLICT));
}

#[tokio::test]
async fn who_was_unlocked_while_he_was_silent_has_lost_the_lock() {
    let stage = Stage::new().await;
    let mut held = stage.held("a").await;
    stage.pass(i64::from(SILENT));
    let seen = stage.seen().await;
    stage.place.close(&stage.cluster, &stage.user, &seen).await.unwrap();
    assert_eq!(stage.beat(&mut held).await, Beat::Lost);
}

#[tokio::test]
async fn of_two_who_come_at_once_one_gets_the_lock() {
    let stage = Stage::new().await;
    drop(stage.held("a").await);
    stage.pass(i64::from(SILENT));
    let ids: Vec<String> = (0..8).map(|at| format!("b{at}")).collect();
    let all = ids.iter().map(|id| stage.take(id, None));
    let taken = futures::future::join_all(all).await;
    let held = taken.iter().filter(|taken| matches!(taken, Taken::Held(_))).count();
    let busy = taken.iter().filter(|taken| matches!(taken, Taken::Busy(_))).count();
    assert_eq!((held, busy), (1, 7));
}

#[tokio::test]
async fn the_same_request_is_the_same_operation_during_it_and_after_it() {
    let stage = Stage::new().await;
    let Taken::Held(mut held) = stage.take("a", Some("k")).await else { panic!("not free") };
    let same = async || match stage.take("b", Some("k")).await {
        Taken::Same(same) => (same.id, same.state),
        _ => panic!("another operation"),
    };
    assert_eq!(same().await, ("a".to_owned(), State::Elsewhere));
    let over = Operation { state: State::Failed, ..operation("a") };
    held.write(&stage.cluster, &stage.user, over).await.unwrap();
    assert_eq!(same().await, ("a".to_owned(), State::Failed));
    stage.held("c").await;
    assert_eq!(same().await, ("a".to_owned(), State::Failed), "another came after it");
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_no_loss_of_the_lock() {
    let stage = Stage::new().await;
    let mut held = stage.held("a").await;
    stage.server.mute.store(true, Ordering::SeqCst);
    let lost = held.write(&stage.cluster, &stage.user, operation("a")).await.unwrap_err();
    assert_eq!(lost.code(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(stage.beat(&mut held).await, KEPT);
    // The same with the last word.
    let over = Operation { state: State::Succeeded, ..operation("a") };
    stage.server.mute.store(true, Ordering::SeqCst);
    held.write(&stage.cluster, &stage.user, over.clone()).await.unwrap_err();
    assert_eq!(held.write(&stage.cluster, &stage.user, over).await.unwrap(), KEPT);
}

#[tokio::test]
async fn a_lock_whose_taking_was_not_answered_is_held_all_the_same() {
    let stage = Stage::new().await;
    for id in ["a", "b"] {
        stage.server.mute.store(true, Ordering::SeqCst);
        let mut held = stage.held(id).await;
        assert_eq!(stage.beat(&mut held).await, KEPT);
        let over = Operation { state: State::Succeeded, ..operation(id) };
        assert_eq!(held.write(&stage.cluster, &stage.user, over).await.unwrap(), KEPT);
    }
}

#[tokio::test]
async fn a_wish_to_cancel_reaches_the_holder_and_is_no_heartbeat() {
    let stage = Stage::new().await;
    let mut held = stage.held("a").await;
    stage.pass(20);
    let cancel = async |id: &str| {
        stage.place.cancel(&stage.cluster, &stage.user, id).await.unwrap().unwrap()
    };
    assert_eq!(cancel("b").await.operation().id, "a", "another operation is left alone");
    assert_eq!(stage.beat(&mut held).await, KEPT);
    stage.pass(20);
    cancel("a").await;
    stage.pass(15);
    assert!(!stage.seen().await.is_live());
    assert_eq!(stage.beat(&mut held).await, Beat::Kept { cancel: true });
    assert_eq!(stage.beat(&mut held).await, KEPT, "told once");
}

#[tokio::test]
async fn a_wish_to_cancel_is_not_lost_with_the_heartbeat_that_found_it() {
    let stage = Stage::new().await;
    let mut held = stage.held("a").await;
    stage.place.cancel(&stage.cluster, &stage.user, "a").await.unwrap();
    stage.server.mute.store(true, Ordering::SeqCst);
    held.write(&stage.cluster, &stage.user, operation("a")).await.unwrap_err();
    assert_eq!(stage.beat(&mut held).await, Beat::Kept { cancel: true });
    assert_eq!(stage.beat(&mut held).await, KEPT, "told once");
}

#[tokio::test]
async fn a_lock_that_somebody_deleted_is_made_anew() {
    let stage = Stage::new().await;
    let mut held = stage.held("a").await;
    *stage.server.secret.lock().unwrap() = None;
    assert_eq!(stage.beat(&mut held).await, KEPT);
    assert!(matches!(stage.take("b", None).await, Taken::Busy(_)));
    held.give_back(&stage.cluster, &stage.user).await.unwrap();
    assert!(stage.place.look(&stage.cluster, &stage.user).await.unwrap().is_none());
}

#[tokio::test]
async fn a_lock_that_was_taken_for_nothing_is_put_back_as_it_was() {
    let stage = Stage::new().await;
    stage.held("a").await.undo(&stage.cluster, &stage.user).await.unwrap();
    assert!(stage.place.look(&stage.cluster, &stage.user).await.unwrap().is_none());
    let mut held = stage.held("b").await;
    let log = vec!["done".to_owned()];
    let over = Operation { state: State::Succeeded, log, ..operation("b") };
    held.write(&stage.cluster, &stage.user, over.clone()).await.unwrap();
    stage.held("c").await.undo(&stage.cluster, &stage.user).await.unwrap();
    assert_eq!(stage.seen().await.operation(), over);
}

#[tokio::test]
async fn words_that_a_newer_replica_has_written_are_read_and_handed_on_as_they_are() {
    let stage = Stage::new().await;
    let mut held = stage.held("a").await;
    let steps = vec![Step { name: "wait".into(), state: Word::Other("paused".into()), at: None }];
    let (act, state) = (Word::Other("migrate".into()), State::Succeeded);
    let over = Operation { act, steps, state, ..operation("a") };
    assert_eq!(held.write(&stage.cluster, &stage.user, over.clone()).await.unwrap(), KEPT);
    assert_eq!(stage.seen().await.operation(), over);
    stage.held("b").await;
    assert_eq!(stage.seen().await.find("a"), Some(over));
}

#[tokio::test]
async fn a_secret_that_is_no_lock_is_left_alone() {
    let stage = Stage::new().await;
    let metadata = json!({"uid": "x", "resourceVersion": "0"});
    *stage.server.secret.lock().unwrap() = Some(json!({"type": "Opaque", "metadata": metadata}));
    let taken = stage.place.take(&stage.cluster, &stage.user, &operation("a"), None, SILENT).await;
    let error = taken.err().unwrap();
    assert!(error.to_string().contains("binnacle.operation.web"), "{error}");
}
