//! The requests of one refresh to a registry or to Harbor: pages of lists, small documents, and the
//! tokens that registries hand out for them.
//!
//! What the documents mean is not its part, and it writes nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::task::JoinError;
use url::Url;

use super::catalogue::Rejected;
use super::client::{Client, FetchError, Fetched, Limits};
use super::oci::{Granted, TOKEN, bearer, is_followed, parameter, place};

/// Pages of one list. Registries give a hundred names a page.
pub(super) const PAGES: usize = 200;
/// Tags of one repository, or versions of one chart: those made at every commit have some
/// thousands. Whatever a page holds is kept until the chart is done, and pages have any length.
pub(super) const TAGS: usize = 10_000;
/// One page: a hundred names of 255 bytes are 26 KiB, and some registries give all on one page.
pub(super) const PAGE: u64 = 4 << 20;
/// Tokens that are kept: those of the list and of the charts under way are needed again, and each
/// may have 64 KiB.
const TOKENS: usize = 64;
/// To the head of an answer, with the connection and its TLS, and between two pieces of a body.
const IDLE: Duration = Duration::from_secs(15);
/// For one answer: they are small.
const TOTAL: Duration = Duration::from_secs(60);
/// Bytes a second.
const LEAST_RATE: u64 = 1 << 10;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum BadListing {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0} does not let us read {1}; its credentials may be missing or wrong")]
    Denied(String, String),
    #[error("{0} has no {1}")]
    NotFound(String, String),
    #[error("{0} answered {1} to {2}")]
    Status(String, StatusCode, String),
    #[error("{0} answered what is not understood: {1}")]
    Broken(String, String),
    #[error(
        "{0} does not tell which repositories it has; they can be named in the field \
         oci.repositories"
    )]
    NoCatalog(String),
    #[error("{0} has more than {1} {2}")]
    TooMany(String, usize, &'static str),
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error("it was broken off: {0}")]
    BrokenOff(#[from] JoinError),
}

impl BadListing {
    /// Whether it concerns what was asked for alone: all else may well be there.
    pub(super) fn is_of_one(&self) -> bool {
        matches!(self, Self::Denied(..) | Self::NotFound(..) | Self::Broken(..) | Self::TooMany(..))
    }
}

