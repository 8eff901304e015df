//! Reads of releases that the real helm 4 and helm 3 made, against what helm itself says of them,
//! and who sees which.
//!
//! It is NOT where releases are changed through us (`release_writes.rs`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Options};
use crate::helm_charts::{
    BOTH, Hand, archive, helm, hookfail, made, options, rows, small, told, web,
};
use crate::people::{Person, create, delete, grant};
use crate::writes::live;

/// `web` in two revisions, `old` uninstalled with its history kept, `hooked` failed.
async fn past(major: u32, namespace: &str) {
    let token = cluster::shared().await.token("admin");
    let run = async |chart: &[u8], args: &[&str]| {
        made(major, token, chart, &[args, &["-n", namespace]].concat()).await
    };
    let web = web();
    run(&web, &["install", "web", "chart.tgz", "--set", "message=one"]).await;
    let args = ["--set", "message=two,replicas=2", "--wait", "--timeout", "60s"];
    run(&web, &[&["upgrade", "web", "chart.tgz"][..], &args].concat()).await;
    run(&small(), &["install", "old", "chart.tgz"]).await;
    run(&[], &["uninstall", "old", "--keep-history"]).await;
    let failed = ["install", "hooked", "chart.tgz", "-n", namespace];
    assert!(!helm(major, token, &hookfail(), &failed).await.status.success());
}

#[tokio::test]
async fn what_is_read_of_a_release_is_what_helm_says_of_it() {
    let cluster = cluster::shared().await;
    join_all(BOTH.map(|major| async move {
        let namespace = cluster.namespace(&format!("reads-helm{major}")).await;
        past(major, &namespace).await;
        // With the cache, and without any helm: reads need none.
        let gateway = gateway::start(Options::default()).await;
        let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
        hand.agrees_with_helm(major, "after the past").await;
        let status = |rows: &Value| -> Vec<String> {
            let rows = rows["releases"].as_array().unwrap().iter();
            let of = |row: &Value| (row["objectMeta"]["name"].clone(), row["status"].clone());
            rows.map(of).map(|(name, status)| format!("{name} {status}").replace('"', "")).collect()
        };
        let list = hand.get(&format!("release/{namespace}?sortBy=a,name")).await.json();
        let shown = status(&list);
        assert_eq!(shown, ["hooked failed", "old uninstalled", "web deployed"]);
        assert_eq!(list["listMeta"]["totalItems"], 3);
        let list = hand.get(&format!("release/{namespace}?all=true&filterBy=name,web")).await;
        let mut shown = status(&list.json());
        shown.sort();
        assert_eq!(shown, ["web deployed", "web superseded"]);
        parts(&hand, major).await;
        failed(&hand).await;
        gateway.stop().await;
    }))
    .await;
}

/// Each route of a release beside the command of helm that tells the same.
async fn parts(hand: &Hand<'_>, major: u32) {
    let at = hand.at("web");
    let said = async |args: &[&str]| {
        let args = [args, &["-n", hand.namespace]].concat();
        made(major, hand.token, &[], &args).await
    };
    for revision in ["", "1"] {
        let mut which = vec!["web"];
        let mut query = String::new();
        if !revision.is_empty() {
            which.extend(["--revision", revision]);
            query = format!("?revision={revision}");
        }
        let values = hand.get(&format!("{at}/values{query}")).await.json();
        let args = [&["get", "values"][..], &which, &["-o", "json"]].concat();
        let user: Value = serde_json::from_str(&said(&args).await).unwrap();
        assert_eq!(values["user"], user, "helm {major}");
        let all: Value =
            serde_json::from_str(&said(&[&args[..], &["--all"]].concat()).await).unwrap();
        assert_eq!(values["computed"], all, "helm {major}");
        for part in ["manifest", "notes"] {
            let answer = hand.get(&format!("{at}/{part}{query}")).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let by_helm = said(&[&["get", part][..], &which].concat()).await;
            let by_helm = by_helm.trim().trim_start_matches("NOTES:").trim();
            assert_eq!(answer.text().trim(), by_helm, "{part} of helm {major}");
        }
    }
    let answer = hand.get(&format!("{at}/hooks")).await;
    assert!(answer.text().contains("web-test"), "{}", answer.text());

    let ours = hand.get(&format!("{at}/history")).await.json();
    let args = ["history", "web", "-n", hand.namespace];
    let helms = told(major, hand.token, &args).await;
    let (ours, helms) = (ours["history"].as_array().unwrap(), helms.as_array().unwrap());
    assert_eq!(ours.len(), helms.len());
    for helm in helms {
        let one = ours.iter().find(|one| one["revision"] == helm["revision"]).unwrap();
        for key in ["status", "description"] {
            assert_eq!(one[key], helm[key], "helm {major}: {one}");
        }
    }
    details(hand, major).await;
}

