//! Charts into a ChartMuseum and out of it again, by its API
//! (github.com/helm/chartmuseum, pkg/chartmuseum/server/multitenant); and why a repository of
//! either kind does not take a chart.
//!
//! Reading is not its part: a ChartMuseum is read by its `index.yaml` as every other repository.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::client::{Client, FetchError, Fetched, Limits, place};
use super::session::BadListing;

/// One request: 20 MiB at 2 Mbit/s, and what a server needs to look at them. Of its answer nothing
/// is read but a sentence, a token or a manifest with many annotations.
pub(super) const LIMITS: Limits = Limits {
    head: Duration::from_secs(30),
    idle: Duration::from_secs(15),
    total: Duration::from_secs(150),
    bytes: 512 << 10,
    least_rate: 0,
};
/// All requests for one chart.
pub(super) const WRITE_TIME: Duration = Duration::from_secs(300);
/// Parts of an address that may be a context path (`--context-path`), which only the server knows:
/// so often at most is asked where the API is.
const CONTEXT: usize = 4;
/// What its router says where there is no such route: another context path, or a part of the API
/// that is switched off. A chart that it does not have it calls otherwise.
const NO_ROUTE: &str = "not found";
/// Of what a server says for itself, in characters.
const WORDS: usize = 300;

/// Why a repository has not taken a chart, or not given one up. Its own words come last.
#[derive(Debug, thiserror::Error)]
pub enum BadPush {
    #[error("{1} is in the repository at {0} already")]
    Exists(String, String),
    #[error("the repository at {0} replaces nothing that it has, not even by force: {1}")]
    Immutable(String, String),
    #[error("the repository at {0} has no {1}")]
    NotFound(String, String),
    #[error(
        "the server at {0} takes no charts: there is no ChartMuseum's API, or it is switched off \
         (DISABLE_API)"
    )]
    NoApi(String),
    #[error(
        "the repository at {0} deletes nothing: that has to be allowed there (for ChartMuseum \
         without DISABLE_API and DISABLE_DELETE, for the distribution registry with \
         REGISTRY_STORAGE_DELETE_ENABLED)"
    )]
    NoDelete(String),
    #[error("the repository at {0} does not allow it to the credentials that are set here: {1}")]
    Denied(String, String),
    #[error("the repository at {0} is full: {1}")]
    Full(String, String),
    #[error("the chart is too large for the repository at {0}: {1}")]
    TooLarge(String, String),
    #[error("the repository at {0} finds fault with what it was sent: {1}")]
    Unfit(String, String),
    #[error("the repository at {0} answered {1}: {2}")]
    Status(String, StatusCode, String),
    #[error("the repository at {0} answered what is not understood: {1}")]
    Broken(String, String),
    #[error("the repository at {0} did not answer in time")]
    Timeout(String),
    #[error("the repository has no place for the chart {0}: {1}")]
    Place(String, &'static str),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// While a token was fetched.
    #[error(transparent)]
    Token(#[from] BadListing),
}

impl BadPush {
    /// What a status means that nobody has expected.
    pub(super) fn of(place: String, status: StatusCode, words: String) -> Self {
        let words = if words.is_empty() { "it does not say why".to_owned() } else { words };
        match status {
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Self::Immutable(place, words),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied(place, words),
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge(place, words),
            StatusCode::INSUFFICIENT_STORAGE => Self::Full(place, words),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Self::Unfit(place, words),
            status => Self::Status(place, status, words),
        }
    }
}

/// A repository at `url`, whose path is that of its tenant: `/org/repo`.
#[derive(Clone, Copy)]
pub struct Museum<'a> {
    pub client: &'a Client,
    pub url: &'a Url,
}

/// A request of the API.
struct Wanted<'a> {
    method: Method,
    /// Behind the tenant.
    path: &'a [&'a str],
    force: bool,
    content: &'static str,
    body: Bytes,
}

