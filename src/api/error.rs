//! The one error of the HTTP front: a status, whose fault it is, and what to say.
//!
//! It knows how errors become answers, those of the rooms below too, which know no HTTP; of what
//! they refuse themselves most handlers name the status. Bodies are the contract's (plain text), or
//! a `metav1.Status` where the caller speaks to the Kubernetes API.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::auth::Refusal;
use crate::cache::ListError;
use crate::helm::act::BadAct;
use crate::i18n::{self, Locale};
use crate::kinds::Malformed;
use crate::query::BadQuery;
use crate::upstream::{Failure, UpstreamError};

/// The contract's fixed body for missing or refused credentials: the web UI compares it.
const UNAUTHORIZED: &str = "MSG_LOGIN_UNAUTHORIZED_ERROR";
/// When to come again, in seconds: places are given back, and caches filled, within these.
const AGAIN: &str = "5";
/// As much as is repeated of what stood in a path, in characters.
const SHOWN: usize = 80;

#[derive(Debug, Clone)]
pub struct ApiError {
    pub status: StatusCode,
    pub fault: Fault,
    text: Text,
    /// It passes within seconds, and the answer says so.
    passes: bool,
    /// `reason` and `details` of a `metav1.Status`.
    reason: String,
    details: Option<Value>,
}

/// Whose fault it is: the first question at three in the morning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    Caller,
    Upstream,
    Ours,
}

/// In an answer's extensions: the error that it already says as its reader wants it. Who observes
/// the answer tells it to the log, and leaves the words alone.
#[derive(Clone)]
pub struct Told(pub Arc<ApiError>);

type Args = Vec<(&'static str, String)>;

#[derive(Debug, Clone)]
enum Text {
    /// Somebody else's words, or a token of the contract: never translated.
    Verbatim(String),
    Message {
        id: &'static str,
        args: Args,
    },
    /// An error's own words, and a message of ours after them.
    Followed {
        first: Box<Text>,
        id: &'static str,
        args: Args,
    },
}

impl Text {
    fn of(&self, locale: Locale) -> String {
        match self {
            Self::Verbatim(text) => text.clone(),
            Self::Message { id, args } => said(locale, id, args),
            Self::Followed { first, id, args } => {
                format!("{} {}", first.of(locale), said(locale, id, args))
            }
        }
    }

    /// Whether it begins with words that are not ours.
    fn is_verbatim(&self) -> bool {
        match self {
            Self::Verbatim(_) => true,
            Self::Message { .. } => false,
            Self::Followed { first, .. } => first.is_verbatim(),
        }
    }
}

fn said(locale: Locale, id: &str, args: &[(&'static str, String)]) -> String {
    let args: Vec<_> = args.iter().map(|(name, value)| (*name, &**value)).collect();
    i18n::message(locale, id, &args)
}

fn owned(args: &[(&'static str, &str)]) -> Args {
    args.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

impl ApiError {
    fn new(status: StatusCode, fault: Fault, text: Text) -> Self {
        // RFC 6585, 4.
        let passes = status == StatusCode::TOO_MANY_REQUESTS;
        Self { status, fault, text, passes, reason: reason(status).into(), details: None }
    }

    fn message(status: StatusCode, id: &'static str, args: &[(&'static str, &str)]) -> Self {
        let fault = if status.is_client_error() { Fault::Caller } else { Fault::Upstream };
        Self::new(status, fault, Text::Message { id, args: owned(args) })
    }

    pub fn bad_request(id: &'static str, args: &[(&'static str, &str)]) -> Self {
        Self::message(StatusCode::BAD_REQUEST, id, args)
    }

    /// Of a path, or a part of it, that can be none.
    pub fn bad_path(text: &str) -> Self {
        let shown: String = text.chars().take(SHOWN).collect();
        Self::bad_request("error-bad-path", &[("reason", &shown)])
    }

    /// Something that passes within seconds: 503 with a time to come again.
    pub fn passing(id: &'static str, args: &[(&'static str, &str)]) -> Self {
        Self { passes: true, ..Self::message(StatusCode::SERVICE_UNAVAILABLE, id, args) }
    }

    pub fn with_status(
        status: StatusCode,
        id: &'static str,
        args: &[(&'static str, &str)],
    ) -> Self {
        Self::message(status, id, args)
    }

    pub fn unauthorized() -> Self {
        let text = Text::Verbatim(UNAUTHORIZED.into());
        Self::new(StatusCode::UNAUTHORIZED, Fault::Caller, text)
    }

    /// A token of the contract that frontends know: never translated.
    pub fn contract(status: StatusCode, token: &str) -> Self {
        Self::new(status, Fault::Caller, Text::Verbatim(token.to_owned()))
    }

    /// The same error, and after its own words a message of ours.
    pub fn followed_by(self, id: &'static str, args: &[(&'static str, &str)]) -> Self {
        let text = Text::Followed { first: Box::new(self.text), id, args: owned(args) };
        Self { text, ..self }
    }

    pub fn forbidden(message: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, Fault::Caller, Text::Verbatim(message))
    }

    pub fn not_found(message: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, Fault::Caller, Text::Verbatim(message))
    }

    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "internal error");
        let text = Text::Message { id: "error-internal", args: Vec::new() };
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Fault::Ours, text)
    }

    /// The text in this locale.
    pub fn text(&self, locale: Locale) -> String {
        let words = self.text.of(locale);
        match self.status {
            StatusCode::FORBIDDEN if self.text.is_verbatim() => format!("forbidden: {words}"),
            _ => words,
        }
    }

    /// The error as an element of the contract's `errors` (`{"ErrStatus": …}`).
    pub fn as_item(&self, locale: Locale) -> Value {
        let mut status = json!({
            "metadata": {}, "status": "Failure", "message": self.text.of(locale),
            "reason": self.reason, "code": self.status.as_u16(),
        });
        if let (Some(details), Some(object)) = (&self.details, status.as_object_mut()) {
            object.insert("details".into(), details.clone());
        }
        json!({ "ErrStatus": status })
    }

    /// The error as the Kubernetes API words it: for the passthrough, where kubectl reads it.
    pub fn into_status_response(self) -> Response {
        let message = match &self.text {
            Text::Verbatim(text) if text == UNAUTHORIZED => "Unauthorized".to_owned(),
            text => text.of(Locale::EN),
        };
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": self.reason, "code": self.status.as_u16(),
        });
        if let (Some(details), Some(object)) = (&self.details, body.as_object_mut()) {
            object.insert("details".into(), details.clone());
        }
        let mut response = (self.status, format!("{body}\n")).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.extensions_mut().insert(Told(Arc::new(self)));
        response
    }

    /// The answer in this locale.
    pub fn into_text_response(self, locale: Locale) -> Response {
        let mut response = (self.status, self.text(locale)).into_response();
        // It names what would be right (RFC 9110, 15.5.22; RFC 6455, 4.4).
        if self.status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if self.passes {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(AGAIN));
        }
        response
    }
}