async fn details(hand: &Hand<'_>, major: u32) {
    let cluster = cluster::shared().await;
    let at = hand.at("web");
    let detail = hand.get(&at).await.json();
    let method = if major == 4 { "ssa" } else { "csa" };
    assert_eq!(detail["applyMethod"], method, "{detail}");
    assert_eq!(detail["chart"]["name"], "web");
    assert_eq!(detail["chart"]["version"], "1.2.0");
    assert_eq!(detail["chart"]["home"], "https://example.org/web");
    assert_eq!((&detail["revision"], &detail["status"]), (&json!(2), &json!("deployed")));
    assert_eq!((&detail["stuck"], &detail["operation"]), (&Value::Null, &Value::Null));
    assert!(detail["notes"].as_str().unwrap().contains("Say two to web."), "{detail}");
    assert!(detail["urls"].to_string().contains("http://web.example.org"), "{}", detail["urls"]);
    assert!(detail["services"].to_string().contains("web"), "{}", detail["services"]);
    let first = hand.get(&format!("{at}?revision=1")).await.json();
    assert_eq!((&first["revision"], &first["status"]), (&json!(1), &json!("superseded")));
    let missing = hand.get(&format!("{at}?revision=9")).await;
    assert_eq!(missing.status, 404, "{}", missing.text());
    let nobody = hand.get(&hand.at("no-such-release")).await;
    assert_eq!(nobody.status, 404, "{}", nobody.text());
    let chart = hand.get(&format!("{at}/chart")).await.json();
    assert!(chart["readme"].as_str().unwrap().contains("It says something."), "{chart}");
    assert_eq!(chart["values"]["message"], "hello");
    assert_eq!(chart["schema"]["type"], "object");

    delete(cluster, &format!("/api/v1/namespaces/{}/configmaps/web", hand.namespace)).await;
    let state = |list: &Value, kind: &str| {
        let all = list["resources"].as_array().unwrap_or_else(|| panic!("{list}"));
        let found = all.iter().find(|one| one["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind} in {list}"))["state"].clone()
    };
    let list = hand.get(&format!("{at}/resource")).await.json();
    assert_eq!(state(&list, "ConfigMap"), "missing", "{list}");
    assert_eq!(state(&list, "Deployment"), "ready", "{list}");
    let pods = hand.get(&format!("{at}/pod")).await.json();
    let names = pods["pods"].as_array().unwrap_or_else(|| panic!("{pods}"));
    let is_of_web = |pod: &Value| pod["objectMeta"]["name"].as_str().unwrap().starts_with("web-");
    assert!(names.len() == 2 && names.iter().all(is_of_web), "{pods}");
}

/// A release that failed is no error of ours.
async fn failed(hand: &Hand<'_>) {
    let answer = hand.get(&hand.at("hooked")).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("failed")));
    let detail = answer.json();
    assert!(detail["description"].as_str().unwrap().contains("pre-install"), "{detail}");
    let answer = hand.get(&hand.at("old")).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("uninstalled")));
    assert!(answer.json()["deleted"].is_string(), "{}", answer.text());
}