impl Museum<'_> {
    /// Uploads an archive; `what` is how it is called in messages.
    pub async fn upload(&self, what: &str, archive: Bytes, force: bool) -> Result<(), BadPush> {
        let (method, content) = (Method::POST, "application/gzip");
        self.write(what, Wanted { method, path: &["charts"], force, content, body: archive }).await
    }

    /// Uploads a provenance file: that of the chart and version that stand in it.
    pub async fn sign(&self, what: &str, provenance: Bytes, force: bool) -> Result<(), BadPush> {
        let (method, content) = (Method::POST, "application/pgp-signature");
        self.write(what, Wanted { method, path: &["prov"], force, content, body: provenance }).await
    }

    /// Deletes a version with its provenance file.
    pub async fn delete(&self, what: &str, name: &str, version: &str) -> Result<(), BadPush> {
        let path = &["charts", name, version];
        let (method, content) = (Method::DELETE, "");
        self.write(what, Wanted { method, path, force: false, content, body: Bytes::new() }).await
    }

    async fn write(&self, what: &str, wanted: Wanted<'_>) -> Result<(), BadPush> {
        let late = |_| Err(BadPush::Timeout(place(self.url)));
        timeout(WRITE_TIME, self.send(what, wanted)).await.unwrap_or_else(late)
    }

    async fn send(&self, what: &str, wanted: Wanted<'_>) -> Result<(), BadPush> {
        let here = || place(self.url);
        let deletes = wanted.method == Method::DELETE;
        for mut at in places(self.url, wanted.path) {
            if wanted.force {
                at.set_query(Some("force"));
            }
            let mut headers = HeaderMap::new();
            if !deletes {
                let content = HeaderValue::from_static(wanted.content);
                headers.insert(header::CONTENT_TYPE, content);
            }
            let (method, body) = (wanted.method.clone(), wanted.body.clone());
            let answer = self.client.send(method, &at, &headers, body, &LIMITS).await?;
            let status = answer.status;
            if status.is_success() {
                return Ok(());
            }
            let words = words(answer).await;
            return Err(match status {
                // Servers of another kind have no words that are understood.
                StatusCode::NOT_FOUND if words.is_empty() || words == NO_ROUTE => continue,
                StatusCode::NOT_FOUND if deletes => BadPush::NotFound(here(), what.to_owned()),
                StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => break,
                StatusCode::CONFLICT if !wanted.force && !deletes => {
                    BadPush::Exists(here(), what.to_owned())
                }
                status => BadPush::of(here(), status, words),
            });
        }
        Err(if deletes { BadPush::NoDelete(here()) } else { BadPush::NoApi(here()) })
    }
}

/// Where this part of the API may be: `/api` stands before the tenant, and behind the context path.
fn places(url: &Url, rest: &[&str]) -> Vec<Url> {
    let parts = url.path_segments().into_iter().flatten().filter(|part| !part.is_empty());
    // Encoded again when they are put together.
    let parts: Vec<_> = parts.map(|part| percent_decode_str(part).decode_utf8_lossy()).collect();
    let place = |at: usize| {
        let mut url = url.clone();
        url.set_query(None);
        url.set_fragment(None);
        if let Ok(mut path) = url.path_segments_mut() {
            let (context, tenant) = parts.split_at(at);
            path.clear().extend(context).push("api").extend(tenant).extend(rest);
        }
        url
    };
    (0..=parts.len().min(CONTEXT)).map(place).collect()
}

/// How registries and ChartMuseum tell what is wrong.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    error: String,
    errors: Vec<Error>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Error {
    code: String,
    message: String,
}

/// What the server says of itself to an error; empty where it says nothing that can be shown.
pub(super) async fn words(answer: Fetched) -> String {
    let bytes = answer.bytes().await.unwrap_or_default();
    let told: Told = serde_json::from_slice(&bytes).unwrap_or_default();
    let errors = told.errors.iter().map(|error| match error.message.as_str() {
        "" => error.code.as_str(),
        message => message,
    });
    let all: Vec<&str> = [told.error.as_str()].into_iter().chain(errors).collect();
    let text = all.join(" ");
    text.trim().chars().filter(|c| !c.is_control()).take(WORDS).collect()
}

#[cfg(test)]
#[path = "museum_tests.rs"]
mod tests;