/// Answers in English; `respond::observed` says it again in the caller's language.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.clone().into_text_response(Locale::EN);
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// `reason` of a `metav1.Status` for a status code (apimachinery `metav1.StatusReason`).
fn reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        406 => "NotAcceptable",
        409 => "Conflict",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    }
}

impl From<UpstreamError> for ApiError {
    fn from(error: UpstreamError) -> Self {
        tracing::debug!(%error, "no answer from the API server");
        match &error {
            UpstreamError::Timeout => {
                Self::message(StatusCode::GATEWAY_TIMEOUT, "error-upstream-timeout", &[])
            }
            UpstreamError::TooLarge(_) => {
                let text = Text::Verbatim(error.to_string());
                Self::new(StatusCode::BAD_GATEWAY, Fault::Upstream, text)
            }
            UpstreamError::Cut(why) => {
                Self::bad_request("error-malformed-body", &[("reason", why.as_str())])
            }
            UpstreamError::Credentials => {
                Self::message(StatusCode::SERVICE_UNAVAILABLE, "error-own-credentials", &[])
            }
            UpstreamError::Unreachable(why)
            | UpstreamError::Broken(why)
            | UpstreamError::Setup(why) => {
                let args = [("reason", why.as_str())];
                Self::message(StatusCode::SERVICE_UNAVAILABLE, "error-upstream-unreachable", &args)
            }
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Upstream(error) => error.into(),
            Failure::Status { code: StatusCode::UNAUTHORIZED, .. } => Self::unauthorized(),
            Failure::Status { code, message, reason: why, details } => {
                let fault = if code.is_client_error() { Fault::Caller } else { Fault::Upstream };
                let mut error = Self::new(code, fault, Text::Verbatim(message));
                if !why.is_empty() {
                    error.reason = why;
                }
                error.details = details;
                error
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(failure) | Refusal::Unknown(failure) => (*failure).clone().into(),
        }
    }
}

impl From<ListError> for ApiError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Failed(failure) => failure.into(),
            ListError::TooMany(_) => {
                let text = Text::Verbatim(error.to_string());
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, Fault::Caller, text)
            }
        }
    }
}

