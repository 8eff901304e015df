//! Who is calling: from `Authorization`, a WebSocket subprotocol, our cookie, or, on the demo
//! cluster's loopback listener alone, nobody at all.
//!
//! It finds credentials and never judges them: whether a token is good, the API server says. There
//! is no ambient authority: without a token, being on this machine is worth nothing.
//!
//! Some credentials come with whatever any page asks of us: our cookie, the admin whom the demo's
//! loopback takes everybody for, the user of `--proxy-listen`, and an `Authorization` that a proxy
//! in front has added (oauth2-proxy, Pomerium). With these a page has to be our own. It is
//! - when the browser says so: `Sec-Fetch-Site`, and nobody's script writes a header `Sec-…`;
//! - else when its `Origin` is the name and port by which we were called: to us, or to a proxy that
//!   tells of it (`X-Forwarded-Host`). A foreign page cannot say that header: it would have to be
//!   asked for in a preflight, and we grant none. Another port of our host is another page.
//!
//! Whether a script or a proxy has set an `Authorization`, nobody says. But a foreign page sets none
//! without a preflight either, so the doubt is about what needs none: GET and HEAD, which change
//! nothing and whose answers it does not get to read, a POST of four types of content, and a
//! WebSocket. The last two always have an `Origin`; those of others are refused, but for frontends
//! of other origins that somebody has named (`--trusted-origins`). Links to us may stand anywhere:
//! `passthrough` sees to it that what they show does not act as ours.

use aws_lc_rs::hmac;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};

use super::error::ApiError;
use crate::serve::Peer;
use crate::upstream::{User, subprotocol_token};

/// The cookie that a `?token=` link sets; strict, so that no other site's page can use it.
const COOKIE: &str = "binnacle-token";
/// Names by which a browser may call a loopback listener; others are rebound names.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
/// What a page may post to any site without a preflight (Fetch, 2.2.2; of a link's pings: HTML,
/// 4.6.7), as is what has no type.
const UNASKED: [&str; 4] =
    ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", "text/ping"];

/// How callers are told apart on this gateway.
#[derive(Debug, Default)]
pub struct Callers {
    /// Stands for the kubeconfig's user; only on a loopback listener.
    pub local_token: Option<String>,
    /// The demo cluster's admin: who has no credentials on loopback is this one.
    pub demo_admin: Option<String>,
    /// Origins of frontends that bring their users' tokens themselves.
    pub trusted: Vec<String>,
}

/// The parts of a request that tell who sends it.
pub struct Asked<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub peer: Option<Peer>,
}

impl<'a> Asked<'a> {
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            peer: request.extensions().get::<Peer>().copied(),
        }
    }

    pub fn of_parts(parts: &'a Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            headers: &parts.headers,
            peer: parts.extensions.get::<Peer>().copied(),
        }
    }

    /// The name that the client called us by: HTTP/2 has it in the address, HTTP/1.1 in a header.
    pub fn host(&self) -> Option<&str> {
        let header = self.headers.get(header::HOST).and_then(|value| value.to_str().ok());
        self.uri.authority().map(Authority::as_str).or(header)
    }

    /// Whether pages of this origin were called as we are, by us or by what a proxy in front tells:
    /// a name with its port, or both apart.
    fn is_own(&self, origin: &str) -> bool {
        let Some((scheme, page)) = origin.split_once("://") else { return false };
        // Clients that are no browsers write the server's whole address.
        let page = page.split('/').next().unwrap_or_default();
        let default = if scheme == "https" { ":443" } else { ":80" };
        let page = page.strip_suffix(default).unwrap_or(page);
        let is_page = |name: &str| name.strip_suffix(default).unwrap_or(name) == page;
        let is_told = |name: &str| {
            let port = page.strip_prefix(name).and_then(|rest| rest.strip_prefix(':'));
            let is_port = |port: &str| self.told("x-forwarded-port").any(|one| one == port);
            is_page(name) || port.is_some_and(is_port)
        };
        self.host().is_some_and(is_page) || self.told("x-forwarded-host").any(is_told)
    }

    /// What proxies tell by a header: several in a row make a list of it.
    fn told(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let texts = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| text.split(',')).map(str::trim).filter(|one| !one.is_empty())
    }

    /// Of what has an `Origin`: whether a page may have sent it without a preflight, and so with no
    /// credentials of its own, though it does something.
    fn is_unasked(&self) -> bool {
        let is_simple = |value: &HeaderValue| {
            let begins = |one: &str| {
                let begin = value.as_bytes().get(..one.len());
                begin.is_some_and(|begin| begin.eq_ignore_ascii_case(one.as_bytes()))
            };
            UNASKED.into_iter().any(begins)
        };
        let content = self.headers.get(header::CONTENT_TYPE);
        match *self.method {
            // A WebSocket over HTTP/2.
            Method::CONNECT => true,
            Method::POST => content.is_none_or(is_simple),
            _ => self.headers.contains_key(header::UPGRADE),
        }
    }
}

impl Callers {
    /// The caller of a request, or 401; 403 when a browser sends it from another site.
    pub fn user(&self, asked: &Asked<'_>) -> Result<User, ApiError> {
        let user = self.find(asked)?;
        refuse_unnamed(&user)?;
        Ok(user)
    }

