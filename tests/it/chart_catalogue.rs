//! The catalogue as people read it: listed, searched, one chart with its versions and what of it is
//! installed, one version with all that is in its archive; how it changes with its repository, what
//! stays of it over a kill, and who sees which.
//!
//! It is NOT where repositories are made (`chart_repos.rs`), nor where servers lie
//! (`chart_hostile.rs`).

use std::convert::Infallible;
use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Method, header};
use serde_json::{Value, json};

use crate::chart_repos::{Shelf, says};
use crate::cluster::{self, Cluster};
use crate::helm_charts::made;
use crate::museum_server::{Asked, Pack, Pages, Site, Wants, index};
use crate::people::{Person, grant};
use crate::spawned::Binary;

const README: &str = "# Rose\n\n<script>alert(1)</script>\n\n[bad](javascript:alert(1)) \
                      [good](https://example.org/rose)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n";
const SCHEMA: &str = r#"{"type": "object", "properties": {"thorns": {"minimum": 3}}}"#;
const MAP: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {colour: {{ .Values.colour | quote }}}
";
const CRD: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n";
const ICON: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\">\
                    <script>alert(1)</script><circle r=\"4\"/></svg>";

fn rose(version: &str) -> Pack {
    let files = [
        ("README.md", README),
        ("values.yaml", "# of the petals\ncolour: red\n"),
        ("values.schema.json", SCHEMA),
        ("templates/map.yaml", MAP),
        ("crds/garden.yaml", CRD),
    ];
    let about = "description: A flower with thorns\nkeywords: [garden, love]\n\
                 maintainers:\n- name: Gertrude Jekyll\n  email: g@example.org\n\
                 icon: https://ICONS/rose.svg\nhome: https://example.org/rose";
    Pack::new("rose", version, &files).about(about)
}

fn flowers() -> Vec<Pack> {
    let about = "description: Grows where it likes\nkeywords: [meadow]\nicon: https://ICONS/icon";
    let gone = "description: Grows no more\ndeprecated: true";
    vec![
        rose("1.2.0"),
        rose("2.0.0-rc.1"),
        rose("1.10.0"),
        rose("1.9.3"),
        Pack::new("rosemary", "0.3.0", &[]).about("description: An herb"),
        Pack::new("chrysanthemum", "v1.4", &[]).about(about),
        Pack::new("silphium", "9.0.0", &[]).about(gone),
    ]
}

