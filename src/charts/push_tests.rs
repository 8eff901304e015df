//! A registry of a few lines: blobs in one go and in pieces, manifests whose blobs have to be
//! there, tokens, and what registries refuse.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::Policy;
use super::super::catalogue::Builder;
use super::super::client::Credentials;
use super::super::definition::Oci;
use super::super::oci::pull;
use super::super::session::BadListing;
use super::*;

struct Registry {
    /// The largest body that is taken, in bytes.
    largest: usize,
    deletes: bool,
    /// Wants a token, which is for who is `me:secret`.
    guarded: bool,
    /// Where blobs are to be sent instead.
    elsewhere: Option<String>,
    stored: Mutex<Stored>,
    asked: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Stored {
    blobs: HashMap<String, Bytes>,
    uploads: Vec<Vec<u8>>,
    /// By tag and by digest.
    manifests: HashMap<String, Bytes>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            largest: PACKED,
            deletes: true,
            guarded: false,
            elsewhere: None,
            stored: Mutex::default(),
            asked: Mutex::default(),
        }
    }
}

fn status(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}

fn refused(code: u16, error: &str) -> Response {
    let body = json!({ "errors": [{ "code": error, "message": error.to_lowercase() }] });
    (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
}

fn accepted(location: &str) -> Response {
    (StatusCode::ACCEPTED, [(header::LOCATION, location.to_owned())]).into_response()
}

impl Registry {
    /// Runs it; the address of its root.
    async fn start(self) -> (Arc<Self>, Url) {
        let registry = Arc::new(self);
        let serving = registry.clone();
        let handler = move |request: Request| {
            let registry = serving.clone();
            async move { registry.answer(request).await }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let router = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, router).await });
        (registry, url.parse().unwrap())
    }

    async fn answer(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, PACKED).await.unwrap();
        let path = head.uri.path();
        let short = path.strip_prefix("/v2/charts/web/").unwrap_or(path);
        let kind = short.split('/').take(2).collect::<Vec<_>>().join("/");
        self.asked.lock().unwrap().push(format!("{} {kind}", head.method));
        let text = |name: HeaderName| {
            head.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        if self.guarded
            && let Some(answer) = guard(path, head.uri.query(), &head.method, &text)
        {
            return answer;
        }
        if body.len() > self.largest {
            return status(413);
        }
        let mut stored = self.stored.lock().unwrap();
        let parts: Vec<&str> = short.split('/').collect();
        match (head.method.as_str(), parts.as_slice()) {
            ("HEAD", ["blobs", digest]) => {
                status(if stored.blobs.contains_key(*digest) { 200 } else { 404 })
            }
            ("POST", ["blobs", "uploads", ""]) => {
                if let Some(elsewhere) = &self.elsewhere {
                    return accepted(elsewhere);
                }
                stored.uploads.push(Vec::new());
                accepted(&format!("/v2/charts/web/blobs/uploads/{}?s=1", stored.uploads.len() - 1))
            }
            ("PATCH", ["blobs", "uploads", id]) => {
                let upload = &mut stored.uploads[id.parse::<usize>().unwrap()];
                let end = upload.len() + body.len() - 1;
                if text(header::CONTENT_RANGE) != format!("{}-{end}", upload.len()) {
                    return status(416);
                }
                upload.extend_from_slice(&body);
                accepted(&format!("/v2/charts/web/blobs/uploads/{id}?s=2"))
            }
            ("PUT", ["blobs", "uploads", id]) => {
                let mut upload = std::mem::take(&mut stored.uploads[id.parse::<usize>().unwrap()]);
                upload.extend_from_slice(&body);
                let query = head.uri.query().unwrap();
                let digest = digest_of(&upload);
                if query != format!("s=1&digest={}", digest.replace(':', "%3A"))
                    && query != format!("s=2&digest={}", digest.replace(':', "%3A"))
                {
                    return refused(400, "DIGEST_INVALID");
                }
                stored.blobs.insert(digest, upload.into());
                status(201)
            }
            (_, ["manifests", of]) => self.manifest(&mut stored, &head.method, of, body),
            ("GET", ["blobs", digest]) => match stored.blobs.get(*digest) {
                Some(blob) => blob.clone().into_response(),
                None => status(404),
            },
            _ => status(404),
        }
    }

    fn manifest(&self, stored: &mut Stored, method: &Method, of: &str, body: Bytes) -> Response {
        match method.as_str() {
            "PUT" => {
                let manifest: Value = serde_json::from_slice(&body).unwrap();
                let layers = manifest["layers"].as_array().unwrap().iter();
                for blob in layers.chain([&manifest["config"]]) {
                    let known = stored.blobs.get(blob["digest"].as_str().unwrap());
                    if known.map(Bytes::len) != blob["size"].as_u64().map(|size| size as usize) {
                        return refused(400, "MANIFEST_BLOB_UNKNOWN");
                    }
                }
                stored.manifests.insert(digest_of(&body), body.clone());
                stored.manifests.insert(of.to_owned(), body);
                status(201)
            }
            "DELETE" if !self.deletes => refused(405, "UNSUPPORTED"),
            "DELETE" => match stored.manifests.remove(of) {
                Some(gone) => {
                    stored.manifests.retain(|_, manifest| *manifest != gone);
                    status(202)
                }
                None => refused(404, "MANIFEST_UNKNOWN"),
            },
            _ => match stored.manifests.get(of) {
                Some(manifest) => manifest.clone().into_response(),
                None => refused(404, "MANIFEST_UNKNOWN"),
            },
        }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn manifest_of(&self, tag: &str) -> Value {
        serde_json::from_slice(&self.stored.lock().unwrap().manifests[tag]).unwrap()
    }
}

