//! A Harbor as a repository of charts: its projects, repositories and artifacts page by page, what
//! of them a robot may see, and charts out of its registry, for who may read the repository.
//!
//! The server is a few lines after Harbor 2.x (src/server/v2.0/handler and
//! src/server/middleware/v2auth of goharbor/harbor), without its database and its pushes. What its
//! lists may hold besides is tested beside the code (`src/charts/harbor_tests.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::{Value, json};

use crate::chart_repos::{Shelf, says};
use crate::chart_uploads::{provenance, push};
use crate::cluster;
use crate::museum_server::{Authority, Pack, Site, digest};
use crate::people::{Person, grant};

const ROBOT: &str = "robot$charts";
const SECRET: &str = "secret-of-the-robot";
/// The largest page, and the page where nobody says how large (api/v2.0/swagger.yaml).
const SIZES: (usize, usize) = (100, 10);
/// More than a page of them: versions of the chart web, and repositories that hold images.
const MANY: usize = 101;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CHART: [&str; 2] = [
    "application/vnd.cncf.helm.config.v1+json",
    "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
];
const IMAGE: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"];

/// Something that was pushed.
struct Artifact {
    /// With its project.
    repository: String,
    kind: &'static str,
    tag: String,
    /// What Harbor tells of it out of its configuration.
    attributes: Value,
    /// Manifest, configuration and layer with their digests.
    files: [(String, Bytes); 3],
}

impl Artifact {
    fn chart(repository: &str, pack: &Pack) -> Artifact {
        let attributes = json!({
            "apiVersion": "v2", "name": pack.name, "version": pack.version, "appVersion": "2.0",
            "description": "Lies at anchor", "keywords": null, "maintainers": [{"name": "Ann"}],
        });
        let tag = pack.version.replace('+', "_");
        Artifact::new(repository, ("CHART", CHART), tag, attributes, pack.bytes.clone())
    }

    fn image(repository: &str) -> Artifact {
        let attributes = json!({"architecture": "amd64", "os": "linux", "author": ""});
        let layer = Bytes::from_static(b"a layer");
        Artifact::new(repository, ("IMAGE", IMAGE), "1.0.0".to_owned(), attributes, layer)
    }

    fn new(
        repository: &str,
        (kind, types): (&'static str, [&str; 2]),
        tag: String,
        attributes: Value,
        layer: Bytes,
    ) -> Artifact {
        let named = |bytes: Bytes| (format!("sha256:{}", digest(&bytes)), bytes);
        let (config, layer) = (named(attributes.to_string().into()), named(layer));
        let descriptor = |kind: &str, (digest, bytes): &(String, Bytes)| json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(types[0], &config),
            "layers": [descriptor(types[1], &layer)],
        });
        let files = [named(manifest.to_string().into()), config, layer];
        Artifact { repository: repository.to_owned(), kind, tag, attributes, files }
    }

    /// As a list has it.
    fn told(&self, with_tag: bool) -> Value {
        let tag = json!({"name": self.tag, "push_time": "2026-01-02T03:04:05.678Z"});
        json!({
            "type": self.kind, "digest": self.files[0].0, "manifest_media_type": MANIFEST,
            "push_time": "2026-01-02T03:04:05.678Z", "pull_time": "0001-01-01T00:00:00.000Z",
            "tags": if with_tag { json!([tag]) } else { Value::Null },
            "extra_attrs": self.attributes, "labels": null, "references": null,
        })
    }
}

fn is_robot(headers: &HeaderMap) -> bool {
    let wanted = format!("Basic {}", STANDARD.encode(format!("{ROBOT}:{SECRET}")));
    let given = headers.get(header::AUTHORIZATION);
    given.is_some_and(|value| value.as_bytes() == wanted.as_bytes())
}

/// `library` is public, and the robot may read `apps` as well.
fn may_read(headers: &HeaderMap, project: &str) -> bool {
    project == "library" || (project == "apps" && is_robot(headers))
}

