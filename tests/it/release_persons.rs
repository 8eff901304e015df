//! What an act is done with: the rights of whom an administrator impersonates, the helm that is
//! found, and what a person says of it besides the chart, as the objects and helm itself show it.
//!
//! It is NOT where the rights of who signs in himself are missing (`release_denials.rs`).

use std::os::unix::fs::symlink;

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway;
use crate::helm_charts::{BOTH, Hand, archive, made, options, program, small, told, web};
use crate::people::{Person, create, grant, user};
use crate::release_writes::with;
use crate::spawned::{self, Binary};
use crate::writes::live;

#[tokio::test]
async fn an_act_has_the_rights_of_whom_an_administrator_impersonates() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("as-another").await;
    let gateway = gateway::start(options(4)).await;
    let admin = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let jane = format!("jane-of-{namespace}");
    let rules =
        json!([{"apiGroups": [""], "verbs": ["*"], "resources": ["secrets", "configmaps"]}]);
    grant(cluster, Some(&namespace), "jane", user(&jane), rules).await;
    let as_jane = [("impersonate-user", jane.as_str())];
    let at = admin.at("web");
    let may = || async { admin.send(Method::GET, &at, &as_jane, &Value::Null).await.status == 404 };
    Cluster::eventually("she may read releases", may).await;

    // Who asks how it goes is the administrator as himself: that lends it no right of his.
    let answer = admin.act("install", "web", &as_jane, with(json!({"message": "one"}))).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let ended = admin.ended(&answer.json()).await;
    assert_eq!([&ended["state"], &ended["error"]["class"]], ["failed", "forbidden"], "{ended}");
    assert_eq!(ended["holder"]["user"], jane.as_str(), "{ended}");
    let detail = ended["error"]["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("User \"{jane}\" cannot")), "{detail}");
    assert_eq!(admin.status("web").await, "");
    let map = format!("/api/v1/namespaces/{namespace}/configmaps/web");
    assert!(live(cluster, &map).await.is_none());

    let body = json!({"chart": archive(&small())});
    let answer = admin.act("install", "hers", &as_jane, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let ended = admin.ended(&answer.json()).await;
    assert_eq!([&ended["state"], &ended["holder"]["user"]], ["succeeded", &jane], "{ended}");
    let ended = admin.succeeds("install", "web", with(json!({"message": "one"}))).await;
    assert_eq!(ended["holder"]["user"], "token-admin", "{ended}");
    assert!(live(cluster, &map).await.is_some());
    admin.agrees_with_helm(4, "hers and his").await;
}

#[tokio::test]
async fn who_may_not_impersonate_is_refused_and_nothing_is_made() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("no-other").await;
    let gateway = gateway::start(options(4)).await;
    let person = Person::new(cluster, &namespace, "person").await;
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), rules).await;
    let hand = Hand { gateway: &gateway, token: &person.token, namespace: &namespace };
    let at = hand.at("mine");
    let may = || async { hand.get(&at).await.status == 404 };
    Cluster::eventually("he may act himself", may).await;
    hand.succeeds("install", "mine", json!({"chart": archive(&small())})).await;
    let secrets = format!("/api/v1/namespaces/{namespace}/secrets");
    let before = live(cluster, &secrets).await.unwrap()["items"].clone();

    let account = format!("system:serviceaccount:{namespace}:default");
    let group = ("impersonate-group", "system:masters");
    for other in [
        &[("impersonate-user", "token-admin")][..],
        &[("impersonate-user", "token-admin"), group],
        &[("impersonate-user", "nobody"), group],
        &[("impersonate-user", account.as_str())],
    ] {
        for (act, name, body) in [
            ("install", "forged", json!({"chart": archive(&small())})),
            ("upgrade", "mine", json!({"chart": archive(&small())})),
            ("rollback", "mine", json!({"revision": 1})),
            ("test", "mine", json!({})),
            ("uninstall", "mine", json!({})),
            ("protect", "mine", json!({})),
            ("unprotect", "mine", json!({})),
        ] {
            let answer = hand.act(act, name, other, body).await;
            assert_eq!(answer.status, 403, "{act} as {other:?}: {}", answer.text());
            assert!(answer.text().contains("impersonate"), "{act}: {}", answer.text());
        }
    }
    let after = live(cluster, &secrets).await.unwrap()["items"].clone();
    assert!(after == before, "neither a lock nor a record is another than it was: {after}");
}

#[tokio::test]
async fn helm_is_found_on_the_path_where_nobody_says_where_it_is() {
    let cluster = cluster::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let folders = ["none", "bin"].map(|name| folder.path().join(name));
    folders.iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    // What cannot be executed is passed over, as a shell does.
    std::fs::write(folders[0].join("helm"), "no program").unwrap();
    symlink(program(3), folders[1].join("helm")).unwrap();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = folders.into_iter().chain(std::env::split_paths(&rest));
    let mut command = spawned::command(folder.path());
    command.env("PATH", std::env::join_paths(all).unwrap());
    let kubeconfig = format!("--kubeconfig={}", cluster.kubeconfig("admin").display());
    let args = [kubeconfig.as_str(), "--shared-cache=false"];
    let binary = Binary::of(command, folder.path(), &args).await;
    let answer = binary.get("/api/v1/integration/helm/state", cluster.token("admin")).await;
    let state = answer.json();
    let args = ["version", "--template", "{{.Version}}"];
    let version = made(3, cluster.token("admin"), &[], &args).await;
    assert_eq!((&state["connected"], &state["version"]), (&json!(true), &json!(version.trim())));
}

