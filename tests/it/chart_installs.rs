//! Releases from the catalogue with the real helm: a version by its range, values that do not fit,
//! archives that are fetched once, and nobody else's repositories. And schemas that lead elsewhere.
//!
//! It is NOT where what helm makes of an act is told (`release_writes.rs`), nor where a registry is
//! installed from (`registries.rs`).

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::chart_repos::{Shelf, says};
use crate::cluster::{self, Cluster};
use crate::gateway;
use crate::helm_charts::{BOTH, Hand, archive, chart, helm, options, packed};
use crate::museum_server::{Authority, Pack, Pages, Site, Wants};
use crate::people::{Person, grant};
use crate::writes::live;

const PAIR: &str = "reader:pw-of-a-reader";
const MAP: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {petals: {{ .Values.petals | quote }}, version: {{ .Chart.Version | quote }}}
";
const SCHEMA: &str = r#"{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
"properties": {"petals": {"type": "integer", "minimum": 1}}}"#;

// No other test installs a chart of this name.
fn lily(version: &str) -> Pack {
    let files = [
        ("templates/map.yaml", MAP),
        ("values.yaml", "petals: 6\n"),
        ("values.schema.json", SCHEMA),
    ];
    Pack::new("lily", version, &files)
}

fn lilies() -> Vec<Pack> {
    ["1.2.0", "1.10.0", "2.0.0", "2.1.0-rc.1", "0.9.0"].map(lily).to_vec()
}

/// A chart as a body of ours names it.
fn wanted(repository: &str, version: &str) -> Value {
    json!({"chart": {"repository": repository, "name": "lily", "version": version}})
}

#[tokio::test]
async fn a_version_is_chosen_by_its_range_and_is_what_helm_installs() {
    let authority = Authority::new();
    let pages = Pages::of("/stable", &lilies());
    let site = Site::of(Some(authority.server(false)), Wants::Basic(PAIR), &pages).await;
    let shelf = Shelf::open("installs", &[&site]).await;
    let credentials =
        json!({"username": "reader", "password": "pw-of-a-reader", "ca": authority.pem});
    let definition =
        json!({"type": "index", "url": site.url("/stable"), "credentials": credentials});
    let name = shelf.create("flowers", definition).await;
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("installs-range").await;
    let hand = Hand { namespace: &namespace, ..shelf.hand() };
    let each = [
        ("caret", "^1", "1.10.0"),
        ("tilde", "~1.2", "1.2.0"),
        ("below", "<1", "0.9.0"),
        ("stable", "", "2.0.0"),
        ("exact", "2.1.0-rc.1", "2.1.0-rc.1"),
        ("hyphen", "1.0 - 1.5", "1.2.0"),
    ];
    join_all(each.map(|(release, range, version)| {
        let name = &name;
        async move {
            let operation = hand.succeeds("install", release, wanted(name, range)).await;
            assert_eq!(operation["status"], "deployed", "{range}: {operation}");
            let rows = hand.rows().await;
            assert_eq!(rows[release][2], format!("lily-{version}"), "{range}");
        }
    }))
    .await;
    hand.succeeds("upgrade", "below", wanted(&name, ">=1.0, <2")).await;
    assert_eq!(hand.rows().await["below"][2], "lily-1.10.0");
    hand.agrees_with_helm(4, "from the catalogue").await;
    // Several at once, and one fetch.
    assert_eq!(site.count(&Method::GET, "/stable/charts/lily-1.10.0.tgz"), 1);

    let uses = || async {
        let chart = shelf.read(&format!("chart/{name}/lily")).await;
        let of_us = |one: &&Value| one["namespace"] == namespace.as_str();
        let all: Vec<_> = chart["releases"].as_array().unwrap().iter().filter(of_us).collect();
        let update = |release: &str| {
            let found = all.iter().find(|one| one["name"] == release);
            found.map(|one| one["update"].clone())
        };
        all.len() == each.len()
            && update("caret") == Some(json!("2.0.0"))
            && update("stable") == Some(Value::Null)
    };
    Cluster::eventually("the chart tells its releases", uses).await;
    refused(&hand, &name).await;
    shelf.close().await;
}