/// What a registry says to who has no token for this, and what the one says that has tokens: they
/// are named after what they allow.
fn guard(
    path: &str,
    query: Option<&str>,
    method: &Method,
    text: &dyn Fn(HeaderName) -> String,
) -> Option<Response> {
    let authorization = text(header::AUTHORIZATION);
    if path == "/token" {
        if authorization != format!("Basic {}", STANDARD.encode("me:secret")) {
            return Some(status(401));
        }
        let scope = query.unwrap().rsplit_once("%3A").unwrap().1.to_owned();
        return Some(json!({ "token": scope.replace("%2C", "+") }).to_string().into_response());
    }
    let wanted = match method.as_str() {
        "GET" | "HEAD" => "pull",
        "DELETE" => "delete",
        _ => "pull,push",
    };
    if authorization.contains(wanted.rsplit(',').next().unwrap()) {
        return None;
    }
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"r\",scope=\"repository:charts/web:{wanted}\"",
        text(header::HOST)
    );
    Some((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response())
}

fn policy() -> Policy {
    Policy::default().with_loopback()
}

fn client() -> Client {
    Client::new(&policy(), None).unwrap()
}

fn definition(url: &str, kind: Kind, oci: Option<Oci>) -> Definition {
    Definition {
        name: "r".into(),
        kind,
        url: url.into(),
        oci,
        interval: None,
        has_credentials: false,
    }
}

fn tag(registry: &Url, version: &str) -> Tag {
    let base = registry.join("charts/").unwrap();
    let definition = definition("oci://r.example/charts", Kind::Oci, None);
    Tag::of((&definition, &base), &Catalogue::default(), "web", version).unwrap()
}

fn chart(version: &str) -> Archive {
    Archive {
        name: "web".into(),
        version: version.into(),
        app_version: "1.10".into(),
        metadata: json!({
            "apiVersion": "v2", "name": "web", "version": version, "appVersion": 1.1,
            "description": "A web server", "home": "https://web.example",
            "annotations": {
                "category": "web", "number": 1, "org.opencontainers.image.version": "9",
            },
        }),
        digest: "ab".repeat(32),
        readme: None,
        values: None,
        schema: None,
        crds: Vec::new(),
        templates: Vec::new(),
    }
}

async fn pushed(to: &Tag, archive: &[u8], force: bool) -> Result<(), BadPush> {
    push(&client(), to, &chart("1.2.3+b"), Bytes::copy_from_slice(archive), force).await
}

#[tokio::test]
async fn a_chart_that_was_pushed_can_be_pulled() {
    let (registry, url) = Registry::default().start().await;
    pushed(&tag(&url, "1.2.3+b"), b"the archive", false).await.unwrap();
    let reference = format!("oci://{}/charts/web:1.2.3+b", url.authority());
    let pulled = pull(&reference, &policy()).await.unwrap();
    assert_eq!(&pulled.bytes[..], b"the archive");
    let manifest = registry.manifest_of("1.2.3_b");
    let annotations = &manifest["annotations"];
    assert_eq!(annotations["org.opencontainers.image.title"], "web");
    assert_eq!(annotations["org.opencontainers.image.version"], "1.2.3+b");
    assert_eq!((&annotations["category"], &annotations["number"]), (&json!("web"), &Value::Null));
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config = registry.stored.lock().unwrap().blobs[config].clone();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["appVersion"], &config["apiVersion"]), (&json!("1.10"), &json!("v2")));
}