fn failed(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({"errors": [{"code": code, "message": message}]}).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn not_found(what: &str) -> Response {
    failed(StatusCode::NOT_FOUND, "NOT_FOUND", &format!("{what} not found"))
}

/// A page of a list with the links to those beside it (handler/base.go, lib/link.go).
fn paged(uri: &Uri, all: &[Value]) -> Response {
    let query = uri.query().unwrap_or_default().as_bytes();
    let pairs: BTreeMap<String, String> = url::form_urlencoded::parse(query).into_owned().collect();
    let number = |name: &str, other: usize| {
        pairs.get(name).map_or(other, |text| text.parse().unwrap_or_default())
    };
    let (page, size) = (number("page", 1), number("page_size", SIZES.1));
    if page == 0 || !(1..=SIZES.0).contains(&size) {
        let why = "page_size in query should be less than or equal to 100";
        return failed(StatusCode::UNPROCESSABLE_ENTITY, "UNPROCESSABLE_ENTITY", why);
    }
    let link = |page: usize, relation: &str| {
        let mut pairs = pairs.clone();
        pairs.insert("page".to_owned(), page.to_string());
        pairs.insert("page_size".to_owned(), size.to_string());
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("<{}?{}>; rel=\"{relation}\"", uri.path(), pairs.join("&"))
    };
    let mut links = Vec::new();
    if page > 1 && (page - 1) * size < all.len() {
        links.push(link(page - 1, "prev"));
    }
    if page * size < all.len() {
        links.push(link(page + 1, "next"));
    }
    let here: Value = all.iter().skip((page - 1) * size).take(size).cloned().collect();
    let count = [(HeaderName::from_static("x-total-count"), all.len().to_string())];
    let mut answer = (count, here.to_string()).into_response();
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    if !links.is_empty() {
        let links = HeaderValue::from_str(&links.join(" , ")).unwrap();
        answer.headers_mut().insert(header::LINK, links);
    }
    answer
}

/// What is behind `/api/v2.0/projects`.
fn api(all: &[Artifact], request: &Request, rest: &str) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let parts: Vec<&str> = rest.split('/').skip(1).collect();
    match parts.as_slice() {
        [] => {
            let names = ["library", "apps", "secret"].into_iter();
            let names = names.filter(|name| may_read(headers, name));
            paged(uri, &names.map(|name| json!({"name": name})).collect::<Vec<_>>())
        }
        [project, ..] if !may_read(headers, project) => {
            if is_robot(headers) {
                return failed(StatusCode::FORBIDDEN, "FORBIDDEN", "forbidden");
            }
            failed(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "unauthorized")
        }
        [project, "repositories"] => {
            let is_in = |name: &&str| name.split('/').next() == Some(*project);
            let mut names: Vec<&str> =
                all.iter().map(|one| one.repository.as_str()).filter(is_in).collect();
            names.dedup();
            paged(uri, &names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>())
        }
        [project, "repositories", name, "artifacts"] => {
            // What is encoded but once would have become a path of more parts.
            let name = format!("{project}/{}", name.replace("%252F", "/"));
            let with_tag = !uri.query().unwrap_or_default().contains("with_tag=false");
            let its = all.iter().filter(|one| one.repository == name);
            let its: Vec<_> = its.map(|one| one.told(with_tag)).collect();
            if its.is_empty() {
                return not_found(&format!("repository {name}"));
            }
            paged(uri, &its)
        }
        _ => not_found(rest),
    }
}

/// What is behind `/v2/`.
fn registry(all: &[Artifact], headers: &HeaderMap, rest: &str) -> Response {
    let (place, reference) = rest.rsplit_once('/').unwrap_or_default();
    let (repository, kind) = place.rsplit_once('/').unwrap_or_default();
    if !may_read(headers, repository.split('/').next().unwrap_or_default()) {
        let host = headers[header::HOST].to_str().unwrap();
        let challenge = if headers.contains_key(header::AUTHORIZATION) {
            "Basic realm=\"harbor\"".to_owned()
        } else {
            format!(
                "Bearer realm=\"https://{host}/service/token\",service=\"harbor-registry\",\
                 scope=\"repository:{repository}:pull\""
            )
        };
        let mut answer = failed(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "unauthorized");
        let challenge = HeaderValue::from_str(&challenge).unwrap();
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return answer;
    }
    let mut its = all.iter().filter(|one| one.repository == repository);
    let found = match kind {
        "manifests" => its
            .find(|one| one.tag == reference || one.files[0].0 == reference)
            .map(|one| (MANIFEST, &one.files[0])),
        "blobs" => its
            .flat_map(|one| &one.files[1..])
            .find(|(digest, _)| digest == reference)
            .map(|blob| ("application/octet-stream", blob)),
        _ => None,
    };
    let Some((kind, (digest, bytes))) = found else {
        return not_found(&format!("artifact {repository}:{reference}"));
    };
    let named = HeaderName::from_static("docker-content-digest");
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (named, digest.clone())];
    (headers, bytes.clone()).into_response()
}

fn answer(all: &[Artifact], request: &Request) -> Response {
    let path = request.uri().path();
    if request.method() != Method::GET {
        return failed(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "it takes nothing");
    }
    if let Some(rest) = path.strip_prefix("/api/v2.0/projects") {
        return api(all, request, rest);
    }
    if let Some(rest) = path.strip_prefix("/v2/") {
        return registry(all, request.headers(), rest);
    }
    if path == "/service/token" {
        // Whoever is nobody gets one, too, that lets him do what he may.
        return json!({"token": "of-nobody", "expires_in": 1800}).to_string().into_response();
    }
    not_found(path)
}

