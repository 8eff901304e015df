//! Charts that need others, with the real helm: found in the caller's repositories by range,
//! address and name, packed into the chart and installed with it; or told before anything is made.
//! And the air gap, beyond which nobody is asked for anything.
//!
//! It is NOT where versions of the chart itself are chosen (`chart_installs.rs`), nor where
//! addresses that are refused without an air gap are shown (`chart_hostile.rs`).

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::chart_repos::{Shelf, says};
use crate::cluster::{self, Cluster};
use crate::helm_charts::{Hand, archive, packed};
use crate::museum_server::{Pack, Pages, Site, Wants, index};
use crate::people::{Person, grant};
use crate::writes::live;

/// Its name tells the alias that helm has given it.
const MAP: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: '{{ .Release.Name }}-{{ .Chart.Name }}'}
data: {version: {{ .Chart.Version | quote }}}
";

fn moss(version: &str) -> Pack {
    Pack::new("moss", version, &[("templates/map.yaml", MAP)])
}

fn mosses() -> Vec<Pack> {
    ["1.2.0", "1.10.0", "2.0.0", "3.0.0-rc.1"].map(moss).to_vec()
}

/// A chart with these dependencies, each a line of YAML without its name.
fn arbor(dependencies: &[String]) -> Vec<u8> {
    let lines = dependencies.iter().map(|line| format!("- {{name: moss, {line}}}\n"));
    let lines: String = lines.collect();
    let about = format!("apiVersion: v2\nname: arbor\nversion: 0.1.0\ndependencies:\n{lines}");
    let files = [("arbor/Chart.yaml", about.as_str()), ("arbor/templates/map.yaml", MAP)];
    packed(&files.map(|(path, text)| (path, text.as_bytes())))
}

fn body(dependencies: &[String]) -> Value {
    json!({"chart": archive(&arbor(dependencies))})
}

