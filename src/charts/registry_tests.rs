//! A registry of a few lines, which gives two names a page and counts what it is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request as Asked;
use axum::response::{IntoResponse as _, Response as Answer};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::*;
use crate::charts::Policy;
use crate::charts::client::Credentials;
use crate::charts::hex;
use crate::charts::oci::CONTENT;

/// What was asked for, in order: the path with its query, and whether there were credentials.
type Log = Arc<Mutex<Vec<(String, Option<String>)>>>;

async fn serve(answer: impl Fn(&Asked) -> Answer + Clone + Send + Sync + 'static) -> (Url, Log) {
    let log = Log::default();
    let asked = log.clone();
    let handler = move |request: Asked| {
        let credentials = request.headers().get(header::AUTHORIZATION);
        let credentials = credentials.map(|value| value.to_str().unwrap().to_owned());
        asked.lock().unwrap().push((request.uri().to_string(), credentials));
        std::future::ready(answer(&request))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().fallback(handler);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (Url::parse(&url).unwrap(), log)
}

fn count(log: &Log, part: &str) -> usize {
    log.lock().unwrap().iter().filter(|(asked, _)| asked.contains(part)).count()
}

/// Repositories with their tags.
#[derive(Clone)]
struct Fake(Arc<BTreeMap<String, Vec<String>>>);

fn fake(repositories: &[(&str, &[&str])]) -> Fake {
    let all = repositories.iter().map(|(name, tags)| {
        let mut tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        tags.sort();
        ((*name).to_owned(), tags)
    });
    Fake(Arc::new(all.collect()))
}

fn digest_of(bytes: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes.as_bytes());
    format!("sha256:{}", hex(digest.as_ref()))
}

fn config(repository: &str, tag: &str) -> String {
    json!({
        "name": last(repository), "version": tag.replace('_', "+"), "apiVersion": "v2",
        "description": format!("{repository} at {tag}"), "appVersion": format!("app {tag}"),
        "keywords": ["web"], "maintainers": [{"name": "Ann", "email": "ann@example.com"}],
    })
    .to_string()
}

fn manifest(repository: &str, tag: &str) -> String {
    let config = config(repository, tag);
    let image = repository.starts_with("images/");
    let kind = if image { "application/vnd.oci.image.config.v1+json" } else { CONFIG };
    json!({
        "schemaVersion": 2,
        "config": {"mediaType": kind, "digest": digest_of(&config), "size": config.len()},
        "layers": [{"mediaType": CONTENT, "digest": digest_of(&format!("{repository} {tag}")),
            "size": 9}],
        "annotations": {"org.opencontainers.image.created": "2024-05-06T07:08:09Z"},
    })
    .to_string()
}