#[tokio::test]
async fn what_is_said_of_an_act_besides_its_chart_shows_in_what_is_made() {
    let cluster = cluster::shared().await;
    join_all(BOTH.map(|major| async move {
        let gateway = gateway::start(options(major)).await;
        let namespace = cluster.namespace(&format!("besides{major}")).await;
        let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
        tokio::join!(set(&hand, major), without_hooks(&hand), unwaited(&hand), adopted(&hand));
        hand.agrees_with_helm(major, "after all of them").await;
        gateway.stop().await;
    }))
    .await;
}

/// Pairs become the types that helm's own flags make of them, over the values beside them.
async fn set(hand: &Hand<'_>, major: u32) {
    let cluster = cluster::shared().await;
    let pairs = ["replicas=2", "flag=true", "gone=null", "list={1,two}", "a.b=c", "zip=007"];
    let texts = ["message=7", "sure=true"];
    let mut body = with(json!({"a": {"b": "x", "d": 2}}));
    body["set"] = json!(pairs);
    body["setString"] = json!(texts);
    hand.succeeds("install", "pairs", body).await;
    let wanted = json!({
        "a": {"b": "c", "d": 2}, "flag": true, "gone": null, "list": [1, "two"], "message": "7",
        "replicas": 2, "sure": "true", "zip": "007",
    });
    let ours = hand.get(&format!("{}/values", hand.at("pairs"))).await.json();
    assert_eq!(ours["user"], wanted, "helm {major}");
    let computed = &ours["computed"];
    assert_eq!((&computed["replicas"], &computed["fate"]), (&json!(2), &json!("none")));
    let mut args =
        vec!["install", "flags", "chart.tgz", "-n", hand.namespace, "--set", "a.b=x,a.d=2"];
    args.extend(pairs.iter().flat_map(|pair| ["--set", *pair]));
    args.extend(texts.iter().flat_map(|text| ["--set-string", *text]));
    made(major, hand.token, &web(), &args).await;
    for name in ["pairs", "flags"] {
        let args = ["get", "values", name, "-n", hand.namespace];
        assert_eq!(told(major, hand.token, &args).await, wanted, "helm {major}: {name}");
    }
    let at = |kind: &str| format!("namespaces/{}/{kind}/pairs", hand.namespace);
    let deployment = live(cluster, &format!("/apis/apps/v1/{}", at("deployments"))).await.unwrap();
    assert_eq!(deployment["spec"]["replicas"], 2);
    let map = live(cluster, &format!("/api/v1/{}", at("configmaps"))).await.unwrap();
    assert_eq!(map["data"]["message"], "7");
}

/// Its hook would fail.
async fn without_hooks(hand: &Hand<'_>) {
    let mut body = with(json!({"hook": "fail"}));
    body["hooks"] = false.into();
    hand.succeeds("install", "bare", body).await;
    let cluster = cluster::shared().await;
    let pods = format!("/api/v1/namespaces/{}/pods", hand.namespace);
    assert!(live(cluster, &format!("{pods}/bare-hook")).await.is_none());
    let map = format!("/api/v1/namespaces/{}/configmaps/bare", hand.namespace);
    assert!(live(cluster, &map).await.is_some(), "the rest was made");
}

/// Its pod never is ready.
async fn unwaited(hand: &Hand<'_>) {
    let mut body = with(json!({"fate": "pending"}));
    body["wait"] = "none".into();
    body["timeout"] = "1s".into();
    let ended = hand.succeeds("install", "unwaited", body).await;
    assert_eq!(ended["status"], "deployed", "{ended}");
}

/// What was there before becomes the release's own only if that is said.
async fn adopted(hand: &Hand<'_>) {
    let cluster = cluster::shared().await;
    let maps = format!("/api/v1/namespaces/{}/configmaps", hand.namespace);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned"}});
    let before = create(cluster, &maps, object).await;
    let mut body = json!({"chart": archive(&small()), "values": {"message": "mine now"}});
    let ended = hand.done("install", "owned", body.clone()).await;
    assert_eq!([&ended["state"], &ended["error"]["class"]], ["failed", "conflict"], "{ended}");
    assert_eq!(hand.status("owned").await, "");
    let path = format!("{maps}/owned");
    assert_eq!(live(cluster, &path).await.unwrap().get("data"), None);
    body["takeOwnership"] = true.into();
    hand.succeeds("install", "owned", body).await;
    let after = live(cluster, &path).await.unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "it was not made anew");
    assert_eq!(after["metadata"]["annotations"]["meta.helm.sh/release-name"], "owned");
    assert_eq!(after["data"]["message"], "mine now", "{after}");
}