/// What cannot be chosen, or does not fit.
async fn refused(hand: &Hand<'_>, name: &str) {
    let twice = json!({"chart": {"repository": name, "name": "lily", "oci": "oci://a.org/b:1"}});
    for (what, body, words) in [
        ("no such version", wanted(name, "7.7.7"), "7.7.7|version"),
        ("no version in the range", wanted(name, ">=3"), "version"),
        ("no range", wanted(name, "newest please"), "version|range"),
        ("no such repository", wanted("nowhere", "^1"), "repository"),
        ("no chart", json!({"chart": {"repository": name, "version": "1"}}), "chart|name"),
        ("no repository", json!({"chart": {"name": "lily"}}), "chart|repository"),
        ("two sources", twice, "chart"),
    ] {
        let answer = hand.act("install", "none", &[], body).await;
        let (status, text) = (answer.status, answer.text());
        assert!(matches!(status, 400 | 404 | 422), "{what}: {status}: {text}");
        says(&text, &words.split('|').collect::<Vec<_>>());
    }
    // What the values are wrong at is told by its path before anything is made …
    let mut body = wanted(name, "^1");
    body["values"] = json!({"petals": 0});
    body["act"] = "install".into();
    let path = format!("{}/preview", hand.at("none"));
    let answer = hand.send(Method::POST, &path, &[], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let errors = answer.json()["schemaErrors"].clone();
    assert!(errors.to_string().contains("petals"), "{}", answer.text());
    // … and by whoever tries nevertheless.
    body.as_object_mut().unwrap().remove("act");
    let ended = hand.done("install", "none", body).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    assert!(ended.to_string().contains("petals"), "{ended}");
    assert_eq!(hand.status("none").await, "");
}

#[tokio::test]
async fn a_repository_serves_those_alone_who_may_read_it() {
    let site = Site::of(None, Wants::Nothing, &Pages::of("", &lilies())).await;
    let shelf = Shelf::open("installs-rights", &[&site]).await;
    let name = shelf.create("flowers", json!({"type": "index", "url": site.url("/")})).await;
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("installs-person").await;
    let person = Person::new(cluster, &namespace, "person").await;
    let all = json!([{"apiGroups": [""], "verbs": ["*"], "resources": ["secrets", "configmaps"]}]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), all).await;
    let hand = Hand { namespace: &namespace, ..shelf.by(&person.token) };
    let answer = hand.act("install", "mine", &[], wanted(&name, "^1")).await;
    assert!(matches!(answer.status, 403 | 404), "{}: {}", answer.status, answer.text());
    assert_eq!(site.count(&Method::GET, "/charts/"), 0);

    let map = format!("binnacle.repository.{name}");
    let rules = json!([{
        "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": [map],
    }]);
    grant(cluster, Some(&shelf.namespace), "reader", person.subject.clone(), rules).await;
    let may = || async {
        let answer = hand.get(&format!("chart/{name}/lily")).await;
        answer.status == 200
    };
    Cluster::eventually("the person may read the repository", may).await;
    hand.succeeds("install", "mine", wanted(&name, "^1")).await;
    assert_eq!(hand.rows().await["mine"][2], "lily-1.10.0");
    shelf.close().await;
}

