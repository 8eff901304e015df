//! Charts into a ChartMuseum and out of it again: what is changed is in the very next read, what is
//! no chart never gets there, and what the server refuses is said as what it is.
//!
//! It is NOT where registries are written to (`registries.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::extract::Request;
use axum::response::IntoResponse as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::chart_repos::{Shelf, says};
use crate::cluster;
use crate::gateway::Answer;
use crate::helm_charts::{Hand, made, packed};
use crate::museum_server::{Authority, Museum, Pack, Rules, Site, Wants, index};
use crate::people::{Person, grant};
use crate::writes::live;

const PAIR: &str = "keeper:pw-of-a-keeper";
const TOKEN: &str = "token-of-a-keeper";
const MAP: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
";

/// A request whose body is no JSON.
pub async fn push(hand: &Hand<'_>, method: Method, path: &str, body: &[u8]) -> Answer {
    let bearer = format!("Bearer {}", hand.token);
    let kind = if path.contains("/provenance") { "text/plain" } else { "application/gzip" };
    let mut headers = vec![("authorization", bearer.as_str()), ("content-type", kind)];
    let mut forgery = String::new();
    if method == Method::POST {
        let answer = hand.get("csrftoken/chart").await;
        forgery = answer.json()["token"].as_str().unwrap().to_owned();
    }
    if !forgery.is_empty() {
        headers.push(("x-csrf-token", &forgery));
    }
    let path = format!("/api/v1/{path}");
    hand.gateway.request(method, None, &path, &headers, body.to_vec()).await
}

/// An upload that must succeed.
pub async fn uploaded(shelf: &Shelf, repository: &str, pack: &Pack) {
    let path = format!("chart/{repository}");
    let answer = push(&shelf.hand(), Method::POST, &path, &pack.bytes).await;
    assert_eq!(answer.status, 201, "{}: {}", pack.file(), answer.text());
}

/// What `helm package --sign` would write beside an archive.
pub fn provenance(pack: &Pack) -> String {
    let Pack { name, version, digest, .. } = pack;
    format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\napiVersion: v2\nname: {name}\n\
         version: {version}\n\n...\nfiles:\n  {}: sha256:{digest}\n\
         -----BEGIN PGP SIGNATURE-----\n\nwsBcBAEBCgAQBQJ\n=abcd\n-----END PGP SIGNATURE-----\n",
        pack.file()
    )
}

fn web(version: &str, said: &str) -> Pack {
    Pack::new("web", version, &[("templates/map.yaml", MAP), ("README.md", said)])
}

/// A definition of a repository in a ChartMuseum.
fn of(url: String, credentials: &Value) -> Value {
    let mut definition = json!({"type": "museum", "url": url});
    if !credentials.is_null() {
        definition["credentials"] = credentials.clone();
    }
    definition
}

