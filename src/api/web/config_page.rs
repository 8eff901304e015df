//! What the web UI asks before anybody has signed in: `/config` and the banner of `/systembanner`.
//!
//! Nothing here is about a person or needs the cluster.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::api::Shared;
use crate::api::body;

/// A message at the top of every page; an empty one is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Banner {
    message: String,
    severity: Severity,
}

/// How loud a banner is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Severity {
    #[default]
    Info,
    Warning,
    Error,
}

impl Severity {
    /// By the contract's name of it, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Info, Self::Warning, Self::Error];
        all.into_iter().find(|severity| severity.name().eq_ignore_ascii_case(text))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
        }
    }
}

impl Banner {
    pub fn new(message: String, severity: Severity) -> Self {
        Self { message, severity }
    }
}

/// `GET /config`: our clock, which the UI counts ages by, and our version.
pub async fn config(State(gateway): Shared) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = json!({
        "serverTime": jiff::Timestamp::now().as_millisecond(),
        "userAgent": format!("binnacle/{version}"),
        "version": version,
    });
    // Nobody shall take the demo for a cluster.
    if gateway.callers.demo_admin.is_some() {
        page["demo"] = true.into();
    }
    body::answer(StatusCode::OK, &page)
}

/// `GET /systembanner`.
pub async fn system_banner(State(gateway): Shared) -> Response {
    let Banner { message, severity } = &gateway.banner;
    let page = json!({ "message": message, "severity": severity.name() });
    body::answer(StatusCode::OK, &page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_severity_is_known_by_its_name_in_any_case() {
        assert_eq!(Severity::parse("INFO"), Some(Severity::Info));
        assert_eq!(Severity::parse("warning"), Some(Severity::Warning));
        assert_eq!(Severity::parse("Error"), Some(Severity::Error));
        assert_eq!(Severity::parse("loud"), None);
    }
}
