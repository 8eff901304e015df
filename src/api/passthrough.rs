//! `/clusters/{cluster}/…`: the Kubernetes API as the caller. Finds the caller, refuses bad
//! paths, asks for `create` before an upgrade into something that runs, then passes all on.
//!
//! It reads no body and rewrites no answer. Its own errors are `metav1.Status`, as kubectl reads.
//!
//! What services, pods and nodes serve through the API server is other people's, in our origin: it
//! gets none of what signs a browser in at this address, and a browser shows it in a sandbox.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::StreamExt as _;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;

use super::Gateway;
use super::caller::Asked;
use super::error::ApiError;
use super::target::encoded;
use super::websocket::Bridge;
use super::written::Wrote;
use crate::api::read::view::told_to_known;
use crate::auth::Attributes;
use crate::upstream::{self, BadPath, Identity, RequestInfo, User, classify, wanted_upgrade};

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// By which a proxy tells what it has taken off the path.
static PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// Which browsers send, and nobody else.
static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// In which proxies that sign people in hand their tokens on, beside `Authorization`: oauth2-proxy,
/// Pomerium, Teleport, Cloudflare Access, Google's IAP, AWS's load balancer, Azure, authentik, Vouch.
const TOKENS: [&str; 14] = [
    "x-forwarded-access-token",
    "x-auth-request-access-token",
    "x-pomerium-jwt-assertion",
    "teleport-jwt-assertion",
    "cf-access-jwt-assertion",
    "x-goog-iap-jwt-assertion",
    "x-amzn-oidc-accesstoken",
    "x-amzn-oidc-data",
    "x-ms-token-aad-access-token",
    "x-ms-token-aad-id-token",
    "x-ms-token-aad-refresh-token",
    "x-authentik-jwt",
    "x-vouch-idp-accesstoken",
    "x-vouch-idp-idtoken",
];

/// Any method on `/clusters/{cluster}` and below.
pub async fn passthrough(gateway: &Gateway, request: Request) -> Response {
    let answer = answer(gateway, request).await;
    answer.unwrap_or_else(ApiError::into_status_response)
}

async fn answer(gateway: &Gateway, mut request: Request) -> Result<Response, ApiError> {
    // First of all: who has no credentials learns nothing, not even which paths are odd.
    let user = gateway.callers.user(&Asked::of(&request))?;
    let own = gateway.cluster.name();
    let (cluster, target) = split(request.uri(), &gateway.base_path, own)?;
    if cluster != own {
        let error = ApiError::not_found(format!(
            "there is no cluster {cluster:?} here; the one behind this server is {own:?}"
        ));
        // A name may be an account's number: a token that is none tells nobody.
        return Err(Box::pin(told_to_known(gateway, &user, error)).await);
    }
    *request.uri_mut() = Uri::from(target);
    // From here on a WebSocket over HTTP/2 is the upgrade that the API server knows, reviewed as one.
    let bridge = Bridge::open(&mut request)?;
    let uri = request.uri().clone();
    let info = read(request.method(), &uri)?;
    let is_foreign = info.subresource == "proxy" || info.verb == "proxy";
    let is_fenced = is_foreign && is_shown(request.headers());
    // Cookies are between the browser, us, and whatever else signs people in at this address.
    request.headers_mut().remove(header::COOKIE);
    if is_foreign {
        drop_tokens(request.headers_mut());
    }
    let prefix = request.headers().get(&PREFIX).cloned();
    let mut response = forward(gateway, &user, &info, request).await?;
    if let Some(bridge) = bridge {
        response = bridge.answer(response)?;
    }
    if response.headers().contains_key(header::LOCATION) {
        let told: HeaderMap = prefix.map(|text| (PREFIX.clone(), text)).into_iter().collect();
        let root = gateway.seen_at(&told, &format!("/clusters/{}", encoded(own)));
        prefix_location(response.headers_mut(), gateway.cluster.prefix(), &root);
    }
    if is_fenced {
        fence_off(response.headers_mut());
    }
    Ok(response)
}

/// A redirect within the API server (a proxied service's missing slash, for one) stays behind us:
/// `root` stands where the kubeconfig's address has `prefix` before the API's own paths.
pub(super) fn prefix_location(headers: &mut HeaderMap, prefix: &str, root: &str) {
    let own = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(path) = own.filter(|path| path.starts_with('/') && !path.starts_with("//")) else {
        return;
    };
    // At a segment's end alone, and never so that another host's address is left.
    let whole = |rest: &&str| {
        !rest.starts_with("//") && (rest.is_empty() || rest.starts_with(['/', '?', '#']))
    };
    let rest = path.strip_prefix(prefix).filter(whole).unwrap_or(path);
    let slash = if rest.starts_with('/') { "" } else { "/" };
    if let Ok(location) = HeaderValue::from_str(&format!("{root}{slash}{rest}")) {
        headers.insert(header::LOCATION, location);
    }
}

