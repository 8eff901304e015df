//! A registry of a few lines, that tells the truth or lies in one way.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request as Asked;
use axum::response::{IntoResponse as _, Response as Answer};
use http::{Uri, header};
use serde_json::json;

use super::*;

const CHART: &[u8] = b"an archive of a chart";

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(aws_lc_rs::digest::digest(&SHA256, bytes).as_ref()))
}

fn manifest() -> String {
    json!({
        "schemaVersion": 2,
        "config": {"mediaType": CONFIG, "digest": digest(b"{}"), "size": 2},
        "layers": [
            {"mediaType": "application/vnd.cncf.helm.chart.provenance.v1.prov",
                "digest": digest(b"prov"), "size": 4},
            {"mediaType": CONTENT, "digest": digest(CHART), "size": CHART.len()},
        ],
    })
    .to_string()
}

/// What was asked for, in order.
type Log = Arc<Mutex<Vec<String>>>;

/// A server on loopback that answers with this, and what it was asked for.
async fn serve(
    answer: impl Fn(&Uri, &HeaderMap) -> Answer + Clone + Send + Sync + 'static,
) -> (SocketAddr, Log) {
    let log = Log::default();
    let asked = log.clone();
    let handler = move |request: Asked| {
        asked.lock().unwrap().push(request.uri().to_string());
        std::future::ready(answer(request.uri(), request.headers()))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(handler);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, log)
}

/// A registry with this manifest and this blob; the rest as it should be.
async fn registry(manifest: String, blob: &'static [u8]) -> SocketAddr {
    let answer = move |uri: &Uri, _: &HeaderMap| match uri.path() {
        path if path.starts_with("/v2/charts/web/manifests/") => manifest.clone().into_response(),
        path if path.starts_with("/v2/charts/web/blobs/") => blob.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    serve(answer).await.0
}

fn allowed(all: &[SocketAddr]) -> Policy {
    let all: Vec<String> = all.iter().map(|address| format!("http://{address}")).collect();
    Policy::new(&all).unwrap()
}

async fn pulled(address: SocketAddr, rest: &str) -> Result<Pulled, BadPull> {
    pull(&format!("oci://{address}/charts/web{rest}"), &allowed(&[address])).await
}

fn moved(to: &str) -> Answer {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to.to_owned())]).into_response()
}

#[tokio::test]
async fn a_chart_comes_with_the_digest_that_pins_it() {
    let address = registry(manifest(), CHART).await;
    let first = pulled(address, ":1.2.3").await.unwrap();
    assert_eq!(&first.bytes[..], CHART);
    assert_eq!(first.digest, digest(manifest().as_bytes()));
    let pinned = pulled(address, &format!(":1.2.3@{}", first.digest)).await.unwrap();
    assert_eq!(pinned.digest, first.digest);
}