#[tokio::test]
async fn a_version_that_is_there_is_replaced_by_force_alone() {
    let (registry, url) = Registry::default().start().await;
    let to = tag(&url, "1.2.3");
    pushed(&to, b"one", false).await.unwrap();
    registry.asked();
    let error = pushed(&to, b"other", false).await.unwrap_err();
    assert!(matches!(error, BadPush::Exists(..)), "{error}");
    assert_eq!(registry.asked(), ["HEAD manifests/1.2.3"]);
    pushed(&to, b"other", true).await.unwrap();
    let manifest = registry.manifest_of("1.2.3");
    assert_eq!(manifest["layers"][0]["digest"], digest_of(b"other").as_str());
}

#[tokio::test]
async fn a_blob_that_is_too_long_for_a_proxy_goes_in_pieces() {
    let (registry, url) = Registry { largest: PIECE, ..Registry::default() }.start().await;
    let archive: Vec<u8> = (0..2 * PIECE + 100).map(|at| (at % 251) as u8).collect();
    pushed(&tag(&url, "1.2.3"), &archive, false).await.unwrap();
    let asked = registry.asked();
    assert_eq!(asked.iter().filter(|one| one.starts_with("PATCH")).count(), 3);
    let stored = registry.stored.lock().unwrap();
    assert_eq!(stored.blobs[&digest_of(&archive)].len(), archive.len());
}

#[tokio::test]
async fn a_token_is_fetched_with_the_credentials_for_each_kind_of_access() {
    let (registry, url) = Registry { guarded: true, ..Registry::default() }.start().await;
    let to = tag(&url, "1.2.3");
    let error = pushed(&to, b"one", false).await.unwrap_err();
    assert!(matches!(error, BadPush::Token(BadListing::Denied(..))), "{error}");
    let credentials = Credentials {
        username: Some("me".into()),
        password: Some("secret".into()),
        host: url.authority().to_owned(),
        ..Credentials::default()
    };
    let client = Client::new(&policy(), Some(credentials)).unwrap();
    registry.asked();
    push(&client, &to, &chart("1.2.3"), Bytes::from("one"), false).await.unwrap();
    let asked = registry.asked();
    assert_eq!(asked.iter().filter(|one| one.ends_with("/token")).count(), 2, "{asked:?}");
    delete(&client, &to).await.unwrap();
    assert!(registry.stored.lock().unwrap().manifests.is_empty());
}