#[tokio::test]
async fn both_versions_of_helm_install_and_upgrade_from_the_catalogue() {
    let site = Site::of(None, Wants::Nothing, &Pages::of("", &lilies())).await;
    let cluster = cluster::shared().await;
    let first = Shelf::open("installs-both", &[&site]).await;
    let name = first.create("flowers", json!({"type": "index", "url": site.url("/")})).await;
    for major in BOTH {
        let mut options = options(major);
        options.extra.extend(["--settings-namespace".into(), first.namespace.clone()]);
        options.extra.extend(["--chart-hosts".into(), site.host()]);
        let gateway = gateway::start(options).await;
        let namespace = cluster.namespace(&format!("installs-helm{major}")).await;
        let hand = Hand { gateway: &gateway, token: first.token, namespace: &namespace };
        let has_it = || async { hand.get(&format!("chart/{name}/lily")).await.status == 200 };
        Cluster::eventually("the repository is read", has_it).await;
        hand.succeeds("install", "one", wanted(&name, "1.2.0")).await;
        let body = wanted(&name, "*");
        hand.succeeds("upgrade", "one", body).await;
        hand.agrees_with_helm(major, "after an upgrade from the catalogue").await;
        assert_eq!(hand.rows().await["one"][..3], ["2", "deployed", "lily-2.0.0"]);
        let map = format!("/api/v1/namespaces/{namespace}/configmaps/one");
        let map = live(cluster, &map).await.unwrap();
        assert_eq!(map["data"], json!({"petals": "6", "version": "2.0.0"}));
        gateway.stop().await;
    }
    first.close().await;
}

#[tokio::test]
async fn what_is_changed_behind_a_version_is_not_installed() {
    let pages = Pages::of("", &lilies());
    let site = Site::of(None, Wants::Nothing, &pages).await;
    let shelf = Shelf::open("installs-swapped", &[&site]).await;
    let name = shelf.create("flowers", json!({"type": "index", "url": site.url("/")})).await;
    let other = lily("1.2.0").bytes.len();
    let files = [("templates/map.yaml", "{{ fail \"not what was looked at\" }}\n")];
    let swapped = Pack::new("lily", "1.2.0", &files);
    assert_ne!(swapped.bytes.len(), other);
    pages.put("/charts/lily-1.2.0.tgz", "application/gzip", swapped.bytes.clone());
    let answer = shelf.hand().act("install", "swapped", &[], wanted(&name, "1.2.0")).await;
    let (status, text) = (answer.status, answer.text());
    assert!(status >= 400 && status != 401 && status != 500, "{status}: {text}");
    for digest in [lily("1.2.0").digest, swapped.digest] {
        assert!(text.contains(&digest), "{digest} in {text}");
    }
    assert_eq!(shelf.hand().status("swapped").await, "");
    shelf.close().await;
}

/// A chart with this schema of its values.
fn tulip(schema: &str) -> Vec<u8> {
    let files = [
        ("templates/map.yaml", MAP),
        ("values.yaml", "petals: 6\n"),
        ("values.schema.json", schema),
    ];
    chart("tulip", "1.0.0", &files)
}

/// A chart with one within it that has this schema, as a folder or as an archive.
fn bouquet(schema: &str, is_packed: bool) -> Vec<u8> {
    let about = |name: &str| format!("apiVersion: v2\nname: {name}\nversion: 1.0.0\n");
    let (outer, inner) = (about("bouquet"), about("tulip"));
    let files = [("Chart.yaml", inner.as_str()), ("values.schema.json", schema)];
    let outer = ("bouquet/Chart.yaml", outer.as_bytes());
    if is_packed {
        let inner = chart("tulip", "1.0.0", &files[1..]);
        return packed(&[outer, ("bouquet/charts/tulip.tgz", &inner)]);
    }
    let paths = files.map(|(path, _)| format!("bouquet/charts/tulip/{path}"));
    let inner = [0, 1].map(|at| (paths[at].as_str(), files[at].1.as_bytes()));
    packed(&[outer, inner[0], inner[1]])
}