/// Whether the answer may become a page that asks as the person who sees it, or leave cookies: it
/// came by a cookie, or by an `Authorization` that a proxy adds to what a browser asks. Old browsers,
/// and all of them over plain HTTP, only say that they would show a page. To scripts, which read
/// the answer, the fence is nothing.
fn is_shown(headers: &HeaderMap) -> bool {
    let html = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains("text/html"));
    // As all of them begin, and kubectl, curl and the like do not.
    let is_browser = |agent: &HeaderValue| agent.as_bytes().starts_with(b"Mozilla/");
    !headers.contains_key(header::AUTHORIZATION)
        || headers.contains_key(&FETCH_SITE)
        || headers.get(header::USER_AGENT).is_some_and(is_browser)
        || headers.get_all(header::ACCEPT).iter().any(html)
}

/// Whoever serves something would have the tokens of all who look at it.
fn drop_tokens(headers: &mut HeaderMap) {
    for name in TOKENS {
        headers.remove(name);
    }
}

/// A page that a service, pod or node serves through us is somebody else's, in our origin: a
/// browser must neither lend it what it is signed in by nor let it set a cookie.
fn fence_off(headers: &mut HeaderMap) {
    headers.remove(header::SET_COOKIE);
    let sandbox = HeaderValue::from_static("sandbox allow-scripts allow-forms allow-popups");
    headers.append(header::CONTENT_SECURITY_POLICY, sandbox);
}

/// What a request, whose URI is path and query alone, asks of the API server.
pub(super) fn read<'a>(method: &Method, uri: &'a Uri) -> Result<RequestInfo<'a>, ApiError> {
    if method == Method::CONNECT {
        // It asks for a tunnel to a host, never for a path; nothing behind us means that.
        let args = [("method", "CONNECT"), ("allowed", METHODS)];
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(ApiError::with_status(status, "error-method-not-allowed", &args));
    }
    classify(method, uri.path(), uri.query()).map_err(|error| bad_path(&error))
}

/// Sends the request on as the user; upgrades only after a review.
pub(super) async fn forward(
    gateway: &Gateway,
    user: &User,
    info: &RequestInfo<'_>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    if wanted_upgrade(&request).is_some() {
        let review = info.upgrade_needs_create().map_err(|error| {
            let reason = error.to_string();
            ApiError::bad_request("error-upgrade-refused", &[("reason", &reason)])
        })?;
        if review {
            // Boxed, as what is rare is here: plain reads must not carry its future about.
            Box::pin(review_create(gateway, user, info)).await?;
        }
    }
    let who = Identity::User(user);
    let is_proxied = info.verb == "proxy" || info.subresource == "proxy";
    // What runs in a pod, or is asked of what is behind it, changes no object.
    let runs = matches!(&*info.subresource, "exec" | "attach" | "portforward" | "token");
    let writes = !(is_proxied || runs)
        && matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    let wrote = writes.then(|| Wrote::something(&info.group, &info.resource)).flatten();
    // Before and after: lists must be live while it is on its way, and for a while from its end.
    if let Some(wrote) = &wrote {
        gateway.writes.note(user, wrote);
    }
    // Only browsers carry cookies; for others the answer stays as the API server gave it.
    let carries = request.headers().contains_key(&FETCH_SITE);
    let is_http2 = request.version() == Version::HTTP_2;
    let mut response = upstream::pass(&gateway.cluster, who, request, &gateway.tunnels).await?;
    // A service's own 401 says nothing of who the API server takes the caller for.
    if response.status() == StatusCode::UNAUTHORIZED && !is_proxied {
        gateway.authorizer.refused(user).await;
    }
    if let Some(wrote) = wrote {
        gateway.writes.note(user, &wrote);
        if carries {
            response.extensions_mut().insert(vec![wrote]);
        }
    }
    if is_http2 && info.verb == "watch" && response.status() == StatusCode::OK {
        response = response.map(until_broken);
    }
    Ok(response)
}

/// A watch that breaks off has ended: whoever reads it goes on from where he was. Over HTTP/2 the
/// break would be a stream that is reset, after which client-go lists everything anew. Lists and
/// logs keep their error: there a cut is no end.
fn until_broken(body: Body) -> Body {
    let frames = body.into_data_stream();
    Body::from_stream(frames.take_while(|frame| std::future::ready(frame.is_ok())))
}