#[tokio::test]
async fn what_is_uploaded_or_deleted_shows_in_the_very_next_read() {
    let authority = Authority::new();
    let basic = Rules { wants: Wants::Basic(PAIR), depth: 2, ..Rules::default() };
    let bearer = Rules { wants: Wants::Bearer(TOKEN), ..Rules::default() };
    let first = Museum::start(None, basic).await;
    let second = Museum::start(Some(authority.server(false)), bearer).await;
    let shelf = Shelf::open("uploads", &[&first.site, &second.site]).await;
    let given = json!({"username": "keeper", "password": "pw-of-a-keeper"});
    let tenant = shelf.create("tenant", of(first.site.url("/org/repo"), &given)).await;
    let given = json!({"token": TOKEN, "ca": authority.pem});
    let plain = shelf.create("plain", of(second.site.url("/"), &given)).await;
    // Another client's, in another tenant of the same server.
    first.put("org/other", &web("9.0.0", ""));
    for (museum, name, of) in [(&first, &tenant, "org/repo"), (&second, &plain, "")] {
        assert_eq!(shelf.charts(name).await, Vec::<String>::new());
        let one = web("1.0.0", "one");
        uploaded(&shelf, name, &one).await;
        assert_eq!(shelf.charts(name).await, ["web 1.0.0"]);
        assert_eq!(museum.files(of), ["web-1.0.0.tgz"]);
        uploaded(&shelf, name, &web("1.1.0", "")).await;
        uploaded(&shelf, name, &web("1.10.0-rc.1", "")).await;
        assert_eq!(shelf.versions(name, "web").await, ["1.10.0-rc.1", "1.1.0", "1.0.0"]);
        replaced(&shelf, name, &one).await;
        signed(&shelf, name).await;

        let at = format!("chart/{name}/web/1.1.0");
        let answer = shelf.send(Method::DELETE, &at, &Value::Null).await;
        assert!(matches!(answer.status, 200..=204), "{}: {}", answer.status, answer.text());
        assert_eq!(shelf.versions(name, "web").await, ["1.10.0-rc.1", "1.0.0"]);
        assert_eq!(shelf.get(&at).await.status, 404);
        let answer = shelf.send(Method::DELETE, &at, &Value::Null).await;
        assert_eq!(answer.status, 404, "{}", answer.text());
        assert_eq!(shelf.refresh(name, &museum.site).await["state"], "ok");
        assert_eq!(shelf.versions(name, "web").await, ["1.10.0-rc.1", "1.0.0"]);
    }
    assert_eq!(first.files("org/other"), ["web-9.0.0.tgz"]);
    shelf.close().await;
}

#[tokio::test]
async fn a_deletion_that_is_repeated_takes_no_version_that_means_the_same() {
    let museum = Museum::start(None, Rules::default()).await;
    let shelf = Shelf::open("uploads-twice", &[&museum.site]).await;
    let name = shelf.create("twice", of(museum.site.url("/"), &Value::Null)).await;
    for (chart, stays, goes) in [
        ("clover", "1.0.0+1", "1.0.0+2"),
        ("thyme", "1.2.3", "v1.2.3"),
        ("sorrel", "v1.2.3", "1.2.3"),
    ] {
        for version in [stays, goes] {
            uploaded(&shelf, &name, &Pack::new(chart, version, &[])).await;
        }
        let at = format!("chart/{name}/{chart}/{goes}");
        for status in [200, 404] {
            let answer = shelf.send(Method::DELETE, &at, &Value::Null).await;
            assert_eq!(answer.status, status, "{chart}: {}", answer.text());
            assert_eq!(shelf.versions(&name, chart).await, [stays], "{chart}");
        }
        let (files, left) = (museum.files(""), format!("{chart}-{stays}.tgz"));
        assert!(files.contains(&left), "{files:?}");
    }
    shelf.close().await;
}

/// A version that is there is replaced only by who says so.
async fn replaced(shelf: &Shelf, name: &str, old: &Pack) {
    let new = web("1.0.0", "another one");
    let path = format!("chart/{name}");
    let answer = push(&shelf.hand(), Method::POST, &path, &new.bytes).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let at = format!("chart/{name}/web/1.0.0");
    let readme = || async { shelf.read(&at).await["readme"]["raw"].clone() };
    assert_eq!(readme().await, "one");
    assert_ne!(old.digest, new.digest);
    let forced = format!("{path}?force=true");
    let answer = push(&shelf.hand(), Method::POST, &forced, &new.bytes).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(readme().await, "another one");
}

async fn signed(shelf: &Shelf, name: &str) {
    let at = format!("chart/{name}/web/1.0.0");
    let text = provenance(&web("1.0.0", "another one"));
    let path = format!("{at}/provenance");
    let answer = push(&shelf.hand(), Method::PUT, &path, text.as_bytes()).await;
    assert!(matches!(answer.status, 200..=204), "{}: {}", answer.status, answer.text());
    let detail = shelf.read(&at).await;
    assert_eq!(detail["signature"]["state"], "present", "{detail}");
    let answer = push(&shelf.hand(), Method::PUT, &path, b"no provenance").await;
    assert!(matches!(answer.status, 400 | 409 | 422), "{}: {}", answer.status, answer.text());
}