    fn find(&self, asked: &Asked<'_>) -> Result<User, ApiError> {
        let headers = asked.headers;
        if let Some(token) = bearer(headers)? {
            // One look-up for whoever is no browser, or only reads.
            let origin = headers.get(header::ORIGIN);
            if origin.is_some_and(|origin| !self.trusts(origin)) && asked.is_unasked() {
                refuse_cross_site(asked)?;
            }
            return self.with_token(token, headers);
        }
        if let Some(token) = subprotocol_token(asked.method, headers) {
            if self.local_token.as_ref().is_some_and(|local| same(local, &token)) {
                refuse_cross_site(asked)?;
                refuse_rebound_name(asked)?;
            }
            return self.with_token(&token, headers);
        }
        if let (Some(local), Some(sent)) = (&self.local_token, cookie(headers, COOKIE)) {
            refuse_cross_site(asked)?;
            refuse_rebound_name(asked)?;
            return if same(&cookie_for(local), sent) {
                Ok(User::kubeconfig(headers))
            } else {
                Err(ApiError::unauthorized())
            };
        }
        match (&self.demo_admin, asked.peer) {
            (Some(token), Some(Peer(address))) if address.ip().to_canonical().is_loopback() => {
                refuse_cross_site(asked)?;
                refuse_rebound_name(asked)?;
                User::bearer(token, headers).ok_or_else(ApiError::unauthorized)
            }
            _ => Err(ApiError::unauthorized()),
        }
    }

    fn trusts(&self, origin: &HeaderValue) -> bool {
        self.trusted.iter().any(|trusted| origin == trusted.as_str())
    }

    fn with_token(&self, token: &str, headers: &HeaderMap) -> Result<User, ApiError> {
        match &self.local_token {
            Some(local) if same(local, token) => Ok(User::kubeconfig(headers)),
            _ => User::bearer(token, headers).ok_or_else(ApiError::unauthorized),
        }
    }

    /// Answers `/?token=…` with the cookie and a link without it, both for `home`, where the browser
    /// sees our root; `None` when there is no token in the query or none is expected here.
    pub fn sign_in(&self, uri: &Uri, home: &str) -> Option<Response> {
        let local = self.local_token.as_ref()?;
        let query = uri.query().unwrap_or_default();
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let (_, sent) = pairs.find(|(name, _)| name == "token")?;
        if !same(local, &sent) {
            return Some(ApiError::unauthorized().into_response());
        }
        let value = cookie_for(local);
        let cookie = format!("{COOKIE}={value}; Path={home}; HttpOnly; Secure; SameSite=Strict");
        let mut response = Redirect::to(home).into_response();
        if let Ok(value) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(header::SET_COOKIE, value);
        }
        Some(response)
    }
}

/// The cookie's value: made from the token, and no token itself. Cookies go to every port of this
/// machine, and whoever reads one there must not be able to use it where no page is.
fn cookie_for(token: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, COOKIE.as_bytes()))
}

/// The bearer token of `Authorization`; another scheme, or more than one header, is a 401.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| ApiError::unauthorized())?;
    let (scheme, token) = text.trim().split_once(' ').unwrap_or((text, ""));
    let token = token.trim();
    // The API server reads up to a blank: with more behind it one token would be many callers.
    let odd = token.is_empty() || token.contains(char::is_whitespace);
    if values.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") || odd {
        return Err(ApiError::unauthorized());
    }
    Ok(Some(token))
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &'a str) -> Option<&'a str> {
    cookies(headers, name).next()
}

/// The values of all cookies of a name: hosts beside ours and older paths may have set some.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';'));
    pairs.filter_map(move |pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Refuses what a browser sends on behalf of another site's page: whatever it reads or writes, the
/// person did not ask for it. Addresses that were typed come as `none`.
pub fn refuse_cross_site(asked: &Asked<'_>) -> Result<(), ApiError> {
    let text = |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok());
    let upgrade = asked.headers.contains_key(header::UPGRADE);
    let stream = text("accept").is_some_and(|accept| accept.contains("text/event-stream"));
    let is_foreign = match (text("sec-fetch-site"), text("origin")) {
        (Some("cross-site" | "same-site"), _) => true,
        // Where a proxy gives us a name of its own, the browser knows better than we do. Not all
        // of them say it of WebSockets.
        (Some("same-origin"), _) => false,
        (_, Some(origin)) if !asked.method.is_safe() || upgrade || stream => !asked.is_own(origin),
        _ => false,
    };
    if is_foreign {
        return Err(ApiError::with_status(StatusCode::FORBIDDEN, "error-cross-site", &[]));
    }
    Ok(())
}

/// Refuses who asks to be somebody and does not say whom, or says it twice.
pub fn refuse_unnamed(user: &User) -> Result<(), ApiError> {
    match user.impersonates_without_user() {
        true => Err(ApiError::bad_request("error-impersonation-needs-user", &[])),
        false => Ok(()),
    }
}

/// Refuses a name that is not loopback's: a page whose name was rebound to this machine.
fn refuse_rebound_name(asked: &Asked<'_>) -> Result<(), ApiError> {
    let host = asked.host().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if LOOPBACK_HOSTS.contains(&name) {
        return Ok(());
    }
    let host: String = host.chars().take(100).collect();
    Err(ApiError::with_status(StatusCode::FORBIDDEN, "error-host-refused", &[("host", &host)]))
}

/// Equality in constant time.
fn same(ours: &str, theirs: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(ours.as_bytes(), theirs.as_bytes()).is_ok()
}

#[cfg(test)]
#[path = "caller_tests.rs"]
mod tests;