/// May the caller `create` the subresource? API servers before 1.35 let `get` open a shell.
pub(super) async fn review_create(
    gateway: &Gateway,
    user: &User,
    info: &RequestInfo<'_>,
) -> Result<(), ApiError> {
    let attributes = Attributes {
        verb: "create".into(),
        group: info.group.to_string(),
        version: info.version.to_string(),
        resource: info.resource.to_string(),
        subresource: info.subresource.to_string(),
        namespace: info.namespace.to_string(),
        name: info.name.to_string(),
    };
    granted(gateway, user, &attributes).await
}

/// 403 in the words of the API server's own denials unless it lets the caller do this.
pub(super) async fn granted(
    gateway: &Gateway,
    user: &User,
    wanted: &Attributes,
) -> Result<(), ApiError> {
    if gateway.authorizer.review(&gateway.cluster, user, wanted).await? {
        return Ok(());
    }
    let name = user_name(gateway, user).await;
    Err(ApiError::forbidden(wanted.denial(&name)))
}

/// What the cluster calls the caller; empty when it does not say, as the API server words it for
/// a user without a name.
pub(super) async fn user_name(gateway: &Gateway, user: &User) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Review {
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Status {
        user_info: UserInfo,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct UserInfo {
        username: String,
    }
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let answer = gateway.cluster.post(Identity::User(user), path, &body).await;
    let answer = gateway.authorizer.heed(user, answer).await.unwrap_or_default();
    let review: Review = serde_json::from_slice(&answer).unwrap_or_default();
    review.status.user_info.username
}

/// The cluster's name and, byte for byte, what follows it.
///
/// Names may have slashes (EKS: `arn:aws:eks:…:cluster/prod`), and client-go sends even a `%2F` of
/// its server's address as `/`: as many segments are the name as make our own, else the first is.
fn split<'a>(
    uri: &'a Uri,
    base: &str,
    own: &'a str,
) -> Result<(Cow<'a, str>, PathAndQuery), ApiError> {
    let path = uri.path().strip_prefix(base).and_then(|path| path.strip_prefix("/clusters/"));
    let path = path.unwrap_or_default();
    let decoded = |text: &'a str| percent_decode_str(text).decode_utf8_lossy();
    // Nearly all write it as it is.
    let behind = path.strip_prefix(own).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let (name, rest) = match behind {
        Some(rest) => (Cow::Borrowed(own), rest),
        None => {
            let mut ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            let mut own_ends = ends.clone().take(own.matches('/').count() + 1);
            let end = own_ends.find(|end| decoded(path.split_at(*end).0) == own);
            let (name, rest) = path.split_at(end.or_else(|| ends.next()).unwrap_or(path.len()));
            (decoded(name), rest)
        }
    };
    let rest = if rest.is_empty() { "/" } else { rest };
    let target = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{rest}?{query}")),
        None => PathAndQuery::try_from(rest),
    };
    // It was part of a URI, so it is one; the error is only for the type.
    let target = target.map_err(|_| bad_path(&BadPath::Relative))?;
    Ok((name, target))
}