#[tokio::test]
async fn what_a_schema_refers_to_elsewhere_is_not_asked_for_and_told() {
    let spy = Site::of(None, Wants::Nothing, &Pages::of("", &[])).await;
    let at = spy.url("/secret");
    let refers = |to: &str| json!({"properties": {"petals": {"$ref": to}}}).to_string();
    let away = refers(&at);
    let based = json!({"$id": spy.url("/values.json"), "not": {"$ref": "secret"}}).to_string();
    let hidden = json!({"$id": spy.url("/secret?"), "not": {"$ref": "#/properties"}}).to_string();
    let own = "values.schema.json";
    let cases = [
        (tulip(&away), own, at.clone()),
        (tulip(&json!({ "$schema": at }).to_string()), own, at.clone()),
        (tulip(&based), own, "secret".into()),
        (tulip(&hidden), own, spy.url("/secret?")),
        (tulip(&refers("file:///etc/hostname")), own, "file:///etc/hostname".into()),
        (bouquet(&away, false), "charts/tulip/values.schema.json", at.clone()),
        (bouquet(&away, true), "charts/tulip.tgz/values.schema.json", at.clone()),
    ];
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("installs-elsewhere").await;
    let token = cluster.token("admin");
    for major in BOTH {
        // Helm itself asks whoever is named.
        let asked = spy.asked().len();
        helm(major, token, &tulip(&away), &["template", "one", "chart.tgz"]).await;
        helm(major, token, &tulip(&hidden), &["template", "one", "chart.tgz"]).await;
        assert_eq!(spy.asked().len(), asked + 2, "helm {major}");

        let gateway = gateway::start(options(major)).await;
        let hand = Hand { gateway: &gateway, token, namespace: &namespace };
        for (chart, file, reference) in &cases {
            let mut body = json!({"chart": archive(chart), "values": {"tulip": {"petals": 1}}});
            let installed = hand.act("install", "none", &[], body.clone()).await;
            body["install"] = true.into();
            let upgraded = hand.act("upgrade", "none", &[], body.clone()).await;
            body.as_object_mut().unwrap().remove("install");
            body["act"] = "install".into();
            let path = format!("{}/preview", hand.at("none"));
            let shown = hand.send(Method::POST, &path, &[], &body).await;
            for answer in [installed, upgraded, shown] {
                let text = answer.text();
                assert_eq!(answer.status, 422, "{file} {reference}: {text}");
                for word in [*file, reference.as_str(), "skipSchemaValidation"] {
                    assert!(text.contains(word), "{word} is not in: {text}");
                }
            }
        }
        assert_eq!(hand.status("none").await, "");
        let release = format!("skips-{major}");
        let body = json!({"chart": archive(&tulip(&away)), "skipSchemaValidation": true});
        hand.succeeds("install", &release, body.clone()).await;
        hand.succeeds("upgrade", &release, body).await;
        assert_eq!(spy.asked().len(), asked + 2, "our helm {major}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_schema_that_refers_to_itself_is_kept_and_holds() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("installs-within").await;
    let count = json!({"type": "integer", "minimum": 1});
    let seven = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"petals": {"$ref": "#/definitions/count"}},
        "definitions": {"count": count},
    });
    let id = "http://127.0.0.1:1/charts/values.json";
    let newest = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": id,
        "properties": {"petals": {"$ref": "#/$defs/count"}},
        "$defs": {"count": count, "all": {"$dynamicRef": "#name", "$anchor": "name"}},
    });
    for major in BOTH {
        let gateway = gateway::start(options(major)).await;
        let token = cluster.token("admin");
        let hand = Hand { gateway: &gateway, token, namespace: &namespace };
        for (name, schema) in [("seven", &seven), ("newest", &newest)] {
            let chart = archive(&tulip(&schema.to_string()));
            let name = format!("{name}-{major}");
            hand.succeeds("install", &name, json!({ "chart": chart })).await;
            let body = json!({"chart": chart, "values": {"petals": 0}});
            let ended = hand.done("upgrade", &name, body).await;
            assert_eq!(ended["error"]["class"], "values-invalid", "{ended}");
            assert!(ended.to_string().contains("petals"), "{ended}");
        }
        gateway.stop().await;
    }
}
