//! What can go wrong between us and the API server, told apart by whose fault it is.
//!
//! No HTTP statuses of our own: `api::error` makes those.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::pool::Lost;

/// We got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the API server did not answer in time")]
    Timeout,
    #[error("the connection to the API server broke: {0}")]
    Broken(String),
    /// Its sender's fault: the API server was not heard, and no worse for it.
    #[error("the request's own body broke off: {0}")]
    Cut(String),
    /// The answer is longer than we hold in memory.
    #[error("the API server's answer is larger than {0} bytes")]
    TooLarge(usize),
    /// From a plugin or a file. Why is in the log alone: a plugin's words are not for callers.
    #[error("the server's own credentials for the cluster cannot be had")]
    Credentials,
    #[error("the cluster cannot be set up: {0}")]
    Setup(String),
}

/// We got no answer, or one that says no.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("{message}")]
    Status { code: StatusCode, message: String, reason: String, details: Option<serde_json::Value> },
}

/// The parts of a `metav1.Status` that we pass on.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    reason: String,
    details: Option<serde_json::Value>,
}

/// Longest text of an answer that is no `Status` which we repeat in a message.
const TEXT_LIMIT: usize = 512;
/// Between two words in the log about our own credentials: every request would have one.
const WORDS: Duration = Duration::from_secs(60);

impl UpstreamError {
    pub(super) fn from_stack(error: tower::BoxError) -> Self {
        match error.downcast::<Lost>() {
            Ok(error) => Self::from(*error),
            Err(error) => Self::credentials(&chain(&*error)),
        }
    }

    /// Says why to whoever runs us.
    pub(super) fn credentials(why: &str) -> Self {
        static SAID: Mutex<Option<Instant>> = Mutex::new(None);
        let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() >= WORDS) {
            *said = Some(Instant::now());
            tracing::warn!(why, "the server's own credentials for the cluster cannot be had");
        }
        Self::Credentials
    }
}

impl From<Lost> for UpstreamError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Connecting(error) => Self::Unreachable(chain(&*error)),
            Lost::Asking(error) => {
                cut(&error).map_or_else(|| Self::Broken(chain(&error)), Self::Cut)
            }
        }
    }
}

impl Failure {
    pub fn status(code: StatusCode, body: &[u8]) -> Self {
        let status: Status = serde_json::from_slice(body).unwrap_or_default();
        let message = if status.message.is_empty() {
            let text = String::from_utf8_lossy(body);
            let text: String = text.trim().chars().take(TEXT_LIMIT).collect();
            if text.is_empty() { code.to_string() } else { text }
        } else {
            status.message
        };
        Self::Status { code, message, reason: status.reason, details: status.details }
    }

    /// Adds what the answer's `Retry-After` asks for, where its body does not say it: that of an
    /// overloaded API server is plain text.
    pub fn after(mut self, headers: &HeaderMap) -> Self {
        let asked = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = asked.and_then(|text| text.trim().parse::<u64>().ok());
        if let (Some(seconds), Self::Status { details, .. }) = (asked, &mut self) {
            let details = details.get_or_insert_with(|| json!({}));
            if let Some(details) = details.as_object_mut() {
                details.entry("retryAfterSeconds").or_insert_with(|| seconds.into());
            }
        }
        self
    }

    /// How long the API server asks us to wait before we ask again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { details: Some(details), .. } => {
                details.get("retryAfterSeconds")?.as_u64().map(Duration::from_secs)
            }
            _ => None,
        }
    }

    pub fn code(&self) -> Option<StatusCode> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::Upstream(_) => None,
        }
    }
}

/// Why the body that was sent came to no good end, where that was it: bodies of requests alone have
/// errors of axum's.
fn cut(error: &dyn std::error::Error) -> Option<String> {
    let mut cause = error.source()?;
    while !cause.is::<axum::Error>() {
        cause = cause.source()?;
    }
    // Its own text is its cause's, and it may be wrapped more than once.
    while cause.is::<axum::Error>() {
        cause = cause.source()?;
    }
    Some(chain(cause))
}

/// An error with its causes, which hyper keeps out of its own text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_keeps_its_message_and_a_text_answer_becomes_one() {
        let body =
            br#"{"kind":"Status","message":"pods \"x\" not found","reason":"NotFound","code":404}"#;
        assert_eq!(
            Failure::status(StatusCode::NOT_FOUND, body).to_string(),
            "pods \"x\" not found"
        );
        let text = Failure::status(StatusCode::BAD_GATEWAY, b" upstream gone\n");
        assert_eq!(text.to_string(), "upstream gone");
        assert_eq!(Failure::status(StatusCode::BAD_GATEWAY, b"").to_string(), "502 Bad Gateway");
    }

    #[test]
    fn what_the_api_server_asks_us_to_wait_is_in_its_header_or_its_status() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, http::HeaderValue::from_static("7"));
        let busy = StatusCode::TOO_MANY_REQUESTS;
        let text = Failure::status(busy, b"Too many requests").after(&headers);
        assert_eq!(text.retry_after(), Some(Duration::from_secs(7)));
        let said = Failure::status(busy, br#"{"details":{"retryAfterSeconds":2}}"#).after(&headers);
        assert_eq!(said.retry_after(), Some(Duration::from_secs(2)));
        assert_eq!(Failure::status(busy, b"").after(&HeaderMap::new()).retry_after(), None);
    }
}
