//! Probes, metrics, and the page at the root. Probes need no credentials, no language and no API
//! server: an API server that is away must not empty the Service.
//!
//! `/readyz?verbose` and `/metrics` tell the whole truth; only `/readyz`'s status decides traffic.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};

use super::caller::Asked;
use super::target::encoded;
use super::{ApiError, Caller, Shared};
use crate::api::read::view::verified;
use crate::cache::{Cache, State as FeedState};
use crate::telemetry;

/// Ready at the latest after this long, synced or not: what is not cached is served live.
const SYNC_DEADLINE: Duration = Duration::from_secs(10);
/// The same while some kinds are synced, others not: an API server that answers takes its time for
/// many rows (15 s for 150,000 pods), and so many cannot be served live.
const LARGE_DEADLINE: Duration = Duration::from_secs(30);

/// A latch: released by the first sync or its deadline, kept until we drain.
pub struct Readiness {
    begun: Instant,
    released: AtomicBool,
    draining: AtomicBool,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            released: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }
}

impl Readiness {
    /// From now on not ready: the Service stops sending us new connections.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_ready(&self, cache: &Cache) -> bool {
        if self.draining.load(Ordering::Acquire) {
            return false;
        }
        if self.released.load(Ordering::Acquire) {
            return true;
        }
        let is_answered = cache.feeds().any(|feed| feed.state() != FeedState::Starting);
        let deadline = if is_answered { LARGE_DEADLINE } else { SYNC_DEADLINE };
        let released = cache.settled() || self.begun.elapsed() > deadline;
        if released {
            self.released.store(true, Ordering::Release);
        }
        released
    }
}

/// `GET /livez`, `/healthz`: the process answers.
pub async fn livez() -> &'static str {
    "ok"
}

/// `GET /readyz`: whether to send requests here; `?verbose` tells how each kind stands.
pub async fn readyz(State(gateway): Shared, request: Request) -> Response {
    let ready = gateway.readiness.is_ready(&gateway.cache);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = request.uri().query().is_some_and(|query| {
        url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "verbose")
    });
    if !verbose {
        return (status, if ready { "ok" } else { "not ready" }).into_response();
    }
    let mut text = String::new();
    for feed in gateway.cache.feeds() {
        let state = match feed.state() {
            FeedState::Starting => "syncing".to_owned(),
            FeedState::Refused => "read live: may not be watched".to_owned(),
            FeedState::Current => "current".to_owned(),
            FeedState::Stale(age) => format!("stale for {} s", age.as_secs()),
        };
        let _ = writeln!(text, "[{}] {}", feed.kind.name, state);
    }
    let _ = writeln!(text, "readyz {}", if ready { "passed" } else { "failed" });
    (status, text).into_response()
}

/// `GET /metrics`: OpenMetrics text. It speaks of the whole cluster, so it needs the right that the
/// API server asks for its own: `get` on the non-resource URL `/metrics`.
pub async fn metrics(State(gateway): Shared, Caller(user): Caller) -> Result<Response, ApiError> {
    if !gateway.authorizer.may_get(&gateway.cluster, &user, "/metrics").await? {
        let message = "get on the non-resource URL /metrics is not allowed".to_owned();
        return Err(ApiError::forbidden(message));
    }
    (gateway.gauges)(&gateway.metrics);
    let mut response = gateway.metrics.encode().into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(telemetry::CONTENT_TYPE));
    Ok(response)
}

/// `GET /` where no frontend is served: says what this is. Which cluster it is, only a caller learns
/// whom the API server knows.
pub async fn home(State(gateway): Shared, request: Request) -> Response {
    let base = &gateway.base_path;
    let is_known = match gateway.callers.user(&Asked::of(&request)) {
        Ok(user) => verified(&gateway, &user).await.is_ok(),
        Err(_) => false,
    };
    let cluster = match is_known {
        true => encoded(gateway.cluster.name()),
        false => "{cluster}".to_owned(),
    };
    format!(
        "Binnacle, in front of a Kubernetes cluster.\n\
         {base}/api/v1/pod      merged reads, the Kubernetes Dashboard's API\n\
         {base}/clusters/{cluster}/    the Kubernetes API itself, as you\n\
         {base}/readyz?verbose  how the cache stands\n",
    )
    .into_response()
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::upstream::Cluster;

    fn begun(ago: Duration) -> Readiness {
        let begun = Instant::now().checked_sub(ago).unwrap();
        Readiness { begun, ..Readiness::default() }
    }

    #[tokio::test]
    async fn a_kind_that_takes_long_is_waited_for_while_others_are_there_and_not_for_ever() {
        // It denies everything but pods, for which it takes for ever.
        let answer = |uri: http::Uri| async move {
            if uri.path() == "/api/v1/pods" {
                std::future::pending::<()>().await;
            }
            StatusCode::FORBIDDEN
        };
        let cluster = Cluster::played(axum::Router::new().fallback(answer)).await;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let cache = Cache::start(&cluster, &tasks, &stop);
        let later = begun(LARGE_DEADLINE * 2);
        assert!(!begun(Duration::ZERO).is_ready(&cache));
        assert!(begun(SYNC_DEADLINE * 2).is_ready(&cache), "nobody has answered yet");
        let starting = || cache.feeds().filter(|feed| feed.state() == FeedState::Starting).count();
        let others = async {
            while starting() > 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), others).await.unwrap();
        assert!(!begun(SYNC_DEADLINE * 2).is_ready(&cache), "there are no pods yet");
        assert!(later.is_ready(&cache) && later.is_ready(&cache));
        stop.cancel();
    }
}