fn web(version: &str) -> Pack {
    Pack::new("web", version, &[("values.yaml", "anchor: true\n"), ("README.md", "# web\n")])
}

fn db() -> Pack {
    Pack::new("db", "1.1.0+build.5", &[])
}

/// A Harbor with TLS of this authority.
async fn harbor(authority: &Authority) -> Site {
    // Images come first: charts are on the second page.
    let images = (0..MANY).map(|number| Artifact::image(&format!("library/images/web-{number}")));
    let mut all: Vec<_> = images.collect();
    all.extend([web("2.0.0-rc.1"), web("1.0.0")].map(|pack| Artifact::chart("library/web", &pack)));
    let old = (0..MANY).rev().map(|number| web(&format!("0.{number}.0")));
    all.extend(old.map(|pack| Artifact::chart("library/web", &pack)));
    all.push(Artifact::chart("library/team/db", &db()));
    all.push(Artifact::chart("apps/shop", &Pack::new("shop", "3.0.0", &[])));
    all.push(Artifact::chart("secret/plan", &Pack::new("plan", "1.0.0", &[])));
    let all = Arc::new(all);
    let tls = authority.server(false);
    Site::start(Some(tls), move |request: Request| std::future::ready(answer(&all, &request))).await
}

fn definition(site: &Site, path: &str, authority: &Authority, secret: Option<&str>) -> Value {
    let mut definition = json!({"type": "harbor", "url": site.url(path)});
    definition["credentials"] = json!({"ca": authority.pem});
    if let Some(secret) = secret {
        definition["credentials"]["username"] = ROBOT.into();
        definition["credentials"]["password"] = secret.into();
    }
    definition
}

#[tokio::test]
async fn charts_of_a_harbor_come_from_all_its_pages_and_out_of_its_registry() {
    let authority = Authority::new();
    let site = harbor(&authority).await;
    let shelf = Shelf::open("harbor", &[&site]).await;
    let robots = definition(&site, "/library", &authority, Some(SECRET));
    let name = shelf.create("library", robots).await;
    assert_eq!(shelf.charts(&name).await, ["db 1.1.0+build.5", "web 1.0.0"]);
    let status = shelf.status(&name).await;
    let counts = [&status["charts"], &status["versions"], &status["skipped"]];
    assert_eq!(counts, [2, MANY + 3, 0], "{status}");
    for path in ["", "/images%252Fweb-0/artifacts", "/web/artifacts"] {
        let at = format!("/api/v2.0/projects/library/repositories{path}");
        let pages = |query: &str| site.count(&Method::GET, &format!("{at}?{query}"));
        let has_more = !path.contains("images");
        assert!(pages("page_size=100") > 0, "{at}");
        assert_eq!(pages("page=2&page_size=100") > 0, has_more, "{at}");
        assert_eq!(pages("page=3"), 0, "{at}");
    }
    let versions = shelf.versions(&name, "web").await;
    assert_eq!(versions.len(), MANY + 2);
    assert_eq!(versions[..4], ["2.0.0-rc.1", "1.0.0", "0.100.0", "0.99.0"]);
    let found = shelf.read(&format!("chart?repository={name}&q=anchor&sortBy=a,name")).await;
    assert_eq!(found["listMeta"]["totalItems"], 2, "{found}");
    let row = &found["charts"][1];
    assert_eq!([&row["name"], &row["appVersion"], &row["latest"]], ["web", "2.0", "2.0.0-rc.1"]);

    for (at, pack) in
        [("web/1.0.0", web("1.0.0")), ("web/0.0.0", web("0.0.0")), ("db/1.1.0%2Bbuild.5", db())]
    {
        let detail = shelf.read(&format!("chart/{name}/{at}")).await;
        assert_eq!([&detail["name"], &detail["version"]], [&pack.name, &pack.version], "{detail}");
        let told = detail["digest"].as_str().unwrap();
        assert_eq!(told.trim_start_matches("sha256:"), pack.digest);
        assert_eq!(detail["signature"]["state"], "none", "{detail}");
        if pack.name == "web" {
            assert_eq!(detail["values"], "anchor: true\n");
            let url = format!("oci://{}/library/web:{}", site.address, pack.version);
            assert_eq!(detail["urls"], json!([url]));
        }
        let answer = shelf.get(&format!("chart/{name}/{at}/archive")).await;
        assert_eq!((answer.status, &answer.body), (200, &pack.bytes));
    }
    shelf.close().await;
}

