//! The passthrough: one request to the API server and its answer back, both bodies streaming.
//!
//! Path, query, bodies and end-to-end headers are left as they are. No caching, no retry, no
//! decision about rights.

use axum::body::{Body, HttpBody as _};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};

use super::tunnel::{self, Tunnels};
use super::{Cluster, Identity, UpstreamError};

/// RFC 9110, 7.6.1: these and what `Connection` names speak of one connection only.
static HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Sends a request whose URI is the path and query for the API server, as `who`, and answers with
/// what came back. An upgrade that is agreed on goes on in `tunnels`; one that is not is an answer
/// like any other, so that clients can fall back.
pub async fn pass(
    cluster: &Cluster,
    who: Identity<'_>,
    mut request: Request<Body>,
    tunnels: &Tunnels,
) -> Result<Response<Body>, UpstreamError> {
    let protocol = tunnel::wanted_upgrade(&request).cloned();
    let client = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
    let is_endless = is_endless(request.body());
    // What our own server and router noted is not for the client that sends it on.
    request.extensions_mut().clear();
    let headers = request.headers_mut();
    remove_hop_by_hop(headers);
    tunnel::remove_subprotocol_tokens(headers);
    if let Some(protocol) = protocol {
        ask_for_upgrade(headers, protocol);
    } else if is_endless {
        // Without it hyper's client keeps back the body of a GET or HEAD.
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut response = cluster.send(who, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        remove_hop_by_hop(response.headers_mut());
        return Ok(response.map(Body::new));
    }
    let agreed = response.headers().get(header::UPGRADE).cloned();
    let (Some(client), Some(agreed)) = (client, agreed) else {
        return Err(UpstreamError::Broken("it switched protocols without being asked".into()));
    };
    let server = hyper::upgrade::on(&mut response);
    tunnels.join(client, server);
    let (mut parts, _) = response.into_parts();
    parts.extensions.clear();
    remove_hop_by_hop(&mut parts.headers);
    ask_for_upgrade(&mut parts.headers, agreed);
    Ok(Response::from_parts(parts, Body::empty()))
}

/// Whether there is a body whose length nobody has said.
fn is_endless(body: &Body) -> bool {
    !body.is_end_stream() && body.size_hint().exact().is_none()
}

fn ask_for_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let is_one =
        |name: &HeaderName| HOP_BY_HOP.contains(name) || name.as_str().starts_with("proxy-");
    // Most messages have none; to find that out is cheaper than to remove each in vain.
    if !headers.keys().any(is_one) {
        return;
    }
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let proxy = headers.keys().filter(|name| name.as_str().starts_with("proxy-")).cloned();
    let doomed: Vec<HeaderName> = proxy.chain(listed).chain(HOP_BY_HOP.iter().cloned()).collect();
    for name in doomed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_of_one_connection_is_dropped_and_all_else_stays() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("connection", "upgrade"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "a"),
            ("accept", "b"),
            ("origin", "https://x"),
            ("x-forwarded-for", "192.0.2.1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "origin", "x-forwarded-for"]);
        assert_eq!(headers.get_all("accept").iter().count(), 2);
    }
}