/// The version of a chart in a release, as its ConfigMap has it.
async fn version(namespace: &str, name: &str) -> Option<String> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
    let map = live(cluster::shared().await, &path).await?;
    map["data"]["version"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn what_a_chart_needs_is_fetched_and_installed_with_it() {
    let pages = Pages::of("/stable", &mosses());
    let site = Site::of(None, Wants::Nothing, &pages).await;
    let shelf = Shelf::open("needs", &[&site]).await;
    // It needs the other one by the name of its repository, which nobody knows before.
    let named = shelf.name("beds");
    let line = |range: &str| format!("version: '{range}', repository: '@{named}'");
    let pack = Pack::archived("arbor", "0.1.0", arbor(&[line("~1.2")]));
    let all = [mosses(), vec![pack.clone()]].concat();
    pages.put("/stable/index.yaml", "application/yaml", index(&all));
    pages.put("/stable/charts/arbor-0.1.0.tgz", "application/gzip", pack.bytes.clone());
    let name = shelf.create("beds", json!({"type": "index", "url": site.url("/stable")})).await;
    assert_eq!(name, named);
    let hand = shelf.hand();
    let space = shelf.namespace.as_str();

    let address = format!("repository: '{}'", site.url("/stable/"));
    let by_range = body(&[format!("version: ^1, {address}, condition: moss.enabled")]);
    let mut asked = by_range.clone();
    asked["act"] = "install".into();
    let path = format!("{}/preview", hand.at("first"));
    let answer = hand.send(Method::POST, &path, &[], &asked).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let objects = answer.json()["objects"].clone();
    let names: Vec<_> = objects.as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert!(names.contains(&json!("first-moss")), "{names:?}");
    assert_eq!(version(space, "first-moss").await, None);

    hand.succeeds("install", "first", by_range.clone()).await;
    assert_eq!(version(space, "first-moss").await.as_deref(), Some("1.10.0"));
    assert_eq!(version(space, "first-arbor").await.as_deref(), Some("0.1.0"));
    let mut without = by_range;
    without["values"] = json!({"moss": {"enabled": false}});
    hand.succeeds("upgrade", "first", without).await;
    assert_eq!(version(space, "first-moss").await, None);

    let by_name = json!({"chart": {"repository": name, "name": "arbor", "version": "0.1.0"}});
    hand.succeeds("install", "second", by_name).await;
    assert_eq!(version(space, "second-moss").await.as_deref(), Some("1.2.0"));

    let aliases = ["left", "right"].map(|alias| format!("version: 2.x, {address}, alias: {alias}"));
    hand.succeeds("install", "third", body(&aliases)).await;
    for alias in ["third-left", "third-right"] {
        assert_eq!(version(space, alias).await.as_deref(), Some("2.0.0"), "{alias}");
    }
    for file in ["moss-1.10.0", "moss-1.2.0", "moss-2.0.0"] {
        let path = format!("/stable/charts/{file}.tgz");
        assert_eq!(site.count(&Method::GET, &path), 1, "{file}");
    }
    refused(&hand, &site, &name).await;
    shelf.close().await;
}

/// What cannot be completed is told before anything is made.
async fn refused(hand: &Hand<'_>, site: &Site, name: &str) {
    let before = site.count(&Method::GET, "/stable/charts/");
    let at = |repository: &str, range: &str| {
        body(&[format!("version: '{range}', repository: '{repository}'")])
    };
    let own = format!("@{name}");
    for (what, body, words) in [
        ("unknown address", at(&site.url("/other"), "^1"), vec!["/other", "may read", "configure"]),
        ("unknown name", at("@nowhere", "^1"), vec!["@nowhere", "may read"]),
        ("no version", at(&own, ">=7"), vec![">=7", "2.0.0, 1.10.0, 1.2.0", name]),
        ("no range", at(&own, "the newest"), vec!["the newest"]),
        ("no version told", at(&own, ""), vec!["helm wants one"]),
        ("not packed", at("", "^1"), vec!["helm dependency build"]),
        ("a folder", at("file://../moss", "^1"), vec!["file://../moss", "helm dependency build"]),
    ] {
        let answer = hand.act("install", "none", &[], body).await;
        let text = answer.text();
        assert_eq!(answer.status, 400, "{what}: {text}");
        assert!(text.contains("arbor") && text.contains("moss"), "{what}: {text}");
        for word in words {
            assert!(text.contains(word), "{what}: no {word:?} in {text}");
        }
    }
    assert_eq!(hand.status("none").await, "");
    assert_eq!(version(hand.namespace, "none-arbor").await, None);
    assert_eq!(site.count(&Method::GET, "/stable/charts/"), before);
}

#[tokio::test]
async fn what_a_chart_needs_comes_from_no_repository_that_its_caller_may_not_read() {
    let site = Site::of(None, Wants::Nothing, &Pages::of("", &mosses())).await;
    let shelf = Shelf::open("needs-rights", &[&site]).await;
    let name = shelf.create("beds", json!({"type": "index", "url": site.url("/")})).await;
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("needs-person").await;
    let person = Person::new(cluster, &namespace, "person").await;
    let all = json!([{"apiGroups": [""], "verbs": ["*"], "resources": ["secrets", "configmaps"]}]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), all).await;
    let hand = Hand { namespace: &namespace, ..shelf.by(&person.token) };
    for repository in [site.url("/"), format!("@{name}")] {
        let body = body(&[format!("version: ^1, repository: '{repository}'")]);
        let answer = hand.act("install", "mine", &[], body).await;
        let text = answer.text();
        assert_eq!(answer.status, 400, "{text}");
        says(&text, &["no configured repository that you may read"]);
    }
    assert_eq!(site.count(&Method::GET, "/charts/"), 0);
    assert_eq!(hand.status("mine").await, "");

    let map = format!("binnacle.repository.{name}");
    let rules = json!([{
        "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": [map],
    }]);
    grant(cluster, Some(&shelf.namespace), "reader", person.subject.clone(), rules).await;
    let may = || async { hand.get(&format!("chart/{name}/moss")).await.status == 200 };
    Cluster::eventually("the person may read the repository", may).await;
    let body = body(&[format!("version: ^1, repository: '{}'", site.url(""))]);
    hand.succeeds("install", "mine", body).await;
    assert_eq!(version(&namespace, "mine-moss").await.as_deref(), Some("1.10.0"));
    shelf.close().await;
}

