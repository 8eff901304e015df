//! Answers as the API server gives them: JSON bodies, streams, and failures as `metav1.Status`
//! in Kubernetes' own words.
//!
//! It does not decide when to fail; the rooms that read requests do.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};

use super::kinds::Kind;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(super) type Reply = Response<Body>;

/// A whole body of a content type.
pub(super) fn whole(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()).boxed_unsync());
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A JSON body.
pub(super) fn json(code: u16, body: &Value) -> Reply {
    whole(code, "application/json", body.to_string())
}

/// A body whose length is not known, sent in chunks as they come.
pub(super) fn streamed(
    content_type: &'static str,
    chunks: impl Stream<Item = Bytes> + Send + 'static,
) -> Reply {
    let frames = chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let mut reply = Response::new(StreamBody::new(frames).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// The `details` of a Status: what they are about, without what is empty.
pub(super) fn details(group: &str, plural: &str, name: &str) -> Value {
    let parts = [("name", name), ("group", group), ("kind", plural)];
    parts.into_iter().filter(|part| !part.1.is_empty()).collect()
}

/// A request that failed; what the client gets is a `metav1.Status`, or plain text where there is
/// no reason.
#[derive(Debug)]
pub(super) struct Fail {
    pub code: u16,
    reason: &'static str,
    pub message: String,
    details: Option<Box<Value>>,
    retry_after: Option<u32>,
    next: Option<String>,
}

impl Fail {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Fail {
        let message = message.into();
        Fail { code, reason, message, details: None, retry_after: None, next: None }
    }

    /// The failure a test asked for, with the reason that belongs to its code.
    pub(super) fn injected(code: u16, path: &str) -> Fail {
        let (reason, message) = match code {
            401 => ("Unauthorized", "Unauthorized".to_owned()),
            403 => ("Forbidden", format!("forbidden: {path}")),
            404 => ("NotFound", "the server could not find the requested resource".to_owned()),
            410 => ("Expired", "The resourceVersion for the provided list is too old.".to_owned()),
            429 => ("TooManyRequests", "too many requests, please try again later".to_owned()),
            503 => ("ServiceUnavailable", "the server is currently unable to serve".to_owned()),
            504 => ("Timeout", "the request timed out".to_owned()),
            _ => ("InternalError", format!("an error on the server for {path}")),
        };
        let fail = Fail::new(code, reason, message);
        Fail { retry_after: matches!(code, 429 | 503).then_some(1), ..fail }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Fail {
        self.details = Some(Box::new(details(kind.group, kind.plural, name)));
        self
    }

    /// A failure that the API server finds before it looks for an object: it has empty details.
    fn bare(code: u16, reason: &'static str, message: &str) -> Fail {
        Fail { details: Some(Box::new(json!({}))), ..Fail::new(code, reason, message) }
    }

    /// `group` and `plural` are empty for what is no resource.
    pub(super) fn forbidden(message: String, group: &str, plural: &str, name: &str) -> Fail {
        let details = Some(Box::new(details(group, plural, name)));
        Fail { details, ..Fail::new(403, "Forbidden", message) }
    }

    pub(super) fn not_found(kind: &Kind, name: &str) -> Fail {
        let message = format!("{} \"{name}\" not found", kind.qualified());
        Fail::new(404, "NotFound", message).about(kind, name)
    }

    pub(super) fn exists(kind: &Kind, name: &str) -> Fail {
        let message = format!("{} \"{name}\" already exists", kind.qualified());
        Fail::new(409, "AlreadyExists", message).about(kind, name)
    }

    pub(super) fn conflict(kind: &Kind, name: &str) -> Fail {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please \
             apply your changes to the latest version and try again",
            kind.qualified()
        );
        Fail::new(409, "Conflict", message).about(kind, name)
    }

    pub(super) fn invalid(kind: &Kind, name: &str, why: &str) -> Fail {
        let message = format!("{} \"{name}\" is invalid: {why}", kind.kind);
        Fail::new(422, "Invalid", message).about(kind, name)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Fail {
        Fail::new(400, "BadRequest", message)
    }

    pub(super) fn unknown_path() -> Fail {
        Fail::bare(404, "NotFound", "the server could not find the requested resource")
    }

    /// A path outside of all API groups.
    pub(super) fn no_page() -> Fail {
        Fail::new(404, "", "404 page not found\n")
    }

    pub(super) fn unauthorized() -> Fail {
        Fail::new(401, "Unauthorized", "Unauthorized")
    }

    pub(super) fn method() -> Fail {
        let message = "the server does not allow this method on the requested resource";
        Fail::bare(405, "MethodNotAllowed", message)
    }

    pub(super) fn media_type() -> Fail {
        Fail::bare(415, "UnsupportedMediaType", "415: Unsupported Media Type")
    }

    /// A JSON patch that does not fit the object; the API server does not say why.
    pub(super) fn unfit_patch() -> Fail {
        let message = "the server rejected our request due to an error in our request";
        Fail::bare(422, "Invalid", message)
    }

    /// Options of a list or a watch that do not go together.
    pub(super) fn options(field: &str, why: &str) -> Fail {
        let why = format!("Forbidden: {why}");
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: {why}");
        let cause = json!({ "reason": "FieldValueForbidden", "message": why, "field": field });
        let mut about = details("meta.k8s.io", "ListOptions", "");
        about["causes"] = json!([cause]);
        Fail { details: Some(Box::new(about)), ..Fail::new(422, "Invalid", message) }
    }

    /// A version that is not there yet.
    pub(super) fn too_new(asked: u64, current: u64) -> Fail {
        let message = "Too large resource version";
        let cause = json!({ "reason": "ResourceVersionTooLarge", "message": message });
        let message = format!("Timeout: {message}: {asked}, current: {current}");
        Fail {
            details: Some(Box::new(json!({ "causes": [cause] }))),
            retry_after: Some(1),
            ..Fail::new(504, "Timeout", message)
        }
    }

    /// What the demo does not do, in one sentence.
    pub(super) fn unsupported(what: &str) -> Fail {
        Fail::new(501, "NotImplemented", format!("the demo cluster does not do this: {what}"))
    }

    /// A watch from a version that is no longer remembered.
    pub(super) fn expired(asked: u64, oldest: u64) -> Fail {
        Fail::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// A continue token of a forgotten version; `next` goes on without consistency.
    pub(super) fn expired_page(next: String) -> Fail {
        let message = "The provided continue parameter is too old to display a consistent list \
                       result. You can start a new list without the continue parameter, or use \
                       the continue token in this response to retrieve the remainder of the \
                       results. Continuing with the provided token results in an inconsistent list \
                       - objects that were created, modified, or deleted between the time the \
                       first chunk was returned and now may show up in the list.";
        Fail { next: Some(next), ..Fail::new(410, "Expired", message) }
    }

    /// The `metav1.Status`.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = (**details).clone();
        }
        if let Some(seconds) = self.retry_after {
            status["details"]["retryAfterSeconds"] = json!(seconds);
        }
        if let Some(next) = &self.next {
            status["metadata"]["continue"] = json!(next);
        }
        status
    }

    pub(super) fn reply(&self) -> Reply {
        let mut reply = if self.reason.is_empty() {
            whole(self.code, "text/plain; charset=utf-8", self.message.clone())
        } else {
            json(self.code, &self.status())
        };
        if let Some(seconds) = self.retry_after {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        reply
    }
}
