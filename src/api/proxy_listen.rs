//! `--proxy-listen`: the API server's paths at the root of a port of its own, as `kubectl proxy`
//! has them. It asks for no credentials: who reaches the port is the kubeconfig's user unless he
//! sends others, so names, paths and methods are filtered (k8s.io/kubectl/pkg/proxy), and other
//! sites' pages are refused.
//!
//! It serves no files and no route of ours.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use regex::Regex;

use super::Gateway;
use super::caller::{Asked, refuse_cross_site, refuse_unnamed};
use super::error::ApiError;
use super::passthrough;
use super::respond;
use crate::upstream::{BadPath, User, subprotocol_token};

/// What the names of our own cookies begin with.
const OWN_COOKIES: &[u8] = b"binnacle-";

/// What passes: accepted hosts and paths, without the rejected paths and methods. Rejection wins.
#[derive(Debug, Clone)]
pub struct ProxyFilter {
    accept_paths: Vec<Regex>,
    reject_paths: Vec<Regex>,
    accept_hosts: Vec<Regex>,
    reject_methods: Vec<Regex>,
}

impl ProxyFilter {
    /// Regular expressions, unanchored unless they say so. An empty list of what is accepted
    /// accepts nothing.
    pub fn new(
        accept_paths: &[String],
        reject_paths: &[String],
        accept_hosts: &[String],
        reject_methods: &[String],
    ) -> Result<Self, regex::Error> {
        let all = |list: &[String]| {
            list.iter().map(|text| Regex::new(text)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            accept_paths: all(accept_paths)?,
            reject_paths: all(reject_paths)?,
            accept_hosts: all(accept_hosts)?,
            reject_methods: all(reject_methods)?,
        })
    }

    /// `path` is decoded, `host` without its port.
    fn accepts(&self, method: &str, path: &str, host: &str) -> bool {
        let any = |list: &[Regex], text: &str| list.iter().any(|regex| regex.is_match(text));
        !any(&self.reject_paths, path)
            && !any(&self.reject_methods, method)
            && any(&self.accept_paths, path)
            && any(&self.accept_hosts, host)
    }
}

struct Front {
    gateway: Arc<Gateway>,
    filter: ProxyFilter,
}

/// Everything that the port answers.
pub fn router(gateway: Arc<Gateway>, filter: ProxyFilter) -> Router {
    Router::new().fallback(proxied).with_state(Arc::new(Front { gateway, filter }))
}

async fn proxied(State(front): State<Arc<Front>>, request: Request) -> Response {
    respond::noted(&front.gateway, request, |request| answer(&front, request)).await
}

async fn answer(front: &Front, mut request: Request) -> Result<Response, ApiError> {
    let uri = request.uri().clone();
    let info = passthrough::read(request.method(), &uri)?;
    if info.doubled_slash {
        // The API server would overlook the empty segment, a path filter would not.
        let reason = BadPath::Empty.to_string();
        return Err(ApiError::bad_request("error-bad-path", &[("reason", &reason)]));
    }
    let host = host(&request);
    if !front.filter.accepts(request.method().as_str(), &info.path, &host) {
        return Ok(forbidden());
    }
    refuse_cross_site(&Asked::of(&request))?;
    let target = request.uri().path_and_query().cloned();
    if let Some(target) = target {
        *request.uri_mut() = Uri::from(target);
    }
    // As behind `kubectl proxy` the client's own header wins (client-go
    // transport/round_trippers.go): one that is no good is a 401, never the kubeconfig's user.
    let brings = request.headers().contains_key(header::AUTHORIZATION)
        || subprotocol_token(request.method(), request.headers()).is_some();
    let user = match brings {
        true => front.gateway.callers.user(&Asked::of(&request))?,
        false => User::kubeconfig(request.headers()),
    };
    // An empty name would only take off whom the kubeconfig impersonates.
    refuse_unnamed(&user)?;
    drop_own_cookies(request.headers_mut());
    let mut response = passthrough::forward(&front.gateway, &user, &info, request).await?;
    passthrough::prefix_location(response.headers_mut(), front.gateway.cluster.prefix(), "");
    Ok(response)
}