#[tokio::test]
async fn what_is_no_chart_never_reaches_the_server() {
    let museum = Museum::start(None, Rules::default()).await;
    let shelf = Shelf::open("uploads-bad", &[&museum.site]).await;
    let name = shelf.create("bad", of(museum.site.url("/"), &Value::Null)).await;
    let about = |name: &str, version: &str| {
        format!("apiVersion: v2\nname: {name}\nversion: {version}\n").into_bytes()
    };
    let (good, other, none) = (about("web", "1.0.0"), about("db", "1.0.0"), about("web", "new"));
    let whole = web("1.0.0", "").bytes;
    let mut huge = whole.to_vec();
    huge.resize((20 << 20) + 1, 0);
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("no archive", b"PK\x03\x04".to_vec()),
        ("an archive that is cut off", whole[..whole.len() - 40].to_vec()),
        ("a folder of another name", packed(&[("web/Chart.yaml", other.as_slice())])),
        ("a version that is none", packed(&[("web/Chart.yaml", none.as_slice())])),
        ("no Chart.yaml", packed(&[("web/values.yaml", b"a: 1".as_slice())])),
        ("a path upwards", packed(&[("web/Chart.yaml", &good[..]), ("web/../../x", &good[..])])),
        ("more than 20 MiB", huge),
    ] {
        let path = format!("chart/{name}?force=true");
        let answer = push(&shelf.hand(), Method::POST, &path, &bytes).await;
        assert!(matches!(answer.status, 400 | 413 | 422), "{what}: {}", answer.status);
        says(&answer.text(), &["archive", "chart", "large", "body"]);
    }
    assert_eq!(museum.site.count(&Method::POST, "/"), 0);
    assert_eq!(shelf.charts(&name).await, Vec::<String>::new());

    let index = shelf.create("index", json!({"type": "index", "url": museum.site.url("/")})).await;
    let answer = push(&shelf.hand(), Method::POST, &format!("chart/{index}"), &whole).await;
    assert!((400..500).contains(&answer.status), "{}: {}", answer.status, answer.text());
    says(&answer.text(), &["index", "upload", "read", "chart"]);
    assert_eq!(museum.site.count(&Method::POST, "/"), 0);
    shelf.close().await;
}

#[tokio::test]
async fn what_the_server_refuses_is_explained() {
    let anonymous = Rules { wants: Wants::Basic(PAIR), anonymous_get: true, ..Rules::default() };
    let full = Museum::start(None, Rules { most: 1, ..Rules::default() }).await;
    let closed = Museum::start(None, Rules { disable_api: true, ..Rules::default() }).await;
    let strict = Museum::start(None, Rules { force: false, ..Rules::default() }).await;
    let locked = Museum::start(None, anonymous).await;
    for museum in [&full, &closed, &strict, &locked] {
        museum.put("", &web("1.0.0", ""));
    }
    let sites = [&full, &closed, &strict, &locked].map(|museum| &museum.site);
    let shelf = Shelf::open("uploads-refused", &sites).await;
    let wrong = json!({"username": "keeper", "password": "wrong-password"});
    // What an upload becomes, and a signature and a deletion where they are refused as well.
    for (short, museum, given, version, (upload, delete), words) in [
        ("full", &full, &Value::Null, "2.0.0", (507, None), ["is full", "storage limit"]),
        ("closed", &closed, &Value::Null, "2.0.0", (405, Some(405)), ["takes no", "DISABLE_API"]),
        ("strict", &strict, &Value::Null, "1.0.0", (409, None), ["replaces no", "already exists"]),
        ("locked", &locked, &wrong, "2.0.0", (502, Some(502)), ["credentials", "unauthorized"]),
        ("nobody", &locked, &Value::Null, "2.0.0", (502, Some(502)), ["credentials", "unauth"]),
    ] {
        let name = shelf.create(short, of(museum.site.url("/"), given)).await;
        let path = format!("chart/{name}?force=true");
        let (old, new) = (web("1.0.0", ""), web(version, "new"));
        let answer = push(&shelf.hand(), Method::POST, &path, &new.bytes).await;
        // A 401 would say that our caller's own token is bad.
        assert_eq!(answer.status, upload, "{short}: {}", answer.text());
        for word in words {
            assert!(answer.text().contains(word), "{short}: {}", answer.text());
        }
        assert!(!answer.text().contains("wrong-password"), "{}", answer.text());
        assert_eq!(shelf.versions(&name, "web").await, ["1.0.0"], "{short}");
        if let Some(delete) = delete {
            let at = format!("chart/{name}/web/1.0.0");
            let (path, text) = (format!("{at}/provenance"), provenance(&old));
            let answer = push(&shelf.hand(), Method::PUT, &path, text.as_bytes()).await;
            assert_eq!(answer.status, upload, "{short}: {}", answer.text());
            let forced = format!("{at}?force=true");
            let answer = shelf.send(Method::DELETE, &forced, &Value::Null).await;
            assert_eq!(answer.status, delete, "{short}: {}", answer.text());
            assert_eq!(shelf.versions(&name, "web").await, ["1.0.0"], "{short}");
        }
        assert_eq!(museum.files(""), ["web-1.0.0.tgz"], "{short}");
    }
    shelf.close().await;
}