/// The names of a list, in its order.
fn names(list: &Value) -> Vec<&str> {
    let charts = list["charts"].as_array().unwrap_or_else(|| panic!("{list}"));
    charts.iter().map(|chart| chart["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn charts_are_listed_found_and_told_with_all_that_is_in_them() {
    let pages = Pages::of("", &flowers());
    let site = Site::of(None, Wants::Nothing, &pages).await;
    let text = index(&flowers()).replace("https://ICONS", &site.url("/icons"));
    pages.put("/index.yaml", "application/yaml", text);
    pages.put("/icons/rose.svg", "text/plain", ICON);
    pages.put("/icons/icon", "text/html", "<html><script>alert(1)</script></html>");
    let shelf = Shelf::open("charts-read", &[&site]).await;
    let name = shelf.create("flowers", json!({"type": "index", "url": site.url("/")})).await;

    let all = shelf.charts(&name).await;
    assert_eq!(all, ["chrysanthemum v1.4", "rose 1.10.0", "rosemary 0.3.0"]);
    for (query, wanted) in [
        ("deprecated=true&sortBy=d,name", "silphium rosemary rose chrysanthemum of 4"),
        ("sortBy=a,name&itemsPerPage=1&page=2", "rose of 3"),
        ("filterBy=name,mary", "rosemary of 1"),
        ("q=rose", "rose rosemary of 2"),
        ("q=ROSEMARY", "rosemary of 1"),
        ("q=crysantemum", "chrysanthemum of 1"),
        ("q=love", "rose of 1"),
        ("q=jekyll", "rose of 1"),
        ("q=likes", "chrysanthemum of 1"),
        ("q=garden%20thorns", "rose of 1"),
        ("q=tractor", " of 0"),
        ("q=silphium", " of 0"),
        ("q=silphium&deprecated=true", "silphium of 1"),
    ] {
        let list = shelf.read(&format!("chart?repository={name}&{query}")).await;
        let found = format!("{} of {}", names(&list).join(" "), list["listMeta"]["totalItems"]);
        assert_eq!(found, wanted, "{query}: {list}");
    }
    let list = shelf.read(&format!("chart?repository={name}&q=rose&itemsPerPage=1&page=1")).await;
    let row = &list["charts"][0];
    assert_eq!((&row["version"], &row["latest"]), (&json!("1.10.0"), &json!("2.0.0-rc.1")));
    assert_eq!((&row["versions"], &row["repository"]), (&json!(4), &json!(name)));
    assert_eq!(row["appVersion"], "2.0", "{row}");

    assert_eq!(shelf.versions(&name, "rose").await, ["2.0.0-rc.1", "1.10.0", "1.9.3", "1.2.0"]);
    let chart = shelf.read(&format!("chart/{name}/rose")).await;
    assert_eq!([&chart["latest"], &chart["latestStable"]], ["2.0.0-rc.1", "1.10.0"]);
    one_version(&shelf, &name, &site).await;
    icons(&shelf, &name).await;
    for path in [format!("chart/{name}/tulip"), format!("chart/{name}/rose/7")] {
        let answer = shelf.get(&path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
    shelf.close().await;
}

async fn one_version(shelf: &Shelf, name: &str, site: &Site) {
    let pack = rose("1.10.0");
    let at = format!("chart/{name}/rose/1.10.0");
    let detail = shelf.read(&at).await;
    assert_eq!(detail["metadata"]["appVersion"], "2.0", "{detail}");
    assert_eq!(detail["readme"]["raw"], README);
    let html = detail["readme"]["html"].as_str().unwrap();
    assert!(html.contains("<h1") && html.contains("<table>"), "{html}");
    assert!(html.contains("href=\"https://example.org/rose\""), "{html}");
    assert!(!html.contains("<script") && !html.contains("\"javascript:"), "{html}");
    assert_eq!(detail["values"], "# of the petals\ncolour: red\n");
    assert!(detail["schema"].to_string().contains("thorns"), "{detail}");
    assert!(detail["templates"].to_string().contains("templates/map.yaml"), "{detail}");
    assert!(detail["crds"].to_string().contains("crds/garden.yaml"), "{detail}");
    let told = detail["digest"].as_str().unwrap();
    assert_eq!(told.trim_start_matches("sha256:"), pack.digest);
    assert_eq!(detail["signature"]["state"], "none", "{detail}");
    let answer = shelf.get(&format!("{at}/archive")).await;
    assert_eq!((answer.status, &answer.body), (200, &pack.bytes));
    assert_eq!(answer.header("content-type"), "application/gzip");
    // It was kept: one look for all.
    let archive = |asked: &&Asked| asked.target == "/charts/rose-1.10.0.tgz";
    assert_eq!(site.asked().iter().filter(archive).count(), 1);
}

async fn icons(shelf: &Shelf, name: &str) {
    let answer = shelf.get(&format!("chart/{name}/rose/1.10.0/icon")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("content-type").starts_with("image/svg+xml"));
    assert!(answer.text().contains("<circle"), "{}", answer.text());
    assert!(!answer.text().contains("script") && !answer.text().contains("onload"));
    let policy = answer.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("sandbox"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let answer = shelf.get(&format!("chart/{name}/chrysanthemum/v1.4/icon")).await;
    assert!(answer.status >= 400 && answer.status != 500, "a page as an icon: {}", answer.status);
    assert!(!answer.text().contains("<script"), "{}", answer.text());
    let answer = shelf.get(&format!("chart/{name}/rosemary/0.3.0/icon")).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
}

#[tokio::test]
async fn what_is_new_is_taken_and_what_is_broken_leaves_the_old() {
    let packs = [rose("1.2.0")];
    let pages = Pages::of("", &packs);
    let site = Site::of(None, Wants::Nothing, &pages).await;
    let shelf = Shelf::open("charts-new", &[&site]).await;
    let name = shelf.create("flowers", json!({"type": "index", "url": site.url("/")})).await;
    let first = shelf.status(&name).await;
    let status = shelf.refresh(&name, &site).await;
    assert_eq!((&status["state"], &status["digest"]), (&json!("ok"), &first["digest"]));
    let asked = site.asked().into_iter().filter(|asked| asked.target == "/index.yaml");
    let last = asked.last().unwrap();
    assert!(last.headers.contains_key(header::IF_NONE_MATCH), "{:?}", last.headers);

    let more = index(&[rose("1.2.0"), rose("1.3.0"), Pack::new("sage", "1.0.0", &[])]);
    // One entry is no chart, one is no version: both cost themselves alone.
    let bad = "  broken: [1, {}]\n  sage:\n  - {name: sage, version: x}\n";
    let more = more.replace("  sage:\n", bad);
    pages.put("/index.yaml", "application/yaml", more.clone());
    let status = shelf.refresh(&name, &site).await;
    assert_eq!(status["state"], "ok", "{status}");
    assert!(status["skipped"].as_u64().is_some_and(|count| count >= 2), "{status}");
    assert_eq!(shelf.charts(&name).await, ["rose 1.3.0", "sage 1.0.0"]);

    for broken in [more[..more.len() / 2].to_owned() + "\n\"", "<html>".into(), String::new()] {
        pages.put("/index.yaml", "application/yaml", broken.clone());
        let status = shelf.refresh(&name, &site).await;
        assert_eq!(status["state"], "failing", "{broken}: {status}");
        says(status["error"].as_str().unwrap(), &[" "]);
        assert!(status["lastSuccess"].is_string(), "{status}");
        assert_eq!(shelf.charts(&name).await, ["rose 1.3.0", "sage 1.0.0"], "{broken}");
    }
    // JSON is YAML, too.
    let entry = json!({"name": "sage", "version": "2.0.0", "urls": ["sage-2.0.0.tgz"]});
    let text = json!({"apiVersion": "v1", "entries": {"sage": [entry]}}).to_string();
    pages.put("/index.yaml", "application/yaml", text);
    let status = shelf.refresh(&name, &site).await;
    assert_eq!((&status["state"], &status["error"]), (&json!("ok"), &Value::Null), "{status}");
    assert_eq!(shelf.charts(&name).await, ["sage 2.0.0"]);
    shelf.close().await;
}

#[tokio::test]
async fn releases_of_a_chart_are_told_to_who_may_see_them_with_what_is_newer() {
    // No other test installs a chart of this name.
    let pack = |version: &str| {
        let files = [("templates/map.yaml", MAP), ("values.yaml", "colour: blue\n")];
        Pack::new("cornflower", version, &files)
    };
    let packs = [pack("1.0.0"), pack("1.1.0"), pack("2.0.0-beta")];
    let site = Site::of(None, Wants::Nothing, &Pages::of("", &packs)).await;
    let shelf = Shelf::open("charts-used", &[&site]).await;
    let name = shelf.create("flowers", json!({"type": "index", "url": site.url("/")})).await;
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("charts-using").await;
    for (release, pack) in [("old", &packs[0]), ("young", &packs[1])] {
        let args = ["install", release, "chart.tgz", "-n", &namespace];
        made(4, shelf.token, &pack.bytes, &args).await;
    }
    let path = format!("chart/{name}/cornflower");
    let wanted = ["old 1.0.0 \"1.1.0\"".to_owned(), "young 1.1.0 null".to_owned()];
    let is_so = || async {
        let chart = shelf.read(&path).await;
        let told = chart["releases"].as_array().unwrap_or_else(|| panic!("{chart}")).iter();
        let told = told.map(|one| {
            assert_eq!(one["namespace"], namespace.as_str(), "{chart}");
            let part = |key: &str| one[key].as_str().unwrap().to_owned();
            format!("{} {} {}", part("name"), part("version"), one["update"])
        });
        told.collect::<Vec<_>>() == wanted
    };
    Cluster::eventually("both releases are told", is_so).await;

    let reader = Person::new(cluster, &shelf.namespace, "reader").await;
    let map = format!("binnacle.repository.{name}");
    grant(cluster, Some(&shelf.namespace), "reader", reader.subject.clone(), reading(&map)).await;
    let answer = shelf.by(&reader.token).get(&path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["releases"], json!([]), "{}", answer.text());
    shelf.close().await;
}

/// Who may read the repository of this ConfigMap.
fn reading(map: &str) -> Value {
    json!([{
        "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": [map],
    }])
}

#[tokio::test]
async fn a_repository_is_read_by_who_may_get_its_map_and_changed_by_who_may_update_it() {
    let site = Site::of(None, Wants::Nothing, &Pages::of("", &flowers())).await;
    let shelf = Shelf::open("charts-rights", &[&site]).await;
    let definition = json!({"type": "index", "url": site.url("/")});
    let name = shelf.create("flowers", definition.clone()).await;
    let other = shelf.create("others", definition.clone()).await;
    let (cluster, home) = (cluster::shared().await, shelf.namespace.clone());
    let map = format!("binnacle.repository.{name}");
    let person = async |who: &str, rules: Value| {
        let person = Person::new(cluster, &home, who).await;
        grant(cluster, Some(&home), who, person.subject.clone(), rules).await;
        person
    };
    let reader = person("reader", reading(&map)).await;
    let keeper = json!([{
        "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "update"],
        "resourceNames": [map],
    }]);
    let keeper = person("keeper", keeper).await;
    let stranger = person("stranger", reading("something-else")).await;
    let at = |rest: &str| format!("repository/{name}{rest}");
    let detail = format!("chart/{name}/rose/1.2.0");

    for person in [&reader, &keeper] {
        let hand = shelf.by(&person.token);
        for path in [at(""), detail.clone(), format!("{detail}/archive")] {
            let answer = hand.get(&path).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
        let all = hand.get("repository").await.text();
        assert!(all.contains(&name) && !all.contains(&other), "{all}");
        let all = hand.get("chart").await;
        assert_eq!(names(&all.json()).len(), 3, "{}", all.text());
        let answer = hand.get(&format!("chart/{other}/rose")).await;
        assert!(matches!(answer.status, 403 | 404), "{}", answer.text());
    }
    let mine = shelf.by(&stranger.token);
    for path in [at(""), detail.clone(), format!("{detail}/archive"), format!("{detail}/icon")] {
        let answer = mine.get(&path).await;
        assert!(matches!(answer.status, 403 | 404), "{path}: {}", answer.text());
    }
    assert!(!mine.get("repository").await.text().contains(&name));
    let list = mine.get(&format!("chart?repository={name}")).await.json();
    assert_eq!(list["listMeta"]["totalItems"], 0, "{list}");

    let mut body = definition;
    body["name"] = name.as_str().into();
    for token in [&reader.token, &stranger.token] {
        let hand = shelf.by(token);
        for (method, path) in [
            (Method::POST, at("/refresh")),
            (Method::PUT, at("")),
            (Method::DELETE, at("")),
            (Method::POST, "repository".into()),
        ] {
            let answer = hand.send(method.clone(), &path, &[], &body).await;
            let refused = matches!(answer.status, 403 | 404);
            assert!(refused, "{method} {path}: {}: {}", answer.status, answer.text());
        }
    }
    let keeper = shelf.by(&keeper.token);
    let answer = keeper.send(Method::POST, &at("/refresh"), &[], &json!({})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    for path in ["/api/v1/repository".to_owned(), format!("/api/v1/{detail}")] {
        let answer = shelf.gateway.request(Method::GET, None, &path, &[], Vec::new()).await;
        assert!(matches!(answer.status, 401 | 403), "{path}: {}", answer.text());
    }
    shelf.close().await;
}

/// A binary with this state, which looks for repositories where those of the shelf are.
pub async fn binary(folder: &Path, shelf: &Shelf, site: &str) -> Binary {
    let kubeconfig = cluster::shared().await.kubeconfig("admin");
    let mut args = vec!["--shared-cache=false", "--chart-hosts", site, "--kubeconfig"];
    args.push(kubeconfig.to_str().unwrap());
    args.extend(["--settings-namespace", &shelf.namespace]);
    Binary::start(folder, &args).await
}

/// A body that stalls in its middle, and tells when it has come there.
fn half(text: &str, stalls: Arc<AtomicBool>, is_there: Arc<AtomicBool>) -> Response {
    let mut first = Bytes::copy_from_slice(text.as_bytes());
    let second = first.split_off(text.len() / 2);
    let second = async move {
        is_there.store(true, Ordering::SeqCst);
        while stalls.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, Infallible>(second)
    };
    let body = stream::once(ready(Ok(first))).chain(stream::once(second));
    ([(header::CONTENT_LENGTH, text.len())], Body::from_stream(body)).into_response()
}

#[tokio::test]
async fn killed_while_it_refreshes_it_answers_with_the_old_catalogue_at_once() {
    let pages = Pages::of("", &flowers());
    let herbs: Vec<_> =
        (0..40).map(|number| Pack::new(&format!("herb-{number}"), "1.0.0", &[])).collect();
    let (stalls, halved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (served, stalled, is_there) = (pages.clone(), stalls.clone(), halved.clone());
    let text = index(&herbs);
    let new = text.clone();
    let site = Site::start(None, move |request: Request| {
        ready(match stalled.load(Ordering::SeqCst) {
            true => half(&new, stalled.clone(), is_there.clone()),
            false => served.answer(&request),
        })
    });
    let site = site.await;
    let shelf = Shelf::open("charts-kill", &[&site]).await;
    let name = shelf.create("flowers", json!({"type": "index", "url": site.url("/")})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut first = binary(folder.path(), &shelf, &site.host()).await;
    let count = async |binary: &Binary| {
        let answer = binary.get(&format!("/api/v1/chart?repository={name}"), shelf.token).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["listMeta"]["totalItems"].as_u64()
    };
    let is_read = || async { count(&first).await == Some(3) };
    Cluster::eventually("the binary has the catalogue", is_read).await;
    let has_snapshot = || async {
        let all = walk(folder.path());
        all.iter().any(|path| path.ends_with(".snapshot"))
    };
    Cluster::eventually("the snapshot is written", has_snapshot).await;
    stalls.store(true, Ordering::SeqCst);
    let path = format!("repository/{name}/refresh");
    let refresh = async |binary: &Binary| {
        let answer = binary.send(Method::POST, &path, shelf.token, "", "{}").await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text());
    };
    refresh(&first).await;
    let is_half_done = || async {
        let answer = first.get(&format!("/api/v1/repository/{name}"), shelf.token).await;
        halved.load(Ordering::SeqCst) && answer.json()["status"]["state"] == "refreshing"
    };
    Cluster::eventually("half of the new index was sent", is_half_done).await;
    first.kill().await;

    let mut second = binary(folder.path(), &shelf, &site.host()).await;
    let is_there = || async { count(&second).await == Some(3) };
    Cluster::eventually("the snapshot is served while the site stalls", is_there).await;
    pages.put("/index.yaml", "application/yaml", text);
    stalls.store(false, Ordering::SeqCst);
    refresh(&second).await;
    let is_new = || async { count(&second).await == Some(40) };
    Cluster::eventually("the new index is read as a whole", is_new).await;
    second.kill().await;
    shelf.close().await;
}

/// The paths of all files below.
pub fn walk(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => all.extend(walk(&path)),
            path => all.push(path.display().to_string()),
        }
    }
    all
}