/// Cookies know no ports: a browser sends those of our other listeners here, too. All others are
/// between it and what it calls behind us, where services sign people in.
fn drop_own_cookies(headers: &mut HeaderMap) {
    let sent: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for value in sent {
        let pairs = value.as_bytes().split(|byte| *byte == b';');
        let others: Vec<&[u8]> =
            pairs.filter(|pair| !pair.trim_ascii_start().starts_with(OWN_COOKIES)).collect();
        let others = others.join(&b';');
        if let Ok(others) = HeaderValue::from_bytes(others.trim_ascii())
            && !others.is_empty()
        {
            headers.append(header::COOKIE, others);
        }
    }
}

/// The name by which the client calls us. `kubectl proxy` takes the brackets off an IPv6 address
/// that has a port, which its own default filter then refuses; we keep them.
fn host(request: &Request) -> String {
    let asked = Asked::of(request);
    let named = asked.host().unwrap_or_default();
    match named.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
        _ => named.to_owned(),
    }
}

/// The very answer of `kubectl proxy`.
fn forbidden() -> Response {
    let mut response = (StatusCode::FORBIDDEN, "Forbidden\n").into_response();
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|text| (*text).to_owned()).collect()
    }

    fn defaults() -> ProxyFilter {
        ProxyFilter::new(
            &list(&["^.*"]),
            &list(&["^/api/.*/pods/.*/exec", "^/api/.*/pods/.*/attach"]),
            &list(&["^localhost$", r"^127\.0\.0\.1$", r"^\[::1\]$"]),
            &list(&["^$"]),
        )
        .unwrap()
    }

    #[test]
    fn the_defaults_let_through_what_kubectl_proxy_lets_through() {
        let accepts = |path, host| defaults().accepts("GET", path, host);
        assert!(accepts("/api/v1/namespaces/x/pods/p", "localhost"));
        assert!(accepts("/api/v1/namespaces/x/pods/p/portforward", "127.0.0.1"));
        assert!(accepts("/", "[::1]"));
        assert!(!accepts("/api/v1/namespaces/x/pods/p/exec", "localhost"));
        assert!(!accepts("/api/v1/namespaces/x/pods/p/attach", "localhost"));
        assert!(!accepts("/api", "evil.example"));
        assert!(!accepts("/api", "127.0.0.1.evil.example"));
        assert!(!accepts("/api", ""));
    }

    #[test]
    fn rejection_wins_and_an_empty_list_of_paths_accepts_none() {
        let reads = ProxyFilter {
            reject_methods: vec![Regex::new("^(POST|PUT|PATCH|DELETE)$").unwrap()],
            ..defaults()
        };
        assert!(reads.accepts("GET", "/api", "localhost"));
        assert!(!reads.accepts("DELETE", "/api", "localhost"));
        let none = ProxyFilter { accept_paths: Vec::new(), ..defaults() };
        assert!(!none.accepts("GET", "/api", "localhost"));
        assert!(ProxyFilter::new(&list(&["("]), &[], &[], &[]).is_err());
    }

    #[test]
    fn the_host_is_taken_without_its_port_and_from_an_absolute_target_first() {
        let named = |uri: &str, value: &str| {
            host(&http::Request::get(uri).header("host", value).body(Body::empty()).unwrap())
        };
        assert_eq!(named("/", "localhost:8001"), "localhost");
        assert_eq!(named("/", "localhost"), "localhost");
        assert_eq!(named("/", "[::1]:8001"), "[::1]");
        assert_eq!(named("/", "evil.example:80"), "evil.example");
        assert_eq!(named("http://evil.example/", "localhost"), "evil.example");
    }

    #[test]
    fn our_own_cookies_are_dropped_and_those_of_services_stay_as_they_came() {
        let left = |sent: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(header::COOKIE, HeaderValue::from_bytes(value).unwrap());
            }
            drop_own_cookies(&mut headers);
            let values = headers.get_all(header::COOKIE).iter();
            values.map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>()
        };
        let mixed: &[u8] = b"binnacle-token=a; session=b; binnacle-wrote=c;theme=d\xff";
        assert_eq!(left(&[mixed]), [b"session=b;theme=d\xff".to_vec()]);
        let two: [&[u8]; 2] = [b"a=1;  b=binnacle-x", b"binnacle-shell=y"];
        assert_eq!(left(&two), [b"a=1;  b=binnacle-x".to_vec()]);
        assert!(left(&[b"binnacle-token=a"]).is_empty());
        assert!(left(&[]).is_empty());
    }
}
