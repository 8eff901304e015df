//! Servers of a few lines that answer, lie, dawdle, never end or lead astray.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::extract::Request as Asked;
use axum::response::{IntoResponse as _, Response as Answer};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt as _;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const LIMITS: Limits = Limits {
    head: Duration::from_secs(30),
    idle: Duration::from_secs(30),
    total: Duration::from_secs(60),
    bytes: 1 << 20,
    least_rate: 1,
};

/// Requests as they came: path, `Authorization`, `X-Api-Key`, `Accept-Encoding`.
type Log = Arc<Mutex<Vec<[String; 4]>>>;

/// A server on loopback, and what it was asked.
async fn serve(
    answer: impl Fn(&str) -> Answer + Clone + Send + Sync + 'static,
) -> (SocketAddr, Log) {
    let log = Log::default();
    let asked = log.clone();
    let handler = move |request: Asked| {
        let text = |name: &str| match request.headers().get(name) {
            Some(value) => value.to_str().unwrap().to_owned(),
            None => String::new(),
        };
        let path = request.uri().path().to_owned();
        let said = [text("authorization"), text("x-api-key"), text("accept-encoding")];
        let [authorization, key, encoding] = said;
        let answer = answer(&path);
        asked.lock().unwrap().push([path, authorization, key, encoding]);
        std::future::ready(answer)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(handler);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, log)
}

/// A server that says these bytes to every connection and closes it, or, when `stays`, does not.
async fn says(text: &'static [u8], stays: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                let mut count = stream.read(&mut asked).await.unwrap_or(0);
                let _ = stream.write_all(text).await;
                // Until the client goes.
                while stays && count > 0 {
                    count = stream.read(&mut asked).await.unwrap_or(0);
                }
            });
        }
    });
    address
}

/// A server with TLS that says whether a client certificate came, or leads from `/away` to `to`.
/// With it what its certificate is trusted by.
async fn secure(client_ca: &str, to: String) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for one in rustls_pki_types::CertificateDer::pem_slice_iter(client_ca.as_bytes()) {
        roots.add(one.unwrap()).unwrap();
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut asked = [0; 4096];
            let count = stream.read(&mut asked).await.unwrap_or(0);
            let body = match stream.get_ref().1.peer_certificates() {
                Some(_) => "known",
                None => "nobody",
            };
            let head = match asked[..count].starts_with(b"GET /away") {
                true => format!("307 Temporary Redirect\r\nlocation: {to}"),
                false => "200 OK".to_owned(),
            };
            let length = body.len();
            let rest = format!("content-length: {length}\r\nconnection: close\r\n\r\n{body}");
            let _ = stream.write_all(format!("HTTP/1.1 {head}\r\n{rest}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (address, made.cert.pem())
}

fn client(credentials: Option<Credentials>) -> Client {
    Client::new(&Policy::default().with_loopback(), credentials).unwrap()
}

fn url(address: SocketAddr, path: &str) -> Url {
    Url::parse(&format!("http://{address}{path}")).unwrap()
}

async fn ask(at: &Url, limits: &Limits) -> Result<Bytes, FetchError> {
    client(None).get(at, &HeaderMap::new(), limits).await?.bytes().await
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An answer that says it is gzip.
fn packed(bytes: Vec<u8>) -> Answer {
    ([(header::CONTENT_ENCODING, "gzip")], bytes).into_response()
}

fn moved(to: &str) -> Answer {
    (StatusCode::FOUND, [(header::LOCATION, to.to_owned())]).into_response()
}

#[tokio::test]
async fn an_answer_comes_with_its_status_its_headers_and_all_of_its_body() {
    let (address, _) = serve(|path| match path {
        "/there" => ([(header::ETAG, "\"1\"")], "all of it").into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    })
    .await;
    let client = client(None);
    let there = client.get(&url(address, "/there"), &HeaderMap::new(), &LIMITS).await.unwrap();
    assert_eq!(there.status, StatusCode::OK);
    assert_eq!(there.headers[header::ETAG], "\"1\"");
    assert_eq!(&there.success().unwrap().bytes().await.unwrap()[..], b"all of it");
    let gone = client.get(&url(address, "/gone"), &HeaderMap::new(), &LIMITS).await.unwrap();
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let error = gone.success().unwrap_err();
    assert!(error.to_string().ends_with("answered 404 Not Found"), "{error}");
    assert!(!error.retriable());
}

#[tokio::test]
async fn gzip_on_the_way_is_unpacked_and_that_of_an_archive_is_left() {
    let text = b"chart ".repeat(50_000);
    let (body, whole) = (gzip(&text), gzip(&text));
    let (address, log) = serve(move |_| packed(body.clone())).await;
    assert_eq!(ask(&url(address, "/index.yaml"), &LIMITS).await.unwrap(), text);
    for path in ["/web-1.tgz", "/v2/web/blobs/sha256:0"] {
        assert_eq!(ask(&url(address, path), &LIMITS).await.unwrap(), whole);
    }
    let asked: Vec<String> = log.lock().unwrap().iter().map(|one| one[3].clone()).collect();
    assert_eq!(asked, ["gzip", "identity", "identity"]);
}

#[tokio::test]
async fn what_is_small_when_packed_is_measured_unpacked() {
    let bomb = gzip(&vec![0; 8 << 20]);
    assert!(bomb.len() < 16 << 10);
    let (address, _) = serve(move |_| packed(bomb.clone())).await;
    let error = ask(&url(address, "/"), &LIMITS).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge(_, limit) if limit == 1 << 20), "{error}");
}

#[tokio::test]
async fn a_gzip_that_is_cut_or_goes_on_or_is_none_is_told() {
    let whole = gzip(&b"chart ".repeat(1000));
    for (path, body) in [
        ("/cut", whole[..whole.len() - 1].to_vec()),
        ("/more", [whole.clone(), b"more".to_vec()].concat()),
        ("/none", b"no gzip at all".to_vec()),
    ] {
        let (address, _) = serve(move |_| packed(body.clone())).await;
        let error = ask(&url(address, path), &LIMITS).await.unwrap_err();
        assert!(matches!(error, FetchError::Broken(..)), "{path}: {error}");
        assert!(error.to_string().contains("gzip"), "{error}");
    }
    let (address, _) = serve(|_| packed(Vec::new())).await;
    assert_eq!(ask(&url(address, "/"), &LIMITS).await.unwrap(), "");
    let other = || ([(header::CONTENT_ENCODING, "br")], "packed").into_response();
    let (address, _) = serve(move |_| other()).await;
    let error = ask(&url(address, "/"), &LIMITS).await.unwrap_err();
    assert!(error.to_string().contains("\"br\""), "{error}");
}

#[tokio::test]
async fn a_body_without_end_is_left_where_it_is_too_long() {
    let endless = || {
        let pieces = futures::stream::repeat_with(|| Ok::<_, io::Error>(vec![b'a'; 1 << 14]));
        Answer::new(Sent::from_stream(pieces))
    };
    let (address, _) = serve(move |_| endless()).await;
    let error = ask(&url(address, "/"), &LIMITS).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge(..)), "{error}");
    // What says beforehand that it is too long is not even begun.
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1048577\r\n\r\n";
    let error = ask(&url(says(head, true).await, "/"), &LIMITS).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge(..)), "{error}");
}

