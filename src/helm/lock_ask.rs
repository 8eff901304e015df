//! A lock's requests: like any other as the user, but their answer comes with the time at which the
//! API server gave it. Heartbeats are judged by that clock alone. Also what an answer says of a
//! lock's Secret besides its content, and what one means that is none.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::Value;
use tokio::time::timeout;

use crate::upstream::{Cluster, Failure, Identity, OBJECT_LIMIT, UpstreamError, User};

/// One request of a lock: several must fit into what is taken for silence.
pub const ANSWER: Duration = Duration::from_secs(8);
/// What the API server notes the time of a holder's writes under.
pub const MANAGER: &str = "binnacle";

/// Which version of the Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub uid: String,
    pub resource_version: String,
}

impl Version {
    pub fn of(secret: &Value) -> Option<Self> {
        let text = |name: &str| secret["metadata"][name].as_str().map(str::to_owned);
        Some(Self { uid: text("uid")?, resource_version: text("resourceVersion")? })
    }
}

/// When the holder wrote last, by the API server's clock.
pub fn written_at(secret: &Value) -> Option<i64> {
    let fields = secret.pointer("/metadata/managedFields").and_then(Value::as_array)?;
    let ours = fields.iter().filter(|entry| entry["manager"] == MANAGER);
    let times = ours.filter_map(|entry| entry["time"].as_str()?.parse::<Timestamp>().ok());
    times.map(Timestamp::as_second).max()
}

/// One request as the user: the answer, and the API server's clock when it gave it.
pub async fn ask(
    cluster: &Cluster,
    user: &User,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(Value, Option<i64>), Failure> {
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|error| UpstreamError::Setup(error.to_string()))?;
    let answer = async {
        let (head, body) = cluster.send(Identity::User(user), request).await?.into_parts();
        let body = Limited::new(body, OBJECT_LIMIT).collect().await;
        let body = body.map_err(|error| UpstreamError::Broken(error.to_string()))?.to_bytes();
        if head.status.is_client_error() || head.status.is_server_error() {
            return Err(Failure::status(head.status, &body).after(&head.headers));
        }
        let date = head.headers.get(header::DATE).and_then(|value| value.to_str().ok());
        let date = date.and_then(|text| rfc2822::DateTimeParser::new().parse_timestamp(text).ok());
        let value = serde_json::from_slice(&body).map_err(|error| broken(path, &error))?;
        Ok((value, date.map(Timestamp::as_second)))
    };
    let timed = timeout(ANSWER, answer).await;
    timed.unwrap_or(Err(Failure::Upstream(UpstreamError::Timeout)))
}

pub fn broken(path: &str, why: &dyn std::fmt::Display) -> Failure {
    UpstreamError::Broken(format!("{path}: {why}")).into()
}

/// Whether a write that failed so may have been done all the same.
pub fn is_unsure(failure: &Failure) -> bool {
    failure.code().is_none_or(|code| code.is_server_error())
}

/// Others were faster each time.
pub fn contended(path: &str) -> Failure {
    let words = format!("others keep changing {path}; try again");
    Failure::status(StatusCode::CONFLICT, words.as_bytes())
}