fn bad_path(error: &BadPath) -> ApiError {
    let reason = error.to_string();
    let id = match error {
        BadPath::Nul(_) => "error-nul-in-path",
        _ => "error-bad-path",
    };
    ApiError::bad_request(id, &[("reason", &reason)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watch_that_breaks_off_has_ended() {
        let broken = [Ok("a"), Err(std::io::Error::other("cut")), Ok("b")];
        let body = Body::from_stream(futures::stream::iter(broken));
        let read = axum::body::to_bytes(until_broken(body), usize::MAX).await;
        assert_eq!(&read.unwrap()[..], b"a");
    }

    #[test]
    fn the_clusters_name_is_taken_off_and_the_rest_stays_byte_for_byte() {
        for (uri, name, target) in [
            ("/clusters/main/api/v1/pods?a=%2F&b", "main", "/api/v1/pods?a=%2F&b"),
            ("/clusters/main", "main", "/"),
            ("/clusters/main?x", "main", "/?x"),
            ("/clusters/mainly/api", "mainly", "/api"),
            ("/clusters/main/", "main", "/"),
            ("/clusters/main//api", "main", "//api"),
            ("/clusters/arn%3Aaws%2Fx/api", "arn:aws/x", "/api"),
            ("/clusters/main/a%20b/%2e", "main", "/a%20b/%2e"),
            ("/clusters/main/api?", "main", "/api?"),
        ] {
            for own in ["main", "arn:aws/x"] {
                for base in ["", "/b"] {
                    let uri = format!("{base}{uri}").parse().unwrap();
                    let (found, rest) = split(&uri, base, own).unwrap();
                    assert_eq!((&*found, rest.as_str()), (name, target), "{uri}");
                }
            }
        }
    }

    #[test]
    fn our_own_name_may_have_slashes_and_come_with_them_decoded() {
        for (uri, name, target) in [
            ("/clusters/arn:aws/x/api?y", "arn:aws/x", "/api?y"),
            ("/clusters/arn%3Aaws/x//api", "arn:aws/x", "//api"),
            ("/clusters/arn:aws/x", "arn:aws/x", "/"),
            ("/clusters/arn:aws%2fx/x/api", "arn:aws/x", "/x/api"),
            // Not ours.
            ("/clusters/arn:aws/other/api?y", "arn:aws", "/other/api?y"),
            ("/clusters/arn:aws//x/api", "arn:aws", "//x/api"),
            ("/clusters/arn:aws/x%2Fapi", "arn:aws", "/x%2Fapi"),
            ("/clusters/arn:aws", "arn:aws", "/"),
        ] {
            let uri = uri.parse().unwrap();
            let (found, rest) = split(&uri, "", "arn:aws/x").unwrap();
            assert_eq!((&*found, rest.as_str()), (name, target), "{uri}");
        }
    }

    #[test]
    fn what_a_browser_may_show_is_told_from_what_a_client_reads() {
        let shown = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            is_shown(&pairs.collect())
        };
        let token = ("authorization", "Bearer a");
        assert!(shown(&[]), "by the cookie");
        assert!(shown(&[token, ("sec-fetch-site", "cross-site"), ("accept", "*/*")]));
        assert!(shown(&[token, ("accept", "*/*"), ("user-agent", "Mozilla/5.0")]));
        assert!(shown(&[token, ("accept", "text/html,application/xhtml+xml,*/*;q=0.8")]));
        for accept in ["*/*", "application/json, */*"] {
            assert!(!shown(&[token, ("accept", accept)]));
        }
        assert!(!shown(&[token]));
    }

    #[test]
    fn tokens_of_proxies_that_sign_people_in_are_dropped_and_names_stay() {
        let mut headers = HeaderMap::new();
        for name in TOKENS.into_iter().chain(["x-forwarded-user", "x-auth-request-email"]) {
            // As whoever has two proxies in front has them.
            headers.append(name, HeaderValue::from_static("a"));
            headers.append(name, HeaderValue::from_static("b"));
        }
        drop_tokens(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-auth-request-email", "x-forwarded-user"]);
    }

    #[test]
    fn a_redirect_within_the_api_server_is_prefixed_and_another_is_left_alone() {
        for (location, seen) in [
            ("/api/v1/x/proxy/", "/b/clusters/main/api/v1/x/proxy/"),
            ("https://elsewhere.example/", "https://elsewhere.example/"),
            ("//elsewhere.example/", "//elsewhere.example/"),
            ("next", "next"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_static(location));
            prefix_location(&mut headers, "", "/b/clusters/main");
            assert_eq!(headers[header::LOCATION], seen);
        }
    }

    #[test]
    fn what_the_clusters_address_puts_before_its_paths_is_not_said_twice() {
        for (location, behind, at_root) in [
            ("/k/api/x/", "/b/clusters/main/api/x/", "/api/x/"),
            ("/k", "/b/clusters/main/", "/"),
            ("/k?a=/k/", "/b/clusters/main/?a=/k/", "/?a=/k/"),
            ("/kk/x", "/b/clusters/main/kk/x", "/kk/x"),
            ("/api/k/", "/b/clusters/main/api/k/", "/api/k/"),
            (
                "/k//elsewhere.example/",
                "/b/clusters/main/k//elsewhere.example/",
                "/k//elsewhere.example/",
            ),
            (
                "https://elsewhere.example/k/",
                "https://elsewhere.example/k/",
                "https://elsewhere.example/k/",
            ),
        ] {
            for (root, seen) in [("/b/clusters/main", behind), ("", at_root)] {
                let mut headers = HeaderMap::new();
                headers.insert(header::LOCATION, HeaderValue::from_static(location));
                prefix_location(&mut headers, "/k", root);
                assert_eq!(headers[header::LOCATION], seen, "{location}");
            }
        }
    }
}