#[tokio::test]
async fn a_body_that_is_shorter_than_it_said_is_no_body() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort";
    let address = says(head, false).await;
    let error = ask(&url(address, "/"), &LIMITS).await.unwrap_err();
    assert!(matches!(error, FetchError::Broken(..)) && error.retriable(), "{error}");
    let answer = client(None).get(&url(address, "/"), &HeaderMap::new(), &LIMITS).await.unwrap();
    let (mut reader, _feed) = answer.reader();
    let read = move || reader.read_to_end(&mut Vec::new());
    let error = tokio::task::spawn_blocking(read).await.unwrap().unwrap_err();
    assert!(error.get_ref().unwrap().is::<FetchError>(), "{error}");
}

#[tokio::test]
async fn code_that_blocks_reads_a_body_to_its_end_or_leaves_it() {
    let text = b"chart ".repeat(100_000);
    let (body, wanted) = (gzip(&text), text.len());
    let (address, _) = serve(move |_| packed(body.clone())).await;
    let client = client(None);
    let at = url(address, "/");
    let (mut reader, _feed) = client.get(&at, &HeaderMap::new(), &LIMITS).await.unwrap().reader();
    let read = move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    };
    let all = tokio::task::spawn_blocking(read).await.unwrap().unwrap();
    assert_eq!((all.len(), all == text), (wanted, true));
    let (mut reader, _feed) = client.get(&at, &HeaderMap::new(), &LIMITS).await.unwrap().reader();
    let some = move || reader.read(&mut [0; 6]);
    assert_eq!(tokio::task::spawn_blocking(some).await.unwrap().unwrap(), 6);
}