#[tokio::test]
async fn each_sees_the_releases_of_the_namespaces_whose_secrets_he_may_list() {
    let cluster = cluster::shared().await;
    let (mine, theirs) = (cluster.namespace("mine").await, cluster.namespace("theirs").await);
    let admin = cluster.token("admin");
    for namespace in [&mine, &theirs] {
        made(4, admin, &small(), &["install", "it", "chart.tgz", "-n", namespace]).await;
    }
    let person = Person::new(cluster, &mine, "person").await;
    let rules = json!([{"apiGroups": [""], "verbs": ["get", "list"], "resources": ["secrets"]}]);
    grant(cluster, Some(&mine), "person", person.subject.clone(), rules).await;
    let stranger = Person::new(cluster, &mine, "stranger").await;
    let rules = json!([{"apiGroups": [""], "verbs": ["get", "list"], "resources": ["pods"]}]);
    grant(cluster, Some(&mine), "stranger", stranger.subject.clone(), rules).await;
    let gateway = gateway::start(Options { shared_cache: true, ..options(4) }).await;
    let hand = Hand { gateway: &gateway, token: &person.token, namespace: &mine };
    assert_eq!(hand.rows().await.len(), 1);
    let both = hand.get(&format!("release/{mine},{theirs}")).await;
    assert_eq!((both.status, rows(&both.json()).len()), (200, 1), "{}", both.text());
    assert_eq!(both.json()["releases"][0]["objectMeta"]["namespace"], mine.as_str());
    assert_eq!(both.json()["errors"].as_array().unwrap().len(), 1, "{}", both.text());
    let all = hand.get("release").await;
    assert_eq!((all.status, rows(&all.json()).len()), (200, 1), "{}", all.text());
    assert_eq!(all.json()["releases"][0]["objectMeta"]["namespace"], mine.as_str());
    let other = hand.get(&format!("release/{theirs}/it")).await;
    assert_eq!(other.status, 403, "{}", other.text());

    let hand = Hand { token: &stranger.token, ..hand };
    let answer = hand.get(&format!("release/{mine}")).await;
    assert!(answer.text().contains("secrets is forbidden"), "{}", answer.text());
    assert!(answer.status == 403 || rows(&answer.json()).is_empty(), "{}", answer.text());
    for part in ["", "/values", "/manifest", "/notes", "/history", "/resource"] {
        let answer = hand.get(&format!("{}{part}", hand.at("it"))).await;
        assert_eq!(answer.status, 403, "{part}: {}", answer.text());
        assert!(answer.text().contains("secrets"), "{part}: {}", answer.text());
    }
    // Neither who may not even read them nor who may only read them changes a thing.
    for token in [&stranger.token, &person.token] {
        let hand = Hand { token, ..hand };
        for (act, name) in
            [("install", "new"), ("upgrade", "it"), ("rollback", "it"), ("uninstall", "it")]
        {
            let body = match act {
                "install" | "upgrade" => json!({"chart": archive(&small())}),
                "rollback" => json!({"revision": 1}),
                _ => json!({}),
            };
            let answer = hand.act(act, name, &[], body).await;
            assert_eq!(answer.status, 403, "{act}: {}", answer.text());
            assert!(answer.text().contains("secrets"), "{act}: {}", answer.text());
        }
    }
    let list = live(cluster, &format!("/api/v1/namespaces/{mine}/secrets")).await.unwrap();
    let names = list["items"].as_array().unwrap().iter().map(|one| &one["metadata"]["name"]);
    let names: Vec<_> = names.collect();
    assert_eq!(names, ["sh.helm.release.v1.it.v1"], "neither a lock nor a revision more");
}

#[tokio::test]
async fn releases_are_sorted_filtered_and_paged_by_what_their_charts_are() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("columns").await;
    let admin = cluster.token("admin");
    let install = async |name: &str, chart: &[u8]| {
        made(4, admin, chart, &["install", name, "chart.tgz", "-n", &namespace]).await
    };
    let (small, web) = (small(), web());
    tokio::join!(install("a", &web), install("b", &small), install("c", &web));
    made(4, admin, &small, &["upgrade", "b", "chart.tgz", "-n", &namespace]).await;
    let gateway = gateway::start(Options::default()).await;
    let hand = Hand { gateway: &gateway, token: admin, namespace: &namespace };
    for (query, wanted) in [
        ("sortBy=a,chart,a,name", "b a c of 3"),
        ("sortBy=d,chart,d,name", "c a b of 3"),
        ("sortBy=d,revision,a,name", "b a c of 3"),
        ("sortBy=d,revision&itemsPerPage=1&page=1", "b of 3"),
        ("filterBy=chart,web&sortBy=a,name", "a c of 2"),
        ("filterBy=chartVersion,0.1.0&sortBy=a,name", "b of 1"),
        ("filterBy=status,failed", " of 0"),
        ("sortBy=a,name&itemsPerPage=2&page=2", "c of 3"),
    ] {
        let list = hand.get(&format!("release/{namespace}?{query}")).await.json();
        let all = list["releases"].as_array().unwrap_or_else(|| panic!("{query}: {list}"));
        let names = all.iter().map(|row| row["objectMeta"]["name"].as_str().unwrap());
        let names: Vec<_> = names.collect();
        let found = format!("{} of {}", names.join(" "), list["listMeta"]["totalItems"]);
        assert_eq!(found, wanted, "{query}");
    }
}