/// A repository with one version, which answers all that changes it with this status.
async fn refusing(status: &Arc<AtomicU16>) -> Site {
    let (status, text) = (status.clone(), index(&[web("1.0.0", "")]));
    let answer = move |request: Request| {
        let (code, text) = (status.load(Ordering::SeqCst), text.clone());
        async move {
            if request.method() == Method::GET {
                return text.into_response();
            }
            axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            let said = json!({"error": "the disk is on fire"}).to_string();
            (StatusCode::from_u16(code).unwrap(), said).into_response()
        }
    };
    Site::start(None, answer).await
}

#[tokio::test]
async fn each_status_of_a_server_becomes_the_one_that_fits_who_asked_us() {
    let status = Arc::new(AtomicU16::new(0));
    let site = refusing(&status).await;
    let shelf = Shelf::open("uploads-status", &[&site]).await;
    let name = shelf.create("refusing", of(site.url("/"), &Value::Null)).await;
    let fire = ": the disk is on fire";
    // What it says, what we make of it for an upload and for a deletion, and our words for both.
    for (theirs, upload, delete, [uploading, deleting]) in [
        (400, 422, 422, ["finds fault with what it was sent"; 2]),
        (401, 502, 502, ["does not allow it to the credentials"; 2]),
        (403, 502, 502, ["does not allow it to the credentials"; 2]),
        (404, 502, 404, ["answered 404 Not Found", "has no web 1.0.0"]),
        (405, 405, 405, ["takes no charts", "deletes nothing"]),
        (412, 409, 409, ["replaces nothing"; 2]),
        (413, 413, 413, ["too large"; 2]),
        (500, 502, 502, ["answered 500 Internal Server Error"; 2]),
        (503, 502, 502, ["answered 503 Service Unavailable"; 2]),
        (507, 507, 507, ["is full"; 2]),
    ] {
        status.store(theirs, Ordering::SeqCst);
        let (path, pack) = (format!("chart/{name}"), web("2.0.0", ""));
        let uploaded = push(&shelf.hand(), Method::POST, &path, &pack.bytes).await;
        // Whoever uses a chart of this name.
        let at = format!("chart/{name}/web/1.0.0?force=true");
        let deleted = shelf.send(Method::DELETE, &at, &Value::Null).await;
        for (answer, ours, words) in [(uploaded, upload, uploading), (deleted, delete, deleting)] {
            let text = answer.text();
            assert_eq!(answer.status, ours, "{theirs}: {text}");
            assert!(text.contains(words), "{theirs}: {text}");
            // Its own words, unless ours say it all.
            let is_told = !matches!((theirs, ours), (405, _) | (404, 404));
            assert_eq!(text.contains(fire), is_told, "{theirs}: {text}");
        }
    }
    assert_eq!(shelf.versions(&name, "web").await, ["1.0.0"]);
    shelf.close().await;
}