#[tokio::test]
async fn code_that_blocks_gets_an_error_once_nobody_waits_for_it() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort";
    let at = url(says(head, true).await, "/");
    let answer = client(None).get(&at, &HeaderMap::new(), &LIMITS).await.unwrap();
    let (mut reader, feed) = answer.reader();
    let reading = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
    drop(feed);
    // Long before the server would be found too slow.
    let read = timeout(Duration::from_secs(20), reading).await.unwrap().unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn who_says_nothing_or_never_comes_to_an_end_is_too_slow() {
    let soon = Duration::from_millis(50);
    let silent = url(says(b"", true).await, "/");
    let error = ask(&silent, &Limits { head: soon, ..LIMITS }).await.unwrap_err();
    assert!(matches!(error, FetchError::TooSlow(..)) && error.retriable(), "{error}");
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort";
    let stuck = url(says(head, true).await, "/");
    let error = ask(&stuck, &Limits { idle: soon, ..LIMITS }).await.unwrap_err();
    assert!(error.to_string().contains("nothing came for 50ms"), "{error}");
    let (address, _) = serve(|_| {
        let drip = || async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok::<_, io::Error>(vec![b'a'])
        };
        Answer::new(Sent::from_stream(futures::stream::repeat(()).then(move |()| drip())))
    })
    .await;
    let hasty = Limits { total: Duration::from_millis(300), ..LIMITS };
    let error = ask(&url(address, "/"), &hasty).await.unwrap_err();
    assert!(error.to_string().contains("it took more than 300ms"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_five_times() {
    let (address, log) = serve(|path| match path.len() {
        // "/" and a letter more each time.
        7.. => moved("/"),
        6 => "there".into_response(),
        _ if path.starts_with("/l") => moved("/loop"),
        _ => moved(&format!("{path}x")),
    })
    .await;
    assert_eq!(ask(&url(address, "/"), &LIMITS).await.unwrap(), "there");
    assert_eq!(log.lock().unwrap().len(), 6);
    let error = ask(&url(address, "/loop"), &LIMITS).await.unwrap_err();
    assert!(error.to_string().contains("redirects more than 5 times"), "{error}");
    let (address, _) = serve(|_| moved("file:///etc/passwd")).await;
    let error = ask(&url(address, "/"), &LIMITS).await.unwrap_err();
    assert!(matches!(error, FetchError::Redirect(..)), "{error}");
    let (address, log) = serve(|_| moved("/elsewhere")).await;
    let sent = client(None)
        .send(Method::POST, &url(address, "/"), &HeaderMap::new(), Bytes::from("a chart"), &LIMITS)
        .await;
    assert!(sent.unwrap_err().to_string().contains("/elsewhere"));
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_redirect_to_an_address_that_is_not_allowed_is_refused() {
    let (inner, log) = serve(|_| "secret".into_response()).await;
    let (outer, _) = serve(move |_| moved(&format!("http://{inner}/"))).await;
    let policy = Policy::new(&[format!("http://{outer}")]).unwrap();
    let client = Client::new(&policy, None).unwrap();
    let got = client.get(&url(outer, "/"), &HeaderMap::new(), &LIMITS).await;
    let error = got.unwrap_err();
    assert!(matches!(error, FetchError::Refused(_)) && !error.retriable(), "{error}");
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn credentials_and_headers_stay_with_their_own_host() {
    let (stranger, seen) = serve(|_| "there".into_response()).await;
    let (home, asked) = serve(move |path| match path {
        "/away" => moved(&format!("http://{stranger}/")),
        _ => "home".into_response(),
    })
    .await;
    let credentials = Credentials {
        username: Some("u".into()),
        password: Some("p".into()),
        host: home.to_string(),
        ..Credentials::default()
    };
    let client = client(Some(credentials));
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_static("key"));
    client.get(&url(home, "/away"), &headers, &LIMITS).await.unwrap();
    client.get(&url(stranger, "/direct"), &HeaderMap::new(), &LIMITS).await.unwrap();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer granted"));
    client.get(&url(home, "/away"), &headers, &LIMITS).await.unwrap();
    let said = |log: &Log| -> Vec<[String; 2]> {
        log.lock().unwrap().iter().map(|[_, who, key, _]| [who.clone(), key.clone()]).collect()
    };
    assert_eq!(said(&asked), [["Basic dTpw", "key"], ["Bearer granted", "key"]]);
    assert_eq!(said(&seen), [["", ""], ["", ""], ["", ""]]);
}

#[test]
fn credentials_are_for_a_host_a_port_and_tls() {
    let allowed = ["http://plain.corp:8080".to_owned()];
    let is_home = |host: &str, at: &str| {
        let credentials = Credentials { host: host.into(), ..Credentials::default() };
        let client = Client::new(&Policy::new(&allowed).unwrap(), Some(credentials)).unwrap();
        client.is_home(&Url::parse(at).unwrap())
    };
    assert!(is_home("charts.corp:443", "https://charts.corp/a"));
    assert!(is_home("Charts.corp", "https://CHARTS.corp:443/a"));
    assert!(is_home("charts.corp:8443", "https://charts.corp:8443/a"));
    assert!(is_home("plain.corp:8080", "http://plain.corp:8080/a"));
    for at in ["https://charts.corp:8443", "http://charts.corp:443", "https://a.charts.corp"] {
        assert!(!is_home("charts.corp:443", at), "{at}");
    }
    assert!(!is_home("", "https://charts.corp"));
    assert!(!is_home("charts.corp", "http://charts.corp"));
}

#[tokio::test]
async fn an_address_with_credentials_or_of_another_kind_is_refused() {
    for odd in ["https://u:p@charts.corp/", "https://u@charts.corp/", "ftp://charts.corp/"] {
        let error = ask(&Url::parse(odd).unwrap(), &LIMITS).await.unwrap_err();
        assert!(matches!(error, FetchError::Address(..)), "{error}");
        assert!(!error.to_string().contains("u:p") && !error.to_string().contains("u@"), "{error}");
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_by_who_has_it_and_told_by_who_has_not() {
    let client_certificate = rcgen::generate_simple_self_signed(vec!["me".to_owned()]).unwrap();
    let (address, ca) = secure(&client_certificate.cert.pem(), String::new()).await;
    let at = Url::parse(&format!("https://{address}/")).unwrap();
    let error = ask(&at, &LIMITS).await.unwrap_err();
    assert!(matches!(error, FetchError::Tls(..)) && !error.retriable(), "{error}");
    assert!(error.to_string().contains("no authority that is known here"), "{error}");
    let trusting = client(Some(Credentials { ca: Some(ca), ..Credentials::default() }));
    let got = trusting.get(&at, &HeaderMap::new(), &LIMITS).await.unwrap();
    assert_eq!(got.bytes().await.unwrap(), "nobody");
    let plain = says(b"HTTP/1.1 400 Bad Request\r\n\r\n", false).await;
    let error = ask(&Url::parse(&format!("https://{plain}/")).unwrap(), &LIMITS).await.unwrap_err();
    assert!(error.to_string().contains("no TLS is spoken there"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_its_own_host_alone() {
    let mine = rcgen::generate_simple_self_signed(vec!["me".to_owned()]).unwrap();
    let (other, other_ca) = secure(&mine.cert.pem(), String::new()).await;
    let (home, home_ca) = secure(&mine.cert.pem(), format!("https://{other}/")).await;
    let client = client(Some(Credentials {
        client: Some((mine.cert.pem(), mine.signing_key.serialize_pem())),
        ca: Some(format!("{home_ca}{other_ca}")),
        host: home.to_string(),
        ..Credentials::default()
    }));
    for (path, said) in [("/", "known"), ("/away", "nobody")] {
        let at = Url::parse(&format!("https://{home}{path}")).unwrap();
        let got = client.get(&at, &HeaderMap::new(), &LIMITS).await.unwrap();
        assert_eq!(got.bytes().await.unwrap(), said, "{path}");
    }
}

#[test]
fn credentials_that_cannot_be_used_are_told_without_their_values() {
    let made = |count: usize| {
        let all = (0..count).map(|_| rcgen::generate_simple_self_signed(vec!["me".to_owned()]));
        all.map(Result::unwrap).collect::<Vec<_>>()
    };
    let (pairs, none) = (made(2), Credentials::default);
    let (chain, key) = (pairs[0].cert.pem(), pairs[1].signing_key.serialize_pem());
    let bad =
        |credentials: Credentials| Client::new(&Policy::default(), Some(credentials)).unwrap_err();
    assert!(matches!(bad(Credentials { ca: Some("secret".into()), ..none() }), BadClient::Ca(_)));
    let pair = |chain: &str, key: &str| Some((chain.to_owned(), key.to_owned()));
    let error = bad(Credentials { client: pair("secret", &key), ..none() });
    assert!(matches!(error, BadClient::Certificate(_)), "{error}");
    let error = bad(Credentials { client: pair(&chain, "secret"), ..none() });
    assert_eq!(error, BadClient::Key);
    assert_eq!(bad(Credentials { client: pair(&chain, &key), ..none() }), BadClient::Pair);
    let error = bad(Credentials { token: Some("secret\n".into()), ..none() });
    assert_eq!(error, BadClient::Token);
    assert!(!error.to_string().contains("secret"), "{error}");
    let error = bad(Credentials { username: Some("se:cret".into()), ..none() });
    assert_eq!(error, BadClient::Username);
    let shown = format!("{:?}", Credentials { password: Some("secret".into()), ..none() });
    assert!(!shown.contains("secret"), "{shown}");
}