#[tokio::test]
async fn a_blob_may_go_elsewhere_but_the_token_stays_with_the_registry() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = format!("http://{}/there", listener.local_addr().unwrap());
    let heard = seen.clone();
    let router = Router::new().fallback(move |request: Request| {
        heard.lock().unwrap().push(request.headers().get(header::AUTHORIZATION).cloned());
        std::future::ready(StatusCode::CREATED)
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let registry = Registry { elsewhere: Some(elsewhere), guarded: true, ..Registry::default() };
    let (_, url) = registry.start().await;
    let credentials = Credentials {
        username: Some("me".into()),
        password: Some("secret".into()),
        host: url.authority().to_owned(),
        ..Credentials::default()
    };
    let client = Client::new(&policy(), Some(credentials)).unwrap();
    let to = tag(&url, "1.2.3");
    // The blobs never arrive, and this registry finds that out.
    let error = push(&client, &to, &chart("1.2.3"), Bytes::from("one"), false).await.unwrap_err();
    assert!(matches!(error, BadPush::Unfit(..)), "{error}");
    assert!(error.to_string().ends_with("manifest_blob_unknown"), "{error}");
    assert_eq!(*seen.lock().unwrap(), [None, None]);
}

#[tokio::test]
async fn a_version_is_deleted_where_that_is_allowed() {
    let (registry, url) = Registry::default().start().await;
    let to = tag(&url, "1.2.3");
    let error = delete(&client(), &to).await.unwrap_err();
    assert!(matches!(error, BadPush::NotFound(..)), "{error}");
    pushed(&to, b"one", false).await.unwrap();
    delete(&client(), &to).await.unwrap();
    assert!(registry.stored.lock().unwrap().manifests.is_empty());
    let (_, url) = Registry { deletes: false, ..Registry::default() }.start().await;
    let to = tag(&url, "1.2.3");
    pushed(&to, b"one", false).await.unwrap();
    let error = delete(&client(), &to).await.unwrap_err();
    assert!(matches!(error, BadPush::NoDelete(_)), "{error}");
    assert!(error.to_string().contains("REGISTRY_STORAGE_DELETE_ENABLED"), "{error}");
}

#[tokio::test]
async fn a_provenance_file_is_one_layer_more() {
    let (registry, url) = Registry::default().start().await;
    let to = tag(&url, "1.2.3");
    pushed(&to, b"one", false).await.unwrap();
    sign(&client(), &to, Bytes::from("signed"), false).await.unwrap();
    let error = sign(&client(), &to, Bytes::from("signed again"), false).await.unwrap_err();
    assert!(matches!(error, BadPush::Exists(..)), "{error}");
    sign(&client(), &to, Bytes::from("signed again"), true).await.unwrap();
    let manifest = registry.manifest_of("1.2.3");
    let layers = manifest["layers"].as_array().unwrap();
    let digests: Vec<_> = layers.iter().map(|layer| layer["digest"].as_str().unwrap()).collect();
    assert_eq!(digests, [digest_of(b"one"), digest_of(b"signed again")]);
    assert_eq!(layers[1]["mediaType"], PROVENANCE);
}

#[test]
fn a_chart_goes_where_the_registry_s_list_finds_it() {
    let at = |kind: Kind, path: &str, oci: Option<Oci>, known: &Catalogue| {
        let base: Url = format!("https://r.example/{path}").parse().unwrap();
        let definition = definition("oci://r.example", kind, oci);
        Tag::of((&definition, &base), known, "web", "1.0.0").map(|tag| tag.address())
    };
    let none = Catalogue::default();
    let named = |name: &str| Oci { repositories: vec![name.to_owned()], prefix: None };
    let below = |prefix: &str| Oci { repositories: Vec::new(), prefix: Some(prefix.to_owned()) };
    for (path, oci, repository) in [
        ("", None, "web"),
        ("charts/", None, "charts/web"),
        ("charts/web/", None, "charts/web"),
        ("charts/", Some(named("team/web")), "charts/team/web"),
        ("charts/", Some(below("team/")), "charts/team/web"),
    ] {
        let found = at(Kind::Oci, path, oci, &none).unwrap();
        assert_eq!(found, format!("oci://r.example/{repository}:1.0.0"));
    }
    let holding = |name: &str, repository: &str| {
        let mut builder = Builder::new();
        let entry = Entry {
            name: name.into(),
            version: "0.1.0".into(),
            urls: vec![format!("oci://r.example/{repository}:0.1.0")],
            ..Entry::default()
        };
        builder.add(&entry).unwrap();
        builder.finish_counted().0
    };
    let known = holding("web", "charts/deep/web");
    assert_eq!(at(Kind::Oci, "", None, &known).unwrap(), "oci://r.example/charts/deep/web:1.0.0");
    let says = |found: Result<String, BadPush>| found.unwrap_err().to_string();
    let one = holding("db", "charts/db");
    assert!(says(at(Kind::Oci, "charts/db/", None, &one)).contains("one single chart"));
    assert!(says(at(Kind::Oci, "", Some(named("db")), &none)).contains("not named"));
    assert!(says(at(Kind::Harbor, "", None, &none)).contains("project"));
    assert_eq!(at(Kind::Harbor, "p/", None, &none).unwrap(), "oci://r.example/p/web:1.0.0");
}

#[test]
fn a_chart_that_may_be_one_of_several_has_no_place() {
    let mut builder = Builder::new();
    for name in ["a/web", "b/web"] {
        let urls = vec![format!("oci://r.example/{name}:0.1.0")];
        let (name, version) = (name.to_owned(), "0.1.0".to_owned());
        builder.add(&Entry { name, version, urls, ..Entry::default() }).unwrap();
    }
    let known = builder.finish_counted().0;
    let base: Url = "https://r.example/".parse().unwrap();
    let definition = definition("oci://r.example", Kind::Oci, None);
    let of = |name: &str| Tag::of((&definition, &base), &known, name, "1.0.0");
    assert!(of("web").unwrap_err().to_string().contains("several charts"));
    for name in ["b/web", "db"] {
        assert_eq!(of(name).unwrap().address(), format!("oci://r.example/{name}:1.0.0"));
    }
}

#[test]
fn names_and_versions_that_registries_do_not_know_are_refused() {
    let base: Url = "https://r.example/".parse().unwrap();
    let definition = definition("oci://r.example", Kind::Oci, None);
    let of = |name: &str, version: &str| {
        let found = Tag::of((&definition, &base), &Catalogue::default(), name, version);
        found.unwrap_err().to_string()
    };
    assert!(of("Web", "1.0.0").contains("small letters"));
    assert!(of("web", &format!("1.0.0-{}", "a".repeat(200))).contains("128"));
}

#[test]
fn what_was_uploaded_is_shown_as_it_says_of_itself() {
    let entry = entry(&chart("1.2.3"), "charts/web-1.2.3.tgz".into());
    assert_eq!((entry.name.as_str(), entry.version.as_str()), ("web", "1.2.3"));
    assert_eq!((entry.app_version.as_str(), entry.home.as_str()), ("1.10", "https://web.example"));
    assert_eq!(entry.digest, Some([0xab; 32]));
    assert!(entry.created.is_some());
}