/// The requests of one refresh, with the tokens that the registry hands out for them.
pub(super) struct Session<'a> {
    client: &'a Client,
    pub(super) base: &'a Url,
    /// By scope.
    tokens: Mutex<HashMap<String, HeaderValue>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(client: &'a Client, base: &'a Url) -> Self {
        Self { client, base, tokens: Mutex::default() }
    }

    /// For messages: `host[:port]`.
    pub(super) fn host(&self) -> String {
        place(self.base)
    }

    /// An address from the root of the host.
    pub(super) fn url(&self, path: &str) -> Result<Url, BadListing> {
        let url = self.base.join(path);
        url.map_err(|error| BadListing::Broken(self.host(), error.to_string()))
    }

    /// One page of a list, and where the next one is.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        url: &Url,
        scope: &str,
        what: &str,
    ) -> Result<(T, Option<Url>), BadListing> {
        let (headers, bytes) = self.read(url, "application/json", scope, what, PAGE).await?;
        let page = serde_json::from_slice(&bytes).map_err(|error| {
            // It may repeat a text of the whole page's length.
            let why = error.to_string();
            BadListing::Broken(self.host(), format!("{what} cannot be read: {why:.200}"))
        })?;
        Ok((page, next(url, &headers)))
    }

    /// The head and the body of a 200.
    pub(super) async fn read(
        &self,
        url: &Url,
        accept: &'static str,
        scope: &str,
        what: &str,
        limit: u64,
    ) -> Result<(HeaderMap, Bytes), BadListing> {
        let known = lock(&self.tokens).get(scope).cloned();
        let mut answer = self.send(url, accept, known.as_ref(), limit).await?;
        let granted = match answer.status {
            StatusCode::UNAUTHORIZED => self.grant(&answer.headers, scope).await?,
            _ => None,
        };
        if let Some(token) = granted {
            self.keep(scope, &token);
            answer = self.send(url, accept, Some(&token), limit).await?;
        }
        match answer.status {
            StatusCode::OK => {
                let headers = answer.headers.clone();
                Ok((headers, answer.bytes().await?))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(BadListing::Denied(self.host(), what.to_owned()))
            }
            StatusCode::NOT_FOUND => Err(BadListing::NotFound(self.host(), what.to_owned())),
            status => Err(BadListing::Status(self.host(), status, url.path().to_owned())),
        }
    }

    fn keep(&self, scope: &str, token: &HeaderValue) {
        let mut tokens = lock(&self.tokens);
        if tokens.len() >= TOKENS {
            tokens.clear();
        }
        tokens.insert(scope.to_owned(), token.clone());
    }

    async fn send(
        &self,
        url: &Url,
        accept: &'static str,
        token: Option<&HeaderValue>,
        limit: u64,
    ) -> Result<Fetched, BadListing> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        let limits =
            Limits { head: IDLE, idle: IDLE, total: TOTAL, bytes: limit, least_rate: LEAST_RATE };
        Ok(self.client.get(url, &headers, &limits).await?)
    }

    /// A token from where the registry's 401 says (the distribution project's token specification;
    /// RFC 6750, 3). The client gives the credentials to their own host alone: another one hands
    /// out what anybody may have. `None`: it does not want such a token.
    pub(super) async fn grant(
        &self,
        headers: &HeaderMap,
        scope: &str,
    ) -> Result<Option<HeaderValue>, BadListing> {
        let challenges = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let mut challenges = challenges.filter_map(|value| value.to_str().ok()).filter_map(bearer);
        let Some(challenge) = challenges.next() else { return Ok(None) };
        let broken = |why: &str| BadListing::Broken(self.host(), why.to_owned());
        let realm = parameter(challenge, "realm").and_then(|realm| Url::parse(realm).ok());
        let mut realm =
            realm.filter(is_followed).ok_or_else(|| broken("its token has no address"))?;
        if let Some(service) = parameter(challenge, "service") {
            realm.query_pairs_mut().append_pair("service", service);
        }
        let asked = parameter(challenge, "scope").unwrap_or(scope);
        realm.query_pairs_mut().append_pair("scope", asked);
        let limit = u64::try_from(TOKEN).unwrap_or(u64::MAX);
        let answer = self.send(&realm, "application/json", None, limit).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                return Err(BadListing::Denied(place(&realm), asked.to_owned()));
            }
            status => {
                return Err(BadListing::Status(place(&realm), status, realm.path().to_owned()));
            }
        }
        let granted: Granted = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
        let token = [granted.token, granted.access_token].into_iter().find(|one| !one.is_empty());
        let token = token.ok_or_else(|| broken("it gave no token"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| broken("its token cannot stand in a header"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address of the next page (RFC 8288), at the very host that was asked: behind proxies some
/// registries name another one.
fn next(from: &Url, headers: &HeaderMap) -> Option<Url> {
    for link in headers.get_all(header::LINK) {
        let mut rest = link.to_str().unwrap_or_default();
        while let Some((_, at)) = rest.split_once('<') {
            let Some((target, after)) = at.split_once('>') else { break };
            let mut parameters = after.split('<').next().unwrap_or_default().split(';');
            let is_next = parameters.any(|one| {
                let (key, value) = one.trim_matches([' ', ',']).split_once('=').unwrap_or_default();
                key.eq_ignore_ascii_case("rel") && value.trim_matches('"') == "next"
            });
            if is_next {
                let target = from.join(target).ok()?;
                let mut url = from.clone();
                url.set_path(target.path());
                url.set_query(target.query());
                return Some(url);
            }
            rest = after;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charts::Policy;

    fn linked(links: &[&str]) -> Option<String> {
        let from = Url::parse("https://r.example:5000/v2/_catalog?n=100").unwrap();
        let mut headers = HeaderMap::new();
        for link in links {
            headers.append(header::LINK, HeaderValue::from_str(link).unwrap());
        }
        next(&from, &headers).map(String::from)
    }

    #[test]
    fn the_next_page_is_found_among_the_links_of_an_answer() {
        let wanted = Some("https://r.example:5000/v2/_catalog?last=b&n=100".to_owned());
        for links in [
            &["</v2/_catalog?last=b&n=100>; rel=\"next\""][..],
            &["<?last=b&n=100>;rel=next"],
            &["</v2/_catalog?n=100>; rel=\"prev\" , </v2/_catalog?last=b&n=100>; rel=\"next\""],
            &["</v2/_catalog?n=100>; rel=prev", "</v2/_catalog?last=b&n=100>; rel=next"],
        ] {
            assert_eq!(linked(links), wanted, "{links:?}");
        }
        for links in [&[][..], &["</a>; rel=prev"], &["/a; rel=next"], &["</a; rel=next"]] {
            assert_eq!(linked(links), None, "{links:?}");
        }
    }

    #[test]
    fn a_registry_with_many_charts_fills_no_memory_with_its_tokens() {
        let client = Client::new(&Policy::default(), None).unwrap();
        let base = Url::parse("https://r.example/").unwrap();
        let session = Session::new(&client, &base);
        for scope in 0..1000 {
            session.keep(&scope.to_string(), &HeaderValue::from_static("Bearer token"));
        }
        let tokens = lock(&session.tokens);
        assert!(tokens.len() <= TOKENS && tokens.contains_key("999"), "{}", tokens.len());
    }

    #[test]
    fn the_next_page_is_at_the_host_that_was_asked_whatever_it_says() {
        let link = "<http://169.254.169.254/v2/_catalog?last=b>; rel=next";
        assert_eq!(linked(&[link]).unwrap(), "https://r.example:5000/v2/_catalog?last=b");
    }
}