#[tokio::test]
async fn of_a_harbor_there_is_what_its_credentials_may_see() {
    let authority = Authority::new();
    let site = harbor(&authority).await;
    let shelf = Shelf::open("harbor-seen", &[&site]).await;
    let of = |path: &str, secret: Option<&str>| definition(&site, path, &authority, secret);
    let name = shelf.create("all", of("/", Some(SECRET))).await;
    assert_eq!(shelf.charts(&name).await, ["db 1.1.0+build.5", "shop 3.0.0", "web 1.0.0"]);
    let answer = shelf.get(&format!("chart/{name}/shop/3.0.0/archive")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Nobody in particular sees what is public, and has it.
    let name = shelf.create("public", of("/", None)).await;
    assert_eq!(shelf.charts(&name).await, ["db 1.1.0+build.5", "web 1.0.0"]);
    let answer = shelf.get(&format!("chart/{name}/web/1.0.0/archive")).await;
    assert_eq!((answer.status, &answer.body), (200, &web("1.0.0").bytes));
    let name = shelf.create("team", of("/library/team", None)).await;
    assert_eq!(shelf.charts(&name).await, ["db 1.1.0+build.5"]);
    for (project, secret) in
        [("apps", None), ("apps", Some("a-wrong-secret")), ("secret", Some(SECRET))]
    {
        let mut definition = of(&format!("/{project}"), secret);
        definition["name"] = shelf.name("denied").into();
        let tried = shelf.tried(&definition).await;
        assert_eq!(tried["ok"], false, "{project}: {tried}");
        let error = tried["error"].as_str().unwrap();
        let path = format!("/api/v2.0/projects/{project}/repositories");
        says(error, &[&format!("{} does not let us read {path}", site.address)]);
        assert!(!error.contains("a-wrong-secret") && !error.contains(SECRET), "{error}");
    }
    shelf.close().await;
}

#[tokio::test]
async fn a_harbor_is_read_by_who_may_get_its_map_and_refreshed_by_who_may_update_it() {
    let authority = Authority::new();
    let site = harbor(&authority).await;
    let shelf = Shelf::open("harbor-rights", &[&site]).await;
    let name = shelf.create("apps", definition(&site, "/apps", &authority, Some(SECRET))).await;
    let (cluster, home) = (cluster::shared().await, shelf.namespace.clone());
    let map = format!("binnacle.repository.{name}");
    let person = async |who: &str, verbs: &[&str], map: &str| {
        let person = Person::new(cluster, &home, who).await;
        let rules = json!([{
            "apiGroups": [""], "resources": ["configmaps"], "verbs": verbs, "resourceNames": [map],
        }]);
        grant(cluster, Some(&home), who, person.subject.clone(), rules).await;
        person
    };
    let stranger = person("stranger", &["get", "update"], "something-else").await;
    let reader = person("reader", &["get"], &map).await;
    let keeper = person("keeper", &["get", "update"], &map).await;
    let pack = Pack::new("shop", "3.0.0", &[]);
    let at = format!("chart/{name}/shop/3.0.0");
    let (refresh, signature) = (format!("repository/{name}/refresh"), format!("{at}/provenance"));
    for (who, reads, refreshes) in [(&stranger, 403, 403), (&reader, 200, 403), (&keeper, 200, 202)]
    {
        let hand = shelf.by(&who.token);
        let list = hand.get(&format!("chart?repository={name}")).await;
        let count = usize::from(reads == 200);
        assert_eq!(list.json()["listMeta"]["totalItems"], count, "{}", list.text());
        let archive = format!("{at}/archive");
        for path in [&format!("repository/{name}"), &format!("chart/{name}/shop"), &at, &archive] {
            let answer = hand.get(path).await;
            assert_eq!(answer.status, reads, "{path}: {}", answer.text());
            assert!(!answer.text().contains(SECRET) && !answer.text().contains(ROBOT), "{path}");
        }
        let answer = hand.send(Method::POST, &refresh, &[], &json!({})).await;
        assert_eq!(answer.status, refreshes, "{}", answer.text());
        if refreshes == 403 {
            let text = provenance(&pack);
            let answers = [
                push(&hand, Method::POST, &format!("chart/{name}"), &pack.bytes).await,
                push(&hand, Method::PUT, &signature, text.as_bytes()).await,
                hand.send(Method::DELETE, &at, &[], &Value::Null).await,
            ];
            for answer in answers {
                assert_eq!(answer.status, 403, "{}", answer.text());
            }
        }
    }
    let written = site.asked().into_iter().find(|asked| asked.method != Method::GET);
    assert!(written.is_none(), "{written:?}");
    shelf.close().await;
}