#[tokio::test]
async fn the_plus_of_a_version_is_an_underscore_in_its_tag() {
    let answer = |uri: &Uri, _: &HeaderMap| match uri.path() {
        "/v2/web/manifests/1.0.0_build.5" => manifest().into_response(),
        path if path.contains("/blobs/") => CHART.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    let (address, log) = serve(answer).await;
    let policy = allowed(&[address]);
    assert!(pull(&format!("oci://{address}/web:1.0.0+build.5"), &policy).await.is_ok());
    let found = pull(&format!("oci://{address}/web:2.0.0"), &policy).await.unwrap_err();
    assert!(matches!(found, BadPull::NotFound(..)), "{found}");
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn what_has_another_digest_is_refused() {
    let address = registry(manifest(), b"an ARCHIVE of a chart").await;
    let error = pulled(address, ":1.2.3").await.unwrap_err();
    assert!(matches!(error, BadPull::Digest { what: "chart", .. }), "{error}");
    let other = digest(b"another manifest");
    let error = pulled(address, &format!("@{other}")).await.unwrap_err();
    assert!(error.to_string().contains(&other), "{error}");
    assert!(matches!(error, BadPull::Digest { what: "manifest", .. }), "{error}");
}

#[tokio::test]
async fn a_chart_is_as_long_as_its_manifest_says() {
    let shorter = pulled(registry(manifest(), b"an archive").await, ":1").await.unwrap_err();
    assert!(matches!(shorter, BadPull::Digest { what: "chart", .. }), "{shorter}");
    let longer = registry(manifest(), b"an archive of a chart, and more").await;
    let longer = pulled(longer, ":1").await.unwrap_err();
    let limit = CHART.len();
    assert!(
        matches!(longer, BadPull::TooLong { what: "chart", limit: at } if at == limit),
        "{longer}"
    );
    let huge = manifest().replace(&format!("\"size\":{limit}"), "\"size\":20971521");
    let huge = pulled(registry(huge, CHART).await, ":1").await.unwrap_err();
    assert!(matches!(huge, BadPull::TooLong { limit: PACKED, .. }), "{huge}");
}

#[tokio::test]
async fn a_body_without_end_is_left_where_it_is_too_long() {
    let endless = || {
        let pieces = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'a'; 1 << 14]));
        Answer::new(Body::from_stream(pieces))
    };
    let answer = move |uri: &Uri, _: &HeaderMap| match uri.path() {
        path if path.contains("/blobs/") => endless(),
        path if path.ends_with("/endless") => endless(),
        _ => manifest().into_response(),
    };
    let (address, _) = serve(answer).await;
    let error = pulled(address, ":1").await.unwrap_err();
    assert!(matches!(error, BadPull::TooLong { what: "chart", .. }), "{error}");
    let error = pulled(address, ":endless").await.unwrap_err();
    assert!(matches!(error, BadPull::TooLong { what: "manifest", .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_chart_is_told_by_its_media_types() {
    let image = manifest().replace(CONFIG, "application/vnd.oci.image.config.v1+json");
    let layer = manifest().replace(CONTENT, "application/vnd.oci.image.layer.v1.tar+gzip");
    let index = json!({"schemaVersion": 2, "manifests": []}).to_string();
    let md5 = manifest().replace(&digest(CHART), "md5:0123");
    for (manifest, says) in [
        (image, "vnd.oci.image.config"),
        (layer, "no layer"),
        (index, "its configuration"),
        (md5, "SHA-256"),
        ("<html>".to_owned(), "cannot be read"),
    ] {
        let error = pulled(registry(manifest, CHART).await, ":1").await.unwrap_err();
        assert!(matches!(error, BadPull::NotAChart(..)), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_to_an_address_within_is_refused() {
    let (secret, log) = serve(|_: &Uri, _: &HeaderMap| CHART.into_response()).await;
    let answer = move |uri: &Uri, _: &HeaderMap| match uri.path() {
        path if path.contains("/blobs/") => moved(&format!("http://{secret}/latest/meta-data")),
        _ => manifest().into_response(),
    };
    let (address, _) = serve(answer).await;
    let error = pulled(address, ":1").await.unwrap_err();
    assert!(matches!(error, BadPull::Refused(Refused::Private { .. })), "{error}");
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_blob_may_lie_elsewhere_and_the_token_stays_with_the_registry() {
    let elsewhere = |_: &Uri, headers: &HeaderMap| match headers.get(header::AUTHORIZATION) {
        None => CHART.into_response(),
        Some(_) => StatusCode::BAD_REQUEST.into_response(),
    };
    let (blobs, _) = serve(elsewhere).await;
    let answer = move |uri: &Uri, headers: &HeaderMap| {
        let host = headers[header::HOST].to_str().unwrap();
        let token = headers.get(header::AUTHORIZATION);
        match (uri.path(), token.map(|token| token.to_str().unwrap())) {
            ("/token", None) => {
                let asked = uri.query().unwrap_or_default();
                assert_eq!(asked, "service=a%2Cb&scope=repository%3Acharts%2Fweb%3Apull");
                json!({"token": "anybody"}).to_string().into_response()
            }
            (path, Some("Bearer anybody")) if path.contains("/blobs/") => {
                moved(&format!("http://{blobs}/there?signed=1"))
            }
            (path, Some("Bearer anybody")) if path.contains("/manifests/") => {
                manifest().into_response()
            }
            _ => {
                let challenge = format!(
                    "Bearer realm=\"http://{host}/token\",service=\"a,b\",\
                     scope=\"repository:charts/web:pull\""
                );
                let headers = [(header::WWW_AUTHENTICATE, challenge)];
                (StatusCode::UNAUTHORIZED, headers).into_response()
            }
        }
    };
    let (address, log) = serve(answer).await;
    let reference = format!("oci://{address}/charts/web:1.2.3");
    let found = pull(&reference, &allowed(&[address, blobs])).await.unwrap();
    assert_eq!(&found.bytes[..], CHART);
    let asked = log.lock().unwrap();
    assert_eq!(asked.iter().filter(|uri| uri.starts_with("/token")).count(), 1);
}

#[tokio::test]
async fn a_token_is_not_asked_for_at_an_address_within() {
    let (secret, log) = serve(|_: &Uri, _: &HeaderMap| "{}".into_response()).await;
    let answer = move |_: &Uri, _: &HeaderMap| {
        let challenge = format!("Bearer realm=\"http://{secret}/latest/token\"");
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    };
    let error = pulled(serve(answer).await.0, ":1").await.unwrap_err();
    assert!(matches!(error, BadPull::Refused(_)), "{error}");
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_registry_that_wants_a_password_or_redirects_for_ever_ends_with_a_sentence() {
    let basic = |_: &Uri, _: &HeaderMap| {
        let headers = [(header::WWW_AUTHENTICATE, "Basic realm=\"r\"")];
        (StatusCode::UNAUTHORIZED, headers).into_response()
    };
    let error = pulled(serve(basic).await.0, ":1").await.unwrap_err();
    assert!(matches!(error, BadPull::Denied(..)), "{error}");
    assert!(error.to_string().contains("charts/web:1"), "{error}");
    let (address, log) = serve(|_: &Uri, _: &HeaderMap| moved("/again")).await;
    let error = pulled(address, ":1").await.unwrap_err();
    assert!(error.to_string().contains("redirects more than"), "{error}");
    assert!(log.lock().unwrap().len() < 10);
}

#[tokio::test]
async fn a_registry_on_this_machine_is_not_asked_unless_it_is_allowed() {
    let (address, log) = serve(|_: &Uri, _: &HeaderMap| manifest().into_response()).await;
    let reference = format!("oci://{address}/charts/web:1");
    let error = pull(&reference, &Policy::default()).await.unwrap_err();
    assert!(matches!(error, BadPull::Refused(_)), "{error}");
    assert!(log.lock().unwrap().is_empty());
    // The demo may; what it finds there has no chart behind it.
    let error = pull(&reference, &Policy::default().with_loopback()).await.unwrap_err();
    assert!(matches!(error, BadPull::Digest { .. } | BadPull::TooLong { .. }), "{error}");
}

#[test]
fn a_reference_has_a_registry_a_repository_and_a_version() {
    let parse = |text: &str| Reference::parse(text, &Policy::default());
    let pin = digest(b"x");
    for (text, base, version) in [
        ("oci://r.example/a/b:1.0", "https://r.example/v2/a/b/", "1.0"),
        ("oci://R.example:5000/a:v1_x", "https://r.example:5000/v2/a/", "v1_x"),
        ("oci://[2606:4700::1]:5000/a:1", "https://[2606:4700::1]:5000/v2/a/", "1"),
        (&*format!("oci://r.example/a@{pin}"), "https://r.example/v2/a/", &*pin),
        (&*format!("oci://r.example/a:1@{pin}"), "https://r.example/v2/a/", &*pin),
    ] {
        let found = parse(text).unwrap();
        assert_eq!((found.base.as_str(), found.version.as_str()), (base, version), "{text}");
    }
    for text in [
        "",
        "https://r.example/a:1",
        "oci://r.example",
        "oci://r.example/a",
        "oci:///a:1",
        "oci://user@r.example/a:1",
        "oci://r.example/A:1",
        "oci://r.example/../a:1",
        "oci://r.example/a//b:1",
        "oci://r.example/a?x:1",
        "oci://r.example/a#x:1",
        "oci://r%2eexample/a:1",
        "oci://r.example/a:",
        "oci://r.example/a:1 2",
        "oci://r.example/a:1/2",
        "oci://r.example/a@sha256:abc",
        "oci://r.example/a@sha512:abc",
    ] {
        let error = parse(text).map(|_| ()).unwrap_err();
        assert!(matches!(error, BadPull::Reference(..)), "{text}: {error}");
    }
    assert!(parse(&format!("oci://r.example/{}:1", "a/".repeat(500))).is_err());
}

#[test]
fn parameters_of_a_challenge_are_found_whatever_stands_between() {
    let challenge = bearer("Bearer realm=\"https://a/?x=1\", scope=\"r:a:pull,push\",error=none");
    let challenge = challenge.unwrap();
    assert_eq!(parameter(challenge, "realm"), Some("https://a/?x=1"));
    assert_eq!(parameter(challenge, "Scope"), Some("r:a:pull,push"));
    assert_eq!(parameter(challenge, "error"), Some("none"));
    assert_eq!(parameter(challenge, "service"), None);
    assert_eq!(parameter("realm=\"open", "realm"), None);
    assert_eq!(bearer("Basic realm=\"r\""), None);
    assert_eq!(bearer("Bearer"), None);
}