impl From<BadQuery> for ApiError {
    fn from(error: BadQuery) -> Self {
        match error {
            BadQuery::UnknownFilter { column, known } => {
                let args = [("column", column.as_str()), ("known", known.as_str())];
                Self::bad_request("error-unknown-filter-column", &args)
            }
            BadQuery::Selector { reason } => {
                Self::bad_request("error-bad-label-selector", &[("reason", &reason)])
            }
            BadQuery::TooManyNamespaces { most } => {
                let most = most.to_string();
                Self::bad_request("error-too-many-namespaces", &[("most", &most)])
            }
        }
    }
}

impl From<BadAct> for ApiError {
    fn from(bad: BadAct) -> Self {
        Self::bad_request(bad.what, &bad.args())
    }
}

impl From<Malformed> for ApiError {
    fn from(error: Malformed) -> Self {
        tracing::warn!(%error, "the API server's object cannot be shown");
        Self::new(StatusCode::BAD_GATEWAY, Fault::Upstream, Text::Verbatim(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_426_names_the_protocol_and_the_version_that_are_spoken() {
        let status = StatusCode::UPGRADE_REQUIRED;
        let error = ApiError::with_status(status, "error-websocket-upgrade", &[]);
        let response = error.into_text_response(Locale::EN);
        let header = |name: &str| response.headers()[name].to_str().unwrap();
        let said = ["connection", "upgrade", "sec-websocket-version"].map(header);
        assert_eq!(said, ["Upgrade", "websocket", "13"]);
    }

    #[test]
    fn what_passes_says_when_to_come_again_whatever_follows_its_words() {
        let asked_again = |error: ApiError| {
            let response = error.into_text_response(Locale::EN);
            response.headers().get(header::RETRY_AFTER).is_some_and(|seconds| seconds == AGAIN)
        };
        let kind = [("kind", "pod")];
        let passing = ApiError::passing("error-cache-filling", &kind);
        assert_eq!(passing.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(asked_again(passing.clone()));
        let followed = passing.followed_by("error-nothing-created", &[("object", "a")]);
        assert!(asked_again(followed));
        let many = StatusCode::TOO_MANY_REQUESTS;
        let many = ApiError::with_status(many, "error-too-many-operations", &[]);
        assert!(asked_again(many));
        // Who knows how long that takes.
        assert!(!asked_again(UpstreamError::Timeout.into()));
    }

    #[test]
    fn of_a_path_that_is_none_no_more_is_repeated_than_somebody_reads() {
        let error = ApiError::bad_path(&"é".repeat(5000));
        let text = error.text(Locale::EN);
        assert_eq!(text.matches('é').count(), SHOWN, "{text}");
    }

    #[test]
    fn what_follows_an_errors_own_words_is_in_the_callers_language_and_they_are_not_changed() {
        let chinese = Locale::parse("zh-Hans").unwrap();
        let args = [("object", "Secret atlas/key")];
        let more = |locale| i18n::message(locale, "error-nothing-created", &args);
        let theirs = ApiError::forbidden("no secrets for you".into());
        let theirs = theirs.followed_by("error-nothing-created", &args);
        for locale in [Locale::EN, chinese] {
            let words = format!("no secrets for you {}", more(locale));
            assert_eq!(theirs.text(locale), format!("forbidden: {words}"));
            assert_eq!(theirs.as_item(locale)["ErrStatus"]["message"], words);
        }
        let ours = ApiError::from(UpstreamError::Timeout);
        let ours = ours.followed_by("error-nothing-created", &args);
        let first = i18n::message(chinese, "error-upstream-timeout", &[]);
        assert_eq!(ours.text(chinese), format!("{first} {}", more(chinese)));
    }

    #[test]
    fn a_body_that_broke_off_is_its_senders_fault() {
        let error = ApiError::from(UpstreamError::Cut("invalid chunk size".into()));
        assert_eq!((error.status, error.fault), (StatusCode::BAD_REQUEST, Fault::Caller));
        let mut response = error.into_status_response();
        let Told(error) = response.extensions_mut().remove().unwrap();
        assert!(error.text(Locale::EN).contains("invalid chunk size"));
    }
}