#[tokio::test]
async fn a_version_in_use_is_deleted_only_by_who_says_so() {
    // No other test installs a chart of this name.
    let pack = Pack::new("marigold", "1.0.0", &[("templates/map.yaml", MAP)]);
    let museum = Museum::start(None, Rules::default()).await;
    let shelf = Shelf::open("uploads-used", &[&museum.site]).await;
    let name = shelf.create("used", of(museum.site.url("/"), &Value::Null)).await;
    uploaded(&shelf, &name, &pack).await;
    let namespace = cluster::shared().await.namespace("uploads-using").await;
    let args = ["install", "bed", "chart.tgz", "-n", &namespace];
    made(4, shelf.token, &pack.bytes, &args).await;
    let path = format!("chart/{name}/marigold/1.0.0");
    let answer = shelf.send(Method::DELETE, &path, &Value::Null).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("bed"), "{}", answer.text());
    assert_eq!(museum.files(""), ["marigold-1.0.0.tgz"]);
    let forced = format!("{path}?force=true");
    let answer = shelf.send(Method::DELETE, &forced, &Value::Null).await;
    assert!(matches!(answer.status, 200..=204), "{}: {}", answer.status, answer.text());
    assert_eq!(museum.files(""), Vec::<String>::new());
    assert_eq!(shelf.charts(&name).await, Vec::<String>::new());
    let record = format!("/api/v1/namespaces/{namespace}/configmaps/bed");
    assert!(live(cluster::shared().await, &record).await.is_some(), "the release runs on");
    shelf.close().await;
}

#[tokio::test]
async fn who_may_only_read_a_repository_uploads_and_deletes_nothing() {
    let museum = Museum::start(None, Rules::default()).await;
    let shelf = Shelf::open("uploads-rights", &[&museum.site]).await;
    let name = shelf.create("read", of(museum.site.url("/"), &Value::Null)).await;
    let pack = web("1.0.0", "");
    uploaded(&shelf, &name, &pack).await;
    let (cluster, home) = (cluster::shared().await, shelf.namespace.clone());
    let map = format!("binnacle.repository.{name}");
    let rules = |verbs: Vec<&str>| {
        json!([{
            "apiGroups": [""], "resources": ["configmaps"], "verbs": verbs, "resourceNames": [map],
        }])
    };
    for (who, verbs) in [("reader", vec!["get"]), ("keeper", vec!["get", "update"])] {
        let person = Person::new(cluster, &home, who).await;
        grant(cluster, Some(&home), who, person.subject.clone(), rules(verbs)).await;
        let hand = shelf.by(&person.token);
        let (more, text) = (web("2.0.0", "").bytes, provenance(&pack));
        let at = format!("chart/{name}/web/1.0.0");
        let signed = format!("{at}/provenance");
        let answers = [
            push(&hand, Method::POST, &format!("chart/{name}"), &more).await,
            push(&hand, Method::PUT, &signed, text.as_bytes()).await,
            hand.send(Method::DELETE, &at, &[], &Value::Null).await,
        ];
        for (answer, done) in answers.into_iter().zip([201, 200, 200]) {
            let wanted = if who == "reader" { 403 } else { done };
            assert_eq!(answer.status, wanted, "{who}: {}", answer.text());
        }
        let files = if who == "reader" { "web-1.0.0.tgz" } else { "web-2.0.0.tgz" };
        assert_eq!(museum.files(""), [files], "{who}");
    }
    assert_eq!(museum.site.count(&Method::POST, "/api/prov"), 1, "the keeper's alone");
    let stranger = Person::new(cluster, &home, "stranger").await;
    let hand = shelf.by(&stranger.token);
    let answer = push(&hand, Method::POST, &format!("chart/{name}"), &pack.bytes).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    shelf.close().await;
}
