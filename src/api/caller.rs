//! Who is calling: from `Authorization`, a WebSocket subprotocol, our cookie, or, on the demo
//! cluster's loopback listener alone, nobody at all.
//!
//! It finds credentials and never judges them: whether a token is good, the API server says. There
//! is no ambient authority: without a token, being on this machine is worth nothing.

use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

use super::error::ApiError;
use crate::serve::Peer;
use crate::upstream::{User, subprotocol_token};

/// The cookie that a `?token=` link sets; strict, so that no other site's page can use it.
const COOKIE: &str = "binnacle-token";
/// Names by which a browser may call a loopback listener; others are rebound names.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// How callers are told apart on this gateway.
#[derive(Debug, Default)]
pub struct Callers {
    /// Stands for the kubeconfig's user; only on a loopback listener.
    pub local_token: Option<String>,
    /// The demo cluster's admin: who has no credentials on loopback is this one.
    pub demo_admin: Option<String>,
}

impl Callers {
    /// The caller of a request, or 401; 403 when a browser sends it from another site.
    pub fn user(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: Option<Peer>,
    ) -> Result<User, ApiError> {
        let user = self.find(method, headers, peer)?;
        if user.impersonates_without_user() {
            return Err(ApiError::bad_request("error-impersonation-needs-user", &[]));
        }
        Ok(user)
    }

    fn find(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: Option<Peer>,
    ) -> Result<User, ApiError> {
        if let Some(token) = bearer(headers)? {
            return self.with_token(&token, headers);
        }
        if let Some(token) = subprotocol_token(headers) {
            return self.with_token(&token, headers);
        }
        if let (Some(local), Some(sent)) = (&self.local_token, cookie(headers)) {
            refuse_cross_site(method, headers)?;
            refuse_rebound_name(headers)?;
            return if same(local, sent) {
                Ok(User::kubeconfig(headers))
            } else {
                Err(ApiError::unauthorized())
            };
        }
        match (&self.demo_admin, peer) {
            (Some(token), Some(Peer(address))) if address.ip().to_canonical().is_loopback() => {
                refuse_cross_site(method, headers)?;
                refuse_rebound_name(headers)?;
                User::bearer(token, headers).ok_or_else(ApiError::unauthorized)
            }
            _ => Err(ApiError::unauthorized()),
        }
    }

    fn with_token(&self, token: &str, headers: &HeaderMap) -> Result<User, ApiError> {
        match &self.local_token {
            Some(local) if same(local, token) => Ok(User::kubeconfig(headers)),
            _ => User::bearer(token, headers).ok_or_else(ApiError::unauthorized),
        }
    }

    /// Answers `/?token=…` with the cookie and a link without it; `None` when there is no token in
    /// the query or none is expected here.
    pub fn sign_in(&self, uri: &Uri, base_path: &str) -> Option<Response> {
        let local = self.local_token.as_ref()?;
        let query = uri.query().unwrap_or_default();
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let (_, sent) = pairs.find(|(name, _)| name == "token")?;
        if !same(local, &sent) {
            return Some(ApiError::unauthorized().into_response());
        }
        let cookie =
            format!("{COOKIE}={local}; Path={base_path}/; HttpOnly; Secure; SameSite=Strict");
        let mut response = Redirect::to(&format!("{base_path}/")).into_response();
        if let Ok(value) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(header::SET_COOKIE, value);
        }
        Some(response)
    }
}

/// The bearer token of `Authorization`; another scheme, or more than one header, is a 401.
fn bearer(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| ApiError::unauthorized())?;
    let (scheme, token) = text.trim().split_once(' ').unwrap_or((text, ""));
    let token = token.trim();
    if values.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(ApiError::unauthorized());
    }
    Ok(Some(token.to_owned()))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Refuses what a browser sends on behalf of another site's page: whatever it reads or writes, the
/// person did not ask for it. Plain links to our pages (GET navigations) come as `none`.
pub fn refuse_cross_site(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    let foreign_site = matches!(site, Some("cross-site" | "same-site"));
    let upgrade = headers.contains_key(header::UPGRADE);
    let foreign_origin = match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) if !method.is_safe() || upgrade => {
            origin.split_once("://").map(|(_, rest)| rest) != Some(host)
        }
        (Some(_), None) => true,
        _ => false,
    };
    if foreign_site || foreign_origin {
        return Err(ApiError::with_status(StatusCode::FORBIDDEN, "error-cross-site", &[]));
    }
    Ok(())
}

/// Refuses a `Host` that is no loopback name: a page whose name was rebound to this machine.
fn refuse_rebound_name(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(host) = headers.get(header::HOST) else { return Ok(()) };
    let host = host.to_str().unwrap_or_default();
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