impl Fake {
    fn answer(&self, request: &Asked) -> Answer {
        let path = request.uri().path();
        if path == "/v2/_catalog" {
            let names: Vec<String> = self.0.keys().cloned().collect();
            return paged(request, "repositories", &names);
        }
        let Some((repository, what)) = parts(path) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let Some(tags) = self.0.get(repository) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        match what.split_once('/') {
            Some(("tags", _)) => paged(request, "tags", tags),
            Some(("manifests", tag)) => manifest(repository, tag).into_response(),
            Some((_, digest)) => {
                let mut configs = tags.iter().map(|tag| config(repository, tag));
                match configs.find(|config| digest_of(config) == digest) {
                    Some(config) => config.into_response(),
                    None => StatusCode::NOT_FOUND.into_response(),
                }
            }
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

/// The repository of a path, and what is asked of it.
fn parts(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v2/")?;
    let at = ["/tags/", "/manifests/", "/blobs/"].iter().find_map(|part| rest.find(part))?;
    Some((&rest[..at], &rest[at + 1..]))
}

fn paged(request: &Asked, key: &str, all: &[String]) -> Answer {
    let query = request.uri().query().unwrap_or_default();
    let pairs: BTreeMap<String, String> =
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let after = pairs.get("last");
    let rest: Vec<&String> =
        all.iter().filter(|one| after.is_none_or(|after| *one > after)).collect();
    let page = &rest[..rest.len().min(2)];
    let body = json!({ key: page }).to_string();
    match (rest.len() > 2, page.last()) {
        (true, Some(last)) => {
            let link = format!("<{}?last={last}&n=2>; rel=\"next\"", request.uri().path());
            ([(header::LINK, link)], body).into_response()
        }
        _ => body.into_response(),
    }
}

async fn listed(base: &Url, oci: Option<Oci>, before: &Catalogue) -> Result<Listed, BadListing> {
    let client = Client::new(&Policy::default().with_loopback(), None).unwrap();
    list(&client, base, oci.as_ref(), before).await
}

fn prefix(prefix: &str) -> Option<Oci> {
    Some(Oci { prefix: Some(prefix.to_owned()), ..Oci::default() })
}

fn only(names: &[&str]) -> Option<Oci> {
    let repositories = names.iter().map(|name| (*name).to_owned()).collect();
    Some(Oci { repositories, ..Oci::default() })
}

fn names(listed: &Listed) -> Vec<&str> {
    listed.catalogue.charts.iter().map(|chart| chart.name.as_str()).collect()
}

const NOTHING: Catalogue = Catalogue { charts: Vec::new() };

#[tokio::test]
async fn all_pages_of_repositories_are_read_and_images_are_left_out() {
    let fake = fake(&[
        ("charts/api", &["1.0.0"]),
        ("charts/db", &["0.1.0"]),
        ("charts/web", &["1.0.0", "latest"]),
        ("images/web", &["1.0.0"]),
        ("other/cache", &["3.0.0"]),
    ]);
    let (base, log) = serve(move |request| fake.answer(request)).await;
    let found = listed(&base, None, &NOTHING).await.unwrap();
    assert_eq!(names(&found), ["api", "cache", "db", "web"]);
    assert_eq!((found.skipped, count(&log, "_catalog")), (0, 3));
    let found = listed(&base, prefix("charts/"), &NOTHING).await.unwrap();
    assert_eq!(names(&found), ["api", "db", "web"]);
    let below = listed(&base.join("charts/").unwrap(), None, &NOTHING).await.unwrap();
    assert_eq!(below.catalogue, found.catalogue);
}

#[tokio::test]
async fn a_chart_tells_what_its_newest_stable_version_says_and_has_all_its_tags() {
    let tags = ["1.0.0", "1.1.0_build.5", "2.0.0-rc.1", "v0.9.0", "latest", "sha256-ab.sig"];
    let fake = fake(&[("charts/web", &tags)]);
    let (base, _) = serve(move |request| fake.answer(request)).await;
    let found = listed(&base, None, &NOTHING).await.unwrap();
    let chart = found.catalogue.find("web").unwrap();
    let versions: Vec<&str> = chart.versions.iter().map(|one| one.version.as_str()).collect();
    assert_eq!(versions, ["2.0.0-rc.1", "1.1.0+build.5", "1.0.0", "v0.9.0"]);
    assert_eq!(&*chart.description, "charts/web at 1.1.0_build.5");
    assert_eq!(&*chart.maintainers[0], "Ann");
    let newest = chart.best().unwrap();
    assert_eq!(newest.app_version.as_str(), "app 1.1.0_build.5");
    assert_eq!(newest.created, Some(1_714_979_289));
    assert_eq!(newest.digest, sha256(&digest_of("charts/web 1.1.0_build.5")));
    let url = format!("oci://{}/charts/web:1.1.0_build.5", base.authority());
    assert_eq!(newest.urls.first().unwrap(), url);
}

#[tokio::test]
async fn a_few_versions_are_looked_at_and_what_is_known_is_not_asked_for_again() {
    let mut tags: Vec<String> = (0..9).map(|minor| format!("1.{minor}.0")).collect();
    tags.extend((0..6).map(|number| format!("2.0.0-rc.{number}")));
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let fake = fake(&[("web", &tags)]);
    let (base, log) = serve(move |request| fake.answer(request)).await;
    let first = listed(&base, None, &NOTHING).await.unwrap();
    assert_eq!(first.catalogue.versions(), 15);
    assert_eq!(&*first.catalogue.find("web").unwrap().description, "web at 1.8.0");
    assert_eq!((count(&log, "/manifests/"), count(&log, "/blobs/")), (LOOKED_AT, LOOKED_AT));
    let second = listed(&base, None, &first.catalogue).await.unwrap();
    assert_eq!(second.catalogue, first.catalogue);
    assert_eq!((count(&log, "/manifests/"), count(&log, "/blobs/")), (2 * LOOKED_AT, LOOKED_AT));
}

#[tokio::test]
async fn a_single_chart_needs_no_list_of_the_registry() {
    let fake = fake(&[("org/charts/web", &["1.0.0"])]);
    let (base, log) = serve(move |request| fake.answer(request)).await;
    let found = listed(&base.join("org/charts/web/").unwrap(), None, &NOTHING).await.unwrap();
    assert_eq!(names(&found), ["web"]);
    assert_eq!(count(&log, "_catalog"), 0);
}

#[tokio::test]
async fn named_repositories_that_are_not_there_are_counted_unless_none_is() {
    let fake = fake(&[("charts/web", &["1.0.0"])]);
    let (base, log) = serve(move |request| fake.answer(request)).await;
    let base = base.join("charts/").unwrap();
    let found = listed(&base, only(&["web", "gone"]), &NOTHING).await.unwrap();
    assert_eq!((names(&found), found.skipped), (vec!["web"], 1));
    assert!(found.first.unwrap().contains("charts/gone"));
    let error = listed(&base, only(&["gone"]), &NOTHING).await.unwrap_err();
    assert!(matches!(error, BadListing::NotFound(..)), "{error}");
    assert_eq!(count(&log, "_catalog"), 0);
}

#[tokio::test]
async fn charts_of_one_name_are_told_apart_by_where_they_are() {
    let fake = fake(&[("a/web", &["1.0.0"]), ("b/web", &["2.0.0"]), ("b/api", &["1.0.0"])]);
    let (base, _) = serve(move |request| fake.answer(request)).await;
    let found = listed(&base, None, &NOTHING).await.unwrap();
    assert_eq!(names(&found), ["a/web", "api", "b/web"]);
}

#[tokio::test]
async fn a_registry_that_tells_no_list_is_told_of_with_what_helps() {
    let (base, _) = serve(|_| StatusCode::UNAUTHORIZED.into_response()).await;
    let error = listed(&base, None, &NOTHING).await.unwrap_err();
    assert!(matches!(error, BadListing::NoCatalog(..)), "{error}");
    assert!(error.to_string().contains("oci.repositories"), "{error}");
    let error = listed(&base.join("web/").unwrap(), None, &NOTHING).await.unwrap_err();
    assert!(matches!(error, BadListing::Denied(..)), "{error}");
}

#[tokio::test]
async fn a_registry_in_trouble_takes_no_chart_away() {
    let fake = fake(&[("api", &["1.0.0"]), ("web", &["1.0.0"])]);
    let answer = move |request: &Asked| match request.uri().path() {
        "/v2/web/tags/list" => StatusCode::TOO_MANY_REQUESTS.into_response(),
        _ => fake.answer(request),
    };
    let error = listed(&serve(answer).await.0, None, &NOTHING).await.unwrap_err();
    assert!(matches!(error, BadListing::Status(_, StatusCode::TOO_MANY_REQUESTS, _)), "{error}");
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let (base, log) = serve(|_| {
        let link = [(header::LINK, "</v2/_catalog?last=a>; rel=\"next\"")];
        (link, json!({"repositories": ["a"]}).to_string()).into_response()
    })
    .await;
    let error = listed(&base, None, &NOTHING).await.unwrap_err();
    assert!(matches!(error, BadListing::TooMany(..)), "{error}");
    assert_eq!(log.lock().unwrap().len(), PAGES);
}

/// One page of a list, and a link to more.
fn page_of(key: &str, names: Vec<String>) -> Answer {
    let link = [(header::LINK, "<?last=a>; rel=\"next\"")];
    (link, json!({ key: names }).to_string()).into_response()
}

#[tokio::test]
async fn a_list_that_is_too_long_is_given_up_at_once() {
    let (base, log) = serve(|request: &Asked| match request.uri().path() {
        "/v2/_catalog" => {
            page_of("repositories", (0..=CHARTS).map(|number| format!("c{number}")).collect())
        }
        _ => page_of("tags", (0..=TAGS).map(|number| format!("1.0.{number}")).collect()),
    })
    .await;
    let error = listed(&base, None, &NOTHING).await.unwrap_err();
    assert!(matches!(error, BadListing::TooMany(_, CHARTS, _)), "{error}");
    assert!(error.to_string().contains("5000 repositories"), "{error}");
    let error = listed(&base.join("web/").unwrap(), None, &NOTHING).await.unwrap_err();
    assert!(matches!(error, BadListing::TooMany(_, TAGS, _)), "{error}");
    assert!(error.to_string().contains("10000 tags"), "{error}");
    assert_eq!(log.lock().unwrap().len(), 2);
}

#[test]
fn of_what_a_chart_says_of_itself_a_bounded_part_is_kept() {
    let long = "ä".repeat(10_000);
    let told = json!({
        "appVersion": long, "description": long, "home": long, "icon": long,
        "keywords": vec![long.as_str(); 100],
        "maintainers": vec![json!({ "name": long }); 100],
    });
    let mut entry = Entry::default();
    serde_json::from_value::<Metadata>(told).unwrap().tell(&mut entry);
    for text in [&entry.description, &entry.home, &entry.icon] {
        assert_eq!((text.len(), text.capacity()), (TEXT, TEXT));
    }
    assert_eq!(entry.app_version.len(), WORD);
    for words in [&entry.keywords, &entry.maintainers] {
        assert_eq!(words.len(), WORDS);
        assert!(words.iter().all(|word| word.len() == WORD));
    }
    assert_eq!(short("aä".to_owned(), 2), "a");
}

/// The scope that a path needs, as the distribution registry has it.
fn scope(path: &str) -> String {
    match parts(path) {
        Some((repository, _)) => format!("repository:{repository}:pull"),
        None => "registry:catalog:*".to_owned(),
    }
}

fn challenge(realm: &str, scope: &str) -> Answer {
    let challenge = format!("Bearer realm=\"{realm}\",service=\"r\",scope=\"{scope}\"");
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
}

fn granted(request: &Asked) -> Answer {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let mut pairs = url::form_urlencoded::parse(query);
    let scope = pairs.find(|(key, _)| key == "scope").map(|(_, scope)| scope.into_owned());
    let token: Value = json!({ "token": format!("for-{}", scope.unwrap()) });
    token.to_string().into_response()
}

/// Gives nothing without a token from this address.
fn guarded(fake: &Fake, realm: &str, request: &Asked) -> Answer {
    let wanted = scope(request.uri().path());
    let token = request.headers().get(header::AUTHORIZATION);
    match token.map(|token| token.to_str().unwrap()) {
        Some(token) if token == format!("Bearer for-{wanted}") => fake.answer(request),
        _ => challenge(realm, &wanted),
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_for_each_scope() {
    let fake = fake(&[("api", &["1.0.0", "1.1.0", "1.2.0"]), ("web", &["1.0.0"])]);
    let answer = move |request: &Asked| {
        let host = request.headers()[header::HOST].to_str().unwrap();
        match request.uri().path() {
            "/token" => granted(request),
            _ => guarded(&fake, &format!("http://{host}/token"), request),
        }
    };
    let (base, log) = serve(answer).await;
    let found = listed(&base, None, &NOTHING).await.unwrap();
    assert_eq!(found.catalogue.versions(), 4);
    assert_eq!(count(&log, "/token?"), 3);
}

#[tokio::test]
async fn credentials_go_to_their_own_host_and_not_to_where_it_sends_for_tokens() {
    let (realm, elsewhere) = serve(granted).await;
    let fake = fake(&[("web", &["1.0.0"])]);
    let realm = realm.join("token").unwrap().to_string();
    let (base, log) = serve(move |request| guarded(&fake, &realm, request)).await;
    let credentials = Credentials {
        username: Some("me".into()),
        password: Some("hunter2".into()),
        host: base.authority().to_owned(),
        ..Credentials::default()
    };
    let client = Client::new(&Policy::default().with_loopback(), Some(credentials)).unwrap();
    let found = list(&client, &base, None, &NOTHING).await.unwrap();
    assert_eq!(names(&found), ["web"]);
    let basic = |log: &Log| {
        let log = log.lock().unwrap();
        log.iter().filter(|(_, sent)| sent.iter().any(|sent| sent.starts_with("Basic"))).count()
    };
    assert_eq!((basic(&log), basic(&elsewhere)), (2, 0));
    assert!(elsewhere.lock().unwrap().iter().all(|(_, sent)| sent.is_none()));
}