/// A server that leads to another one, but for one chart of its own.
async fn leading(elsewhere: String) -> Site {
    let own = moss("1.2.0");
    let far = Pack::new("fern", "1.0.0", &[("templates/map.yaml", MAP)]);
    let near = Pack::new("ivy", "1.0.0", &[("templates/map.yaml", MAP)]);
    let text = index(&[own.clone(), far, near]);
    let text = text.replace("charts/fern-1.0.0.tgz", &format!("{elsewhere}/fern-1.0.0.tgz"));
    let challenge = format!("Bearer realm=\"{elsewhere}/token\",service=\"registry\"");
    let moved = move |path: &str| -> Response {
        let to = format!("{elsewhere}{path}");
        (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
    };
    Site::start(None, move |request: Request| {
        let path = request.uri().path();
        let answer = match path {
            "/index.yaml" => text.clone().into_response(),
            "/charts/moss-1.2.0.tgz" => own.bytes.clone().into_response(),
            "/v2/token/tags/list" => {
                let headers = [(header::WWW_AUTHENTICATE, challenge.clone())];
                (StatusCode::UNAUTHORIZED, headers).into_response()
            }
            _ => moved(path),
        };
        std::future::ready(answer)
    })
    .await
}

#[tokio::test]
async fn beyond_the_air_gap_nobody_is_asked_for_anything() {
    let spy = Site::of(None, Wants::Nothing, &Pages::of("", &mosses())).await;
    let site = leading(spy.url("")).await;
    let namespace = cluster::shared().await.namespace("gap").await;
    let gap = "--charts-air-gapped";
    let shelf = Shelf::within(&namespace, &[&site], &[gap]).await;
    let name = shelf.create("near", json!({"type": "index", "url": site.url("/")})).await;
    let hand = shelf.hand();

    let moved = json!({"type": "index", "url": site.url("/moved")});
    let moved = shelf.define("moved", moved).await;
    let oci = json!({"repositories": ["token"]});
    let token = json!({"type": "oci", "url": format!("oci://{}", site.address), "oci": oci});
    let token = shelf.define("token", token).await;
    for name in [&moved, &token] {
        let status = shelf.until(name, "failing").await;
        says(status["error"].as_str().unwrap(), &[gap]);
    }
    for chart in ["fern", "ivy"] {
        let body = json!({"chart": {"repository": name, "name": chart, "version": "1.0.0"}});
        let answer = hand.act("install", chart, &[], body).await;
        assert!(answer.status >= 400 && answer.status != 500, "{chart}: {}", answer.text());
        says(&answer.text(), &[gap]);
        let answer = hand.get(&format!("chart/{name}/{chart}/1.0.0")).await;
        assert!(answer.status >= 400 && answer.status != 500, "{chart}: {}", answer.text());
    }
    let reference = format!("oci://{}/charts/moss:1.2.0", spy.address);
    let answer = hand.act("install", "oci", &[], json!({"chart": {"oci": reference}})).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    says(&answer.text(), &[gap]);
    // What is not known of a repository that fails may be there another time.
    let needs = body(&[format!("version: ^1, repository: '@{moved}'")]);
    let answer = hand.act("install", "needs", &[], needs).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    let needs = body(&[format!("version: ^1, repository: '{}'", spy.url(""))]);
    let answer = hand.act("install", "needs", &[], needs).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(spy.asked().len(), 0, "somebody was led beyond the gap");

    let needs = body(&[format!("version: ^1, repository: '@{name}'")]);
    hand.succeeds("install", "near", needs).await;
    assert_eq!(version(&namespace, "near-moss").await.as_deref(), Some("1.2.0"));
    shelf.close().await;
}