#[tokio::test]
async fn releases_of_helm_2_are_shown_as_legacy() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("tiller").await;
    for (version, status) in [("1", "SUPERSEDED"), ("2", "DEPLOYED")] {
        let labels =
            json!({"OWNER": "TILLER", "NAME": "old", "STATUS": status, "VERSION": version});
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"release": "H4sIAAAAAAAA"},
            "metadata": {"name": format!("old.v{version}"), "labels": labels},
        });
        create(cluster, &format!("/api/v1/namespaces/{namespace}/configmaps"), object).await;
    }
    let admin = cluster.token("admin");
    made(4, admin, &small(), &["install", "new", "chart.tgz", "-n", &namespace]).await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: admin, namespace: &namespace };
    // A list of ConfigMaps that is kept may be a moment behind.
    let both = || async {
        let list = hand.get(&format!("release/{namespace}?sortBy=a,name")).await.json();
        let all = list["releases"].as_array().unwrap_or_else(|| panic!("{list}"));
        let each = all.iter().map(|row| (&row["objectMeta"]["name"], &row["legacy"]));
        each.eq([(&json!("new"), &json!(false)), (&json!("old"), &json!(true))])
    };
    Cluster::eventually("the release of Helm 2 is listed beside the other", both).await;
    let list = hand.get(&format!("release/{namespace}?filterBy=name,old")).await.json();
    assert_eq!(list["releases"][0]["revision"], 2, "{list}");
    let answer = hand.act("uninstall", "old", &[], json!({})).await;
    assert!(matches!(answer.status, 404 | 409 | 422), "{}: {}", answer.status, answer.text());
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/old.v2");
    assert!(live(cluster, &path).await.is_some());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_costs_its_own_facts_alone() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("torn-record").await;
    let admin = cluster.token("admin");
    made(4, admin, &small(), &["install", "whole", "chart.tgz", "-n", &namespace]).await;
    for (name, blob) in [("text", "no blob"), ("cut", "H4sIAAAAAAAA/w=="), ("empty", "")] {
        let labels = json!({"owner": "helm", "name": name, "status": "deployed", "version": "1"});
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
            "metadata": {"name": format!("sh.helm.release.v1.{name}.v1"), "labels": labels},
            "data": {"release": STANDARD.encode(blob)},
        });
        create(cluster, &format!("/api/v1/namespaces/{namespace}/secrets"), object).await;
    }
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: admin, namespace: &namespace };
    let list = hand.get(&format!("release/{namespace}?sortBy=a,name")).await;
    assert_eq!(list.status, 200, "{}", list.text());
    let list = list.json();
    let row = |name: &str| {
        let rows = list["releases"].as_array().unwrap();
        rows.iter().find(|row| row["objectMeta"]["name"] == name).unwrap().clone()
    };
    assert_eq!(row("whole")["chart"], "small");
    for name in ["text", "cut", "empty"] {
        assert_eq!((&row(name)["status"], &row(name)["revision"]), (&json!("deployed"), &json!(1)));
        assert!(row(name)["chart"].as_str().is_none_or(str::is_empty), "{}", row(name));
        let answer = hand.get(&hand.at(name)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let detail = answer.json();
        let words = detail["errors"][0]["ErrStatus"]["message"].as_str().unwrap_or_default();
        let secret = format!("sh.helm.release.v1.{name}.v1");
        assert!(words.contains(&secret) && words.contains("cannot be read"), "{detail}");
        for part in ["values", "manifest", "notes", "hooks", "chart"] {
            let answer = hand.get(&format!("{}/{part}", hand.at(name))).await;
            assert_eq!(answer.status, 502, "{name}/{part}: {}", answer.text());
        }
    }
}
